"""Disks that outlive the simulated process that writes to them (test support).

A batch is on the disk some time after it was given, all of it or nothing.  A crash loses what was
under way, or only the news that it had arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from py2p_twisted.errors import StorageCorrupt, StorageError
from py2p_twisted.storage.interface import Batch, Done, Head, Kept, Loaded, Place, Seen

__all__ = ["SimDisk"]


class SimDisk:
    """A storage as the product wants it, of memory.

    :ivar delay: seconds that a write takes, from and to.
    """

    durable = True
    quota: int | None = None
    behind = 0
    broken: StorageError | None = None

    def __init__(self, rng: Random, delay: tuple[float, float] = (0.0005, 0.02)) -> None:
        self._rng = rng
        self.delay = delay
        self._records: dict[Place, dict[bytes, Kept]] = {}
        self._states: dict[int, bytes] = {}
        self._meta: dict[str, bytes] = {}
        self._boots = 0
        self._clock: Any = None
        self._queue: list[tuple[Batch, Done]] = []
        self._writing: list[tuple[Batch, Done]] = []
        self._closing: Deferred[None] | None = None
        self.batches = 0  # how many were written
        self.damaged = False  # nothing can be read any more
        self.failure: StorageError | None = None  # what befalls every write from now on

    # -- what the product asks for

    def open(self, reactor: Any, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """Begin another life."""
        self._clock = reactor
        self._boots += 1
        self._closing = None
        return Loaded(dict(self._meta), dict(self._states), self._boots, heads=self._heads)

    def reset(self, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """Forget everything."""
        self._records.clear()
        self._states.clear()
        self._meta.clear()
        return Loaded(boots=self._boots)

    def _heads(self) -> Iterator[Head]:
        for (space, partition), records in sorted(self._records.items()):
            for key, kept in sorted(records.items()):
                size = None if kept.value is None else len(kept.value)
                yield space, partition, key, kept.head, size

    def commit(self, batch: Batch, done: Done) -> None:
        """Write a batch after those before it."""
        self._queue.append((batch.take(), done))
        if not self._writing:
            self._begin()

    def _begin(self) -> None:
        self._writing, self._queue = self._queue, []
        self._clock.callLater(self._rng.uniform(*self.delay), self._written)

    def _written(self) -> None:
        written, self._writing = self._writing, []
        if self.failure is not None:
            for _, done in written:
                done(Failure(self.failure))
            if self._queue:
                self._begin()
            return
        for batch, _ in written:
            self._apply(batch)
        if self._queue:
            self._begin()
        for _, done in written:
            done(None)
        if self._closing is not None and not self._writing:
            self._closing.callback(None)

    def _apply(self, batch: Batch) -> None:
        self.batches += 1
        for place in batch.cleared():
            self._records.pop(place, None)
        for place, changes in batch.changed():
            records = self._records.setdefault(place, {})
            for key, change in changes.items():
                if change is None:
                    records.pop(key, None)
                else:
                    records[key] = change
        for partition, state in batch.states.items():
            if state is None:
                self._states.pop(partition, None)
            else:
                self._states[partition] = state
        for name, content in batch.meta.items():
            if content is None:
                self._meta.pop(name, None)
            else:
                self._meta[name] = content

    @property
    def used(self) -> int:
        """Bytes that are kept."""
        return sum(
            len(key) + len(kept.head) + len(kept.value or b"")
            for records in self._records.values()
            for key, kept in records.items()
        )

    def read(self, space: int, partition: int, key: bytes) -> Kept | None:
        """One record."""
        if self.damaged:
            raise StorageCorrupt("a record is not what was written")
        return self._records.get((space, partition), {}).get(key)

    def look(self, space: int, partition: int, key: bytes, most: int) -> Seen | None:
        """One record, perhaps without its value."""
        kept = self.read(space, partition, key)
        return None if kept is None else _seen(key, kept, most)

    def scan(self, space: int, partition: int, start: bytes, number: int, most: int) -> list[Seen]:
        """Some records in order."""
        if self.damaged:
            raise StorageCorrupt("a record is not what was written")
        records = self._records.get((space, partition), {})
        keys = sorted(key for key in records if key >= start)[:number]
        return [_seen(key, records[key], most) for key in keys]

    def close(self, clean: bool = True) -> Deferred[None]:
        """Write what is under way."""
        closing: Deferred[None] = Deferred()
        if self._writing:
            self._closing = closing
        else:
            closing.callback(None)
        return closing

    # -- what befalls it

    def crash(self, arrived: int | None = None) -> None:
        """The process is gone: some of what was under way arrived, in order, and nobody heard.

        :param arrived: how many batches; None: any number.
        """
        under_way = self._writing + self._queue
        self._writing, self._queue = [], []
        if arrived is None:
            arrived = self._rng.randint(0, len(under_way))
        for batch, _ in under_way[:arrived]:
            self._apply(batch)


def _seen(key: bytes, kept: Kept, most: int) -> Seen:
    size = None if kept.value is None else len(kept.value)
    return Seen(key, kept.head, size, kept.value if size is None or size <= most else None)
