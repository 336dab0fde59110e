"""``python -m benchmarks.overload``: what a ring does with three times the load that it can carry.

First clients that wait for their answers find out what the ring can do.  Then the same number of
clients offers a multiple of it, whatever becomes of it, for a minute.  The nodes have the first
half of the processors for themselves and the clients the other, as if they were on other machines:
else the clients, whose load is open, take the time that the nodes need.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from .offering import Times
from .processes import CannotRun, Processes, cpu_seconds, memory
from .ring import Ring

#: Seconds that the processes of the clients have to start and connect.
START = 4.0
#: Seconds for the answers to the last writes, and for reading back.
REST = 45.0


@dataclass
class Measured:
    """What all clients of one phase saw together.

    :ivar nodes, clients: resident memory of the largest process, in MiB.
    """

    seconds: float
    offered: int = 0
    done: Times = field(default_factory=Times)
    refused: Times = field(default_factory=Times)
    errors: Counter[str] = field(default_factory=Counter)
    per_second: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    checked: int = 0
    nodes: float = 0.0
    clients: float = 0.0
    cores: float = 0.0

    def add(self, told: dict[str, Any]) -> None:
        """What one client saw."""
        self.offered += told["offered"]
        self.checked += told["checked"]
        self.wrong += told["wrong"]
        self.errors.update(told["errors"])
        self.done.bins.update({int(at): count for at, count in told["done"].items()})
        self.refused.bins.update({int(at): count for at, count in told["refused"].items()})
        self.per_second.update({int(at): count for at, count in told["per second"].items()})

    @property
    def rate(self) -> float:
        """Acknowledged a second, while it was offered."""
        return sum(self.per_second[at] for at in range(int(self.seconds))) / self.seconds

    @property
    def slowest_second(self) -> int:
        """The fewest that were acknowledged in one second, the first two aside."""
        return min(self.per_second[at] for at in range(2, int(self.seconds)))


class Overload:
    """One ring, its clients, and what they see."""

    def __init__(self, reactor: Any, processes: Processes, chosen: argparse.Namespace) -> None:
        self._reactor = reactor
        self._processes = processes
        self._chosen = chosen
        self._phase = 0
        processors = sorted(os.sched_getaffinity(0))
        half = max(1, len(processors) // 2)
        self._of_nodes, self._of_clients = processors[:half], processors[half:] or processors

    async def run(self) -> list[str]:
        """Measure, print, and return what is wrong."""
        chosen = self._chosen
        ring = Ring(self._reactor, self._processes, chosen.nodes, chosen.replicas)
        ring.start()
        _pin(ring.pids, self._of_nodes)
        try:
            await ring.settled(await ring.connect(ring.ports[0]))
            await self._offer(ring, 3.0, ["--depth", str(chosen.depth)])  # warms everything up
            calm = await self._offer(ring, chosen.calm, ["--depth", str(chosen.depth)])
            print(_line("sustained", calm), flush=True)
            rate = chosen.times * calm.rate / chosen.clients
            over = await self._offer(ring, chosen.seconds, ["--rate", f"{rate:.0f}"])
            print(_line(f"{chosen.times:g} times that", over), flush=True)
            print("\n".join(_details(over)))
            after = await self._offer(ring, 3.0, ["--depth", str(chosen.depth)])
            print(_line("afterwards", after), flush=True)
            return self._judge(calm, over)
        finally:
            await ring.stop()

    async def _offer(self, ring: Ring, seconds: float, how: Sequence[str]) -> Measured:
        """Run all clients for so long."""
        self._phase += 1
        measured = Measured(seconds)
        begin = time.time() + START
        names = [f"client-{self._phase}-{number}" for number in range(self._chosen.clients)]
        pids = []
        for number, name in enumerate(names):
            port = ring.ports[number % len(ring.ports)]
            told = [name, str(port), "--seconds", f"{seconds:g}", "--begin", f"{begin:.3f}"]
            pids.append(self._processes.start(name, ["-m", "benchmarks.offering", *told, *how]))
        _pin(pids, self._of_clients)
        await self._pause(begin - time.time())
        used = cpu_seconds(ring.pids)
        for _ in range(int(seconds)):
            await self._pause(1.0)
            measured.nodes = max(measured.nodes, *map(memory, ring.pids))
            measured.clients = max(measured.clients, *map(memory, pids))
        measured.cores = (cpu_seconds(ring.pids) - used) / int(seconds)
        end = time.time() + REST
        for name in names:
            while self._processes.running(name):
                if time.time() > end:
                    raise CannotRun(f"{name} does not end\n{self._processes.output(name)}")
                await self._pause(0.1)
            try:
                measured.add(json.loads(self._processes.output(name).splitlines()[-1]))
            except (ValueError, IndexError):
                text = self._processes.output(name)
                raise CannotRun(f"{name} told nothing\n{text}") from None
        return measured

    def _judge(self, calm: Measured, over: Measured) -> list[str]:
        wrong = [*over.wrong]
        if over.rate < self._chosen.least * calm.rate:
            wrong.append(f"{over.rate:.0f} a second were done, of {calm.rate:.0f}")
        if over.done.at(0.99) > self._chosen.p99:
            wrong.append(f"1 of 100 that were done took {over.done.at(0.99):.2f} s or longer")
        if over.refused.at(0.99) > self._chosen.p99:
            wrong.append(f"1 of 100 that were refused took {over.refused.at(0.99):.2f} s or longer")
        if not over.refused.count:
            wrong.append("nothing was refused: that was no overload")
        return wrong

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, max(seconds, 0.0))


def _pin(pids: Iterable[int], processors: Iterable[int]) -> None:
    """Let processes run on these processors only."""
    for pid in pids:
        os.sched_setaffinity(pid, processors)


def _line(what: str, measured: Measured) -> str:
    done, refused = measured.done, measured.refused
    offered = measured.offered / measured.seconds
    text = f"{what}: offered {offered:.0f}/s, done {measured.rate:.0f}/s"
    for name, times in (("done", done), ("refused", refused)):
        if times.count:
            text += (
                f"; {name} p50 {1000 * times.at(0.5):.1f}, p99 {1000 * times.at(0.99):.0f},"
                f" slowest {1000 * times.at(1):.0f} ms"
            )
    return text


def _details(measured: Measured) -> list[str]:
    refused = measured.refused.count / measured.seconds
    return [
        f"  refused {refused:.0f}/s: {dict(measured.errors)}",
        f"  fewest done in one second: {measured.slowest_second}; nodes used {measured.cores:.2f}"
        f" cores, the largest {measured.nodes:.0f} MiB, the largest client"
        f" {measured.clients:.0f} MiB",
        f"  {measured.checked} keys of their own read back: {len(measured.wrong)} wrong",
        "  done in each second: "
        + " ".join(str(measured.per_second[at]) for at in range(int(measured.seconds))),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    add = parser.add_argument
    add("--nodes", type=int, default=1, help="of the ring [1]")
    add("--replicas", type=int, choices=(1, 3, 5), default=5, help="copies of a key [5]")
    add("--clients", type=int, default=4, help="processes that offer [4]")
    add("--depth", type=int, default=64, help="writes under way at each, to find the rate [64]")
    add("--calm", type=float, default=5.0, help="seconds to find the rate [5]")
    add("--times", type=float, default=3.0, help="how many times that to offer [3]")
    add("--seconds", type=float, default=60.0, help="for how long [60]")
    add("--least", type=float, default=0.5, help="share of the rate that must still be done [0.5]")
    add("--p99", type=float, default=1.0, help="seconds that 99 of 100 may take [1]")
    chosen = parser.parse_args(arguments)
    wrong: list[str] = []

    async def run(reactor: Any) -> None:
        try:
            wrong.extend(await Overload(reactor, processes, chosen).run())
        except CannotRun as error:
            raise SystemExit(str(error)) from None

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until the reactor has its own
    with Processes() as processes:
        try:
            react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
        except SystemExit as end:
            if end.code:
                raise
    for problem in wrong:
        print(f"WRONG: {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
