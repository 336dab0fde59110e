"""Counting keys and walking through all of them (floor 2).

A page of keys is read from a quorum of its group, and the answers are merged by ballot; it holds up
to the smallest key that one of the answers ends with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from ..base import Peer
from ..table.group import Ballot, Config
from ..wire.messages import Count, Counted, Page, Window
from .attempts import Attempts
from .core import USER, Core
from .finder import Finder
from .operations import Operations

__all__ = ["Walk"]


class Walk:
    """Looks at all keys of the users."""

    def __init__(self, core: Core, finder: Finder, operations: Operations) -> None:
        self._core = core
        self._finder = finder
        self._operations = operations

    # -- counting

    async def counts(self) -> dict[int, int]:
        """How many keys each partition has: as a quorum counts them, or counted one by one."""
        counted: dict[int, int] = {}
        disputed: list[int] = []
        missing = set(range(self._core.partitions))
        attempts = Attempts(self._core, write=False, paced=True)
        while missing:
            answers, moved = await self._ask_counts(sorted(missing), attempts)
            progress = False
            for partition, (config, numbers) in answers.items():
                if len(numbers) < config.quorum:
                    continue
                progress = True
                missing.discard(partition)
                counted[partition] = numbers[0]
                if any(number != numbers[0] for number in numbers):
                    disputed.append(partition)
            if missing and not progress and not moved:
                await attempts.wait()
                await attempts.within(self._finder.refresh(min(missing)))
                await attempts.within(self._finder.catch_up())
            elif progress:
                attempts = Attempts(self._core, write=False, paced=True)
        for partition in disputed:
            keys = 0
            async for _ in self.keys(values=False, partitions=[partition]):
                keys += 1
            counted[partition] = keys
        return counted

    async def _ask_counts(
        self, partitions: Sequence[int], attempts: Attempts
    ) -> tuple[dict[int, tuple[Config, list[int]]], bool]:
        """What members count; true if some of the groups turned out to have moved."""
        answers: dict[int, tuple[Config, list[int]]] = {}
        asks: dict[bytes, tuple[Peer, list[Config]]] = {}
        for partition in partitions:
            config = await self._operations.config(partition, attempts)
            answers[partition] = (config, [])
            for member in self._core.preferred(config)[: config.quorum]:
                asks.setdefault(member.instance, (member, []))[1].append(config)
        moved = False
        for member, configs in asks.values():
            request = Count(tuple((config.partition, config.epoch) for config in configs))
            reply = await self._operations.ask_member(member, request, attempts)
            good = isinstance(reply, Counted) and len(reply.parts) == len(configs)
            for place, config in enumerate(configs):
                answer = reply.parts[place] if good else reply
                if isinstance(answer, int):
                    answers[config.partition][1].append(answer)
                else:
                    moved = attempts.note(answer, config) or moved
        return answers, moved

    # -- walking

    async def keys(
        self, *, values: bool, partitions: Iterable[int] | None = None, most: int | None = None
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """Every user's key, page by page, with its value if asked for (else empty bytes).

        A key that exists during the whole walk is seen exactly once: the cursor is a partition
        and a key, and both stay what they are when the partition moves to other nodes.
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
                _, windows = await self._operations.persist(
                    partition,
                    lambda epoch, partition=partition, cursor=cursor: Page(  # type: ignore[misc]
                        partition, epoch, cursor, values, per_page
                    ),
                    Window,
                )
                merged, after, more = merge(windows)
                for key, (_, value) in merged:
                    if value is _DISPUTED:
                        value = await self._operations.read(key)
                    if value is not None:
                        yield key[len(USER) :], value if values else b""


#: Members have different versions of it.
_DISPUTED: Any = object()


def merge(
    windows: Sequence[Window],
) -> tuple[list[tuple[bytes, tuple[Ballot, Any]]], bytes | None, bool]:
    """One page of a quorum's answers.

    :returns: keys in order with their ballot and value (None: deleted; `_DISPUTED`: ask), the last
        key that the page is good for, and whether others follow.
    """
    ends = [window.keys[-1] for window in windows if window.more and window.keys]
    end = min(ends) if ends else None
    found: dict[bytes, tuple[Ballot, Any]] = {}
    seen: dict[bytes, int] = {}
    for window in windows:
        for place, key in enumerate(window.keys):
            if end is not None and key > end:
                break
            ballot = window.ballots[place]
            value: Any = None
            if window.alive[place]:
                value = window.values[place] if window.values else b""
            known = found.get(key)
            if known is None:
                found[key] = (ballot, value)
            elif known[0] != ballot:
                found[key] = (max(known[0], ballot), _DISPUTED)
            seen[key] = seen.get(key, 0) + 1
    for key, (ballot, _) in found.items():
        if seen[key] < len(windows):
            found[key] = (ballot, _DISPUTED)
    return sorted(found.items()), end, end is not None
