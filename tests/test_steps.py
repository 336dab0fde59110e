"""One step at a time: every short sequence of events, and every circle of waiting members."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.ring.steps import Steps

ME = 4
LOWER, HIGHER, OUTSIDE = 2, 6, None


class StepsTests(SynchronousTestCase):
    def test_a_step_from_begin_to_finish(self) -> None:
        steps = Steps()
        self.assertFalse(steps.busy)
        token = steps.begin()
        assert token is not None
        self.assertTrue(steps.busy)
        self.assertTrue(steps.is_current(token))
        self.assertIsNone(steps.begin())
        steps.finish(token)
        self.assertFalse(steps.busy)
        self.assertFalse(steps.is_current(token))

    def test_who_is_answered(self) -> None:
        """A lower member always; others while no step waits and the list is whole."""
        for busy, depleted, asker in product((False, True), (False, True), (2, 6, None)):
            steps = Steps()
            if busy:
                steps.begin()
            answered = steps.may_answer(ME, asker, depleted=depleted)
            self.assertEqual(answered, asker == LOWER or not (busy or depleted))
            self.assertEqual(steps.busy, busy and asker != LOWER)

    def test_every_sequence_of_events(self) -> None:
        """Never two current steps; what was given up or finished is never current again."""
        for length in range(1, 7):
            for events in product(
                ("begin", "finish", "finish old", "lower", "higher"), repeat=length
            ):
                self._play(events)

    def _play(self, events: tuple[str, ...]) -> None:
        steps = Steps()
        begun: list[int] = []
        over: set[int] = set()
        for event in events:
            if event == "begin":
                token = steps.begin()
                self.assertEqual(token is None, len(over) < len(begun), events)
                if token is not None:
                    begun.append(token)
            elif event == "lower":
                self.assertTrue(steps.may_answer(ME, LOWER, depleted=False))
                over.update(begun)
            elif event == "higher":
                free = steps.may_answer(ME, HIGHER, depleted=False)
                self.assertEqual(free, len(over) == len(begun), events)
            elif begun:
                finished = begun[-1] if event == "finish" else begun[0]
                steps.finish(finished)
                over.add(finished)
            current = [token for token in begun if steps.is_current(token)]
            self.assertEqual(current, [token for token in begun if token not in over], events)
            self.assertLessEqual(len(current), 1)
            self.assertEqual(steps.busy, bool(current))
        self.assertEqual(len(set(begun)), len(begun))


class WaitTests(SynchronousTestCase):
    """Members that ask each other never all wait."""

    def test_waits_run_to_lower_identifiers_only(self) -> None:
        """Whatever state three members are in and whom they ask, in whatever order."""
        for asked, depleted in product(_askings(3), product((False, True), repeat=3)):
            members = [Steps() for _ in asked]
            for steps in members:
                steps.begin()
            for asker, other in enumerate(asked):
                if not members[other].may_answer(other, asker, depleted=depleted[other]):
                    self.assertLess(other, asker)

    def test_the_lowest_of_a_circle_goes_on(self) -> None:
        """Two to five members, each waits for the next: the lowest is answered and can answer."""
        for size in range(2, 6):
            members = [Steps() for _ in range(size)]
            tokens = [steps.begin() for steps in members]
            waiting = [
                me
                for me in range(size)
                if not members[(me + 1) % size].may_answer((me + 1) % size, me, depleted=True)
            ]
            self.assertEqual(waiting, [size - 1])
            first = tokens[0]
            assert first is not None
            self.assertTrue(members[0].is_current(first))
            members[0].finish(first)
            self.assertTrue(members[0].may_answer(0, size - 1, depleted=False))


def _askings(size: int) -> Iterator[tuple[int, ...]]:
    """Whom each member asks: anyone but itself."""
    others = [[other for other in range(size) if other != me] for me in range(size)]
    return product(*others)
