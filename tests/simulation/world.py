"""Whole nodes of the product on a simulated network and one clock (test support).

Owns the nodes of one run and the look at them from outside: their pointers, whether the ring is
ideal, whether every partition is served.  Which faults happen when is a scenario's business.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from py2p_twisted.node.core import Phase
from py2p_twisted.ring.ring import Pointers, RingRules
from py2p_twisted.ring.steps import Steps
from py2p_twisted.service import ChordService
from py2p_twisted.settings import Settings
from py2p_twisted.table.group import Epoch

from .clock import SimClock
from .disk import SimDisk
from .invariants import MemberView, RingSnapshot, ideal
from .network import SimHost, SimNetwork
from .weather import PERFECT, SimOptions

__all__ = ["PORT", "SimNode", "Stuck", "World"]

PORT = 4444


class Stuck(AssertionError):
    """Something did not happen in its time."""


class SimNode:
    """One node of the product on its own simulated host.

    :param join: what its service is to join through; None: nothing by itself.
    :param disk: what it keeps its memory on; None: nothing of it outlives the process.
    :param settings: its own, where they differ from those of the world.
    """

    def __init__(
        self,
        world: World,
        number: int,
        host: SimHost,
        join: Sequence[tuple[str, int]] | None = None,
        disk: SimDisk | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.number = number
        self.host = host
        self.disk = disk
        self.paused = False
        self.service = ChordService(
            host.clock,
            host.address,
            PORT,
            join=join,
            storage=disk,
            settings=settings or world.settings,
            rng=Random(world.rng.getrandbits(64)),
            endpoints=host,
        )
        core = self.service.node.core
        core.make_steps = world.make_steps
        if world.rules is not None:
            core.rules = world.rules
        self.service.startService()
        world.spoil(self)

    @property
    def pointers(self) -> Pointers | None:
        """Its pointers, None while it is no member."""
        return self.service.node.core.pointers

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        return self.service.node.core.phase

    def __repr__(self) -> str:
        return f"<node {self.number} {self.phase.value} {self.service.node.core.me.id}>"


class World:
    """All nodes of one run.

    :param seed: of everything that happens.
    :param rules: of the ring, for mutants.
    :param make_steps: makes what keeps steps apart, for mutants.
    """

    def __init__(
        self,
        seed: int,
        settings: Settings,
        options: SimOptions = PERFECT,
        rules: RingRules | None = None,
        make_steps: Callable[[], Steps] = Steps,
    ) -> None:
        self.rng = Random(seed)
        self.settings = settings
        self.rules = rules
        self.make_steps = make_steps
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, Random(self.rng.getrandbits(64)), options)
        self.nodes: list[SimNode] = []
        self._number = 0
        self.story: list[str] = []
        #: called after every event in which some pointers changed
        self.on_change: Callable[[RingSnapshot], None] | None = None
        self._seen: dict[int, Pointers | None] = {}
        #: takes a rule out of a node that has just started
        self.spoil: Callable[[SimNode], None] = lambda node: None

    def tell(self, what: str) -> None:
        """Note what happens, for the reader of a failing seed."""
        self.story.append(f"{self.clock.seconds():9.3f} {what}")

    # -- nodes

    def add(
        self,
        address: str | None = None,
        join: Sequence[tuple[str, int]] | None = None,
        disk: SimDisk | None = None,
        settings: Settings | None = None,
    ) -> SimNode:
        """A new node on a new host (or again at an old address); without `join` it only listens."""
        self._number += 1
        number = self._number
        host = self.network.host(address or f"10.0.{number // 250}.{number % 250 + 1}")
        node = SimNode(self, number, host, join, disk, settings)
        self.nodes.append(node)
        return node

    def crash(self, node: SimNode) -> None:
        """Kill it: its memory is gone, and of its disk what was not written yet."""
        self.tell(f"crash {node}")
        node.host.crash()
        if node.disk is not None:
            node.disk.crash()
        self.nodes.remove(node)

    def members(self) -> list[SimNode]:
        """The nodes that are in the ring."""
        return [node for node in self.nodes if node.pointers is not None]

    def snapshot(self) -> RingSnapshot:
        """Everybody's pointers."""
        views = {}
        for node in self.nodes:
            pointers = node.pointers
            if pointers is not None:
                before = pointers.predecessor
                views[pointers.me.id] = MemberView(
                    pointers.me.id,
                    tuple(peer.id for peer in pointers.successors),
                    before.id if before is not None else None,
                )
        return RingSnapshot(views)

    # -- time

    def step(self) -> None:
        """One event; looks at the ring if it changed."""
        if not self.clock.step():
            raise Stuck("nothing is left to happen")
        if self.on_change is not None:
            changed = False
            for node in self.nodes:
                pointers = node.pointers
                if self._seen.get(node.number) is not pointers:
                    self._seen[node.number] = pointers
                    changed = True
            if changed:
                self.on_change(self.snapshot())

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_while(lambda: True, seconds)

    def run_while(self, predicate: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until the predicate is false; False if it stayed true all the time."""
        deadline = self.clock.seconds() + seconds
        over = self.clock.callLater(seconds, lambda: None)
        while predicate():
            if self.clock.seconds() >= deadline:
                return False
            self.step()
        if over.active():
            over.cancel()
        return True

    def wait(
        self, deferred: Deferred[Any] | Coroutine[Any, Any, Any], seconds: float = 60.0
    ) -> Any:
        """What a Deferred fires with; what it fails with is raised."""
        if not isinstance(deferred, Deferred):
            deferred = Deferred.fromCoroutine(deferred)
        results: list[Any] = []
        deferred.addBoth(results.append)
        if not self.run_while(lambda: not results, seconds):
            raise Stuck(f"no result after {seconds} simulated seconds")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    # -- judgements

    def not_ideal(self) -> list[str]:
        """What is missing for an ideal ring, including members that should be none."""
        ids = [node.pointers.me.id for node in self.members() if node.pointers is not None]
        if len(set(ids)) != len(ids):
            return [f"two members have one identifier: {sorted(ids)}"]
        return ideal(self.snapshot(), self.settings.successors)

    def serving(self, partition: int) -> dict[Epoch, list[SimNode]]:
        """Who serves a partition, by epoch; the newest epoch last."""
        found: dict[Epoch, list[SimNode]] = {}
        for node in self.nodes:
            acceptor = node.service.node.core.acceptors.get(partition)
            if acceptor is not None and not acceptor.wedged:
                found.setdefault(acceptor.config.epoch, []).append(node)
        return dict(sorted(found.items()))

    def not_served(self) -> list[str]:
        """Partitions whose group is not the one that the ring wants, open at all its members."""
        problems = []
        members = self.members()
        if not members:
            return []
        core = members[0].service.node.core
        size = min(core.replicas, len(members))
        size -= size % 2 == 0 and size != 2
        living = {node.service.node.core.instance for node in members}
        for partition in range(core.partitions):
            start = core.start(partition)
            around = sorted(
                members,
                key=lambda node: (node.service.node.core.me.id - start) % (1 << core.settings.k),
            )
            wanted = [node.service.node.core.me for node in around[:size]]
            serving = self.serving(partition)
            if len(serving) != 1:
                problems.append(f"partition {partition} is served in epochs {serving}")
                continue
            ((epoch, nodes),) = serving.items()
            groups = {
                tuple(
                    peer
                    for peer in node.service.node.core.acceptors[partition].config.members
                    if size != 2 or peer.instance in living  # two of three are no less than two
                )
                for node in nodes
            }
            here = {node.service.node.core.me for node in nodes}
            if here != set(wanted) or groups != {tuple(wanted)}:
                ids = [peer.id for peer in wanted]
                problems.append(f"partition {partition} is kept by {nodes} in {epoch}, not {ids}")
        return problems

    def settle(self, seconds: float) -> float:
        """Wait until the ring is ideal and every partition where it belongs; how long it took.

        :raises Stuck: if that does not happen.
        """
        return self.eventually(lambda: self.not_ideal() or self.not_served(), seconds)

    def eventually(self, problems: Callable[[], list[str]], seconds: float) -> float:
        """Wait until there are no problems any more, looking ten times a second; how long it took.

        :raises Stuck: if there are some all the time.
        """
        began = self.clock.seconds()
        look_at = [began]

        def waiting() -> bool:
            if self.clock.seconds() < look_at[0]:
                return True
            look_at[0] = self.clock.seconds() + 0.1
            return bool(problems())

        if not self.run_while(waiting, seconds):
            raise Stuck(f"after {seconds} s: " + "; ".join(problems()[:8]))
        return self.clock.seconds() - began

    def stop(self) -> None:
        """Stop every service; nothing may be left of it."""
        for node in list(self.nodes):
            stopping = node.service.stopService()
            try:
                self.wait(stopping, 120.0)
            finally:
                self.nodes.remove(node)
            left = [
                call
                for call in node.host.clock.getDelayedCalls()
                if not getattr(call.function, "__module__", "").startswith("tests.simulation")
            ]  # what is under way to its closed connections is the network's
            if left:
                raise AssertionError(f"{node} left delayed calls behind: {left}")
