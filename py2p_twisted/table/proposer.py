"""What a write does to a record, and one write on its way through a group (floor 0; pure).

CASPaxos (Rystsov, 2018): a write is a function from the present record to the next one.  It needs
PREPARE and ACCEPT at a quorum of the group, or ACCEPT alone where the proposer's ballot is promised
already.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from hashlib import sha256
from typing import Annotated

import msgspec

from .acceptor import Acceptor
from .group import MOST_STAMP, OPERATION_ID_BYTES, Ballot, Config, Epoch, Record, written
from .values import plain

__all__ = ["Condition", "Outcome", "Proposal", "Step", "Write", "decide", "write_alone"]


class Condition(IntEnum):
    """When a write takes effect."""

    ALWAYS = 0
    PRESENT = 1  # there is a value
    EQUALS = 2  # the value is `expected`; None: there is no value
    HASHES = 3  # the value's SHA-256 is `expected`: two large values need not fit one message
    NEVER = 4  # it only settles what the record is


class Outcome(IntEnum):
    """What became of a write."""

    APPLIED = 0
    REFUSED = 1  # its condition did not hold
    UNKNOWN = 2  # a retry whose first attempt can no longer be told from no attempt
    STALE = 3  # not applied: it may be older than its sender thinks; try again with a newer clock


class Write(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One write of one key.

    :ivar key: the record's key.
    :ivar value: the new value; None deletes.
    :ivar operation: the operation id; retries carry the same.
    :ivar condition: when to apply it.
    :ivar expected: for :attr:`Condition.EQUALS` and :attr:`Condition.HASHES`.
    :ivar after: a stamp that the first attempt's must be higher than: what its sender had heard of.
    :ivar doubtful: the epoch in which an attempt was sent whose answer never came, or None.
    """

    key: Annotated[bytes, msgspec.Meta(max_length=4096 + 32)]
    value: bytes | None
    operation: Annotated[
        bytes, msgspec.Meta(min_length=OPERATION_ID_BYTES, max_length=OPERATION_ID_BYTES)
    ]
    condition: Condition = Condition.ALWAYS
    expected: bytes | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=MOST_STAMP)] = 0
    doubtful: Epoch | None = None

    def again(self, after: int, doubtful: Epoch | None) -> Write:
        """The same write with another clock, or marked as a retry."""
        return Write(
            self.key, self.value, self.operation, self.condition, self.expected, after, doubtful
        )


def decide(current: Record | None, write: Write, purged: Epoch) -> Outcome | None:
    """What becomes of `write`, given the record; None: it is to be applied.

    A write that finds its operation id was done.  One that does not find it is applied only if the
    table remembers every write of the key since the first attempt was sent: the record forgot none
    that is younger, and no tombstone was dropped since.  Otherwise nobody can tell (rule 9).  That
    goes for first attempts, too: one that was long under way may have been repeated since.

    :param purged: the newest epoch whose base left tombstones out.
    """
    if write.condition is Condition.NEVER:
        return Outcome.REFUSED
    done = current.done(write.operation) if current is not None else None
    if done is not None:
        return Outcome.APPLIED if done else Outcome.REFUSED
    if write.doubtful is not None and write.doubtful < purged:
        return Outcome.UNKNOWN
    if current is not None and current.forgot > write.after:
        return Outcome.STALE if write.doubtful is None else Outcome.UNKNOWN
    if write.condition is Condition.ALWAYS:
        return None
    if write.condition is Condition.PRESENT:
        return None if current is not None and current.value is not None else Outcome.REFUSED
    value = plain(current.value) if current is not None else None
    if write.condition is Condition.EQUALS:
        holds = value == write.expected
    else:
        holds = value is not None and sha256(value).digest() == write.expected
    return None if holds else Outcome.REFUSED


def write_alone(acceptor: Acceptor, instance: bytes, write: Write, clock: int) -> Outcome | None:
    """Carry a write out in a group whose only member is this acceptor's owner, in one step.

    :returns: None if it takes more than that: somebody has a promise, or an earlier attempt has to
        be told that the operation is over.
    :raises WrongEpoch: if the epoch has stopped.
    """
    acceptor.check(acceptor.config.epoch)
    ballot = acceptor.steady(write.key, instance)
    if ballot is None:
        return None
    current = acceptor.get(write.key)
    outcome = decide(current, write, acceptor.purged)
    if outcome is None:
        if current is not None or write.value is not None:
            clock = max(clock, write.after)
            record = written(current, ballot, write.value, write.operation, clock)
            acceptor.accept_steady(write.key, record)
            return Outcome.APPLIED
        outcome = Outcome.APPLIED
    return outcome if write.doubtful is None else None


class Step(Enum):
    """What a proposal waits for."""

    PREPARE = "promises"
    ACCEPT = "acknowledgements"
    CONFIRM = "equal versions"
    DONE = "nothing"


_NONE = Ballot(Epoch(0, 0, 0), 0, b"")


class Proposal:
    """One write in one epoch: counts the members' answers and says what to send next.

    Whoever drives it sends what :attr:`step` says to members, each once a round, and tells it what
    they answer.  After every answer the step may be another one: a new round.

    :ivar step: what it waits for.
    :ivar ballot: of this round.
    :ivar record: to be accepted, or, in the end, what the key's record certainly was.
    :ivar outcome: in the end, what became of the write.
    :ivar sent: was an ACCEPT sent whose fate is open?  Then giving up leaves the outcome unknown.
    """

    __slots__ = (
        "_best", "_count", "_equal", "_quorum", "ballot", "outcome", "record", "round", "sent",
        "step", "write",
    )  # fmt: skip

    def __init__(self, config: Config, write: Write) -> None:
        self.write = write
        self.step = Step.PREPARE
        self.ballot = _NONE
        self.record: Record | None = None
        self.outcome = Outcome.UNKNOWN
        self.sent = False
        self.round = 0
        self._quorum = config.quorum
        self._count = 0
        self._best: Record | None = None
        self._equal = True

    @property
    def over(self) -> bool:
        """Is the outcome known?"""
        return self.step is Step.DONE

    # -- beginning a round

    def prepare(self, ballot: Ballot) -> None:
        """Begin a full round at a ballot that nobody used for this key."""
        if self.sent and self.write.doubtful is None:
            self.write = self.write.again(self.write.after, ballot.epoch)
        self._begin(Step.PREPARE)
        self.ballot = ballot
        self._best = None
        self._equal = True

    def steady(self, acceptor: Acceptor, ballot: Ballot, clock: int) -> None:
        """Begin at a ballot that a quorum promised, from the record that it promised it with.

        :param acceptor: the proposer's own, which has that record.
        """
        current = acceptor.get(self.write.key)
        if not self._apply(current, ballot, acceptor.purged, clock):
            self._begin(Step.CONFIRM)  # nothing changes; somebody may have written meanwhile
            self.record = current

    def _apply(self, current: Record | None, ballot: Ballot, purged: Epoch, clock: int) -> bool:
        """Apply the write to the present record; False if there is nothing to propose."""
        write = self.write
        outcome = decide(current, write, purged)
        changes = outcome is None and not (current is None and write.value is None)
        if changes:
            self.outcome = Outcome.APPLIED
            clock = max(clock, write.after)
            self._propose(written(current, ballot, write.value, write.operation, clock))
            return True
        if outcome is Outcome.STALE or outcome is Outcome.UNKNOWN:
            self._done(outcome)
            return True
        done = current is not None and current.done(write.operation) is not None
        self.outcome = Outcome.APPLIED if outcome is None else outcome
        # An earlier attempt may be under way still: it must find that this operation is over.
        fences = write.doubtful is not None and write.condition is not Condition.NEVER
        if done or not fences:
            return False
        refused = outcome is Outcome.REFUSED
        value = write.value
        if refused:
            value = current.value if current is not None else None
        clock = max(clock, write.after)
        self._propose(written(current, ballot, value, write.operation, clock, refused=refused))
        return True

    def _begin(self, step: Step) -> None:
        self.step = step
        self.round += 1
        self._count = 0

    def _propose(self, record: Record) -> None:
        self._begin(Step.ACCEPT)
        self.ballot = record.ballot
        self.record = record
        self.sent = True

    def _done(self, outcome: Outcome) -> None:
        self.step = Step.DONE
        self.outcome = outcome

    # -- what members answer, each once a round

    def promised(self, record: Record | None, purged: Epoch, clock: int) -> None:
        """PREPARE was answered by a promise and the record that was accepted so far."""
        best = self._best
        if self._count and (record and record.ballot) != (best and best.ballot):
            self._equal = False
        if record is not None and (best is None or record.ballot > best.ballot):
            self._best = record
        self._count += 1
        if self._count < self._quorum:
            return
        current = self._best
        if self._apply(current, self.ballot, purged, clock):
            return
        self.record = current
        if self._equal:  # a quorum has it: it is chosen already
            self._done(self.outcome)
        else:
            assert current is not None
            self._propose(current.at(self.ballot))

    def accepted(self) -> None:
        """ACCEPT was acknowledged."""
        self._count += 1
        if self._count >= self._quorum:
            self._done(self.outcome)

    def confirmed(self, version: Ballot | None) -> bool:
        """A member told its version; False if it is another one: a full round is due."""
        if version != (self.record.ballot if self.record is not None else None):
            return False
        self._count += 1
        if self._count >= self._quorum:
            self._done(self.outcome)
        return True
