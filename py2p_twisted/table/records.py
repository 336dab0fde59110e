"""The records of one partition, wherever they are (floor 0; pure).

Owns the counts and digests of a set of records.  :class:`MemoryRecords` has all of them in memory;
a node with a storage has others, which read what they are asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Collection, ItemsView, Iterator, Mapping

from .digest import bucket_count, combined, digests, keys_in_buckets
from .group import Base, Record

__all__ = ["MemoryRecords", "Records"]


class Records(Mapping[bytes, Record]):
    """A record for each key, tombstones too.

    :ivar visible: how the keys begin that users see; the others are not counted.
    :ivar users: live keys that users see.
    :ivar tombstones: how many records are.
    :ivar size: bytes of all values.
    :ivar stamp: of the newest write that was ever among them.
    """

    def __init__(self, visible: bytes) -> None:
        self.visible = visible
        self.users = 0
        self.tombstones = 0
        self.size = 0
        self.stamp = 0

    @abstractmethod
    def put(self, key: bytes, record: Record) -> None:
        """Keep a record, in place of the one with its key."""

    @abstractmethod
    def drop(self, key: bytes) -> None:
        """Keep no record with this key."""

    @abstractmethod
    def after(self, key: bytes | None, prefix: bytes) -> Iterator[tuple[bytes, Record]]:
        """The records after a key that begin with `prefix`, in order; for use within one turn."""

    @abstractmethod
    def draft(self) -> Records:
        """Records that begin as these are now; changes of either are not seen by the other."""

    @abstractmethod
    def digests(self, buckets: int = 0) -> bytes:
        """The digests of all records in so many buckets, or in as many as suit them."""

    @abstractmethod
    def keys_in(self, buckets: int, wanted: Collection[int]) -> dict[int, list[bytes]]:
        """The keys of each of these buckets, of so many."""

    def live_draft(self) -> Records:
        """As :meth:`draft`, without the tombstones: the base of a next epoch (rule 11)."""
        draft = self.draft()
        if self.tombstones:
            for key in [key for key, record in self.items() if record.value is None]:
                draft.drop(key)
        return draft

    def base(self) -> Base:
        """The identity of all records, tombstones included."""
        return Base(len(self), combined(self.digests()))

    def _count(self, key: bytes, old: Record | None, new: Record | None) -> None:
        """One record takes the place of another one, or comes, or goes."""
        if old is not None:
            if old.value is None:
                self.tombstones -= 1
            else:
                self.size -= len(old.value)
                if key.startswith(self.visible):
                    self.users -= 1
        if new is not None:
            if new.value is None:
                self.tombstones += 1
            else:
                self.size += len(new.value)
                if key.startswith(self.visible):
                    self.users += 1
            stamp = new.stamp
            if stamp > self.stamp:
                self.stamp = stamp


class MemoryRecords(Records):
    """All in memory.

    :param records: to begin with; belongs to this object from now on.
    """

    def __init__(self, records: dict[bytes, Record] | None = None, *, visible: bytes = b"") -> None:
        super().__init__(visible)
        self._records = records if records is not None else {}
        self._sorted: list[bytes] | None = None
        self._digests: tuple[int, bytes] | None = None
        self.get = self._records.get  # type: ignore[method-assign]  # asked more than all else
        for key, record in self._records.items():
            self._count(key, None, record)

    def __getitem__(self, key: bytes) -> Record:
        return self._records[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def items(self) -> ItemsView[bytes, Record]:
        """Faster than a mapping's own."""
        return self._records.items()

    def put(self, key: bytes, record: Record) -> None:
        """As :meth:`Records.put`."""
        old = self._records.get(key)
        if old is None:
            self._sorted = None
        self._count(key, old, record)
        self._records[key] = record
        self._digests = None

    def drop(self, key: bytes) -> None:
        """As :meth:`Records.drop`."""
        old = self._records.pop(key, None)
        if old is not None:
            self._count(key, old, None)
            self._sorted = self._digests = None

    def after(self, key: bytes | None, prefix: bytes) -> Iterator[tuple[bytes, Record]]:
        """As :meth:`Records.after`."""
        if self._sorted is None:
            self._sorted = sorted(self._records)
        keys = self._sorted
        start = bisect_left(keys, prefix)
        if key is not None and key >= prefix:
            start = bisect_right(keys, key)
        return self._from(keys, start, prefix)

    def _from(self, keys: list[bytes], start: int, prefix: bytes) -> Iterator[tuple[bytes, Record]]:
        for index in range(start, len(keys)):
            key = keys[index]
            if not key.startswith(prefix):
                return
            yield key, self._records[key]

    def draft(self) -> MemoryRecords:
        """As :meth:`Records.draft`."""
        draft = MemoryRecords(visible=self.visible)
        draft._become(self)
        return draft

    def _become(self, other: MemoryRecords) -> None:
        self._records.update(other._records)
        self._sorted, self._digests = other._sorted, other._digests
        self.users, self.tombstones = other.users, other.tombstones
        self.size, self.stamp = other.size, other.stamp

    def digests(self, buckets: int = 0) -> bytes:
        """As :meth:`Records.digests`; they are kept until something changes."""
        wanted = buckets or bucket_count(len(self._records))
        if self._digests is None or self._digests[0] != wanted:
            self._digests = (wanted, digests(self._records.items(), wanted))
        return self._digests[1]

    def keys_in(self, buckets: int, wanted: Collection[int]) -> dict[int, list[bytes]]:
        """As :meth:`Records.keys_in`."""
        return keys_in_buckets(self._records, buckets, wanted)
