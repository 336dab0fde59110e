"""Which ring a node is in: equal ``--join`` lists, two rings that meet, connect() and join()."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher

from py2p_twisted.errors import NotConnected, PeerUnreachable, RingConflict
from py2p_twisted.node.core import Phase
from py2p_twisted.settings import DEFAULT_REPLICAS

from .ring_case import RingCase, address, seeds
from .world import PORT, SimNode, World


def ring_of(node: SimNode) -> bytes:
    """The id of the ring that a node is in, or reads."""
    return node.service.node.core.ring_id


class TestFounding(RingCase):
    """Nodes that are all given the same list."""

    def started(self, world: World, size: int, listed: int) -> list[SimNode]:
        """So many nodes, up within seconds of each other, with the first few in their lists."""
        hosts = [f"10.0.0.{number}" for number in range(1, size + 1)]
        join = [(host, PORT) for host in hosts[:listed]]
        nodes = {}
        for host in world.rng.sample(hosts, size):
            nodes[host] = world.add(host, join)
            world.run(world.rng.choice((0, 0.01, 3)))
        return [nodes[host] for host in hosts]

    def test_equal_lists(self) -> None:
        """They found exactly one ring, in whatever order they start; the first one founds."""
        for seed in seeds(20):
            with self.world(seed) as world:
                nodes = self.started(world, 2 + seed % 5, 2 + seed % 5)
                ready = [node.service.when_ready() for node in nodes]
                self.assertEqual(
                    self.all_of(world, ready), [node.service for node in nodes], "all are ready"
                )
                self.assertEqual(len({ring_of(node) for node in nodes}), 1)
                world.settle(30)

    def test_some_listed(self) -> None:
        """Not all need to be in the list."""
        for seed in seeds(5):
            with self.world(seed) as world:
                nodes = self.started(world, 6, 2)
                self.all_joined(world, nodes, 60)
                self.assertEqual(len({ring_of(node) for node in nodes}), 1)
                world.settle(30)

    def test_others_said_no_ring_twice(self) -> None:
        """The first of the list founds only after each of the others said so."""
        with self.world(1) as world:
            first = world.add("10.0.0.1", [("10.0.0.1", PORT), ("10.0.0.2", PORT)])
            world.run(60)
            self.assertIs(first.phase, Phase.LEECHING)
            second = world.add("10.0.0.2", [("10.0.0.1", PORT), ("10.0.0.2", PORT)])
            self.all_joined(world, [first, second], 60)
            world.settle(20)

    def test_restarted_first(self) -> None:
        """The first of the list, restarted without its data, joins the ring that is there."""
        for seed in seeds(5):
            with self.world(seed) as world:
                nodes = self.started(world, 4, 4)
                self.all_joined(world, nodes, 60)
                ring = ring_of(nodes[1])
                world.crash(nodes[0])
                again = world.add("10.0.0.1", [(f"10.0.0.{n}", PORT) for n in range(1, 5)])
                self.all_joined(world, [again], 30)
                self.assertEqual(ring_of(again), ring)
                world.wait(again.service.recover(accept_data_loss=True))
                world.settle(30)

    def test_empty_list(self) -> None:
        """An empty list founds at once."""
        with self.world(1) as world:
            alone = world.add(join=[])
            world.run(0.1)
            self.assertIs(alone.phase, Phase.JOINED)

    def test_peer_comes_later(self) -> None:
        """A peer may come up later, after hours too, and is then joined within seconds."""
        for wait in (1, 60, 7200):
            with self.world(wait) as world:
                early = world.add("10.0.0.1", [("10.0.0.2", PORT)])
                ready = early.service.when_ready()
                world.run(wait)
                self.assertIs(early.phase, Phase.LEECHING)
                world.add("10.0.0.2", [])
                world.wait(ready, 20)
                self.assertEqual(len(world.members()), 2)


class TestMeeting(RingCase):
    """Two rings that meet."""

    def two(self, world: World) -> tuple[SimNode, SimNode]:
        """Two founders; the first has the lower ring id."""
        founders = [world.add(), world.add()]
        for node in founders:
            world.wait(node.service.join())
        first, second = sorted(founders, key=ring_of)
        return first, second

    def in_ring(self, world: World, node: SimNode, ring: bytes) -> None:
        """It comes over into this ring."""
        self.until(world, lambda: ring_of(node) == ring, 10, f"{node} stays in its ring")

    def test_fresh_gives_way(self) -> None:
        """A node alone in an empty ring gives it up, whoever dials."""
        for seed in seeds(8):
            with self.world(seed) as world:
                pair = self.two(world)
                fresh, used = pair if seed % 2 else pair[::-1]
                written = self.write(world, used, 10)
                ring = ring_of(used)
                dialling, dialled = (fresh, used) if seed % 4 < 2 else (used, fresh)
                world.wait(dialling.service.connect(*address(dialled)))
                self.all_joined(world, [fresh, used], 10)
                self.assertEqual({ring_of(fresh), ring_of(used)}, {ring})
                world.settle(20)
                self.readable(world, written, world.nodes)

    def test_higher_gives_way(self) -> None:
        """Of two such nodes the one with the higher ring id does, whoever dials."""
        for seed in seeds(8):
            with self.world(seed) as world:
                low, high = self.two(world)
                ring = ring_of(low)
                dialling, dialled = (low, high) if seed % 2 else (high, low)
                world.wait(dialling.service.connect(*address(dialled)))
                self.in_ring(world, high, ring)
                self.all_joined(world, [low, high], 10)
                self.assertEqual(ring_of(low), ring)
                world.settle(20)

    def test_both_dial(self) -> None:
        """The same when both dial at once."""
        for seed in seeds(8):
            with self.world(seed) as world:
                low, high = self.two(world)
                ring = ring_of(low)
                results = self.all_of(
                    world,
                    [low.service.connect(*address(high)), high.service.connect(*address(low))],
                )
                self.assertEqual(results, [None, None])
                self.in_ring(world, high, ring)
                world.settle(20)

    def test_conflict(self) -> None:
        """Two rings in use are left alone, and both sides are told how to go on."""
        for seed in seeds(4):
            with self.world(seed) as world:
                low, high = self.two(world)
                self.write(world, low, 1)
                if seed % 2:
                    self.write(world, high, 1)
                else:
                    world.wait(self.enter(world.add(), high))
                rings = ring_of(low), ring_of(high)
                for dialling, dialled in ((low, high), (high, low)):
                    connecting = dialling.service.connect(*address(dialled))
                    text = self.fails(world, RingConflict, connecting)
                    for word in ("items()", "update()", "unjoin(discard=True)"):
                        self.assertIn(word, text)
                self.assertEqual((ring_of(low), ring_of(high)), rings)
                world.run(5)
                self.assertEqual((ring_of(low), ring_of(high)), rings)

    def test_readers_make_a_ring_used(self) -> None:
        """An empty ring with a leeching peer is in use."""
        with self.world(1) as world:
            low, high = self.two(world)
            for node in (low, high):
                world.wait(world.add().service.connect(*address(node)))
            self.fails(world, RingConflict, low.service.connect(*address(high)))


class TestConnecting(RingCase):
    """connect() and join(), in any order and number."""

    def test_before_join(self) -> None:
        """Connected, a node reads and writes and stores nothing; joined, it stores its share."""
        with self.world(1) as world:
            (member,) = self.grow(world, 1)
            node = world.add()
            world.wait(node.service.connect(*address(member)))
            self.assertTrue(node.service.leeching)
            written = self.write(world, node)
            self.readable(world, written, [node, member])
            self.assertEqual(node.service.node.core.keys, 0)
            world.wait(node.service.join())
            self.assertFalse(node.service.leeching)
            world.settle(10)
            self.assertGreater(node.service.node.core.keys, 0)
            self.readable(world, written, [node, member])

    def test_after_join(self) -> None:
        """A node that founded a ring of its own first comes over all the same."""
        with self.world(1) as world:
            (member,) = self.grow(world, 1)
            written = self.write(world, member)
            node = world.add()
            world.wait(node.service.join())
            world.wait(node.service.connect(*address(member)))
            self.readable(world, written, [node])  # at once
            world.settle(10)

    def test_several_times(self) -> None:
        """Connecting and joining again changes nothing."""
        for seed in seeds(3):
            with self.world(seed) as world:
                members = self.grow(world, 3)
                node = world.add()
                for _ in range(2):
                    for member in members:
                        world.wait(node.service.connect(*address(member)))
                world.wait(node.service.join())
                world.wait(node.service.join())
                for member in members:
                    world.wait(node.service.connect(*address(member)))
                world.settle(10)
                self.assertEqual(len(world.members()), 4)
                links = {link.peer.instance for link in node.service.node.links}
                self.assertLessEqual(len(links), 3)

    def test_through_a_leeching_node(self) -> None:
        """A leeching node leads to the ring too."""
        with self.world(1) as world:
            members = self.grow(world, 2)
            leech, node = world.add(), world.add()
            world.wait(leech.service.connect(*address(members[0])))
            world.wait(node.service.connect(*address(leech)))
            written = self.write(world, leech, 5)
            self.readable(world, written, [node])
            world.wait(node.service.join())
            self.assertEqual(ring_of(node), ring_of(members[0]))
            world.settle(10)

    def test_nobody_there(self) -> None:
        """Nobody listens, or nobody is in a ring; oneself is no peer."""
        with self.world(1) as world:
            node, other = world.add(), world.add()
            connecting = node.service.connect("10.9.9.9", PORT)
            self.assertIn("refused", self.fails(world, PeerUnreachable, connecting))
            self.fails(world, PeerUnreachable, node.service.connect(*address(node)))
            world.wait(node.service.connect(*address(other)))
            self.fails(world, NotConnected, node.service.get(b"key"))
            world.wait(other.service.join())  # founds the ring that both are in now
            world.run(0.1)
            world.wait(node.service.set(b"key", b"value"))
            self.assertEqual(world.wait(other.service.get(b"key")), b"value")


def copies(node: SimNode) -> int:
    """How many copies of a key the ring keeps that a node is in, or reads; 0 without a ring."""
    return node.service.node.core.replicas


class TestCopies(RingCase):
    """How many copies of a key a ring keeps: the founder decides for all."""

    def setUp(self) -> None:
        """Collect what is logged."""
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict[str, Any]) -> None:
        """Remember what our code logs."""
        if event["log_namespace"].startswith("py2p_twisted"):
            self.logged.append(str(formatEvent(event)))

    def refusals(self) -> list[str]:
        """What was logged of refused peers since the last call."""
        found = [line for line in self.logged if "A peer was refused" in line]
        self.logged.clear()
        return found

    def add(
        self, world: World, replicas: int | None, join: Sequence[tuple[str, int]] | None = None
    ) -> SimNode:
        """A node whose user asked for so many copies."""
        world.settings = replace(world.settings, replicas=replicas)
        return world.add(join=join)

    def founder(self, world: World, replicas: int | None, *, used: bool = True) -> SimNode:
        """A node that has founded a ring, which is in use or may be given up."""
        node = self.add(world, replicas)
        world.wait(node.service.join())
        if used:
            self.write(world, node, 1)
        return node

    def is_refused(
        self, world: World, dialling: SimNode, dialled: SimNode, number: int, asked: int
    ) -> str:
        """They cannot connect, and both users are told who keeps how many and who wants what.

        Returns what the one who dialled was told.
        """
        rings = [(ring_of(node), copies(node)) for node in (dialling, dialled)]
        self.logged.clear()
        text = self.fails(world, RingConflict, dialling.service.connect(*address(dialled)))
        world.run(0.1)
        (line,) = self.refusals()
        for told in (text, line):
            self.assertRegex(told, f"keeps {number} cop(y|ies) of every key")
            self.assertIn(f"replicas={asked} was asked for", told)
            self.assertRegex(told, f"leave replicas= out( there)?, or ask for {number}$")
        self.assertEqual({" here: " in told for told in (text, line)}, {True, False})
        world.run(30)
        self.assertEqual(self.refusals(), [], "nobody tries again")
        for node, ring in zip((dialling, dialled), rings, strict=True):
            self.assertEqual((ring_of(node), copies(node)), ring)
            self.assertEqual(node.service.links(), [])
        return text

    def test_founder_decides(self) -> None:
        """Members and readers that asked for nothing, or for the same, have the ring's number."""
        for replicas in (None, 1, 3, 5):
            with self.world(1) as world:
                founder = self.founder(world, replicas)
                number = replicas or DEFAULT_REPLICAS
                nodes = [founder]
                for asked in (None, number):
                    reader, member = self.add(world, asked), self.add(world, asked)
                    self.assertEqual(copies(member), 0)
                    self.assertEqual(member.service.node.hello().replicas, asked or 0)
                    world.wait(reader.service.connect(*address(founder)))
                    world.wait(self.enter(member, reader))
                    nodes += [reader, member]
                for node in nodes:
                    self.assertEqual(copies(node), number)
                    self.assertEqual(node.service.node.hello().replicas, number)
                self.assertEqual(self.refusals(), [])

    def test_another_number_is_refused(self) -> None:
        """A node without a ring is, when it connects, whoever dials."""
        for number, asked in ((1, 3), (1, 5), (3, 1), (3, 5), (5, 1), (5, 3)):
            with self.world(number) as world:
                ring, asker = self.founder(world, number), self.add(world, asked)
                for dialling, dialled in ((asker, ring), (ring, asker)):
                    text = self.is_refused(world, dialling, dialled, number, asked)
                    self.assertIn("refused this node: ", text, "not even connected for a moment")
                self.assertTrue(asker.service.leeching)

    def test_refused_by_a_reader(self) -> None:
        """A leeching node that leads to the ring refuses too."""
        with self.world(1) as world:
            ring, reader, asker = self.founder(world, 5), self.add(world, None), self.add(world, 3)
            world.wait(reader.service.connect(*address(ring)))
            connecting = asker.service.connect(*address(reader))
            text = self.fails(world, RingConflict, connecting)
            self.assertIn("keeps 5 copies of every key, and replicas=3 was asked for here", text)
            world.run(1)
            self.assertEqual((ring_of(asker), copies(asker)), (b"", 0))
            self.assertEqual(len(reader.service.links()), 1)

    def test_fresh_takes_over(self) -> None:
        """A founder that gives way, and did not ask for another number, has the other's."""
        for asked in (None, 3):
            for seed in seeds(4):
                with self.world(seed) as world:
                    used = self.founder(world, 3)
                    fresh = self.founder(world, asked, used=False)
                    self.assertEqual(copies(fresh), asked or DEFAULT_REPLICAS)
                    dialling, dialled = (fresh, used) if seed % 2 else (used, fresh)
                    world.wait(dialling.service.connect(*address(dialled)))
                    world.run(1)
                    self.assertEqual(ring_of(fresh), ring_of(used))
                    self.assertEqual((copies(used), copies(fresh)), (3, 3))
                    self.all_joined(world, [fresh, used], 10)
                    self.assertEqual(fresh.service.node.hello().replicas, 3)

    def test_fresh_that_asked_is_refused(self) -> None:
        """A founder that would give way, but asked for another number, keeps its ring."""
        for seed in seeds(4):
            with self.world(seed) as world:
                used = self.founder(world, None if seed % 2 else 5)
                number = copies(used)
                fresh = self.founder(world, 3, used=False)
                self.is_refused(world, fresh, used, number, 3)
                self.is_refused(world, used, fresh, number, 3)
                self.assertIs(fresh.phase, Phase.JOINED)

    def test_two_fresh(self) -> None:
        """Of two such founders only the one that gives way has to agree with the other's number."""
        for seed in seeds(8):
            for asked_by_high in (None, 5):
                with self.world(seed) as world:
                    one, other = (self.founder(world, None, used=False) for _ in range(2))
                    low, high = sorted((one, other), key=ring_of)
                    low.service.node.core.replicas = 3  # as if it had been founded with 3
                    settings = replace(world.settings, replicas=asked_by_high)
                    high.service.node.core.settings = settings
                    high.service.node.core.replicas = asked_by_high or DEFAULT_REPLICAS
                    dialling, dialled = (low, high) if seed % 2 else (high, low)
                    if asked_by_high is not None:
                        self.is_refused(world, dialling, dialled, 3, 5)
                        continue
                    world.wait(dialling.service.connect(*address(dialled)))
                    world.run(1)
                    self.assertEqual(ring_of(high), ring_of(low))
                    self.assertEqual((copies(low), copies(high)), (3, 3))

    def test_both_dial(self) -> None:
        """When both dial at once, both are told why it cannot be."""
        for seed in seeds(8):
            with self.world(seed) as world:
                used, fresh = self.founder(world, 5), self.founder(world, 3, used=False)
                results = self.all_of(
                    world,
                    [used.service.connect(*address(fresh)), fresh.service.connect(*address(used))],
                )
                self.assertEqual([type(result) for result in results], [RingConflict] * 2, results)
                for told in results:
                    self.assertIn("keeps 5 copies of every key", str(told))

    def test_connected_for_a_moment(self) -> None:
        """Who connects while the other has not refused yet is told the reason, too."""
        with self.world(1) as world:
            used, fresh = self.founder(world, 5), self.founder(world, 3, used=False)
            first = fresh.service.connect(*address(used))
            self.assertTrue(world.run_while(lambda: not used.service.links(), 5))
            second = used.service.connect(*address(fresh))
            for told in self.all_of(world, [first, second]):
                self.assertIs(type(told), RingConflict, told)
                self.assertIn("keeps 5 copies of every key", str(told))

    def test_two_without_a_ring(self) -> None:
        """They may be connected; as soon as one founds, the other is refused, and both say so."""
        for founds in (0, 1):
            with self.world(founds) as world:
                pair = [self.add(world, 3), self.add(world, 5)]
                world.wait(pair[0].service.connect(*address(pair[1])))
                self.assertEqual(len(pair[0].service.links()), 1)
                world.wait(pair[founds].service.join())
                world.run(1)
                told = self.refusals()
                self.assertEqual(len(told), 2, "both users read it")
                for text in told:
                    self.assertIn(f"keeps {(3, 5)[founds]} copies of every key", text)
                    self.assertIn(f"replicas={(5, 3)[founds]} was asked for", text)
                self.assertEqual([node.service.links() for node in pair], [[], []])
                self.assertEqual(copies(pair[1 - founds]), 0)

    def test_join_waits_for_its_number(self) -> None:
        """A node that is told where to join says what is in the way, and joins a ring that fits."""
        with self.world(1) as world:
            ring = self.founder(world, 5)
            asker = self.add(world, 3, [address(ring)])
            world.run(60)
            told = [line for line in self.logged if "Cannot join yet" in line]
            self.assertEqual(len(told), 1, told)
            self.assertIn("keeps 5 copies of every key, and replicas=3 was asked for here", told[0])
            self.assertIs(asker.phase, Phase.LEECHING)
            host, _ = address(ring)
            world.crash(ring)
            world.settings = replace(world.settings, replicas=3)
            world.add(host, [])
            self.all_joined(world, [asker], 30)
            self.assertEqual(copies(asker), 3)

    def test_forgotten_with_the_ring(self) -> None:
        """A leave keeps the number of the ring that goes on; the last one takes it along."""
        with self.world(1) as world:
            ring = self.founder(world, 3, used=False)
            member = self.add(world, None)
            world.wait(self.enter(member, ring))
            world.settle(20)
            world.wait(member.service.unjoin())
            self.assertEqual((copies(member), member.service.node.hello().replicas), (3, 3))
            world.wait(ring.service.unjoin(discard=True))
            self.assertEqual((copies(ring), ring.service.node.hello().replicas), (0, 3))
            world.run(1)
            self.assertEqual(member.service.node.hello().replicas, 0)

    def test_a_number_that_cannot_be(self) -> None:
        """A ring that no founder can have made is not believed in."""
        with self.world(1) as world:
            ring, node = self.founder(world, 3), self.add(world, None)
            for number in (0, 2, 4):
                ring.service.node.core.replicas = number
                connecting = node.service.connect(*address(ring))
                self.assertIn(
                    f"keeps {number} copies", self.fails(world, PeerUnreachable, connecting)
                )
                self.assertEqual((ring_of(node), copies(node)), (b"", 0))

    def test_one_ring_of_two_numbers(self) -> None:
        """Two nodes that say different things of one ring do not stay connected."""
        with self.world(1) as world:
            ring, member = self.founder(world, 3), self.add(world, None)
            world.wait(self.enter(member, ring))
            world.settle(20)
            member.service.node.core.replicas = 5
            member.service.node.announce()
            world.run(0.1)
            told = self.refusals()
            self.assertGreater(len(told), 1, "both users read it, at each try")
            for line in told:
                self.assertRegex(line, "keeps . copies .* in the ring in which .* keeps . copies")
            self.assertEqual(member.service.links(), [])
            member.service.node.core.replicas = 3
            world.settle(60)

    def test_ring_of_two(self) -> None:
        """It says that it survives no crash yet, each time that it has become one."""
        line = "Two nodes keep two copies: this ring survives no crash before a third one joins."
        for replicas in (1, 3, 5):
            with self.world(1) as world:
                founder = self.founder(world, replicas)
                world.run(5)
                self.assertNotIn(line, self.logged)
                nodes = [founder, self.add(world, None)]
                world.wait(self.enter(nodes[1], founder))
                world.settle(20)
                world.run(10)
                self.assertEqual(self.logged.count(line), 2 * (replicas > 1), "each says it once")
                nodes.append(self.add(world, None))
                world.wait(self.enter(nodes[2], founder))
                world.settle(20)
                world.run(10)
                self.assertEqual(self.logged.count(line), 2 * (replicas > 1))
                world.wait(nodes[2].service.unjoin())
                world.settle(20)
                world.run(10)
                self.assertEqual(self.logged.count(line), 4 * (replicas > 1), "and once more")
                self.logged.clear()
