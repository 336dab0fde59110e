"""Where the user of a watch waits for events (floor 2).

Owns what was told and not taken yet, and who waits for it.  The user's code never runs in the
middle of what a member tells.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall

from ..errors import ChordError, NotConnected
from ..events import Backlog, Event

__all__ = ["Inbox"]


class Inbox:
    """The events of one watch.

    :param clock: IReactorTime.
    :param most: events that wait, and
    :param most_bytes: bytes that they take.
    :ivar ended: will no more come?
    """

    def __init__(self, clock: Any, most: int, most_bytes: int) -> None:
        self._clock = clock
        self._backlog = Backlog(most, most_bytes)
        self._waiting: Deferred[Event | None] | None = None
        self._readying: set[Deferred[None]] = set()
        self._ready = False
        self._waking: IDelayedCall | None = None
        self._error: ChordError | None = None  # why it ended, if it was not told to
        self.ended = False

    def __len__(self) -> int:
        return len(self._backlog)

    @property
    def room(self) -> bool:
        """Is there room for one more event?"""
        return self._backlog.room

    # -- what comes in

    def put(self, event: Event) -> bool:
        """Something changed; False if that cannot be kept for the user now."""
        if not self._backlog.room:
            return False
        self._backlog.add(event)
        self._wake_soon()
        return True

    def set_ready(self, ready: bool) -> None:
        """Will nothing be missed from now on?"""
        self._ready = ready
        if ready and self._readying:
            self._wake_soon()

    def end(self, error: ChordError | None = None) -> None:
        """Nothing more comes."""
        if not self.ended:
            self.ended, self._error = True, error
            self._wake_soon()

    def clear(self) -> None:
        """Nobody wants what was not taken."""
        self._backlog.clear()

    def stop(self) -> None:
        """As :meth:`end`, with no delayed call left."""
        self.end()
        if self._waking is not None:
            self._waking.cancel()
            self._wake()

    # -- who waits

    def next(self) -> Deferred[Event | None]:
        """The next event; None once it is over.

        :returns: fails with why it ended, if there was a reason.
        """
        if self._backlog:
            return succeed(self._backlog.take())
        if self._error is not None:
            return fail(self._error)
        if self.ended:
            return succeed(None)
        if self._waiting is not None:
            raise RuntimeError("somebody waits for the next event of this watch already")
        self._waiting = Deferred(self._give_up)
        return self._waiting

    def _give_up(self, _: Deferred[Event | None]) -> None:
        self._waiting = None

    def ready(self) -> Deferred[None]:
        """Fires once every change that takes effect from then on will be told."""
        if self.ended:
            return fail(self._error or NotConnected("this watch is over"))
        if self._ready:
            return succeed(None)
        ready: Deferred[None] = Deferred(self._readying.discard)
        self._readying.add(ready)
        return ready

    def _wake_soon(self) -> None:
        if self._waking is None:
            self._waking = self._clock.callLater(0, self._wake)

    def _wake(self) -> None:
        self._waking = None
        waiting = self._waiting
        if waiting is not None and (self._backlog or self.ended):
            self._waiting = None
            if self._backlog:
                waiting.callback(self._backlog.take())
            elif self._error is not None:
                waiting.errback(self._error)
            else:
                waiting.callback(None)
        while self._readying and (self._ready or self.ended):
            ready = self._readying.pop()
            if self.ended:
                ready.errback(self._error or NotConnected("this watch is over"))
            else:
                ready.callback(None)
