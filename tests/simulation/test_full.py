"""Rings of whole nodes: how many they hold, how far look-ups go, and how they close and heal.

``P2P_SEEDS=n`` changes the number of seeds in proportion (60 is the ordinary one), ``P2P_SEED=n``
replays one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

from twisted.internet.defer import Deferred

from py2p_twisted.errors import RingFull
from py2p_twisted.ring.circle import distance

from .ring_case import RingCase, address, seeds
from .weather import PERFECT, ROUGH, SimOptions
from .world import World

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
    ) -> None:
        """So many nodes want to join at the same moment."""
        with self.world(seed, k, options) as world:
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
        for seed in seeds(20):
            self.at_once(1, 1 + seed % 3, PERFECT, seed)

    def test_two_bits(self) -> None:
        """k=2 holds four, of three to six that join at once."""
        for seed in seeds(60):
            self.at_once(2, 3 + seed % 4, PERFECT if seed % 3 else LATE, seed)

    def test_three_bits(self) -> None:
        """k=3 holds eight."""
        for seed in seeds(20):
            self.at_once(3, 7 + seed % 4, PERFECT if seed % 3 else LATE, seed)

    def test_four_bits(self) -> None:
        """k=4 holds sixteen."""
        for seed in seeds(4):
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
        for seed in seeds(30):
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
        """A full ring takes a node again once one was killed and the ring recovered."""
        for seed in seeds(10):
            with self.world(seed, k=2) as world:
                members = self.grow(world, 4)
                fifth = world.add()
                self.fails(world, RingFull, self.enter(fifth, members[0]))
                world.crash(world.rng.choice(members))
                self.closes(world, world.members(), 2)
                world.wait(world.members()[0].service.recover(accept_data_loss=True))
                world.wait(fifth.service.join())
                self.assertEqual(self.ids(world.members()), [0, 1, 2, 3])
                world.settle(20)


class TestLookups(JoinCase):
    """Look-ups on a settled ring take at most k requests."""

    def check_all(self, world: World) -> None:
        """From every node for every identifier."""
        k = world.settings.k
        world.run(2.0 * k + 2)  # every finger was looked up since
        ids = self.ids(world.members())
        for target in range(1 << k):
            owner = min(ids, key=lambda identifier: distance(target, identifier, k))
            searches = [
                Deferred.fromCoroutine(node.service.node.finder.find_successor(target))
                for node in world.members()
            ]
            for found in self.all_of(world, searches):
                self.assertEqual(found.owner.id, owner)
                self.assertLessEqual(found.requests, k)

    def test_at_most_k(self) -> None:
        """Rings with k=1 to 5, full ones too."""
        for k, sizes in {1: (2,), 2: (1, 3, 4), 3: (5, 8), 4: (9, 16), 5: (20,)}.items():
            for size in sizes:
                with self.world(size, k) as world:
                    self.grow(world, size)
                    self.check_all(world)

    def test_full_ring_of_six_bits(self) -> None:
        """64 of 66 that join at once get in (k=6); and from each, each is found."""
        for seed in seeds(1):
            self.at_once(6, 65, PERFECT, seed, self.check_all)
