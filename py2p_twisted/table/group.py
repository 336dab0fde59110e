"""Epochs, ballots, records and the configuration of a partition's group (floor 0; pure data).

These are also the shapes in which they travel: no second set of classes exists on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, NamedTuple

import msgspec

from ..base import Peer

__all__ = [
    "EMPTY_BASE",
    "FIRST_EPOCH",
    "OPERATION_ID_BYTES",
    "Ballot",
    "Base",
    "Config",
    "Epoch",
    "Record",
    "Successor",
    "base_of",
    "quorum",
]

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

#: An operation id is this long; a record remembers the last four.
OPERATION_ID_BYTES = 8
_REMEMBERED = 4


class Epoch(NamedTuple):
    """The number of one agreement of a group; the era in front changes only by ``recover``."""

    era: Count
    era_random: Count
    number: Count

    def following(self) -> Epoch:
        """The next epoch of the same era."""
        return Epoch(self.era, self.era_random, self.number + 1)

    def plausible(self) -> bool:
        """Is it small enough that the numbers after it can still be told to others?"""
        return self.era < 1 << 32 and self.number < 1 << 61

    @property
    def era_name(self) -> tuple[int, int]:
        """What orders two eras: their counter, then their random number."""
        return (self.era, self.era_random)


#: The epoch that founding a ring gives every partition; nothing else ever creates it (rule 10).
FIRST_EPOCH = Epoch(0, 0, 1)


class Ballot(NamedTuple):
    """The version of a value.  It begins with the epoch (rule 7)."""

    epoch: Epoch
    counter: Count
    instance: bytes


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a member keeps of one key.

    :ivar ballot: its version.
    :ivar value: its bytes; None is a tombstone.
    :ivar operations: the ids of its last four writes, concatenated, the newest last.
    :ivar writes: how many writes it had since it was made.
    """

    ballot: Ballot
    value: bytes | None
    operations: bytes = b""
    writes: Count = 0

    def has_done(self, operation: bytes) -> bool:
        """Is the operation among the last four writes?"""
        ids = self.operations
        step = OPERATION_ID_BYTES
        return any(ids[at : at + step] == operation for at in range(0, len(ids), step))

    def forgot_some(self) -> bool:
        """Had this record more writes than it remembers the ids of?"""
        return self.writes > _REMEMBERED

    @staticmethod
    def remember(old: Record | None, operation: bytes) -> bytes:
        """The operation ids after one more write."""
        if old is None:
            return operation
        return (old.operations + operation)[-_REMEMBERED * OPERATION_ID_BYTES :]


class Base(NamedTuple):
    """The identity of a set of records: how many, and a digest that their order does not change."""

    records: Count
    digest: bytes


_DIGEST_BYTES = 16
EMPTY_BASE = Base(0, bytes(_DIGEST_BYTES))
_encode = msgspec.msgpack.Encoder().encode


def base_of(records: Iterable[tuple[bytes, Record]]) -> Base:
    """The identity of these records, tombstones included if they are among them."""
    total = count = 0
    for key, record in records:
        digest = blake2b(_encode((key, record)), digest_size=_DIGEST_BYTES).digest()
        total ^= int.from_bytes(digest, "big")
        count += 1
    return Base(count, total.to_bytes(_DIGEST_BYTES, "big"))


class Config(msgspec.Struct, frozen=True, array_like=True):
    """Who keeps a partition: the members of its group, and the epoch of that agreement."""

    partition: Annotated[int, msgspec.Meta(ge=0, lt=1024)]
    epoch: Epoch
    members: Annotated[tuple[Peer, ...], msgspec.Meta(min_length=1, max_length=5)]

    def has(self, instance: bytes) -> bool:
        """Is this instance a member?"""
        return any(peer.instance == instance for peer in self.members)


class Successor(msgspec.Struct, frozen=True, array_like=True):
    """What the Paxos of an epoch decides: the next members and their base, together (rule 5).

    :ivar purged: the newest epoch whose base left tombstones out.
    """

    config: Config
    base: Base
    purged: Epoch


def quorum(members: int) -> int:
    """How many of a group's members decide."""
    return members // 2 + 1
