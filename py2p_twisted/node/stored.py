"""The records of one room of the storage (floor 2).

In memory are what is not kept there yet, and what the cache remembers.  An uncommitted record never
leaves memory, and is what everybody here sees; that peers do not see it is the business of the
journal (rule 13).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any
from weakref import WeakSet

from ..table.digest import Collected, Totals
from ..table.group import Record
from .diskrecords import DiskRecords, Item, Row, merged
from .drafts import Draft
from .heads import encode_head
from .keysets import Filter, Index
from .shelf import Room, Shelf
from .values import ENTRY_BYTES, MISSING, RECORD_BYTES, in_memory

__all__ = ["StoredRecords"]

#: Digests for so many records are kept from the beginning.
_FEW = 2048
#: The filter of keys is worn once so many times as many were added as are there, and so many more.
_WORN_TIMES, _WORN_MORE = 4, 4096


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
        self._keys = Filter()  # that are there, or were
        self._moment = 0  # grows whenever rows() may tell something else
        self._drafts: WeakSet[Draft] = WeakSet()
        self._drafted = False  # may there be any?
        #: What was read last of what nobody changed: one operation asks several times.
        self._last: tuple[bytes | None, Record | None] = (None, None)

    def get(self, key: bytes, default: Any = None) -> Any:
        """As :meth:`DiskRecords.get`."""
        if key is self._last[0]:
            record = self._last[1]
        else:
            record = self._dirty.get(key, MISSING)
            if record is MISSING:
                record = self._clean(key)
                self._last = (key, record)
        return record if record is not None else default

    def _clean(self, key: bytes) -> Record | None:
        """A record that nobody changed since it was written."""
        record: Record | None = self._shelf.cache.get((self._name, key))
        if record is MISSING:
            if not self._keys.may_have(key):
                return None
            record = self._shelf.look(self.room, key)
            self._remember(key, record)
        return record

    def _remember(self, key: bytes, record: Record | None) -> None:
        size = ENTRY_BYTES + len(key)
        if record is not None:
            size += RECORD_BYTES
            if type(record.value) is bytes:
                size += len(record.value)
        self._shelf.cache.put((self._name, key), record, size)

    def rows(self, start: bytes = b"") -> Iterator[Item]:
        """As :meth:`DiskRecords.rows`; a worn filter is made anew from what is told."""
        rows = merged(self._shelf.rows(self.room, start), self._dirty, start)
        if not start and self._keys.added > _WORN_TIMES * self._number + _WORN_MORE:
            return self._refilter(rows)
        return rows

    def _refilter(self, rows: Iterator[Item]) -> Iterator[Item]:
        """All rows; those of which none changed meanwhile are what a filter has to know."""
        moment, keys = self._moment, Filter()
        for item in rows:
            keys.add(item[0])
            yield item
        if moment == self._moment:
            self._keys = keys

    # -- changes

    def _change(self, key: bytes, record: Record | None) -> None:
        old = self.get(key)
        if old is record:
            return
        if self._drafted:
            self._preserve(key, old)
        self._last = (None, None)
        self._moment += 1
        self._dirty[key] = record
        self._changed(key, old, record)
        if old is None:
            self._keys.add(key)
        if old is None or record is None:
            index: Index = self._shelf.cache.get(self._name)
            if index is not MISSING:
                index.change(key, there=record is not None)
        self._shelf.changed(self, key)

    def _preserve(self, key: bytes, old: Record | None) -> None:
        drafts = list(self._drafts)
        self._drafted = bool(drafts)
        for draft in drafts:
            draft.preserve(key, old)

    def stand_under(self, draft: Draft) -> None:
        """Whatever changes, the draft has it as it was."""
        self._drafts.add(draft)
        self._drafted = True

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
        self._moment += 1
        self._last = (None, None)
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
        self.stand_under(draft)
        return draft

    def keys_in(self, buckets: int, wanted: Collection[int]) -> dict[int, list[bytes]]:
        """As :meth:`.Records.keys_in`; remembered while there is room, for who asks on."""
        cache = self._shelf.cache
        index: Index = cache.get(self._name)
        if index is MISSING or index.buckets != buckets:
            index = Index(buckets, [key for key, _ in self.rows()])
            cache.put(self._name, index, index.size)
        return {bucket: index.keys.get(bucket, [])[:] for bucket in wanted}
