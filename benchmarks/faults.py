"""What operations meet, one after the other, while a node is killed or frozen.

Every value that is read is compared with what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from time import perf_counter
from typing import Any

from twisted.internet.task import deferLater

from py2p_twisted.base import count_of
from py2p_twisted.errors import ChordError
from py2p_twisted.node.core import user_key
from py2p_twisted.service import ChordService

from .processes import CannotRun

__all__ = ["Fault", "Writer"]

#: Seconds of operations before a fault, and how long its effect is looked at.
_BEFORE = 1.0
_AFTER = 3.0
_VALUE_BYTES = 100


@dataclass
class Fault:
    """How operations went, one after the other.

    :ivar before: seconds of each that ended before the fault.
    :ivar after: seconds of each that ended after it, the failed ones included.
    :ivar failed: how many failed.
    """

    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def slowest(self) -> float:
        """Seconds of the slowest since the fault."""
        return max(self.after)

    def p99(self, since: bool = True) -> float:
        """99 of 100 took at most so many seconds, since the fault or before it."""
        took = sorted(self.after if since else self.before)
        return took[ceil(0.99 * len(took)) - 1]


class Writer:
    """Reads and writes keys of all partitions in turn, and knows what they may hold.

    :param values: what is at the keys now.
    """

    def __init__(self, reactor: Any, client: ChordService, values: Mapping[bytes, bytes]) -> None:
        self._reactor = reactor
        self._client = client
        self._values = {key: {value} for key, value in values.items()}
        self._turns = self._one_of_each_partition()
        self._written = count(10 ** (_VALUE_BYTES - 1))  # no value twice

    def _one_of_each_partition(self) -> Sequence[bytes]:
        core = self._client.node.core
        keys = {core.partition(user_key(key)): key for key in self._values}
        if len(keys) != core.partitions:
            raise CannotRun(f"the keys lie in {len(keys)} of {core.partitions} partitions")
        return [keys[partition] for partition in sorted(keys)]

    async def meet(self, strike: Callable[[], None]) -> Fault:
        """Get and set in turns, one after the other, and let the fault happen among them.

        :raises CannotRun: if something was read that was not there.
        """
        fault = Fault()
        began = perf_counter()
        struck: list[float] = []

        def happen() -> None:
            struck.append(perf_counter())
            strike()

        striking = deferLater(self._reactor, _BEFORE, happen)
        turn = 0
        while perf_counter() < began + _BEFORE + _AFTER:
            key = self._turns[turn // 2 % len(self._turns)]
            operation = self._set if turn % 2 else self._get
            turn += 1
            start = perf_counter()
            try:
                await operation(key)
            except ChordError:
                fault.failed += 1
            end = perf_counter()
            (fault.after if struck else fault.before).append(end - start)
        await striking
        return fault

    async def _get(self, key: bytes) -> None:
        value = await self._client.get(key)
        if value not in self._values[key]:
            raise CannotRun(f"{key!r}: read {value!r}, which is not what was written last")

    async def _set(self, key: bytes) -> None:
        value = b"%d" % next(self._written)
        try:
            await self._client.set(key, value)
        except ChordError as error:
            if error.outcome_unknown:
                self._values[key].add(value)
            raise
        self._values[key] = {value}

    async def check(self) -> None:
        """Read all keys back.

        :raises CannotRun: if one cannot be read, or has another value.
        """
        try:
            found = await self._client.get_many(self._values)
        except ChordError as error:
            raise CannotRun(f"the keys cannot be read any more: {error}") from error
        wrong = [key for key, values in self._values.items() if found.get(key) not in values]
        if wrong:
            raise CannotRun(
                f"{count_of(len(wrong), 'key')} of {len(self._values)} differ from what was written"
                f" last, the first is {wrong[0]!r}"
            )
