"""Epochs, ballots, records and configurations: their order, their growth, their encoding."""

from __future__ import annotations

from itertools import pairwise, product

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.group import (
    FIRST_EPOCH,
    Ballot,
    Base,
    Config,
    Epoch,
    Record,
    Successor,
    quorum,
    written,
)

from .fakes import config, instances_of, make_peer, record


class OrderTests(SynchronousTestCase):
    def test_epochs(self) -> None:
        """By era, then its random number, then the number; in every pair of small ones."""
        ordered = [Epoch(*parts) for parts in product(range(3), repeat=3)]
        for lower, higher in pairwise(ordered):
            self.assertLess(lower, higher)
            self.assertNotEqual(lower, higher)
        self.assertEqual(sorted(set(ordered)), ordered)

    def test_following(self) -> None:
        epoch = Epoch(3, 9, 5)
        self.assertEqual(epoch.following(), Epoch(3, 9, 6))
        self.assertEqual(epoch.following().era_name, epoch.era_name)
        self.assertEqual(epoch.era_name, (3, 9))
        self.assertGreater(epoch.following(), epoch)

    def test_a_higher_era_is_above_every_number(self) -> None:
        self.assertLess(Epoch(0, 2**62, 2**62), Epoch(1, 0, 1))
        self.assertLess(Epoch(1, 5, 2**62), Epoch(1, 6, 1))

    def test_ballots_begin_with_the_epoch(self) -> None:
        """Then comes the counter, then the instance (rule 7)."""
        epochs = [FIRST_EPOCH, FIRST_EPOCH.following(), Epoch(1, 0, 1)]
        ordered = [Ballot(*parts) for parts in product(epochs, (0, 1, 2), (b"a", b"b"))]
        for lower, higher in pairwise(ordered):
            self.assertLess(lower, higher)
        self.assertEqual(sorted(set(ordered)), ordered)

    def test_the_next_ballot(self) -> None:
        """Nothing of a lower counter or a lower instance lies at or above it."""
        here = Ballot(FIRST_EPOCH, 4, b"m" * 16)
        self.assertEqual(here.next(), Ballot(FIRST_EPOCH, 5, b"m" * 16))
        for other in (Ballot(FIRST_EPOCH, 4, b"z" * 16), Ballot(FIRST_EPOCH, 5, b"a" * 16)):
            self.assertTrue(here < other < here.next())
            self.assertGreater(other.next(), here.next(), "who accepts it refuses `next`")

    def test_plausible(self) -> None:
        self.assertTrue(Epoch(0, 2**62, 2**61 - 1).plausible())
        self.assertFalse(Epoch(0, 0, 2**61).plausible() or Epoch(2**32, 0, 1).plausible())

    def test_quorum(self) -> None:
        """Two quorums always meet."""
        self.assertEqual([quorum(members) for members in range(1, 6)], [1, 2, 2, 3, 3])
        for members in range(1, 6):
            self.assertGreater(2 * quorum(members), members)


IDS = [bytes([number]) * 8 for number in range(1, 10)]


def entries(*stamps: int) -> bytes:
    """The operations of a record: ids in order, with these stamps."""
    return b"".join(IDS[at] + stamp.to_bytes(8, "big") for at, stamp in enumerate(stamps))


class RecordTests(SynchronousTestCase):
    def test_done_takes_whole_ids_only(self) -> None:
        """Nothing that straddles two entries, no stamp, and no id that is not there."""
        one, two, stamp = b"aaaabbbb", b"ccccdddd", b"bbbbcccc"
        kept = Record(Ballot(FIRST_EPOCH, 1, b"i"), None, one + stamp + two + stamp)
        self.assertTrue(kept.done(one) and kept.done(two))
        for other in (stamp, b"bbbbbbbb", b"ccccaaaa", b"ccccbbbb", b"abbbbbbb", bytes(8)):
            self.assertIsNone(kept.done(other), other)

    def test_nothing_was_done_to_an_empty_one(self) -> None:
        self.assertIsNone(record(1).done(IDS[0]))
        self.assertEqual(record(1).stamp, 0)

    def test_stamp_is_that_of_the_last_write(self) -> None:
        kept = Record(Ballot(FIRST_EPOCH, 1, b"i"), b"v", entries(3, 7, 2**61))
        self.assertEqual(kept.stamp, 2**61)

    def test_at_another_ballot(self) -> None:
        """Settling a record changes its ballot, and nothing else."""
        ballots = [Ballot(FIRST_EPOCH, counter, b"i") for counter in (1, 2)]
        old = Record(ballots[0], b"v", entries(1, 2), 5)
        self.assertEqual(old.at(ballots[1]), Record(ballots[1], b"v", entries(1, 2), 5))


class WrittenTests(SynchronousTestCase):
    def test_the_last_four(self) -> None:
        """It remembers four writes with their stamps, and the stamp of the newest forgotten."""
        kept: Record | None = None
        for count, operation in enumerate(IDS, 1):
            ballot = Ballot(FIRST_EPOCH, count, b"i")
            refused = count % 3 == 0
            kept = written(kept, ballot, b"%d" % count, operation, 10 * count, refused=refused)
            self.assertEqual((kept.ballot, kept.value), (ballot, b"%d" % count))
            self.assertEqual(kept.stamp, 10 * count + 1)
            self.assertEqual(kept.forgot, 0 if count <= 4 else 10 * (count - 4) + 1)
            for number, other in enumerate(IDS, 1):
                remembered = count - 4 < number <= count
                self.assertIs(kept.done(other), number % 3 != 0 if remembered else None)

    def test_stamps_grow_with_the_clock_or_without_it(self) -> None:
        """Above the clock's time, and above that of the write before."""
        for clock, before, right in ((0, 7, 8), (6, 7, 8), (7, 7, 8), (8, 7, 9), (90, 7, 91)):
            old = Record(Ballot(FIRST_EPOCH, 1, b"i"), None, entries(before))
            kept = written(old, old.ballot.next(), b"v", IDS[5], clock)
            self.assertEqual(kept.stamp, right)
        self.assertEqual(written(None, old.ballot, b"v", IDS[0], 41).stamp, 42)

    def test_a_tombstone_remembers_too(self) -> None:
        old = Record(Ballot(FIRST_EPOCH, 1, b"i"), b"v", entries(1))
        gone = written(old, old.ballot.next(), None, IDS[1], 0)
        self.assertIsNone(gone.value)
        self.assertTrue(gone.done(IDS[0]) and gone.done(IDS[1]))

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2**50), st.booleans()), max_size=12))
    def test_against_a_list(self, writes: list[tuple[int, bool]]) -> None:
        """Whatever the clocks: every write is remembered, or no younger than what was forgotten."""
        kept: Record | None = None
        stamps: list[int] = []
        for number, (clock, refused) in enumerate(writes):
            operation, ballot = number.to_bytes(8, "little"), Ballot(FIRST_EPOCH, number + 1, b"i")
            kept = written(kept, ballot, b"v", operation, clock, refused=refused)
            stamps.append(kept.stamp)
            self.assertGreater(kept.stamp, clock)
            self.assertEqual(stamps, sorted(set(stamps)))
            for earlier, stamp in enumerate(stamps):
                done = kept.done(earlier.to_bytes(8, "little"))
                self.assertIs(done, not writes[earlier][1] if stamp > kept.forgot else None)


class ConfigTests(SynchronousTestCase):
    def test_has(self) -> None:
        some = config(0, 1, 3, 5)
        self.assertTrue(some.has(make_peer(3).instance) and some.has(make_peer(5).instance))
        self.assertFalse(some.has(make_peer(4).instance) or some.has(b""))

    def test_quorum(self) -> None:
        for members in range(1, 6):
            self.assertEqual(config(0, 1, *range(members)).quorum, quorum(members))

    def test_first_ballot(self) -> None:
        """It belongs to the first member, and is below all that full rounds use."""
        some = config(0, 7, 5, 1, 3)
        self.assertEqual(some.first_ballot, Ballot(some.epoch, 1, make_peer(5).instance))
        self.assertLess(some.first_ballot, Ballot(some.epoch, 2, bytes(16)))
        self.assertGreater(some.first_ballot, Ballot(config(0, 6).epoch, 2**60, b"\xff" * 16))


class EncodingTests(SynchronousTestCase):
    def test_round_trips(self) -> None:
        for kind in (Epoch, Ballot, Record, Base, Config, Successor):
            self.round_trip(kind)

    @staticmethod
    def round_trip(kind: type) -> None:
        @settings(max_examples=30, deadline=None, database=None)
        @given(instances_of(kind))
        def same_again(thing: object) -> None:
            again: object = msgspec.msgpack.decode(msgspec.msgpack.encode(thing), type=kind)
            assert again == thing and type(again) is kind
            assert hash(again) == hash(thing)

        same_again()

    def test_types_within(self) -> None:
        some = Successor(config(7, 3, 1, 2, 3), Base(9, bytes(16)), FIRST_EPOCH)
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(some), type=Successor)
        self.assertIs(type(again.config.epoch), Epoch)
        self.assertIs(type(again.base), Base)
        self.assertEqual(again.config.epoch.following().number, 4)
