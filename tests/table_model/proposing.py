"""How a node of the model writes: as the steady proposer of a group, or as anybody (test support).

The rounds are the product's :class:`~py2p_twisted.table.proposer.Proposal`; here are only the order
of messages, the own answer first, and the memory of which ballots a quorum is known to promise.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from py2p_twisted.table.acceptor import Acceptor, WrongEpoch
from py2p_twisted.table.group import Ballot, Config, Epoch
from py2p_twisted.table.proposer import Condition, Proposal, Step, Write

from .member import Member
from .talk import Accepted, Ask, Failed, Held, Promised, Refused, Settled, Task, Written, Wrong

__all__ = ["Proposing"]

#: Full rounds of one write before its proposer gives it up.
_MOST_ROUNDS = 5


class Silent:
    """Nobody answered for too long."""


class Proposing(Member):
    """A node that carries writes through its group.

    :ivar unsure: keys whose last ACCEPT of this node is not known to be with a quorum, or is not
        what its own acceptor has.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unsure: set[bytes] = set()
        self.busy: dict[bytes, deque[object]] = {}  # key -> those that wait for their turn

    # -- for others

    def answer_write(self, epoch: Epoch, write: Write) -> Task[Written | Wrong | Failed]:
        """A client has it write."""
        config = self.known
        if self.acceptor is None or config is None or self.acceptor.config.epoch != epoch:
            return Wrong(config)
        result, _ = yield from self.propose(self.acceptor.config, write)
        return result

    def answer_attempt(self, config: Config, write: Write) -> Task[Written | Wrong | Failed]:
        """Its own user has it write; he may lose his patience before it is done."""
        result, _ = yield from self.propose(config, write)
        return result

    def answer_settle(self, epoch: Epoch, key: bytes) -> Task[Settled | Wrong | Failed]:
        """A client wants to know what holds."""
        if self.acceptor is None or self.acceptor.config.epoch != epoch:
            return Wrong(self.known)
        return (yield from self.settle(self.acceptor.config, key))

    def settle(self, config: Config, key: bytes) -> Task[Settled | Wrong | Failed]:
        """Find out what a key's record is, by completing what was begun."""
        write = Write(key, None, bytes(8), Condition.NEVER)
        result, proposal = yield from self.propose(config, write)
        return Settled(proposal.record) if isinstance(result, Written) else result

    # -- one proposal

    def propose(
        self, config: Config, write: Write
    ) -> Task[tuple[Written | Wrong | Failed, Proposal]]:
        """Carry a write out in this configuration, when its key's turn has come."""
        key = write.key
        while key in self.busy:
            self.busy[key].append(self.world.current)
            yield None
        self.busy[key] = deque()
        proposal = Proposal(config, write)
        try:
            problem = yield from self._carry(config, proposal)
        finally:
            for waiting in self.busy.pop(key):
                self.world.poke(waiting)
        if proposal.sent:
            self.note_end(proposal, acknowledged=problem is None)
        if problem is None:
            return Written(proposal.outcome, self.stamp), proposal
        if isinstance(problem, Wrong) and not proposal.sent:
            return problem, proposal
        return Failed(proposal.sent), proposal

    def _carry(self, config: Config, proposal: Proposal) -> Task[Wrong | type[Silent] | None]:
        """All rounds of a proposal; what went wrong, if anything."""
        try:
            acceptor = self._own(config)
            if acceptor is not None:
                acceptor.check(config.epoch)
        except WrongEpoch:
            return Wrong(self.known)
        ballot = self.steady_ballot(acceptor, proposal.write.key) if acceptor is not None else None
        if acceptor is not None and ballot is not None:
            proposal.steady(acceptor, ballot, self.stamp)
        else:
            heard = acceptor.counter if acceptor is not None else 0
            proposal.prepare(self.new_ballot(config.epoch, heard))
        for _ in range(_MOST_ROUNDS):
            problem: Wrong | Refused | type[Silent] | None = None
            while proposal.step is not Step.DONE and problem is None:
                problem = yield from self._round(config, proposal)
            if problem is None:
                return None
            if not isinstance(problem, Refused):
                return problem
            proposal.prepare(self.new_ballot(config.epoch, problem.ballot.counter))
        return Silent

    def steady_ballot(self, acceptor: Acceptor, key: bytes) -> Ballot | None:
        """The ballot that it may use without PREPARE, if there is one (rule 12)."""
        return None if key in self.unsure else acceptor.steady(key, self.instance)

    def note_end(self, proposal: Proposal, *, acknowledged: bool) -> None:
        """Remember whether a quorum promised the ballot after its last one, as its own did."""
        key = proposal.write.key
        own = self.acceptor.get(key) if self.acceptor is not None else None
        if acknowledged and own is not None and own.ballot == proposal.ballot:
            self.unsure.discard(key)
        else:
            self.unsure.add(key)

    def _own(self, config: Config) -> Acceptor | None:
        """Its own acceptor, if it is a member that has opened this epoch.

        :raises WrongEpoch: if it is in another one.
        """
        acceptor = self.acceptor
        if acceptor is not None and acceptor.config.epoch != config.epoch:
            raise WrongEpoch(wedged=False)
        return acceptor

    def _round(self, config: Config, proposal: Proposal) -> Task[Any]:
        """One round: None if the proposal went on, else what went wrong."""
        step, number = proposal.step, proposal.round
        kind, args = _message(config.epoch, proposal)
        if self.acceptor is not None and self.acceptor.config.epoch == config.epoch:
            problem = self._take(proposal, self.answer(kind, args))
            if problem is not None or proposal.round != number or proposal.step is Step.DONE:
                return problem
        others = [peer.instance for peer in config.members if peer.instance != self.instance]
        others = self.world.shuffled(others)
        few = step is not Step.PREPARE and self.world.maybe(0.6)
        asked = others[: config.quorum - 1] if few else others
        return (yield from self._others(proposal, Ask(kind, args, asked), others[len(asked) :]))

    def _others(self, proposal: Proposal, ask: Ask, rest: list[bytes]) -> Task[Any]:
        """Ask other members; the rest of them when these are slow."""
        number, heard, asked = proposal.round, 0, len(ask.to)
        reply = yield ask
        while True:
            if reply is None or heard == asked:
                if not rest:
                    return Silent
                asked += len(rest)
                rest, more = [], rest
                reply = yield ask._replace(to=more, more=True)
                continue
            heard += 1
            problem = self._take(proposal, reply[1])
            if proposal.step is Step.DONE and ask.kind == "accept" and self.world.maybe(0.5):
                self.world.tell(ask._replace(to=rest))  # what is lost there costs slower reads
            if problem is not None or proposal.round != number or proposal.step is Step.DONE:
                return problem
            if heard < asked:
                reply = yield None

    def _take(self, proposal: Proposal, answer: Any) -> Wrong | Refused | None:
        """Tell the proposal what a member answered; what stands against it."""
        if isinstance(answer, Promised):
            self.hear(answer.stamp)
            proposal.promised(answer.record, answer.purged, self.stamp)
        elif isinstance(answer, Accepted):
            self.hear(answer.stamp)
            proposal.accepted()
        elif isinstance(answer, Held):
            version = answer.record.ballot if answer.record is not None else None
            if not proposal.confirmed(version):
                return Refused(version or proposal.ballot)
        else:
            if isinstance(answer, Wrong):
                self.learn(answer.config)
            assert isinstance(answer, (Wrong, Refused)), answer
            return answer
        return None


def _message(epoch: Epoch, proposal: Proposal) -> tuple[str, tuple[Any, ...]]:
    """What a proposal's step says to members."""
    key = proposal.write.key
    if proposal.step is Step.PREPARE:
        return "prepare", (epoch, key, proposal.ballot)
    if proposal.step is Step.ACCEPT:
        return "accept", (epoch, key, proposal.record)
    return "read", (epoch, key)
