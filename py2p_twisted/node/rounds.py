"""The rounds of CASPaxos over the network (floor 2), for any number of writes at once.

Owns who is asked in a round, what travels together, and how long to wait.  What a round decides
stands in :class:`~py2p_twisted.table.proposer.Proposal`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from ..base import Peer
from ..errors import StorageError
from ..table.acceptor import Acceptor, NotPromised
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Ballot
from ..table.proposer import Outcome, Step
from ..wire.messages import (
    Accepted,
    Failed,
    SomeAccepted,
    SomePromised,
    SomeValues,
    WrongEpoch,
)
from .core import Core
from .doubts import Doubts
from .hedge import Hedge
from .keeper import Keeper
from .mail import Job, Mail, Message, Result, accept_one
from .stragglers import Stragglers
from .turns import Turns
from .values import in_memory

__all__ = ["Rounds"]

#: Full rounds of one write in a row, before whoever asked for it is told that it failed.
_MOST_ROUNDS = 8
#: Rounds that are begun at once when another proposer got in between; later ones wait a little.
_QUICK_ROUNDS = 3


class Rounds:
    """Carries jobs through their rounds."""

    def __init__(self, core: Core, keeper: Keeper) -> None:
        self._core = core
        self._keeper = keeper
        self._stragglers = Stragglers(core)
        self._hedge: Hedge[Job] = Hedge(core, self._slow)
        self._turns = Turns()
        self._doubts = Doubts(core)
        self._out = Mail(core)
        self._backing_off: set[IDelayedCall] = set()

    def stop(self) -> None:
        """Nothing is sent any more."""
        self._hedge.stop()
        self._stragglers.stop()
        for call in self._backing_off:
            call.cancel()
        self._backing_off.clear()

    # -- one job

    def one(self, job: Job) -> None:
        """Take a job on whose messages travel alone."""
        job.single = True
        self.begin(job)
        self.flush()

    def begin(self, job: Job) -> None:
        """Take a job on; it is under way after :meth:`flush`, and shares its messages."""
        turn = self._turns.take(job)
        if turn:
            self._start(job)
        elif turn is None:
            job.done(job, Failed(0, False))

    def _start(self, job: Job) -> None:
        core, config, proposal = self._core, job.config, job.proposal
        acceptor = core.acceptors.get(config.partition)
        other = acceptor is not None and acceptor.config.epoch != config.epoch
        if other or (acceptor is not None and acceptor.wedged):
            self._finish(job, self._keeper.wrong_epoch(config.partition, wedged=not other))
            return
        key = proposal.write.key
        if acceptor is not None and key not in self._doubts:
            try:
                ballot = acceptor.steady(key, core.proposer)
                if ballot is not None:
                    proposal.steady(acceptor, ballot, core.stamp)
                    if proposal.step is Step.ACCEPT and proposal.record is not None:
                        acceptor.accept_steady(key, proposal.record)
            except StorageError:
                self._finish(job, Failed(0, False))
                return
            if ballot is not None:
                send = self._send_steady if proposal.step is Step.ACCEPT else self._send
                send(job, acceptor)
                return
        heard = acceptor.counter if acceptor is not None else 0
        counter = core.counters.next(config.partition, config.epoch, heard)
        proposal.prepare(Ballot(config.epoch, counter, core.proposer))
        self._send(job, acceptor)

    def _send_steady(self, job: Job, acceptor: Acceptor) -> None:
        """As :meth:`_send`, for the most frequent round: an ACCEPT that was accepted here."""
        core, proposal = self._core, job.proposal
        job.rounds, job.waiting = 1, 0
        core.hear(acceptor.stamp)
        if core.holds(job.config.partition):
            self._answer_later(job, proposal.accepted)
            self._ask_quorum(job)
            return
        job.heard = 1
        proposal.accepted()
        if proposal.over:
            self._finish(job, proposal.outcome)
        else:
            self._ask_quorum(job)

    def _send(self, job: Job, acceptor: Acceptor | None) -> None:
        """Begin the proposal's round: the own answer first, then the others are asked."""
        core, proposal, config = self._core, job.proposal, job.config
        job.rounds += 1
        while (step := proposal.step) is not Step.DONE:
            job.heard = job.waiting = 0
            if acceptor is not None:
                answer = self._answer_here(job, acceptor)
                if answer is None:
                    return
                if core.holds(config.partition):
                    self._answer_later(job, answer)
                else:
                    job.heard = 1
                    answer()
            if proposal.step is not step:
                continue
            if step is not Step.PREPARE and acceptor is not None:
                self._ask_quorum(job)
            else:
                self._ask_all(job, mine=acceptor is not None)
            return
        self._finish(job, proposal.outcome)

    def _ask_all(self, job: Job, *, mine: bool) -> None:
        core, config = self._core, job.config
        others = [peer for peer in core.preferred(config) if peer.instance != core.instance]
        asked = [peer for peer in others if core.usable(peer)]
        if len(asked) + mine < config.quorum:
            asked = others
        job.rest = ()
        job.waiting += len(asked)
        for peer in asked:
            self._out.add(peer, job)

    def _ask_quorum(self, job: Job) -> None:
        """Ask as many members as make a quorum with this one, and the rest if they are slow."""
        core, config, proposal = self._core, job.config, job.proposal
        others = [peer for peer in core.preferred(config) if peer.instance != core.instance]
        needed = config.quorum - 1
        asked, job.rest = others[:needed], others[needed:]
        job.waiting += len(asked)
        if job.rest:
            self._hedge.watch(job, asked)
        number = proposal.round
        alone = accept_one(job) if job.single and proposal.step is Step.ACCEPT else None
        for peer in asked:
            if alone is None:
                self._out.add(peer, job)
            elif proposal.round == number:  # what became of the one before did not end it
                core.links.request(peer, alone, partial(self._answered_one, job, peer, number))

    def _answer_here(self, job: Job, acceptor: Acceptor) -> Callable[[], object] | None:
        """This node's own answer, to be counted once it is kept; None if the round is over."""
        core, proposal, epoch = self._core, job.proposal, job.config.epoch
        key = proposal.write.key
        try:
            if proposal.step is Step.ACCEPT:
                assert proposal.record is not None
                acceptor.accept(epoch, key, proposal.record)
                core.hear(acceptor.stamp)
                return proposal.accepted
            if proposal.step is Step.PREPARE:
                there = acceptor.prepare(epoch, proposal.ballot, key)
                found = there and in_memory(there)
                return lambda: proposal.promised(found, acceptor.purged, core.stamp)
            there = acceptor.read(epoch, key)
            return partial(proposal.confirmed, there.ballot if there is not None else None)
        except EpochRefused as refusal:
            self._give_up(
                job, self._keeper.wrong_epoch(job.config.partition, wedged=refusal.wedged)
            )
        except NotPromised as refusal:
            self._again(job, refusal.promised.counter)
        except StorageError:
            self._give_up(job, Failed(job.heard, proposal.sent))
        return None

    def _answer_later(self, job: Job, answer: Callable[[], object]) -> None:
        """Count this node's own answer once it is on the disk (rule 13)."""
        proposal = job.proposal
        number = proposal.round
        job.waiting += 1

        def kept() -> None:
            if proposal.round != number or proposal.over:
                return
            job.heard += 1
            job.waiting -= 1
            answer()
            if proposal.over:
                self._finish(job, proposal.outcome)
            elif proposal.round != number:
                self._resume(job)
            elif not job.waiting:
                self._widen(job, Failed(job.heard, proposal.sent))
            self.flush()

        self._core.when_kept(kept, (job.config.partition,))

    def _again(self, job: Job, heard: int) -> None:
        """Another proposer was there: a full round with a higher ballot, now or a little later."""
        core, proposal = self._core, job.proposal
        job.rest, job.waiting = (), 0  # of the round that is over
        if job.rounds > _MOST_ROUNDS:
            self._give_up(job, Failed(job.heard, proposal.sent))
            return
        config = job.config
        counter = core.counters.next(config.partition, config.epoch, heard)
        proposal.prepare(Ballot(config.epoch, counter, core.proposer))
        if job.rounds <= _QUICK_ROUNDS:
            self._resume(job)
            return
        pause = core.rng.uniform(0, 0.002 * 2 ** min(job.rounds, 7))

        def resume() -> None:
            self._backing_off.discard(call)
            self._resume(job)
            self.flush()

        call = core.clock.callLater(pause, resume)
        self._backing_off.add(call)

    def _resume(self, job: Job) -> None:
        acceptor = self._core.acceptors.get(job.config.partition)
        mine = acceptor is not None and acceptor.config.epoch == job.config.epoch
        self._send(job, acceptor if mine else None)

    def _give_up(self, job: Job, result: WrongEpoch | Failed) -> None:
        if job.proposal.sent and isinstance(result, WrongEpoch):
            result = Failed(job.heard, True)
        self._finish(job, result)

    def _finish(self, job: Job, result: Result) -> None:
        proposal = job.proposal
        key = proposal.write.key
        if isinstance(result, Outcome):
            if proposal.sent:
                self._doubts.written(job)
                if job.rest:
                    assert proposal.record is not None
                    self._stragglers.send(job.rest, job.config, key, proposal.record)
        else:
            proposal.step = Step.DONE  # answers that are still under way come too late
            if proposal.sent:
                self._doubts.add(key, job.config.epoch)
        job.rest = ()
        self._turns.over(key)
        job.done(job, result)

    # -- messages

    def flush(self) -> None:
        """Begin what is ready, and send what is queued: one message of a kind to each member."""
        while self._out or self._turns.ready:
            while self._turns.ready:
                self._start(self._turns.ready.popleft())
            for message in self._out.take():
                self._ask(message)

    def _ask(self, message: Message) -> None:
        done = partial(self._answered, message, [job.proposal.round for job in message.jobs])
        patience = message.patience(self._core.settings)
        self._core.links.request(message.peer, message.request(), done, patience)

    def _answered_one(self, job: Job, peer: Peer, number: int, reply: Any) -> None:
        """As :meth:`_answered`, for the most frequent message of all."""
        proposal = job.proposal
        plain = type(reply) is Accepted and reply.parts == _ACCEPTED_ONE
        if not plain or proposal.round != number or proposal.step is not Step.ACCEPT:
            self._answered(Message(peer, Step.ACCEPT, [job]), [number], reply)
            return
        job.heard += 1
        job.waiting -= 1
        proposal.accepted()
        if proposal.over:
            self._finish(job, proposal.outcome)
            if self._turns.ready:
                self.flush()
        elif not job.waiting:
            self._widen(job, Failed(job.heard, proposal.sent))
            self.flush()

    def _answered(self, message: Message, rounds: list[int], reply: Any) -> None:
        """A member answered a message, or did not."""
        step = message.step
        waiting = {
            id(job)
            for job, number in zip(message.jobs, rounds, strict=True)
            if job.proposal.round == number and job.proposal.step is step
        }
        for of_part, answer in zip(message.parts.values(), message.answers(reply), strict=True):
            if isinstance(answer, WrongEpoch) and answer.config is not None:
                self._core.learn(answer.config)
            some = [(place, job) for place, job in enumerate(of_part) if id(job) in waiting]
            if isinstance(answer, SomeAccepted | SomePromised | SomeValues):
                self._take(answer, some)
            else:
                for _, job in some:
                    self._missed(job, answer)
        self.flush()

    def _take(
        self, answer: SomeAccepted | SomePromised | SomeValues, jobs: list[tuple[int, Job]]
    ) -> None:
        core = self._core
        refused = {} if isinstance(answer, SomeValues) else dict(answer.refused)
        for place, job in jobs:
            proposal = job.proposal
            if proposal.over:
                continue  # another answer of this message ended it
            round_before = proposal.round
            job.heard += 1
            if place in refused:
                self._again(job, refused[place].counter)
                continue
            if isinstance(answer, SomeAccepted):
                proposal.accepted()
            elif isinstance(answer, SomePromised):
                if place >= len(answer.records):
                    self._missed(job, answer)  # it did not fit
                    continue
                record = answer.records[place]
                if record is not None:
                    core.hear(record.stamp)
                proposal.promised(record, answer.purged, core.stamp)
            elif place >= len(answer.ballots):
                self._missed(job, answer)
                continue
            elif not proposal.confirmed(answer.ballots[place]):
                self._again(job, 0)
                continue
            if proposal.over:
                self._finish(job, proposal.outcome)
            elif proposal.round != round_before:
                self._resume(job)
            else:
                job.waiting -= 1
                if not job.waiting:
                    self._widen(job, Failed(job.heard, proposal.sent))

    def _missed(self, job: Job, answer: object) -> None:
        """A member's answer is of no use."""
        if job.proposal.over:
            return
        job.waiting -= 1
        if isinstance(answer, WrongEpoch):
            newest = self._core.directory.get(job.config.partition)
            if newest is not None and newest.epoch > job.config.epoch:
                self._give_up(job, answer)
                return
            if job.waiting <= 0 and not job.rest:
                self._give_up(job, answer)
                return
        if job.waiting <= 0 or job.rest:
            self._widen(job, Failed(job.heard, job.proposal.sent))

    def _widen(self, job: Job, result: WrongEpoch | Failed) -> None:
        """Ask the rest of the members; if there is no rest, and nobody is waited for, give up."""
        rest, job.rest = job.rest, ()
        if rest:
            job.waiting += len(rest)
            for peer in rest:
                self._out.add(peer, job)
        elif job.waiting <= 0:
            self._give_up(job, result)

    def _slow(self, job: Job) -> None:
        """Some member did not answer in time: ask the rest, too."""
        self._widen(job, Failed(job.heard, job.proposal.sent))
        self.flush()


_ACCEPTED_ONE = (SomeAccepted(),)
