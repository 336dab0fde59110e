"""Which ring a node is in: equal ``--join`` lists, two rings that meet, connect() and join()."""

from __future__ import annotations

from py2p_twisted.errors import NotConnected, PeerUnreachable, RingConflict
from py2p_twisted.node.core import Phase

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
