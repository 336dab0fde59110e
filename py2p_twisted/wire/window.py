"""How many requests may be on their way to one peer at once (floor 1; pure).

What is on its way waits in buffers that the peer cannot look into, so whoever asks keeps it short:
as TCP does for a network, it lets a little more go at a time, and a good deal less once the peer
is busy: it says so, or says nothing, or takes longer than the way to it explains.
"""

from __future__ import annotations

from ..settings import Settings

__all__ = ["Window"]

#: So many at the beginning; twice as many with each round trip, until the peer is busy once.
_FIRST = 64
#: However busy a peer is, so many may be on their way: what it takes to find out that it is not.
_LEAST = 32
#: So many more with each round trip in which the peer was not busy ...
_MORE = 8
#: ... and this part of those that were on their way once it was.
_LESS = 0.7


class Window:
    """The requests that one peer can take.

    :ivar size: so many may be on their way.
    """

    __slots__ = ("_calm", "_most", "_newest", "_shortest", "_slow", "size")

    def __init__(self, settings: Settings) -> None:
        self._most = settings.requests_per_connection
        self._slow = settings.slow_after
        self._shortest = self._slow  # round trip, in seconds
        self._calm = True  # was it never busy?
        self._newest = 0  # what was sent up to this one does not tell of the present size
        self.size: float = min(_FIRST, self._most)

    def is_slow(self, round_trip: float) -> bool:
        """Does a round trip of so many seconds tell that too much is on its way?"""
        if round_trip < self._shortest:
            self._shortest = round_trip
        return round_trip > self._shortest + self._slow

    def answered(self, under_way: int) -> None:
        """The peer did what it was asked.

        :param under_way: how many were on their way.
        """
        if 2 * under_way > self.size < self._most:  # else more would make no difference
            more = 1.0 if self._calm else _MORE / self.size
            self.size = min(self.size + more, self._most)

    def busy(self, number: int, newest: int, under_way: int) -> None:
        """The peer was too busy for a request, or did not answer it in time.

        :param number: of that request.
        :param newest: the number of the last that was sent.
        :param under_way: how many were on their way.
        """
        if number > self._newest:
            self._newest = newest
            self._calm = False
            self.size = max(_LESS * min(self.size, under_way), min(_LEAST, self._most))

    def wait(self, queued: int, round_trip: float | None) -> float:
        """Seconds that another request would wait for its turn behind so many, about."""
        return queued * (round_trip or 0.0) / self.size
