"""What is known of the keys of some records without looking at these (floor 2; pure)."""

from __future__ import annotations

from zlib import crc32

from ..table.digest import bucket_of, keys_in_buckets

__all__ = ["Filter", "Index"]

#: Keys of a filter's first part; every further part is for so many times as many as that before.
_FIRST, _GROWS = 256, 4
#: Bits for each key, of which it sets three: one key in some 200 is taken for another.
_BITS = 16
#: Makes the distance between a key's bits of its checksum; odd.
_SPREAD = 0x9E3779B1


class Filter:
    """Which keys are certainly not among those that were added: a Bloom filter that grows.

    That a key is new need not cost a look at the disk.
    """

    __slots__ = ("_parts", "_room")

    def __init__(self) -> None:
        self._parts: list[tuple[bytearray, int]] = []  # their bits, and the last one's number
        self._room = 0  # how many keys the last part has room for

    @property
    def added(self) -> int:
        """How many keys were added, some of them perhaps several times."""
        return sum(len(bits) * 8 // _BITS for bits, _ in self._parts) - self._room

    def add(self, key: bytes) -> None:
        """It is among them from now on."""
        if not self._room:
            self._room = _FIRST * _GROWS ** len(self._parts)
            bits = self._room * _BITS
            self._parts.append((bytearray(bits // 8), bits - 1))
        self._room -= 1
        part, last = self._parts[-1]
        first = crc32(key)
        step = first * _SPREAD >> 7 | 1
        for place in (first & last, (first + step) & last, (first + 2 * step) & last):
            part[place >> 3] |= 1 << (place & 7)

    def may_have(self, key: bytes) -> bool:
        """False if it was certainly not added."""
        first = crc32(key)
        second = third = 0
        for part, last in self._parts:
            if part[(first & last) >> 3] & 1 << (first & 7):
                if not second:
                    step = first * _SPREAD >> 7 | 1
                    second, third = first + step, first + 2 * step
                if part[(second & last) >> 3] & 1 << (second & 7) and part[
                    (third & last) >> 3
                ] & 1 << (third & 7):
                    return True
        return False


class Index:
    """The keys of some records by their bucket.

    :ivar size: bytes, about.
    """

    def __init__(self, buckets: int, keys: list[bytes]) -> None:
        self.buckets = buckets
        self.keys = keys_in_buckets(keys, buckets, range(buckets))
        self.size = sum(map(len, keys)) + 60 * len(keys) + 100 * buckets

    def change(self, key: bytes, *, there: bool) -> None:
        """One comes or goes."""
        keys = self.keys[bucket_of(key, self.buckets)]
        if there:
            keys.append(key)
        else:
            keys.remove(key)
