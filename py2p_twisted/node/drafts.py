"""Records as they were at one moment, and what was changed since (floor 2).

So a base that hardly differs from the records before it costs hardly anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..table.digest import keys_in_buckets
from ..table.group import Record
from .diskrecords import DiskRecords, Item, Row, merged
from .heads import encode_head
from .shelf import Room, Shelf
from .values import MISSING, in_memory

if TYPE_CHECKING:
    from .stored import StoredRecords

__all__ = ["Draft"]


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

    def rows(self, start: bytes = b"") -> Iterator[Item]:
        """As :meth:`DiskRecords.rows`."""
        return merged(self.under.rows(start), self.changes, start)

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
        self.under.stand_under(draft)
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
