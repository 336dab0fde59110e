"""What of the disk is in memory all the same (floor 2).

A long value that is on the disk stands in its record as an :class:`OnDisk`.  Records and long
values that were used lately share one :class:`Cache` of bounded size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from ..table.group import Ballot, Record
from ..table.values import Stored, plain

__all__ = ["ENTRY_BYTES", "MISSING", "RECORD_BYTES", "Cache", "OnDisk", "in_memory"]

#: About what an entry of the cache takes beside its content, and a record beside key and value.
ENTRY_BYTES, RECORD_BYTES = 300, 600

#: What :meth:`Cache.get` gives for what is not there; None may be there.
MISSING: Any = object()


class OnDisk(Stored):
    """A value that a storage keeps.

    :param read: reads it, from memory or from the disk.
    :param space: where it is, in its partition's part of the storage.
    """

    __slots__ = ("_read", "_size", "ballot", "key", "partition", "space")

    def __init__(
        self,
        read: Callable[[OnDisk], bytes],
        space: int,
        partition: int,
        key: bytes,
        ballot: Ballot,
        size: int,
    ) -> None:
        self._read = read
        self._size = size
        self.space = space
        self.partition = partition
        self.key = key
        self.ballot = ballot

    def __len__(self) -> int:
        """As :class:`Stored`."""
        return self._size

    def load(self) -> bytes:
        """As :class:`Stored`."""
        return self._read(self)

    @property
    def name(self) -> Hashable:
        """What names the value for ever."""
        return (self.partition, self.key, self.ballot)


class Cache:
    """What was used lately.

    :param size: bytes, about, that it may hold.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.used = 0

    def get(self, name: Hashable) -> Any:
        """What is remembered under a name, or :data:`MISSING`."""
        entry = self._entries.get(name)
        if entry is None:
            return MISSING
        self._entries.move_to_end(name)
        return entry[0]

    def put(self, name: Hashable, content: Any, size: int) -> None:
        """It was used just now.

        :param size: about the bytes that it takes, with its name.
        """
        entries = self._entries
        before = entries.pop(name, None)
        if before is not None:
            self.used -= before[1]
        if size > self._size:
            return
        entries[name] = (content, size)
        self.used += size
        while self.used > self._size:
            _, (_, gone) = entries.popitem(last=False)
            self.used -= gone

    def drop(self, name: Hashable) -> None:
        """Forget it."""
        before = self._entries.pop(name, None)
        if before is not None:
            self.used -= before[1]


def in_memory(record: Record) -> Record:
    """The record with its value in memory.

    :raises StorageError: if it cannot be read.
    """
    if not isinstance(record.value, Stored):
        return record
    return Record(record.ballot, plain(record.value), record.operations, record.forgot)
