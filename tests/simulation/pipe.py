"""One direction of a simulated connection: bytes under way, in order (test support).

Owns what was written and has not been read, and when it arrives.  Imports nothing of the product.
The order never changes, and nothing is lost unless the connection is.  What the receiver gets to
see happens on its host's clock: a paused host sees nothing, a dead one never again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Protocol

from .clock import HostClock, SimCall
from .weather import Weather

__all__ = ["WINDOW", "Mark", "Pipe"]

#: Bytes that may be under way before the writer is told to pause; also the largest chunk.
WINDOW = 64 * 1024


class Mark(Enum):
    """What travels besides bytes."""

    OPEN = "open"
    END = "end"
    RESET = "reset"


class _Segment:
    """Something under way: bytes written in one turn, or a mark.

    :ivar arrival: the earliest time; it never overtakes what is ahead of it.
    """

    __slots__ = ("arrival", "mark", "parts", "size")

    def __init__(self, arrival: float, mark: Mark | None, *parts: bytes) -> None:
        self.arrival = arrival
        self.mark = mark
        self.parts = list(parts)
        self.size = sum(map(len, parts))


class End(Protocol):
    """What a pipe needs of the transports at its ends."""

    clock: HostClock
    reading: bool

    def told(self, mark: Mark) -> None:
        """Something other than bytes arrived."""

    def deliver(self, chunk: bytes) -> None:
        """Bytes arrived."""

    def notice_arrival(self) -> None:
        """Some of what this end wrote was read."""

    def break_off(self) -> None:
        """The network resets the connection: both ends will see it."""


class Pipe:
    """One direction of a connection.

    :ivar in_flight: bytes that were written and not yet read.
    """

    def __init__(
        self, weather: Weather, sender: End, receiver: End, route: tuple[str, str]
    ) -> None:
        self.in_flight = 0
        self._weather = weather
        self._sender = sender
        self._receiver = receiver
        self._route = route
        self._queue: deque[_Segment] = deque()
        self._seal: Mark | None = None  # END or RESET, once it is the last thing sent
        self._shut = False  # nobody reads it any more
        self._held = False  # by a cut
        self._turn = -1  # in which the last segment of bytes began
        self._call: SimCall | None = None

    def write(self, data: bytes) -> None:
        """Send bytes; those of one turn travel together."""
        if self._seal or self._shut or not data:
            return
        turn = self._weather.clock.turn
        if self._turn == turn and self._queue and self._queue[-1].mark is None:
            self._queue[-1].parts.append(data)
            self._queue[-1].size += len(data)
        else:
            self._turn = turn
            self._send(None, data)
        self.in_flight += len(data)

    def open(self) -> None:
        """The first thing sent: the other side learns of the connection."""
        self._send(Mark.OPEN)

    def end(self) -> None:
        """Nothing more will be written; what was written still arrives."""
        if not self._seal:
            self._seal = Mark.END
            self._send(Mark.END)

    def reset(self) -> None:
        """Break off: of the bytes under way, only some first part may still arrive."""
        if self._seal is Mark.RESET:
            return
        marks = [segment for segment in self._queue if segment.mark is Mark.OPEN]
        data = [segment for segment in self._queue if segment.mark is None]
        kept = data[: self._weather.rng.randint(0, len(data))]
        self._queue = deque([*marks, *kept])
        self.in_flight = sum(segment.size for segment in kept)
        self._seal = Mark.RESET
        self._stop_expecting()
        self._send(Mark.RESET)

    def shut(self) -> None:
        """The receiver reads no more: drop what comes."""
        self._shut = True
        self._queue.clear()
        self.in_flight = 0
        self._stop_expecting()

    def try_again(self) -> None:
        """See :class:`.weather.Held`: retransmit, after a while."""
        if self._queue:
            pause = self._weather.rng.uniform(*self._weather.options.retransmit)
            self._queue[0].arrival = self._weather.clock.seconds() + pause
        self._held = False
        self.expect()

    def expect(self) -> None:
        """Have the first segment arrive in its time, unless something holds it."""
        waiting = self._call is not None and self._call.active()
        if self._queue and not (waiting or self._held or self._shut):
            pause = max(0.0, self._queue[0].arrival - self._weather.clock.seconds())
            self._call = self._receiver.clock.callLater(pause, self._arrive)

    def _stop_expecting(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _send(self, mark: Mark | None, *parts: bytes) -> None:
        if not self._shut:
            arrival = self._weather.clock.seconds() + self._weather.delay(*self._route)
            self._queue.append(_Segment(arrival, mark, *parts))
            self.expect()

    def _arrive(self) -> None:
        if not self._receiver.reading or not self._queue:
            return
        if self._weather.blocked(*self._route):
            self._held = True
            self._weather.hold(self)
            return
        if (mark := self._queue[0].mark) is not None:
            self._queue.popleft()
            self.expect()
            self._receiver.told(mark)
        elif self._seal is not Mark.RESET and self._weather.chance(
            self._weather.options.reset_rate
        ):
            self._receiver.break_off()
        else:
            chunk = self._next_chunk()
            self.in_flight -= len(chunk)
            self.expect()
            self._sender.notice_arrival()
            self._receiver.deliver(chunk)

    def _next_chunk(self) -> bytes:
        """Take bytes off the queue: what has piled up, less or more of it by chance."""
        options, now = self._weather.options, self._weather.clock.seconds()
        first = self._queue.popleft()
        parts, size = first.parts, first.size
        while self._queue and self._queue[0].mark is None and size < WINDOW:
            if self._queue[0].arrival > now and not self._weather.chance(options.merge_rate):
                break
            following = self._queue.popleft()
            parts += following.parts
            size += following.size
        chunk = b"".join(parts)
        at = min(WINDOW, size)
        if size > 1 and self._weather.chance(options.split_rate):
            at = self._weather.rng.randrange(1, min(WINDOW, size))
        if at < size:
            pause = self._weather.rng.uniform(0, options.delay[0])
            self._queue.appendleft(_Segment(now + pause, None, chunk[at:]))
            chunk = chunk[:at]
        return chunk
