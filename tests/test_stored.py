"""Records on the disk are what a dict would hold, whatever is in memory of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, cast
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.errors import StorageError
from py2p_twisted.node import stored
from py2p_twisted.node.core import Core, Staged
from py2p_twisted.node.drafts import Draft
from py2p_twisted.node.journal import Journal
from py2p_twisted.node.keysets import Filter
from py2p_twisted.node.memory import restore
from py2p_twisted.node.stored import StoredRecords
from py2p_twisted.node.values import MISSING, Cache
from py2p_twisted.settings import Settings
from py2p_twisted.table.digest import EMPTY_BASE, base_of, bucket_of, digests
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Record, Successor
from py2p_twisted.table.records import MemoryRecords, Records
from py2p_twisted.table.values import plain

from .fakes import record
from .simulation.disk import SimDisk

#: Few keys, some of which users see, so that they meet.
KEYS = [b"\0" + bytes([letter]) * length for letter in b"abc" for length in (1, 2, 3)] + [b"\1x"]
SECOND = FIRST_EPOCH.following()


class Home:
    """A node with a disk: one partition of it."""

    def __init__(self, disk: SimDisk, cache: int, least: int) -> None:
        self.clock = Clock()
        self.disk = disk
        self.core = Core(self.clock, Random(1), Settings(k=1, cache=cache, stored_from=least))
        self.failures: list[Failure] = []
        self.journal = Journal(self.core, disk, self.failures.append)
        restore(self.core, disk.open(self.clock), self.journal.shelf)
        self.core.journal = self.journal
        self.journal.begin()
        if 0 not in self.core.acceptors:
            self.core.name("10.0.0.1", 1)
            self.core.serve(self.next(FIRST_EPOCH), self.core.blank(0))

    def next(self, epoch: Any, records: Records | None = None) -> Successor:
        """What an epoch begins with."""
        base = EMPTY_BASE if records is None else records.base()
        return Successor(Config(0, epoch, (self.core.me,)), base, FIRST_EPOCH)

    @property
    def records(self) -> StoredRecords:
        """Those of the partition."""
        records = self.core.acceptors[0].records
        assert isinstance(records, StoredRecords)
        return records

    def write(self) -> None:
        """Give the disk what has changed; it is not there yet."""
        self.clock.advance(0)

    def settle(self) -> None:
        """Let all reach the disk."""
        while self.journal.behind:
            self.clock.advance(0.001)

    def close(self) -> None:
        """Stop."""
        self.journal.close()
        self.settle_disk()

    def settle_disk(self) -> None:
        """Let the disk end what is under way."""
        for _ in range(100):
            self.clock.advance(0.001)


class Case(SynchronousTestCase):
    """Comparisons."""

    def same(self, records: Records, model: dict[bytes, Record], rng: Random) -> None:
        """These records are those of the model, whichever way they are asked."""
        ordered = sorted(model.items())
        found = [(key, loaded(one)) for key, one in records.items()]
        if isinstance(records, MemoryRecords):
            found.sort()
        self.assertEqual(found, ordered)
        self.assertEqual(list(records.keys()), [key for key, _ in records.items()])
        for key in rng.sample(KEYS, len(KEYS)):
            one = records.get(key)
            self.assertEqual(None if one is None else loaded(one), model.get(key))
            self.assertEqual(key in records, key in model)
        alive = {key: one for key, one in model.items() if one.value is not None}
        self.assertEqual({key: loaded(one) for key, one in records.live_draft().items()}, alive)
        self.assertEqual((len(records), records.tombstones), (len(model), len(model) - len(alive)))
        self.assertEqual(records.users, sum(key.startswith(records.visible) for key in alive))
        self.assertEqual(records.size, sum(len(one.value or b"") for one in alive.values()))
        self.assertEqual(records.base(), base_of(model.items()))
        for buckets in rng.sample((1, 2, 8, 64), 2):
            self.assertEqual(records.digests(buckets), digests(model.items(), buckets))
            wanted = {bucket for bucket in range(buckets) if rng.random() < 0.5}
            keys = {
                bucket: {key for key in model if bucket_of(key, buckets) == bucket}
                for bucket in wanted
            }
            told = records.keys_in(buckets, wanted)
            self.assertEqual({b: set(some) for b, some in told.items()}, keys)
            self.assertEqual(sum(map(len, told.values())), sum(map(len, keys.values())))
        after, prefix = rng.choice([None, *KEYS, b"\0b!"]), rng.choice((b"", b"\0", b"\0b", b"\1"))
        page = [item for item in ordered if item[0].startswith(prefix)]
        page = [item for item in page if after is None or item[0] > after]
        self.assertEqual([(k, loaded(r)) for k, r in records.after(after, prefix)], page)


def loaded(one: Record) -> Record:
    """With its value in memory."""
    return Record(one.ballot, plain(one.value), one.operations, one.forgot)


OF_RECORDS = ["put", "put", "put", "drop", "write", "settle", "tick"]
OF_DRAFTS = ["draft", "put-draft", "drop-draft", "serve", "hold", "let-go"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(OF_RECORDS + OF_DRAFTS),
        st.sampled_from(KEYS),
        st.none() | st.binary(max_size=6) | st.just(bytes(400)),
    ),
    max_size=40,
)
CACHES, LEAST = (0, 1500, 10**6), (1, 4, 256)


@contextmanager
def always_worn() -> Iterator[None]:
    """Every filter is made anew whenever it can be."""
    with patch.multiple(stored, _WORN_TIMES=0, _WORN_MORE=-1):
        yield


class Play:
    """Some records, changed step by step, and dicts that are changed alike."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.model: dict[bytes, Record] = {}
        self.drafts: list[tuple[Records, dict[bytes, Record]]] = []
        self.held: dict[bytes, Record] | None = None
        self.counter = 0
        self.epoch = FIRST_EPOCH

    def record(self, value: bytes | None) -> Record:
        """A record that is new."""
        self.counter += 1
        return record(self.counter, value)

    def step(self, what: str, key: bytes, value: bytes | None) -> None:
        """One of these."""
        home, core = self.home, self.home.core
        if what == "put":
            self.model[key] = self.record(value)
            home.records.put(key, self.model[key])
        elif what == "drop":
            self.model.pop(key, None)
            home.records.drop(key)
        elif what == "write":
            home.write()
        elif what == "settle":
            home.settle()
        elif what == "tick":
            home.clock.advance(0.004)
        elif what == "draft":
            self.drafts.append((home.records.draft(), dict(self.model)))
        elif what == "let-go":
            core.let_go(0)
            self.held = None
        elif self.drafts:
            records, model = self.drafts[len(key) % len(self.drafts)]
            self.step_of_draft(what, key, value, records, model)

    def step_of_draft(
        self,
        what: str,
        key: bytes,
        value: bytes | None,
        records: Records,
        model: dict[bytes, Record],
    ) -> None:
        """One with a draft."""
        core = self.home.core
        held = 0 in core.staged and core.staged[0].records is records
        if what == "put-draft" and not held:
            model[key] = self.record(value)
            records.put(key, model[key])
        elif what == "drop-draft" and not held:
            model.pop(key, None)
            records.drop(key)
        elif what == "hold":
            ballot = Ballot(self.epoch, 1, bytes(16))
            # of a later epoch, so that it stays when the next one opens
            later = self.epoch.following()._replace(number=1000)
            successor = self.home.next(later.following(), records)
            core.hold(0, Staged(later, records, successor, ballot))
            self.held = dict(model)
        elif what == "serve" and not held:
            self.epoch = self.epoch.following()
            core.serve(self.home.next(self.epoch, records), records)
            self.model = model
            self.drafts = [one for one in self.drafts if one[0] is not records]


class ModelTests(Case):
    """Random steps."""

    @settings(max_examples=150, deadline=None)
    @given(STEPS, st.sampled_from(CACHES), st.sampled_from(LEAST), st.randoms())
    def test_any_steps(self, steps: Any, cache: int, least: int, rng: Random) -> None:
        """Puts, drops, commits, drafts, bases and epochs, with every size of memory."""
        self.play(steps, cache, least, rng)

    @settings(max_examples=100, deadline=None)
    @given(STEPS, st.sampled_from(LEAST), st.randoms())
    def test_a_filter_that_is_always_worn(self, steps: Any, least: int, rng: Random) -> None:
        """Whenever all records are gone through, what is known of their keys is made anew."""
        with always_worn():
            self.play(steps, 0, least, rng)

    def play(self, steps: Any, cache: int, least: int, rng: Random) -> None:
        """Play them, and compare all the while."""
        home = Home(SimDisk(Random(2)), cache, least)
        play = Play(home)
        for step in steps:
            play.step(*step)
            if rng.random() < 0.3:
                self.all_same(play, rng)
        self.all_same(play, rng)
        home.settle()
        self.all_same(play, rng)
        home.close()
        self.assertEqual(home.failures, [])
        again = Home(home.disk, cache, least)
        self.same(again.records, play.model, rng)
        self.assertEqual(0 in again.core.staged, play.held is not None)
        if play.held is not None:
            self.same(again.core.staged[0].records, play.held, rng)
        again.close()

    def all_same(self, play: Play, rng: Random) -> None:
        """The records and all drafts are what they ought to be."""
        self.same(play.home.records, play.model, rng)
        for draft, model in play.drafts:
            self.same(draft, model, rng)
        if play.held is not None:
            self.same(play.home.core.staged[0].records, play.held, rng)

    @settings(max_examples=60, deadline=None)
    @given(STEPS, st.randoms())
    def test_in_memory(self, steps: Any, rng: Random) -> None:
        """The form without a disk is the same."""
        records, model = MemoryRecords(visible=b"\0"), dict[bytes, Record]()
        for number, (what, key, value) in enumerate(steps, 1):
            if what == "put":
                model[key] = record(number, value)
                records.put(key, model[key])
            elif what == "drop":
                model.pop(key, None)
                records.drop(key)
            elif what == "draft":
                before, records = records, records.draft()
                before.put(key, record(1000, value))
            self.same(records, model, rng)

    def red(self) -> int:
        """Some random steps notice a mutant; how many it took."""
        for seed in range(100):
            rng = Random(seed)
            values = (None, b"", b"short", bytes(400))
            steps = [
                (rng.choice(OF_RECORDS + OF_DRAFTS), rng.choice(KEYS), rng.choice(values))
                for _ in range(40)
            ]
            try:
                self.play(steps, rng.choice(CACHES), rng.choice(LEAST), rng)
            except (AssertionError, StorageError):
                return seed
        self.fail("nobody noticed")

    def test_evicted_before_it_is_kept(self) -> None:
        """A record that leaves memory when it is given to the disk, and not when it is there."""
        original = StoredRecords.row

        def row(self: StoredRecords, key: bytes, promise: Any) -> Any:
            told = original(self, key, promise)
            self._dirty.pop(key, None)
            return told

        self.patch(StoredRecords, "row", row)
        self.red()

    def test_a_filter_that_knows_only_the_disk(self) -> None:
        """What is not on the disk when it is made anew gets there later."""
        original = StoredRecords._refilter

        def refilter(self: StoredRecords, rows: Any) -> Any:
            told = list(rows)
            list(original(self, self._shelf.rows(self.room, b"")))
            return iter(told)

        self.patch(StoredRecords, "_refilter", refilter)
        with always_worn():
            self.red()

    def test_drafts_change_along(self) -> None:
        """A draft that sees what the records under it are changed to."""
        self.patch(Draft, "preserve", lambda *_: None)
        self.red()

    def test_remembered_longer_than_it_holds(self) -> None:
        """A record in the cache that was replaced on the disk by another one."""
        original = StoredRecords.settled

        def settled(self: StoredRecords, key: bytes, record: Record | None) -> None:
            before = self._shelf.cache.get((self._name, key))
            original(self, key, record)
            if before is not MISSING:
                self._remember(key, before)

        self.patch(StoredRecords, "settled", settled)
        self.red()


class BoundTests(Case):
    """What is in memory is bounded."""

    def test_records_leave_memory(self) -> None:
        """Thousands of records with a cache for some of them."""
        home = Home(SimDisk(Random(3)), cache=50_000, least=256)
        for number in range(3000):
            home.records.put(b"\0%d" % number, record(1, b"x" * 100))
            if number % 100 == 0:
                home.settle()
        home.settle()
        self.assertEqual(home.records._dirty, {})
        self.assertLess(home.journal.shelf.cache.used, 50_000)
        self.assertEqual(len(home.journal.shelf.cache._entries), 50_000 // 1006)
        self.assertEqual(len(home.records), 3000)
        self.assertEqual(home.records[b"\0" + b"7"].value, b"x" * 100)

    def test_keys_that_come_and_go(self) -> None:
        """What is known of keys does not grow with those that are not there any more."""
        home = Home(SimDisk(Random(3)), cache=0, least=256)
        home.records.put(KEYS[0], record(1, b"stays"))
        sizes = []
        for cycle in range(30):
            keys = [b"\0%d %d" % (cycle, number) for number in range(300)]
            for value in (b"x", None):
                for key in keys:
                    home.records.put(key, record(1, value))
            home.settle()
            self.assertEqual(len(home.records.live_draft()), 1)
            for key in keys:
                home.records.drop(key)
            home.settle()
            self.assertEqual(home.records[KEYS[0]].value, b"stays")
            sizes.append(home.records._keys.added)
        self.assertLess(max(sizes), 6000)

    def test_changed_while_they_are_told(self) -> None:
        """Who goes through the records and changes some of them does not lose any."""
        home = Home(SimDisk(Random(3)), cache=0, least=256)
        for key in KEYS:
            home.records.put(key, record(1, b"x"))
        home.settle()
        with always_worn():
            for at, _ in enumerate(home.records.rows()):
                if not at:
                    home.records.put(b"\0", record(1, b"before"))
                    home.records.put(KEYS[-1], record(2, b"y"))
        home.settle()
        self.assertEqual({key for key in [b"\0", *KEYS] if key in home.records}, {b"\0", *KEYS})

    def test_rooms_are_used_again(self) -> None:
        """Many bases, one after the other, leave nothing behind on the disk."""
        home = Home(SimDisk(Random(4)), cache=0, least=256)
        home.records.put(KEYS[0], record(1))
        epoch = FIRST_EPOCH
        for number in range(300):
            draft = home.core.blank(0)
            for place, key in enumerate(KEYS):
                draft.put(key, record(number * 10 + place))
            ballot = Ballot(epoch, 1, bytes(16))
            epoch = epoch.following()
            successor = home.next(epoch, draft)
            home.core.hold(0, Staged(ballot.epoch, draft, successor, ballot))
            home.settle()
            home.core.serve(successor, draft)
            del draft
            home.settle()
        home.records.put(KEYS[0], record(9000))
        home.settle()
        places = {place: len(some) for place, some in home.disk._records.items() if some}
        self.assertEqual(places, {(home.records.room.space, 0): len(KEYS)})
        self.assertLess(home.records.room.space, 3)

    def test_cache(self) -> None:
        """The one that was not used for longest goes first; what is too large is not kept."""
        cache = Cache(100)
        for name in "abc":
            cache.put(name, name, 30)
        self.assertEqual(cache.get("a"), "a")
        cache.put("d", "d", 30)
        self.assertEqual([name for name in "abcd" if cache.get(name) == name], ["a", "c", "d"])
        cache.put("a", "A", 90)
        self.assertEqual((cache.get("a"), cache.used), ("A", 90))
        cache.put("a", "too large", 101)
        self.assertNotEqual(cache.get("a"), "too large")
        self.assertEqual(cache.used, 0)


class FailureTests(Case):
    """Disks that cannot be read."""

    def test_reading_fails(self) -> None:
        """Whoever asks hears of it, and the node is told once."""
        home = Home(SimDisk(Random(5)), cache=0, least=256)
        home.records.put(KEYS[0], record(1))
        home.settle()
        home.disk.damaged = True
        self.assertRaises(StorageError, home.records.get, KEYS[0])
        self.assertRaises(StorageError, list, home.records.items())
        self.assertRaises(StorageError, home.records.put, KEYS[0], record(2))
        self.assertEqual(len(home.failures), 1)

    def test_after_the_failure(self) -> None:
        """Records of a storage that has failed are not served, nor held ready."""
        home = Home(SimDisk(Random(6)), cache=0, least=256)
        draft = home.records.draft()
        home.core.journal = None
        successor = home.next(SECOND, draft)
        self.assertRaises(StorageError, home.core.serve, successor, draft)
        staged = Staged(FIRST_EPOCH, draft, successor, Ballot(FIRST_EPOCH, 1, b""))
        self.assertRaises(StorageError, home.core.hold, 0, staged)
        self.assertIs(cast(Any, home.core.acceptors[0].config.epoch), FIRST_EPOCH)


class RoomTests(Case):
    """What nobody uses any more goes from the disk."""

    def test_cleared(self) -> None:
        """Also if its last user lets go of it in no change of its own."""
        home = Home(SimDisk(Random(7)), cache=0, least=256)
        draft = home.core.blank(0)
        draft.put(KEYS[0], record(1))
        home.settle()
        self.assertEqual(home.disk.used > 0, True)
        del draft
        home.journal.tidy()
        home.settle_disk()
        self.assertEqual(home.disk.used, 0)
        self.assertFalse(home.journal.behind)

    def test_cleared_at_the_next_start(self) -> None:
        """What was copied for an epoch that never came is no part of the next life."""
        home = Home(SimDisk(Random(8)), cache=0, least=256)
        home.records.put(KEYS[0], record(1))
        draft = home.core.blank(0)
        draft.put(KEYS[1], record(2))
        home.settle()
        home.disk.crash()
        again = Home(home.disk, cache=0, least=256)
        again.settle_disk()
        self.assertEqual(sum(map(len, again.disk._records.values())), 1)
        self.assertEqual(list(again.records), [KEYS[0]])
        del draft


class FilterTests(SynchronousTestCase):
    """Which keys are not there."""

    @given(st.sets(st.binary(max_size=8), max_size=300))
    def test_no_key_is_missed(self, keys: set[bytes]) -> None:
        """Whatever they are."""
        among = Filter()
        self.assertFalse(any(map(among.may_have, keys)))
        for key in keys:
            among.add(key)
        self.assertTrue(all(map(among.may_have, keys)))

    def test_few_others(self) -> None:
        """Of keys like these that were not added, few are taken for one that was."""
        for form in (b"key %012d", b"%d", b"\0%x" + bytes(30)):
            among = Filter()
            for number in range(20_000):
                among.add(form % number)
            self.assertTrue(all(among.may_have(form % number) for number in range(20_000)))
            wrong = sum(among.may_have(form % number) for number in range(20_000, 40_000))
            self.assertLess(wrong, 20_000 * 0.03, form)

    def test_a_new_key_costs_no_look(self) -> None:
        """What was never there is not looked for on the disk, in the next life neither."""
        home = Home(SimDisk(Random(9)), cache=0, least=256)
        for number in range(1000):
            home.records.put(b"\0%d" % number, record(1))
        home.settle()
        home.close()
        home = Home(home.disk, cache=0, least=256)
        looks: list[bytes] = []
        look = home.disk.look

        def counted(space: int, partition: int, key: bytes, most: int) -> Any:
            looks.append(key)
            return look(space, partition, key, most)

        self.patch(home.disk, "look", counted)
        for number in range(1000, 2000):
            self.assertIsNone(home.records.get(b"\0%d" % number))
        self.assertLess(len(looks), 30)
        self.assertIsNotNone(home.records.get(b"\0" + b"7"))
        home.close()
