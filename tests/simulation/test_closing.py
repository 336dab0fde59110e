"""Rings of whole nodes when members die, freeze, are cut off, come back, or leave."""

from __future__ import annotations

from random import Random

from py2p_twisted.errors import Unavailable
from py2p_twisted.node.core import Phase, claim_key

from .ring_case import RingCase, address, seeds
from .world import SimNode, World


class TestClosing(RingCase):
    """A member that is gone is noticed in time, and the ring closes over it."""

    def all_but(self, world: World, *gone: SimNode) -> list[SimNode]:
        """Everybody else."""
        return [node for node in world.nodes if node not in gone]

    def test_killed(self) -> None:
        """Killed: its peers see resets, and the ring closes within 2 s."""
        for seed in seeds(12):
            with self.world(seed) as world:
                members = self.grow(world, 3 + seed % 8)
                world.crash(world.rng.choice(members))
                self.closes(world, world.members(), 2)

    def test_two_killed(self) -> None:
        """Neighbours killed at the same moment make no difference."""
        for seed in seeds(10):
            with self.world(seed) as world:
                members = sorted(self.grow(world, 8), key=lambda node: node.service.node.core.me.id)
                world.crash(members[seed % 8])
                world.crash(members[(seed + 1) % 8])
                self.closes(world, world.members(), 2)

    def test_frozen(self) -> None:
        """Frozen: the ring closes within 10 s; thawed it finds its way back by itself."""
        for seed in seeds(8):
            with self.world(seed) as world:
                members = self.grow(world, 3 + seed % 8)
                written = self.write(world, members[0])
                frozen = world.rng.choice(members)
                frozen.host.pause()
                self.closes(world, self.all_but(world, frozen), 10)
                world.run(world.rng.uniform(0, 30))
                frozen.host.resume()
                world.settle(30)
                self.readable(world, written, world.nodes)

    def test_cut_off(self) -> None:
        """Cut off: the ring closes within 10 s; the heal makes one ring again."""
        for seed in seeds(8):
            with self.world(seed) as world:
                members = self.grow(world, 3 + seed % 8)
                written = self.write(world, members[0])
                lonely = world.rng.choice(members)
                others = self.all_but(world, lonely)
                cut = world.network.cut(
                    [lonely.host.address], [node.host.address for node in others]
                )
                self.closes(world, others, 10)
                world.run(world.rng.uniform(0, 60))
                world.network.heal(cut)
                world.settle(45)
                self.readable(world, written, world.nodes)

    def test_halves(self) -> None:
        """Cut in two: both sides close within 10 s; the heal makes one ring again."""
        for seed in seeds(8):
            with self.world(seed) as world:
                members = self.grow(world, 4 + seed % 6)
                written = self.write(world, members[0])
                half = world.rng.sample(members, len(members) // 2)
                rest = self.all_but(world, *half)
                cut = world.network.cut(
                    [node.host.address for node in half], [node.host.address for node in rest]
                )
                self.closes(world, half, 10)
                self.closes(world, rest, 10)
                world.run(world.rng.uniform(0, 60))
                world.network.heal(cut)
                world.settle(45)
                self.readable(world, written, world.nodes)

    def test_recovered_without(self) -> None:
        """A node that was recovered from, and whose place was taken, comes back in peace."""
        for seed in seeds(10):
            k = 2 + seed % 2
            with self.world(seed, k) as world:
                members = self.grow(world, 4)
                frozen = world.rng.choice(members)
                frozen.host.pause()
                others = self.all_but(world, frozen)
                self.closes(world, others, 10)
                world.wait(others[0].service.recover(accept_data_loss=True))
                written = self.write(world, others[0])
                fifth = world.add()
                world.wait(self.enter(fifth, others[1]))
                world.run(world.rng.uniform(0, 20))
                frozen.host.resume()
                world.run(15)
                world.settle(60)
                self.readable(world, written, world.nodes)
                self.assertEqual(len(world.members()), 4 if k == 2 else 5)
                self.assertIs(frozen.phase, Phase.LEECHING if k == 2 else Phase.JOINED)


class TestNoLoss(RingCase):
    """No sequence of joins and graceful leaves loses a key."""

    def test_joins_and_leaves(self) -> None:
        """Forty joins and leaves in a row, some at the same time, with writes in between."""
        for seed in seeds(10):
            with self.world(seed, k=2 + seed % 5) as world:
                self.grow(world, 1)
                written = self.write(world, world.nodes[0])
                for step in range(40):
                    self.one_step(world, world.rng)
                    key = b"step %d" % step
                    written[key] = b"%d" % step
                    world.wait(world.rng.choice(world.members()).service.set(key, written[key]))
                world.settle(60)
                self.readable(world, written, world.nodes)
                self.assertEqual(world.wait(world.nodes[0].service.count()), len(written))

    def one_step(self, world: World, rng: Random) -> None:
        """A join, a leave, or both at once."""
        world.run(rng.uniform(0.01, 1))  # a member knows of one that joined a moment ago
        members = world.members()
        changes = []
        if rng.random() < 0.6 and len(members) < min(8, 1 << world.settings.k):
            gone = [node for node in world.nodes if node.phase is Phase.LEECHING]
            joiner = rng.choice(gone) if gone and rng.random() < 0.7 else world.add()
            world.tell(f"{joiner} joins")
            changes.append(self.enter(joiner, rng.choice(members)))
        if rng.random() < 0.5 and len(members) > 1:
            leaver = rng.choice(members)
            world.tell(f"{leaver} leaves")
            changes.append(leaver.service.unjoin())
        self.assertEqual([error for error in self.all_of(world, changes) if error], [])

    def test_stopping_services(self) -> None:
        """Services that are stopped hand over first, the last but one too."""
        for seed in seeds(10):
            with self.world(seed) as world:
                members = self.grow(world, 6)
                written = self.write(world, members[0])
                for node in world.rng.sample(members, 5):
                    world.wait(node.service.stopService())
                    world.nodes.remove(node)
                self.readable(world, written, world.nodes)

    def test_last_one(self) -> None:
        """The last node of a ring refuses to leave with keys, unless it may discard them."""
        with self.world(1) as world:
            (node,) = self.grow(world, 1)
            written = self.write(world, node, 3)
            text = self.fails(world, Unavailable, node.service.unjoin())
            self.assertIn("discard=True", text)
            self.assertIs(node.phase, Phase.JOINED)
            self.readable(world, written, [node])
            world.wait(node.service.unjoin(discard=True))
            self.assertIs(node.phase, Phase.LEECHING)
            world.wait(node.service.join())  # a new ring
            self.assertEqual(world.wait(node.service.get_many(written)), {})

    def test_tombstones(self) -> None:
        """Deleted keys leave nothing behind for long."""
        with self.world(1) as world:
            members = self.grow(world, 3)
            written = self.write(world, members[0], 2000)
            world.wait(members[1].service.clear())
            world.run(5)
            left = [
                acceptor.tombstones
                for node in members
                for acceptor in node.service.node.core.acceptors.values()
            ]
            self.assertLessEqual(max(left), 64)
            self.assertEqual(world.wait(members[2].service.get_many(written)), {})
            self.assertEqual(world.wait(members[2].service.count()), 0)


class TestComingBack(RingCase):
    """Nodes that come again after they crashed, and rings that are recovered."""

    def test_same_address(self) -> None:
        """A node that lost its data takes its claim again, at the same address."""
        for seed in seeds(10):
            with self.world(seed, k=2) as world:
                members = self.grow(world, 4)
                victim = members[seed % 4]
                old = victim.service.node.core.me
                claimed = world.wait(
                    members[0].service.node.operations.read(claim_key(old.identifier))
                )
                keeper = next(
                    node
                    for node in members
                    if node.service.node.core.partition(claim_key(old.identifier))
                    in node.service.node.core.acceptors
                )
                world.crash(victim)
                self.closes(world, world.members(), 2)
                if keeper is victim:
                    world.wait(world.members()[0].service.recover(accept_data_loss=True))
                again = world.add(old.host)
                world.wait(self.enter(again, world.rng.choice(world.members())))
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])
                mine = again.service.node.core.me
                self.assertEqual(mine.id, old.id)
                claim = world.wait(again.service.node.operations.read(claim_key(mine.identifier)))
                self.assertNotEqual(claim, claimed)
                self.assertIn(mine.instance, claim)

    def test_recover(self) -> None:
        """After crashes a recovery makes every key writable, and keeps those of the living."""
        for seed in seeds(10):
            with self.world(seed) as world:
                members = self.grow(world, 6)
                written = self.write(world, members[0])
                for node in world.rng.sample(members, 2):
                    world.crash(node)
                self.closes(world, world.members(), 2)
                kept = sum(node.service.node.core.keys for node in world.members())
                self.assertLess(kept, len(written))
                report = world.wait(world.members()[0].service.recover(accept_data_loss=True))
                self.assertGreater(report.lost, 0)
                self.assertFalse(report.superseded)
                world.settle(20)
                found = world.wait(world.members()[1].service.get_many(written))
                self.assertEqual(len(found), kept)
                self.readable(world, self.write(world, world.members()[2]), world.members())

    def test_recover_twice(self) -> None:
        """Recoveries in two nodes at once do no harm: one wins, all is writable."""
        for seed in seeds(8):
            with self.world(seed) as world:
                members = self.grow(world, 6)
                written = self.write(world, members[0])
                world.crash(world.rng.choice(members))
                self.closes(world, world.members(), 2)
                kept = sum(node.service.node.core.keys for node in world.members())
                both = world.rng.sample(world.members(), 2)
                self.all_of(world, [node.service.recover(accept_data_loss=True) for node in both])
                world.settle(30)
                found = world.wait(both[0].service.get_many(written))
                self.assertEqual(len(found), kept)
                self.readable(world, self.write(world, both[1]), world.members())

    def test_whole_ring_but_one(self) -> None:
        """All members but one die: the last one serves everything, once it recovered the ring."""
        for seed in seeds(5):
            with self.world(seed) as world:
                members = self.grow(world, 5)
                self.write(world, members[0])
                last = members[seed % 5]
                for node in members:
                    if node is not last:
                        world.crash(node)
                self.closes(world, [last], 5)
                world.wait(last.service.recover(accept_data_loss=True))
                self.readable(world, self.write(world, last), [last])
                world.wait(self.enter(world.add(), last))
                world.settle(20)

    def test_all_through_one_address(self) -> None:
        """A member that is asked to connect to a member of its own ring does nothing."""
        with self.world(1) as world:
            members = self.grow(world, 3)
            for node in members:
                for other in members:
                    if node is not other:
                        world.wait(node.service.connect(*address(other)))
            world.settle(5)
