"""What a write does, and its rounds: the whole truth table, and every order of messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.acceptor import Acceptor, NotPromised, WrongEpoch
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Epoch, Record, written
from py2p_twisted.table.proposer import Condition, Outcome, Proposal, Step, Write, decide

from .fakes import config, make_peer

ME = make_peer(1).instance  # the first member of all groups here
LOWER, HIGHER = bytes(16), b"\xff" * 16
KEY = b"key"
OPERATION = b"the one!"
CONDITIONS = (Condition.ALWAYS, Condition.PRESENT, Condition.EQUALS)
OTHERS = [bytes([number]) * 8 for number in range(1, 7)]


def some_record(
    value: bytes | None, operations: list[bytes], forgot: int = 0, refused: bytes = b""
) -> Record:
    """A record whose writes have stamps above `forgot`; one of them may have been refused."""
    ballot = Ballot(FIRST_EPOCH, 2, ME)
    kept: Record | None = None
    for operation in operations:
        kept = written(kept, ballot, value, operation, forgot, refused=operation == refused)
    return Record(ballot, value, kept.operations if kept is not None else b"", forgot)


class DecideTests(SynchronousTestCase):
    def test_truth_table(self) -> None:
        """Every kind of record, condition, clock and doubt."""
        histories: list[tuple[list[bytes], int, bool | None]] = [
            # its operations, the stamp of the newest one that it forgot, was ours done or refused
            ([], 0, None),
            (OTHERS[:4], 0, None),
            ([OPERATION], 0, True),
            ([OPERATION], 0, False),
            ([*OTHERS[:3], OPERATION], 9, True),
            ([OPERATION, *OTHERS[:3]], 9, True),
            ([OPERATION, *OTHERS[:3]], 9, False),
            (OTHERS[:4], 5, None),
            (OTHERS[:4], 6, None),
        ]
        records: list[tuple[Record | None, bool | None]] = [(None, None)]
        for value, (operations, forgot, done) in product((None, b"", b"v"), histories):
            refused = OPERATION if done is False else b""
            records.append((some_record(value, operations, forgot, refused), done))
        doubts = (None, FIRST_EPOCH, FIRST_EPOCH.following())
        purged = FIRST_EPOCH.following()
        for (current, done), condition, expected, after, doubt, new in product(
            records, Condition, (None, b"", b"v", b"w"), (0, 5, 6), doubts, (None, b"new")
        ):
            write = Write(KEY, new, OPERATION, condition, expected, after, doubt)
            value = current.value if current else None
            holds = {
                Condition.ALWAYS: True,
                Condition.PRESENT: value is not None,
                Condition.EQUALS: value == expected,
                Condition.HASHES: False,  # none of these is a hash
                Condition.NEVER: False,
            }[condition]
            right: Outcome | None = None if holds else Outcome.REFUSED
            if condition is Condition.NEVER:
                pass
            elif done is not None:
                right = Outcome.APPLIED if done else Outcome.REFUSED
            elif doubt is not None and doubt < purged:
                right = Outcome.UNKNOWN
            elif current is not None and current.forgot > after:
                right = Outcome.UNKNOWN if doubt is not None else Outcome.STALE
            self.assertIs(decide(current, write, purged), right, (current, write))

    def test_hashes(self) -> None:
        """A long expected value is told by its hash."""
        current = some_record(b"v", [])
        for expected, right in ((b"v", None), (b"w", Outcome.REFUSED)):
            write = Write(KEY, b"x", OPERATION, Condition.HASHES, sha256(expected).digest())
            self.assertIs(decide(current, write, FIRST_EPOCH), right)
            self.assertIs(decide(None, write, FIRST_EPOCH), Outcome.REFUSED)

    def test_again(self) -> None:
        """Only clock and doubt differ."""
        write = Write(KEY, b"v", OPERATION, Condition.EQUALS, b"w", 3)
        other = write.again(4, FIRST_EPOCH)
        self.assertEqual((other.after, other.doubtful), (4, FIRST_EPOCH))
        self.assertEqual(other.again(3, None), write)


def carry(acceptor: Acceptor, write: Write, clock: int = 0, *, full: bool = False) -> Proposal:
    """Carry a write out in a group of one: its member is a quorum by itself."""
    epoch, proposal = acceptor.config.epoch, Proposal(acceptor.config, write)
    ballot = None if full else acceptor.steady(write.key, ME)
    if ballot is not None:
        acceptor.check(epoch)
        proposal.steady(acceptor, ballot, clock)
    else:
        proposal.prepare(Ballot(epoch, acceptor.counter + 2, ME))
    while proposal.step is not Step.DONE:
        if proposal.step is Step.PREPARE:
            found = acceptor.prepare(epoch, proposal.ballot, write.key)
            proposal.promised(found, acceptor.purged, clock)
        elif proposal.step is Step.CONFIRM:
            found = acceptor.read(epoch, write.key)
            assert proposal.confirmed(None if found is None else found.ballot)
        else:
            assert proposal.record is not None
            acceptor.accept(epoch, write.key, proposal.record)
            proposal.accepted()
    return proposal


class AloneTests(SynchronousTestCase):
    """A group of one, with and without PREPARE."""

    full = False

    def setUp(self) -> None:
        self.acceptor = Acceptor(config())
        self.number = 0

    def write(self, value: bytes | None, condition: Condition = Condition.ALWAYS) -> Outcome:
        self.number += 1
        write = Write(
            KEY, value, self.number.to_bytes(8, "big"), condition, after=self.acceptor.stamp
        )
        return carry(self.acceptor, write, full=self.full).outcome

    def record(self) -> Record:
        kept = self.acceptor.get(KEY)
        assert kept is not None
        return kept

    def test_remembers_the_last_four(self) -> None:
        for number in range(1, 12):
            self.assertIs(self.write(b"%d" % number if number % 3 else None), Outcome.APPLIED)
            for count in range(1, number + 1):
                done = self.record().done(count.to_bytes(8, "big"))
                self.assertIs(done, True if count > number - 4 else None)

    def test_deleting_nothing_leaves_nothing(self) -> None:
        self.assertIs(self.write(None), Outcome.APPLIED)
        self.assertEqual(len(self.acceptor), 0)
        self.assertIs(self.write(None, Condition.PRESENT), Outcome.REFUSED)
        self.assertEqual(len(self.acceptor), 0)

    def test_ballots_grow(self) -> None:
        """Past every promise, and they begin with the epoch (rule 7)."""
        before = Ballot(FIRST_EPOCH, 77, b"\xff" * 16)
        self.acceptor.prepare(FIRST_EPOCH, before, KEY)
        for _ in range(3):
            self.write(b"v")
            self.assertGreater(self.record().ballot, before)
            before = self.record().ballot
        self.assertEqual((before.epoch, before.instance), (FIRST_EPOCH, ME))

    def test_settling_changes_nothing(self) -> None:
        """However many writes the record forgot; and it tells the record."""
        self.assertIsNone(carry(self.acceptor, settling()).record)
        for number in range(9):
            self.write(b"%d" % number)
            before = self.record()
            found = carry(self.acceptor, settling(), full=self.full)
            self.assertIs(found.outcome, Outcome.REFUSED)
            self.assertEqual(found.record, before)
            self.assertEqual(self.record(), before)

    def test_wedged(self) -> None:
        self.write(b"v")
        self.acceptor.wedge(FIRST_EPOCH, Ballot(FIRST_EPOCH, 1, ME))
        for condition in Condition:
            self.assertTrue(self.assertRaises(WrongEpoch, self.write, b"w", condition).wedged)
        self.assertEqual(self.record().value, b"v")


class AloneWithPrepareTests(AloneTests):
    full = True


def settling() -> Write:
    """What finds out what a key's record is."""
    return Write(KEY, None, bytes(8), Condition.NEVER)


def at(counter: int, value: bytes | None = b"old", *operations: bytes) -> Record:
    """A record at a ballot of somebody else."""
    kept = some_record(value, list(operations))
    return kept.at(Ballot(FIRST_EPOCH, counter, make_peer(9).instance))


class RoundTests(SynchronousTestCase):
    """The rounds of one proposal in a group of three."""

    BALLOT = Ballot(FIRST_EPOCH, 50, ME)

    def setUp(self) -> None:
        self.config = config(0, 1, 1, 2, 3)

    def begun(self, write: Write) -> Proposal:
        proposal = Proposal(self.config, write)
        proposal.prepare(self.BALLOT)
        self.assertEqual((proposal.step, proposal.ballot), (Step.PREPARE, self.BALLOT))
        self.assertFalse(proposal.sent)
        return proposal

    def prepared(self, write: Write, *found: Record | None) -> Proposal:
        proposal = self.begun(write)
        for record in found:
            self.assertIs(proposal.step, Step.PREPARE)
            proposal.promised(record, FIRST_EPOCH, 100)
        return proposal

    def test_the_highest_of_a_quorum_counts(self) -> None:
        for found in ((at(3), at(4, b"newer")), (at(4, b"newer"), at(3)), (None, at(4, b"newer"))):
            write = Write(KEY, b"new", OPERATION, Condition.EQUALS, b"newer")
            proposal = self.prepared(write, *found)
            self.assertIs(proposal.step, Step.ACCEPT)
            record = proposal.record
            assert record is not None
            self.assertEqual(
                (record.value, record.ballot, record.stamp), (b"new", self.BALLOT, 101)
            )
            self.assertTrue(proposal.sent)
            proposal.accepted()
            self.assertIs(proposal.step, Step.ACCEPT)
            proposal.accepted()
            self.assertEqual((proposal.step, proposal.outcome), (Step.DONE, Outcome.APPLIED))

    def test_refused_on_what_a_quorum_has(self) -> None:
        """Nothing is sent: it is chosen already."""
        write = Write(KEY, b"new", OPERATION, Condition.EQUALS, b"else")
        for record in (None, at(4)):
            proposal = self.prepared(write, record, record)
            self.assertEqual((proposal.step, proposal.outcome), (Step.DONE, Outcome.REFUSED))
            self.assertEqual((proposal.record, proposal.sent), (record, False))

    def test_refused_on_what_may_not_hold(self) -> None:
        """The record that refuses it is made to hold first, for every sort of write."""
        highest = at(4, b"old", OPERATION)
        for write, outcome in (
            (Write(KEY, b"new", OTHERS[5], Condition.EQUALS, b"else"), Outcome.REFUSED),
            (Write(KEY, b"new", OPERATION), Outcome.APPLIED),
            (settling(), Outcome.REFUSED),
        ):
            for found in ((at(3), highest), (highest, at(3)), (None, highest), (highest, None)):
                proposal = self.prepared(write, *found)
                self.assertIs(proposal.step, Step.ACCEPT)
                self.assertEqual(proposal.record, highest.at(self.BALLOT))
                proposal.accepted()
                proposal.accepted()
                self.assertEqual((proposal.step, proposal.outcome), (Step.DONE, outcome))

    def test_stale_and_unknown_send_nothing(self) -> None:
        forgetful = some_record(b"v", OTHERS[:4], 9)
        for doubtful, outcome in ((None, Outcome.STALE), (FIRST_EPOCH, Outcome.UNKNOWN)):
            write = Write(KEY, b"new", OPERATION, after=8, doubtful=doubtful)
            proposal = self.prepared(write, None, forgetful)
            self.assertEqual((proposal.step, proposal.outcome), (Step.DONE, outcome))
            self.assertFalse(proposal.sent)

    def test_beginning_again_counts_anew(self) -> None:
        """Promises and acknowledgements of an earlier round are forgotten; a retry is marked."""
        proposal = self.prepared(Write(KEY, b"new", OPERATION, after=7), at(9))
        before = proposal.round
        proposal.prepare(Ballot(FIRST_EPOCH, 60, ME))
        self.assertIsNone(proposal.write.doubtful, "nothing was sent yet")
        proposal.promised(at(3), FIRST_EPOCH, 0)
        self.assertIs(proposal.step, Step.PREPARE)
        proposal.promised(at(3), FIRST_EPOCH, 0)
        proposal.accepted()
        proposal.prepare(Ballot(FIRST_EPOCH, 70, ME))
        self.assertEqual(
            proposal.write, Write(KEY, b"new", OPERATION, after=7, doubtful=FIRST_EPOCH)
        )
        for _ in range(2):
            proposal.promised(None, FIRST_EPOCH, 0)
        proposal.accepted()
        self.assertIs(proposal.step, Step.ACCEPT)
        self.assertGreater(proposal.round, before)

    def test_a_retry_keeps_its_first_doubt(self) -> None:
        write = Write(KEY, b"v", OPERATION, doubtful=FIRST_EPOCH)
        later = config(0, 3, 1, 2, 3)
        proposal = Proposal(later, write)
        proposal.sent = True
        proposal.prepare(Ballot(later.epoch, 9, ME))
        self.assertEqual(proposal.write.doubtful, FIRST_EPOCH)

    def test_steady(self) -> None:
        """One round, from the record that the proposer itself has."""
        acceptor = Acceptor(self.config)
        for number in range(1, 4):
            ballot = acceptor.steady(KEY, ME)
            assert ballot is not None
            proposal = Proposal(self.config, Write(KEY, b"%d" % number, OTHERS[number]))
            proposal.steady(acceptor, ballot, 40)
            self.assertEqual((proposal.step, proposal.ballot), (Step.ACCEPT, ballot))
            record = proposal.record
            assert record is not None
            self.assertTrue(all(record.done(one) for one in OTHERS[1 : number + 1]))
            self.assertEqual(record.stamp, 40 + number)
            acceptor.accept(FIRST_EPOCH, KEY, record)
            proposal.accepted()
            proposal.accepted()
            self.assertEqual((proposal.step, proposal.outcome), (Step.DONE, Outcome.APPLIED))

    def test_steady_and_nothing_to_change(self) -> None:
        """A quorum has to have the same version: somebody else may have written meanwhile."""
        for base in ([], [(KEY, at(1, b"old", OPERATION))]):
            acceptor = Acceptor(config(0, 2, 1, 2, 3), base)
            ballot = acceptor.steady(KEY, ME)
            assert ballot is not None
            version = base[0][1].ballot if base else None
            writes = [(settling(), Outcome.REFUSED)]
            writes += [(Write(KEY, None, OPERATION), Outcome.APPLIED)]
            writes += [(Write(KEY, b"n", OTHERS[5], Condition.EQUALS, b"x"), Outcome.REFUSED)]
            for write, outcome in writes:
                proposal = Proposal(acceptor.config, write)
                proposal.steady(acceptor, ballot, 0)
                self.assertEqual((proposal.step, proposal.sent), (Step.CONFIRM, False))
                self.assertTrue(proposal.confirmed(version))
                self.assertIs(proposal.step, Step.CONFIRM)
                self.assertFalse(proposal.confirmed(Ballot(FIRST_EPOCH, 77, ME)))
                self.assertIs(proposal.step, Step.CONFIRM)
                self.assertTrue(proposal.confirmed(version))
                self.assertEqual((proposal.step, proposal.outcome), (Step.DONE, outcome))
                self.assertEqual(proposal.record and proposal.record.ballot, version)

    def test_steady_stale(self) -> None:
        forgetful = some_record(b"v", OTHERS[:4], 9)
        acceptor = Acceptor(config(0, 2, 1, 2, 3), [(KEY, forgetful)])
        proposal = Proposal(acceptor.config, Write(KEY, b"new", OPERATION, after=8))
        proposal.steady(acceptor, acceptor.config.first_ballot, 0)
        self.assertEqual((proposal.step, proposal.outcome), (Step.DONE, Outcome.STALE))


State = tuple[Ballot | None, Record | None]  # what one member promised by PREPARE, and accepted
States = tuple[State, ...]


def register(state: State) -> Acceptor:
    """A member of a group of three whose only key is in this state."""
    promised, accepted = state
    acceptor = Acceptor(config(0, 1, 1, 2, 3))
    if accepted is not None:
        acceptor.accept(FIRST_EPOCH, KEY, accepted)
    if promised is not None:
        acceptor.prepare(FIRST_EPOCH, promised, KEY)
    return acceptor


@dataclass(frozen=True)
class Writer:
    """A proposer's writes, one after the other, each once.

    :ivar asked: the members that had this round's message.
    :ivar done: what it knows to be applied, in its order.
    :ivar late: what is still on its way, and to whom.
    :ivar left: operations that it has still to begin, if it may without PREPARE.
    """

    name: bytes
    proposal: Proposal
    asked: frozenset[int] = frozenset()
    done: tuple[Record, ...] = ()
    late: frozenset[tuple[Record, int]] = frozenset()
    left: tuple[bytes, ...] = ()

    @property
    def identity(self) -> Any:
        """All that its future depends on."""
        state = tuple(getattr(self.proposal, name) for name in Proposal.__slots__)
        return (state, self.asked, self.done, self.late)

    def next_steps(self, states: States) -> Iterator[tuple[States, Writer]]:
        """One of its messages arrives; its answer does, or does not.  It asks itself first."""
        for record, place in self.late:
            others, _ = delivered(states, place, partial(accept, record))
            yield others, replace(self, late=self.late - {(record, place)})
        if self.proposal.step is Step.DONE:
            return
        for place in range(3):
            if place in self.asked or (self.name == ME and place and not self.asked):
                continue
            proposal = copy(self.proposal)
            others, answered = delivered(states, place, partial(step, proposal))
            yield others, replace(self, asked=self.asked | {place})
            if answered:
                yield others, self.after(proposal, place, others)

    def after(self, proposal: Proposal, place: int, states: States) -> Writer:
        """What it does next, now that this member answered."""
        asked = self.asked | {place}
        if proposal.round != self.proposal.round:
            return replace(self, proposal=proposal, asked=frozenset())
        if proposal.step is not Step.DONE:
            return replace(self, proposal=proposal, asked=asked)
        assert proposal.record is not None
        rest = {(proposal.record, place) for place in range(3) if place not in asked}
        writer = replace(
            self, proposal=proposal, done=(*self.done, proposal.record), late=self.late | rest
        )
        own = register(states[0])
        ballot = own.steady(KEY, self.name)
        if not self.left or ballot is None:
            return writer
        following = Proposal(own.config, Write(KEY, b"v", self.left[0]))
        following.steady(own, ballot, 0)
        return replace(writer, proposal=following, asked=frozenset(), left=self.left[1:])


def delivered(
    states: States, place: int, message: Callable[[Acceptor], None]
) -> tuple[States, bool]:
    """A message arrives at one member; True if it was not refused."""
    acceptor = register(states[place])
    promised, before = states[place]
    try:
        message(acceptor)
    except NotPromised:
        return states, False
    accepted = acceptor.get(KEY)
    if accepted != before:
        promised = None
    elif acceptor.promised(KEY) != register(states[place]).promised(KEY):
        promised = acceptor.promised(KEY)
    return (*states[:place], (promised, accepted), *states[place + 1 :]), True


def accept(record: Record, acceptor: Acceptor) -> None:
    acceptor.accept(FIRST_EPOCH, KEY, record)


def step(proposal: Proposal, acceptor: Acceptor) -> None:
    """One message of a proposal and its answer."""
    if proposal.step is Step.PREPARE:
        found = acceptor.prepare(FIRST_EPOCH, proposal.ballot, KEY)
        proposal.promised(found, FIRST_EPOCH, 0)
    else:
        assert proposal.record is not None
        accept(proposal.record, acceptor)
        proposal.accepted()


class InterleavingTests(SynchronousTestCase):
    """Two proposers at three members: every order and every loss of messages and answers."""

    def explore(self, first: Writer, second: Writer) -> tuple[int, int]:
        """Hold what was chosen in every state; how many states, and in how many both were done."""
        nothing: State = (None, None)
        todo: list[Any] = [((nothing,) * 3, first, second)]
        seen = {(todo[0][0], first.identity, second.identity)}
        both = 0
        while todo:
            states, *writers = todo.pop()
            done = [record for writer in writers for record in writer.done]
            self.hold(states, done)
            both += all(writer.done for writer in writers)
            for which in (0, 1):
                for others, writer in writers[which].next_steps(states):
                    pair = (writer, writers[1]) if which == 0 else (writers[0], writer)
                    reached = (others, pair[0].identity, pair[1].identity)
                    if reached not in seen:
                        seen.add(reached)
                        todo.append((others, *pair))
        return len(seen), both

    def hold(self, states: States, done: list[Record]) -> None:
        """Every write that was acknowledged is in every later one, and a quorum can tell."""
        done = sorted(done, key=lambda record: record.ballot)
        for number, later in enumerate(done):
            for earlier in done[:number]:
                self.assertTrue(later.done(earlier.operations[-16:-8]), (earlier, later))
        for left_out in range(3):
            found = [state[1] for place, state in enumerate(states) if place != left_out]
            best = max(filter(None, found), key=lambda record: record.ballot, default=None)
            for record in done:
                self.assertTrue(best is not None and best.done(record.operations[-16:-8]))

    def full(self, name: bytes, operation: bytes, counter: int = 2) -> Writer:
        """Somebody who asks before it writes."""
        proposal = Proposal(config(0, 1, 1, 2, 3), Write(KEY, b"v", operation))
        proposal.prepare(Ballot(FIRST_EPOCH, counter, name))
        return Writer(name, proposal)

    def steady(self, *operations: bytes) -> Writer:
        """The first member, which need not ask as long as nobody comes in between."""
        acceptor = register((None, None))
        proposal = Proposal(acceptor.config, Write(KEY, b"v", operations[0]))
        proposal.steady(acceptor, acceptor.config.first_ballot, 0)
        return Writer(ME, proposal, left=operations[1:])

    def test_two_full_rounds(self) -> None:
        low, high = self.full(LOWER, OTHERS[0]), self.full(HIGHER, OTHERS[1], 3)
        states, both = self.explore(low, high)
        self.assertGreater(states, 2_000)
        self.assertGreater(both, 100)

    def test_the_first_ballot_and_a_full_round(self) -> None:
        """The first member goes on without PREPARE as long as it may (rule 12)."""
        for counter, name in ((2, HIGHER), (3, LOWER), (3, HIGHER), (4, LOWER)):
            full = self.full(name, OTHERS[2], counter)
            states, both = self.explore(self.steady(*OTHERS[:2]), full)
            self.assertGreater(states, 1_000)
            self.assertGreater(both, 100)


@dataclass
class Operation:
    """A write as its client knows it, and what became of it as the test knows it.

    :ivar sent_in: the epoch of its first attempt.
    :ivar late: the first attempt, while that is still under way.
    :ivar effects: how often it was applied.
    :ivar traces: how often it left its id.
    :ivar refused: its client was told so.
    """

    write: Write
    sent_in: Epoch | None = None
    late: Write | None = None
    effects: int = 0
    traces: int = 0
    refused: bool = False


@dataclass
class World:
    """A group of one through its epochs, beside a plain model of what is right."""

    acceptor: Acceptor = field(default_factory=lambda: Acceptor(config()))
    operations: list[Operation] = field(default_factory=list)
    values: dict[bytes, bytes | None] = field(default_factory=dict)
    histories: dict[bytes, list[bytes]] = field(default_factory=dict)
    full: bool = False  # by a full round next time?
    clock: int = 0  # the client's: what it has heard of

    def next_epoch(self) -> None:
        """Tombstones, and what they remember, go only here (rule 11)."""
        old = self.acceptor
        following = config(0, old.config.epoch.number + 1)
        purged = following.epoch if old.tombstones else old.purged
        self.acceptor = Acceptor(following, list(old.records.live_draft().items()), purged=purged)
        for key in [key for key in self.histories if self.values.get(key) is None]:
            self.values.pop(key, None)
            del self.histories[key]

    def attempt(self, operation: Operation, fate: str) -> None:
        """Send a write, as a first attempt or a retry; it may be lost, or be late."""
        write, epoch = operation.write, self.acceptor.config.epoch
        if operation.sent_in is None:
            operation.sent_in = epoch
            operation.write = write = write.again(self.clock, None)
            if fate == "late":
                operation.late = write
                return
        else:
            write = write.again(write.after, operation.sent_in)
        if fate == "arrives":
            self.carry(operation, write)

    def ghost(self, operation: Operation) -> None:
        """A first attempt arrives at last."""
        late, operation.late = operation.late, None
        if late is not None and operation.sent_in == self.acceptor.config.epoch:
            self.carry(operation, late)

    def hear(self) -> None:
        """The client hears of the last write."""
        self.clock = max(self.clock, self.acceptor.stamp)

    def carry(self, operation: Operation, write: Write) -> None:
        before = self.acceptor.get(write.key)
        outcome = carry(self.acceptor, write, full=self.full).outcome
        after = self.acceptor.get(write.key)
        self.full = not self.full
        operation.refused |= outcome is Outcome.REFUSED and write.doubtful is not None
        if after != before:
            operation.traces += 1
            self.histories.setdefault(write.key, []).append(write.operation)
            if outcome is Outcome.APPLIED:
                operation.effects += 1
                self.values[write.key] = write.value
            else:
                assert outcome is Outcome.REFUSED and write.doubtful is not None
        self.check(operation, write, outcome, changed=after != before)

    def check(self, operation: Operation, write: Write, outcome: Outcome, *, changed: bool) -> None:
        """Is the outcome the right one, and the record what it should be?"""
        assert operation.traces <= 1, "done twice, or after it was refused"
        assert not (operation.refused and operation.effects), "refused, and done all the same"
        history = self.histories.get(write.key, [])
        kept = self.acceptor.get(write.key)
        assert (kept.value if kept else None) == self.values.get(write.key)
        if kept is not None:
            assert [one for one in history if kept.done(one) is not None] == history[-4:]
            assert (kept.forgot > 0) == (len(history) > 4)
        if outcome in (Outcome.UNKNOWN, Outcome.STALE):
            assert not changed and write.operation not in history[-4:]
            assert (write.doubtful is None) == (outcome is Outcome.STALE)
            purged = write.doubtful is not None and write.doubtful < self.acceptor.purged
            assert purged or len(history) > 4
        elif outcome is Outcome.APPLIED and not changed:
            nothing_to_delete = write.value is None and kept is None
            assert operation.effects == 1 or nothing_to_delete
        elif outcome is Outcome.REFUSED and operation.traces == 0:
            value = self.values.get(write.key)
            wrong = (write.expected != value, value is None)[write.condition is Condition.PRESENT]
            assert wrong and write.condition is not Condition.ALWAYS


VALUES = st.none() | st.sampled_from([b"", b"1", b"2"])
FATES = st.sampled_from(["arrives", "arrives", "lost", "late"])
NEW = st.tuples(
    *(st.just("new"), st.sampled_from([b"a", b"b"]), VALUES, st.sampled_from(CONDITIONS), VALUES),
    FATES,
)
RETRY = st.tuples(st.just("retry"), st.integers(0, 7), FATES)
GHOST = st.tuples(st.just("ghost"), st.integers(0, 7))
REST = st.sampled_from([("epoch",), ("hear",), ("hear",)])
STEPS = st.lists(st.one_of(NEW, NEW, RETRY, RETRY, GHOST, REST), max_size=40)


class RetryTests(SynchronousTestCase):
    @settings(max_examples=500, deadline=None)
    @given(STEPS)
    def test_never_twice(self, steps: list[tuple[object, ...]]) -> None:
        """Writes, their retries in any number and order, losses, latecomers, and new epochs."""
        world = World()
        for step in steps:
            match step:
                case ("new", bytes(key), value, Condition() as condition, expected, str(fate)):
                    operation = len(world.operations).to_bytes(8, "little")
                    made = Operation(Write(key, value, operation, condition, expected))  # type: ignore[arg-type]
                    world.operations.append(made)
                    world.attempt(made, fate)
                case ("retry", int(back), str(fate)) if back < len(world.operations):
                    world.attempt(world.operations[-1 - back], fate)
                case ("ghost", int(back)) if back < len(world.operations):
                    world.ghost(world.operations[-1 - back])
                case ("epoch",):
                    world.next_epoch()
                case ("hear",):
                    world.hear()

    def outcome(self, world: World, write: Write) -> Outcome:
        return carry(world.acceptor, write).outcome

    def others(self, world: World, count: int, key: bytes = b"a") -> None:
        """So many writes of others."""
        for other in OTHERS[:count]:
            world.hear()
            world.attempt(Operation(Write(key, b"2", other)), "arrives")

    def test_an_answer_that_was_lost(self) -> None:
        world = World()
        first = Operation(Write(b"a", b"1", OPERATION, Condition.EQUALS, None))
        world.attempt(first, "arrives")
        self.others(world, 1)
        retry = Write(b"a", b"1", OPERATION, Condition.EQUALS, None, 0, FIRST_EPOCH)
        self.assertIs(self.outcome(world, retry), Outcome.APPLIED)
        self.assertEqual(world.values, {b"a": b"2"})

    def test_a_request_that_was_lost(self) -> None:
        world = World()
        lost = Operation(Write(b"a", b"1", OPERATION))
        world.attempt(lost, "lost")
        self.others(world, 4)
        world.attempt(lost, "arrives")
        self.assertEqual((lost.effects, world.values), (1, {b"a": b"1"}))

    def test_unknown_after_five_writes_or_a_purge(self) -> None:
        retry = Write(b"a", b"1", OPERATION, doubtful=FIRST_EPOCH)
        world = World()
        self.others(world, 5)
        self.assertIs(self.outcome(world, retry), Outcome.UNKNOWN)
        world = World()
        self.others(world, 1, b"other")
        world.attempt(Operation(Write(b"other", None, OTHERS[1])), "arrives")
        world.next_epoch()  # a tombstone went: it may have been that of this write
        self.assertIs(self.outcome(world, retry), Outcome.UNKNOWN)
        self.assertEqual(len(world.acceptor), 0)

    def test_a_ghost_after_its_retry(self) -> None:
        """Repeated meanwhile and forgotten since, it is not done again."""
        world = World()
        slow = Operation(Write(b"a", b"1", OPERATION))
        world.attempt(slow, "late")
        world.attempt(slow, "arrives")
        self.others(world, 4)
        self.assertIs(self.outcome(world, slow.write), Outcome.STALE)
        world.ghost(slow)
        self.assertEqual((slow.effects, world.values), (1, {b"a": b"2"}))

    def test_a_ghost_of_what_was_refused(self) -> None:
        """Its retry was refused: whatever holds when it arrives, it is refused, too."""
        for writes in range(6):
            world = World()
            world.attempt(Operation(Write(b"a", b"0", OTHERS[5])), "arrives")
            slow = Operation(Write(b"a", b"1", OPERATION, Condition.EQUALS, b"2"))
            world.attempt(slow, "late")
            world.attempt(slow, "arrives")
            self.assertTrue(slow.refused)
            self.others(world, writes)
            world.ghost(slow)
            self.assertEqual((slow.effects, slow.traces), (0, 1))

    def test_a_ghost_of_what_had_nothing_to_delete(self) -> None:
        """Its retry deleted nothing; what is written later is not deleted by it."""
        world = World()
        slow = Operation(Write(b"a", None, OPERATION, Condition.PRESENT))
        world.attempt(slow, "late")
        world.attempt(slow, "arrives")
        self.others(world, 1)
        world.ghost(slow)
        self.assertEqual(world.values, {b"a": b"2"})

    def test_stale_is_tried_again(self) -> None:
        """A first write whose sender had heard nothing comes in with a newer clock."""
        world = World()
        self.others(world, 5)
        write = Write(b"a", b"1", OPERATION)
        self.assertIs(self.outcome(world, write), Outcome.STALE)
        again = write.again(world.acceptor.stamp, None)
        self.assertIs(self.outcome(world, again), Outcome.APPLIED)

    def test_epochs_that_purge_nothing_leave_no_doubt(self) -> None:
        world = World()
        lost = Operation(Write(b"a", b"1", OPERATION))
        world.attempt(lost, "lost")
        world.next_epoch()
        world.next_epoch()
        world.attempt(lost, "arrives")
        self.assertEqual((lost.effects, world.values), (1, {b"a": b"1"}))

    def test_done_is_known_in_a_later_epoch(self) -> None:
        world = World()
        done = Operation(Write(b"a", b"1", OPERATION))
        world.attempt(done, "arrives")
        world.next_epoch()
        retry = Write(b"a", b"1", OPERATION, doubtful=FIRST_EPOCH)
        self.assertIs(self.outcome(world, retry), Outcome.APPLIED)
