"""Reading and writing many keys at once (floor 2).

What one member is asked for travels together, in messages of bounded size; no message ever holds a
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from ..errors import NotConnected
from ..table.group import Epoch
from ..table.proposer import Outcome, Write
from .attempts import Attempts, is_doubtful, unknown_outcome
from .bulk_asks import Proposers, Readers
from .core import Core, Phase
from .dispatch import Piece
from .finder import Finder
from .operations import Operations
from .proposals import Proposals

__all__ = ["Bulk"]

T = TypeVar("T")

#: Keys that are read or written by themselves at the same time, where that is needed.
_ALONE = 64


class Bulk:
    """Operations on many keys."""

    def __init__(
        self, core: Core, finder: Finder, operations: Operations, proposals: Proposals
    ) -> None:
        self._core = core
        self._finder = finder
        self._operations = operations
        self._proposals = proposals

    # -- reading

    async def read_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values at table keys, without those that have none."""
        found: dict[bytes, bytes] = {}
        pending = list(dict.fromkeys(keys))
        attempts = Attempts(self._core, write=False, paced=True)
        slow: set[bytes] = set()  # members that are asked last
        while pending:
            attempts.check_time()
            pieces = await self._pieces(pending, lambda key: key, _read_size, attempts)
            await Readers(self._core, self._operations, attempts, slow).ask(pieces)
            again: list[bytes] = []
            alone: list[bytes] = []
            moved = False
            for piece in pieces:
                problem = _take_values(piece, found, again, alone)
                if isinstance(problem, Failure):
                    attempts.note(problem, piece.config)  # raises what no other try can mend
                    alone += piece.items
                elif problem is not None:
                    moved = attempts.note(problem, piece.config) or moved
                    again += piece.items
            await self._read_alone(alone, found, attempts)
            if len(again) == len(pending) and not moved:
                await self._wait(self._core.partition(again[0]), attempts)
            elif len(again) < len(pending):
                attempts.begin_anew()
            pending = again
        return found

    async def _read_alone(
        self, keys: Sequence[bytes], found: dict[bytes, bytes], attempts: Attempts
    ) -> None:
        """Read keys one by one, as many at a time as is good."""
        began: float | None = attempts.began
        for at in range(0, len(keys), _ALONE):
            if self._core.phase is Phase.STOPPED:
                raise NotConnected("this node was stopped")
            some = keys[at : at + _ALONE]
            values = await _all_of([self._operations.read(key, began) for key in some])
            began = None  # it goes on: there is as much time again
            for key, value in zip(some, values, strict=True):
                if value is not None:
                    found[key] = value

    # -- writing

    async def write_many(self, writes: Sequence[Write]) -> None:
        """Carry unconditional writes out; fires when all are done.

        :raises ChordError: of the first that failed; its outcome is unknown as soon as one of the
            others was done.
        """
        attempts = Attempts(self._core, write=True, paced=True, writes=len(writes))
        with attempts.telling():
            await self._write_all(list(writes), attempts)

    async def _write_all(self, pending: list[Write], attempts: Attempts) -> None:
        core = self._core
        silent: set[bytes] = set()  # proposers that did not answer: this node takes their place
        while pending:
            attempts.check_time()
            pieces = await self._pieces(pending, lambda write: write.key, _write_size, attempts)
            asking = Proposers(core, self._operations, self._proposals, attempts, silent)
            moved = await asking.ask(pieces)
            # What was done counts first: an error about the others tells of it.
            attempts.done += sum(
                answer.outcomes.count(Outcome.APPLIED)
                for piece in pieces
                for answer in piece.answers
            )
            again: list[Write] = []
            for piece in pieces:
                if piece.answers:
                    again += _not_done(piece.items, piece.answers[0].outcomes, core.stamp)
                    continue
                moved = attempts.note(piece.problem, piece.config) or moved
                doubt = _doubt(piece.problem, piece.config.epoch)
                again += [
                    write.again(write.after, write.doubtful or doubt) for write in piece.items
                ]
            if len(again) == len(pending) and not moved:
                await self._wait(core.partition(again[0].key), attempts)
            elif len(again) < len(pending):
                attempts.begin_anew()
            pending = again

    # -- what both need

    async def _wait(self, partition: int, attempts: Attempts) -> None:
        """Before all is tried again."""
        await attempts.wait()
        await attempts.within(self._finder.refresh(partition))
        await attempts.within(self._finder.catch_up())

    async def _pieces(
        self,
        items: Sequence[T],
        key_of: Callable[[T], bytes],
        size_of: Callable[[T], int],
        attempts: Attempts,
    ) -> list[Piece[T]]:
        """Sort items by partition, into pieces that fit a message."""
        core = self._core
        by_partition: dict[int, list[T]] = {}
        for item in items:
            by_partition.setdefault(core.partition(key_of(item)), []).append(item)
        pieces: list[Piece[T]] = []
        settings = core.settings
        for partition, mine in by_partition.items():
            config = await self._operations.config(partition, attempts)
            some: list[T] = []
            room = settings.page_bytes
            for item in mine:
                size = size_of(item)
                if some and (room < size or len(some) >= settings.page_keys):
                    pieces.append(Piece(config, some, settings.page_bytes - room))
                    some, room = [], settings.page_bytes
                some.append(item)
                room -= size
            pieces.append(Piece(config, some, settings.page_bytes - room))
        return pieces


def _read_size(key: bytes) -> int:
    return len(key) + 32


def _write_size(write: Write) -> int:
    return len(write.key) + len(write.value or b"") + 32


def _take_values(
    piece: Piece[bytes], found: dict[bytes, bytes], again: list[bytes], alone: list[bytes]
) -> Any:
    """Take what a quorum agrees about; sorts the rest.  Returns what went wrong, or None."""
    if len(piece.answers) < piece.config.quorum:
        return piece.problem
    values: Sequence[bytes | None] = ()
    versions: list[Sequence[Any]] = []
    for answer in piece.answers:
        values = answer.values or values
        if piece.config.quorum > 1:
            versions.append(answer.ballots)
    told = min([len(values), *map(len, versions)])
    for place in range(told):
        key = piece.items[place]
        if any(version[place] != versions[0][place] for version in versions[1:]):
            alone.append(key)
            continue
        value = values[place]
        if value is not None:
            found[key] = value
    if told:
        again += piece.items[told:]
    else:
        alone += piece.items  # values that fit no message together
    return None


def _not_done(items: Sequence[Write], outcomes: Sequence[Outcome], clock: int) -> list[Write]:
    """The writes that have to be tried again.

    :raises OperationTimeout: if one has an outcome that nobody can know.
    """
    if Outcome.UNKNOWN in outcomes:
        raise unknown_outcome()
    if Outcome.STALE not in outcomes:
        return []
    return [
        write.again(clock, None)
        for write, outcome in zip(items, outcomes, strict=True)
        if outcome is Outcome.STALE
    ]


def _doubt(answer: Any, epoch: Epoch) -> Epoch | None:
    return epoch if is_doubtful(answer) or getattr(answer, "sent", False) else None


async def _all_of(waiting: Sequence[Any]) -> list[Any]:
    """The results of coroutines and Deferreds; the first failure is raised when all have ended."""
    deferreds = [
        one if isinstance(one, Deferred) else Deferred.fromCoroutine(one) for one in waiting
    ]
    results = await DeferredList(deferreds, consumeErrors=True)
    for good, result in results:
        if not good:
            result.raiseException()
    return [result for _, result in results]
