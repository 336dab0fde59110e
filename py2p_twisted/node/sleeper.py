"""Waiting in coroutines, and the end of it when the node stops (floor 2)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..errors import NotConnected

__all__ = ["Sleeper"]


class Sleeper:
    """Everything that waits for time to pass.

    :param clock: IReactorTime.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._asleep: dict[Deferred[None], IDelayedCall] = {}

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after that long; can be cancelled, and fails if the node stops meanwhile."""
        deferred: Deferred[None] = Deferred(self._awake)
        self._asleep[deferred] = self._clock.callLater(seconds, self._wake, deferred)
        return deferred

    def _wake(self, deferred: Deferred[None]) -> None:
        del self._asleep[deferred]
        deferred.callback(None)

    def _awake(self, deferred: Deferred[None]) -> None:
        self._asleep.pop(deferred).cancel()

    def stop(self) -> None:
        """Nothing is waited for any more."""
        for deferred in list(self._asleep):
            self._awake(deferred)
            deferred.errback(NotConnected("this node was stopped"))
