"""Load on a ring of processes while a nemesis rages, and the judgement on what clients saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.task import deferLater

from .nemesis import Nemesis
from .nodes import Guard
from .plan import Limits
from .proxy import Proxies
from .report import chaos_lines
from .ring import Ring
from .workload import Workload

__all__ = ["ChaosRun"]

#: Seconds of work before the first fault, to compare with.
_QUIET_FIRST = 5.0
#: Seconds of the longest pause of a process.
_LONGEST_PAUSE = 20.0
#: Seconds within which a ring that is left alone is whole and quiet.
_QUIET_WITHIN = 120.0
#: Nodes through which everything is read at the end.
_LAST_READERS = 3
#: Operations a second that must have succeeded: fewer, and the run has shown nothing.
_LEAST_RATE = 10.0


class ChaosRun:
    """One run.

    :param replicas: of the ring; None leaves it to the daemon, and then nothing is killed.
    :param kinds: of faults, from :data:`.plan.KINDS`.
    :param tell: shows a line to the user.
    :ivar problems: why the run failed, if it did.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        guard: Guard,
        rng: Random,
        *,
        nodes: int,
        replicas: int | None,
        clients: int,
        rate: float,
        seconds: float,
        kinds: Sequence[str],
        tell: Callable[[str], None],
    ) -> None:
        self.problems: list[str] = []
        self._reactor = reactor
        self._folder = folder
        self._rng = rng
        self._limits = Limits.of(replicas or 1)
        self._client_count = clients
        self._rate = rate
        self._seconds = seconds
        self._kinds = kinds
        self._tell = tell
        self._proxies = Proxies(reactor)
        self._ring = Ring(reactor, folder, guard, nodes, replicas, self._proxies)
        self._workload: Workload | None = None
        self._nemesis: Nemesis | None = None

    async def run(self) -> None:
        """All of it.

        :raises AssertionError: if something does not come to pass at all.
        """
        ring = self._ring
        try:
            await ring.start()
            self._tell("the ring is whole; the workers begin")
            await self._rage()
            await self._settle()
            self.problems += ring.accidents()
        finally:
            if self._workload is not None:
                self._workload.cancel()
            await ring.stop()
            await self._proxies.stop()
            self._write_down()
        assert self._workload is not None
        self.problems += self._workload.judge(self._tell)

    async def _rage(self) -> None:
        ring, rng = self._ring, self._rng
        names = [f"client {number}" for number in range(1, self._client_count + 1)]
        clients = [
            await ring.client(name, ring.nodes[number % len(ring.nodes)])
            for number, name in enumerate(names)
        ]
        nemesis = self._nemesis = Nemesis(
            self._reactor,
            Random(rng.getrandbits(64)),
            ring,
            self._proxies,
            names,
            limits=self._limits,
            kinds=self._kinds,
            longest=min(_LONGEST_PAUSE, self._seconds / 3),
        )
        workload = self._workload = Workload(
            self._reactor,
            Random(rng.getrandbits(64)),
            clients,
            rate=self._rate,
            under_fault=lambda: nemesis.begun,
        )
        await deferLater(self._reactor, _QUIET_FIRST, lambda: None)
        await nemesis.rage(self._seconds)
        await workload.stop()
        self.problems += nemesis.problems
        fate = Counter(operation.fate for operation in workload.history.operations)
        seconds = workload.now
        for line in chaos_lines(workload.samples, fate, workload.errors, nemesis.done, seconds):
            self._tell(line)
        if len(workload.samples) < _LEAST_RATE * seconds:
            self.problems.append(f"fewer than {_LEAST_RATE:g} operations a second succeeded")
        for kind in self._kinds:
            if not any(what.startswith(kind) for what in nemesis.done):
                self._tell(f"no {kind} found its turn")

    async def _settle(self) -> None:
        """Everything is healed: wait until it is quiet, and read every key through several."""
        ring, workload = self._ring, self._workload
        assert workload is not None
        took = await ring.quiet(_QUIET_WITHIN)
        self._tell(f"whole and quiet {took:.1f} s after the last fault")
        readers = [
            await ring.client(f"last reader {number}", node)
            for number, node in enumerate(self._rng.sample(ring.nodes, _LAST_READERS), start=1)
        ]
        reads = await workload.read_all(readers)
        self._tell(f"{len(workload.keys)} keys read through {_LAST_READERS} nodes: {reads} reads")
        self.problems += workload.problems

    def _write_down(self) -> None:
        """For whoever looks into it: what was done to the ring, and what the clients saw."""
        if self._nemesis is not None:
            (self._folder / "nemesis.txt").write_text("\n".join(self._nemesis.story) + "\n")
        if self._workload is not None:
            self._workload.write_down(self._folder / "history.txt")
