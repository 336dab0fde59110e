"""Each property of a ring accepts good pictures and names what is wrong in bad ones."""

from __future__ import annotations

from itertools import combinations, permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from . import invariants
from .invariants import (
    MemberView,
    RingSnapshot,
    at_least_one_ring,
    at_most_one_ring,
    connected_appendages,
    ideal,
    no_duplicates,
    one_live_successor,
    ordered_ring,
    ordered_successor_lists,
    principals,
)

CHECKS = (
    no_duplicates,
    ordered_successor_lists,
    one_live_successor,
    at_least_one_ring,
    at_most_one_ring,
    ordered_ring,
    connected_appendages,
)


def ring(members: dict[int, tuple[int, ...]]) -> RingSnapshot:
    """A picture of successor lists; nobody has a predecessor."""
    views = {m: MemberView(m, successors, None) for m, successors in members.items()}
    return RingSnapshot(views)


def exact(identifiers: list[int], r: int) -> RingSnapshot:
    """A settled ring."""
    order = sorted(identifiers)
    n = len(order)
    views = {}
    for place, m in enumerate(order):
        after = tuple(order[place + 1 :] + order[:place])[: min(r, n - 1)]
        views[m] = MemberView(m, after, order[place - 1] if n > 1 else None)
    return RingSnapshot(views)


class SettledRings(SynchronousTestCase):
    """A settled ring of any size breaks no rule."""

    def test_settled(self) -> None:
        """All sizes up to 8, all list lengths up to 4: every check is content."""
        for n, r in product(range(9), range(1, 5)):
            picture = exact([m * 7 % 64 for m in range(n)], r)
            for check in CHECKS:
                self.assertEqual(check(picture), [], f"{check.__name__} n={n} r={r}")
            self.assertEqual(ideal(picture, r), [])
            self.assertEqual(principals(picture), set(picture.members))

    def test_lone_member(self) -> None:
        """A node alone is a ring of one, even before it dropped its dead entries."""
        for successors in ((), (7,), (7, 9)):
            picture = ring({5: successors})
            for check in CHECKS:
                self.assertEqual(check(picture), [], check.__name__)
        self.assertEqual(len(ideal(ring({5: (7,)}), 3)), 1)

    def test_ideal_names_every_wrong_pointer(self) -> None:
        """A wrong list and a wrong predecessor are two violations."""
        picture = RingSnapshot(
            {1: MemberView(1, (5,), 5), 5: MemberView(5, (), 1), 9: MemberView(9, (1, 5), 1)}
        )
        found = ideal(picture, 2)
        self.assertEqual(
            found,
            [
                "1 has successors (5,), not (5, 9)",
                "1 has predecessor 5, not 9",
                "5 has successors (), not (9, 1)",
                "9 has predecessor 1, not 5",
            ],
        )


class BrokenRings(SynchronousTestCase):
    """Every property refuses its own kind of damage."""

    def test_duplicates(self) -> None:
        """Twice the same entry, or the member itself."""
        self.assertEqual(len(no_duplicates(ring({1: (2, 2), 2: (1,)}))), 1)
        self.assertEqual(len(no_duplicates(ring({1: (2, 1), 2: (1,)}))), 1)

    def test_unordered(self) -> None:
        """Two entries the wrong way round."""
        found = ordered_successor_lists(ring({1: (9, 5), 5: (9, 1), 9: (1, 5)}))
        self.assertEqual(
            found, ["1 has an unordered successor list (9, 5): 9 is not between 1 and 5"]
        )

    def test_no_live_successor(self) -> None:
        """All entries dead, or no entry, while others live."""
        self.assertEqual(
            one_live_successor(ring({1: (3,), 2: (1,), 5: ()})),
            ["1 has no live successor in (3,)", "5 has no live successor in ()"],
        )

    def test_no_ring(self) -> None:
        """Every chain ends at the dead."""
        self.assertEqual(
            at_least_one_ring(ring({1: (2,), 2: (3,)})), ["there is no ring among [1, 2]"]
        )

    def test_two_rings(self) -> None:
        """Two cycles, or a cycle and a node that believes it is alone."""
        self.assertEqual(
            at_most_one_ring(ring({5: (1,), 1: (5,), 3: (7,), 7: (3,)})),
            ["there are 2 rings: [[1, 5], [3, 7]]"],
        )
        self.assertEqual(len(at_most_one_ring(ring({1: (5,), 5: (1,), 3: ()}))), 1)

    def test_disordered_ring(self) -> None:
        """One cycle that goes round the circle twice."""
        picture = ring({1: (5,), 5: (3,), 3: (7,), 7: (1,)})
        self.assertEqual(at_most_one_ring(picture), [])
        self.assertIn("1 skips [3] on the ring: its best successor is 5", ordered_ring(picture))

    def test_appendage(self) -> None:
        """One that reaches the ring is fine, one that does not is not; dead entries are skipped."""
        picture = ring({1: (5,), 5: (1,), 3: (4, 5), 2: (3,), 7: (8,), 6: (7,)})
        self.assertEqual(
            connected_appendages(picture),
            [
                "6 does not reach a ring: 6 -> 7 -> nobody",
                "7 does not reach a ring: 7 -> nobody",
            ],
        )
        self.assertEqual(at_most_one_ring(picture), [])
        self.assertEqual(ordered_ring(picture), [])

    def test_principals(self) -> None:
        """A member that some list skips is none; across zero too."""
        picture = ring({1: (5, 9), 3: (5, 9), 5: (9, 1), 9: (1, 5)})
        self.assertEqual(principals(picture), {1, 5, 9})
        self.assertEqual(principals(ring({4: (12,), 12: (4,), 1: (4,)})), {4, 12})


SMALL = st.integers(0, 7)
PICTURES = st.dictionaries(SMALL, st.lists(SMALL, max_size=4).map(tuple), max_size=6).map(ring)


class Definitions(SynchronousTestCase):
    """The quick ways agree with the definitions, spelt out, on small pictures."""

    def test_between(self) -> None:
        """Walking clockwise from x, y is met strictly before z, at 3 bits without exception."""
        for x, y, z in product(range(8), repeat=3):
            steps_to_z = (z - x) % 8 or 8
            self.assertEqual(invariants._strictly_between(x, y, z), 0 < (y - x) % 8 < steps_to_z)

    def test_order_of_lists(self) -> None:
        """A list that is called ordered at first sight is so for every three entries."""
        for length in range(1, 5):
            for entries in permutations(range(6), length):
                every_three = all(
                    invariants._strictly_between(*three) for three in combinations(entries, 3)
                )
                self.assertEqual(invariants._in_circle_order(entries), every_three, entries)

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(PICTURES)
    def test_rings_by_reachability(self, picture: RingSnapshot) -> None:
        """Cycles, their number, order and appendages, from reachability as Zave defines it."""
        reach: dict[int, list[int]] = {}
        for member in picture.members:
            reached: list[int] = []
            here = picture.best_successor(member)
            while here is not None and here not in reached:
                reached.append(here)
                here = picture.best_successor(here)
            reach[member] = reached
        on_ring = {member for member in picture.members if member in reach[member]}
        one = all(b in reach[a] for a in on_ring for b in on_ring)
        connected = all(on_ring & set(reach[a]) for a in picture.members if a not in on_ring)
        self.assertEqual({m for cycle in picture.rings() for m in cycle}, on_ring)
        self.assertEqual(not at_least_one_ring(picture), bool(on_ring or not picture.members))
        self.assertEqual(not at_most_one_ring(picture), one)
        self.assertEqual(not connected_appendages(picture), connected)

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(PICTURES)
    def test_what_cannot_be_repaired(self, picture: RingSnapshot) -> None:
        """With live successors everywhere there is a ring, and everyone reaches one."""
        if not one_live_successor(picture):
            self.assertEqual(at_least_one_ring(picture), [])
            self.assertEqual(connected_appendages(picture), [])

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.sets(st.integers(0, 63), min_size=1, max_size=8), st.integers(1, 4))
    def test_settled_means_ideal(self, identifiers: set[int], r: int) -> None:
        """Whatever the identifiers, the settled ring is ideal and passes everything."""
        picture = exact(sorted(identifiers), r)
        self.assertEqual([check(picture) for check in CHECKS], [[]] * len(CHECKS))
        self.assertEqual(ideal(picture, r), [])
