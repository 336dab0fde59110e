"""Records on their way to a next member, in messages of bounded size (floor 2; pure)."""

from __future__ import annotations

from ..table.group import Record, Successor
from ..wire.messages import StagePart

__all__ = ["Pages"]


class Pages:
    """Collects records into messages of bounded size."""

    def __init__(self, most_bytes: int, most_records: int) -> None:
        self._most_bytes = most_bytes
        self._most_records = most_records
        self._parts: list[StagePart] = []
        self._part: StagePart | None = None
        self._records: list[tuple[bytes, Record]] = []
        self._dropped: list[bytes] = []
        self._bytes = 0
        self._count = 0

    def begin(self, part: StagePart) -> None:
        """The records that follow are of this part."""
        self._close()
        self._part = part

    def add(self, key: bytes, record: Record) -> bool:
        """Add a record; True if it is time to :meth:`take` a page."""
        self._records.append((key, record))
        self._bytes += len(key) + len(record.value or b"") + 64
        self._count += 1
        return self._bytes >= self._most_bytes or self._count >= self._most_records

    def drop(self, key: bytes) -> None:
        """A key of this part is gone."""
        self._dropped.append(key)

    def end(self, successor: Successor) -> None:
        """The part is complete, and this is what it makes up."""
        assert self._part is not None
        self._close(successor)
        self._part = None

    def _close(self, successor: Successor | None = None) -> None:
        part = self._part
        if part is None:
            return
        base = successor.base if successor is not None else None
        if part.fresh or self._records or self._dropped or base is not None:
            self._parts.append(
                StagePart(
                    part.partition,
                    part.epoch,
                    part.fresh,
                    tuple(self._records),
                    tuple(self._dropped),
                    base,
                )
            )
        self._records, self._dropped = [], []
        self._part = StagePart(part.partition, part.epoch, False, ())

    def take(self) -> tuple[StagePart, ...]:
        """The page collected so far."""
        self._close()
        parts, self._parts = tuple(self._parts), []
        self._bytes = self._count = 0
        return parts
