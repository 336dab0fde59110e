"""The rules of the ring: one by one, and all together as a random walk over many members.

The walk stays inside the assumptions of Pamela Zave's proof ("Reasoning about identifier spaces:
how to make Chord correct", IEEE TSE 2017) and drives the product's own
:class:`~py2p_twisted.ring.ring.RingRules` and :class:`~py2p_twisted.ring.steps.Steps`.
``P2P_SEED=n`` replays one walk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import Peer
from py2p_twisted.ring.circle import between, distance, to_bytes
from py2p_twisted.ring.ring import Pointers, RingRules
from py2p_twisted.ring.steps import Steps

from .simulation.invariants import (
    MemberView,
    RingSnapshot,
    at_least_one_ring,
    at_most_one_ring,
    connected_appendages,
    ideal,
    one_live_successor,
    ordered_ring,
)

K = 4
SIZE = 1 << K

PEERS = [Peer(bytes([i]) * 16, to_bytes(i, K), "127.0.0.1", 4000 + i) for i in range(SIZE)]


def peers(*ids: int) -> tuple[Peer, ...]:
    return tuple(PEERS[i] for i in ids)


def ids(nodes: Sequence[Peer]) -> list[int]:
    return [node.id for node in nodes]


def pointers(me: int, *successors: int, predecessor: int | None = None) -> Pointers:
    before = None if predecessor is None else PEERS[predecessor]
    return Pointers(PEERS[me], peers(*successors), before)


identifiers = st.integers(0, SIZE - 1)
lists = st.lists(identifiers, max_size=8)


@st.composite
def any_pointers(draw: st.DrawFn) -> Pointers:
    """Whatever a member may know: any list in circle order, any predecessor."""
    me = draw(identifiers)
    known = draw(st.sets(identifiers.filter(lambda i: i != me), max_size=8))
    before = draw(st.none() | identifiers.filter(lambda i: i != me))
    ordered = sorted(known, key=lambda i: distance(me, i, K))
    return replace(pointers(me, *ordered, predecessor=before), depleted=draw(st.booleans()))


class PointersTests(SynchronousTestCase):
    """The two assertions that run in the product."""

    def test_every_list_of_a_small_circle(self) -> None:
        """Accepted is what one meets, in that order, on one walk round the circle."""
        for length in range(5):
            for successors in permutations(range(1, 6), length):
                ordered = list(successors) == sorted(successors)
                for turn in range(SIZE):  # where on the circle it happens makes no difference
                    names = [(turn + i) % SIZE for i in (0, *successors)]
                    if ordered:
                        self.assertEqual(ids(pointers(*names).successors), names[1:])
                    else:
                        self.assertRaises(AssertionError, pointers, *names)

    def test_an_identifier_twice(self) -> None:
        for names in ((1, 1), (1, 2, 1), (1, 2, 2), (1, 2, 3, 2)):
            self.assertRaisesRegex(AssertionError, "twice", pointers, *names)

    def test_out_of_order(self) -> None:
        self.assertRaisesRegex(AssertionError, "order", pointers, 1, 3, 2)
        self.assertRaisesRegex(AssertionError, "order", pointers, 1, 3, 5, 2)

    def test_the_successor_is_the_first_entry(self) -> None:
        self.assertEqual(pointers(1, 2, 3).successor, PEERS[2])
        self.assertIsNone(pointers(1).successor)

    def test_alone_means_that_nobody_is_known(self) -> None:
        self.assertTrue(pointers(1).alone)
        self.assertFalse(pointers(1, 2).alone)
        self.assertFalse(pointers(1, predecessor=2).alone)


class AdoptTests(SynchronousTestCase):
    def test_the_lists_of_a_ring_shift_by_one(self) -> None:
        """In an ideal ring of any size the successor's list makes exactly the right one."""
        for n in range(2, 7):
            for places in combinations(range(8), n):
                for r in range(1, 8):
                    rules = RingRules(r)
                    for at, me in enumerate(places):
                        ring = [places[(at + step) % n] for step in range(n + 1)]
                        its = peers(*(ring[2:] + ring[1:])[: min(r, n - 1)])
                        taken = rules.adopt(PEERS[me], PEERS[ring[1]], its)
                        self.assertEqual(ids(taken), ring[1 : min(r, n - 1) + 1])

    def test_cut_before_me(self) -> None:
        self.assertEqual(RingRules(8).adopt(PEERS[1], PEERS[5], peers(9, 1, 3)), peers(5, 9))

    def test_cut_before_the_first_repeat(self) -> None:
        self.assertEqual(RingRules(8).adopt(PEERS[1], PEERS[5], peers(9, 5, 12)), peers(5, 9))

    def test_a_list_of_one_grows(self) -> None:
        """A list does not stay as short as the one that it is made from."""
        self.assertEqual(RingRules(8).adopt(PEERS[1], PEERS[5], peers(9)), peers(5, 9))

    @given(identifiers, identifiers, lists, st.integers(1, 5))
    def test_whatever_a_peer_says(self, me: int, first: int, rest: list[int], r: int) -> None:
        """The longest ordered beginning is taken, r entries at most."""
        taken = ids(RingRules(r).adopt(PEERS[me], PEERS[first], peers(*rest)))
        offered = [first, *rest]
        steps = [distance(me, i, K) for i in offered]
        self.assertEqual(taken, offered[: len(taken)])
        self.assertLessEqual(len(taken), r)
        best = 0
        while best < len(steps) and steps[best] > (steps[best - 1] if best else 0):
            best += 1
        self.assertEqual(len(taken), min(r, best))


class JoinTests(SynchronousTestCase):
    rules = RingRules(3)

    def test_behind_whom(self) -> None:
        """Only behind the member whose successor would follow me; never beside a namesake."""
        for member in range(8):
            for successor in range(8):
                for me in range(8):
                    if member == successor:
                        continue
                    may = self.rules.may_join_after(PEERS[me], PEERS[member], peers(successor))
                    self.assertEqual(may, between(member, me, successor))

    def test_behind_a_member_that_is_alone(self) -> None:
        self.assertTrue(self.rules.may_join_after(PEERS[1], PEERS[5], ()))
        self.assertFalse(self.rules.may_join_after(PEERS[5], PEERS[5], ()))

    def test_a_full_list_is_taken_as_it_is(self) -> None:
        joined = self.rules.joined(PEERS[4], PEERS[3], peers(5, 7, 9))
        self.assertEqual(joined, pointers(4, 5, 7, 9, predecessor=3))

    def test_a_short_list_too(self) -> None:
        """With the member behind it, it might jump over others that nobody else jumps over."""
        joined = self.rules.joined(PEERS[4], PEERS[3], peers(5))
        self.assertEqual(joined, pointers(4, 5, predecessor=3))

    def test_the_second_member_takes_the_first(self) -> None:
        joined = self.rules.joined(PEERS[4], PEERS[3], ())
        self.assertEqual(joined, pointers(4, 3, predecessor=3))

    @given(identifiers, identifiers, lists, st.integers(1, 5))
    def test_whatever_the_member_says(self, me: int, member: int, its: list[int], r: int) -> None:
        """The new pointers always satisfy the assertions."""
        rules = RingRules(r)
        if rules.may_join_after(PEERS[me], PEERS[member], peers(*its)):
            joined = rules.joined(PEERS[me], PEERS[member], peers(*its))
            self.assertEqual(joined.predecessor, PEERS[member])
            self.assertTrue(joined.successors)


class StabilizeTests(SynchronousTestCase):
    rules = RingRules(3)

    def test_a_refilled_list_is_not_depleted(self) -> None:
        old = self.rules.successor_failed(pointers(1, 2, 3, 5), PEERS[2])
        self.assertTrue(old.depleted)
        self.assertEqual(ids(old.successors), [3, 5])
        new = self.rules.stabilized(old, PEERS[3], peers(5, 7, 9))
        self.assertEqual((ids(new.successors), new.depleted), ([3, 5, 7], False))

    def test_the_last_entry_lost(self) -> None:
        """There is no list left to refill, so nobody waits for it."""
        new = self.rules.successor_failed(pointers(1, 2, predecessor=2), PEERS[2])
        self.assertEqual((new.successors, new.depleted), ((), False))
        self.assertTrue(self.rules.predecessor_failed(new).alone)

    def test_only_the_first_entry_is_dropped(self) -> None:
        old = pointers(1, 2, 3, 5)
        self.assertIs(self.rules.successor_failed(old, PEERS[3]), old)
        alone = pointers(1)
        self.assertIs(self.rules.successor_failed(alone, PEERS[3]), alone)

    def test_another_memory_at_the_same_place_is_another_node(self) -> None:
        old = pointers(1, 2, 3)
        stranger = Peer(b"x" * 16, PEERS[2].identifier, "127.0.0.1", 1)
        self.assertIs(self.rules.successor_failed(old, stranger), old)

    def test_the_candidate_lies_between_me_and_my_successor(self) -> None:
        for me, successor in permutations(range(8), 2):
            old = pointers(me, successor)
            self.assertIsNone(self.rules.candidate(old, None))
            for named in range(8):
                closer = between(me, named, successor) and named != me
                expected = PEERS[named] if closer else None
                self.assertEqual(self.rules.candidate(old, PEERS[named]), expected)

    def test_without_a_successor_anybody_else_will_do(self) -> None:
        """So the first member of a ring finds the second: it notified."""
        self.assertEqual(self.rules.candidate(pointers(1, predecessor=5), PEERS[5]), PEERS[5])
        self.assertIsNone(self.rules.candidate(pointers(1), PEERS[1]))

    def test_a_silent_candidate_is_not_adopted(self) -> None:
        old = pointers(1, 5, 7)
        self.assertEqual(self.rules.candidate_failed(old, PEERS[3]), old)

    @given(any_pointers(), identifiers, st.none() | identifiers, lists)
    def test_whatever_peers_say(
        self, old: Pointers, other: int, named: int | None, its: list[int]
    ) -> None:
        """No answer breaks the assertions, and a candidate is always nearer."""
        rules, peer, told = self.rules, PEERS[other], peers(*its)
        if old.successor is not None:
            new = rules.stabilized(old, old.successor, told)
            self.assertEqual(new.successor, old.successor)
            rules.successor_failed(old, old.successor)
        candidate = rules.candidate(old, None if named is None else PEERS[named])
        if candidate is not None:
            new = rules.adopted(old, candidate, told)
            self.assertEqual(new.successor, candidate)
            if old.successor is not None:
                self.assertTrue(between(old.me.id, candidate.id, old.successor.id))
        rules.rectified(old, peer)


class RectifyTests(SynchronousTestCase):
    rules = RingRules(3)

    def test_a_nearer_notifier_is_taken_without_a_question(self) -> None:
        for me, before, notifier in permutations(range(8), 3):
            old = pointers(me, before, predecessor=before)
            asks = self.rules.rectify_needs_ping(old, PEERS[notifier])
            self.assertEqual(asks, not between(before, notifier, me))
            self.assertEqual(
                self.rules.rectified(old, PEERS[notifier]).predecessor, PEERS[notifier]
            )

    def test_nothing_to_ask(self) -> None:
        self.assertFalse(self.rules.rectify_needs_ping(pointers(1, 2), PEERS[5]))
        self.assertFalse(self.rules.rectify_needs_ping(pointers(1, 2, predecessor=5), PEERS[5]))

    def test_a_new_memory_of_the_predecessor(self) -> None:
        """It gives way to its successor at the same place only when it does not answer."""
        again = replace_instance(PEERS[5])
        old = pointers(1, 2, predecessor=5)
        self.assertTrue(self.rules.rectify_needs_ping(old, again))
        self.assertEqual(self.rules.rectified(old, again).predecessor, again)

    def test_nobody_precedes_itself(self) -> None:
        old = pointers(1, 2)
        self.assertEqual(self.rules.rectified(old, PEERS[1]), old)


def replace_instance(peer: Peer) -> Peer:
    """The same node with a new memory: it came back without its data."""
    return Peer(b"new memory......", peer.identifier, peer.host, peer.port)


class MergeTests(SynchronousTestCase):
    @given(any_pointers(), identifiers, lists, st.integers(1, 5))
    def test_the_nearest_of_all(self, old: Pointers, found: int, its: list[int], r: int) -> None:
        me = old.me.id
        if found == me:
            return
        new = RingRules(r).merged(old, PEERS[found], peers(*its))
        everybody = {*ids(old.successors), found, *its} - {me}
        nearest = sorted(everybody, key=lambda i: distance(me, i, K))
        self.assertEqual(ids(new.successors), nearest[:r])
        self.assertEqual(new.predecessor, old.predecessor)

    def test_the_node_that_answered_counts(self) -> None:
        """Of two memories at one place, it is the one that was found."""
        again = replace_instance(PEERS[5])
        new = RingRules(3).merged(pointers(1, 5, 7), again, peers(5))
        self.assertEqual(new.successors, (again, PEERS[7]))


class Broken(Exception):
    """A property of the ring does not hold."""


class Walk:
    """Members that take one step at a time, in any order.

    A step reads at most one other member.  Between the question of a step and the use of its answer
    other members may take steps, as in a network; what keeps that harmless is ``Steps``.

    :param budget: fewer than r failures until the ring is ideal again, whatever the lists say.
        Otherwise a member may fail if all others still have a live entry (the proof's assumption).
    """

    def __init__(
        self,
        r: int,
        rng: Random,
        rules: type[RingRules] = RingRules,
        steps: type[Steps] = Steps,
        *,
        budget: bool = False,
    ) -> None:
        self.r = r
        self.rng = rng
        self.rules = rules(r)
        self.new_steps = steps
        self.budget = budget
        self.failures = 0
        ring = sorted(rng.sample(range(SIZE), r + 1 if not budget else min(2 * r + 2, SIZE)))
        self.members: dict[int, Pointers] = {}
        self.steps: dict[int, Steps] = {}
        #: (member, token, whom it asked, what that one answered)
        self.replies: list[tuple[int, int, Peer, Pointers]] = []
        #: member: (token, the candidate that it asks next)
        self.candidates: dict[int, tuple[int, Peer]] = {}
        self.notes: set[tuple[int, int]] = set()
        for at, me in enumerate(ring):
            following = [ring[(at + step) % len(ring)] for step in range(1, r + 1)]
            self._enter(pointers(me, *following, predecessor=ring[at - 1]))

    # -- what happens

    def join(self) -> bool:
        absent = [i for i in range(SIZE) if i not in self.members]
        if not absent:
            return False
        me = PEERS[self.rng.choice(absent)]
        behind = [
            member
            for member in self.members.values()
            if self.rules.may_join_after(me, member.me, member.successors)
        ]
        if not behind:
            return False  # somebody still takes a dead namesake for its successor
        member = self.rng.choice(behind)
        if not self._answers(member.me.id, None):
            return False
        self._enter(self.rules.joined(me, member.me, member.successors))
        return True

    def fail(self) -> bool:
        dead = self.rng.choice(list(self.members))
        snapshot = self.snapshot()
        safe = self.principals()
        if dead in safe and len(safe) <= self.r + 1:
            return False
        if self.budget:
            if self.failures >= self.r - 1:
                return False
        elif self._last_entry_of_somebody(snapshot, dead):
            return False
        self.failures += 1
        self.remove(dead)
        return True

    def remove(self, dead: int) -> None:
        """A member stops answering."""
        del self.members[dead], self.steps[dead]
        self.replies = [reply for reply in self.replies if reply[0] != dead]
        self.candidates.pop(dead, None)
        self.notes = {note for note in self.notes if note[0] != dead}

    def ask_successor(self) -> bool:
        """STABILIZE begins: the question, and the answer of the one who is asked."""
        me = self.rng.choice(list(self.members))
        token = self.steps[me].begin()
        if token is None:
            return False
        successor = self.members[me].successor
        if successor is None:
            raise Broken(f"{me} has lost its list")
        if successor.id not in self.members:
            self.members[me] = self.rules.successor_failed(self.members[me], successor)
            self.steps[me].finish(token)
        elif self._answers(successor.id, me):
            self.replies.append((me, token, successor, self.members[successor.id]))
        else:
            self.steps[me].finish(token)
            return False
        return True

    def hear_successor(self) -> bool:
        """STABILIZE, first half: the answer arrives."""
        if not self.replies:
            return False
        chosen = self.rng.randrange(len(self.replies))
        me, token, successor, state = self.replies.pop(chosen)
        if not self.steps[me].is_current(token):
            return False
        self.members[me] = self.rules.stabilized(self.members[me], successor, state.successors)
        candidate = self.rules.candidate(self.members[me], state.predecessor)
        if candidate is None:
            self._step_over(me, token)
        else:
            self.candidates[me] = (token, candidate)
        return True

    def ask_candidate(self) -> bool:
        """STABILIZE, second half."""
        if not self.candidates:
            return False
        me = self.rng.choice(list(self.candidates))
        token, candidate = self.candidates.pop(me)
        if not self.steps[me].is_current(token):
            return False
        if candidate.id not in self.members:
            self.members[me] = self.rules.candidate_failed(self.members[me], candidate)
        elif self._answers(candidate.id, me):
            its = self.members[candidate.id].successors
            self.members[me] = self.rules.adopted(self.members[me], candidate, its)
        self._step_over(me, token)
        return True

    def rectify(self) -> bool:
        waiting = sorted(note for note in self.notes if not self.steps[note[0]].busy)
        if not waiting:
            return False
        me, notifier = self.rng.choice(waiting)
        self.notes.discard((me, notifier))
        old = self.members[me]
        if self.rules.rectify_needs_ping(old, PEERS[notifier]):
            assert old.predecessor is not None
            if old.predecessor.id in self.members:
                return False
        self.members[me] = self.rules.rectified(old, PEERS[notifier])
        return True

    # -- how it is judged

    def snapshot(self) -> RingSnapshot:
        views = {
            i: MemberView(
                i,
                tuple(ids(member.successors)),
                None if member.predecessor is None else member.predecessor.id,
            )
            for i, member in self.members.items()
        }
        return RingSnapshot(views)

    def principals(self) -> set[int]:
        """The members that nobody's list skips, and no list that a step under way will make.

        In the proof a step happens when it is answered, here its answer is used a little later.
        """
        lists = list(self.members.values())
        for me, token, successor, state in self.replies:
            if Steps.is_current(self.steps[me], token):  # whatever a mutant says
                lists.append(self.rules.stabilized(self.members[me], successor, state.successors))
        pairs = {
            pair for member in lists for pair in pairwise([member.me.id, *ids(member.successors)])
        }
        return {i for i in self.members if not any(between(a, i, b) for a, b in pairs)}

    def check(self, before: set[int], *, failed: bool) -> set[int]:
        """The principals; everything that must hold holds."""
        snapshot = self.snapshot()
        for rule in (
            one_live_successor,
            at_least_one_ring,
            at_most_one_ring,
            ordered_ring,
            connected_appendages,
        ):
            for violation in rule(snapshot):
                raise Broken(violation)
        now = self.principals()
        if not failed and before - now:
            raise Broken(f"{before - now} are principals no more, and nobody failed")
        if len(now) < self.r + 1:
            raise Broken(f"only {now} are principals")
        return now

    def wander(self, steps: int) -> None:
        """Take random steps, joins and failures among them.

        :raises Broken: if a property is lost.
        :raises AssertionError: if the pointers' own assertions fail.
        """
        join, fail = self.rng.choice(((2, 2), (4, 1), (1, 4), (1, 1)))
        hear = self.rng.choice((2, 8))  # how long answers take
        happenings: list[Callable[[], bool]] = [
            self.join,
            self.fail,
            self.ask_successor,
            self.hear_successor,
            self.ask_candidate,
            self.rectify,
        ]
        safe = self.check(set(), failed=False)
        for _ in range(steps):
            happening = self.rng.choices(happenings, (join, fail, 8, hear, 6, 6))[0]
            if happening():
                safe = self.check(safe, failed=happening == self.fail)
                if self.failures and not self.replies and not ideal(self.snapshot(), self.r):
                    self.failures = 0

    def settle(self, limit: int) -> int:
        """Without joins and failures, everybody stabilizes once a round: rounds until ideal."""
        everything = (self.hear_successor, self.ask_candidate, self.rectify)
        for done in range(limit):
            if not ideal(self.snapshot(), self.r):
                return done
            for _ in self.members:
                self.ask_successor()
                for happening in everything:
                    happening()
            while self.replies or self.candidates or self.notes:
                for happening in everything:
                    happening()
        raise Broken(f"not ideal after {limit} rounds: {ideal(self.snapshot(), self.r)}")

    # -- inside

    def _enter(self, member: Pointers) -> None:
        self.members[member.me.id] = member
        self.steps[member.me.id] = self.new_steps()

    def _answers(self, asked: int, asker: int | None) -> bool:
        depleted = self.members[asked].depleted
        return self.steps[asked].may_answer(asked, asker, depleted=depleted)

    def _step_over(self, me: int, token: int) -> None:
        self.steps[me].finish(token)
        successor = self.members[me].successor
        if successor is not None and successor.id in self.members:
            self.notes.add((successor.id, me))

    @staticmethod
    def _last_entry_of_somebody(snapshot: RingSnapshot, dead: int) -> bool:
        return any(
            dead in view.successors
            and not any(i in snapshot.members and i != dead for i in view.successors)
            for view in snapshot.members.values()
            if view.id != dead
        )


class ShortList(RingRules):
    """A joiner takes the successor and not its member's list (the paper of 2001)."""

    def joined(self, me: Peer, member: Peer, its_successors: Sequence[Peer]) -> Pointers:
        return super().joined(me, member, its_successors[:1])


class Unchecked(RingRules):
    """A successor is adopted although it did not answer (the paper of 2001)."""

    def candidate_failed(self, old: Pointers, candidate: Peer) -> Pointers:
        return replace(old, successors=self.adopt(old.me, candidate, old.successors))


class LateReply(Steps):
    """A step that was given up is applied nevertheless."""

    def is_current(self, token: int) -> bool:
        return True


def seeds(count: int) -> list[int]:
    """The seeds to run; only the one to replay if ``P2P_SEED`` names it."""
    replay = os.environ.get("P2P_SEED")
    return list(range(count)) if replay is None else [int(replay)]


class WalkTests(SynchronousTestCase):
    """Inside the assumptions of the proof nothing breaks, and each rule is needed."""

    def _walk(self, seed: int, r: int, steps: int, *, budget: bool) -> int:
        walk = Walk(r, Random(f"{seed} {r}"), budget=budget)
        try:
            walk.wander(steps)
            return walk.settle(limit=3 * SIZE)
        except (AssertionError, Broken) as error:
            raise self.failureException(
                f"r={r}, budget={budget}: {error}.  Replay with P2P_SEED={seed}"
            ) from error

    def test_no_walk_breaks_the_ring(self) -> None:
        for seed in seeds(12):
            for r in (1, 2, 3):
                self._walk(seed, r, 400, budget=False)
                self._walk(seed, r, 400, budget=True)

    def test_every_other_member_dies_at_once(self) -> None:
        """Then each list has lost its first entry; the survivors must not wait for each other."""
        for seed in seeds(20):
            for r in (2, 3):
                walk = Walk(r, Random(seed), budget=True)
                for member in sorted(walk.members)[::2]:
                    walk.remove(member)
                walk.check(set(), failed=True)
                walk.settle(limit=3 * SIZE)

    def test_a_short_list_is_noticed(self) -> None:
        self._notice(lambda rng: Walk(3, rng, rules=ShortList, budget=True))

    def test_an_unchecked_successor_is_noticed(self) -> None:
        self._notice(lambda rng: Walk(1, rng, rules=Unchecked))

    def test_a_late_reply_is_noticed(self) -> None:
        self._notice(lambda rng: Walk(1, rng, steps=LateReply))

    def _notice(self, make: Callable[[Random], Walk]) -> None:
        for seed in range(100):
            try:
                make(Random(seed)).wander(400)
            except (AssertionError, Broken):
                return
        raise self.failureException("100 walks did not notice")
