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
from ..errors import (
    ChordError,
    NotConnected,
    OperationTimeout,
    Unavailable,
    ValueTooLarge,
)
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Config, Epoch
from ..table.proposer import Outcome, Write, write_alone
from ..wire.messages import (
    Declined,
    Read,
    Reply,
    Request,
    Value,
    WriteOne,
    WrongEpoch,
    Written,
)
from .core import Core
from .finder import Finder

__all__ = ["Attempts", "Operations", "is_doubtful", "unknown_outcome", "with_doubt"]


class Attempts:
    """The tries of one operation: how long yet, and what went wrong so far.

    :ivar doubtful: the epoch in which a try was sent whose answer never came, None if no such.
    """

    def __init__(self, core: Core, timeout: float | None = None) -> None:
        self._core = core
        self._timeout = core.settings.operation_timeout if timeout is None else timeout
        self._deadline = core.clock.seconds() + self._timeout
        self._pause = core.settings.retry_min
        self._silent = False
        self._last = "it was not tried"
        self.doubtful: Epoch | None = None

    @property
    def remaining(self) -> float:
        """Seconds that are left, not below zero."""
        return max(0.0, self._deadline - self._core.clock.seconds())

    def note(self, outcome: Reply | Failure, epoch: Epoch) -> bool:
        """A try ended without success; True if another one may follow at once.

        :raises ChordError: if trying again is of no use.
        """
        self._silent = False
        if isinstance(outcome, WrongEpoch):
            if outcome.config is not None and self._core.learn(outcome.config):
                return True
            self._last = "the key's partition is moving"
            return False
        if isinstance(outcome, Failure):
            if not outcome.check(OperationTimeout, ConnectionError):
                outcome.raiseException()
            if is_doubtful(outcome) and self.doubtful is None:
                self.doubtful = epoch
            self._silent = True
            self._last = outcome.getErrorMessage()
            return False
        self._last = outcome.reason if isinstance(outcome, Declined) else "the node is busy"
        return False

    async def wait(self) -> None:
        """Pause before the next try, longer each time.

        :raises Unavailable, OperationTimeout: if the time is over.
        """
        pause = self._core.jittered(self._pause)
        if self.remaining <= pause:
            raise self.over()
        self._pause = min(2 * self._pause, self._core.settings.retry_max)
        await self._core.sleep(pause)

    def over(self, *, write: bool = True) -> ChordError:
        """The error for an operation whose time is over."""
        unknown = write and self.doubtful is not None
        if self._silent:
            return Unavailable(
                f"0 of the 1 members that keep this key answered within {self._timeout:g} s "
                f"({self._last}); other keys are not affected",
                reachable=0,
                members=1,
                outcome_unknown=unknown,
            )
        return OperationTimeout(
            f"not done within {self._timeout:g} s: {self._last}", outcome_unknown=unknown
        )


def is_doubtful(outcome: object) -> bool:
    """Was a request sent whose answer never came?  Then a write may have taken effect."""
    if not isinstance(outcome, Failure):
        return False
    error = outcome.value
    return isinstance(error, OperationTimeout) or getattr(error, "sent", False)


class Operations:
    """Operations on single keys."""

    def __init__(self, core: Core, finder: Finder) -> None:
        self._core = core
        self._finder = finder
        self._operation = core.rng.getrandbits(64)

    # -- for the node: what members answer

    def answer_read(self, request: Read) -> Reply:
        """A peer reads a key of this node."""
        try:
            partition = self._core.partition(request.key)
        except ValueError as error:
            return Declined(str(error))
        acceptor = self._core.acceptors.get(partition)
        if acceptor is None:
            return self._not_here(partition)
        try:
            record = acceptor.read(request.epoch, request.key)
        except EpochRefused as refusal:
            return WrongEpoch(self._core.directory.get(partition), refusal.wedged)
        return Value(None if record is None else record.value)

    def answer_write(self, request: WriteOne) -> Reply:
        """A peer writes a key of this node."""
        write = request.write
        if write.value is not None and len(write.value) > self._core.settings.max_value:
            return Declined("the value is too large")
        try:
            partition = self._core.partition(write.key)
        except ValueError as error:
            return Declined(str(error))
        acceptor = self._core.acceptors.get(partition)
        if acceptor is None:
            return self._not_here(partition)
        try:
            acceptor.check(request.epoch)
            return Written(write_alone(acceptor, self._core.instance, write))
        except EpochRefused as refusal:
            return WrongEpoch(self._core.directory.get(partition), refusal.wedged)

    def _not_here(self, partition: int) -> WrongEpoch:
        config = self._core.directory.get(partition)
        mine = config is not None and config.has(self._core.instance)
        return WrongEpoch(None if mine else config, mine)

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
                reply = self.answer_read(request)
                if type(reply) is Value:
                    return succeed(reply.value)
            elif core.links.get(member.instance) is not None:
                asked: Deferred[Any] = core.links.ask(member, request)
                asked.addCallbacks(
                    self._read_answered, self._read_answered, (key,), None, (key,)
                )  # fmt: skip
                return asked
        return Deferred.fromCoroutine(self._read_again(key, None))

    def _read_answered(self, outcome: Reply | Failure, key: bytes) -> Any:
        if type(outcome) is Value:
            return outcome.value
        return Deferred.fromCoroutine(self._read_again(key, outcome))

    async def _read_again(self, key: bytes, outcome: Reply | Failure | None) -> bytes | None:
        reply = await self.persist(
            self._core.partition(key), lambda epoch, _: Read(epoch, key), Value, outcome
        )
        return reply.value

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
                reply = self.answer_write(request)
                if type(reply) is Written:
                    return succeed(reply.outcome is Outcome.APPLIED)
            elif core.links.get(member.instance) is not None:
                asked: Deferred[Any] = core.links.ask(member, request)
                extra = (write, config.epoch, timeout)
                asked.addCallbacks(
                    self._write_answered, self._write_answered, extra, None, extra
                )  # fmt: skip
                return asked
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
            self._core.partition(write.key), request, Written, outcome, epoch, timeout
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
        timeout: float | None = None,
    ) -> Any:
        """Ask the group of a partition until it gives a good reply, or the time is over.

        :param request: makes the request, given the epoch and the epoch of a doubtful try.
        :param outcome: what a first try, already made in `epoch`, ended with.
        """
        core = self._core
        attempts = Attempts(core, timeout)
        while True:
            if outcome is not None:
                tried = epoch or self._epoch(partition)
                if not attempts.note(outcome, tried):
                    await attempts.wait()
                    if not isinstance(outcome, WrongEpoch) or not outcome.wedged:
                        await self._finder.refresh(partition)
            config = core.directory.get(partition)
            if config is None:
                self.check_connected()
                await self._finder.refresh(partition)
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
            return self.local(request)
        asked = core.links.ask(member, request)
        asked.addTimeout(max(attempts.remaining, 0.05), core.clock, _as_timeout)
        outcome: Reply | Failure = await asked.addErrback(lambda failure: _Kept(failure))
        return outcome.failure if isinstance(outcome, _Kept) else outcome

    local: Callable[[Request], Reply]  # Node: answers a request of this node itself

    def local_write(self, write: Write) -> None:
        """Write a key that this node keeps itself."""
        acceptor = self._core.acceptors[self._core.partition(write.key)]
        write_alone(acceptor, self._core.instance, write)


class _Kept:
    """A failure on its way through an await."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def _as_timeout(result: Any, timeout: float) -> Any:
    if isinstance(result, Failure):
        raise OperationTimeout(f"no answer within {timeout:.2g} s")
    return result


def with_doubt(write: Write, doubtful: Epoch | None) -> Write:
    """The same write, marked as a retry if an earlier try is in doubt."""
    if doubtful is None:
        return write
    return Write(
        write.key, write.value, write.operation, write.condition, write.expected, doubtful
    )


def unknown_outcome() -> OperationTimeout:
    """The error for a write whose first try can no longer be told from no try."""
    return OperationTimeout(
        "the write was sent, no answer came, and since then too much happened to tell whether it "
        "took effect",
        outcome_unknown=True,
    )
