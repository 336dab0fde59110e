"""The circle of identifiers, exhaustively where it is small, against walking it step by step."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.ring import circle
from py2p_twisted.settings import MAX_K


def walk(start: int, size: int) -> list[int]:
    """All identifiers in the order in which they are met, `start` itself last."""
    return [(start + step) % size for step in range(1, size + 1)]


class BetweenTests(SynchronousTestCase):
    def test_every_triple(self) -> None:
        """From a to c lies what one who walks from a meets before c."""
        for k in range(1, 7):
            size = 1 << k
            for a in range(size):
                met = {identifier: step for step, identifier in enumerate(walk(a, size))}
                for b in range(size):
                    for c in range(size):
                        before = met[b] < met[c]
                        self.assertEqual(circle.between(a, b, c), before, (k, a, b, c))
                        right = before or b == c
                        self.assertEqual(circle.between_right(a, b, c), right, (k, a, b, c))

    def test_once_around(self) -> None:
        """From a to a lie all others; with a itself it is the whole circle."""
        others = [b for b in range(8) if circle.between(3, b, 3)]
        self.assertEqual(others, [0, 1, 2, 4, 5, 6, 7])
        self.assertTrue(all(circle.between_right(3, b, 3) for b in range(8)))

    def test_distance_is_the_number_of_steps(self) -> None:
        for k in range(1, 7):
            for a in range(1 << k):
                steps = {b: step for step, b in enumerate(walk(a, 1 << k), 1)} | {a: 0}
                for b, step in steps.items():
                    self.assertEqual(circle.distance(a, b, k), step)


class TravelTests(SynchronousTestCase):
    def test_round_trip_at_the_edges(self) -> None:
        for k in range(1, MAX_K + 1):
            for identifier in {0, 1, (1 << k) // 2, (1 << k) - 1}:
                raw = circle.to_bytes(identifier, k)
                self.assertEqual(len(raw), -(-k // 8))
                self.assertEqual(circle.from_bytes(raw, k), identifier)

    def test_what_is_outside_the_circle_is_refused(self) -> None:
        for k in range(1, MAX_K + 1):
            size = -(-k // 8)
            for raw in (b"", bytes(size - 1), bytes(size + 1)):
                self.assertRaises(ValueError, circle.from_bytes, raw, k)
            if k % 8:
                self.assertRaises(ValueError, circle.from_bytes, (1 << k).to_bytes(size, "big"), k)
                self.assertRaises(ValueError, circle.from_bytes, b"\xff" * size, k)

    @given(st.binary(max_size=22), st.integers(1, MAX_K))
    def test_any_bytes_are_refused_or_come_back(self, raw: bytes, k: int) -> None:
        try:
            identifier = circle.from_bytes(raw, k)
        except ValueError:
            return
        self.assertTrue(0 <= identifier < 1 << k)
        self.assertEqual(circle.to_bytes(identifier, k), raw)


class IdentifierTests(SynchronousTestCase):
    def test_a_key_lies_at_the_first_bits_of_its_sha256(self) -> None:
        # sha256(b"abc") begins ba7816bf..., as published in FIPS 180-4.
        self.assertEqual(circle.key_identifier(b"abc", 32), 0xBA7816BF)
        self.assertEqual(circle.key_identifier(b"abc", 8), 0xBA)
        self.assertEqual(circle.key_identifier(b"abc", 1), 1)

    def test_a_larger_circle_keeps_the_first_bits(self) -> None:
        whole = circle.key_identifier(b"", MAX_K)
        node = circle.node_identifier("host", 4444, "net", MAX_K)
        for k in range(1, MAX_K + 1):
            self.assertEqual(circle.key_identifier(b"", k), whole >> (MAX_K - k))
            found = circle.node_identifier("host", 4444, "net", k)
            self.assertEqual(found, node >> (MAX_K - k))

    def test_a_node_is_placed_by_address_network_and_salt(self) -> None:
        places = {
            circle.node_identifier(*name)
            for name in (
                ("a", 1, "net", MAX_K),
                ("b", 1, "net", MAX_K),
                ("a", 2, "net", MAX_K),
                ("a", 1, "other", MAX_K),
                ("a", 1, "net", MAX_K, 1),
            )
        }
        self.assertEqual(len(places), 5)


class PartitionTests(SynchronousTestCase):
    def test_every_identifier_lies_in_one_slice(self) -> None:
        for k in range(1, 13):
            slices = [circle.partition_of(identifier, k) for identifier in range(1 << k)]
            self.assertEqual(slices, sorted(slices))
            self.assertEqual(set(slices), set(range(circle.partition_count(k))))
            for partition in range(circle.partition_count(k)):
                self.assertEqual(slices.index(partition), circle.partition_start(partition, k))
                self.assertEqual(slices.count(partition), (1 << k) // circle.partition_count(k))

    def test_a_large_circle_has_1024(self) -> None:
        for k in range(10, MAX_K + 1):
            self.assertEqual(circle.partition_count(k), 1024)
            for partition in (0, 1, 1023):
                start = circle.partition_start(partition, k)
                self.assertEqual(circle.partition_of(start, k), partition)
                self.assertEqual(circle.partition_of(start - 1, k), partition - 1)
            self.assertEqual(circle.partition_of((1 << k) - 1, k), 1023)

    def test_partitions_of_keys(self) -> None:
        for k in range(1, MAX_K + 1):
            for key in (b"", b"abc", b"test key", b"x" * 4096, *(bytes([n]) for n in range(50))):
                place = circle.key_identifier(key, k)
                self.assertEqual(circle.key_partition(key, k), circle.partition_of(place, k))


class WidestGapTests(SynchronousTestCase):
    def test_every_set_of_three_bits(self) -> None:
        """All of the widest gaps are halved, as evenly as can be, and nothing else is."""
        for count in range(1, 9):
            for taken in combinations(range(8), count):
                middles = circle.widest_gap_middles(taken, 3)
                self.assertEqual(sorted(middles), sorted(_halving(set(taken), 8)), taken)

    def test_no_node_yet(self) -> None:
        self.assertEqual(circle.widest_gap_middles([], 3), [0])

    def test_all_taken(self) -> None:
        for k in range(1, 7):
            self.assertEqual(circle.widest_gap_middles(range(1 << k), k), [])

    def test_order_and_repetition_do_not_matter(self) -> None:
        self.assertEqual(circle.widest_gap_middles([6, 1, 6, 1], 3), [3])

    def test_a_large_circle(self) -> None:
        self.assertEqual(circle.widest_gap_middles([0], MAX_K), [1 << (MAX_K - 1)])


def _halving(taken: set[int], size: int) -> list[int]:
    """The free identifiers in the middle of a widest run of free ones, found by walking."""

    def free_run(identifier: int, direction: int) -> int:
        """Free identifiers from here on, this one included."""
        steps = 0
        while (identifier + direction * steps) % size not in taken:
            steps += 1
        return steps

    free = [identifier for identifier in range(size) if identifier not in taken]
    runs = {identifier: (free_run(identifier, -1), free_run(identifier, 1)) for identifier in free}
    widest = max((before + after for before, after in runs.values()), default=0)
    return [
        identifier
        for identifier, (before, after) in runs.items()
        if before + after == widest and after - before in (0, 1)
    ]
