"""Watches that begin while a member of the groups lags behind, and what they tell when it does not.

What was chosen before a watch began is told with `initial` only, whoever accepts it when.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py2p_twisted.node.checker import Checker

from .simulation.world import SimNode, World
from .test_watch import Listener, WatchCase

KEYS = 300


class LaggingTests(WatchCase):
    """A member was cut off while others wrote, and is back."""

    checking = False

    def setUp(self) -> None:
        check, catch_up = Checker.check, Checker.catch_up

        async def held(checker: Checker) -> None:
            if self.checking:
                await check(checker)

        async def held_back(checker: Checker) -> None:
            if self.checking:
                await catch_up(checker)

        self.patch(Checker, "check", held)
        self.patch(Checker, "catch_up", held_back)

    @contextmanager
    def lagging(self, seed: int) -> Iterator[tuple[World, list[SimNode], SimNode]]:
        """A ring of three, of which the last lacks most keys, and a node that keeps nothing."""
        self.checking = False
        with self.world(seed, replicas=3, evict_after=3600.0) as world:
            nodes = self.grow(world, 3)
            leech = self.leech(world)
            others = [node.host.address for node in world.nodes if node is not nodes[2]]
            cut = world.network.cut([nodes[2].host.address], others)
            world.run(10)
            self.write(world, nodes[0], KEYS)
            world.network.heal(cut)
            self.until(world, lambda: self.connected(nodes), 60, "not all are connected")
            self.assertLess(self.records(nodes[2]), KEYS / 2)
            yield world, nodes, leech

    def connected(self, nodes: list[SimNode]) -> bool:
        """Has each member a connection to each other one?"""
        cores = [node.service.node.core for node in nodes]
        return all(
            one is other or one.links.get(other.instance) for one in cores for other in cores
        )

    def records(self, node: SimNode) -> int:
        """How many keys of users a member has."""
        return sum(acceptor.keys for acceptor in node.service.node.core.acceptors.values())

    def catch_up(self, world: World, node: SimNode) -> None:
        """The background check brings what a member lacks."""
        self.checking = True
        self.until(world, lambda: self.records(node) >= KEYS, 180, "it does not catch up")
        world.run(3)

    def test_what_was_there_is_not_told(self) -> None:
        """Neither when the watch begins nor when the member catches up; what comes then is."""
        for seed in range(3):
            with self.lagging(seed) as (world, nodes, leech):
                listeners = [self.listen(world, node, prefix="") for node in (*nodes, leech)]
                self.catch_up(world, nodes[2])
                self.assertEqual([listener.events for listener in listeners], [[]] * 4)
                world.wait(leech.service.set("key 5", "new"))
                world.run(1)
                for listener in listeners:
                    self.assertEqual(listener.told(), [(b"key 5", "change", b"new")])

    def test_initial(self) -> None:
        """All that is there is told, and none of it twice."""
        with self.lagging(3) as (world, nodes, leech):
            watching = (*nodes, leech)
            listeners = [self.listen(world, node, prefix="", initial=True) for node in watching]
            self.catch_up(world, nodes[2])
            wanted = sorted((b"key %d" % n, "add", b"value %d" % n) for n in range(KEYS))
            for listener in listeners:
                told = [(event.key, event.kind, event.value) for event in listener.events]
                self.assertEqual(sorted(told), wanted)

    def test_another_member_is_gone(self) -> None:
        """Only one word is there for what was chosen: it is read before the watch is ready."""
        for seed in (4, 5):
            with self.lagging(seed) as (world, nodes, leech):
                world.crash(nodes[1])
                listeners = [self.listen(world, node, prefix="") for node in (nodes[2], leech)]
                world.run(5)
                self.catch_up(world, nodes[2])
                self.assertEqual([listener.events for listener in listeners], [[], []])
                world.wait(leech.service.set("key 5", "new"))
                world.wait(leech.service.set("new key", "1"))
                world.run(2)
                for listener in listeners:
                    self.assertEqual(
                        listener.told(), [(b"key 5", "change", b"new"), (b"new key", "add", b"1")]
                    )

    def test_groups_change_meanwhile(self) -> None:
        """A watch that begins, and one that knows everything, listen to new groups."""
        for seed in (6, 7):
            with self.lagging(seed) as (world, nodes, leech):
                knowing = self.listen(world, nodes[0], prefix="", initial=True)
                world.run(2)
                beginning = [Listener(node, prefix="") for node in (nodes[2], leech)]
                world.wait(self.enter(world.add(), nodes[0]))
                self.catch_up_all(world)
                self.assertEqual([listener.events for listener in beginning], [[], []])
                self.assertEqual(len(knowing.events), KEYS)
                world.wait(leech.service.set("key 5", "new"))
                world.run(2)
                for listener in (*beginning, knowing):
                    last = listener.events[-1]
                    self.assertEqual(
                        (last.key, last.kind, last.value), (b"key 5", "change", b"new")
                    )

    def catch_up_all(self, world: World) -> None:
        """Groups have settled, and their members were compared."""
        self.checking = True
        world.settle(120)
        world.run(90)
