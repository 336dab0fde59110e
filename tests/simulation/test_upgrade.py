"""Rings of two wire versions: they form, serve and move, and are upgraded while they are used."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from py2p_twisted.errors import Unavailable
from py2p_twisted.node.core import Phase
from py2p_twisted.wire.messages import OLDEST_VERSION, WIRE_VERSION

from .disk import SimDisk
from .history import History
from .ring_case import RingCase, address, seeds
from .scenarios import judge
from .workload import Client
from .world import SimNode, World


class TestTwoVersions(RingCase):
    def add(self, world: World, version: int | None, disk: SimDisk | None = None) -> SimNode:
        """A node that speaks nothing newer than this version, or everything."""
        return world.add(disk=disk, settings=replace(world.settings, wire_version=version))

    def mixed(self, world: World, size: int, *, disks: bool = False) -> list[SimNode]:
        """Members of the oldest version and of the newest in turns."""
        nodes: list[SimNode] = []
        for number in range(size):
            disk = SimDisk(Random(number)) if disks else None
            node = self.add(world, None if number % 2 else OLDEST_VERSION, disk)
            nodes.append(node)
            if number:
                world.wait(self.enter(node, world.rng.choice(nodes[:-1])))
            else:
                world.wait(node.service.join())
        world.settle(60)
        return nodes

    def versions(self, node: SimNode) -> set[int]:
        return {link.version for link in node.service.node.links}

    def test_they_are_one_ring(self) -> None:
        """Whoever asks; partitions come and go between them, whichever version."""
        for seed in seeds(6):
            with self.world(seed) as world:
                nodes = self.mixed(world, 5)
                self.assertEqual(self.versions(nodes[0]), {OLDEST_VERSION})
                self.assertEqual(self.versions(nodes[1]), {OLDEST_VERSION, WIRE_VERSION})
                written = self.write(world, nodes[0])
                for version in (OLDEST_VERSION, None):
                    client = self.add(world, version)
                    world.wait(client.service.connect(*address(world.rng.choice(nodes))))
                    self.readable(world, written, [client])
                for node in nodes[:2]:
                    world.wait(node.service.unjoin())
                    world.settle(60)
                self.readable(world, written, world.nodes)
                crashed = world.rng.choice(world.members())
                world.crash(crashed)
                world.settle(90)
                self.readable(world, written, world.nodes)

    def test_what_an_old_node_does_not_know(self) -> None:
        """Its report cannot be had, and says why; every other one can."""
        with self.world(1) as world:
            nodes = self.mixed(world, 4)
            old, new = nodes[0], nodes[1]
            problem = self.fails(world, Unavailable, new.service.report(old.service.node.core.me))
            self.assertIn("speaks wire version 2 and knows no GetReport", problem)
            reports = world.wait(new.service.reports())
            self.assertEqual(sorted(member.report is not None for member in reports),
                             [False, False, True, True])  # fmt: skip
            world.run(5)
            self.assertEqual(len(world.members()), 4)

    def test_a_rolling_upgrade(self) -> None:
        """Every node is stopped, and comes back newer with its data, while clients go on."""
        for seed in seeds(6):
            with self.world(seed) as world:
                nodes = []
                for number in range(4):
                    node = self.add(world, OLDEST_VERSION, SimDisk(Random(seed + number)))
                    nodes.append(node)
                    entering = self.enter(node, nodes[0]) if number else node.service.join()
                    world.wait(entering)
                world.settle(60)
                written = {b"kept %d" % n: b"value %d" % n for n in range(200)}
                world.wait(nodes[0].service.update(written))
                history = History()
                clients = [Client(world, history, f"client {number}") for number in range(3)]
                for node in nodes:
                    world.run(world.rng.uniform(1, 5))
                    world.wait(node.service.stopService())
                    node.host.crash()
                    world.nodes.remove(node)
                    world.run(world.rng.uniform(0, 3))
                    again = world.add(node.host.address, disk=node.disk)
                    self.until(
                        world,
                        lambda again=again: again.phase is Phase.JOINED,  # type: ignore[misc]
                        30,
                        f"{again} is no member",
                    )
                    world.settle(60)
                judge(world, clients, history)
                self.assertGreater(len(history.operations), 50)
                self.readable(world, written, world.nodes)
                for node in world.nodes:
                    self.assertEqual(self.versions(node), {WIRE_VERSION})
