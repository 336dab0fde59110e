"""Epochs, ballots, records and the configuration of a partition's group (floor 0; pure data).

These are also the shapes in which they travel: no second set of classes exists on the wire.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from ..base import Peer

__all__ = [
    "FIRST_EPOCH",
    "MOST_STAMP",
    "OPERATION_ID_BYTES",
    "Ballot",
    "Base",
    "Config",
    "Epoch",
    "Record",
    "Successor",
    "quorum",
    "written",
]

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

#: An operation id is this long; a record remembers the last four, each with its stamp.
OPERATION_ID_BYTES = 8
_REMEMBERED = 4
_ENTRY_BYTES = OPERATION_ID_BYTES + 8
#: This bit of a stamp says that its operation was refused.
_REFUSED = 1 << 63
_STAMP = _REFUSED - 1
#: No honest clock comes so far; it goes no further, so that all it makes can be told to others.
MOST_STAMP = 1 << 53


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
    instance: Annotated[bytes, msgspec.Meta(max_length=16)]

    def next(self) -> Ballot:
        """The ballot that everyone promises who accepts this one (CASPaxos, section 2.2.1)."""
        return Ballot(self.epoch, self.counter + 1, self.instance)


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a member keeps of one key.

    A *stamp* is a Lamport clock's time: that of a write is higher than that of the write before it
    and than all that its writer had heard of.

    :ivar ballot: its version.
    :ivar value: its bytes; None is a tombstone.
    :ivar operations: ids and stamps of its last four writes, concatenated, the newest last; refused
        ones are among them if an attempt at them may still be under way.
    :ivar forgot: the stamp of the newest write whose id is not remembered any more, 0 if none.
    """

    ballot: Ballot
    value: bytes | None
    operations: Annotated[bytes, msgspec.Meta(max_length=_REMEMBERED * _ENTRY_BYTES)] = b""
    forgot: Count = 0

    @property
    def stamp(self) -> int:
        """The stamp of its last write."""
        return int.from_bytes(self.operations[-8:], "big") & _STAMP

    def done(self, operation: bytes) -> bool | None:
        """Is the operation among the last four?  Then True if it was applied, False if refused."""
        entries = self.operations
        if operation not in entries:
            return None
        for at in range(0, len(entries), _ENTRY_BYTES):
            if entries.startswith(operation, at):
                return entries[at + OPERATION_ID_BYTES] < _REFUSED >> 56
        return None

    def at(self, ballot: Ballot) -> Record:
        """The same at another ballot."""
        return Record(ballot, self.value, self.operations, self.forgot)


def written(
    old: Record | None,
    ballot: Ballot,
    value: bytes | None,
    operation: bytes,
    clock: int,
    *,
    refused: bool = False,
) -> Record:
    """The record after one more write.

    :param clock: a stamp that the write's own must be higher than.
    :param refused: the write changed nothing, but an attempt at it must find that it is over.
    """
    before = old.stamp if old is not None else 0
    stamp = (clock if clock > before else before) + 1
    if stamp > MOST_STAMP:
        stamp = MOST_STAMP
    entry = operation + (stamp | _REFUSED if refused else stamp).to_bytes(8, "big")
    if old is None:
        return Record(ballot, value, entry)
    entries = old.operations + entry
    forgot = old.forgot
    if len(entries) > _REMEMBERED * _ENTRY_BYTES:
        forgot = int.from_bytes(entries[OPERATION_ID_BYTES:_ENTRY_BYTES], "big") & _STAMP
        if forgot > MOST_STAMP:
            forgot = MOST_STAMP
        entries = entries[_ENTRY_BYTES:]
    return Record(ballot, value, entries, forgot)


class Base(NamedTuple):
    """The identity of a set of records: how many, and a digest that their order does not change."""

    records: Count
    digest: bytes


class Config(msgspec.Struct, frozen=True, array_like=True):
    """Who keeps a partition: the members of its group, and the epoch of that agreement."""

    partition: Annotated[int, msgspec.Meta(ge=0, lt=1024)]
    epoch: Epoch
    members: Annotated[tuple[Peer, ...], msgspec.Meta(min_length=1, max_length=5)]

    def has(self, instance: bytes) -> bool:
        """Is this instance a member?"""
        return any(peer.instance == instance for peer in self.members)

    @property
    def quorum(self) -> int:
        """How many of the members decide."""
        return len(self.members) // 2 + 1

    @property
    def first_ballot(self) -> Ballot:
        """The ballot that whoever opens the epoch promises to its first member, for every key.

        All members open with the same base, so this is a PREPARE of the first member that all of
        them have answered; it may begin with an ACCEPT at this ballot (rule 12).
        """
        return Ballot(self.epoch, 1, self.members[0].instance)


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
