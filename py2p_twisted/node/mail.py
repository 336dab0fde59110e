"""What one turn has to say to the members of groups, in as few messages as it fits (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..base import Peer
from ..errors import StorageError
from ..settings import Settings
from ..table.group import Config, Epoch, Record
from ..table.proposer import Outcome, Proposal, Step, Write
from ..wire.messages import (
    Accept,
    Accepted,
    Failed,
    Prepare,
    Promised,
    ReadMany,
    Request,
    Values,
    Want,
    WrongEpoch,
)
from .core import Core

__all__ = ["Job", "Mail", "Message", "Result", "accept_one"]

#: Writes in one message whose answer should not take longer than that of one.
_FEW = 32
#: What a key takes in a message beside its bytes and its value.
_KEY_BYTES = 160

Result = Outcome | WrongEpoch | Failed


class Job:
    """One write on its way: its proposal, and who is still to be heard in this round.

    :param done: hears the result, once.
    :ivar single: its ACCEPTs leave at once, in messages of their own.
    """

    __slots__ = ("config", "done", "heard", "proposal", "rest", "rounds", "single", "waiting")

    def __init__(self, config: Config, write: Write, done: Callable[[Job, Result], None]) -> None:
        self.config = config
        self.proposal = Proposal(config, write)
        self.done = done
        self.rest: Sequence[Peer] = ()  # members that were not asked yet in this round
        self.waiting = 0
        self.heard = 0  # members that answered anything in this round
        self.rounds = 0
        self.single = False

    @property
    def key(self) -> bytes:
        """The key that it writes."""
        return self.proposal.write.key


class Message:
    """One round of some jobs, for one member."""

    __slots__ = ("_parts", "jobs", "peer", "step")

    def __init__(self, peer: Peer, step: Step, jobs: list[Job]) -> None:
        self.peer = peer
        self.step = step
        self.jobs = jobs
        self._parts: dict[tuple[int, Epoch], list[Job]] = {}

    @property
    def parts(self) -> dict[tuple[int, Epoch], list[Job]]:
        """The jobs by partition, in the order of the request's parts."""
        if not self._parts:
            for job in self.jobs:
                self._parts.setdefault((job.config.partition, job.config.epoch), []).append(job)
        return self._parts

    def patience(self, settings: Settings) -> float | None:
        """Seconds to wait for its answer; None: as for any other."""
        return settings.request_timeout_max if len(self.jobs) > _FEW else None

    def answers(self, reply: Any) -> Sequence[Any]:
        """What a reply says of each part."""
        parts = len(self.parts)
        good = isinstance(reply, _GOOD[self.step]) and len(reply.parts) == parts
        return reply.parts if good else [reply] * parts

    def request(self) -> Request:
        """What to send."""
        if self.step is Step.ACCEPT:
            if len(self.jobs) == 1:
                return accept_one(self.jobs[0])
            accepts: list[tuple[int, Epoch, tuple[tuple[bytes, Record], ...]]] = []
            for (partition, epoch), jobs in self.parts.items():
                records = [(job.key, job.proposal.record) for job in jobs]
                accepts.append((partition, epoch, tuple(records)))  # type: ignore[arg-type]
            return Accept(tuple(accepts))
        if self.step is Step.PREPARE:
            return Prepare(
                tuple(
                    (partition, epoch, tuple((job.key, job.proposal.ballot) for job in jobs))
                    for (partition, epoch), jobs in self.parts.items()
                )
            )
        return ReadMany(
            tuple(
                (epoch, tuple(job.key for job in jobs)) for (_, epoch), jobs in self.parts.items()
            ),
            Want.BALLOT,
        )


_GOOD: dict[Step, type[Any]] = {
    Step.ACCEPT: Accepted,
    Step.PREPARE: Promised,
    Step.CONFIRM: Values,
}


def accept_one(job: Job) -> Accept:
    """ACCEPT for one job."""
    config, record = job.config, job.proposal.record
    assert record is not None
    return Accept(((config.partition, config.epoch, ((job.key, record),)),))


class Mail:
    """Collects what is to be said, until it is taken."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._jobs: dict[tuple[bytes, Step], tuple[Peer, list[tuple[Job, int]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, peer: Peer, job: Job) -> None:
        """A member is to be asked what the job's step says."""
        key = (peer.instance, job.proposal.step)
        known = self._jobs.get(key)
        if known is None:
            self._jobs[key] = (peer, [(job, job.proposal.round)])
        else:
            known[1].append((job, job.proposal.round))

    def take(self) -> Iterator[Message]:
        """The messages that hold all that was added."""
        taken, self._jobs = self._jobs, {}
        for (_, step), (peer, added) in taken.items():
            # A round that is over by now is not begun; nobody is asked twice in one.
            jobs = [job for job, number in added if job.proposal.round == number]
            if len(jobs) > 1:
                for some in self._portions(step, jobs):
                    yield Message(peer, step, some)
            elif jobs:
                yield Message(peer, step, jobs)

    def _portions(self, step: Step, jobs: list[Job]) -> list[list[Job]]:
        """Jobs that fit one message, and whose answers do."""
        portions: list[list[Job]] = [[]]
        room = self._core.settings.page_bytes
        for job in jobs:
            size = _KEY_BYTES + len(job.key)
            acceptor = self._core.acceptors.get(job.config.partition)
            record = job.proposal.record
            if step is Step.PREPARE and acceptor is not None:
                with suppress(StorageError):
                    record = acceptor.get(job.key)
            if record is not None and step is not Step.CONFIRM:
                size += len(record.value or b"")
            if portions[-1] and room < size:
                portions.append([])
                room = self._core.settings.page_bytes
            portions[-1].append(job)
            room -= size
        return portions
