"""Rings of whole nodes when members die, freeze, are cut off, come back, or leave."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from py2p_twisted.errors import OperationTimeout, Unavailable
from py2p_twisted.node.core import Core, Phase, claim_key, user_key
from py2p_twisted.node.recovery import RecoveryReport

from .ring_case import RingCase, address, seeds
from .world import SimNode, World


def core_of(node: SimNode) -> Core:
    """The state of a node."""
    return node.service.node.core


def by_place(nodes: list[SimNode]) -> list[SimNode]:
    """Sorted around the circle."""
    return sorted(nodes, key=lambda node: core_of(node).me.id)


@dataclass(frozen=True)
class Left:
    """What is left of the groups after crashes.

    :param alive: how many members of each partition's group live.
    """

    core: Core
    alive: dict[int, int]

    @property
    def replicas(self) -> int:
        """Members of each group."""
        return self.core.replicas

    @property
    def quorum(self) -> int:
        """Members that a group needs."""
        return self.replicas // 2 + 1

    def of(self, key: bytes) -> int:
        """Living members that keep a key."""
        return self.alive[self.core.partition(user_key(key))]

    def counts(self) -> tuple[int, int, bool, int]:
        """The part of a recovery's report: partitions kept, lost, not superseded, re-formed."""
        kept = sum(alive >= self.quorum for alive in self.alive.values())
        lost = sum(not alive for alive in self.alive.values())
        return kept, lost, False, len(self.alive) - kept - lost


class TestClosing(RingCase):
    """A member that is gone is noticed in time, and the ring closes over it."""

    def all_but(self, world: World, *gone: SimNode) -> list[SimNode]:
        """Everybody else."""
        return [node for node in world.nodes if node not in gone]

    def test_killed(self) -> None:
        """Killed: its peers see resets, and the ring closes within 2 s; nothing is lost."""
        for seed in seeds(4):
            with self.world(seed, replicas=3 + 2 * (seed % 2)) as world:
                members = self.grow(world, 3 + seed % 8)
                written = self.write(world, members[0])
                world.crash(world.rng.choice(members))
                self.readable(world, written, [world.rng.choice(world.members())])
                self.closes(world, world.members(), 2)
                self.readable(world, written, world.members())

    def test_two_killed(self) -> None:
        """Neighbours killed at the same moment make no difference, and no key is lost of five."""
        for seed in seeds(3):
            with self.world(seed) as world:
                members = by_place(self.grow(world, 6 + seed % 3))
                written = self.write(world, members[0])
                place = seed % len(members)
                world.crash(members[place])
                world.crash(members[(place + 1) % len(members)])
                self.readable(world, written, [world.rng.choice(world.members())])
                self.closes(world, world.members(), 2)
                self.readable(world, written, world.members())

    def test_frozen(self) -> None:
        """Frozen: the ring closes within 10 s; thawed it finds its way back by itself."""
        for seed in seeds(4):
            with self.world(seed, replicas=3 + 2 * (seed % 2)) as world:
                members = self.grow(world, 3 + seed % 8)
                written = self.write(world, members[0])
                frozen = world.rng.choice(members)
                frozen.host.pause()
                self.readable(world, written, [world.rng.choice(self.all_but(world, frozen))])
                self.closes(world, self.all_but(world, frozen), 10)
                world.run(world.rng.uniform(0, 30))
                frozen.host.resume()
                world.settle(30)
                self.readable(world, written, world.nodes)

    def test_cut_off(self) -> None:
        """Cut off: the ring closes within 10 s; the heal makes one ring again."""
        for seed in seeds(4):
            with self.world(seed, replicas=3 + 2 * (seed % 2)) as world:
                members = self.grow(world, 3 + seed % 8)
                written = self.write(world, members[0])
                lonely = world.rng.choice(members)
                others = self.all_but(world, lonely)
                cut = world.network.cut(
                    [lonely.host.address], [node.host.address for node in others]
                )
                self.readable(world, written, [world.rng.choice(others)])
                self.fails(world, Unavailable, lonely.service.set("key", "not here"))
                self.closes(world, others, 10)
                world.run(world.rng.uniform(0, 60))
                world.network.heal(cut)
                world.settle(45)
                self.readable(world, written, world.nodes)

    def test_halves(self) -> None:
        """Cut in two: both sides close within 10 s; the heal makes one ring again, with all keys.

        Each key can be written on one side at most, and what could be written stays.
        """
        for seed in seeds(3):
            with self.world(seed, replicas=(5, 3, 1)[seed % 3]) as world:
                members = self.grow(world, 4 + seed % 6)
                written = self.write(world, members[0])
                half = world.rng.sample(members, len(members) // 2)
                rest = self.all_but(world, *half)
                cut = world.network.cut(
                    [node.host.address for node in half], [node.host.address for node in rest]
                )
                self.closes(world, half, 10)
                self.closes(world, rest, 10)
                sides = [self.try_to_write(world, side[0], b"side") for side in (half, rest)]
                self.assertFalse(sides[0].keys() & sides[1].keys())
                self.assertTrue(sides[0] or sides[1])
                world.run(world.rng.uniform(0, 60))
                world.network.heal(cut)
                world.settle(90)
                self.readable(world, written | sides[0] | sides[1], world.nodes)

    def try_to_write(self, world: World, through: SimNode, name: bytes) -> dict[bytes, bytes]:
        """Create twenty keys, all at the same time; those that were written."""
        value = b"%s of %d" % (name, through.number)
        keys = [b"%s %d" % (name, number) for number in range(20)]
        creating = [through.service.compare_and_set(key, None, value) for key in keys]
        done = {}
        for key, result in zip(keys, self.all_of(world, creating), strict=True):
            if isinstance(result, Exception):
                self.assertIsInstance(result, Unavailable | OperationTimeout)
            elif result:
                done[key] = value
        return done

    def test_place_taken(self) -> None:
        """A node whose place was taken while it was frozen comes back in peace."""
        for seed in seeds(4):
            k = 2 + seed % 2
            with self.world(seed, k) as world:
                members = self.grow(world, 4)
                written = self.write(world, members[0])
                frozen = world.rng.choice(members)
                frozen.host.pause()
                others = self.all_but(world, frozen)
                self.closes(world, others, 10)
                fifth = world.add()
                world.wait(self.enter(fifth, others[1]))
                written |= self.write(world, others[0], 150)
                world.run(world.rng.uniform(0, 60))
                frozen.host.resume()
                world.run(15)
                world.settle(60)
                self.readable(world, written, world.nodes)
                self.assertEqual(len(world.members()), 4 if k == 2 else 5)
                self.assertIs(frozen.phase, Phase.LEECHING if k == 2 else Phase.JOINED)

    def test_recovered_without(self) -> None:
        """Nodes that were recovered from, and whose place was taken, come back in peace."""
        for seed in seeds(4):
            k = 2 + seed % 2
            with self.world(seed, k, replicas=3) as world:
                members = self.grow(world, 4)
                self.write(world, members[0])
                frozen = world.rng.sample(members, 2)
                for node in frozen:
                    node.host.pause()
                others = self.all_but(world, *frozen)
                self.closes(world, others, 15)
                report = world.wait(others[0].service.recover(accept_data_loss=True))
                self.assertGreater(report.reformed, 0)
                self.assertEqual(report.lost, 0)
                written = self.write(world, others[0], 150)
                fifth = world.add()
                world.wait(self.enter(fifth, others[1]))
                world.run(world.rng.uniform(0, 60))
                for node in frozen:
                    node.host.resume()
                world.run(15)
                world.settle(60)
                self.readable(world, written, world.nodes)
                self.assertEqual(len(world.members()), 4 if k == 2 else 5)
                phases = {node.phase for node in frozen}
                self.assertEqual(
                    phases, {Phase.JOINED, Phase.LEECHING} if k == 2 else {Phase.JOINED}
                )


class TestNoLoss(RingCase):
    """No sequence of joins and graceful leaves loses a key."""

    def test_joins_and_leaves(self) -> None:
        """Forty joins and leaves in a row, some at the same time, with writes in between."""
        for seed in seeds(3):
            with self.world(seed, k=2 + seed % 5, replicas=(5, 3, 1)[seed % 3]) as world:
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

    def test_leaves_those_who_just_joined(self) -> None:
        """A node that was alone a moment ago hands over to those who joined meanwhile."""
        for seed in seeds(6):
            with self.world(seed, replicas=(5, 3, 1)[seed % 3]) as world:
                (founder,) = self.grow(world, 1)
                written = self.write(world, founder)
                new = [world.add() for _ in range(1 + seed % 2)]
                joined = self.all_of(world, [self.enter(node, founder) for node in new])
                self.assertEqual({*joined}, {None})
                world.run(world.rng.choice((0, 0.001, 0.01, 0.1)))
                world.wait(founder.service.unjoin())
                self.readable(world, written, world.nodes)
                world.settle(20)
                self.readable(world, written, world.nodes)

    def test_stopping_services(self) -> None:
        """Services that are stopped hand over first, the last but one too."""
        for seed in seeds(3):
            with self.world(seed, replicas=(5, 3, 1)[seed % 3]) as world:
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
                for acceptor in core_of(node).acceptors.values()
            ]
            self.assertLessEqual(max(left), 64)
            self.assertEqual(world.wait(members[2].service.get_many(written)), {})
            self.assertEqual(world.wait(members[2].service.count()), 0)


class TestComingBack(RingCase):
    """Nodes that come again after they crashed, and rings that are recovered."""

    def test_same_address(self) -> None:
        """A node that lost its data takes its claim again, at the same address; all else stays."""
        for seed in seeds(4):
            with self.world(seed, k=2) as world:
                members = self.grow(world, 4)
                written = self.write(world, members[0])
                victim = members[seed % 4]
                old = core_of(victim).me
                claimed = world.wait(
                    members[0].service.node.operations.read(claim_key(old.identifier))
                )
                world.crash(victim)
                self.closes(world, world.members(), 2)
                again = world.add(old.host)
                world.wait(self.enter(again, world.rng.choice(world.members())))
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])
                mine = core_of(again).me
                self.assertEqual(mine.id, old.id)
                claim = world.wait(again.service.node.operations.read(claim_key(mine.identifier)))
                self.assertNotEqual(claim, claimed)
                self.assertIn(mine.instance, claim)
                world.settle(15)  # who is known to be gone is not waited for
                self.readable(world, written, world.nodes)

    def test_recover(self) -> None:
        """After more crashes than the copies bear, a recovery keeps what is left of every key."""
        for seed in seeds(6):
            with self.world(seed, replicas=(5, 3, 1)[seed % 3]) as world:
                written = self.write(world, self.grow(world, 7)[0])
                left = self.crash_too_many(world)
                self.closes(world, world.members(), 3)
                self.judge(world, written, left)
                report = world.wait(world.members()[0].service.recover(accept_data_loss=True))
                there = {key: value for key, value in written.items() if left.of(key)}
                broken = [key for key in there if left.of(key) < left.quorum]
                self.assertEqual(
                    report, RecoveryReport(1, *left.counts(), keys=len(broken)), (report, left)
                )
                found = world.wait(world.members()[1].service.get_many(written))
                self.assertEqual(found, there)
                world.settle(60)
                self.readable(world, self.write(world, world.members()[1], 120), world.members())

    def test_recover_twice(self) -> None:
        """Recoveries in two nodes at once do no harm: one wins, all is writable."""
        for seed in seeds(3):
            with self.world(seed, replicas=(5, 3, 1)[seed % 3]) as world:
                written = self.write(world, self.grow(world, 7)[0])
                left = self.crash_too_many(world)
                self.closes(world, world.members(), 3)
                both = world.rng.sample(world.members(), 2)
                reports = self.all_of(
                    world, [node.service.recover(accept_data_loss=True) for node in both]
                )
                self.assertIn(False, [report.superseded for report in reports])
                world.settle(60)
                there = {key: value for key, value in written.items() if left.of(key)}
                self.assertEqual(world.wait(both[0].service.get_many(written)), there)
                self.readable(world, self.write(world, both[1], 120), world.members())

    def crash_too_many(self, world: World) -> Left:
        """So many nodes die at the same moment that some groups have no quorum, or nobody, left."""
        core = core_of(world.members()[0])
        quorum = core.replicas // 2 + 1
        world.run(1)  # every member has got what a quorum had at once
        victims = world.rng.sample(world.members(), world.rng.randint(quorum, core.replicas))
        gone = {core_of(node).instance for node in victims}
        left = Left(
            core,
            {
                config.partition: sum(peer.instance not in gone for peer in config.members)
                for config in core.directory
            },
        )
        for node in victims:
            world.crash(node)
        return left

    def judge(self, world: World, written: dict[bytes, bytes], left: Left) -> None:
        """Groups that have a quorum go on; of the others an error says how it is."""
        node = world.rng.choice(world.members())
        whole = {key: value for key, value in written.items() if left.of(key) >= left.quorum}
        self.assertEqual(world.wait(node.service.get_many(whole)), whole)
        world.wait(node.service.update(whole))
        broken = [key for key in written if key not in whole]
        if broken:
            key = world.rng.choice(broken)
            tries = [node.service.get(key), node.service.set(key, written[key])]
            for error in self.all_of(world, tries):
                self.assertIsInstance(error, Unavailable)
                self.assertEqual((error.reachable, error.members), (left.of(key), left.replicas))

    def test_whole_ring_but_one(self) -> None:
        """All members but one die: the last one has everything, once it recovered the ring."""
        for seed in seeds(2):
            with self.world(seed) as world:
                members = self.grow(world, 5)
                written = self.write(world, members[0])
                world.run(1)
                last = members[seed % 5]
                for node in members:
                    if node is not last:
                        world.crash(node)
                self.closes(world, [last], 5)
                report = world.wait(last.service.recover(accept_data_loss=True))
                self.assertEqual(report, RecoveryReport(1, 0, 0, reformed=64, keys=100))
                self.readable(world, written, [last])
                written |= self.write(world, last, 120)
                world.wait(self.enter(world.add(), last))
                world.settle(20)
                self.readable(world, written, world.nodes)

    def test_all_through_one_address(self) -> None:
        """A member that is asked to connect to a member of its own ring does nothing."""
        with self.world(1) as world:
            members = self.grow(world, 3)
            for node in members:
                for other in members:
                    if node is not other:
                        world.wait(node.service.connect(*address(other)))
            world.settle(5)
