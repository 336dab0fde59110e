"""The directory: only what is newer is learnt, and peers reach everything in small pieces."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.directory import Directory
from py2p_twisted.table.group import Config, Epoch

from .fakes import config, make_peer


def contents(directory: Directory) -> dict[int, Config]:
    return {one.partition: one for one in directory}


class LearnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Directory()

    def test_only_what_is_newer(self) -> None:
        for number, newer in ((3, True), (3, False), (2, False), (4, True), (1, False)):
            version = self.directory.version
            self.assertIs(self.directory.learn(config(5, number)), newer)
            self.assertEqual(self.directory.version, version + newer)
        self.assertEqual(self.directory.get(5), config(5, 4))

    def test_a_higher_era_is_newer(self) -> None:
        self.directory.learn(config(0, 9))
        later = Config(0, Epoch(1, 0, 1), (make_peer(2),))
        self.assertTrue(self.directory.learn(later))
        self.assertFalse(self.directory.learn(config(0, 10)))
        self.assertIs(self.directory.get(0), later)

    def test_the_first_of_an_epoch_stays(self) -> None:
        """Two configurations of one epoch cannot be; the known one is not replaced."""
        self.directory.learn(config(0, 1, 1))
        self.assertFalse(self.directory.learn(config(0, 1, 2)))
        self.assertEqual(self.directory.get(0), config(0, 1, 1))

    def test_unknown(self) -> None:
        self.assertIsNone(self.directory.get(0))
        self.assertEqual((len(self.directory), list(self.directory)), (0, []))
        self.assertEqual(list(self.directory.members()), [])

    def test_members_once_each(self) -> None:
        self.directory.learn(config(0, 1, 1, 2))
        self.directory.learn(config(1, 1, 2, 3))
        self.directory.learn(config(1, 2, 2))
        numbers = sorted(peer.id for peer in self.directory.members())
        self.assertEqual(numbers, [1, 2])

    def test_may_learn_while_it_is_walked_through(self) -> None:
        for partition in range(3):
            self.directory.learn(config(partition))
        for one in self.directory:
            self.directory.learn(config(one.partition + 10))
        self.assertEqual(len(self.directory), 6)


class SinceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Directory()

    def follow(self, known: dict[int, Config], version: int, most: int) -> int:
        """Ask until there is nothing more; the version that was reached."""
        for _ in range(1000):
            configs, version = self.directory.since(version, most)
            self.assertLessEqual(len(configs), most)
            if not configs:
                return version
            known.update((one.partition, one) for one in configs)
        raise AssertionError("it never ends")

    def test_pieces_of_any_size(self) -> None:
        for partition in range(20):
            self.directory.learn(config(partition))
        for partition in (3, 17, 3):
            found = self.directory.get(partition)
            assert found is not None
            self.directory.learn(config(partition, found.epoch.number + 1))
        for most in range(1, 25):
            known: dict[int, Config] = {}
            self.assertEqual(self.follow(known, 0, most), self.directory.version)
            self.assertEqual(known, contents(self.directory))

    def test_only_the_difference(self) -> None:
        for partition in range(5):
            self.directory.learn(config(partition))
        _, version = self.directory.since(0, 100)
        self.assertEqual(self.directory.since(version, 100), ([], version))
        self.directory.learn(config(2, 2))
        self.directory.learn(config(9))
        configs, later = self.directory.since(version, 100)
        self.assertEqual(configs, [config(2, 2), config(9)])
        self.assertEqual(self.directory.since(later, 100), ([], later))

    def test_each_partition_once(self) -> None:
        """However often it changed, only its newest configuration travels."""
        for number in range(1, 50):
            self.directory.learn(config(0, number))
        self.assertEqual(self.directory.since(0, 100), ([config(0, 49)], 49))

    def test_a_version_from_another_memory(self) -> None:
        """Whoever knows a version that never was gets everything."""
        for partition in range(5):
            self.directory.learn(config(partition))
        known: dict[int, Config] = {}
        configs, version = self.directory.since(1000, 2)
        known.update((one.partition, one) for one in configs)
        self.follow(known, version, 2)
        self.assertEqual(known, contents(self.directory))

    def test_after_clear(self) -> None:
        """Versions go on: who followed before gets all that was learnt afterwards."""
        for partition in range(5):
            self.directory.learn(config(partition, 7))
        _, version = self.directory.since(0, 100)
        self.directory.clear()
        self.assertEqual(len(self.directory), 0)
        self.assertIsNone(self.directory.get(0))
        self.assertEqual(self.directory.since(0, 100)[0], [])
        self.directory.learn(config(0, 1))
        self.assertEqual(self.directory.since(version, 100)[0], [config(0, 1)])

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.integers(0, 5), st.integers(1, 6)),  # learn
                st.integers(1, 4),  # a follower asks for one piece
            ),
            max_size=60,
        )
    )
    def test_followers_keep_up(self, steps: list[tuple[int, int] | int]) -> None:
        """Pieces asked for between changes, of any size: the end is always the same."""
        self.directory = Directory()
        known: dict[int, Config] = {}
        version = 0
        for step in steps:
            if isinstance(step, tuple):
                self.directory.learn(config(*step))
            else:
                configs, reached = self.directory.since(version, step)
                self.assertGreaterEqual(reached, version)
                version = reached
                known.update((one.partition, one) for one in configs)
        self.assertEqual(self.follow(known, version, 2), self.directory.version)
        self.assertEqual(known, contents(self.directory))
