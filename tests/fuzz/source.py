"""Bytes that decide: a random generator that draws from what a fuzzer made up (test support)."""

from __future__ import annotations

from random import Random

__all__ = ["ByteRandom"]


class ByteRandom(Random):
    """Every draw takes the next bytes; when there are none left, every draw is as low as it can be.

    So whatever makes messages with a generator makes them of bytes, and a small change of the bytes
    is a small change of what is made.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._place = 0

    @property
    def exhausted(self) -> bool:
        """Is there nothing left to draw from?"""
        return self._place >= len(self._data)

    def rest(self) -> bytes:
        """All that is left, as it is."""
        rest, self._place = self._data[self._place :], len(self._data)
        return rest

    def getrandbits(self, k: int) -> int:
        """The next bits; a draw takes whole bytes."""
        size = (k + 7) // 8
        taken = self._data[self._place : self._place + size]
        self._place += size
        return int.from_bytes(taken, "little") % (1 << k) if taken else 0

    def random(self) -> float:
        """A number from 0 to 1, of one byte."""
        return self.getrandbits(8) / 256
