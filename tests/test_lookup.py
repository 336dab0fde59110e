"""Look-ups, routes and fingers on rings that are laid out by hand."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.ring.circle import between, distance
from py2p_twisted.ring.lookup import Fingers, Lookup, route

SEED = int(os.environ.get("P2P_SEED", "2"))


@dataclass(frozen=True)
class Node:
    """Somewhere on the circle."""

    id: int


def nodes(ids: Iterable[int]) -> list[Node]:
    return [Node(i) for i in ids]


def names(found: Iterable[Node]) -> list[int]:
    return [node.id for node in found]


class Ring:
    """An ideal ring with exact fingers; `dead` ones do not answer, and nobody noticed yet."""

    def __init__(self, members: Iterable[int], k: int, r: int, dead: Collection[int] = ()) -> None:
        self.k = k
        self.ids = sorted(members)
        self.r = min(r, len(self.ids) - 1)
        self.dead = dead
        self.live = [i for i in self.ids if i not in dead]
        self.fingers = {i: self._fingers(i).peers() for i in self.ids}

    def following(self, identifier: int, among: Sequence[int]) -> int:
        """The first of those at or after an identifier."""
        return min(among, key=lambda i: distance(identifier, i, self.k))

    def successors(self, member: int) -> list[Node]:
        at = self.ids.index(member)
        return nodes(self.ids[(at + step) % len(self.ids)] for step in range(1, self.r + 1))

    def route(self, member: int, target: int) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        return route(Node(member), self.successors(member), self.fingers[member], target)

    def find(self, start: int, target: int, limit: int) -> tuple[Lookup[Node], list[int]]:
        """A finished look-up, and who was asked."""
        lookup: Lookup[Node] = Lookup(target, [], limit)
        lookup.answered(Node(start), *self.route(start, target), local=True)
        asked = []
        while True:
            while (peer := lookup.ask_next) is not None:
                asked.append(peer.id)
                if peer.id in self.dead:
                    lookup.failed(peer)
                else:
                    lookup.answered(peer, *self.route(peer.id, target))
            if lookup.owner is None or lookup.owner.id not in self.dead:
                return lookup, asked
            lookup.dead(lookup.owner)

    @property
    def within_assumptions(self) -> bool:
        """Does every live member have a live entry in its list?"""
        return bool(self.live) and all(
            any(node.id not in self.dead for node in self.successors(i)) for i in self.live
        )

    def _fingers(self, me: int) -> Fingers[Node]:
        """After one round of fix_fingers."""
        fingers: Fingers[Node] = Fingers(me, self.k)
        successor = next(iter(self.successors(me)), None)
        for _ in range(self.k):
            wanted = fingers.wanted(successor)
            if wanted is not None:
                fingers.found(wanted[0], Node(self.following(wanted[1], self.ids)))
        return fingers


class SettledTests(SynchronousTestCase):
    """On a settled ring every look-up is right and takes at most k requests."""

    def _check(self, ring: Ring, start: int, target: int) -> None:
        lookup, asked = ring.find(start, target, limit=1000)
        where = (ring.k, ring.ids, start, target)
        assert lookup.owner is not None and lookup.before is not None, where
        self.assertEqual(lookup.owner.id, ring.following(target, ring.ids), where)
        self.assertEqual(
            lookup.owner.id,
            ring.successors(lookup.before.id)[0].id if ring.r else start,
            where,
        )
        self.assertLessEqual(len(asked), ring.k, where)
        self.assertEqual((lookup.requests, lookup.timeouts), (len(asked), 0), where)
        size = 1 << ring.k
        left = [distance(i, target, ring.k) or size for i in (start, *asked)]
        self.assertEqual(left, sorted(set(left), reverse=True), f"not always closer: {where}")

    def test_every_ring_of_up_to_three_bits(self) -> None:
        for k in range(1, 4):
            for n in range(1, (1 << k) + 1):
                for ids in combinations(range(1 << k), n):
                    for r in (1, 8):
                        ring = Ring(ids, k, r)
                        for start in ids:
                            for target in range(1 << k):
                                self._check(ring, start, target)

    def test_every_look_up_in_rings_of_up_to_six_bits(self) -> None:
        rng = Random(SEED)
        for k in range(4, 7):
            for n, r in ((1 << k, 1), (rng.randrange(2, 1 << k), 8), (rng.randrange(2, 1 << k), 1)):
                ring = Ring(rng.sample(range(1 << k), n), k, r)
                for start in ring.ids:
                    for target in range(1 << k):
                        self._check(ring, start, target)

    def test_full_rings_of_seven_and_eight_bits(self) -> None:
        rng = Random(SEED)
        for k in (7, 8):
            ring = Ring(range(1 << k), k, 1)
            for start in rng.sample(ring.ids, 12):
                for target in range(1 << k):
                    self._check(ring, start, target)

    def test_large_circles(self) -> None:
        rng = Random(SEED)
        for k in (10, 24, 64, 160):
            for n in (1, 2, 3, 30, 150):
                ids = rng.sample(range(1 << 10), n)
                # Evenly over the circle, or all of them crowded into a corner.
                spread = [i << (k - 10) | rng.getrandbits(k) % (1 << (k - 10)) for i in ids]
                for chosen in (spread, ids):
                    ring = Ring(set(chosen), k, 8)
                    for _ in range(40):
                        near = rng.choice(ring.ids) + rng.choice((-1, 0, 1))
                        target = rng.choice((near % (1 << k), rng.getrandbits(k)))
                        self._check(ring, rng.choice(ring.ids), target)

    @given(st.data(), st.integers(1, 160), st.integers(1, 4))
    def test_any_ring(self, data: st.DataObject, k: int, r: int) -> None:
        identifiers = st.integers(0, (1 << k) - 1)
        ring = Ring(data.draw(st.sets(identifiers, min_size=1, max_size=12)), k, r)
        self._check(ring, data.draw(st.sampled_from(ring.ids)), data.draw(identifiers))


class FailureTests(SynchronousTestCase):
    """Dead nodes are gone round while every live member has a live entry in its list."""

    def _check(self, ring: Ring) -> None:
        for start in ring.live:
            for target in range(1 << ring.k):
                lookup, asked = ring.find(start, target, limit=10_000)
                where = (ring.ids, ring.dead, ring.r, start, target)
                assert lookup.owner is not None, where
                self.assertEqual(lookup.owner.id, ring.following(target, ring.live), where)
                self.assertEqual(len(set(asked)), len(asked), where)
                self.assertEqual(lookup.timeouts, len(set(asked) & set(ring.dead)), where)

    def test_every_ring_of_two_bits(self) -> None:
        for n in range(2, 5):
            for ids in combinations(range(4), n):
                for failures in range(n):
                    for dead in combinations(ids, failures):
                        for r in (1, 2, 3):
                            ring = Ring(ids, 2, r, dead)
                            if ring.within_assumptions:
                                self._check(ring)

    def test_random_rings(self) -> None:
        rng = Random(SEED)
        checked = 0
        while checked < 40:
            k = rng.randrange(3, 7)
            ids = rng.sample(range(1 << k), rng.randrange(2, min(1 << k, 24) + 1))
            ring = Ring(ids, k, rng.randrange(1, 9), set(rng.sample(ids, rng.randrange(len(ids)))))
            if ring.within_assumptions:
                self._check(ring)
                checked += 1

    def test_the_last_one_alive_finds_nobody(self) -> None:
        """It is not sure of itself before it noticed that the others are gone."""
        lookup, asked = Ring([0, 2, 4, 6], 3, 3, dead={2, 4, 6}).find(0, 7, limit=100)
        self.assertIsNone(lookup.owner)
        self.assertEqual(asked, [6, 4, 2])

    def test_earlier_candidates_are_a_way_back(self) -> None:
        """A member that knows no way on is not the end."""
        lookup = Lookup(50, nodes([40, 10]), limit=9)
        lookup.answered(Node(40), (), ())
        self.assertEqual(lookup.ask_next, Node(10))
        lookup.answered(Node(10), nodes([40, 30]), ())
        self.assertEqual(lookup.ask_next, Node(30))  # 40 was asked already
        lookup.answered(Node(30), (), nodes([60]))
        self.assertIsNone(lookup.ask_next)
        self.assertEqual((lookup.owner, lookup.before), (Node(60), Node(30)))

    def test_a_dead_owner_gives_way_to_the_next(self) -> None:
        lookup: Lookup[Node] = Lookup(50, [], limit=9)
        lookup.answered(Node(10), (), nodes([60, 70]), local=True)
        self.assertEqual(lookup.owner, Node(60))
        lookup.dead(Node(60))
        self.assertEqual(lookup.owner, Node(70))
        lookup.dead(Node(70))
        self.assertIsNone(lookup.owner)
        self.assertEqual((lookup.requests, lookup.timeouts), (0, 0))

    def test_owners_count_only_when_all_that_precede_failed(self) -> None:
        lookup: Lookup[Node] = Lookup(50, [], limit=9)
        lookup.answered(Node(10), nodes([40, 30]), nodes([60]), local=True)
        self.assertIsNone(lookup.owner)
        lookup.failed(Node(40))
        self.assertIsNone(lookup.owner)
        lookup.failed(Node(30))
        self.assertEqual(lookup.owner, Node(60))


class HostileTests(SynchronousTestCase):
    """Whatever the others say, a look-up ends."""

    @given(st.data(), st.integers(0, 63), st.integers(0, 30))
    def test_any_answers(self, data: st.DataObject, target: int, limit: int) -> None:
        anybody = st.lists(st.integers(0, 63).map(Node), max_size=6)
        lookup = Lookup(target, data.draw(anybody), limit)
        asked = set()
        while (peer := lookup.ask_next) is not None:
            self.assertNotIn(peer.id, asked)
            asked.add(peer.id)
            if data.draw(st.booleans()):
                lookup.answered(peer, data.draw(anybody), data.draw(anybody))
            else:
                lookup.failed(peer)
            self.assertEqual(lookup.requests, len(asked))
        self.assertLessEqual(lookup.requests, limit)
        if lookup.owner is not None:
            assert lookup.before is not None
            self.assertFalse(between(lookup.before.id, lookup.owner.id, target))

    def test_always_a_little_closer(self) -> None:
        """Someone who names ever new nodes is left at the limit, without an answer."""
        lookup = Lookup(1 << 100, [Node(0)], limit=20)
        while (peer := lookup.ask_next) is not None:
            lookup.answered(peer, [Node(peer.id + 1)], [Node((1 << 100) + 1)])
        self.assertEqual(lookup.requests, 20)
        self.assertIsNone(lookup.owner)

    def test_answers_that_do_not_come_closer(self) -> None:
        lookup = Lookup(50, nodes([30]), limit=9)
        lookup.answered(Node(30), nodes([30, 20, 50, 60]), nodes([40, 30, 60]))
        self.assertIsNone(lookup.ask_next)
        self.assertEqual(lookup.owner, Node(30))  # once around: it says that it is alone


class RouteTests(SynchronousTestCase):
    def test_alone(self) -> None:
        self.assertEqual(route(Node(5), [], [], 3), ((), (Node(5),)))

    def test_my_successor_is_the_answer(self) -> None:
        preceding, owners = route(Node(5), nodes([9, 12]), nodes([20]), 9)
        self.assertEqual((names(preceding), names(owners)), ([], [9, 12]))

    def test_nearest_to_the_target_first(self) -> None:
        """Across zero too; who is not on the way is not named, and nobody twice."""
        preceding, owners = route(Node(50), nodes([60, 2, 8]), nodes([2, 20, 40, 60]), 7)
        self.assertEqual((names(preceding), names(owners)), ([2, 60], [8]))

    def test_fingers_beyond_the_list(self) -> None:
        preceding, owners = route(Node(0), nodes([1, 2]), nodes([4, 8, 16, 32]), 20)
        self.assertEqual((names(preceding), names(owners)), ([16, 8, 4, 2, 1], []))

    def test_the_list_is_never_cut(self) -> None:
        """The owners of a list are the answer only if all before them failed."""
        successors = nodes([1, 2, 3, 30])
        preceding, owners = route(Node(0), successors, nodes(range(4, 20)), 25, most=5)
        self.assertEqual((names(preceding), names(owners)), ([19, 18, 17, 16, 15, 3, 2, 1], [30]))

    def test_once_around(self) -> None:
        """My own identifier is the last one that I come to."""
        preceding, owners = route(Node(5), nodes([6, 9]), nodes([1]), 5)
        self.assertEqual((names(preceding), names(owners)), ([1, 9, 6], []))


class FingersTests(SynchronousTestCase):
    def test_exact_after_one_round(self) -> None:
        for k in range(1, 7):
            rng = Random(k)
            for n in range(2, min(1 << k, 12) + 1):
                ring = Ring(rng.sample(range(1 << k), n), k, 1)
                for me in ring.ids:
                    starts = [(me + (1 << i)) % (1 << k) for i in range(k)]
                    exact = {ring.following(start, ring.ids) for start in starts}
                    found = {*names(ring.fingers[me]), ring.successors(me)[0].id, me}
                    self.assertEqual(found, exact | {ring.successors(me)[0].id, me})

    def test_a_round_asks_for_each_distinct_finger_once(self) -> None:
        fingers: Fingers[Node] = Fingers(0, 6)
        asked = []
        for _ in range(5):
            wanted = fingers.wanted(Node(3))
            assert wanted is not None
            asked.append(wanted)
            fingers.found(wanted[0], Node(9 if wanted[1] < 10 else 20 if wanted[1] < 21 else 0))
        # 4 and 8 are covered by 9, then 16 by 20; 32 leads back to me; then it starts again.
        self.assertEqual(asked, [(2, 4), (4, 16), (5, 32), (2, 4), (4, 16)])
        self.assertEqual(sorted(names(fingers.peers())), [9, 20])

    def test_nothing_to_look_up(self) -> None:
        """The successor covers all, or there is none; what was known is dropped."""
        for successor in (None, Node(0), Node(40)):
            fingers: Fingers[Node] = Fingers(0, 6)
            fingers.found(2, Node(5))
            self.assertIsNone(fingers.wanted(successor))
            self.assertEqual(fingers.peers(), [])

    def test_a_nearer_successor_uncovers_fingers(self) -> None:
        fingers: Fingers[Node] = Fingers(0, 6)
        self.assertEqual(fingers.wanted(Node(20)), (5, 32))
        self.assertEqual(fingers.wanted(Node(5)), (3, 8))

    def test_a_further_successor_covers_fingers(self) -> None:
        fingers: Fingers[Node] = Fingers(0, 6)
        fingers.found(3, Node(10))
        fingers.found(5, Node(40))
        fingers.wanted(Node(12))
        self.assertEqual(fingers.peers(), [Node(40)])

    def test_a_failed_look_up_does_not_hold_up_the_others(self) -> None:
        fingers: Fingers[Node] = Fingers(0, 4)
        asked = []
        for _ in range(4):
            wanted = fingers.wanted(Node(1))
            assert wanted is not None
            asked.append(wanted[1])
            fingers.skip(wanted[0])
        self.assertEqual(asked, [2, 4, 8, 2])

    def test_a_wrong_answer_does_not_hold_up_the_others(self) -> None:
        """A node before the finger cannot be the finger."""
        fingers: Fingers[Node] = Fingers(0, 4)
        self.assertEqual(fingers.wanted(Node(3)), (2, 4))
        fingers.found(2, Node(2))
        self.assertEqual(fingers.peers(), [])
        self.assertEqual(fingers.wanted(Node(3)), (3, 8))

    def test_a_dead_node_is_forgotten_everywhere(self) -> None:
        fingers: Fingers[Node] = Fingers(0, 6)
        fingers.found(2, Node(20))
        fingers.found(5, Node(40))
        fingers.forget(20)
        self.assertEqual(fingers.peers(), [Node(40)])
