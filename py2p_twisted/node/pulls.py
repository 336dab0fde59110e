"""Records of a partition on their way from a peer, some buckets at a time (floor 2).

Owns what is asked next, and what an answer changes.  Asks nobody by itself: ``sync.py`` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from ..table.digest import DIGEST_BYTES, PER_BUCKET, bucket_of, differing
from ..table.group import Ballot, Base, Epoch, Record
from ..table.records import Records
from ..wire.messages import Difference, Differing, Source
from .core import Core

__all__ = ["RECORD_BYTES", "Copy", "Mode", "Pull", "Target", "Want"]

#: About what a record takes in a message beside its key and value.
RECORD_BYTES = 160
#: Questions about the same few buckets: a peer that never comes to an end is given up.
_MOST_AGAIN = 4096


class Mode(Enum):
    """What a pull makes of its target."""

    MIRROR = "exactly the source"
    MERGE = "the higher ballot for each key"


class Target(Protocol):
    """Where the records go that are pulled."""

    @property
    def records(self) -> Records:
        """Those that are there."""

    def put(self, key: bytes, record: Record) -> None:
        """Add or replace one."""

    def drop(self, key: bytes) -> None:
        """Remove one, if it is there."""


class Copy:
    """Records of which nobody is served: any may be replaced."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def put(self, key: bytes, record: Record) -> None:
        """Add or replace one."""
        self.records.put(key, record)

    def drop(self, key: bytes) -> None:
        """Remove one, if it is there."""
        self.records.drop(key)


class Want:
    """The records of one partition, as a peer has them.

    :param target: is changed to what the mode says.
    :param base: only if they are exactly these.
    :param theirs: their digests, if they are known already.

    :ivar purged: once heard: the newest epoch whose base left tombstones out.
    :ivar missing: true once the peer answered that it has them not.
    """

    def __init__(
        self,
        partition: int,
        epoch: Epoch,
        source: Source,
        target: Target,
        *,
        base: Base | None = None,
        theirs: bytes | None = None,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.source = source
        self.target = target
        self.base = base
        self.theirs = theirs
        self.purged: Epoch | None = None
        self.missing = False


class Pull:
    """One want on its way: some buckets at a time.

    :ivar chunk: the buckets to ask for; empty: it is done.
    :ivar size: about what the question takes in a message.
    """

    def __init__(self, core: Core, want: Want, mode: Mode) -> None:
        assert want.theirs is not None
        self.want = want
        self._core = core
        self._mode = mode
        self._buckets = len(want.theirs) // DIGEST_BYTES
        records = want.target.records
        self._left = deque(differing(records.digests(self._buckets), want.theirs))
        #: my keys in the buckets that differ
        self._mine = records.keys_in(self._buckets, set(self._left)) if self._left else {}
        self._seen: dict[bytes, Ballot] = {}  # what the peer was heard to have in this chunk
        self._again = 0
        self.chunk: Sequence[int] = ()
        self.size = 0
        self._next()

    def _next(self) -> None:
        """Go on to the next buckets, as many as suit one message."""
        settings = self._core.settings
        for bucket in self.chunk:
            del self._mine[bucket]
        chunk: list[int] = []
        size = 0
        while self._left and (len(chunk) + 1) * PER_BUCKET <= max(settings.page_keys, PER_BUCKET):
            takes = sum(len(key) + RECORD_BYTES // 2 for key in self._mine[self._left[0]])
            if chunk and size + takes > settings.page_bytes:
                break
            chunk.append(self._left.popleft())
            size += takes
        if size > settings.page_bytes:
            self._start_anew(chunk[0])
            size = 0
        self.chunk, self.size = chunk, size
        self._seen.clear()
        self._again = 0

    def _start_anew(self, bucket: int) -> None:
        """So many keys cannot be told: let the peer tell all of its own."""
        if self._mode is Mode.MIRROR:
            for key in self._mine[bucket]:
                self.want.target.drop(key)
        self._mine[bucket] = []

    def question(self) -> Differing:
        """What to ask."""
        want = self.want
        records = want.target.records
        have: dict[bytes, Ballot] = {}
        for bucket in self.chunk:
            for key in self._mine[bucket]:
                record = records.get(key)
                if record is not None:
                    have[key] = record.ballot
        have.update(self._seen)
        return Differing(
            want.partition,
            want.epoch,
            want.source,
            self._buckets,
            tuple(self.chunk),
            tuple(have.items()),
        )

    def heard(self, difference: Difference) -> str | None:
        """Take an answer in; what is wrong with it, if anything."""
        target, wanted = self.want.target, set(self.chunk)
        for key, record in difference.records:
            bucket = bucket_of(key, self._buckets)
            if bucket not in wanted or not self._belongs(key):
                return "a record that was not asked for"
            old = target.records.get(key)
            if self._mode is Mode.MIRROR or old is None or old.ballot < record.ballot:
                target.put(key, record)
            if old is None:
                self._mine[bucket].append(key)
            self._seen[key] = record.ballot
        for key in difference.dropped:
            if bucket_of(key, self._buckets) not in wanted:
                return "a key that was not asked for"
            self._seen.pop(key, None)
            if self._mode is Mode.MIRROR:
                target.drop(key)
        if not difference.more:
            self._next()
            return None
        self._again += 1
        if not difference.records or self._again == _MOST_AGAIN:
            return "more records are promised, and do not come"
        self._halve()
        return None

    def _halve(self) -> None:
        """Ask for less at a time, if what was heard makes the question long."""
        self.size = sum(
            len(key) + RECORD_BYTES // 2 for bucket in self.chunk for key in self._mine[bucket]
        )
        if self.size > self._core.settings.page_bytes and len(self.chunk) > 1:
            half = len(self.chunk) // 2
            self._left.extendleft(reversed(self.chunk[half:]))
            self.chunk = kept = self.chunk[:half]
            self._seen = {
                key: ballot
                for key, ballot in self._seen.items()
                if bucket_of(key, self._buckets) in kept
            }
            self.size //= 2

    def _belongs(self, key: bytes) -> bool:
        try:
            return self._core.partition(key) == self.want.partition
        except ValueError:
            return False
