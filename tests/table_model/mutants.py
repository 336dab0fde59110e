"""Nodes with one rule of the table taken out (test support).

Each is the model's node with one method, or one class of the product, replaced by a subclass that
lacks the rule.  What each of them breaks is shown by ``tests/test_table_rules.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py2p_twisted.base import Peer
from py2p_twisted.table.acceptor import Acceptor, WrongEpoch
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Epoch, Record, Successor
from py2p_twisted.table.proposer import Outcome, Proposal, Write

from ..simulation.history import Operation
from .member import Staged
from .moving import Decision, Mover
from .talk import Missing, Stopped, Task

# -- 1: every message is checked against the epoch


class AnyEpoch(Acceptor):
    """It takes messages of any epoch, as long as its own has not stopped."""

    def check(self, epoch: Epoch) -> None:
        super().check(self.config.epoch)


class EpochsIgnored(Mover):
    """Rule 1: members answer messages of any epoch."""

    acceptor_class = AnyEpoch


# -- 2: a quorum is wedged before the base is taken


class NeverStopped(Acceptor):
    """It serves on after WEDGE."""

    def check(self, epoch: Epoch) -> None:
        if epoch != self.config.epoch:
            raise WrongEpoch(wedged=False)


class WedgeWithoutEffect(Mover):
    """Rule 2: those who answered WEDGE serve on."""

    acceptor_class = NeverStopped


class OneIsWedged(Mover):
    """Rule 2: one member is stopped, not a quorum; the base is that of a quorum's records then."""

    def wedge(self, config: Config, ballot: Ballot) -> Task[dict[bytes, Stopped] | None]:
        own = self.answer_wedge(config.epoch, ballot)
        yield from ()
        return {self.instance: own} if isinstance(own, Stopped) else None


# -- 3: the base takes the highest ballot of a quorum


class BaseOfOne(Mover):
    """Rule 3: a quorum is stopped, but the base is what the driver itself has."""

    def merge(
        self, acceptor: Acceptor, stopped: dict[bytes, Stopped]
    ) -> Task[dict[bytes, Record] | None]:
        yield from ()
        return dict(acceptor.records)


class LowestBallots(Mover):
    """Rule 3: of several versions the base takes any, not the highest."""

    def merge(
        self, acceptor: Acceptor, stopped: dict[bytes, Stopped]
    ) -> Task[dict[bytes, Record] | None]:
        merged = yield from super().merge(acceptor, stopped)
        return None if merged is None else merged | dict(acceptor.records)


# -- 4: one opening per node and epoch


class OpensAgain(Mover):
    """Rule 4: a node that serves an epoch begins it again when it is told to."""

    def open(self, config: Config, records: Mapping[bytes, Record], purged: Epoch) -> None:
        if self.known is None or self.known.epoch <= config.epoch:
            self.serve(config, records, purged)


# -- 5: the next members and their base are agreed together


class VotesIgnored(Mover):
    """Rule 5: a driver proposes what it likes, whatever was voted for."""

    def decide(
        self, acceptor: Acceptor, stopped: dict[bytes, Stopped], wanted: tuple[Peer, ...]
    ) -> Task[Decision | None]:
        for instance, one in stopped.items():
            stopped[instance] = one._replace(vote=None)
        return (yield from super().decide(acceptor, stopped, wanted))


class NobodyVotes(Mover):
    """Rule 5: the driver decides alone."""

    def choose(self, config: Config, ballot: Ballot, successor: Successor) -> Task[bool]:
        yield from ()
        return True


class MembersOnly(Mover):
    """Rule 5: the members are agreed; each driver computes the base anew, each opens with any."""

    def find_base(
        self, epoch: Epoch, successor: Successor
    ) -> Task[tuple[Mapping[bytes, Record] | None, bool]]:
        yield from ()
        return None, True

    def decide(
        self, acceptor: Acceptor, stopped: dict[bytes, Stopped], wanted: tuple[Peer, ...]
    ) -> Task[Decision | None]:
        votes = [one.vote for one in stopped.values() if one.vote is not None]
        if votes:
            _, successor = max(votes, key=lambda vote: vote[0])
            wanted = successor.config.members
        return (yield from super().decide(acceptor, stopped, wanted))

    def is_base(self, records: Mapping[bytes, Record], successor: Successor) -> bool:
        return True

    def holds(self, successor: Successor) -> bool:
        staged = self.staged
        if staged is None or staged.successor is None:
            return False
        return staged.successor.config == successor.config

    def answer_fetch(self, ballot: Ballot, successor: Successor, giver: bytes) -> Task[bool]:
        if self.known == successor.config:
            return True
        return (yield from super().answer_fetch(ballot, successor, giver))


class OneVoteIsVoid(Mover):
    """Rule 5: one member that did not vote for it is enough for a vote to be ignored."""

    def void(self, config: Config, stopped: dict[bytes, Stopped], successor: Successor) -> bool:
        return any(one.vote is None or one.vote[1] != successor for one in stopped.values())


class SilenceIsNo(Mover):
    """Rule 5: who does not hold a base that was voted for counts as never having held it."""

    def lacks(self, answer: Missing, epoch: Epoch) -> bool:
        return True


class LowerBallotsReplace(Mover):
    """Rule 5: a base that may have been decided gives way to any other."""

    def hold(self, ballot: Ballot, successor: Successor, records: Mapping[bytes, Record]) -> bool:
        self.staged = Staged(ballot.epoch, records, successor, ballot)
        return True

    def _may_hold(self, ballot: Ballot) -> bool:
        return self.known is None or self.known.epoch <= ballot.epoch


class OpeningForgets(Mover):
    """Rule 5: who opens an epoch late forgets the base that it holds for the next one."""

    def drop_staged(self, config: Config) -> None:
        self.staged = None


class CopiesReplaceBases(Mover):
    """Rule 5: what is copied ahead takes the place of a base that may have been decided."""

    def _may_copy(self, epoch: Epoch) -> bool:
        return self.staged is None or self.staged.epoch < epoch


# -- 6: a restart without its data is a new instance


class Amnesia(Mover):
    """Rule 6: it comes back under its old name; see :class:`.world.World`."""

    forgets = True


# -- 7: ballots begin with the epoch


class FlatBallot(Ballot):
    """Ordered by counter and instance, whatever the epoch."""

    __slots__ = ()

    def __lt__(self, other: Any) -> bool:
        return bool(self[1:] < other[1:])

    def __le__(self, other: Any) -> bool:
        return bool(self[1:] <= other[1:])

    def __gt__(self, other: Any) -> bool:
        return bool(self[1:] > other[1:])

    def __ge__(self, other: Any) -> bool:
        return bool(self[1:] >= other[1:])

    def next(self) -> Ballot:
        return FlatBallot(self.epoch, self.counter + 1, self.instance)


class FlatAcceptor(Acceptor):
    """Its first promise is a flat ballot, too."""

    def __init__(self, config: Config, *args: Any, **others: Any) -> None:
        super().__init__(config, *args, **others)
        self._first = FlatBallot(*config.first_ballot)


class FlatBallots(Mover):
    """Rule 7: the order of ballots does not begin with the epoch."""

    acceptor_class = FlatAcceptor

    def new_ballot(self, epoch: Epoch, heard: int = 0) -> Ballot:
        return FlatBallot(*super().new_ballot(epoch, heard))


# -- 8: only a holder of the agreed base serves; a short read needs q equal answers


class OpensWithAnything(Mover):
    """Rule 8: a member that is told to open does so with what it has."""

    def answer_open(self, successor: Successor) -> bool:
        config = successor.config
        if config.has(self.instance) and not self.holds(successor):
            mine = self.acceptor
            if mine is not None and mine.config.epoch.following() == config.epoch:
                self.open(config, dict(mine.records.live_draft().items()), successor.purged)
        return super().answer_open(successor)


class OpensWhenItHears(Mover):
    """Rule 8: a member that hears of its next epoch opens with what it holds for such a one."""

    def learn(self, config: Config | None) -> None:
        super().learn(config)
        staged = self.staged
        successor = staged.successor if staged is not None else None
        known = successor is not None and successor.config == self.known
        if self.behind and staged is not None and successor is not None and known:
            self.staged = None
            self.open(successor.config, staged.records, successor.purged)


class HighestIsEnough(Mover):
    """Rule 8: of a quorum's answers the highest version is returned, although they differ."""

    def judge(self, config: Config, held: list[Record | None]) -> tuple[bool, Record | None]:
        if len(held) < config.quorum:
            return False, None
        return True, max(
            (record for record in held if record is not None),
            key=lambda record: record.ballot,
            default=None,
        )


class OneIsEnough(Mover):
    """Rule 8: the first answer is returned."""

    def judge(self, config: Config, held: list[Record | None]) -> tuple[bool, Record | None]:
        return bool(held), held[0] if held else None


# -- 9: a write that timed out is UNKNOWN, and is repeated only under its operation id


class TimeoutMeansFailure(Mover):
    """Rule 9: a write that timed out is told to have failed."""

    def give_up(self, operation: Operation, doubtful: Epoch | None) -> None:
        operation.failed()


class NewIdForRetries(Mover):
    """Rule 9: a retry is a new operation."""

    def next_try(self, write: Write, doubtful: Epoch) -> Write:
        return Write(
            write.key,
            write.value,
            self.world.new_operation(),
            write.condition,
            write.expected,
            self.stamp,
        )


class GhostsAreFresh(Mover):
    """Rule 9: a first attempt claims to know of every write, however late it comes."""

    def first_try(self, write: Write) -> Write:
        return write.again(2**61, None)


class UnknownIsFailure(Mover):
    """Rule 9: a retry that cannot tell whether it was done before is told to have failed."""

    def tell(self, operation: Operation, outcome: Outcome) -> bool:
        if outcome is Outcome.UNKNOWN:
            operation.failed()
            return False
        return super().tell(operation, outcome)


class RetriesAreFresh(Mover):
    """Rule 9: a retry does not say that it is one."""

    def next_try(self, write: Write, doubtful: Epoch) -> Write:
        return write.again(self.stamp, None)


# -- 10: epoch 1 comes only from founding


class FoundsAgain(Mover):
    """Rule 10: a node that knows of no group begins one."""

    def newest(self) -> Task[Config | None]:
        if self.known is None:
            self.found((self.peer,))
        return (yield from super().newest())


# -- 11: tombstones go only in the base of a new epoch


class DropsTombstones(Acceptor):
    """It keeps no tombstones."""

    def _store(self, key: bytes, record: Record) -> None:
        super()._store(key, record)
        if record.value is None:
            self.records.drop(key)


class TombstonesDroppedAtOnce(Mover):
    """Rule 11: a deletion leaves no record behind."""

    acceptor_class = DropsTombstones


class PurgesForgotten(Mover):
    """Rule 11: a new epoch does not say that tombstones were dropped."""

    def propose_base(
        self, acceptor: Acceptor, merged: dict[bytes, Record], wanted: tuple[Peer, ...]
    ) -> Decision:
        successor, records = super().propose_base(acceptor, merged, wanted)
        return Successor(successor.config, successor.base, FIRST_EPOCH), records


class PurgesOneTooLow(Mover):
    """Rule 11: it names the epoch in which the tombstones were, not the one that lacks them."""

    def propose_base(
        self, acceptor: Acceptor, merged: dict[bytes, Record], wanted: tuple[Peer, ...]
    ) -> Decision:
        successor, records = super().propose_base(acceptor, merged, wanted)
        if successor.purged == successor.config.epoch:
            successor = Successor(successor.config, successor.base, acceptor.config.epoch)
        return successor, records


# -- 12: ACCEPT without PREPARE only at a ballot that a quorum promised


class NeverUnsure(Mover):
    """Rule 12: it goes on at the next ballot although no quorum acknowledged the last one."""

    def note_end(self, proposal: Proposal, *, acknowledged: bool) -> None:
        pass


class OwnAcceptorForgotten(Mover):
    """Rule 12: it trusts its own acceptor, which was not open when it wrote."""

    def note_end(self, proposal: Proposal, *, acknowledged: bool) -> None:
        if acknowledged:
            self.unsure.discard(proposal.write.key)
        else:
            self.unsure.add(proposal.write.key)


class OwnPromiseIsEnough(Mover):
    """Rule 12: what its own acceptor promised it counts as promised by a quorum."""

    def steady_ballot(self, acceptor: Acceptor, key: bytes) -> Ballot | None:
        ballot = acceptor.promised(key)
        return ballot if ballot.instance == self.instance else None


class EverybodyIsFirst(Mover):
    """Rule 12: every member takes the first ballot of an epoch for its own."""

    def steady_ballot(self, acceptor: Acceptor, key: bytes) -> Ballot | None:
        if acceptor.promised(key) == acceptor.config.first_ballot:
            return Ballot(acceptor.config.epoch, 1, self.instance)
        return super().steady_ballot(acceptor, key)
