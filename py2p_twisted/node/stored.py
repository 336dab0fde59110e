"""Records that are on the disk (floor 2).

:class:`StoredRecords` are all in one room of the storage: in memory are what is not kept there
yet, and what the cache remembers.  A :class:`Draft` is what other records were at one moment, and
what was changed since; so a base that hardly differs from the records before it costs hardly
anything.

An uncommitted record never leaves memory, and is what everybody here sees; that peers do not see it
is the business of the journal (rule 13).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, ItemsView, Iterable, Iterator
from typing import Any
from weakref import WeakSet

from ..table.digest import Collected, Totals, bucket_count, keys_in_buckets
from ..table.group import Record
from ..table.records import Records
from .heads import encode_head
from .keysets import Filter, Index
from .shelf import Room, Shelf
from .values import ENTRY_BYTES, MISSING, RECORD_BYTES, in_memory

__all__ = ["DiskRecords", "Draft", "Row", "StoredRecords"]

#: Digests for so many records are kept from the beginning, and for so many in any case.
_FEW, _SOME = 2048, 16_384

#: Head and value of a key's record; None: there is none.
Row = tuple[bytes, bytes | None] | None
_Item = tuple[bytes, Record]


class DiskRecords(Records):
    """What both kinds have in common: their number and their digests, kept up to date.

    :ivar room: where they are written, or what differs of them; None: nowhere.
    """

    room: Room | None

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(self, shelf: Shelf, visible: bytes) -> None:
        super().__init__(visible)
        self._shelf = shelf
        self._number = 0
        self._totals: Totals | None = None

    @abstractmethod
    def get(self, key: bytes, default: Any = None) -> Any:
        """The record of a key.

        :raises StorageError: if it cannot be read.
        """

    @abstractmethod
    def rows(self, start: bytes = b"") -> Iterator[_Item]:
        """All records in order, from a key on; for use within one turn.

        :raises StorageError: if they cannot be read.
        """

    @abstractmethod
    def row(self, key: bytes, promise: Any) -> tuple[Row, Record | None]:
        """What is to be written of a key, and the record that it is.

        :param promise: for this key, to be written with it.
        :raises StorageError: if a value that it needs cannot be read.
        """

    @abstractmethod
    def settled(self, key: bytes, record: Record | None) -> None:
        """What :meth:`row` told is on the disk."""

    def __getitem__(self, key: bytes) -> Record:
        record: Record | None = self.get(key)
        if record is None:
            raise KeyError(key)
        return record

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.get(key) is not None

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self.rows())

    def __len__(self) -> int:
        return self._number

    def items(self) -> ItemsView[bytes, Record]:
        """In the order of their keys; for use within one turn."""
        return _Items(self)

    def after(self, key: bytes | None, prefix: bytes) -> Iterator[_Item]:
        """As :meth:`.Records.after`."""
        start = prefix if key is None or key < prefix else key + b"\0"
        for item in self.rows(start):
            if not item[0].startswith(prefix):
                return
            yield item

    def _changed(self, key: bytes, old: Record | None, new: Record | None) -> None:
        """Note that a record is another one now."""
        self._count(key, old, new)
        self._number += (new is not None) - (old is not None)
        if self._totals is not None:
            self._totals.change(
                key,
                old.ballot if old is not None else None,
                new.ballot if new is not None else None,
            )

    def _counted_like(self, other: DiskRecords) -> None:
        self.users, self.tombstones = other.users, other.tombstones
        self.size, self.stamp = other.size, other.stamp
        self._number = other._number
        self._totals = other._totals.copy() if other._totals is not None else None

    def digests(self, buckets: int = 0) -> bytes:
        """As :meth:`.Records.digests`; all records are read if there are too few of them."""
        wanted = buckets or bucket_count(self._number)
        if self._totals is not None and not buckets and wanted <= 4 * self._totals.buckets:
            wanted = min(wanted, self._totals.buckets)  # larger ones do as well
        if self._totals is None or self._totals.buckets < wanted:
            totals = Totals(self._number, wanted)
            for key, record in self.rows():
                totals.change(key, None, record.ballot)
            if totals.buckets > bucket_count(4 * max(self._number, _SOME)):
                return totals.told(wanted)  # somebody has far more records: they are not kept
            self._totals = totals
        return self._totals.told(wanted)


class _Items(ItemsView[bytes, Record]):
    """Items that are not looked up one by one."""

    def __init__(self, records: DiskRecords) -> None:
        super().__init__(records)
        self._records = records

    def __iter__(self) -> Iterator[_Item]:
        return self._records.rows()


class StoredRecords(DiskRecords):
    """The records in one room."""

    room: Room

    def __init__(self, shelf: Shelf, room: Room, visible: bytes) -> None:
        super().__init__(shelf, visible)
        self.room = room
        self._name = next(shelf.numbers)
        self._totals = Totals(_FEW)
        #: Records that are not on the disk yet; None is one that is to go from there.
        self._dirty: dict[bytes, Record | None] = {}
        self._keys = Filter()  # that are in the room, or were
        self._drafts: WeakSet[Draft] = WeakSet()

    def get(self, key: bytes, default: Any = None) -> Any:
        """As :meth:`DiskRecords.get`."""
        record = self._dirty.get(key, MISSING)
        if record is MISSING:
            cache = self._shelf.cache
            record = cache.get((self._name, key))
            if record is MISSING:
                if not self._keys.may_have(key):
                    return default
                record = self._shelf.look(self.room, key)
                self._remember(key, record)
        return record if record is not None else default

    def _remember(self, key: bytes, record: Record | None) -> None:
        size = ENTRY_BYTES + len(key)
        if record is not None:
            size += RECORD_BYTES
            if type(record.value) is bytes:
                size += len(record.value)
        self._shelf.cache.put((self._name, key), record, size)

    def rows(self, start: bytes = b"") -> Iterator[_Item]:
        """As :meth:`DiskRecords.rows`."""
        return _merged(self._shelf.rows(self.room, start), self._dirty, start)

    # -- changes

    def put(self, key: bytes, record: Record) -> None:
        """As :meth:`.Records.put`."""
        self._change(key, record)

    def drop(self, key: bytes) -> None:
        """As :meth:`.Records.drop`."""
        self._change(key, None)

    def _change(self, key: bytes, record: Record | None) -> None:
        old = self.get(key)
        if old is record:
            return
        for draft in list(self._drafts):
            draft.preserve(key, old)
        self._dirty[key] = record
        self._changed(key, old, record)
        if old is None:
            self._keys.add(key)
        if old is None or record is None:
            index: Index = self._shelf.cache.get(self._name)
            if index is not MISSING:
                index.change(key, there=record is not None)
        self._shelf.changed(self, key)

    def row(self, key: bytes, promise: Any) -> tuple[Row, Record | None]:
        """As :meth:`DiskRecords.row`."""
        record: Record | None = self.get(key)
        if record is None:
            return ((encode_head(None, promise), None) if promise is not None else None), None
        loaded = in_memory(record)
        if loaded is not record and self._dirty.get(key) is record:
            self._dirty[key] = loaded  # what it stands for may be replaced by this row
        return (encode_head(loaded, promise), loaded.value), loaded

    def settled(self, key: bytes, record: Record | None) -> None:
        """As :meth:`DiskRecords.settled`."""
        if key not in self._dirty or self._dirty[key] is not record:
            return  # there is a newer one
        del self._dirty[key]
        if record is not None:
            record = self._shelf.kept(self.room, key, record)
        self._remember(key, record)

    def found_all(self, collected: Collected) -> None:
        """All that is in the room was :meth:`found`: these are their versions."""
        self._totals = collected.totals()

    def found(self, key: bytes, record: Record, size: int | None) -> None:
        """Count a record that is in the room already.

        :param record: without its value.
        :param size: of that; None if there is none.
        """
        self._number += 1
        self._keys.add(key)
        if size is None:
            self.tombstones += 1
        else:
            self.size += size
            self.users += key.startswith(self.visible)
        self.stamp = max(self.stamp, record.stamp)

    # -- as a whole

    def draft(self) -> Draft:
        """As :meth:`.Records.draft`."""
        draft = Draft(self._shelf, self, {})
        draft._counted_like(self)
        self._drafts.add(draft)
        return draft

    def keys_in(self, buckets: int, wanted: Collection[int]) -> dict[int, list[bytes]]:
        """As :meth:`.Records.keys_in`; remembered while there is room, for who asks on."""
        cache = self._shelf.cache
        index: Index = cache.get(self._name)
        if index is MISSING or index.buckets != buckets:
            index = Index(buckets, [key for key, _ in self.rows()])
            cache.put(self._name, index, index.size)
        return {bucket: index.keys.get(bucket, [])[:] for bucket in wanted}


class Draft(DiskRecords):
    """Other records as they were, and changes that are in memory.

    :ivar under: those others; what they are changed to is not seen here.
    :ivar changes: what differs; None is a record that is not there.
    """

    def __init__(
        self, shelf: Shelf, under: StoredRecords, changes: dict[bytes, Record | None]
    ) -> None:
        super().__init__(shelf, under.visible)
        self.under = under
        self.changes = changes
        self.room: Room | None = None

    def get(self, key: bytes, default: Any = None) -> Any:
        """As :meth:`DiskRecords.get`."""
        record = self.changes.get(key, MISSING)
        if record is MISSING:
            return self.under.get(key, default)
        return record if record is not None else default

    def rows(self, start: bytes = b"") -> Iterator[_Item]:
        """As :meth:`DiskRecords.rows`."""
        return _merged(self.under.rows(start), self.changes, start)

    def put(self, key: bytes, record: Record) -> None:
        """As :meth:`.Records.put`."""
        self._change(key, record)

    def drop(self, key: bytes) -> None:
        """As :meth:`.Records.drop`."""
        self._change(key, None)

    def _change(self, key: bytes, record: Record | None) -> None:
        old = self.get(key)
        if old is not record:
            self.changes[key] = record
            self._changed(key, old, record)
            self._written_anew(key)

    def preserve(self, key: bytes, old: Record | None) -> None:
        """The records under this are about to change; here they stay."""
        if key not in self.changes:
            self.changes[key] = old if old is None else in_memory(old)
            self._written_anew(key)

    def _written_anew(self, key: bytes) -> None:
        if self.room is not None:
            self._shelf.changed(self, key)

    def found(self, changes: Iterable[tuple[bytes, Record | None]], room: Room) -> None:
        """Begin with the changes that are in a room already."""
        for key, record in changes:
            self._change(key, record)
        self.room = room

    def write(self, room: Room) -> None:
        """Have all changes written into a room, from now on."""
        self.room = room
        for key in self.changes:
            self._shelf.changed(self, key)

    def row(self, key: bytes, promise: Any) -> tuple[Row, Record | None]:
        """As :meth:`DiskRecords.row`; an empty head stands for a record that is not there."""
        record = self.changes[key]
        if record is None:
            return (b"", None), None
        self.changes[key] = loaded = in_memory(record)
        return (encode_head(loaded, None), loaded.value), loaded

    def settled(self, key: bytes, record: Record | None) -> None:
        """As :meth:`DiskRecords.settled`."""
        if record is not None and self.room is not None and self.changes.get(key) is record:
            self.changes[key] = self._shelf.kept(self.room, key, record)

    def draft(self) -> Draft:
        """As :meth:`.Records.draft`."""
        draft = Draft(self._shelf, self.under, dict(self.changes))
        draft._counted_like(self)
        self.under._drafts.add(draft)
        return draft

    def keys_in(self, buckets: int, wanted: Collection[int]) -> dict[int, list[bytes]]:
        """As :meth:`.Records.keys_in`."""
        found = self.under.keys_in(buckets, wanted)
        changed = keys_in_buckets(self.changes, buckets, wanted)
        for bucket, keys in changed.items():
            others = set(keys)
            found[bucket] = [key for key in found[bucket] if key not in others]
            found[bucket] += [key for key in keys if self.changes[key] is not None]
        return found


def _merged(
    rows: Iterator[_Item], changes: dict[bytes, Record | None], start: bytes
) -> Iterator[_Item]:
    """Rows in order, where changes take the place of those with their keys."""
    if not changes:
        yield from rows
        return
    keys = sorted(key for key in changes if key >= start)
    at = 0
    for item in rows:
        while at < len(keys) and keys[at] < item[0]:
            record = changes[keys[at]]
            if record is not None:
                yield keys[at], record
            at += 1
        if item[0] not in changes:
            yield item
    for key in keys[at:]:
        record = changes[key]
        if record is not None:
            yield key, record
