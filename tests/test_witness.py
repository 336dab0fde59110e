"""What a watcher makes of what members tell: only what is chosen, in order, and enough of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.events import Backlog, Event, Version
from py2p_twisted.table.candidate import CANDIDATE_BYTES, UNTOLD, Budget
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Record, written
from py2p_twisted.table.history import ABSENT, Seen, compare, history_of
from py2p_twisted.table.witness import DOUBT, HOLD, Witness

from .fakes import config, make_peer

KEY = b"\0key"
GROUP = config(0, 1, 1, 2, 3)
MEMBERS = [peer.instance for peer in GROUP.members]


def chain(length: int, kinds: Callable[[int], str]) -> list[Record]:
    """Records that follow each other: writes, deletions, refused retries, and mere new ballots."""
    records: list[Record] = []
    record: Record | None = None
    for number in range(length):
        ballot = Ballot(FIRST_EPOCH, number + 1, MEMBERS[0])
        kind = kinds(number)
        operation = number.to_bytes(8, "big")
        if kind == "again" and record is not None:
            record = record.at(ballot)
        elif kind == "refused":
            value = None if record is None else record.value
            record = written(record, ballot, value, operation, number, refused=True)
        else:
            value = None if kind == "delete" else b"%d" % number
            record = written(record, ballot, value, operation, number)
        records.append(record)
    return records


kinds = st.lists(st.sampled_from(("set", "set", "delete", "refused", "again")), max_size=12)


class HistoryTests(SynchronousTestCase):
    """What a record tells of those before it."""

    @given(kinds, st.data())
    def test_any_two_of_a_chain(self, made: list[str], data: Any) -> None:
        """Whether something changed, and was skipped, is what really happened between the two."""
        records = chain(len(made), made.__getitem__)
        if not records:
            return
        later = data.draw(st.integers(0, len(records) - 1))
        earlier = data.draw(st.integers(-1, later))
        seen = ABSENT
        if earlier >= 0:
            one = records[earlier]
            seen = Seen(compare(ABSENT, history_of(one))[0], one.value is not None)
        write, changed, skipped = compare(seen, history_of(records[later]))
        writes = [kind in ("set", "delete") for kind in made[earlier + 1 : later + 1]]
        if seen.write is None:
            return  # nothing is promised
        # It may say too much, never too little.
        self.assertTrue(changed or not any(writes))
        self.assertTrue(skipped or sum(writes) < 2)
        if later - earlier <= 4 and write is not None and all(writes):
            self.assertEqual((changed, skipped), (bool(writes), len(writes) > 1))

    def test_nothing_known(self) -> None:
        """Then everything is possible."""
        self.assertEqual(compare(ABSENT, None), (None, True, True))
        (record,) = chain(1, lambda _: "set")
        newest, changed, skipped = compare(Seen(None, True), history_of(record))
        self.assertEqual((newest, changed, skipped), (record.operations, True, True))

    def test_four_refusals(self) -> None:
        """They leave no trace of the write before them but its stamp."""
        records = chain(6, lambda number: "set" if number == 0 else "refused")
        seen = Seen(history_of(records[0]).applied[-1], True)
        self.assertEqual(compare(seen, history_of(records[4])), (seen.write, False, False))
        self.assertEqual(compare(seen, history_of(records[5])), (None, True, True))

    def test_a_record_that_began_anew(self) -> None:
        """Its tombstone was dropped: nothing of the time before is in it."""
        old = chain(2, lambda _: "set")[1]
        new = written(None, old.ballot.next(), b"new", b"new one!", 50)
        write = history_of(old).applied[-1]
        self.assertEqual(compare(Seen(write, False), history_of(new))[1:], (True, True))
        self.assertEqual(compare(Seen(write, True), history_of(new))[1:], (True, True))


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Event] = []
        self.room = True

    def emit(self, event: Event) -> bool:
        if self.room:
            self.events.append(event)
        return self.room

    def witness(
        self, group: Config = GROUP, most: int = 10**6, *, initial: bool = False
    ) -> Witness:
        witness = Witness(self.emit, Budget(most), prefix=1, initial=initial)
        witness.follow(group)
        return witness

    def begun(self, **how: Any) -> Witness:
        """One whose members had nothing."""
        witness = self.witness(**how)
        for member in MEMBERS:
            witness.current(member, 0.0)
        return witness

    def tell(
        self, witness: Witness, member: int, record: Record, now: float = 0.0, *, whole: bool = True
    ) -> None:
        witness.tell(
            *(MEMBERS[member], KEY, record.ballot, now),
            alive=record.value is not None,
            history=history_of(record) if whole else None,
            value=record.value if whole else UNTOLD,
        )

    def values(self) -> list[bytes | None]:
        return [event.value for event in self.events]


class QuorumTests(_Case):
    """One member's word is no event."""

    def test_one_is_not_enough(self) -> None:
        """However often it says so."""
        witness = self.begun()
        (record,) = chain(1, lambda _: "set")
        self.tell(witness, 0, record)
        self.tell(witness, 0, record)
        self.assertEqual(self.events, [])
        self.tell(witness, 1, record, whole=False)
        version = Version(record.ballot)
        self.assertEqual(self.events, [Event(b"key", "add", b"0", version)])
        self.tell(witness, 2, record)
        self.assertEqual(len(self.events), 1)

    def test_strangers(self) -> None:
        """Who is not a member is not heard."""
        witness = self.begun()
        (record,) = chain(1, lambda _: "set")
        self.tell(witness, 0, record)
        stranger = make_peer(9).instance
        witness.tell(stranger, KEY, record.ballot, 0.0, alive=True)
        self.assertEqual((self.events, len(witness)), ([], 1))

    def test_different_versions(self) -> None:
        """They do not add up."""
        witness = self.begun()
        for member, record in enumerate(chain(3, lambda _: "set")):
            self.tell(witness, member, record)
        self.assertEqual(self.events, [])

    def test_another_epoch(self) -> None:
        """What was told in the epoch before counts for nothing."""
        witness = self.begun()
        (record,) = chain(1, lambda _: "set")
        self.tell(witness, 0, record)
        witness.follow(config(0, 2, 1, 2, 3))
        self.tell(witness, 1, record)
        self.assertEqual(self.events, [])
        self.tell(witness, 2, record)
        self.assertEqual(self.values(), [b"0"])


class OrderTests(_Case):
    """Versions of one key come in their order, each once."""

    def test_a_later_one_is_chosen_first(self) -> None:
        """The one before it has a moment to be chosen, too."""
        witness = self.begun()
        first, second = chain(2, lambda _: "set")
        self.tell(witness, 0, first)
        self.tell(witness, 0, second)
        self.tell(witness, 2, second)
        self.assertEqual(self.events, [])
        self.tell(witness, 1, first)
        self.assertEqual(self.values(), [b"0", b"1"])
        self.assertEqual([event.skipped for event in self.events], [False, False])

    def test_it_never_is(self) -> None:
        """Then it is told that one may be missing."""
        witness = self.begun()
        first, second = chain(2, lambda _: "set")
        self.tell(witness, 0, first)
        self.tell(witness, 0, second, 1.0)
        self.tell(witness, 2, second, 1.0)
        self.assertEqual(witness.lacking(1.0 + HOLD / 2, 9), [])
        self.assertEqual(self.events, [])
        self.assertEqual(witness.lacking(1.0 + HOLD, 9), [])
        self.assertEqual(self.values(), [b"1"])
        self.assertTrue(self.events[0].skipped)
        self.tell(witness, 1, first)
        self.assertEqual(self.values(), [b"1"])
        self.assertFalse(witness.busy)

    @settings(max_examples=150, deadline=None)
    @given(kinds, st.integers(0, 2**32), st.sampled_from((10**6, 2000)), st.booleans())
    def test_any_order(self, made: list[str], seed: int, most: int, stuck: bool) -> None:
        """Whatever order the words of members come in: chosen, in order, and up to the end."""
        rng = Random(seed)
        self.events.clear()
        self.room = True
        records = chain(len(made), made.__getitem__)
        witness = self.begun(most=most)
        members = [0, 1, 2]
        accepted = [rng.sample(members, rng.choice((1, 2, 2, 3))) for _ in records]
        if accepted:
            accepted[-1] = members
        queues = {
            member: [r for r, by in zip(records, accepted, strict=True) if member in by]
            for member in members
        }
        now = 0.0
        while any(queues.values()):
            now += rng.choice((0.0, 0.01, HOLD))
            self.room = not stuck or rng.random() < 0.5
            member = rng.choice([member for member in members if queues[member]])
            self.tell(witness, member, queues[member].pop(0), now, whole=member == 0)
            if self.room:
                self.fetch(witness, now, records, accepted)
        self.room = True
        for _ in range(4):
            now += HOLD
            self.fetch(witness, now, records, accepted)
        chosen = {r.ballot: r for r, by in zip(records, accepted, strict=True) if len(by) > 1}
        versions = [event.version._ballot for event in self.events]
        self.assertEqual(versions, sorted(set(versions)))
        value: bytes | None = None
        for event in self.events:
            self.assertEqual(chosen[event.version._ballot].value, event.value)
            self.assertEqual(event.kind == "add", value is None and event.value is not None)
            value = event.value
        if records:
            self.assertEqual(value, records[-1].value)
        self.assertFalse(witness.wanted)

    def fetch(
        self, witness: Witness, now: float, records: list[Record], accepted: list[list[int]]
    ) -> None:
        """Fetch what it lacks from who told it."""
        for key, ballot in witness.lacking(now, 9):
            holders = witness.holders(key, ballot)
            (record,) = [record for record in records if record.ballot == ballot]
            self.assertTrue(holders)
            self.assertTrue(set(map(MEMBERS.index, holders)) <= {0, 1, 2})
            alive = record.value is not None
            witness.tell(holders[0], key, ballot, now, alive=alive, value=record.value)


class BeginningTests(_Case):
    """What is there when the watch begins, and when an epoch does."""

    def test_it_is_known(self) -> None:
        """Only what comes later is told; and what it follows is known."""
        witness = self.witness()
        first, second = chain(2, lambda _: "set")
        for member in (0, 1):
            self.tell(witness, member, first)
            self.assertFalse(witness.covered)
            witness.current(MEMBERS[member], 0.0)
        self.assertTrue(witness.covered)
        for member in (2, 0, 1):
            self.tell(witness, member, second)
        self.assertEqual(self.events, [Event(b"key", "change", b"1", Version(second.ballot))])

    def test_it_is_told(self) -> None:
        """With `initial`, once its value was fetched."""
        witness = self.witness(initial=True)
        (record,) = chain(1, lambda _: "set")
        for member in (0, 1):
            self.tell(witness, member, record, whole=False)
            witness.current(MEMBERS[member], 0.0)
        self.assertEqual(witness.lacking(0.0, 9), [(KEY, record.ballot)])
        self.tell(witness, 1, record)
        self.assertEqual(self.events, [Event(b"key", "add", b"0", Version(record.ballot))])

    def test_a_write_under_way(self) -> None:
        """One that is chosen after the beginning changes what was there before it."""
        witness = self.witness()
        first, second = chain(2, lambda _: "set")
        self.tell(witness, 0, second)
        self.tell(witness, 1, first)
        for member in (0, 1):
            witness.current(MEMBERS[member], 0.0)
        self.tell(witness, 2, first)
        self.assertFalse(witness.settled)
        witness.current(MEMBERS[2], 0.0)
        self.assertTrue(witness.settled)
        self.assertEqual(self.events, [])
        self.tell(witness, 1, second)
        self.assertEqual([(e.kind, e.value) for e in self.events], [("change", b"1")])

    def test_what_was_missed(self) -> None:
        """The next epoch begins with a later version: that is told."""
        witness = self.begun()
        records = chain(3, lambda _: "set")
        for member in (0, 1):
            self.tell(witness, member, records[0])
        witness.follow(config(0, 2, 1, 2, 3))
        for member in (0, 1):
            self.tell(witness, member, records[2])
        self.assertEqual([(e.value, e.skipped) for e in self.events], [(b"0", False), (b"2", True)])

    def test_a_tombstone_that_is_gone(self) -> None:
        """Nobody tells the key any more: it was deleted."""
        witness = self.begun()
        (record,) = chain(1, lambda _: "set")
        for member in (0, 1):
            self.tell(witness, member, record)
        witness.follow(config(0, 2, 1, 2, 3))
        witness.current(MEMBERS[0], 0.0)
        self.assertEqual(len(self.events), 1)
        witness.current(MEMBERS[1], 0.0)
        gone = self.events[1]
        self.assertEqual((gone.kind, gone.value, gone.skipped), ("delete", None, True))
        self.assertGreater(gone.version, self.events[0].version)
        witness.follow(config(0, 3, 1, 2, 3))
        for member in (0, 1):
            witness.current(MEMBERS[member], 0.0)
        self.assertEqual((len(self.events), len(witness)), (2, 0))

    def test_a_recovery(self) -> None:
        """Versions may go back; what did not change is not told again."""
        witness = self.begun()
        first, second = chain(2, lambda _: "set")
        for record in (first, second):
            for member in (0, 1):
                self.tell(witness, member, record)
        era = FIRST_EPOCH._replace(era=1, era_random=5)
        witness.follow(Config(0, era, GROUP.members))
        for member in (0, 1):
            self.tell(witness, member, second, whole=False)
            witness.current(MEMBERS[member], 0.0)
        self.assertEqual((self.values(), witness.busy), ([b"0", b"1"], False))
        witness.follow(Config(0, era._replace(era=2), GROUP.members))
        for member in (0, 1):
            self.tell(witness, member, first)
        self.assertEqual(self.values(), [b"0", b"1", b"0"])

    def test_nothing_changed(self) -> None:
        """A new ballot for the same write, and a refused retry, are no events."""
        witness = self.begun()
        for record in chain(3, ["set", "again", "refused"].__getitem__):
            for member in (0, 1):
                self.tell(witness, member, record)
        self.assertEqual(self.values(), [b"0"])


class SlowUserTests(_Case):
    """What waits is bounded."""

    def test_no_room(self) -> None:
        """Later versions take the place of those that did not fit."""
        witness = self.begun()
        self.room = False
        records = chain(50, lambda _: "set")
        for record in records:
            for member in (0, 1):
                self.tell(witness, member, record)
        self.assertLess(witness._budget.used, 2 * CANDIDATE_BYTES)
        self.room = True
        ((key, ballot),) = witness.lacking(HOLD, 9)
        self.assertEqual((key, ballot), (KEY, records[-1].ballot))
        self.tell(witness, 1, records[-1])
        self.assertEqual([(e.value, e.skipped) for e in self.events], [(b"49", True)])
        self.assertEqual(witness._budget.used, 0)

    def test_versions_that_nobody_chooses(self) -> None:
        """Neither they nor their values fill the memory."""
        witness = self.begun(most=5000)
        for number, record in enumerate(chain(300, lambda _: "set")):
            big = Record(record.ballot, bytes(1000), record.operations, record.forgot)
            self.tell(witness, 0, big)
            self.assertLess(witness._budget.used, 5000 + 2000, number)
        self.assertEqual(witness.due(DOUBT / 2, 9), [])
        self.assertEqual(witness.due(DOUBT, 9), [KEY])
        self.assertEqual(witness.due(DOUBT, 9), [])
        self.assertEqual(witness.due(2 * DOUBT, 9), [])
        self.assertEqual(witness.due(3 * DOUBT, 9), [KEY])
        witness.follow(config(0, 2, 1, 2, 3))
        self.assertEqual(witness._budget.used, 0)

    @given(st.lists(st.integers(0, 3000)))
    def test_backlog(self, sizes: list[int]) -> None:
        """It holds so many events and bytes, and one at least."""
        backlog = Backlog(3, 4000)
        waiting: list[Event] = []
        for number, size in enumerate(sizes):
            event = Event(b"k", "add", bytes(size), Version(Ballot(FIRST_EPOCH, number, b"")))
            if not backlog.room:
                self.assertTrue(len(waiting) >= 3 or sum(len(e.value or b"") for e in waiting))
                self.assertEqual(backlog.take(), waiting.pop(0))
            else:
                backlog.add(event)
                waiting.append(event)
            self.assertEqual(len(backlog), len(waiting))
            self.assertLessEqual(len(waiting), 3)
        backlog.clear()
        self.assertEqual((len(backlog), backlog.size), (0, 0))


class VersionTests(SynchronousTestCase):
    """What users may do with one."""

    def test_order(self) -> None:
        """Later ones are greater; they can be shown and hashed."""
        versions = [Version(record.ballot) for record in chain(3, lambda _: "set")]
        self.assertEqual(sorted({*versions}), versions)
        self.assertEqual(len({*versions, *versions}), 3)
        self.assertEqual(repr(versions[0]), "<Version 0.1.1-00000000>")
