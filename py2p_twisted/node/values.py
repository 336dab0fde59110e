"""Values on the disk, and those of them that are in memory all the same (floor 2).

A long value that is on the disk stands in its record as a :class:`OnDisk`; what was used lately is
kept in a cache of bounded size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..table.group import Ballot, Record
from ..table.values import Stored, plain

__all__ = ["Cache", "OnDisk", "in_memory"]

#: About what an entry takes beside its value.
_ENTRY_BYTES = 300

#: Partition, key and ballot: what names one value for ever.
Name = tuple[int, bytes, Ballot]


class OnDisk(Stored):
    """A value that a storage keeps."""

    __slots__ = ("_cache", "_name", "_size")

    def __init__(self, cache: Cache, name: Name, size: int) -> None:
        self._cache = cache
        self._name = name
        self._size = size

    def __len__(self) -> int:
        """As :class:`Stored`."""
        return self._size

    def load(self) -> bytes:
        """As :class:`Stored`."""
        return self._cache.get(self._name)


class Cache:
    """The values that were used lately.

    :param size: bytes, about, that it may hold.
    :param read: reads a value from the disk.
    """

    def __init__(self, size: int, read: Callable[[Name], bytes]) -> None:
        self._size = size
        self._read = read
        self._values: OrderedDict[Name, bytes] = OrderedDict()
        self.used = 0

    def get(self, name: Name) -> bytes:
        """A value, from memory or from the disk.

        :raises StorageError: if it cannot be read.
        """
        value = self._values.get(name)
        if value is not None:
            self._values.move_to_end(name)
            return value
        value = self._read(name)
        self.put(name, value)
        return value

    def put(self, name: Name, value: bytes) -> None:
        """It was used just now."""
        if name not in self._values:
            self._values[name] = value
            self.used += len(value) + _ENTRY_BYTES
        while self.used > self._size and self._values:
            _, gone = self._values.popitem(last=False)
            self.used -= len(gone) + _ENTRY_BYTES

    def stored(self, partition: int, key: bytes, record: Record) -> Record:
        """The record with its value on the disk, where it is by now."""
        assert record.value is not None
        name = (partition, key, record.ballot)
        self.put(name, record.value)
        return self.standing(name, record, len(record.value))

    def standing(self, name: Name, record: Record, size: int) -> Record:
        """The record with something that stands for its value."""
        value: object = OnDisk(self, name, size)
        return Record(record.ballot, value, record.operations, record.forgot)  # type: ignore[arg-type]


def in_memory(record: Record) -> Record:
    """The record with its value in memory.

    :raises StorageError: if it cannot be read.
    """
    if not isinstance(record.value, Stored):
        return record
    return Record(record.ballot, plain(record.value), record.operations, record.forgot)
