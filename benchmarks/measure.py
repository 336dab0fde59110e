"""Time and processor time of operations, one at a time and many at once.

An operation is a function that starts the i-th request and calls back with its result: the same
few lines drive the ring and both yardsticks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .processes import cpu_seconds

__all__ = ["Bench", "Operation", "Samples", "Stopwatch", "in_flight", "one_at_a_time"]

Operation = Callable[[int, Callable[[Any], None]], None]


class Samples:
    """Numbers by name, one of each in every round."""

    def __init__(self) -> None:
        self._numbers: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, name: str, **numbers: float) -> None:
        """One round's numbers of one kind of operation."""
        for what, number in numbers.items():
            self._numbers[f"{name} {what}"].append(number)

    def extend(self, other: Samples) -> None:
        """Take all numbers of another."""
        for name, numbers in other._numbers.items():
            self._numbers[name] += numbers

    def median(self, name: str) -> float:
        """The median over the rounds."""
        return median(self._numbers[name])

    def ratio(self, name: str, yardstick: str) -> float:
        """The median of the ratios that each round had within itself."""
        pairs = zip(self._numbers[name], self._numbers[yardstick], strict=True)
        return median(mine / theirs for mine, theirs in pairs)

    def as_dict(self) -> dict[str, float]:
        """All medians."""
        return {name: round(median(numbers), 9) for name, numbers in self._numbers.items()}


@dataclass
class Bench:
    """Where operations are measured.

    :ivar pids: the processes that answer.
    """

    reactor: Any
    samples: Samples
    pids: Sequence[int]


async def one_at_a_time(
    bench: Bench, operations: Mapping[str, Operation], count: int, slices: int = 10
) -> None:
    """Each operation begins when the one before has its answer.

    The kinds take turns, a slice of each, so that what else the machine does meets all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in operations}
    for _ in range(slices):
        for name, operation in operations.items():
            await _slice(bench, operation, seconds[name], count // slices)
    for name, took in seconds.items():
        bench.samples.add(name, p50=median(took), p99=quantiles(took, n=100)[98])


async def _slice(bench: Bench, operation: Operation, seconds: list[float], count: int) -> None:
    done: Deferred[None] = Deferred()
    end = len(seconds) + count
    began = 0.0

    def begin() -> None:
        nonlocal began
        began = perf_counter()
        operation(len(seconds), answered)

    def answered(result: Any) -> None:
        seconds.append(perf_counter() - began)
        if isinstance(result, Failure):
            done.errback(result)
        elif len(seconds) == end:
            bench.reactor.callLater(0, done.callback, None)
        else:
            begin()

    begin()
    await done


async def in_flight(
    bench: Bench, name: str, operation: Operation, count: int, depth: int = 64
) -> None:
    """So many operations wait for their answers at any time."""
    done: Deferred[None] = Deferred()
    started = finished = 0

    def begin() -> None:
        nonlocal started
        number, started = started, started + 1
        operation(number, answered)

    def answered(result: Any) -> None:
        nonlocal finished
        finished += 1
        if isinstance(result, Failure):
            if not done.called:
                done.errback(result)
        elif finished == count:
            bench.reactor.callLater(0, done.callback, None)
        elif started < count:
            begin()

    with_cpu = Stopwatch(bench)
    for _ in range(depth):
        begin()
    await done
    with_cpu.stop(name, count)


class Stopwatch:
    """Time, and processor time of both ends, of many operations."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._nodes = cpu_seconds(bench.pids)
        self._client = process_time()
        self._began = perf_counter()

    def stop(self, name: str, count: int) -> None:
        """So many operations were done."""
        took = perf_counter() - self._began
        self._bench.samples.add(
            name,
            rate=count / took,
            client=(process_time() - self._client) / count,
            nodes=(cpu_seconds(self._bench.pids) - self._nodes) / count,
        )
