"""One run: rings come and go, and the yardsticks' servers stay."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any
from zlib import crc32

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from py2p_twisted.service import ChordService

from .faults import Fault, Writer
from .measure import Bench, Operation, Samples, Stopwatch, in_flight, one_at_a_time
from .plan import Plan
from .processes import CannotRun, Processes, cpu_seconds, free_ports, memory
from .profiles import profiled, profiles
from .report import Figures, Result, as_json, ring_name, table
from .ring import Ring, first_correct_read, group_size
from .yardsticks import AmpClient, EchoClient, ask_all, connect

__all__ = ["Run", "profile"]

#: Keys of 16 bytes, values of 100; the echo carries both.
KEYS = [b"key %012d" % number for number in range(10_000)]
VALUE_BYTES = 100
#: Operations one at a time in one round.
ALONE = 1_000
#: Members that decide in the largest group, that of five.
LARGEST_QUORUM = 3
#: Members of the smallest group that survives the loss of one.
SURVIVING = 3

TAC = """
from twisted.application.service import Application
application = Application('bare')
"""


class Run:
    """Measures everything that the plan asks for.

    There are as many echo servers as the largest ring has nodes: the first is the yardstick, and
    all of them together tell what talking to many processes costs by itself.  A relay for each size
    of quorum asks all but one of so many echo servers, as a proposer asks members.
    """

    def __init__(self, reactor: Any, processes: Processes, plan: Plan) -> None:
        self._reactor = reactor
        self._processes = processes
        self._plan = plan

    async def all(self) -> str:
        """Measure everything; returns what to print."""
        plan = self._plan
        tac = self._processes.folder / "bare.tac"
        tac.write_text(TAC)
        bare = self._processes.twistd("bare", ["-y", str(tac)])
        sizes = [nodes for nodes, _ in plan.rings]
        amp_port, *echo_ports = free_ports(1 + max(LARGEST_QUORUM, *sizes))
        module = ["-m", "benchmarks.yardsticks"]
        self._amp_pid = self._processes.start("amp", [*module, "amp", str(amp_port)])
        self._echo_pid, *_ = [
            self._processes.start(f"echo-{port}", [*module, "echo", str(port)])
            for port in echo_ports
        ]
        self._amp = await connect(self._reactor, amp_port, AmpClient())
        self._relays = {  # of all sizes that groups have
            quorum: await self._relay(echo_ports[1:quorum])
            for quorum in range(1, LARGEST_QUORUM + 1)
        }
        self._echoes = [await connect(self._reactor, port, EchoClient()) for port in echo_ports]
        _tell("two nodes")
        first_read = median(
            [await first_correct_read(self._reactor, self._processes) for _ in range(plan.starts)]
        )
        results = [await self._ring(*ring, bare) for ring in plan.rings]
        figures = Figures(results, memory(bare), first_read, plan.rounds)
        return json.dumps(as_json(figures), indent=2) if plan.json else table(figures)

    async def _relay(self, echo_ports: Sequence[int]) -> EchoClient:
        """Start a relay to these echo servers; returns its client."""
        (port,) = free_ports(1)
        ports = map(str, [port, *echo_ports])
        name = f"relay-{port}"
        self._processes.start(name, ["-m", "benchmarks.yardsticks", "relay", *ports])
        client: EchoClient = await connect(self._reactor, port, EchoClient())
        return client

    async def _ring(self, nodes: int, replicas: int, bare: int) -> Result:
        """Measure a ring: first what it costs while nothing happens, at last its faults."""
        name = ring_name(nodes, replicas)
        plan, rounds = self._plan, self._plan.rounds
        _tell(f"{name}: start")
        ring = Ring(self._reactor, self._processes, nodes, replicas, member=plan.member)
        ring.start()
        try:
            client = await ring.connect(ring.ports[0])
            await ring.settled(client)
            _tell(f"{name}: idle")
            idle = await self._idle(ring.pids)
            above = max(memory(pid) for pid in ring.pids) - memory(bare)
            samples = Samples()
            members = group_size(replicas, ring.size)
            quorum = members // 2 + 1
            await self._round(client, ring.pids, quorum, Samples(), 0)  # warms everything up
            for number in range(1, rounds + 1):
                _tell(f"{name}: round {number} of {rounds}")
                await self._round(client, ring.pids, quorum, samples, number)
            shortest = client.settings.request_timeout_min
            result = Result(nodes, replicas, members, samples, above, idle, shortest)
            if members >= SURVIVING:
                _tell(f"{name}: faults")
                result.faults = await self._faults(ring, client)
            return result
        finally:
            await ring.stop()

    async def _idle(self, pids: Sequence[int]) -> float:
        """The busiest node's share of a core while nothing happens, in percent."""
        before = [cpu_seconds([pid]) for pid in pids]
        began = self._reactor.seconds()
        await deferLater(self._reactor, self._plan.idle_seconds)
        took = self._reactor.seconds() - began
        busy = [cpu_seconds([pid]) - old for pid, old in zip(pids, before, strict=True)]
        return float(100 * max(busy) / took)

    async def _round(
        self, client: ChordService, pids: Sequence[int], quorum: int, samples: Samples, number: int
    ) -> None:
        """Measure the ring and all yardsticks, in turns."""
        value = _value(number)
        payload = KEYS[0] + value
        echoes = self._echoes[: max(len(pids), quorum)]
        echo = Bench(self._reactor, samples, [self._echo_pid])
        amp = Bench(self._reactor, samples, [self._amp_pid])
        chord = Bench(self._reactor, samples, pids)

        def amp_set(number: int, answered: Callable[[Any], None]) -> None:
            self._amp.set(_key(number), value, answered)

        def amp_get(number: int, answered: Callable[[Any], None]) -> None:
            self._amp.get(_key(number), answered)

        await in_flight(amp, "AMP set", amp_set, len(KEYS))
        await self._many(client, chord, value)
        mine = _operations(client, value)
        turns: list[tuple[Bench, str, Operation]] = [
            (echo, "echo", lambda _, answered: echoes[0].ask(payload, answered)),
            (chord, "get", mine["get"]),
            (amp, "AMP get", amp_get),
            (chord, "set", mine["set"]),
        ]
        for bench, name, operation in turns:
            await in_flight(bench, name, operation, self._plan.in_flight)
        operations = {name: operation for _, name, operation in turns}
        operations["AMP set"] = amp_set

        def some(number: int, count: int) -> Sequence[EchoClient]:
            """As a ring's keys do it: neighbours, each time others."""
            first = crc32(_key(number))
            return [echoes[(first + at) % len(echoes)] for at in range(count)]

        operations["echoes"] = lambda i, answered: ask_all(some(i, 1), payload, answered)
        operations["quorum"] = lambda i, answered: ask_all(some(i, quorum), payload, answered)
        operations["relay"] = lambda _, answered: self._relays[quorum].ask(payload, answered)
        await one_at_a_time(chord, operations, ALONE)

    async def _many(self, client: ChordService, bench: Bench, value: bytes) -> None:
        """`update` of all keys, then `get_many`: they must be there."""
        pairs = dict.fromkeys(KEYS, value)
        watch = Stopwatch(bench)
        await client.update(pairs)
        watch.stop("update", len(pairs))
        watch = Stopwatch(bench)
        found = await client.get_many(KEYS)
        watch.stop("get_many", len(KEYS))
        if found != pairs:
            raise CannotRun("the ring lost keys")

    async def _faults(self, ring: Ring, client: ChordService) -> dict[str, Fault]:
        """Freeze a node and let it go on, then kill one.

        It is the one that proposes the writes of the most groups.
        """
        values = dict.fromkeys(KEYS, _value(self._plan.rounds))
        writer = Writer(self._reactor, client, values)
        name = ring.name(ring.busiest(client))
        try:
            frozen = await writer.meet(partial(self._processes.freeze, name))
        finally:
            self._processes.thaw(name)
        await ring.settled(client)
        name = ring.name(ring.busiest(client))
        killed = await writer.meet(partial(self._processes.kill, name))
        await writer.check()
        return {"killed": killed, "frozen": frozen}


async def profile(reactor: Any, processes: Processes, plan: Plan) -> str:
    """Show where client and node spend their time, in the last ring of the plan."""
    nodes, replicas = plan.rings[-1]
    _tell(f"{ring_name(nodes, replicas)}: profiles")
    ring = Ring(reactor, processes, nodes, replicas, profiled(processes))
    ring.start()
    try:
        client = await ring.connect(ring.ports[0])
        await ring.settled(client)
        value = _value(0)
        await client.update(dict.fromkeys(KEYS, value))
        port = ring.busiest(client)
        node = (ring.name(port), ring.pids[ring.ports.index(port)])
        operations = _operations(client, value)
        return await profiles(reactor, processes, node, operations, len(KEYS), plan.profile)
    finally:
        await ring.stop()


def _operations(client: ChordService, value: bytes) -> dict[str, Operation]:
    """The ring's operations on one key."""
    return {
        "get": lambda i, answered: _done(client.get(_key(i)), answered),
        "set": lambda i, answered: _done(client.set(_key(i), value), answered),
    }


def _key(number: int) -> bytes:
    return KEYS[number % len(KEYS)]


def _value(number: int) -> bytes:
    return b"%0*d" % (VALUE_BYTES, number)


def _done(deferred: Deferred[Any], answered: Callable[[Any], None]) -> None:
    deferred.addBoth(answered)


def _tell(what: str) -> None:
    """Show what is going on."""
    print(f"... {what}", file=sys.stderr, flush=True)
