"""Epochs, ballots, records and bases: their order, their identity, their encoding."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.group import (
    EMPTY_BASE,
    FIRST_EPOCH,
    Ballot,
    Base,
    Config,
    Epoch,
    Record,
    Successor,
    base_of,
    quorum,
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

    def test_quorum(self) -> None:
        """Two quorums always meet."""
        self.assertEqual([quorum(members) for members in range(1, 6)], [1, 2, 2, 3, 3])
        for members in range(1, 6):
            self.assertGreater(2 * quorum(members), members)


class RecordTests(SynchronousTestCase):
    def test_has_done_takes_whole_ids_only(self) -> None:
        one, two = b"aaaabbbb", b"ccccdddd"
        kept = Record(Ballot(FIRST_EPOCH, 1, b"i"), None, one + two, 2)
        self.assertTrue(kept.has_done(one) and kept.has_done(two))
        for straddling in (b"bbbbcccc", b"abbbbccc", b"aaaa", b""):
            self.assertFalse(kept.has_done(straddling))

    def test_remember(self) -> None:
        ids = [bytes([number]) * 8 for number in range(6)]
        kept: Record | None = None
        for count, operation in enumerate(ids, 1):
            operations = Record.remember(kept, operation)
            self.assertEqual(operations, b"".join(ids[max(0, count - 4) : count]))
            kept = Record(Ballot(FIRST_EPOCH, count, b"i"), b"v", operations, count)

    def test_forgot_some(self) -> None:
        forgot = [
            record(1).__class__(record(1).ballot, None, b"", n).forgot_some() for n in (0, 4, 5)
        ]
        self.assertEqual(forgot, [False, False, True])


class ConfigTests(SynchronousTestCase):
    def test_has(self) -> None:
        some = config(0, 1, 3, 5)
        self.assertTrue(some.has(make_peer(3).instance) and some.has(make_peer(5).instance))
        self.assertFalse(some.has(make_peer(4).instance) or some.has(b""))


RECORDS = st.dictionaries(st.binary(max_size=6), instances_of(Record), max_size=6)


class BaseTests(SynchronousTestCase):
    def test_empty(self) -> None:
        self.assertEqual(base_of([]), EMPTY_BASE)

    def test_every_order(self) -> None:
        records = [(bytes([number]), record(number)) for number in range(5)]
        self.assertEqual(len({base_of(order) for order in permutations(records)}), 1)

    @settings(max_examples=60, deadline=None)
    @given(RECORDS, st.randoms(use_true_random=False))
    def test_any_order(self, records: dict[bytes, Record], rng: object) -> None:
        shuffled = list(records.items())
        rng.shuffle(shuffled)  # type: ignore[attr-defined]
        self.assertEqual(base_of(shuffled), base_of(records.items()))
        self.assertEqual(base_of(shuffled).records, len(records))

    @settings(max_examples=60, deadline=None)
    @given(RECORDS, RECORDS)
    def test_equal_bases_mean_equal_records(
        self, one: dict[bytes, Record], other: dict[bytes, Record]
    ) -> None:
        self.assertEqual(base_of(one.items()) == base_of(other.items()), one == other)

    def test_any_difference(self) -> None:
        """In key or any field of any record, by one record more or fewer, or one twice."""
        ballot = Ballot(FIRST_EPOCH, 1, b"i" * 16)
        kept = Record(ballot, b"value", b"operation", 1)
        others = [
            Record(ballot._replace(counter=2), b"value", b"operation", 1),
            Record(ballot._replace(instance=b"j" * 16), b"value", b"operation", 1),
            Record(ballot._replace(epoch=FIRST_EPOCH.following()), b"value", b"operation", 1),
            Record(ballot, b"other", b"operation", 1),
            Record(ballot, b"", b"operation", 1),
            Record(ballot, None, b"operation", 1),
            Record(ballot, b"value", b"other", 1),
            Record(ballot, b"value", b"operation", 2),
        ]
        rest = [(b"r%d" % number, record(number)) for number in range(3)]
        bases = [
            base_of([*rest, (b"key", kept)]),
            *(base_of([*rest, (b"key", other)]) for other in others),
            base_of([*rest, (b"kez", kept)]),
            base_of(rest),
            base_of([*rest, (b"key", kept), (b"key2", kept)]),
            base_of([*rest, (b"key", kept), (b"key", kept)]),
            base_of([*rest, (b"key", kept), (b"key", kept), (b"key", kept)]),
            EMPTY_BASE,
        ]
        self.assertEqual(len(set(bases)), len(bases))

    def test_swapped_values(self) -> None:
        one, two = record(1, b"one"), record(1, b"two")
        self.assertNotEqual(
            base_of([(b"a", one), (b"b", two)]), base_of([(b"a", two), (b"b", one)])
        )

    def test_key_and_value_do_not_run_together(self) -> None:
        self.assertNotEqual(
            base_of([(b"ab", record(1, b"c"))]), base_of([(b"a", record(1, b"bc"))])
        )

    def test_the_same_on_every_node(self) -> None:
        """Nodes compare them: the digest of these records is part of the wire protocol."""
        base = base_of([(b"key", record(1, b"value")), (b"gone", record(2, None))])
        self.assertEqual(base, Base(2, bytes.fromhex("0e132613b23a636aa546e360c93a8cef")))


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
