"""Who ought to keep a partition: all small circles, then any, against the promises one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.placement import desired

from .fakes import make_peer

PEERS = [make_peer(number) for number in range(16)]


@dataclass(frozen=True)
class Ring:
    """Nodes by their distance from a partition's start; each is in exactly one of these states.

    :ivar live: the ring knows them, and they answer.
    :ivar silent: they did not answer for a short while.
    :ivar dead: for a long while.
    :ivar gone: they will not come back.
    """

    live: frozenset[int]
    silent: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    gone: frozenset[int] = frozenset()

    def desired(self, present: Iterable[int], replicas: int) -> tuple[int, ...]:
        """The members that a group of these ought to have."""
        wanted = desired(
            [PEERS[number] for number in sorted(self.live)],
            [PEERS[number] for number in present],
            replicas,
            lambda peer: peer.id,
            dead=instances(self.dead),
            gone=instances(self.gone),
        )
        return tuple(peer.id for peer in wanted)


def instances(numbers: Iterable[int]) -> set[bytes]:
    return {PEERS[number].instance for number in numbers}


def subsets(things: Collection[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(things, size) for size in range(len(things) + 1))


def states(nodes: int) -> Iterator[Ring]:
    """Every state of every node."""
    for where in product(range(4), repeat=nodes):
        yield Ring(*(frozenset(n for n in range(nodes) if where[n] == s) for s in range(4)))


class Promises(SynchronousTestCase):
    """What holds of every answer."""

    def check(self, ring: Ring, present: tuple[int, ...], replicas: int) -> None:
        """Hold every promise against one case."""
        wanted = ring.desired(present, replicas)
        case = (ring, present, replicas, wanted)
        again = ring.desired(wanted, replicas)
        self.assertEqual(again, wanted, ("applying it twice changes something", *case))
        if wanted == present:
            return
        self.assertEqual(list(wanted), sorted(set(wanted)), ("not in circle order", *case))
        size = len(wanted)
        self.assertTrue(0 < size <= replicas, case)
        possible = ring.live | (ring.silent & set(present))
        self.assertLessEqual(set(wanted), possible, ("neither alive nor known to be", *case))
        self.assertTrue(size % 2 == 1 or (size == 2 == len(possible)), ("even", *case))
        self.assertEqual(wanted, tuple(sorted(possible))[:size], ("not the nearest", *case))
        self.assertGreaterEqual(size, min(replicas, len(possible)) - 1, ("fewer than can", *case))
        if ring.dead & set(present):
            self.assertGreaterEqual(size, min(3, len(present)), ("deaths made it small", *case))


class ExhaustiveTests(Promises):
    def test_every_small_ring(self) -> None:
        """Up to five nodes, in every state, and every group of them."""
        for nodes in range(1, 6):
            for ring in states(nodes):
                for present in subsets(range(nodes)):
                    if present and len(present) != 4:
                        for replicas in (1, 3, 5):
                            self.check(ring, present, replicas)


NODES = st.integers(0, 3)


class AnyTests(Promises):
    @settings(max_examples=500, deadline=None)
    @given(
        st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), min_size=1, max_size=12),
        st.data(),
        st.sampled_from([1, 3, 5]),
    )
    def test_larger_rings(self, where: list[int], data: st.DataObject, replicas: int) -> None:
        ring = Ring(
            *(frozenset(n for n, s in enumerate(where) if s == wanted) for wanted in range(4))
        )
        size = data.draw(st.sampled_from([s for s in (1, 2, 3, 5) if s <= len(where)]))
        present = data.draw(st.permutations(range(len(where))))[:size]
        self.check(ring, tuple(present), replicas)


class CaseTests(SynchronousTestCase):
    """The cases that the design names."""

    def wanted(
        self,
        live: str,
        present: tuple[int, ...],
        replicas: int = 5,
        **states: tuple[int, ...],
    ) -> tuple[int, ...]:
        ring = Ring(
            frozenset(map(int, live.split())),
            **{name: frozenset(numbers) for name, numbers in states.items()},
        )
        return ring.desired(present, replicas)

    def test_odd_as_far_as_there_are_nodes(self) -> None:
        sizes = [len(self.wanted(" ".join(map(str, range(n))), (0,))) for n in range(1, 9)]
        self.assertEqual(sizes, [1, 2, 3, 3, 5, 5, 5, 5])
        sizes = [len(self.wanted(" ".join(map(str, range(n))), (0,), 3)) for n in range(1, 6)]
        self.assertEqual(sizes, [1, 2, 3, 3, 3])
        self.assertEqual(self.wanted("0 1 2", (1,), 1), (0,))

    def test_a_joiner_that_is_nearer_takes_the_place_of_the_farthest(self) -> None:
        self.assertEqual(self.wanted("0 1 2 3", (0, 2, 3), 3), (0, 1, 2))
        self.assertEqual(self.wanted("0 1 2 3", (0, 1, 2), 3), (0, 1, 2))

    def test_a_leaver_is_replaced(self) -> None:
        """It is not among the live, and it is gone."""
        self.assertEqual(self.wanted("0 2 3", (0, 1, 2), 3, gone=(1,)), (0, 2, 3))
        self.assertEqual(self.wanted("0 2", (0, 1, 2), 3, gone=(1,)), (0, 2))
        self.assertEqual(self.wanted("0", (0, 1), 3, gone=(1,)), (0,))

    def test_silent_members_keep_their_place(self) -> None:
        self.assertEqual(self.wanted("0 2 3 4", (0, 1, 2), 3, silent=(1,)), (0, 1, 2))
        self.assertEqual(self.wanted("0", (0, 1, 2), 3, silent=(1, 2)), (0, 1, 2))
        self.assertEqual(self.wanted("2 3 4 5 6", (0, 2, 3, 4, 5), silent=(0,)), (0, 2, 3, 4, 5))

    def test_silent_strangers_are_not_asked_for(self) -> None:
        self.assertEqual(self.wanted("0 2", (0,), 3, silent=(1,)), (0, 2))

    def test_dead_members_are_replaced(self) -> None:
        self.assertEqual(self.wanted("0 2 3", (0, 1, 2), 3, dead=(1,)), (0, 2, 3))
        self.assertEqual(self.wanted("0 4 5 6 7", (0, 1, 2, 3, 4), dead=(1, 2, 3)), (0, 4, 5, 6, 7))

    def test_or_dropped_while_three_are_left(self) -> None:
        self.assertEqual(self.wanted("0 2 4", (0, 1, 2, 3, 4), dead=(1, 3)), (0, 2, 4))
        self.assertEqual(self.wanted("0 2 3 4", (0, 1, 2, 3, 4), dead=(1,)), (0, 2, 3))

    def test_never_below_three_by_deaths(self) -> None:
        """Two of three are as good as two of two; one alone could not even tell that it is."""
        for live in ("0", "0 1"):
            dead: tuple[int, ...] = (1, 2) if live == "0" else (2,)
            self.assertEqual(self.wanted(live, (0, 1, 2), 3, dead=dead), (0, 1, 2))
            dead = tuple({1, 2, 3, 4} - set(map(int, live.split())))
            self.assertEqual(self.wanted(live, (0, 1, 2, 3, 4), dead=dead), (0, 1, 2, 3, 4))

    def test_a_ring_of_two_whose_other_node_is_dead(self) -> None:
        """Nobody can tell whether it is: the group stays as it is; one that is gone is left out."""
        self.assertEqual(self.wanted("0", (0, 1), dead=(1,)), (0, 1))
        self.assertEqual(self.wanted("0", (0, 1), gone=(1,)), (0,))
        self.assertEqual(self.wanted("0 2", (0, 1), gone=(1,)), (0, 2))

    def test_nobody_is_known(self) -> None:
        self.assertEqual(self.wanted("", (0, 1, 2), gone=(0, 1, 2)), (0, 1, 2))

    def test_the_same_tuple_if_nothing_changes(self) -> None:
        present = tuple(PEERS[:3])
        self.assertIs(desired(PEERS[:3], present, 3, lambda peer: peer.id), present)
