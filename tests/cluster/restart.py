"""Nodes that keep their data are killed under load, one by one and all at once, and come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.task import deferLater

from py2p_twisted.storage.check import SOUND, check

from ..processes import eventually
from .nodes import Address, ClusterNode, Guard
from .report import chaos_lines
from .ring import Ring
from .workload import Workload

__all__ = ["RestartRun"]

#: Nodes that are killed one after the other.
_SINGLES = 3
#: Seconds of work between what is done to the ring.
_WORK = 2.0
#: Seconds for which a killed node is away, and between the starts of two when all were.
_AWAY = (0.2, 1.5)
_STAGGER = (0.0, 0.4)
#: Seconds after its start when a process is killed again: about when it is back in the ring.
_TOO_SOON = (0.8, 3.0)
#: Seconds within which operations succeed again after all nodes were started.
_RESUMED_WITHIN = 30.0
#: Operations that must have succeeded since then.
_ENOUGH = 50
#: Seconds within which a ring that is left alone is whole and quiet.
_QUIET_WITHIN = 60.0
#: Nodes through which everything is read at the end.
_LAST_READERS = 2
#: Operations a second that must have succeeded: fewer, and the run has shown nothing.
_LEAST_RATE = 10.0


class RestartRun:
    """One run.

    :param replicas: of the ring; None leaves it to the daemon.
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
        tell: Callable[[str], None],
    ) -> None:
        self.problems: list[str] = []
        self._reactor = reactor
        self._folder = folder
        self._rng = rng
        self._client_count = clients
        self._rate = rate
        self._tell = tell
        self._ring = Ring(reactor, folder, guard, nodes, replicas, durable=True)
        self._workload: Workload | None = None
        self._done: Counter[str] = Counter()

    async def run(self) -> None:
        """All of it.

        :raises AssertionError: if something does not come to pass at all.
        """
        ring = self._ring
        try:
            await ring.start()
            before = await self._instances()
            self._tell("the ring is whole; the workers begin")
            workload = await self._begin()
            await self._single_kills()
            await self._kill_all()
            await self._stop_all()
            await workload.stop()
            self._report(workload)
            await self._settle(workload)
            if await self._instances() != before:
                self.problems.append("a node came back as another instance than it was")
            self.problems += ring.accidents()
        finally:
            if self._workload is not None:
                self._workload.cancel()
            await ring.stop()
            self._write_down()
        self._examine()
        assert self._workload is not None
        self.problems += self._workload.judge(self._tell)

    async def _instances(self) -> set[tuple[bytes, Address]]:
        return {member for group in await self._ring.groups() for member in group}

    async def _begin(self) -> Workload:
        ring = self._ring
        clients = [
            await ring.client(f"client {number + 1}", ring.nodes[number % len(ring.nodes)])
            for number in range(self._client_count)
        ]
        workload = self._workload = Workload(
            self._reactor,
            Random(self._rng.getrandbits(64)),
            clients,
            rate=self._rate,
            under_fault=lambda: bool(self._done),
        )
        await self._sleep(_WORK)
        return workload

    # -- what is done to the ring

    async def _single_kills(self) -> None:
        for node in self._rng.sample(self._ring.nodes, _SINGLES):
            self._done["kill"] += 1
            node.kill()
            node.end()
            await self._sleep(self._rng.uniform(*_AWAY))
            await self._come_back([node])
            await self._sleep(_WORK)

    async def _kill_all(self) -> None:
        """Twice: the second time while they come back."""
        self._killed()
        for node in self._shuffled():
            node.start([])
        await self._sleep(self._rng.uniform(*_TOO_SOON))
        self._killed()
        await self._come_back(self._shuffled())
        await self._resumed("killed")

    def _killed(self) -> None:
        self._done["kill of all"] += 1
        for node in self._ring.nodes:
            node.kill()
        for node in self._ring.nodes:
            node.end()

    async def _stop_all(self) -> None:
        self._done["stop of all"] += 1
        for node in self._ring.nodes:
            node.terminate()
        for node in self._ring.nodes:
            await node.ended()
            if not node.life.says("Stopping: this node keeps its place"):
                self.problems.append(f"{node.life.name} does not say that it keeps its place")
            if node.life.says("without handing over") or node.life.says("Left ring"):
                self.problems.append(f"{node.life.name} was stopped, and left")
        await self._come_back(self._shuffled())
        await self._resumed("stopped")

    def _shuffled(self) -> list[ClusterNode]:
        nodes = list(self._ring.nodes)
        while nodes == self._ring.nodes:
            self._rng.shuffle(nodes)
        return nodes

    async def _come_back(self, nodes: Sequence[ClusterNode]) -> None:
        """Start them in this order, told nothing of the others; they are who they were."""
        for node in nodes:
            node.start([])
            await self._sleep(self._rng.uniform(*_STAGGER))
        for node in nodes:
            await node.joined()
            if not node.life.says("Back in ring"):
                self.problems.append(f"{node.life.name} did not come back to its ring")

    async def _resumed(self, what: str) -> None:
        """Wait until operations succeed that began after all nodes were back; then go on a bit."""
        workload = self._workload
        assert workload is not None
        since = workload.now

        def look() -> bool:
            self._ring.check()
            good = [
                sample for sample in workload.samples[-_ENOUGH:] if sample.at - sample.took > since
            ]
            return len(good) == _ENOUGH

        took = await eventually(
            look, f"{_ENOUGH} operations after all were {what}", _RESUMED_WITHIN
        )
        self._tell(f"all nodes were {what}; {took:.1f} s after the last was back, all goes on")
        await self._sleep(_WORK)

    # -- what became of it

    def _report(self, workload: Workload) -> None:
        fate = Counter(operation.fate for operation in workload.history.operations)
        seconds = workload.now
        for line in chaos_lines(workload.samples, fate, workload.errors, self._done, seconds):
            self._tell(line)
        if len(workload.samples) < _LEAST_RATE * seconds:
            self.problems.append(f"fewer than {_LEAST_RATE:g} operations a second succeeded")

    async def _settle(self, workload: Workload) -> None:
        """Nothing happens any more: wait until it is quiet, and read every key through several."""
        ring = self._ring
        took = await ring.quiet(_QUIET_WITHIN)
        self._tell(f"whole and quiet {took:.1f} s later")
        readers = [
            await ring.client(f"last reader {number}", node)
            for number, node in enumerate(self._rng.sample(ring.nodes, _LAST_READERS), start=1)
        ]
        reads = await workload.read_all(readers)
        self._tell(f"{len(workload.keys)} keys read through {_LAST_READERS} nodes: {reads} reads")
        self.problems += workload.problems

    def _examine(self) -> None:
        """The files of the nodes, which were killed once more, are sound."""
        for node in self._ring.nodes:
            said: list[str] = []
            if check(str(node.data), said.append) != SOUND:
                self.problems.append(f"the data of {node.name}: {'; '.join(said)}")

    def _write_down(self) -> None:
        """For whoever looks into it: what the clients saw."""
        if self._workload is not None:
            self._workload.write_down(self._folder / "history.txt")

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds, lambda: None)
