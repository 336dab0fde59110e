"""Reading and writing many keys at once (floor 2).

What one member is asked for travels together, in messages of bounded size; no message ever holds a
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from ..base import Peer
from ..table.group import Config, Epoch
from ..table.proposer import Outcome, Write
from ..wire.messages import (
    ReadMany,
    Request,
    SomeValues,
    SomeWritten,
    Values,
    Want,
    WriteMany,
    WrittenMany,
)
from .attempts import Attempts, is_doubtful, unknown_outcome
from .core import Core
from .finder import Finder
from .operations import Operations
from .proposals import Proposals

__all__ = ["Bulk"]

T = TypeVar("T")

#: Messages under way at once in one bulk operation.
_WINDOW = 16
#: Keys that are read or written by themselves at the same time, where that is needed.
_ALONE = 64


class _Piece(Generic[T]):
    """Items of one partition in one message."""

    __slots__ = ("answers", "config", "items", "size", "wanted")

    def __init__(self, config: Config, items: list[T], size: int) -> None:
        self.config = config
        self.items = items
        self.size = size  # bytes, about
        self.wanted = 1  # answers
        self.answers: list[Any] = []


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
        attempts = Attempts(self._core, write=False)
        while pending:
            pieces = await self._pieces(pending, lambda key: key, len, attempts)
            await self._ask_readers(pieces, attempts)
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
                attempts = Attempts(self._core, write=False)
            pending = again
        return found

    async def _ask_readers(self, pieces: Sequence[_Piece[bytes]], attempts: Attempts) -> None:
        """Ask a quorum of each piece's group: one member for the values, all for the versions."""
        core = self._core
        asks: dict[tuple[bytes, Want], tuple[Peer, list[_Piece[bytes]]]] = {}
        for piece in pieces:
            config = piece.config
            piece.wanted = config.quorum
            members = core.preferred(config)
            if config.has(core.instance):  # the own copy costs no message
                mine = [peer for peer in members if peer.instance == core.instance]
                members = (*mine, *(peer for peer in members if peer.instance != core.instance))
            want = Want.VALUE if config.quorum == 1 else Want.BOTH
            for member in members[: config.quorum]:
                asks.setdefault((member.instance, want), (member, []))[1].append(piece)
                want = Want.BALLOT
        messages = [
            (member, want, some)
            for (_, want), (member, asked) in asks.items()
            for some in self._messages(asked)
        ]

        async def ask(member: Peer, want: Want, some: list[_Piece[bytes]]) -> None:
            request = ReadMany(
                tuple((piece.config.epoch, tuple(piece.items)) for piece in some), want
            )
            reply = await self._operations.ask_member(member, request, attempts)
            good = isinstance(reply, Values) and len(reply.parts) == len(some)
            for place, piece in enumerate(some):
                piece.answers.append(reply.parts[place] if good else reply)

        for at in range(0, len(messages), _WINDOW):
            await _all_of([ask(*message) for message in messages[at : at + _WINDOW]])

    async def _read_alone(
        self, keys: Sequence[bytes], found: dict[bytes, bytes], attempts: Attempts
    ) -> None:
        """Read keys one by one, as many at a time as is good."""
        began: float | None = attempts.began
        for at in range(0, len(keys), _ALONE):
            some = keys[at : at + _ALONE]
            values = await _all_of([self._operations.read(key, began) for key in some])
            began = None  # it goes on: there is as much time again
            for key, value in zip(some, values, strict=True):
                if value is not None:
                    found[key] = value

    # -- writing

    async def write_many(self, writes: Sequence[Write]) -> None:
        """Carry unconditional writes out; fires when all are done.

        :raises ChordError: of the first that failed; the others may have been done.
        """
        core = self._core
        pending = list(writes)
        attempts = Attempts(core, write=True)
        silent: set[bytes] = set()  # proposers that did not answer: this node takes their place
        while pending:
            pieces = await self._pieces(pending, lambda write: write.key, _write_size, attempts)
            await self._ask_proposers(pieces, silent, attempts)
            again: list[Write] = []
            moved = False
            for piece in pieces:
                (answer,) = piece.answers
                if isinstance(answer, SomeWritten) and len(answer.outcomes) == len(piece.items):
                    again += _not_done(piece.items, answer.outcomes, core.stamp)
                    continue
                moved = attempts.note(answer, piece.config) or moved
                if isinstance(answer, Failure) and len(piece.config.members) > 1:
                    proposer = core.preferred(piece.config)[0].instance
                    moved = moved or proposer not in silent
                    silent.add(proposer)
                doubt = _doubt(answer, piece.config.epoch)
                again += [
                    write.again(write.after, write.doubtful or doubt) for write in piece.items
                ]
            if len(again) == len(pending) and not moved:
                await self._wait(core.partition(again[0].key), attempts)
            elif len(again) < len(pending):
                doubtful = attempts.doubtful
                attempts = Attempts(core, write=True)
                attempts.doubtful = doubtful
            pending = again

    async def _ask_proposers(
        self, pieces: Sequence[_Piece[Write]], silent: set[bytes], attempts: Attempts
    ) -> None:
        core = self._core
        asks: dict[bytes, tuple[Peer, list[_Piece[Write]]]] = {}
        for piece in pieces:
            proposer = core.preferred(piece.config)[0]
            if proposer.instance in silent:
                proposer = core.me
            asks.setdefault(proposer.instance, (proposer, []))[1].append(piece)

        async def ask(member: Peer, some: list[_Piece[Write]]) -> None:
            if member.instance == core.instance:
                parts = [(piece.config, piece.items) for piece in some]
                reply = await self._operations.here(
                    lambda done: self._proposals.write_many(parts, done), attempts
                )
            else:
                request: Request = WriteMany(
                    tuple((piece.config.epoch, tuple(piece.items)) for piece in some)
                )
                reply = await self._operations.ask_member(member, request, attempts)
            good = isinstance(reply, WrittenMany) and len(reply.parts) == len(some)
            if good:
                core.hear(reply.stamp)
            for place, piece in enumerate(some):
                piece.answers.append(reply.parts[place] if good else reply)

        messages = [
            (member, some) for member, asked in asks.values() for some in self._messages(asked)
        ]
        for at in range(0, len(messages), _WINDOW):
            await _all_of([ask(*message) for message in messages[at : at + _WINDOW]])

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
    ) -> list[_Piece[T]]:
        """Sort items by partition, into pieces that fit a message."""
        core = self._core
        by_partition: dict[int, list[T]] = {}
        for item in items:
            by_partition.setdefault(core.partition(key_of(item)), []).append(item)
        pieces: list[_Piece[T]] = []
        settings = core.settings
        for partition, mine in by_partition.items():
            config = await self._operations.config(partition, attempts)
            some: list[T] = []
            room = settings.page_bytes
            for item in mine:
                size = size_of(item)
                if some and (room < size or len(some) >= settings.page_keys):
                    pieces.append(_Piece(config, some, settings.page_bytes - room))
                    some, room = [], settings.page_bytes
                some.append(item)
                room -= size
            pieces.append(_Piece(config, some, settings.page_bytes - room))
        return pieces

    def _messages(self, pieces: Sequence[_Piece[T]]) -> list[list[_Piece[T]]]:
        """Put pieces for one member together, into messages of bounded size."""
        messages: list[list[_Piece[T]]] = []
        settings = self._core.settings
        room = keys = 0
        for piece in pieces:
            if not messages or room < piece.size or keys < len(piece.items):
                messages.append([])
                room, keys = settings.page_bytes, settings.page_keys
            messages[-1].append(piece)
            room -= piece.size
            keys -= len(piece.items)
        return messages


def _write_size(write: Write) -> int:
    return len(write.key) + len(write.value or b"") + 32


def _take_values(
    piece: _Piece[bytes], found: dict[bytes, bytes], again: list[bytes], alone: list[bytes]
) -> Any:
    """Take what a quorum agrees about; sorts the rest.  Returns what went wrong, or None."""
    values: Sequence[bytes | None] = ()
    versions: list[Sequence[Any]] = []
    for answer in piece.answers:
        if not isinstance(answer, SomeValues):
            return answer
        if answer.values:
            values = answer.values
        if piece.wanted > 1:
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
