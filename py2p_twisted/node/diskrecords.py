"""What all records that are on the disk have in common (floor 2).

Owns their number and their digests, which every change keeps up to date.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator
from typing import Any

from ..table.digest import Totals, bucket_count
from ..table.group import Record
from ..table.records import Records
from .shelf import Room, Shelf

__all__ = ["DiskRecords", "Item", "Row", "merged"]

#: Digests for so many records are kept in any case.
_SOME = 16_384

#: Head and value of a key's record; None: there is none.
Row = tuple[bytes, bytes | None] | None
Item = tuple[bytes, Record]


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
    def rows(self, start: bytes = b"") -> Iterator[Item]:
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

    @abstractmethod
    def _change(self, key: bytes, record: Record | None) -> None:
        """Keep a record; None: keep none."""

    def put(self, key: bytes, record: Record) -> None:
        """As :meth:`.Records.put`."""
        self._change(key, record)

    def drop(self, key: bytes) -> None:
        """As :meth:`.Records.drop`."""
        self._change(key, None)

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

    def after(self, key: bytes | None, prefix: bytes) -> Iterator[Item]:
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

    def __iter__(self) -> Iterator[Item]:
        return self._records.rows()


def merged(
    rows: Iterator[Item], changes: dict[bytes, Record | None], start: bytes
) -> Iterator[Item]:
    """Rows in order, from a key on, where changes take the place of those with their keys."""
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
