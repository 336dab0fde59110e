"""What a node may ask of its storage, whichever it is (floor 1; data and names only).

Keys, heads and values are opaque bytes here.  A *head* is whatever must be known of a record at
start and at once; a value may stay on the disk until somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import StorageError

__all__ = [
    "SPACES",
    "Batch",
    "Change",
    "Done",
    "Head",
    "Kept",
    "Loaded",
    "Place",
    "Seen",
    "Storage",
]


#: Every partition has so many sets of records, its *spaces*, each key at most once in each.
SPACES = 256


class Kept(NamedTuple):
    """One record as it is kept.  A value of None is none at all, which is not an empty one."""

    head: bytes
    value: bytes | None


class Seen(NamedTuple):
    """A record, perhaps without its value.

    :ivar size: of the value; None if it has none.
    :ivar value: None if it has none, or if it was left out.
    """

    key: bytes
    head: bytes
    size: int | None
    value: bytes | None


#: One set of records: the space and the partition.
Place = tuple[int, int]
#: Space, partition, key, head, and the value's length; None if there is no value.
Head = tuple[int, int, bytes, bytes, int | None]
#: What becomes of a key: its record from now on, None if it is dropped.
Change = Kept | None
#: Is called once with None when a batch is kept, or with what kept it from being kept.
Done = Callable[[Failure | None], None]


class Batch:
    """Changes that belong together: all of them are kept, or none.

    They count as made one after the other; only what they come to is remembered.

    :ivar size: bytes of what is remembered.
    """

    __slots__ = ("_cleared", "_meta", "_records", "_states", "size")

    def __init__(self) -> None:
        self.size = 0
        self._records: dict[Place, dict[bytes, Change]] = {}
        self._cleared: dict[Place, None] = {}  # in their order
        self._states: dict[int, bytes | None] = {}
        self._meta: dict[str, bytes | None] = {}

    def put(self, space: int, partition: int, key: bytes, head: bytes, value: bytes | None) -> None:
        """Keep a whole record, in place of the one with its key; `value` None: without a value."""
        self._change((space, partition), key, Kept(head, value))

    def drop(self, space: int, partition: int, key: bytes) -> None:
        """Keep no record with this key."""
        self._change((space, partition), key, None)

    def clear(self, space: int, partition: int) -> None:
        """Drop all records of a place."""
        for key, change in self._records.pop((space, partition), {}).items():
            self.size -= _size(key, change)
        self._cleared[space, partition] = None

    def set_state(self, partition: int, state: bytes | None) -> None:
        """Keep what belongs to a partition as a whole; None: nothing any more."""
        self.size += len(state or b"") - len(self._states.get(partition) or b"")
        self._states[partition] = state

    def set_meta(self, name: str, content: bytes | None) -> None:
        """Keep what belongs to the node as a whole under a name; None: nothing any more."""
        self.size += len(content or b"") - len(self._meta.get(name) or b"")
        self._meta[name] = content

    def join(self, later: Batch) -> None:
        """Let the changes of another batch follow these; the other one stays as it is."""
        for place in later._cleared:
            self.clear(*place)
        for place, changes in later._records.items():
            for key, change in changes.items():
                self._change(place, key, change)
        for partition, state in later._states.items():
            self.set_state(partition, state)
        for name, content in later._meta.items():
            self.set_meta(name, content)

    def take(self) -> Batch:
        """Hand over all changes; this batch is empty afterwards and can be used again."""
        taken = Batch()
        for name in Batch.__slots__:
            mine, empty = getattr(self, name), getattr(taken, name)
            setattr(taken, name, mine)
            setattr(self, name, empty)
        return taken

    def __len__(self) -> int:
        """The number of changes, as far as it is known here; a cleared place counts as one."""
        records = sum(map(len, self._records.values()))
        return records + len(self._cleared) + len(self._states) + len(self._meta)

    def __bool__(self) -> bool:
        return bool(self._records or self._cleared or self._states or self._meta)

    # What it comes to, for those who keep it: cleared, then changed.

    def cleared(self) -> list[Place]:
        """Where no kept record stays."""
        return list(self._cleared)

    def changed(self) -> Iterator[tuple[Place, Mapping[bytes, Change]]]:
        """The records that are new or dropped, after all clearing."""
        return iter(self._records.items())

    @property
    def states(self) -> Mapping[int, bytes | None]:
        """The states that are new, or gone."""
        return self._states

    @property
    def meta(self) -> Mapping[str, bytes | None]:
        """What is new, or gone, under its names."""
        return self._meta

    def _change(self, place: Place, key: bytes, change: Change) -> None:
        changes = self._records.get(place)
        if changes is None:
            changes = self._records[place] = {}
        if key in changes:
            self.size -= _size(key, changes[key])
        self.size += _size(key, change)
        changes[key] = change


def _size(key: bytes, change: Change) -> int:
    if change is None:
        return len(key)
    return len(key) + len(change.head) + len(change.value or b"")


@dataclass(frozen=True)
class Loaded:
    """What was kept.

    :ivar meta: what was kept under its names.
    :ivar states: of the partitions.
    :ivar boots: how often this file was opened, this time included; each is counted on the disk
        before anybody learns of it.
    :ivar intact: is this all that was ever promised to be kept?  If not, whoever owns it must not
        go on as who it was.
    :ivar reason: why it is not intact; for people.
    :ivar heads: makes an iterator over all records, ordered by space, partition and key, that
        does not read long values.  It is there for one use, before the first commit.

        :raises StorageCorrupt: while it is used, if records were lost or changed on the disk.
    """

    meta: Mapping[str, bytes] = field(default_factory=dict)
    states: Mapping[int, bytes] = field(default_factory=dict)
    boots: int = 1
    intact: bool = True
    reason: str = ""
    heads: Callable[[], Iterator[Head]] = lambda: iter(())


class Storage(Protocol):
    """Keeps records, states and meta.  All is called in the reactor's thread, once it runs.

    :ivar durable: does anything outlive the process?
    :ivar quota: bytes that its owner wants to keep at most; None: no limit.  The owner sees to it.
    """

    durable: bool
    quota: int | None

    @property
    def used(self) -> int:
        """Bytes of all kept keys, heads and values."""

    @property
    def behind(self) -> int:
        """Bytes that were given to :meth:`commit` and whose `done` was not called yet."""

    @property
    def broken(self) -> StorageError | None:
        """Why nothing is kept any more; None while all is well."""

    def open(self, reactor: Any, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """Begin, and tell what is there.  It blocks, so do it before the reactor matters.

        :param reactor: its ``callFromThread`` and ``callLater`` are used.
        :param expect: meta that must be as it is here; what has no such name yet is given it.
        :raises StorageError: or one of its subclasses; nothing was changed then.
        """

    def reset(self, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """Begin anew with nothing but this meta.  Only after :meth:`open`, with nothing on the way.

        :raises StorageError: like :meth:`open`.
        """

    def commit(self, batch: Batch, done: Done) -> None:
        """Keep a batch, which is empty and free afterwards.

        `done` is called in the reactor's thread, in the order of the commits.  Until then nobody
        may be told anything that rests on the batch.  After a failure every later commit fails too.
        """

    def read(self, space: int, partition: int, key: bytes) -> Kept | None:
        """The record that is kept at this moment; None if there is none.

        It may be newer than the newest one whose `done` was called: compare the head.

        :raises StorageCorrupt: if it is not what was written.
        :raises StorageError: if it cannot be read.
        """

    def look(self, space: int, partition: int, key: bytes, most: int) -> Seen | None:
        """As :meth:`read`, but a value of more than `most` bytes is not read."""

    def scan(self, space: int, partition: int, start: bytes, number: int, most: int) -> list[Seen]:
        """So many records in the order of their keys, from a key on.  See :meth:`look`.

        Fewer mean that there are no more.
        """

    def close(self, clean: bool = True) -> Deferred[None]:
        """Keep what is on the way, and end.

        :param clean: note that this was a proper end.
        :return: fires when all is on the disk and no thread is left, after every `done`; fails with
            :class:`.StorageError` if something could not be kept, or takes too long.
        """
