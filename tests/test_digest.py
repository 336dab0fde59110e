"""Digests: equal records, whatever their order, have equal ones; any difference is found."""

from __future__ import annotations

from itertools import permutations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.digest import (
    DIGEST_BYTES,
    EMPTY_BASE,
    MOST_BUCKETS,
    PER_BUCKET,
    base_of,
    bucket_count,
    bucket_of,
    differing,
    digests,
    keys_in_buckets,
)
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Base, Record

from .fakes import record

KEYS = st.binary(max_size=4)
RECORDS = st.dictionaries(KEYS, st.integers(1, 4).map(record), max_size=12)
BUCKETS = st.sampled_from([1, 2, 4, 16, 1024])


class BaseTests(SynchronousTestCase):
    def test_empty(self) -> None:
        self.assertEqual(base_of([]), EMPTY_BASE)

    def test_every_order(self) -> None:
        records = [(bytes([number]), record(number)) for number in range(5)]
        self.assertEqual(len({base_of(order) for order in permutations(records)}), 1)

    @settings(max_examples=60, deadline=None)
    @given(RECORDS, RECORDS)
    def test_equal_bases_mean_equal_versions(
        self, one: dict[bytes, Record], other: dict[bytes, Record]
    ) -> None:
        self.assertEqual(base_of(one.items()).records, len(one))
        self.assertEqual(base_of(one.items()) == base_of(other.items()), one == other)

    def test_any_difference(self) -> None:
        """In key or any part of the ballot, by one record more or fewer, or one twice."""
        ballot = Ballot(FIRST_EPOCH, 1, b"i" * 16)
        kept = Record(ballot, b"value")
        others = [
            ballot._replace(counter=2),
            ballot._replace(instance=b"j" * 16),
            ballot._replace(epoch=FIRST_EPOCH.following()),
            ballot._replace(epoch=FIRST_EPOCH._replace(era=1)),
            ballot._replace(epoch=FIRST_EPOCH._replace(era_random=1)),
        ]
        rest = [(b"r%d" % number, record(number)) for number in range(3)]
        bases = [
            base_of([*rest, (b"key", kept)]),
            *(base_of([*rest, (b"key", kept.at(other))]) for other in others),
            base_of([*rest, (b"kez", kept)]),
            base_of(rest),
            base_of([*rest, (b"key", kept), (b"key2", kept)]),
            base_of([*rest, (b"key", kept), (b"key", kept)]),
            base_of([*rest, (b"key", kept), (b"key", kept), (b"key", kept)]),
            EMPTY_BASE,
        ]
        self.assertEqual(len(set(bases)), len(bases))

    def test_swapped_versions(self) -> None:
        one, two = record(1), record(2)
        self.assertNotEqual(
            base_of([(b"a", one), (b"b", two)]), base_of([(b"a", two), (b"b", one)])
        )

    def test_the_same_on_every_node(self) -> None:
        """Nodes compare them: the digest of these records is part of the wire protocol."""
        records = {b"key": record(1, b"value"), b"gone": record(2, None)}
        base = base_of(records.items())
        self.assertEqual(base, Base(2, bytes.fromhex("666a22d16850bfefe34fa68a3c9d9f51")))
        self.assertEqual(digests(records.items(), 1), base.digest)
        self.assertEqual(bucket_of(b"key", MOST_BUCKETS), 11177)


class BucketTests(SynchronousTestCase):
    def test_how_many(self) -> None:
        """A power of two, about `PER_BUCKET` records each, and never more than fit a message."""
        for records in [*range(2000), 10**5, 10**6, 10**7, 10**9]:
            buckets = bucket_count(records)
            self.assertEqual(buckets & (buckets - 1), 0)
            self.assertTrue(1 <= buckets <= MOST_BUCKETS)
            if buckets < MOST_BUCKETS:
                self.assertLess(records / buckets, 2 * PER_BUCKET)
            if buckets > 1:
                self.assertGreater(records / buckets, PER_BUCKET / 2)

    def test_keys_spread(self) -> None:
        """No bucket gets much more than its share."""
        rng = Random(1)
        for make in (lambda n: b"key %d" % n, lambda n: rng.randbytes(12)):
            counts = [0] * 64
            for number in range(64 * PER_BUCKET):
                counts[bucket_of(make(number), 64)] += 1
            self.assertLess(max(counts), 2 * PER_BUCKET)

    @settings(max_examples=100, deadline=None)
    @given(RECORDS, RECORDS, BUCKETS)
    def test_differing_buckets(
        self, mine: dict[bytes, Record], theirs: dict[bytes, Record], buckets: int
    ) -> None:
        """Exactly those buckets differ that hold a key whose versions differ."""
        keys = {key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key)}
        wanted = sorted({bucket_of(key, buckets) for key in keys})
        ours, others = digests(mine.items(), buckets), digests(theirs.items(), buckets)
        self.assertEqual(len(ours), buckets * DIGEST_BYTES)
        self.assertEqual(differing(ours, others), wanted)
        self.assertEqual(differing(others, ours), wanted)

    @settings(max_examples=100, deadline=None)
    @given(RECORDS, BUCKETS, st.sets(st.integers(0, 15)))
    def test_in_buckets(self, records: dict[bytes, Record], buckets: int, some: set[int]) -> None:
        wanted = {number % buckets for number in some}
        found = keys_in_buckets(records, buckets, wanted)
        self.assertEqual(set(found), wanted)
        for key in records:
            bucket = bucket_of(key, buckets)
            self.assertEqual(key in found.get(bucket, ()), bucket in wanted)
        every = keys_in_buckets(records, buckets, range(buckets))
        self.assertEqual(sorted(key for keys in every.values() for key in keys), sorted(records))

    def test_different_numbers_of_buckets(self) -> None:
        self.assertRaises(ValueError, differing, digests([], 1), digests([], 2))

    def test_repairing_what_differs_makes_equal(self) -> None:
        """What an exchange does: replace the records of the buckets that differ."""
        theirs = {b"%d" % number: record(number) for number in range(500)}
        mine = {key: one for key, one in theirs.items() if one.ballot.counter % 7}
        mine |= {b"%d" % number: record(1) for number in (3, 33, 600)}
        buckets = bucket_count(len(theirs))
        wanted = differing(digests(mine.items(), buckets), digests(theirs.items(), buckets))
        for keys in keys_in_buckets(mine, buckets, wanted).values():
            for key in keys:
                del mine[key]
        for keys in keys_in_buckets(theirs, buckets, wanted).values():
            mine |= {key: theirs[key] for key in keys}
        self.assertEqual(mine, theirs)
        self.assertEqual(base_of(mine.items()), base_of(theirs.items()))
