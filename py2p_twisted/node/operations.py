"""Reading and writing the table from any node (floor 2).

A settled operation is one message to the member that keeps the key, or none if that is this node.
Everything else (a group that moved, a lost connection, a slow peer) is tried again, under the same
operation id, until the operation's time is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import NotConnected, OperationTimeout
from ..table.group import Epoch
from ..table.proposer import Outcome, Write
from ..wire.messages import Read, Reply, Request, Value, WriteOne, Written, WrongEpoch
from .attempts import Attempts, unknown_outcome, with_doubt
from .core import Core
from .finder import Finder
from .keeper import Keeper

__all__ = ["Operations"]


class Operations:
    """Operations on single keys."""

    def __init__(self, core: Core, finder: Finder, keeper: Keeper) -> None:
        self._core = core
        self._finder = finder
        self._keeper = keeper
        self._operation = core.rng.getrandbits(64)

    # -- for users

    def next_operation(self) -> bytes:
        """A new operation id."""
        self._operation = (self._operation + 1) % (1 << 64)
        return self._operation.to_bytes(8, "big")

    def read(self, key: bytes) -> Deferred[bytes | None]:
        """The value at a table key, None if there is none.

        :returns: fails with `Unavailable`, `OperationTimeout` or `NotConnected`.
        """
        core = self._core
        config = core.directory.get(core.partition(key))
        if config is not None:
            member = config.members[0]
            request = Read(config.epoch, key)
            if member.instance == core.instance:
                reply = self._keeper.read(request)
                if type(reply) is Value:
                    return succeed(reply.value)
            elif core.links.get(member.instance) is not None:
                asked: Deferred[Any] = core.links.ask(member, request)
                return asked.addBoth(self._read_answered, key)
        return Deferred.fromCoroutine(self._read_again(key, None))

    def _read_answered(self, outcome: Reply | Failure, key: bytes) -> Any:
        if type(outcome) is Value:
            return outcome.value
        return Deferred.fromCoroutine(self._read_again(key, outcome))

    async def _read_again(self, key: bytes, outcome: Reply | Failure | None) -> bytes | None:
        reply = await self.persist(
            self._core.partition(key), lambda epoch, _: Read(epoch, key), Value, outcome
        )
        value: bytes | None = reply.value
        return value

    def write(self, write: Write, timeout: float | None = None) -> Deferred[bool]:
        """Carry a write out; fires with whether its condition held.

        :returns: fails with `Unavailable` or `OperationTimeout`, whose `outcome_unknown` tells if
            the write may have happened, or with `NotConnected`.
        """
        core = self._core
        config = core.directory.get(core.partition(write.key))
        if config is not None:
            member = config.members[0]
            request = WriteOne(config.epoch, write)
            if member.instance == core.instance:
                reply = self._keeper.write(request)
                if type(reply) is Written:
                    return succeed(reply.outcome is Outcome.APPLIED)
            elif core.links.get(member.instance) is not None:
                asked: Deferred[Any] = core.links.ask(member, request)
                return asked.addBoth(self._write_answered, write, config.epoch, timeout)
        return Deferred.fromCoroutine(self._write_again(write, None, None, timeout))

    def _write_answered(
        self, outcome: Reply | Failure, write: Write, epoch: Epoch, timeout: float | None
    ) -> Any:
        if type(outcome) is Written and outcome.outcome is not Outcome.UNKNOWN:
            return outcome.outcome is Outcome.APPLIED
        return Deferred.fromCoroutine(self._write_again(write, outcome, epoch, timeout))

    async def _write_again(
        self,
        write: Write,
        outcome: Reply | Failure | None,
        epoch: Epoch | None,
        timeout: float | None = None,
    ) -> bool:
        def request(epoch: Epoch, doubtful: Epoch | None) -> WriteOne:
            return WriteOne(epoch, with_doubt(write, doubtful))

        reply = await self.persist(
            self._core.partition(write.key),
            request,
            Written,
            outcome,
            epoch,
            Attempts(self._core, write=True, timeout=timeout),
        )
        if reply.outcome is Outcome.UNKNOWN:
            raise unknown_outcome()
        return reply.outcome is Outcome.APPLIED

    async def persist(
        self,
        partition: int,
        request: Callable[[Epoch, Epoch | None], Request],
        good: type[Any],
        outcome: Reply | Failure | None = None,
        epoch: Epoch | None = None,
        attempts: Attempts | None = None,
    ) -> Any:
        """Ask the group of a partition until it gives a good reply, or the time is over.

        :param request: makes the request, given the epoch and the epoch of a doubtful try.
        :param outcome: what a first try, already made in `epoch`, ended with.
        """
        core = self._core
        attempts = attempts or Attempts(core, write=False)
        while True:
            if outcome is not None:
                tried = epoch or self._epoch(partition)
                if not attempts.note(outcome, tried):
                    await attempts.wait()
                    if not isinstance(outcome, WrongEpoch) or not outcome.wedged:
                        await attempts.within(self._finder.refresh(partition))
            config = core.directory.get(partition)
            if config is None:
                self.check_connected()
                await attempts.within(self._finder.refresh(partition))
                config = core.directory.get(partition)
            if config is None:
                await attempts.wait()
                continue
            epoch = config.epoch
            body = request(epoch, attempts.doubtful)
            outcome = await self.ask_member(config.members[0], body, attempts)
            if isinstance(outcome, good):
                return outcome

    def _epoch(self, partition: int) -> Epoch:
        config = self._core.directory.get(partition)
        return config.epoch if config is not None else Epoch(0, 0, 0)

    def check_connected(self) -> None:
        """Is there a ring to talk to?

        :raises NotConnected: if not.
        """
        if not self._core.member and not any(self._core.ring_links()):
            raise NotConnected(
                "this node is in no ring: connect() to a member, or join() to found a ring"
            )

    async def ask_member(
        self, member: Peer, request: Request, attempts: Attempts
    ) -> Reply | Failure:
        """Ask a member, which may be this node; failures are returned, not raised."""
        core = self._core
        if member.instance == core.instance:
            return self._keeper.answer(request)
        asked: Deferred[Any] = core.links.ask(member, request)
        asked.addTimeout(max(attempts.remaining, 0.05), core.clock, _as_timeout)
        outcome = await asked.addErrback(_Kept)
        return outcome.failure if isinstance(outcome, _Kept) else outcome


class _Kept:
    """A failure on its way through an await."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def _as_timeout(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise OperationTimeout(f"no answer within {timeout:.2g} s")
    return result
