"""Records on the disk: reading them, and the rooms that they are in (floor 2).

A partition may have several sets of records on the disk: those of its epoch, the base of the next
one, what is copied ahead.  Each is in a *room* of its own.  Whoever uses a set holds its room; when
nobody does any more, the journal clears it, and only then it is given to somebody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import finalize

from twisted.python.failure import Failure

from ..errors import StorageError
from ..storage.interface import SPACES, Seen, Storage
from ..table.group import Record
from .heads import decode_head, has_ballot
from .values import ENTRY_BYTES, MISSING, Cache, OnDisk

if TYPE_CHECKING:
    from .diskrecords import DiskRecords

__all__ = ["Room", "Rooms", "Shelf"]

#: Rows that are read at once.
_SOME = 256


class Room:
    """A set of records on the disk.

    :ivar space: its number in the partition.
    """

    __slots__ = ("__weakref__", "partition", "space")

    def __init__(self, partition: int, space: int) -> None:
        self.partition = partition
        self.space = space


class Rooms:
    """Which rooms are taken."""

    def __init__(self) -> None:
        self._taken: dict[int, set[int]] = {}
        #: Partitions and spaces that nobody uses any more, and that are not cleared.
        self.left: deque[tuple[int, int]] = deque()

    def take(self, partition: int) -> Room:
        """An empty room.

        :raises StorageError: if too many are in use.
        """
        taken = self._taken.setdefault(partition, set())
        space = next((space for space in range(SPACES) if space not in taken), None)
        if space is None:
            raise StorageError(f"partition {partition} is on too many ways at once")
        return self.enter(partition, space)

    def enter(self, partition: int, space: int) -> Room:
        """The room with this number; what is in it stays."""
        self._taken.setdefault(partition, set()).add(space)
        room = Room(partition, space)
        # The last to let go may be any thread: nothing but a note is made of it.
        finalize(room, self.left.append, (partition, space)).atexit = False
        return room

    def taken(self, partition: int) -> list[int]:
        """The spaces of a partition in which there may be something."""
        return sorted(self._taken.get(partition, ()))

    def leave(self, partition: int, space: int) -> None:
        """Nobody uses what is in there."""
        self._taken.setdefault(partition, set()).add(space)
        self.left.append((partition, space))

    def cleared(self, partition: int, space: int) -> None:
        """Nothing is in it any more."""
        self._taken[partition].discard(space)


class Shelf:
    """The storage of a node, as records.

    :param least: bytes of the shortest value that is not read with its record.
    :param cache: bytes of records and values to remember.
    :ivar changed: hears whose record of which key is to be written.
    :ivar failed: hears why it cannot be read.
    """

    def __init__(self, storage: Storage, least: int, cache: int) -> None:
        self._storage = storage
        self.least = least
        self.cache = Cache(cache)
        self.changed: Callable[[DiskRecords, bytes], None] = lambda records, key: None
        self.failed: Callable[[Failure], None] = lambda failure: None
        self.rooms = Rooms()
        self.numbers = count()

    # -- records

    def look(self, room: Room, key: bytes) -> Record | None:
        """A record that is on the disk.

        :raises StorageError: if it cannot be read.
        """
        try:
            seen = self._storage.look(room.space, room.partition, key, self.least - 1)
            return None if seen is None else self._record(room, seen)
        except StorageError:
            self.failed(Failure())
            raise

    def rows(self, room: Room, start: bytes) -> Iterator[tuple[bytes, Record]]:
        """The records on the disk in order, from a key on.

        :raises StorageError: if they cannot be read.
        """
        some = 32
        while True:
            try:
                seen = self._storage.scan(room.space, room.partition, start, some, self.least - 1)
                found = [(one.key, self._record(room, one)) for one in seen]
            except StorageError:
                self.failed(Failure())
                raise
            for key, record in found:
                if record is not None:
                    yield key, record
            if len(found) < some:
                return
            start = found[-1][0] + b"\0"
            some = _SOME

    def _record(self, room: Room, seen: Seen) -> Record | None:
        head = decode_head(seen.head)
        if head.ballot is None:
            return None
        value: Any = seen.value
        if seen.size is not None and value is None:
            value = OnDisk(self.value, room.space, room.partition, seen.key, head.ballot, seen.size)
        return Record(head.ballot, value, head.operations, head.forgot)

    def kept(self, room: Room, key: bytes, record: Record) -> Record:
        """A record that is on the disk now: a long value stays there."""
        value: Any = record.value
        if not isinstance(value, bytes) or len(value) < self.least:
            return record
        stands = OnDisk(self.value, room.space, room.partition, key, record.ballot, len(value))
        self._remember(stands, value)
        return Record(record.ballot, stands, record.operations, record.forgot)  # type: ignore[arg-type]

    # -- values

    def value(self, stands: OnDisk) -> bytes:
        """A value that is on the disk.

        :raises StorageError: if it cannot be read, or is not there any more.
        """
        found: bytes = self.cache.get(stands.name)
        if found is not MISSING:
            return found
        partition, key = stands.partition, stands.key
        try:
            for space in (stands.space, *self.rooms.taken(partition)):  # it may have moved
                kept = self._storage.read(space, partition, key)
                value = kept.value if kept is not None else None
                if kept is None or value is None or not has_ballot(kept.head, stands.ballot):
                    continue
                self._remember(stands, value)
                return value
        except StorageError:
            self.failed(Failure())
            raise
        raise StorageError(f"a value of partition {partition} was replaced by another one")

    def _remember(self, stands: OnDisk, value: bytes) -> None:
        self.cache.put(stands.name, value, len(value) + len(stands.key) + ENTRY_BYTES)
