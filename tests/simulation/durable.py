"""Nodes with disks, seed by seed (test support).

Any number of nodes, all of them too, are killed at any moment, or stopped, and come back with their
disks: nothing that was acknowledged is lost, no read is wrong, and nobody has to recover anything.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from py2p_twisted.errors import ChordError
from py2p_twisted.node.core import Phase
from py2p_twisted.settings import Settings

from .disk import SimDisk
from .history import History
from .lookouts import FEW, Lookouts
from .scenarios import Report, enter, finished, heal, judge, resume, write_and_read
from .weather import PERFECT, ROUGH
from .workload import Client
from .world import SimNode, World

__all__ = ["durable"]


class _Run:
    """One run."""

    def __init__(self, world: World, rng: Random, most: int) -> None:
        self.world = world
        self.rng = rng
        self.most = most
        self.down: dict[str, SimDisk] = {}  # address -> the disk of a node that does not run
        self.stopping = 0

    def add(self) -> None:
        """Another node, with an empty disk."""
        world, rng = self.world, self.rng
        members = world.members()
        if not members and (world.nodes or self.down):
            return  # a ring is there, and nobody of it is up
        disk = SimDisk(Random(rng.getrandbits(64)), rng.choice(((0.0005, 0.005), (0.002, 0.05))))
        node = world.add(disk=disk)
        if not members:
            node.service.node.spawn(node.service.node.membership.join(), "founding")
            return
        through = rng.choice(members)
        world.tell(f"{node} connects through {through}")
        node.service.node.spawn(enter(world, node, through, rng.random() < 0.8), "entering")

    def crash(self, node: SimNode) -> None:
        """Kill it."""
        assert node.disk is not None
        self.world.crash(node)
        self._gone(node)

    def stop(self, node: SimNode) -> None:
        """Stop it as an operator does; it keeps its place."""
        self.world.tell(f"stop {node}")
        self.stopping += 1

        def stopped(_: object) -> None:
            self.stopping -= 1
            if node in self.world.nodes:
                self.world.nodes.remove(node)
                node.host.crash()
                self._gone(node)

        node.service.stopService().addBoth(stopped)

    def _gone(self, node: SimNode) -> None:
        assert node.disk is not None
        address = node.host.address
        self.down[address] = node.disk
        pause = self.rng.choice((0.05, 0.5, 3.0, 12.0))
        self.world.clock.callLater(pause, self.start, address)

    def start(self, address: str) -> None:
        """Start a node at an address, with the disk that is there."""
        disk = self.down.pop(address, None)
        if disk is None:
            return
        node = self.world.add(address, disk=disk)
        self.world.tell(f"{node} is back at {address}")

    def happen(self) -> None:
        """One event."""
        world, rng = self.world, self.rng
        running = [node for node in world.nodes if not node.paused and node.service.running]
        choice = rng.random()
        if choice < 0.3 and len(world.nodes) + len(self.down) < self.most:
            self.add()
        elif choice < 0.5 and running:
            self.crash(rng.choice(running))
        elif choice < 0.6 and running:
            number = rng.choice((2, len(running), len(running)))
            world.tell(f"{number} at once")
            for node in rng.sample(running, min(number, len(running))):
                self.crash(node)
        elif choice < 0.7 and running:
            self.stop(rng.choice(running))
        elif choice < 0.77 and len(world.members()) > 2:
            node = rng.choice(world.members())
            if not node.paused and node.phase is Phase.JOINED and node.service.running:
                world.tell(f"{node} leaves")
                leaving = node.service.unjoin()
                leaving.addErrback(lambda failure: failure.trap(ChordError) and None)
        elif choice < 0.85 and running:
            node = rng.choice(running)
            world.tell(f"pause {node}")
            node.host.pause()
            node.paused = True
            world.clock.callLater(rng.choice((0.5, 3, 12)), resume, world, node)
        elif choice < 0.93 and len(world.nodes) > 1:
            addresses = [node.host.address for node in world.nodes]
            some = rng.sample(addresses, rng.randint(1, len(addresses) - 1))
            world.tell(f"cut {some} from the rest")
            cut = world.network.cut(some, [a for a in addresses if a not in some])
            world.clock.callLater(rng.choice((1, 5, 15)), heal, world, cut)


def durable(
    seed: int,
    spoil: Callable[[SimNode], None] = lambda node: None,
    *,
    watched: bool = False,
) -> Report:
    """Crashes of any number of nodes with disks.

    :param watched: watches come and go, and what they tell is judged, too.
    :param spoil: takes a rule out of a node that has just started.
    """
    rng = Random(seed)
    k = rng.choice((3, 4, 5, 6, 8))
    most = min(1 << k, rng.choice((1, 2, 3, 4, 5, 6, 8)))
    replicas = rng.choice((1, 3, 3, 5, 5))
    settings = Settings(
        k=k,
        replicas=replicas,
        evict_after=rng.choice((2.0, 5.0, 30.0)),
        stored_from=1,  # every value stays on the disk ...
        cache=rng.choice((0, 6000)),  # ... and few records are in memory, or none
        **(FEW if watched else {}),
    )
    world = World(seed, settings, rng.choice((PERFECT, ROUGH)))
    world.spoil = spoil
    world.tell(f"seed {seed}: k={k}, up to {most} nodes, {replicas} copies, {settings.evict_after}")
    try:
        lookouts = Lookouts(world, seed) if watched else None
        return _durable(world, _Run(world, rng, most), lookouts, seed)
    except (AssertionError, ChordError) as error:
        story = "\n".join(world.story[-60:])
        raise AssertionError(f"seed {seed}: {error}\n{story}") from error


def _durable(world: World, run: _Run, lookouts: Lookouts | None, seed: int) -> Report:
    rng = run.rng
    run.add()
    world.run(1)
    history = History()
    clients = [Client(world, history, f"client {number}") for number in range(rng.randint(3, 8))]
    end = world.clock.seconds() + rng.uniform(20, 50)
    while world.clock.seconds() < end:
        run.happen()
        if lookouts is not None:
            lookouts.happen()
        world.run(rng.expovariate(1 / 1.5))
    world.tell("calm")
    world.network.calm()
    for node in world.nodes:
        node.paused = False
    world.run_while(lambda: run.stopping > 0, 60)
    for address in list(run.down):
        run.start(address)
    judge(world, clients, history)
    settled = world.settle(120)
    if lookouts is not None:
        lookouts.judge_news(history)
    told = 0 if lookouts is None else lookouts.judge()
    write_and_read(world, rng)
    return finished(world, seed, history, settled, told)
