"""What a write does to a record, and how a group of one carries it out (floor 0; pure)."""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import Annotated

import msgspec

from .acceptor import Acceptor
from .group import OPERATION_ID_BYTES, Ballot, Epoch, Record

__all__ = ["Condition", "Outcome", "Write", "decide", "write_alone"]


class Condition(IntEnum):
    """When a write takes effect."""

    ALWAYS = 0
    PRESENT = 1  # there is a value
    EQUALS = 2  # the value is `expected`; None: there is no value
    HASHES = 3  # the value's SHA-256 is `expected`: two large values need not fit one message


class Outcome(IntEnum):
    """What became of a write."""

    APPLIED = 0
    REFUSED = 1  # its condition did not hold
    UNKNOWN = 2  # a retry whose first attempt can no longer be told from no attempt


class Write(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One write of one key.

    :ivar key: the record's key.
    :ivar value: the new value; None deletes.
    :ivar operation: the operation id; retries carry the same.
    :ivar condition: when to apply it.
    :ivar expected: for :attr:`Condition.EQUALS` and :attr:`Condition.HASHES`.
    :ivar doubtful: the epoch in which an attempt was sent whose answer never came, or None.
    """

    key: Annotated[bytes, msgspec.Meta(max_length=4096 + 32)]
    value: bytes | None
    operation: Annotated[
        bytes, msgspec.Meta(min_length=OPERATION_ID_BYTES, max_length=OPERATION_ID_BYTES)
    ]
    condition: Condition = Condition.ALWAYS
    expected: bytes | None = None
    doubtful: Epoch | None = None


def decide(current: Record | None, write: Write, purged: Epoch) -> Outcome | None:
    """What becomes of `write`, given the record; None: it is to be applied.

    A retry that finds its operation id was done.  One that does not find it is applied only if the
    table remembers every write of the key since the first attempt: the record forgot none, and no
    tombstone was dropped since.  Otherwise nobody can tell (rule 9).

    :param purged: the newest epoch whose base left tombstones out.
    """
    if write.doubtful is not None:
        if current is not None and current.has_done(write.operation):
            return Outcome.APPLIED
        if write.doubtful < purged or (current is not None and current.forgot_some()):
            return Outcome.UNKNOWN
    value = current.value if current is not None else None
    if write.condition is Condition.ALWAYS:
        holds = True
    elif write.condition is Condition.PRESENT:
        holds = value is not None
    elif write.condition is Condition.EQUALS:
        holds = value == write.expected
    else:
        holds = value is not None and sha256(value).digest() == write.expected
    return None if holds else Outcome.REFUSED


def write_alone(acceptor: Acceptor, me: bytes, write: Write) -> Outcome:
    """Carry a write out in a group whose only member is this acceptor's owner.

    Both rounds of CASPaxos in one step: the owner is a quorum by itself.

    :raises WrongEpoch: if the epoch has stopped.
    """
    epoch = acceptor.config.epoch
    ballot = Ballot(epoch, acceptor.counter + 1, me)
    acceptor.check(epoch)
    current = acceptor.get(write.key)
    outcome = decide(current, write, acceptor.purged)
    if outcome is not None:
        return outcome
    if write.value is None and current is None:
        return Outcome.APPLIED  # nothing to delete, and nothing left behind
    record = Record(
        ballot,
        write.value,
        Record.remember(current, write.operation),
        current.writes + 1 if current is not None else 1,
    )
    acceptor.accept(epoch, write.key, record)
    return Outcome.APPLIED
