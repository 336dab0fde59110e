"""Rings of whole nodes: how many they hold, how far look-ups go, and how they close and heal.

``P2P_SEEDS=n`` changes the number of seeds in proportion (60 is the ordinary one), ``P2P_SEED=n``
replays one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import permutations

from twisted.internet.defer import Deferred

from py2p_twisted.base import Peer
from py2p_twisted.errors import RingFull
from py2p_twisted.node.core import claim_key
from py2p_twisted.ring.circle import distance

from .ring_case import RingCase, address, seeds
from .weather import PERFECT, ROUGH, SimOptions
from .world import SimNode, World

#: Late, split and merged, but no connection is reset: nobody has a reason to give up.
LATE = replace(ROUGH, reset_rate=0.0)


class JoinCase(RingCase):
    """Nodes that join at the same moment."""

    def at_once(
        self,
        k: int,
        joiners: int,
        options: SimOptions,
        seed: int,
        then: Callable[[World], object] = lambda world: None,
        *,
        replicas: int | None = None,
    ) -> None:
        """So many nodes want to join at the same moment; by default with 5, 1 or 3 copies."""
        replicas = replicas or (5, 1, 3, 5)[seed % 4]
        with self.world(seed, k, options, replicas=replicas) as world:
            members = [world.add()]
            world.wait(members[0].service.join())
            if seed % 2 and k > 1:
                members.append(world.add())
                world.wait(self.enter(members[1], members[0]))
            room = (1 << k) - len(members)
            nodes = [world.add() for _ in range(joiners)]
            through = [world.rng.choice(members) for _ in nodes]
            results = self.all_of(world, map(self.enter, nodes, through))
            refused = [result for result in results if result is not None]
            self.assertEqual(len(refused), max(0, joiners - room), refused)
            self.assertEqual({type(error) for error in refused} - {RingFull}, set())
            world.settle(60)
            ids = self.ids(world.members())
            self.assertEqual(len(set(ids)), min(1 << k, len(members) + joiners))
            then(world)


class TestRoom(JoinCase):
    """A ring holds exactly ``2**k`` nodes, in whatever order they come."""

    def test_every_order(self) -> None:
        """Four nodes of k=2, one by one in each order, each through a random member."""
        for number, order in enumerate(permutations(range(1, 5))):
            with self.world(number, k=2) as world:
                first, *others = [world.add(f"10.0.0.{host}") for host in order]
                world.wait(first.service.join())
                for node in others:
                    world.wait(self.enter(node, world.rng.choice(world.members())))
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])
                world.settle(20)
                late = world.add("10.0.0.5")
                self.fails(world, RingFull, self.enter(late, world.rng.choice(world.members())))

    def test_one_bit(self) -> None:
        """k=1 holds two."""
        for seed in seeds(12):
            self.at_once(1, 1 + seed % 3, PERFECT, seed)

    def test_two_bits(self) -> None:
        """k=2 holds four, of three to six that join at once."""
        for seed in seeds(30):
            self.at_once(2, 3 + seed % 4, PERFECT if seed % 3 else LATE, seed)

    def test_three_bits(self) -> None:
        """k=3 holds eight."""
        for seed in seeds(8):
            self.at_once(3, 7 + seed % 4, PERFECT if seed % 3 else LATE, seed)

    def test_four_bits(self) -> None:
        """k=4 holds sixteen."""
        for seed in seeds(3):
            self.at_once(4, 15 + seed % 4, PERFECT if seed % 3 else LATE, seed)

    def test_room_after_a_leave(self) -> None:
        """A full ring takes a node again once one has left."""
        for seed in seeds(10):
            with self.world(seed, k=2) as world:
                members = self.grow(world, 4)
                fifth = world.add()
                self.fails(world, RingFull, self.enter(fifth, members[0]))
                world.wait(world.rng.choice(members).service.unjoin())
                world.wait(fifth.service.join())
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])
                world.settle(20)

    def test_room_after_given_up_joins(self) -> None:
        """A join that is given up, whenever that is, keeps no place from others."""
        for seed in seeds(15):
            with self.world(seed, k=2) as world:
                members = self.grow(world, 2)
                undecided = world.add()
                world.wait(undecided.service.connect(*address(members[0])))
                joining = undecided.service.join()
                world.run(0.0004 * (2 * seed % 60))
                done = joining.called
                joining.cancel()
                self.all_of(world, [joining])
                if done:
                    continue
                if seed % 2:
                    world.run(0.1)
                    results = self.all_of(
                        world, [self.enter(world.add(), members[1]) for _ in range(2)]
                    )
                    self.assertEqual(results, [None, None])
                else:
                    world.wait(undecided.service.join())  # it may change its mind at once
                    world.wait(self.enter(world.add(), members[1]))
                world.settle(20)
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])

    def test_room_after_a_crash(self) -> None:
        """A full ring takes a node again as soon as one was killed, and loses nothing."""
        for seed in seeds(6):
            with self.world(seed, k=2, replicas=3 + 2 * (seed % 2)) as world:
                members = self.grow(world, 4)
                written = self.write(world, members[0])
                fifth = world.add()
                self.fails(world, RingFull, self.enter(fifth, members[0]))
                world.crash(world.rng.choice(members))
                self.closes(world, world.members(), 2)
                world.wait(fifth.service.join())
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])
                self.readable(world, written, world.nodes)
                world.settle(45)
                self.readable(world, written, world.nodes)

    def test_room_after_a_recovery(self) -> None:
        """With one copy of everything the claim may be lost: a recovery makes room again."""
        for seed in seeds(6):
            with self.world(seed, k=2, replicas=1) as world:
                members = self.grow(world, 4)
                fifth = world.add()
                self.fails(world, RingFull, self.enter(fifth, members[0]))
                world.crash(world.rng.choice(members))
                self.closes(world, world.members(), 2)
                world.wait(world.members()[0].service.recover(accept_data_loss=True))
                world.wait(fifth.service.join())
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])
                world.settle(20)

    def test_claims_of_the_dead(self) -> None:
        """When a dead member is replaced, its claim ends; who was only frozen claims again."""
        for seed in seeds(2):
            with self.world(seed) as world:
                members = self.grow(world, 7)
                world.run(15)
                killed, frozen, reader, *_ = world.rng.sample(members, 7)
                names = [node.service.node.core.me for node in (killed, frozen)]

                def claims(
                    world: World = world, reader: SimNode = reader, names: list[Peer] = names
                ) -> list[bytes | None]:
                    read = reader.service.node.operations.read
                    return [world.wait(read(claim_key(peer.identifier))) for peer in names]

                world.crash(killed)
                frozen.host.pause()
                world.run(20)  # silent, but not yet for long
                for peer, claim in zip(names, claims(), strict=True):
                    self.assertIn(peer.instance, claim or b"")
                world.run(35)
                self.assertEqual(claims(), [None, None])
                frozen.host.resume()
                world.settle(30)
                world.run(15)
                self.assertEqual(frozen.service.node.core.me, names[1])
                self.assertIn(names[1].instance, claims()[1] or b"")


class TestLookups(JoinCase):
    """Look-ups on a settled ring take at most k requests."""

    def check_all(self, world: World, every: int = 1) -> None:
        """From every node for every identifier, or for every so-manieth one."""
        k = world.settings.k
        world.run(2.0 * k + 2)  # every finger was looked up since
        ids = self.ids(world.members())
        for target in range(1 << k):
            owner = min(ids, key=lambda identifier: distance(target, identifier, k))
            searches = [
                Deferred.fromCoroutine(node.service.node.finder.find_successor(target))
                for node in world.members()
                if (target + node.service.node.core.me.id) % every == 0
            ]
            for found in self.all_of(world, searches):
                self.assertEqual(found.owner.id, owner)
                self.assertLessEqual(found.requests, k)

    def test_at_most_k(self) -> None:
        """Rings with k=1 to 5, full ones too."""
        for k, sizes in {1: (2,), 2: (1, 3, 4), 3: (5, 8), 4: (9, 16), 5: (20,)}.items():
            for size in sizes:
                with self.world(size, k, replicas=(1, 3, 5)[size % 3]) as world:
                    self.grow(world, size)
                    self.check_all(world)

    def test_full_ring_of_six_bits(self) -> None:
        """64 of 66 that join at once get in (k=6); and from each a quarter of all is found."""
        for seed in seeds(1):
            look = partial(self.check_all, every=4)
            self.at_once(6, 65, PERFECT, seed, look, replicas=1)
