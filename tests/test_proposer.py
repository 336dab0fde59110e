"""What a write does: the whole truth table, and that a retry never does it twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.acceptor import Acceptor, WrongEpoch
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Epoch, Record
from py2p_twisted.table.proposer import Condition, Outcome, Write, decide, write_alone

from .fakes import config

ME = b"m" * 16
KEY = b"key"
OPERATION = b"the one!"
CONDITIONS = (Condition.ALWAYS, Condition.PRESENT, Condition.EQUALS)
OTHERS = [bytes([number]) * 8 for number in range(1, 7)]


def some_record(value: bytes | None, operations: list[bytes], writes: int) -> Record:
    return Record(Ballot(FIRST_EPOCH, 1, ME), value, b"".join(operations), writes)


class DecideTests(SynchronousTestCase):
    def test_truth_table(self) -> None:
        """Every kind of record, condition and doubt."""
        histories: list[tuple[list[bytes], int, bool, bool]] = [
            # its operations, its count of writes, did ours happen, is that certain
            ([], 0, False, True),
            (OTHERS[:1], 1, False, True),
            (OTHERS[:4], 4, False, True),
            ([OPERATION], 1, True, True),
            ([*OTHERS[:3], OPERATION], 9, True, True),
            ([OPERATION, *OTHERS[:3]], 9, True, True),
            (OTHERS[:4], 5, False, False),
            (OTHERS[:4], 1000, False, False),
        ]
        values = (None, b"", b"v")
        records: list[tuple[Record | None, bool, bool]] = [(None, False, True)]
        for value, (operations, writes, done, certain) in product(values, histories):
            records.append((some_record(value, operations, writes), done, certain))
        doubts = (None, FIRST_EPOCH, FIRST_EPOCH.following())
        purged = FIRST_EPOCH.following()
        for (current, done, certain), condition, expected, doubt, new in product(
            records, Condition, (None, b"", b"v", b"w"), doubts, (None, b"new")
        ):
            write = Write(KEY, new, OPERATION, condition, expected, doubt)
            value = current.value if current else None
            holds = {
                Condition.ALWAYS: True,
                Condition.PRESENT: value is not None,
                Condition.EQUALS: value == expected,
                Condition.HASHES: False,  # none of these is a hash
            }[condition]
            right: Outcome | None = None if holds else Outcome.REFUSED
            if doubt is not None and done:
                right = Outcome.APPLIED
            elif doubt is not None and (doubt < purged or not certain):
                right = Outcome.UNKNOWN
            self.assertIs(decide(current, write, purged), right, (current, write))

    def test_hashes(self) -> None:
        """A long expected value is told by its hash."""
        current = some_record(b"v", [], 1)
        for expected, right in ((b"v", None), (b"w", Outcome.REFUSED)):
            write = Write(KEY, b"x", OPERATION, Condition.HASHES, sha256(expected).digest())
            self.assertIs(decide(current, write, FIRST_EPOCH), right)
            self.assertIs(decide(None, write, FIRST_EPOCH), Outcome.REFUSED)

    def test_without_a_doubt_the_ids_do_not_matter(self) -> None:
        """A first attempt is decided by its condition alone."""
        current = some_record(b"v", [OPERATION], 9)
        self.assertIsNone(decide(current, Write(KEY, b"w", OPERATION), FIRST_EPOCH))


class WriteAloneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.acceptor = Acceptor(config())
        self.number = 0

    def write(self, value: bytes | None, condition: Condition = Condition.ALWAYS) -> Outcome:
        self.number += 1
        operation = self.number.to_bytes(8, "big")
        return write_alone(self.acceptor, ME, Write(KEY, value, operation, condition))

    def record(self) -> Record:
        kept = self.acceptor.get(KEY)
        assert kept is not None
        return kept

    def test_remembers_the_last_four(self) -> None:
        for number in range(1, 12):
            self.assertIs(self.write(b"%d" % number if number % 3 else None), Outcome.APPLIED)
            last = [count.to_bytes(8, "big") for count in range(max(1, number - 3), number + 1)]
            self.assertEqual(self.record().operations, b"".join(last))
            self.assertEqual(self.record().writes, number)
            for count in range(1, number + 1):
                done = self.record().has_done(count.to_bytes(8, "big"))
                self.assertEqual(done, count > number - 4)
            self.assertEqual(self.record().forgot_some(), number > 4)

    def test_deleting_nothing_leaves_nothing(self) -> None:
        self.assertIs(self.write(None), Outcome.APPLIED)
        self.assertEqual(len(self.acceptor), 0)
        self.assertIs(self.write(None, Condition.PRESENT), Outcome.REFUSED)

    def test_ballots_grow(self) -> None:
        """Over all keys, past every promise, and they begin with the epoch (rule 7)."""
        self.acceptor.prepare(FIRST_EPOCH, Ballot(FIRST_EPOCH, 77, b"\xff" * 16), KEY)
        before = Ballot(FIRST_EPOCH, 77, b"\xff" * 16)
        for _ in range(3):
            self.write(b"v")
            self.assertGreater(self.record().ballot, before)
            before = self.record().ballot
        self.assertEqual(before.epoch, FIRST_EPOCH)
        self.assertEqual(before.instance, ME)

    def test_wedged(self) -> None:
        self.write(b"v")
        self.acceptor.wedge(FIRST_EPOCH, Ballot(FIRST_EPOCH, 1, ME))
        for condition in Condition:
            self.assertTrue(self.assertRaises(WrongEpoch, self.write, b"w", condition).wedged)
        self.assertEqual(self.record().value, b"v")


@dataclass
class Operation:
    """A write as its client knows it, and whether it took effect as the test knows it."""

    write: Write
    first_sent_in: Epoch | None = None
    effects: int = 0


@dataclass
class World:
    """A group of one through its epochs, beside a plain model of what is right."""

    acceptor: Acceptor = field(default_factory=lambda: Acceptor(config()))
    operations: list[Operation] = field(default_factory=list)
    values: dict[bytes, bytes | None] = field(default_factory=dict)
    histories: dict[bytes, list[bytes]] = field(default_factory=dict)

    def next_epoch(self) -> None:
        """Tombstones, and what they remember, go only here (rule 11)."""
        following = config(0, self.acceptor.config.epoch.number + 1)
        purged = self.acceptor.successor(following).purged
        self.acceptor = Acceptor(following, list(self.acceptor.live_records()), purged=purged)
        for key in [key for key, value in self.values.items() if value is None]:
            del self.values[key], self.histories[key]

    def attempt(self, operation: Operation, *, arrives: bool) -> None:
        """Send a write, as a first attempt or a retry; its answer may be lost, or itself."""
        epoch, write = self.acceptor.config.epoch, operation.write
        write = Write(
            *(write.key, write.value, write.operation, write.condition, write.expected),
            operation.first_sent_in,
        )
        if operation.first_sent_in is None:
            operation.first_sent_in = epoch
        if not arrives:
            return
        before = self.acceptor.get(write.key)
        outcome = write_alone(self.acceptor, ME, write)
        after = self.acceptor.get(write.key)
        if after != before:
            operation.effects += 1
            assert outcome is Outcome.APPLIED
            self.values[write.key] = write.value
            self.histories.setdefault(write.key, []).append(write.operation)
        self.check(operation, write, outcome, changed=after != before)

    def check(self, operation: Operation, write: Write, outcome: Outcome, *, changed: bool) -> None:
        """Is the outcome the right one, and the record what it should be?"""
        assert operation.effects <= 1, "took effect twice"
        history = self.histories.get(write.key, [])
        kept = self.acceptor.get(write.key)
        assert (kept.value if kept else None) == self.values.get(write.key)
        if kept is not None:
            assert kept.operations == b"".join(history[-4:])
            assert kept.writes == len(history)
        if outcome is Outcome.UNKNOWN:
            assert write.doubtful is not None and not changed
            assert write.operation not in history[-4:]
            assert write.doubtful < self.acceptor.purged or len(history) > 4
        elif outcome is Outcome.APPLIED and not changed:
            nothing_to_delete = write.value is None and kept is None
            assert operation.effects == 1 or nothing_to_delete
        elif outcome is Outcome.REFUSED:
            value = self.values.get(write.key)
            wrong = (write.expected != value, value is None)[write.condition is Condition.PRESENT]
            assert wrong and write.condition is not Condition.ALWAYS
            assert operation.effects == 0


VALUES = st.none() | st.sampled_from([b"", b"1", b"2"])
NEW = st.tuples(
    *(st.just("new"), st.sampled_from([b"a", b"b"]), VALUES, st.sampled_from(CONDITIONS), VALUES),
    st.booleans(),
)
RETRY = st.tuples(st.just("retry"), st.integers(0, 7), st.booleans())
STEPS = st.lists(st.one_of(NEW, NEW, RETRY, RETRY, st.just(("epoch",))), max_size=40)


class RetryTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(STEPS)
    def test_never_twice(self, steps: list[tuple[object, ...]]) -> None:
        """Writes, their retries in any number and order, losses, and new epochs in between."""
        world = World()
        for step in steps:
            match step:
                case ("new", bytes(key), value, Condition() as condition, expected, bool(arrives)):
                    operation = len(world.operations).to_bytes(8, "big")
                    made = Operation(Write(key, value, operation, condition, expected))  # type: ignore[arg-type]
                    world.operations.append(made)
                    world.attempt(made, arrives=arrives)
                case ("retry", int(back), bool(arrives)) if back < len(world.operations):
                    world.attempt(world.operations[-1 - back], arrives=arrives)
                case ("epoch",):
                    world.next_epoch()

    def test_an_answer_that_was_lost(self) -> None:
        world = World()
        first = Operation(Write(b"a", b"1", OPERATION, Condition.EQUALS, None))
        world.attempt(first, arrives=True)
        world.attempt(Operation(Write(b"a", b"2", OTHERS[0])), arrives=True)
        retry = Write(b"a", b"1", OPERATION, Condition.EQUALS, None, FIRST_EPOCH)
        self.assertIs(write_alone(world.acceptor, ME, retry), Outcome.APPLIED)
        self.assertEqual(world.acceptor.get(b"a").value, b"2")  # type: ignore[union-attr]

    def test_a_request_that_was_lost(self) -> None:
        world = World()
        lost = Operation(Write(b"a", b"1", OPERATION))
        world.attempt(lost, arrives=False)
        for other in OTHERS[:4]:
            world.attempt(Operation(Write(b"a", b"2", other)), arrives=True)
        world.attempt(lost, arrives=True)
        self.assertEqual((lost.effects, world.values), (1, {b"a": b"1"}))

    def test_unknown_after_five_writes_or_a_purge(self) -> None:
        retry = Write(b"a", b"1", OPERATION, doubtful=FIRST_EPOCH)
        world = World()
        for other in OTHERS[:5]:
            world.attempt(Operation(Write(b"a", b"2", other)), arrives=True)
        self.assertIs(write_alone(world.acceptor, ME, retry), Outcome.UNKNOWN)
        world = World()
        world.attempt(Operation(Write(b"other", b"2", OTHERS[0])), arrives=True)
        world.attempt(Operation(Write(b"other", None, OTHERS[1])), arrives=True)
        world.next_epoch()  # a tombstone went: it may have been that of this write
        self.assertIs(write_alone(world.acceptor, ME, retry), Outcome.UNKNOWN)
        self.assertEqual(len(world.acceptor), 0)

    def test_epochs_that_purge_nothing_leave_no_doubt(self) -> None:
        world = World()
        lost = Operation(Write(b"a", b"1", OPERATION))
        world.attempt(lost, arrives=False)
        world.next_epoch()
        world.next_epoch()
        world.attempt(lost, arrives=True)
        self.assertEqual((lost.effects, world.values), (1, {b"a": b"1"}))

    def test_done_is_known_in_a_later_epoch(self) -> None:
        world = World()
        done = Operation(Write(b"a", b"1", OPERATION))
        world.attempt(done, arrives=True)
        world.next_epoch()
        retry = Write(b"a", b"1", OPERATION, doubtful=FIRST_EPOCH)
        self.assertIs(write_alone(world.acceptor, ME, retry), Outcome.APPLIED)
