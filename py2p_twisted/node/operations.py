"""Reading and writing single keys from any node (floor 2).

A settled read is answered by the first quorum of the key's group, a settled write by its proposer.
Everything else (a group that moved, a lost connection, a slow peer) is tried again, under the same
operation id, until the operation's time is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import NotConnected, OperationTimeout, StorageError
from ..table.group import Config, Epoch
from ..table.proposer import Outcome, Write
from ..wire.messages import (
    Read,
    ReadMany,
    Request,
    Settle,
    Value,
    WriteMany,
    WriteOne,
    Written,
    WrongEpoch,
)
from .answers import Answer, Answers
from .attempts import Attempts, is_busy, unknown_outcome
from .core import Core
from .finder import Finder
from .keeper import Keeper
from .proposals import Proposals
from .reading import Mixed, Reading, Readings

__all__ = ["Operations"]


class Operations:
    """Operations on single keys."""

    def __init__(self, core: Core, finder: Finder, keeper: Keeper, proposals: Proposals) -> None:
        self._core = core
        self._finder = finder
        self._keeper = keeper
        self._proposals = proposals
        self._readings = Readings(core)
        self._answers = Answers(core)
        self._operation = core.rng.getrandbits(64)

    def stop(self) -> None:
        """Nobody is asked any more."""
        self._readings.stop()
        self._answers.stop()

    # -- reading

    def read(self, key: bytes, began: float | None = None) -> Deferred[bytes | None]:
        """The value at a table key, None if there is none.

        :param began: on the clock, when its time began to run; None: just now.
        :returns: fails with `Unavailable`, `OperationTimeout` or `NotConnected`.
        """
        core = self._core
        config = core.directory.get(core.partition(key))
        if config is None:
            return Deferred.fromCoroutine(self._read_again(key, None, None, began))
        member = config.members[0]
        alone = len(config.members) == 1  # a group of one: its member is a quorum
        if alone and member.instance == core.instance:
            try:
                reply: Any = self._keeper.read(Read(config.epoch, key))
            except StorageError:
                return fail()
            if type(reply) is Value:
                value = reply.value
                if core.holds(config.partition):
                    return core.kept().addCallback(lambda _: value)
                return succeed(value)
            return Deferred.fromCoroutine(
                self._read_again(key, Reading(config, key, _nobody), reply, began)
            )
        answer = Answer(self._answers.cancel)
        since: float = core.clock.seconds() if began is None else began

        def done(reading: Reading, value: bytes | None, problem: Any) -> None:
            if answer.over:
                return
            if problem is None:
                self._answers.fire(answer, value)
            else:
                self._answers.go_on(answer, self._read_again(key, reading, problem, since))

        if alone:
            reading = Reading(config, key, _nobody)

            def answered(reply: Any) -> None:
                if type(reply) is Value:
                    done(reading, reply.value, None)
                else:
                    done(reading, None, reply)

            core.links.request(member, Read(config.epoch, key), answered)
        else:
            reading = self._readings.read(config, key, done)
        if not answer.over:
            until = since + core.settings.operation_timeout
            self._answers.watch(answer, until, lambda failure: done(reading, None, failure))
        return answer

    async def _read_again(
        self,
        key: bytes,
        reading: Reading | None,
        problem: Any,
        began: float | None,
    ) -> bytes | None:
        """Go on with a read that was not done at the first try."""
        partition = self._core.partition(key)
        attempts = Attempts(self._core, write=False, began=began)
        while True:
            if reading is not None:
                attempts.reached(reading.heard, reading.config)
                if isinstance(problem, Mixed):
                    settled = await self._settle(reading.config, key, attempts, problem)
                    if type(settled) is Value:
                        return settled.value
                    problem = settled
                await self._after(problem, reading.config, attempts)
            config = await self.config(partition, attempts)
            reading, value, problem = await self._read_once(config, key, attempts)
            if problem is None:
                return value

    async def _read_once(
        self, config: Config, key: bytes, attempts: Attempts
    ) -> tuple[Reading, bytes | None, Any]:
        ended: Deferred[tuple[Reading, bytes | None, Any]] = Deferred(_ignore)

        def done(reading: Reading, value: bytes | None, problem: Any) -> None:
            if not ended.called:
                ended.callback((reading, value, problem))

        self._readings.read(config, key, done)
        late = (Reading(config, key, _nobody), None, Failure(OperationTimeout("no answer in time")))
        ended.addTimeout(attempts.patience, self._core.clock, lambda _, __: late)
        return await ended

    async def _settle(self, config: Config, key: bytes, attempts: Attempts, mixed: Mixed) -> Any:
        """Have the proposer find out what holds; do it here if it may be silent."""
        first = self._core.preferred(config)[0]
        if first.instance != self._core.instance and not mixed.silent:
            outcome = await self.ask_member(first, Settle(config.epoch, key), attempts)
            if not isinstance(outcome, Failure):
                return outcome
        return await self.here(lambda done: self._proposals.settle(config, key, done), attempts)

    # -- writing

    def next_operation(self) -> bytes:
        """A new operation id."""
        self._operation = (self._operation + 1) % (1 << 64)
        return self._operation.to_bytes(8, "big")

    def write(self, write: Write, timeout: float | None = None) -> Deferred[bool]:
        """Carry a write out; fires with whether its condition held.

        :returns: fails with `Unavailable` or `OperationTimeout`, whose `outcome_unknown` tells if
            the write may have happened, or with `NotConnected`.
        """
        core = self._core
        config = core.directory.get(core.partition(write.key))
        if config is None:
            return Deferred.fromCoroutine(self._write_again(write, None, None, timeout))
        proposer = core.preferred(config)[0]
        answer = Answer(self._answers.cancel)
        began: float = core.clock.seconds()

        def answered(reply: Any) -> None:
            if answer.over:
                return
            if type(reply) is Written:
                core.hear(reply.stamp)
                reply = reply.outcome
            if reply is Outcome.APPLIED or reply is Outcome.REFUSED:
                self._answers.fire(answer, reply is Outcome.APPLIED)
            else:
                self._answers.go_on(answer, self._write_again(write, reply, config, timeout, began))

        if proposer.instance == core.instance:
            self._proposals.write(config, write, answered)
        else:
            core.links.request(proposer, WriteOne(config.epoch, write), answered)
        if not answer.over:
            patience = core.settings.operation_timeout if timeout is None else timeout
            self._answers.watch(answer, began + patience, answered)
        return answer

    async def _write_again(
        self,
        write: Write,
        outcome: Any,
        config: Config | None,
        timeout: float | None,
        began: float | None = None,
    ) -> bool:
        """Go on with a write that was not done at the first try."""
        attempts = Attempts(self._core, write=True, timeout=timeout, began=began)
        with attempts.telling():
            return await self._try_again(write, outcome, config, attempts)

    async def _try_again(
        self, write: Write, outcome: Any, config: Config | None, attempts: Attempts
    ) -> bool:
        core = self._core
        partition = core.partition(write.key)
        silent = False  # is it the proposer that does not answer?  Then this node takes its place
        while True:
            if config is not None:
                if outcome is Outcome.APPLIED or outcome is Outcome.REFUSED:
                    if silent:
                        core.pass_over(core.preferred(config)[0])
                    return outcome is Outcome.APPLIED
                if outcome is Outcome.UNKNOWN:
                    raise unknown_outcome()
                silent = self._is_silent(outcome) and not silent and len(config.members) > 1
                if outcome is Outcome.STALE:
                    attempts.check_time()
                    if attempts.doubtful is None:
                        write = write.again(core.stamp, None)
                else:
                    await self._after(outcome, config, attempts, at_once=silent)
                if attempts.doubtful is not None:
                    write = write.again(write.after, attempts.doubtful)
            config = await self.config(partition, attempts)
            outcome = await self._write_once(config, write, attempts, here=silent)

    def _is_silent(self, outcome: Any) -> bool:
        return isinstance(outcome, Failure) and not is_busy(outcome)

    async def _write_once(
        self, config: Config, write: Write, attempts: Attempts, *, here: bool
    ) -> Any:
        core = self._core
        proposer = core.preferred(config)[0]
        if here or proposer.instance == core.instance:
            return await self.here(
                lambda done: self._proposals.write(config, write, done), attempts
            )
        outcome = await self.ask_member(proposer, WriteOne(config.epoch, write), attempts)
        if type(outcome) is Written:
            core.hear(outcome.stamp)
            return outcome.outcome
        return outcome

    # -- trying again

    async def here(self, begin: Callable[[Callable[[Any], None]], None], attempts: Attempts) -> Any:
        """Carry something out by this node's own rounds, within the operation's time."""
        ended: Deferred[Any] = Deferred(_ignore)
        begin(lambda result: None if ended.called else ended.callback(result))
        late = Failure(OperationTimeout("the group did not answer in time"))
        ended.addTimeout(attempts.patience, self._core.clock, lambda _, __: _Kept(late))
        outcome = await ended
        return outcome.failure if isinstance(outcome, _Kept) else outcome

    async def _after(
        self, problem: Any, config: Config, attempts: Attempts, *, at_once: bool = False
    ) -> None:
        """Before the next try: take in what went wrong, wait, look for a newer configuration.

        :raises ChordError: if the time is over, or trying again is of no use.
        """
        if attempts.note(problem, config) or at_once:
            attempts.check_time()
            return
        await attempts.wait()
        if not is_busy(problem) and not (isinstance(problem, WrongEpoch) and problem.wedged):
            await attempts.within(self._finder.refresh(config.partition))

    async def config(self, partition: int, attempts: Attempts) -> Config:
        """The newest configuration of a partition; looks for one if none is known.

        :raises ChordError: if none is found in time.
        """
        while (config := self._core.directory.get(partition)) is None:
            self.check_connected()
            await attempts.within(self._finder.refresh(partition))
            if self._core.directory.get(partition) is None:
                await attempts.wait()
        return config

    async def persist(
        self,
        partition: int,
        request: Callable[[Epoch], Request],
        good: type[Any],
        attempts: Attempts | None = None,
    ) -> tuple[Config, list[Any]]:
        """Ask members of a group until a quorum gives a good reply, or the time is over.

        :param request: makes the request, given the epoch.
        :returns: the configuration, and the good replies, at least a quorum of them.
        """
        attempts = attempts or Attempts(self._core, write=False, paced=True)
        while True:
            config = await self.config(partition, attempts)
            body = request(config.epoch)
            replies: list[Any] = []
            problem: Any = None
            for member in self._core.preferred(config):
                reply = await self.ask_member(member, body, attempts)
                if isinstance(reply, good):
                    replies.append(reply)
                    if len(replies) == config.quorum:
                        return config, replies
                elif not isinstance(problem, WrongEpoch):
                    problem = reply
            attempts.reached(len(replies), config)
            await self._after(problem, config, attempts)

    def check_connected(self) -> None:
        """Is there a ring to talk to?

        :raises NotConnected: if not.
        """
        if not self._core.member and not any(self._core.ring_links()):
            raise NotConnected(
                "this node is in no ring: connect() to a member, or join() to found a ring"
            )

    async def ask_member(self, member: Peer, request: Request, attempts: Attempts) -> Any:
        """Ask a member, which may be this node; failures are returned, not raised."""
        core = self._core
        if member.instance == core.instance and type(request) in self._keeper.handlers:
            reply = self._keeper.handlers[type(request)](request)
            await core.kept()
            return reply
        # Many keys take longer than what is usual for this peer.
        patience = core.settings.request_timeout_max if isinstance(request, _LONG) else None
        asked: Deferred[Any] = core.links.ask(member, request, patience)
        asked.addTimeout(max(attempts.remaining, 0.05), core.clock, _as_timeout)
        outcome = await asked.addErrback(_Kept)
        return outcome.failure if isinstance(outcome, _Kept) else outcome


_LONG = (ReadMany, WriteMany)


class _Kept:
    """A failure on its way through an await."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def _as_timeout(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise OperationTimeout(f"no answer within {timeout:.2g} s")
    return result


def _ignore(_: Deferred[Any]) -> None:
    """Cancelled: what comes is not looked at any more."""


def _nobody(_: Reading, __: bytes | None, ___: Any) -> None:
    """Nobody waits for it."""
