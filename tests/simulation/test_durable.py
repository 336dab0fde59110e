"""Nodes with disks: nothing that was acknowledged is lost, whoever is killed, and all at once.

``P2P_SEEDS=n`` runs n / 3 seeds (n is 60 by default), ``P2P_SEED=n`` replays one.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed

from py2p_twisted.errors import StorageError, StorageFull, Unavailable
from py2p_twisted.node.core import Core, Phase, user_key
from py2p_twisted.node.drafts import Draft
from py2p_twisted.node.stored import StoredRecords
from py2p_twisted.table.group import Config

from .disk import SimDisk
from .durable import durable
from .ring_case import RingCase, address, seeds
from .world import SimNode, World

#: Seeds that were red once; they stay.
FOUND = (103, 157, 207, 215, 275, 284)

KEY = b"key"


def core_of(node: SimNode) -> Core:
    return node.service.node.core


def shows_at_once(node: SimNode) -> None:
    """Rule 13 taken out: replies, own votes and own copies do not wait for the disk."""
    core = core_of(node)
    core.holds = lambda partition: False  # type: ignore[method-assign]
    core.when_kept = lambda call, partitions=None: call()  # type: ignore[method-assign]
    core.kept = lambda: succeed(None)  # type: ignore[method-assign]


class TestSeeds(RingCase):
    """Every seed is green."""

    def test_crashes(self) -> None:
        """Nodes are killed, stopped, paused and cut off, many or all at once, and come back."""
        reports = []
        for seed in sorted({*seeds(20), *FOUND}):
            try:
                reports.append(durable(seed))
            except Exception as error:
                raise AssertionError(
                    f"replay with P2P_SEED={seed} trial tests.simulation.test_durable\n"
                    f"{type(error).__name__}: {error}"
                ) from error
        print(
            f"\ndurable: {len(reports)} seeds, {sum(r.operations for r in reports):,} operations "
            f"({sum(r.unknown for r in reports):,} of unknown outcome), "
            f"slowest to settle {max(r.settled for r in reports):.1f} s"
        )

    def test_without_rule_13(self) -> None:
        """Who shows what is not on the disk yet is noticed."""
        for seed in (10, 37, 47):
            try:
                durable(seed, shows_at_once)
            except AssertionError:
                return
        self.fail("no seed noticed that rule 13 is gone")


class DiskCase(RingCase):
    """Rings of nodes with disks."""

    def keeping(self, world: World, size: int) -> list[SimNode]:
        """A settled ring of nodes with disks."""
        for number in range(size):
            node = world.add(disk=SimDisk(Random(number)))
            first = world.nodes[0]
            world.wait(node.service.join() if node is first else self.enter(node, first))
        world.settle(60)
        world.run(2)
        return world.members()

    def restart(self, world: World, node: SimNode) -> SimNode:
        """Kill a node, and start it with its disk."""
        world.crash(node)
        return world.add(node.host.address, disk=node.disk)

    def group(self, world: World) -> tuple[Config, list[SimNode]]:
        """The group of the key, and its members in order."""
        core = core_of(world.nodes[0])
        config = core.directory.get(core.partition(user_key(KEY)))
        assert config is not None
        by_instance = {core_of(node).instance: node for node in world.nodes}
        return config, [by_instance[peer.instance] for peer in config.members]

    def soon(self, world: World, deferred: Deferred[Any], seconds: float) -> bool:
        """Does it end by itself in that time?"""
        return world.run_while(lambda: not deferred.called, seconds)


class TestRestart(DiskCase):
    """A process that comes back with its disk is the node that it was."""

    def test_alone(self) -> None:
        """One node, killed and started again."""
        for seed in seeds(3):
            with self.world(seed) as world:
                (node,) = self.keeping(world, 1)
                written = self.write(world, node, 200)
                again = self.restart(world, node)
                self.assertIs(again.phase, Phase.JOINED)
                self.assertEqual(core_of(again).instance, core_of(node).instance)
                self.readable(world, written, [again])
                more = self.write(world, again, 250)
                self.readable(world, more, [self.restart(world, again)])

    def test_one_of_five(self) -> None:
        """It is back in its groups at once, and copies nothing but what it missed."""
        for seed in seeds(3):
            with self.world(seed, replicas=3) as world:
                members = self.keeping(world, 5)
                written = self.write(world, members[0], 500)
                epochs = set(core_of(members[0]).directory)
                world.run(1)
                again = self.restart(world, world.rng.choice(members))
                self.assertLess(world.settle(30), 10)
                self.readable(world, written, world.nodes)
                self.assertEqual(epochs, set(core_of(again).directory))
                self.assertLess(again.service.node.sync.pulled, 50)

    def test_catches_up_at_once(self) -> None:
        """What was written while it was away is there seconds later."""
        for seed in seeds(3):
            with self.world(seed, replicas=3) as world:
                members = self.keeping(world, 3)
                away, other = members[1], members[0]
                world.crash(away)
                world.run(2)
                written = self.write(world, other, 2000)
                again = world.add(away.host.address, disk=away.disk)
                self.assertLess(core_of(again).keys, len(written))
                self.complete(world, again, len(written))
                self.assertEqual([core_of(node).found_differences for node in world.nodes], [0] * 3)

    def complete(self, world: World, node: SimNode, keys: int) -> None:
        """Within a few seconds it keeps so many keys, and says that it has caught up."""
        core = core_of(node)
        self.until(world, lambda: core.keys == keys, 5, "it is still behind")
        self.until(world, lambda: not core.catching_up, 5, "it does not say that it is done")

    def test_all_at_once(self) -> None:
        """All are killed at the same moment and come back in any order, without --join."""
        for seed in seeds(3):
            with self.world(seed, replicas=3) as world:
                members = self.keeping(world, 5)
                written = self.write(world, members[0], 300)
                for node in members:
                    world.crash(node)
                world.rng.shuffle(members)
                for node in members:
                    world.run(world.rng.choice((0.01, 1.0, 3.0)))
                    world.add(node.host.address, disk=node.disk)
                self.assertLess(world.settle(60), 20)
                self.readable(world, written, world.nodes)

    def test_stopping_is_not_leaving(self) -> None:
        """A service that stops keeps its place; nothing is handed over, and nothing is lost."""
        for seed in seeds(3):
            with self.world(seed, replicas=3) as world:
                members = self.keeping(world, 4)
                written = self.write(world, members[0], 200)
                epochs = set(core_of(members[0]).directory)
                node = members[seed % 4]
                world.wait(node.service.stopService())
                world.nodes.remove(node)
                node.host.crash()
                world.run(5)
                again = world.add(node.host.address, disk=node.disk)
                world.settle(30)
                self.assertEqual(epochs, set(core_of(again).directory))
                self.readable(world, written, world.nodes)

    def test_left_and_back(self) -> None:
        """Who left keeps nothing, and is no member after a restart; it may join again."""
        for seed in seeds(3):
            with self.world(seed, replicas=3) as world:
                members = self.keeping(world, 4)
                written = self.write(world, members[0], 200)
                node = members[-1]
                world.wait(node.service.unjoin())
                world.run(1)
                again = self.restart(world, node)
                world.run(2)
                self.assertIs(again.phase, Phase.LEECHING)
                world.wait(self.enter(again, world.nodes[0]))
                world.settle(60)
                self.readable(world, written, world.nodes)

    def test_replaced_meanwhile(self) -> None:
        """Who was away for so long that it was replaced comes back, and serves nothing old."""
        for seed in seeds(3):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                members = self.keeping(world, 5)
                self.write(world, members[0], 200)
                node = members[2]
                world.crash(node)
                world.run(20)
                written = {b"key %d" % n: b"newer %d" % n for n in range(200)}
                world.wait(world.nodes[0].service.update(written))
                world.add(node.host.address, disk=node.disk)
                world.settle(60)
                self.readable(world, written, world.nodes)

    def test_disk_lost(self) -> None:
        """Without its disk it is another instance."""
        with self.world(0, replicas=3) as world:
            members = self.keeping(world, 4)
            written = self.write(world, members[0], 200)
            world.crash(members[1])
            again = world.add(members[1].host.address, disk=SimDisk(Random(9)))
            self.assertNotEqual(core_of(again).instance, core_of(members[1]).instance)
            world.wait(self.enter(again, world.nodes[0]))
            world.settle(60)
            self.readable(world, written, world.nodes)


class TestRule13(DiskCase):
    """Nothing counts before it is on the disk."""

    def slow(self, node: SimNode) -> None:
        assert node.disk is not None
        node.disk.delay = (1.5, 1.5)

    def check(self, which: int, spoil: Callable[[SimNode], None]) -> tuple[bool, bool]:
        """Is a write done while one of the two disks that it needs is slow; is it done later?"""
        with self.world(0, replicas=3) as world:
            world.spoil = spoil
            self.keeping(world, 3)
            _, (proposer, second, third) = self.group(world)
            client = world.add()
            world.wait(client.service.connect(*address(proposer)))
            world.wait(client.service.set(KEY, b"before"))
            world.run(1)
            world.network.cut(
                [third.host.address], [n.host.address for n in world.nodes if n is not third]
            )
            self.slow((proposer, second)[which])
            writing = client.service.set(KEY, b"after")
            early = self.soon(world, writing, 1)
            later = self.soon(world, writing, 8)
            world.network.calm()
            world.run(20)
            return early, later

    def test_own_vote(self) -> None:
        """The proposer's own disk counts."""
        self.assertEqual(self.check(0, lambda node: None), (False, True))
        self.assertEqual(self.check(0, shows_at_once), (True, True))

    def test_acceptance(self) -> None:
        """A member's acknowledgement waits for its disk."""
        self.assertEqual(self.check(1, lambda node: None), (False, True))
        self.assertEqual(self.check(1, shows_at_once), (True, True))

    def test_own_copy(self) -> None:
        """A member does not read its own copy before it is on the disk."""
        for spoil, early in ((lambda node: None, False), (shows_at_once, True)):
            with self.world(0, replicas=1) as world:
                world.spoil = spoil
                (node,) = self.keeping(world, 1)
                world.wait(node.service.set(KEY, b"before"))
                self.slow(node)
                writing = node.service.set(KEY, b"after")
                reading = node.service.get(KEY)
                self.assertEqual(self.soon(world, reading, 1), early)
                self.assertEqual(writing.called, early)
                world.run(10)
                self.assertEqual(self.successResultOf(reading), b"after")

    def test_no_ballot_twice(self) -> None:
        """A proposer that forgot a write proposes nothing else at the ballot of that write."""
        self.assertEqual(self.forgotten(None), b"third")
        self.assertEqual(self.forgotten(1), b"second")

    def forgotten(self, lives: int | None) -> bytes:
        """What is read in the end; `lives` is what the proposer takes for its number of lives."""
        with self.world(0, replicas=3) as world:
            self.keeping(world, 3)
            _, (proposer, second, third) = self.group(world)
            assert proposer.disk is not None
            world.wait(proposer.service.set(KEY, b"first"))
            world.run(1)
            cut = self.apart(world, third)
            self.slow(proposer)
            proposer.service.set(KEY, b"second").addErrback(lambda _: None)
            world.run(0.5)  # the second member has it, the proposer's disk has not
            world.network.reset(proposer.host.address, third.host.address)  # the third never will
            world.network.heal(cut)
            cut = self.apart(world, second)

            def forget(node: SimNode) -> None:
                core_of(node).become(core_of(node).me, lives)

            world.spoil = forget
            proposer.disk.crash(0)
            back = self.restart(world, proposer)
            proposer.disk.delay = (0.001, 0.001)
            world.eventually(lambda: self.not_closed([back, third]), 30)
            world.wait(back.service.set(KEY, b"third"))
            world.network.heal(cut)
            self.apart(world, third)
            world.eventually(lambda: self.not_closed([back, second]), 30)
            found: bytes = world.wait(second.service.get(KEY))
            world.network.calm()
            world.run(20)
            return found

    def apart(self, world: World, node: SimNode) -> Any:
        """Cut one node off."""
        others = [other.host.address for other in world.nodes if other is not node]
        return world.network.cut([node.host.address], others)


class TestFailure(DiskCase):
    """A disk that fails."""

    def test_drops_out(self) -> None:
        """The node keeps nothing any more, says so, and others take its place."""
        with self.world(0, replicas=3, evict_after=2.0) as world:
            members = self.keeping(world, 5)
            written = self.write(world, members[0], 200)
            victim = members[2]
            assert victim.disk is not None
            victim.disk.failure = StorageFull("the disk is full")
            world.wait(members[0].service.update({b"more %d" % n: b"" for n in range(200)}))
            self.until(world, lambda: victim.pointers is None, 10, "it stays a member")
            self.assertIn("the disk is full", victim.service.status)
            world.settle(60)
            self.readable(world, written, world.nodes)

    def test_comes_back(self) -> None:
        """Who dropped out may come back with its disk: nobody took its memory for gone.

        The other of two would else go on alone, and the first one back without knowing of that.
        """
        for seed in seeds(3):
            with self.world(seed, evict_after=5.0) as world:
                other, victim = self.keeping(world, 2)
                before = core_of(victim).instance
                world.wait(other.service.set(KEY, b"old"))
                self.fill(world, victim)
                self.assertEqual(core_of(victim).instance, before)
                self.fails(world, Unavailable, other.service.set(KEY, b"new"))
                self.fails(world, StorageError, victim.service.join())
                back = self.restart(world, victim)
                self.all_joined(world, [other, back], 30)
                world.settle(60)
                world.wait(back.service.set(KEY, b"newest"))
                self.fill(world, other)
                last = self.restart(world, other)
                world.settle(60)
                self.assertEqual(world.wait(last.service.get(KEY)), b"newest")

    def fill(self, world: World, node: SimNode) -> None:
        """Let its disk be full until the node has noticed."""
        assert node.disk is not None
        node.disk.failure = StorageFull("the disk is full")
        node.service.set(b"more", b"").addErrback(lambda _: None)
        self.until(world, lambda: node.pointers is None, 30, "it stays a member")
        node.disk.failure = None
        world.run(10)


class TestQuota(DiskCase):
    """A node with a quota of bytes."""

    def test_full(self) -> None:
        """Writes that need room are refused, whole; all others go on, and room comes back."""
        for size, replicas in ((1, 1), (4, 3)):
            with self.world(0, replicas=replicas) as world:
                members = self.keeping(world, size)
                written = self.write(world, members[0], 50)
                small = members[-1]
                assert small.disk is not None
                small.disk.quota = small.disk.used + 2_000
                core = core_of(small)
                kept = [key for key in written if core.partition(user_key(key)) in core.acceptors]
                keeping = set(core.acceptors)
                writer = members[0].service
                large = {b"large %d" % n: bytes(200) for n in range(200)}
                mine = [key for key in large if core.partition(user_key(key)) in keeping]
                for key in mine:  # until it is full, and says so
                    deferred = writer.set(key, large[key])
                    (result,) = self.all_of(world, [deferred])
                    if isinstance(result, StorageFull):
                        break
                    world.run(0.2)
                else:
                    self.fail("nothing was refused")
                self.assertFalse(result.outcome_unknown)
                self.assertIn(str(core.me), str(result))
                self.assertIsNone(world.wait(writer.get(key, None)))
                self.fails(world, StorageFull, writer.update({key: large[key] for key in mine}))
                self.readable(world, written, members)
                world.wait(writer.set(kept[0], b""))  # shorter than before
                world.wait(writer.delete(kept[1]))
                elsewhere = [key for key in large if key not in mine]
                for other in elsewhere[:5]:
                    world.wait(writer.set(other, large[other]))
                small.disk.quota = small.disk.used + 100_000
                world.run(3)
                world.wait(writer.set(key, large[key]))
                self.assertEqual(world.wait(writer.get(key)), large[key])


class TestLargeValues(DiskCase):
    """Values that are on the disk and not in memory."""

    def in_memory(self, node: SimNode) -> int:
        """Bytes of values that a node has in memory, its cache included."""
        core = core_of(node)
        assert core.journal is not None
        sets = [a.records for a in core.acceptors.values()]
        sets += [staged.records for staged in core.staged.values()]
        loaded = core.journal.shelf.cache.used
        for records in sets:
            assert isinstance(records, StoredRecords | Draft)
            uncommitted = records._dirty if isinstance(records, StoredRecords) else records.changes
            loaded += sum(
                len(record.value)
                for record in uncommitted.values()
                if record is not None and isinstance(record.value, bytes)
            )
        return loaded

    def test_more_than_memory(self) -> None:
        """What is written, read, iterated, moved, and there after a restart, is not kept there."""
        cache = 200_000
        with self.world(0, replicas=3, cache=cache) as world:
            members = self.keeping(world, 3)
            written = {b"key %d" % n: bytes([n]) * 30_000 for n in range(200)}
            world.wait(members[0].service.update(written))
            world.run(2)

            def small() -> bool:
                return all(self.in_memory(node) < 1.5 * cache for node in world.nodes)

            self.assertTrue(small())
            self.readable(world, written, members)
            joiner = world.add(disk=SimDisk(Random(7)))
            world.wait(self.enter(joiner, members[0]))
            world.settle(60)
            world.run(2)
            self.assertTrue(small())
            self.readable(world, written, world.nodes)
            victim = world.nodes[1]
            again = self.restart(world, victim)
            self.assertLess(self.in_memory(again), 10_000)
            world.settle(60)
            self.assertEqual(world.wait(again.service.compare_and_set(b"key 7", b"x", b"y")), False)
            old = written[b"key 7"]
            self.assertTrue(world.wait(again.service.compare_and_set(b"key 7", old, b"new")))
            written[b"key 7"] = b"new"

            async def items() -> dict[bytes, bytes]:
                return {key: value async for key, value in again.service.items()}

            self.assertEqual(world.wait(items()), written)
            self.assertTrue(small())

    def test_damaged(self) -> None:
        """A value that the disk does not give back is never told; the node drops out."""
        with self.world(0, replicas=3, cache=0, evict_after=2.0) as world:
            members = self.keeping(world, 5)
            written = {b"key %d" % n: bytes([n]) * 1000 for n in range(100)}
            world.wait(members[0].service.update(written))
            world.run(2)
            victim = members[2]
            assert victim.disk is not None
            victim.disk.damaged = True
            for key in written:
                for node in world.nodes:
                    self.assertEqual(world.wait(node.service.get(key)), written[key])
            self.until(world, lambda: victim.pointers is None, 10, "it stays a member")
            world.settle(60)
            self.readable(world, written, world.nodes)

    def test_damaged_while_it_is_used(self) -> None:
        """Writes, reads and moves meet a disk that cannot be read: the node drops out."""
        for seed in seeds(6):
            with self.world(seed, replicas=3, cache=0, evict_after=2.0) as world:
                members = self.keeping(world, 5)
                written = self.write(world, members[0], 200)
                world.run(2)
                victim = world.rng.choice(members[1:])
                assert victim.disk is not None
                victim.disk.damaged = True
                joiner = world.add(disk=SimDisk(Random(seed)))
                entering = self.enter(joiner, members[0])
                for number, key in enumerate(written):
                    node = world.rng.choice([n for n in members if n is not victim])
                    if number % 3 == 0:
                        written[key] = b"again %d" % number
                        world.wait(node.service.set(key, written[key]))
                    elif number % 3 == 1:
                        self.assertEqual(world.wait(node.service.get(key)), written[key])
                world.run_while(lambda out=victim: out.pointers is not None, 20)
                self.assertIsNone(victim.pointers, "it stays a member")
                world.wait(entering)
                world.settle(60)
                self.readable(world, written, world.nodes)
