"""The writes that this node proposes (floor 2).

Owns the way from a request to a job of :class:`~.rounds.Rounds` and back: as the steady proposer
of its partitions, for peers and for itself, or, when that one is silent, as anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..errors import StorageError
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Config, Epoch
from ..table.proposer import Condition, Outcome, Write, write_alone
from ..table.values import plain
from ..wire.link import Pending
from ..wire.messages import (
    Declined,
    Failed,
    Full,
    Reply,
    Settle,
    SomeWritten,
    Value,
    WriteMany,
    WriteOne,
    Written,
    WrittenMany,
    WrongEpoch,
)
from .core import Core
from .keeper import Keeper
from .mail import Job, Result
from .quota import no_room
from .rounds import Rounds

__all__ = ["Proposals"]


class Proposals:
    """The writes that this node carries through groups."""

    def __init__(self, core: Core, keeper: Keeper) -> None:
        self._core = core
        self._keeper = keeper
        self._rounds = Rounds(core, keeper)
        #: what answers which request
        self.handlers: dict[type, Callable[[Any], Reply | Pending]] = {
            WriteOne: self.answer_write,
            WriteMany: self.answer_write_many,
            Settle: self.answer_settle,
        }

    def stop(self) -> None:
        """Nothing is sent any more."""
        self._rounds.stop()

    def _alone(self, config: Config, write: Write) -> Outcome | None:
        """A write in a group whose only member is this node: both rounds in one step.

        :returns: None if that is not so, or somebody else has a promise.
        """
        core = self._core
        acceptor = core.acceptors.get(config.partition)
        if acceptor is None or acceptor.config is not config or acceptor.wedged:
            return None
        outcome = write_alone(acceptor, core.proposer, write, core.stamp)
        core.hear(acceptor.stamp)
        return outcome

    # -- for peers

    def answer_write(self, request: WriteOne) -> Reply | Pending:
        """A peer has this node write a key."""
        config = self._config(request.write.key, request.epoch)
        if not isinstance(config, Config):
            return config
        write = request.write
        refusal = self._keeper.too_large(write.value) or no_room(self._core, config, [write])
        if refusal is not None:
            return refusal
        self._core.writes += 1
        if len(config.members) == 1:
            outcome = self._alone(config, request.write)
            if outcome is not None:
                return Written(outcome, self._core.stamp)
        pending = Pending()

        def done(job: Job, result: Result) -> None:
            if isinstance(result, Outcome):
                pending.fire(Written(result, self._core.stamp))
            else:
                pending.fire(result)

        self._rounds.one(Job(config, request.write, done))
        return pending

    def answer_settle(self, request: Settle) -> Reply | Pending:
        """A peer found different versions of a key, and wants to know what holds."""
        config = self._config(request.key, request.epoch)
        if not isinstance(config, Config):
            return config
        pending = Pending()
        self.settle(config, request.key, pending.fire)
        return pending

    def answer_write_many(self, request: WriteMany) -> Reply | Pending:
        """A peer has this node write many keys."""
        served: list[tuple[Config, Sequence[Write]]] = []
        refused: dict[int, WrongEpoch] = {}
        for place, (epoch, writes) in enumerate(request.parts):
            config = self._config(writes[0].key, epoch) if writes else Declined("an empty part")
            if isinstance(config, Config):
                config = self._wrong(writes, config.partition) or config
            if isinstance(config, Declined):
                return config
            if isinstance(config, WrongEpoch):
                refused[place] = config
            else:
                served.append((config, writes))
        pending = Pending()

        def done(reply: Reply) -> None:
            if isinstance(reply, WrittenMany) and refused:
                parts = iter(reply.parts)
                merged = [refused.get(at) or next(parts) for at in range(len(request.parts))]
                reply = WrittenMany(tuple(merged), reply.stamp)
            pending.fire(reply)

        self.write_many(served, done)
        return pending

    def _wrong(self, writes: Sequence[Write], partition: int) -> Declined | None:
        """Why these, or some of them, cannot be writes of that partition."""
        partition_of, too_large = self._core.partition, self._keeper.too_large
        try:
            for write in writes:
                if partition_of(write.key) != partition:
                    return Declined(f"a key is not of partition {partition}")
                refusal = too_large(write.value)
                if refusal is not None:
                    return refusal
        except ValueError as error:
            return Declined(str(error))
        return None

    def _config(self, key: bytes, epoch: Epoch) -> Config | Declined | WrongEpoch:
        """The configuration of a key that this node serves in this epoch, or why there is none."""
        try:
            partition = self._core.partition(key)
        except ValueError as error:
            return Declined(str(error))
        acceptor = self._core.acceptors.get(partition)
        if acceptor is None:
            return self._keeper.wrong_epoch(partition)
        try:
            acceptor.check(epoch)
        except EpochRefused as refusal:
            return self._keeper.wrong_epoch(partition, wedged=refusal.wedged)
        return acceptor.config

    # -- for this node

    def write(self, config: Config, write: Write, done: Callable[[Result | Full], None]) -> None:
        """Carry a write out in this configuration; `done` hears the outcome, or why there is none.

        The attempt ends by itself within a few request timeouts.
        """
        full = no_room(self._core, config, [write])
        if full is not None:
            done(full)
            return
        self._core.writes += 1
        if len(config.members) == 1:
            try:
                outcome = self._alone(config, write)
            except StorageError:
                done(Failed(0, False))
                return
            if outcome is not None:
                self._core.when_kept(partial(done, outcome), (config.partition,))
                return
        self._rounds.one(Job(config, write, lambda job, result: done(result)))

    def settle(self, config: Config, key: bytes, done: Callable[[Reply], None]) -> None:
        """Find out what a key's value is, by completing what was begun; `done` hears a reply."""

        def settled(job: Job, result: Result) -> None:
            if not isinstance(result, Outcome):
                done(result)
                return
            record = job.proposal.record
            try:
                reply: Reply = Value(None if record is None else plain(record.value))
            except StorageError:
                reply = Failed(0, False)
            done(reply)

        self._rounds.one(Job(config, Write(key, None, bytes(8), Condition.NEVER), settled))

    def write_many(
        self, parts: Sequence[tuple[Config, Sequence[Write]]], done: Callable[[Reply], None]
    ) -> None:
        """Carry many writes out at once; `done` hears what became of all of them."""
        for config, writes in parts:
            full = no_room(self._core, config, writes)
            if full is not None:
                done(full)
                return
        results: list[SomeWritten | WrongEpoch | Failed] = [SomeWritten(()) for _ in parts]
        missing = 1 + len(parts)

        def finished() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                self._core.when_kept(
                    lambda: done(WrittenMany(tuple(results), self._core.stamp)),
                    [config.partition for config, _ in parts],
                )

        for place, (config, writes) in enumerate(parts):
            if writes:
                self._write_part(config, writes, results, place, finished)
            else:
                finished()
        self._rounds.flush()
        finished()

    def _write_part(
        self,
        config: Config,
        writes: Sequence[Write],
        parts: list[SomeWritten | WrongEpoch | Failed],
        place: int,
        finished: Callable[[], None],
    ) -> None:
        self._core.writes += len(writes)
        if len(config.members) == 1:
            at_once = [self._alone(config, write) for write in writes]
            if None not in at_once:
                parts[place] = SomeWritten(tuple(at_once))  # type: ignore[arg-type]
                finished()
                return
            # Those that were done find their operation ids.
        outcomes: dict[bytes, Outcome] = {}
        failed: list[WrongEpoch | Failed] = []
        left = len(writes)

        def done(job: Job, result: Result) -> None:
            nonlocal left
            left -= 1
            if isinstance(result, Outcome):
                outcomes[job.proposal.write.operation] = result
            else:
                failed.append(result)
            if left:
                return
            if not failed:
                parts[place] = SomeWritten(tuple(outcomes[write.operation] for write in writes))
            elif outcomes or any(isinstance(one, Failed) and one.sent for one in failed):
                parts[place] = Failed(0, True)  # some of them may have been done, or were
            else:
                parts[place] = failed[0]
            finished()

        for write in writes:
            self._rounds.begin(Job(config, write, done))
