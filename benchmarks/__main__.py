"""``python -m benchmarks``: one run, one table."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from py2p_twisted.service import ChordService

from .measure import Bench, Operation, Samples, Stopwatch, in_flight, one_at_a_time
from .processes import CannotRun, Processes, cpu_seconds, free_ports, memory
from .report import Result, as_json, table
from .ring import Ring, first_correct_read
from .yardsticks import AmpClient, EchoClient, connect

#: Keys of 16 bytes, values of 100; the echo carries both.
KEYS = [b"key %012d" % number for number in range(10_000)]
VALUE_BYTES = 100
#: Operations one at a time in one round.
ALONE = 1_000

TAC = """
from twisted.application.service import Application
application = Application('bare')
"""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute, more noise")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 4, 8], help="sizes of rings")
    parser.add_argument("--rounds", type=int, help="rounds for each ring [9, with --quick 2]")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    chosen = parser.parse_args(arguments)
    chosen.rounds = chosen.rounds or (2 if chosen.quick else 9)
    if chosen.rounds < 1 or not all(1 <= size <= 64 for size in chosen.nodes):
        parser.error("at least one round, and rings of 1 to 64 nodes")
    chosen.idle_seconds = 3.0 if chosen.quick else 10.0
    chosen.in_flight = 5_000 if chosen.quick else 10_000
    return chosen


class Run:
    """One run: the yardsticks' servers stay, the rings come and go.

    There are as many echo servers as the largest ring has nodes: the first is the yardstick, and
    all of them together tell what talking to many processes costs by itself.
    """

    def __init__(self, reactor: Any, processes: Processes, chosen: argparse.Namespace) -> None:
        self._reactor = reactor
        self._processes = processes
        self._chosen = chosen

    async def all(self) -> str:
        """Measure everything; returns what to print."""
        tac = self._processes.folder / "bare.tac"
        tac.write_text(TAC)
        bare = self._processes.twistd("bare", ["-y", str(tac)])
        amp_port, *echo_ports = free_ports(1 + max(self._chosen.nodes))
        module = ["-m", "benchmarks.yardsticks"]
        self._amp_pid = self._processes.start("amp", [*module, "amp", str(amp_port)])
        self._echo_pid, *_ = [
            self._processes.start(f"echo-{port}", [*module, "echo", str(port)])
            for port in echo_ports
        ]
        self._amp = await connect(self._reactor, amp_port, AmpClient())
        self._echoes = [await connect(self._reactor, port, EchoClient()) for port in echo_ports]
        self.tell("two nodes")
        first_read = median(
            [
                await first_correct_read(self._reactor, self._processes)
                for _ in range(1 if self._chosen.quick else 5)
            ]
        )
        results = [await self._ring(size, bare) for size in self._chosen.nodes]
        figures = (results, memory(bare), first_read, self._chosen.rounds)
        if self._chosen.json:
            return json.dumps(as_json(*figures), indent=2)
        return table(*figures)

    def tell(self, what: str) -> None:
        """Show what is going on."""
        print(f"... {what}", file=sys.stderr, flush=True)

    async def _ring(self, size: int, bare: int) -> Result:
        """Measure a ring of that size: first what it costs while nothing happens."""
        self.tell(f"ring of {size}: start")
        ring = Ring(self._reactor, self._processes, size)
        ring.start()
        try:
            client = await ring.settled()
            self.tell(f"ring of {size}: idle")
            before = [cpu_seconds([pid]) for pid in ring.pids]
            began = self._reactor.seconds()
            await deferLater(self._reactor, self._chosen.idle_seconds)
            took = self._reactor.seconds() - began
            busy = [cpu_seconds([pid]) - old for pid, old in zip(ring.pids, before, strict=True)]
            above = max(memory(pid) for pid in ring.pids) - memory(bare)
            samples = Samples()
            await self._round(client, ring.pids, Samples(), 0)  # warms everything up
            for number in range(1, self._chosen.rounds + 1):
                self.tell(f"ring of {size}: round {number} of {self._chosen.rounds}")
                await self._round(client, ring.pids, samples, number)
            return Result(size, samples, above, 100 * max(busy) / took)
        finally:
            await ring.stop()

    async def _round(
        self, client: ChordService, pids: Sequence[int], samples: Samples, number: int
    ) -> None:
        """Measure the ring and both yardsticks, in turns."""
        value = b"%0*d" % (VALUE_BYTES, number)
        payload = KEYS[0] + value
        echoes = self._echoes[: len(pids)]
        echo = Bench(self._reactor, samples, [self._echo_pid])
        amp = Bench(self._reactor, samples, [self._amp_pid])
        chord = Bench(self._reactor, samples, pids)

        def amp_set(number: int, answered: Callable[[Any], None]) -> None:
            self._amp.set(_key(number), value, answered)

        await in_flight(amp, "AMP set", amp_set, len(KEYS))
        await self._update(client, chord, value)
        turns: list[tuple[Bench, str, Operation]] = [
            (echo, "echo", lambda _, answered: echoes[0].ask(payload, answered)),
            (chord, "get", lambda i, answered: _done(client.get(_key(i)), answered)),
            (amp, "AMP get", lambda i, answered: self._amp.get(_key(i), answered)),
            (chord, "set", lambda i, answered: _done(client.set(_key(i), value), answered)),
        ]
        for bench, name, operation in turns:
            await in_flight(bench, name, operation, self._chosen.in_flight)
        operations = {name: operation for _, name, operation in turns}
        operations["AMP set"] = amp_set
        operations["echoes"] = lambda i, answered: echoes[crc32(_key(i)) % len(echoes)].ask(
            payload, answered
        )
        await one_at_a_time(chord, operations, ALONE)

    async def _update(self, client: ChordService, bench: Bench, value: bytes) -> None:
        """`update` of all keys; then they must be there."""
        pairs = dict.fromkeys(KEYS, value)
        watch = Stopwatch(bench)
        await client.update(pairs)
        watch.stop("update", len(pairs))
        if await client.get_many(KEYS) != pairs:
            raise CannotRun("the ring lost keys")


def _key(number: int) -> bytes:
    return KEYS[number % len(KEYS)]


def _done(deferred: Deferred[Any], answered: Callable[[Any], None]) -> None:
    deferred.addBoth(answered)


def main() -> None:
    """Run, and leave no process behind."""
    chosen = options()

    async def run(reactor: Any) -> None:
        try:
            print(await Run(reactor, processes, chosen).all())
        except CannotRun as error:
            raise SystemExit(str(error)) from None

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until the reactor has its own
    with Processes() as processes:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
