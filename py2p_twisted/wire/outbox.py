"""Who of a node's connections writes, and reads on, in one turn of the reactor (floor 1).

Owns the batching of writes, and the turns of those who sent much.  Never touches a transport.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

if TYPE_CHECKING:
    from .protocol import MessageProtocol

__all__ = ["Outbox"]


class Outbox:
    """What the connections of one node have to write at the end of the reactor's turn.

    Messages that one turn makes for one peer leave in one write.

    :ivar clock: tells a connection how long its turn took.
    :ivar queued_bytes: what all connections have to send, and their peers have not taken yet.
    :ivar busy: requests that were refused because there was too much to do.
    """

    log = Logger()
    #: Bytes that may be queued for all peers together before each is allowed a small share only.
    most_queued_bytes = 64 * 1024 * 1024
    #: Seconds of one turn of the reactor that what one peer sent may take; the message that goes
    #: over it is the last one of that turn.
    share = 0.001
    #: How many of those who have sent more than that go on in one turn.
    at_once = 8
    #: Seconds that what arrived may wait for its turn; whoever waited longer is told that the node
    #: is busy, which costs a fraction of doing what it asks.
    most_wait = 0.1

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.queued_bytes = 0
        self.busy = 0
        self._waiting: list[MessageProtocol] = []
        self._unfinished: deque[MessageProtocol] = deque()
        self._depth = 0
        self._call: IDelayedCall | None = None

    @property
    def crowded(self) -> bool:
        """Is so much queued for all peers together that each has to do with little?"""
        return self.queued_bytes > self.most_queued_bytes

    def add(self, protocol: MessageProtocol) -> None:
        """`protocol` has something to write."""
        self._waiting.append(protocol)
        if not self._depth:
            self._call_soon()

    def go_on_later(self, protocol: MessageProtocol) -> None:
        """`protocol` has received more than it may deal with in one turn of the reactor."""
        self._unfinished.append(protocol)
        self._call_soon()

    def _call_soon(self) -> None:
        if self._call is None:
            self._call = self.clock.callLater(0, self._turn)

    def enter(self) -> None:
        """Something arrived; what is answered meanwhile is written by :meth:`leave`."""
        self._depth += 1

    def leave(self) -> None:
        """All that arrived is dealt with."""
        self._depth -= 1
        if self._waiting and not self._depth:
            self._write()

    def stop(self) -> None:
        """Leave no delayed call behind: every connection is gone."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _turn(self) -> None:
        self._call = None
        for _ in range(min(self.at_once, len(self._unfinished))):
            protocol = self._unfinished.popleft()
            try:
                protocol.go_on()
            except Exception:  # as Twisted does when dataReceived raises
                self.log.failure("a connection is ended by a mistake in this program")
                protocol.abort()
        if self._unfinished:
            self._call_soon()
        self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for protocol in waiting:
            protocol.flush()
