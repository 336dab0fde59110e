"""Reading, writing and walking through many keys at once (floor 2).

What one node keeps travels together, in messages of bounded size; no message ever holds a table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList

from ..base import Peer
from ..table.group import Config, Epoch
from ..table.proposer import Outcome, Write
from ..wire.messages import (
    Count,
    Counted,
    Page,
    ReadMany,
    Request,
    SomeValues,
    SomeWritten,
    Values,
    Window,
    WriteMany,
    WrittenMany,
)
from .attempts import Attempts, is_doubtful, unknown_outcome, with_doubt
from .core import USER, Core
from .finder import Finder
from .operations import Operations

__all__ = ["Bulk"]

T = TypeVar("T")

#: Messages under way at once in one bulk operation.
_WINDOW = 16


class _Part(Generic[T]):
    """Items of one partition in one message."""

    __slots__ = ("config", "items")

    def __init__(self, config: Config, items: list[T]) -> None:
        self.config = config
        self.items = items


class Bulk:
    """Operations on many keys."""

    def __init__(self, core: Core, finder: Finder, operations: Operations) -> None:
        self._core = core
        self._finder = finder
        self._operations = operations

    # -- for users

    async def read_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The values at table keys, without those that have none."""
        found: dict[bytes, bytes] = {}

        def message(parts: Sequence[_Part[bytes]], _: dict[int, Epoch]) -> Request:
            return ReadMany(tuple((part.config.epoch, tuple(part.items)) for part in parts))

        def take(part: _Part[bytes], answer: Any) -> int:
            for key, value in zip(part.items, answer.values, strict=False):
                if value is not None:
                    found[key] = value
            return len(answer.values)

        await self._all(list(dict.fromkeys(keys)), lambda key: key, len, message, Values, take)
        return found

    async def write_many(self, writes: Sequence[Write]) -> None:
        """Carry unconditional writes out; fires when all are done.

        :raises ChordError: of the first that failed; the others may have been done.
        """

        def message(parts: Sequence[_Part[Write]], doubts: dict[int, Epoch]) -> Request:
            return WriteMany(
                tuple(
                    (
                        part.config.epoch,
                        tuple(
                            with_doubt(item, doubts.get(part.config.partition))
                            for item in part.items
                        ),
                    )
                    for part in parts
                )
            )

        def take(_: _Part[Write], answer: Any) -> int:
            if Outcome.UNKNOWN in answer.outcomes:
                raise unknown_outcome()
            return len(answer.outcomes)

        await self._all(
            list(writes),
            lambda write: write.key,
            lambda write: len(write.key) + len(write.value or b"") + 32,
            message,
            WrittenMany,
            take,
        )

    async def _all(
        self,
        pending: list[T],
        key_of: Callable[[T], bytes],
        size_of: Callable[[T], int],
        message: Callable[[Sequence[_Part[T]], dict[int, Epoch]], Request],
        good: type[Any],
        take: Callable[[_Part[T], Any], int],
    ) -> None:
        """Send all items to the members that keep them, until each had its answer."""
        attempts = Attempts(self._core, write=good is WrittenMany)
        doubts: dict[int, Epoch] = {}
        while pending:
            again: list[T] = []
            progress = moved = False
            batches = await self._batches(pending, key_of, size_of, attempts)
            for at in range(0, len(batches), _WINDOW):
                window = batches[at : at + _WINDOW]
                outcomes = await self._ask_all(window, message, doubts, attempts)
                for (_, parts), outcome in zip(window, outcomes, strict=True):
                    answers: Sequence[Any]
                    if isinstance(outcome, good):
                        answers = outcome.parts
                    else:
                        answers = [outcome] * len(parts)
                    for part, answer in zip(parts, answers, strict=True):
                        if isinstance(answer, SomeValues | SomeWritten):
                            done = take(part, answer)
                            progress = progress or done > 0
                            again += part.items[done:]
                        else:
                            epoch = part.config.epoch
                            moved = attempts.note(answer, epoch) or moved
                            if is_doubtful(answer):
                                doubts.setdefault(part.config.partition, epoch)
                            again += part.items
            if again and not progress and not moved:
                await attempts.wait()
                partition = self._core.partition(key_of(again[0]))
                await attempts.within(self._finder.refresh(partition))
                await attempts.within(self._finder.catch_up())
            elif progress:
                doubtful = attempts.doubtful
                attempts = Attempts(self._core, write=good is WrittenMany)
                attempts.doubtful = doubtful
            pending = again

    async def _ask_all(
        self,
        window: Sequence[tuple[Peer, list[_Part[T]]]],
        message: Callable[[Sequence[_Part[T]], dict[int, Epoch]], Request],
        doubts: dict[int, Epoch],
        attempts: Attempts,
    ) -> list[Any]:
        asked = [
            Deferred.fromCoroutine(
                self._operations.ask_member(member, message(parts, doubts), attempts)
            )
            for member, parts in window
        ]
        # A coroutine that returns a failure fails; Attempts.note() tells which may be tried again.
        return [result for _, result in await DeferredList(asked, consumeErrors=True)]

    async def _batches(
        self,
        items: list[T],
        key_of: Callable[[T], bytes],
        size_of: Callable[[T], int],
        attempts: Attempts,
    ) -> list[tuple[Peer, list[_Part[T]]]]:
        """Sort items by member, then by partition, into messages of bounded size."""
        core = self._core
        by_partition: dict[int, list[T]] = {}
        for item in items:
            by_partition.setdefault(core.partition(key_of(item)), []).append(item)
        by_member: dict[bytes, list[_Part[T]]] = {}
        for partition, mine in by_partition.items():
            config = await self._config(partition, attempts)
            by_member.setdefault(config.members[0].instance, []).append(_Part(config, mine))
        batches: list[tuple[Peer, list[_Part[T]]]] = []
        settings = core.settings
        for parts in by_member.values():
            member = parts[0].config.members[0]
            batch: list[_Part[T]] = []
            room, slots = settings.page_bytes, settings.page_keys
            for part in parts:
                piece: list[T] = []
                for item in part.items:
                    size = size_of(item)
                    if (batch or piece) and (room < size or not slots):
                        if piece:
                            batch.append(_Part(part.config, piece))
                        batches.append((member, batch))
                        batch, piece = [], []
                        room, slots = settings.page_bytes, settings.page_keys
                    piece.append(item)
                    room -= size
                    slots -= 1
                if piece:
                    batch.append(_Part(part.config, piece))
            if batch:
                batches.append((member, batch))
        return batches

    async def _config(self, partition: int, attempts: Attempts) -> Config:
        while (config := self._core.directory.get(partition)) is None:
            self._operations.check_connected()
            await attempts.within(self._finder.refresh(partition))
            if self._core.directory.get(partition) is None:
                await attempts.wait()
        return config

    async def counts(self) -> dict[int, int]:
        """How many keys each partition has, as its member counts them."""
        counted: dict[int, int] = {}
        missing = set(range(self._core.partitions))
        attempts = Attempts(self._core, write=False)
        while missing:
            by_member: dict[bytes, list[Config]] = {}
            for partition in sorted(missing):
                config = await self._config(partition, attempts)
                by_member.setdefault(config.members[0].instance, []).append(config)
            moved = False
            for configs in by_member.values():
                request = Count(tuple((config.partition, config.epoch) for config in configs))
                member = configs[0].members[0]
                reply = await self._operations.ask_member(member, request, attempts)
                answers = reply.parts if isinstance(reply, Counted) else [reply] * len(configs)
                for config, answer in zip(configs, answers, strict=True):
                    if isinstance(answer, int):
                        counted[config.partition] = answer
                        missing.discard(config.partition)
                    else:
                        moved = attempts.note(answer, config.epoch) or moved
            if missing and not moved:
                await attempts.wait()
                await attempts.within(self._finder.refresh(min(missing)))
                await attempts.within(self._finder.catch_up())
        return counted

    async def walk(
        self, *, values: bool, partitions: Iterable[int] | None = None, most: int | None = None
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """Every user's key, page by page, with its value if asked for (else empty bytes).

        A key that exists during the whole walk is seen exactly once: the cursor is a partition
        and a key, and both stay what they are when the partition moves to another node.
        """
        if partitions is None:
            # A partition that is empty now can only have keys that are younger than the walk.
            partitions = [part for part, keys in sorted((await self.counts()).items()) if keys]
        per_page = most or self._core.settings.page_keys
        for partition in partitions:
            after: bytes | None = None
            more = True
            while more:
                cursor = after

                def request(
                    epoch: Epoch,
                    _: Epoch | None,
                    partition: int = partition,
                    cursor: bytes | None = cursor,
                ) -> Request:
                    return Page(partition, epoch, cursor, values, per_page)

                window: Window = await self._operations.persist(partition, request, Window)
                for index, key in enumerate(window.keys):
                    yield key[len(USER) :], window.values[index] if values else b""
                more = window.more and bool(window.keys)
                after = window.keys[-1] if window.keys else after
