"""Dialling: one attempt per address at a time, however many wait for it (floor 1).

Owns who waits for which address, and which addresses failed lately.  Never reads a message; that a
dialled peer said HELLO, or why it never will, is reported to :meth:`Dialler.ended`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.python.failure import Failure

from ..base import show_address
from ..errors import ChordError, PeerUnreachable
from ..settings import Settings
from .endpoints import Endpoints, unreachable
from .link import Link

__all__ = ["Address", "Dialler"]

Address = tuple[str, int]


class Dialler:
    """The connections of one node that are being made.

    :param factory: makes the factory of the protocol for an address.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: Settings,
        endpoints: Endpoints,
        factory: Callable[[Address], IProtocolFactory],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._endpoints = endpoints
        self._factory = factory
        self._waiting: dict[Address, list[Deferred[Link]]] = {}
        self._attempts: dict[Address, Deferred[Any]] = {}  # without those that wait for HELLO
        self._failed: dict[Address, float] = {}  # until when not to try again by oneself
        self._stopped = False

    def dial(self, address: Address) -> Deferred[Link]:
        """Connect to an address, or wait for the attempt that is under way.

        :returns: fires once the peer said HELLO; fails with why it did not.
        """
        waiter: Deferred[Link] = Deferred()
        if self._stopped:
            waiter.errback(PeerUnreachable("this node is stopping"))
            return waiter
        waiting = self._waiting.setdefault(address, [])
        waiting.append(waiter)
        if len(waiting) == 1:
            self._connect(address)
        return waiter

    def _connect(self, address: Address) -> None:
        attempt = self._endpoints.connect(*address, self._factory(address))
        self._attempts[address] = attempt
        patience = self._clock.callLater(self._settings.handshake_timeout, attempt.cancel)

        def connected(result: Any) -> None:
            if patience.active():
                patience.cancel()
            self._attempts.pop(address, None)
            if isinstance(result, Failure):
                self.ended(address, unreachable(result, show_address(*address)))

        attempt.addBoth(connected)

    def ended(self, address: Address, result: Link | ChordError) -> None:
        """The attempt to connect to this address is over: tell those that wait."""
        if isinstance(result, Link):
            self._failed.pop(address, None)
        else:
            self.avoid(address, self._settings.retry_max)
        for waiter in self._waiting.pop(address, []):
            if isinstance(result, Link):
                waiter.callback(result)
            else:
                waiter.errback(result)

    def avoid(self, address: Address, seconds: float) -> None:
        """Take an address for unreachable for a while: it failed, or its node fell silent."""
        if len(self._failed) > self._settings.connections:
            self._failed.clear()
        self._failed[address] = self._clock.seconds() + seconds

    def failed(self, address: Address) -> bool:
        """Did the last attempt fail?"""
        return address in self._failed

    def failed_just_now(self, address: Address) -> bool:
        """Did the last attempt fail so lately that another one would only cost time?"""
        until = self._failed.get(address)
        return until is not None and self._clock.seconds() < until

    def stop(self) -> None:
        """Give up all attempts and begin no other."""
        self._stopped = True
        for attempt in list(self._attempts.values()):
            attempt.cancel()
