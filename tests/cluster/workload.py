"""Writers and readers against a ring, and the record of what came of it (test support)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

from ..simulation.history import History
from .keys import KeyPool, WorkKey, teams
from .report import Sample

__all__ = ["Workload"]

#: Workers of one team; they share keys, nobody else touches those.
TEAM = 4
#: Keys that a team works on at the same time.
KEYS_AT_ONCE = 6
#: Operations on one key, before the reads at the end.
OPERATIONS_PER_KEY = 180
#: What the workers do, and how often.
MIXTURE = {"get": 8, "set": 5, "delete": 2, "compare_and_set": 4}
#: Seconds after which a call that did not return is a mistake: over every time limit of its own.
_PATIENCE = 40.0
#: Seconds of its rate that a worker catches up on after an operation that took long.
_CATCHES_UP = 1.0
#: Reads at the end that are under way at the same time, for each client.
_AT_ONCE = 16


class Workload:
    """Workers at a bounded rate, each with one operation at a time.

    :param rng: what they do.
    :param rate: operations a second that all of them together try.
    :param under_fault: has the first fault been?
    :ivar samples: of operations that succeeded.
    :ivar errors: how often an operation failed with what.
    :ivar problems: what no fault excuses.
    """

    def __init__(
        self,
        reactor: Any,
        rng: Random,
        clients: Sequence[ChordService],
        *,
        rate: float,
        under_fault: Callable[[], bool],
    ) -> None:
        self.history = History()
        self.samples: list[Sample] = []
        self.errors: Counter[str] = Counter()
        self.problems: list[str] = []
        self._reactor = reactor
        self._under_fault = under_fault
        self._running = True
        self._began = time.monotonic()
        count = max(8, len(clients))
        self._interval = count * TEAM / rate
        self._pools: list[KeyPool] = []
        workers = []
        for number, team in enumerate(teams(len(clients), TEAM, count), start=1):
            pool = KeyPool(rng, f"team {number}", KEYS_AT_ONCE, OPERATIONS_PER_KEY)
            self._pools.append(pool)
            for place, client in enumerate(team, start=1):
                name = f"worker {number}.{place} of client {client + 1}"
                own = Random(rng.getrandbits(64))
                workers.append(self._work(name, own, pool, clients[client]))
        self._ended = gatherResults(
            [Deferred.fromCoroutine(work) for work in workers], consumeErrors=True
        )

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def keys(self) -> list[bytes]:
        """Every key that was ever worked on."""
        return [key.name for pool in self._pools for key in pool.all if key.operations]

    async def stop(self) -> None:
        """No more operations; fires when the last has returned."""
        self._running = False
        await self._ended

    def cancel(self) -> None:
        """Nobody wants to know any more."""

        def expected(failure: Failure) -> None:
            failure.trap(FirstError)

        self._running = False
        self._ended.addErrback(expected)
        self._ended.cancel()

    async def _work(self, name: str, rng: Random, pool: KeyPool, client: ChordService) -> None:
        count = 0
        due = self.now
        while self._running:
            due += rng.expovariate(1 / self._interval)
            wait = due - self.now
            if wait > 0:
                await deferLater(self._reactor, wait, lambda: None)
            due = max(due, self.now - _CATCHES_UP)
            kind = rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
            key = pool.take()
            count += 1
            value = f"{name}: {count}".encode()
            if kind == "get":
                await self.operate(name, client, key, "get")
            elif kind == "set":
                if await self.operate(name, client, key, "set", value):
                    key.seen.append(value)
            elif kind == "delete":
                await self.operate(name, client, key, "delete")
            else:
                expected = rng.choice(key.seen)
                await self.operate(name, client, key, "compare_and_set", expected, value)

    async def operate(
        self, name: str, client: ChordService, key: WorkKey, kind: str, *arguments: bytes | None
    ) -> bool:
        """One operation, recorded; did it succeed?"""
        fault = self._under_fault()
        began = self.now
        operation = self.history.call(name, kind, key.name, arguments, began)
        asked: Deferred[Any] = getattr(client, kind)(key.name, *arguments)
        asked.addTimeout(_PATIENCE, self._reactor)
        try:
            result = await asked
        except ChordError as error:
            unknown = error.outcome_unknown
            (operation.unknown if unknown else operation.failed)()
            self.errors[type(error).__name__ + (", outcome unknown" if unknown else "")] += 1
            return False
        except CancelledError:
            operation.unknown()
            raise
        except Exception as error:
            operation.unknown()
            self.problems.append(f"{operation}: {type(error).__name__}: {error}")
            return False
        now = self.now
        operation.returned(result, now)
        if kind == "get":
            key.seen.append(result)
        self.samples.append(Sample(now, now - began, fault or self._under_fault()))
        return True

    # -- what came of it

    def judge(self, tell: Callable[[str], None]) -> list[str]:
        """Check the history, and say so; what is wrong with it."""
        began = time.monotonic()
        verdict = self.history.check()
        took = time.monotonic() - began
        tell(
            f"history of {len(self.history.operations)} operations on {len(self.keys)} keys:"
            f" {verdict.outcome.value} (checked in {took:.1f} s)"
        )
        return [] if verdict else [verdict.text]

    def write_down(self, path: Path) -> None:
        """For whoever looks into it: what the clients saw."""
        with path.open("w") as file:
            for operation in self.history.operations:
                file.write(f"{operation.key!r} {operation}\n")

    async def read_all(self, clients: Sequence[ChordService]) -> int:
        """Read every key through each of these, for the history; how many reads that was.

        One that fails is among the problems: nothing is wrong with the ring any more.
        """
        reads = 0

        async def read(name: str, client: ChordService, keys: list[WorkKey]) -> None:
            nonlocal reads
            while keys:
                key = keys.pop()
                reads += 1
                before = self.errors.copy()
                if not await self.operate(name, client, key, "get"):
                    why = self.errors - before
                    self.problems.append(f"{key.name!r} cannot be read at the end: {dict(why)}")

        under_way = []
        for number, client in enumerate(clients, start=1):
            keys = [key for pool in self._pools for key in pool.all if key.operations]
            for _ in range(_AT_ONCE):
                under_way.append(
                    Deferred.fromCoroutine(read(f"last reader {number}", client, keys))
                )
        await gatherResults(under_way, consumeErrors=True)
        return reads
