"""Noticing that a quorum is slow (floor 2): after a while the rest of the group is asked, too.

Owns one timer for all that is waited for; a settled operation costs no timer of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall

from ..base import Peer
from .core import Core

__all__ = ["Hedge"]

#: A member may take this many round trips, and so many seconds at least.
_ROUND_TRIPS = 4
_LEAST = 0.02


class Waiting(Protocol):
    """What waits for members."""

    rest: Sequence[Peer]  # whom it has not asked yet; none when it is over


T = TypeVar("T", bound=Waiting)


class Hedge(Generic[T]):
    """Calls `slow` for everything whose first members took too long.

    :param slow: told once of each that still has somebody to ask.
    """

    def __init__(self, core: Core, slow: Callable[[T], None]) -> None:
        self._core = core
        self._slow = slow
        self._watched: deque[tuple[float, T, Sequence[Peer]]] = deque()
        self._timer: IDelayedCall | None = None

    def watch(self, waiting: T, asked: Sequence[Peer]) -> None:
        """These members were asked just now."""
        patience = _LEAST
        links = self._core.links
        for peer in asked:
            link = links.get(peer.instance)
            took = None if link is None else link.round_trip
            if took is not None and _ROUND_TRIPS * took > patience:
                patience = _ROUND_TRIPS * took
        now: float = self._core.clock.seconds()
        self._watched.append((now + patience, waiting, waiting.rest))
        if self._timer is None:
            self._timer = self._core.clock.callLater(patience, self._look)

    def _look(self) -> None:
        self._timer = None
        now: float = self._core.clock.seconds()
        watched = self._watched
        while watched and watched[0][0] <= now:
            _, waiting, rest = watched.popleft()
            if waiting.rest is rest and rest:  # still in that round
                self._slow(waiting)
        if watched and self._timer is None:
            self._timer = self._core.clock.callLater(watched[0][0] - now, self._look)

    def stop(self) -> None:
        """Nothing is noticed any more."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
