"""The counters of one node's ballots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.counters import Counters
from py2p_twisted.table.group import FIRST_EPOCH


class CountersTests(SynchronousTestCase):
    def test_above_what_was_heard(self) -> None:
        counters = Counters()
        given_out = [counters.next(0, FIRST_EPOCH, heard) for heard in (0, 0, 9, 3)]
        self.assertEqual(given_out, [2, 3, 10, 11])

    def test_a_high_number_is_worth_nothing_elsewhere(self) -> None:
        counters = Counters()
        self.assertEqual(counters.next(0, FIRST_EPOCH, 2**61), 2**61 + 1)
        self.assertEqual(counters.next(1, FIRST_EPOCH), 2)
        self.assertEqual(counters.next(0, FIRST_EPOCH.following()), 2)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 1),
                st.integers(1, 3),
                st.integers(0, 12) | st.just(2**61),
            ),
            max_size=60,
        )
    )
    def test_never_twice(self, asked: list[tuple[int, int, int]]) -> None:
        """However the epochs come, older ones after newer ones, too."""
        counters = Counters()
        seen: set[tuple[int, int, int]] = set()
        for partition, number, heard in asked:
            epoch = FIRST_EPOCH._replace(number=number)
            counter = counters.next(partition, epoch, heard)
            assert counter > max(1, heard)
            assert (partition, number, counter) not in seen
            seen.add((partition, number, counter))
