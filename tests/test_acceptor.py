"""What one member remembers: each rule of the acceptor by itself, then all orders of messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice, product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.acceptor import Acceptor, NotPromised, WrongEpoch
from py2p_twisted.table.digest import EMPTY_BASE, base_of, digests
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Record, Successor

from .fakes import config, make_peer, record

EPOCH = FIRST_EPOCH
KEY = b"key"
FIRST = make_peer(1).instance  # the first member of all groups here
LOWER, HIGHER = bytes(16), b"\xff" * 16


def ballot(counter: int, instance: bytes = LOWER) -> Ballot:
    return Ballot(EPOCH, counter, instance)


def successor(number: int = 2) -> Successor:
    return Successor(config(0, number), EMPTY_BASE, FIRST_EPOCH)


class EpochTests(SynchronousTestCase):
    def everything(self, acceptor: Acceptor, epoch: Any) -> list[Callable[[], object]]:
        """All that an acceptor is asked with an epoch, but for wedge and choose."""
        return [
            lambda: acceptor.check(epoch),
            lambda: acceptor.read(epoch, KEY),
            lambda: acceptor.prepare(epoch, ballot(9), KEY),
            lambda: acceptor.accept(epoch, KEY, record(9)),
            lambda: acceptor.page(epoch, None, b""),
        ]

    def test_another_epoch_is_refused(self) -> None:
        """Earlier or later, of another era or number; and nothing changes (rule 1)."""
        acceptor = Acceptor(config(number=5), [(KEY, record(1))])
        mine = acceptor.config.epoch
        others = [
            mine._replace(number=4),
            mine._replace(number=6),
            mine._replace(era=1),
            mine._replace(era_random=1),
            mine._replace(era=1, number=4),
        ]
        for epoch in others:
            for asked in [
                *self.everything(acceptor, epoch),
                partial(acceptor.wedge, epoch, ballot(1)),
                partial(acceptor.choose, epoch, ballot(1), successor()),
            ]:
                self.assertFalse(self.assertRaises(WrongEpoch, asked).wedged)
        self.assertFalse(acceptor.wedged)
        self.assertIsNone(acceptor.vote)
        self.assertEqual(acceptor.read(mine, KEY), record(1))
        self.assertEqual(acceptor.counter, 0)

    def test_nothing_is_served_once_wedged(self) -> None:
        """Not even what was promised before, and never again (rule 2)."""
        acceptor = Acceptor(config(), [(KEY, record(1))])
        acceptor.prepare(EPOCH, ballot(9), KEY)
        acceptor.wedge(EPOCH, ballot(1))
        for _ in range(2):
            for asked in self.everything(acceptor, EPOCH):
                self.assertTrue(self.assertRaises(WrongEpoch, asked).wedged)
            acceptor.choose(EPOCH, ballot(2), successor())
        self.assertEqual(acceptor.get(KEY), record(1), "what is frozen can still be copied")

    def test_a_wedged_epoch_still_refuses_others_as_others(self) -> None:
        acceptor = Acceptor(config())
        acceptor.wedge(EPOCH, ballot(1))
        for asked in self.everything(acceptor, EPOCH.following()):
            self.assertFalse(self.assertRaises(WrongEpoch, asked).wedged)


class VoteTests(SynchronousTestCase):
    """The epoch's own Paxos: wedge is its PREPARE, choose its ACCEPT."""

    def setUp(self) -> None:
        self.acceptor = Acceptor(config())

    def test_vote_is_told_to_the_next_proposer(self) -> None:
        self.assertIsNone(self.acceptor.wedge(EPOCH, ballot(1)))
        self.acceptor.choose(EPOCH, ballot(1), successor(2))
        vote = (ballot(1), successor(2))
        self.assertEqual(self.acceptor.vote, vote)
        self.assertEqual(self.acceptor.wedge(EPOCH, ballot(2)), vote)
        self.assertEqual(self.acceptor.vote, vote, "promising more does not change the vote")

    def test_lower_ballots_are_refused(self) -> None:
        self.acceptor.wedge(EPOCH, ballot(3))
        for low in (1, 2):
            error = self.assertRaises(NotPromised, self.acceptor.wedge, EPOCH, ballot(low))
            self.assertEqual(error.promised, ballot(3))
            self.assertRaises(NotPromised, self.acceptor.choose, EPOCH, ballot(low), successor(9))
        self.assertIsNone(self.acceptor.vote)

    def test_choosing_promises(self) -> None:
        self.acceptor.wedge(EPOCH, ballot(1))
        self.acceptor.choose(EPOCH, ballot(5), successor(2))
        self.assertRaises(NotPromised, self.acceptor.choose, EPOCH, ballot(4), successor(9))
        self.assertRaises(NotPromised, self.acceptor.wedge, EPOCH, ballot(4))
        self.acceptor.choose(EPOCH, ballot(6), successor(3))
        self.assertEqual(self.acceptor.vote, (ballot(6), successor(3)))

    def test_the_ballot_that_stands(self) -> None:
        self.assertIsNone(self.acceptor.wedge_ballot)
        self.acceptor.wedge(EPOCH, ballot(3))
        self.assertEqual(self.acceptor.wedge_ballot, ballot(3))
        self.acceptor.choose(EPOCH, ballot(5), successor(2))
        self.assertEqual(self.acceptor.wedge_ballot, ballot(5))

    def test_no_vote_without_wedge(self) -> None:
        """Nobody who still serves may have voted for a next epoch."""
        self.assertRaises(NotPromised, self.acceptor.choose, EPOCH, ballot(9), successor())
        self.assertFalse(self.acceptor.wedged)
        self.assertIsNone(self.acceptor.vote)

    def test_repeated_messages_change_nothing(self) -> None:
        """A proposer whose answer was lost may say the same again."""
        self.acceptor.wedge(EPOCH, ballot(1))
        self.assertIsNone(self.acceptor.wedge(EPOCH, ballot(1)))
        for _ in range(2):
            self.acceptor.choose(EPOCH, ballot(1), successor(2))
        self.assertEqual(self.acceptor.wedge(EPOCH, ballot(1)), (ballot(1), successor(2)))


class RegisterTests(SynchronousTestCase):
    def test_every_order_of_small_ballots(self) -> None:
        """All sequences of four messages with five ballots, against the rule as it is written."""
        ballots = [ballot(1, FIRST), ballot(2, FIRST), ballot(1, HIGHER), ballot(2), ballot(3)]
        events = [(kind, one) for kind in ("prepare", "accept") for one in ballots]
        for sequence in product(events, repeat=4):
            acceptor = Acceptor(config())
            lowest, prepared = ballot(1, FIRST), False
            accepted: Ballot | None = None
            for kind, one in sequence:
                self.assertEqual(acceptor.promised(KEY), lowest, sequence)
                for instance in (FIRST, LOWER, HIGHER):
                    steady = None if prepared or lowest.instance != instance else lowest
                    self.assertEqual(acceptor.steady(KEY, instance), steady, sequence)
                asked: Callable[[], object]
                if kind == "prepare":
                    holds = one > lowest
                    asked = partial(acceptor.prepare, EPOCH, one, KEY)
                else:
                    holds = one >= lowest or one == accepted
                    asked = partial(acceptor.accept, EPOCH, KEY, Record(one, b"v"))
                before = None if accepted is None else Record(accepted, b"v")
                if not holds:
                    error = self.assertRaises(NotPromised, asked)
                    self.assertEqual(error.promised, lowest, sequence)
                elif kind == "prepare":
                    self.assertEqual(asked(), before, sequence)
                    lowest, prepared = one, True
                else:
                    asked()
                    if one >= lowest:
                        lowest, prepared, accepted = one.next(), False, one
                right = None if accepted is None else Record(accepted, b"v")
                self.assertEqual(acceptor.read(EPOCH, KEY), right, sequence)

    def test_the_first_member_need_not_ask(self) -> None:
        """Before anything was accepted its first ballot is promised, for every key (rule 12)."""
        acceptor = Acceptor(config(0, 1, 1, 2, 3))
        for key in (b"a", b"b"):
            self.assertEqual(acceptor.steady(key, FIRST), ballot(1, FIRST))
            self.assertIsNone(acceptor.steady(key, make_peer(2).instance))
            acceptor.accept(EPOCH, key, Record(ballot(1, FIRST), b"v"))
            self.assertEqual(acceptor.steady(key, FIRST), ballot(2, FIRST))

    def test_what_another_epoch_accepted_promises_nothing(self) -> None:
        """A record of the base, however high its counter was (rule 7)."""
        old = Record(Ballot(EPOCH, 99, HIGHER), b"old")
        following = config(0, 2, 2, 1)
        acceptor = Acceptor(following, [(KEY, old)])
        first = Ballot(following.epoch, 1, make_peer(2).instance)
        self.assertEqual(acceptor.promised(KEY), first)
        acceptor.accept(following.epoch, KEY, Record(first, b"new"))
        self.assertEqual(acceptor.promised(KEY), first.next())

    def test_opened_late_with_records_of_the_epoch(self) -> None:
        """What was copied from a member that serves counts as accepted."""
        acceptor = Acceptor(config(), [(KEY, record(7))])
        self.assertEqual(acceptor.promised(KEY), ballot(8))
        self.assertRaises(NotPromised, acceptor.accept, EPOCH, KEY, record(6))
        self.assertRaises(NotPromised, acceptor.prepare, EPOCH, ballot(8), KEY)

    def test_the_same_twice(self) -> None:
        """An ACCEPT that comes again is acknowledged again, and changes nothing."""
        acceptor = Acceptor(config())
        for _ in range(2):
            acceptor.accept(EPOCH, KEY, record(4))
        acceptor.prepare(EPOCH, ballot(9), KEY)
        acceptor.accept(EPOCH, KEY, record(4))
        self.assertEqual(acceptor.promised(KEY), ballot(9))
        self.assertRaises(NotPromised, acceptor.accept, EPOCH, KEY, record(5))

    def test_ballots_of_equal_counters_are_ordered_by_instance(self) -> None:
        acceptor = Acceptor(config())
        acceptor.prepare(EPOCH, ballot(2, b"b" * 16), KEY)
        self.assertRaises(NotPromised, acceptor.prepare, EPOCH, ballot(2, b"a" * 16), KEY)
        acceptor.prepare(EPOCH, ballot(2, b"c" * 16), KEY)

    def test_keys_are_independent(self) -> None:
        acceptor = Acceptor(config())
        acceptor.prepare(EPOCH, ballot(9), b"one")
        acceptor.accept(EPOCH, b"two", record(2))
        self.assertIsNone(acceptor.read(EPOCH, b"one"))
        self.assertEqual(acceptor.read(EPOCH, b"two"), record(2))

    def test_counter_is_the_highest_seen(self) -> None:
        """A proposer that takes the next one is not refused."""
        acceptor = Acceptor(config())
        acceptor.prepare(EPOCH, ballot(4), b"one")
        acceptor.accept(EPOCH, b"two", record(2))
        self.assertEqual(acceptor.counter, 4)
        acceptor.accept(EPOCH, b"two", record(7))
        self.assertEqual(acceptor.counter, 7)

    def test_stamp_is_the_highest_kept(self) -> None:
        def stamped(counter: int, stamp: int) -> Record:
            return Record(ballot(counter), b"v", bytes(8) + stamp.to_bytes(8, "big"))

        acceptor = Acceptor(config(0, 2), [(b"base", stamped(1, 5))])
        self.assertEqual(acceptor.stamp, 5)
        epoch = acceptor.config.epoch
        for stamp, right in ((4, 5), (9, 9), (8, 9)):
            one = stamped(stamp, stamp)
            acceptor.accept(epoch, b"%d" % stamp, one.at(one.ballot._replace(epoch=epoch)))
            self.assertEqual(acceptor.stamp, right)


KEYS = st.sampled_from(
    [b"u" + bytes([letter]) for letter in b"abcdefgh"] + [b"c1", b"c2", b"", b"v"]
)
WRITES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=40)


class RecordsTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(WRITES, WRITES)
    def test_counts(self, base: list[tuple[bytes, bytes | None]], writes: Any) -> None:
        """Of visible keys, tombstones and records, whatever is written, wherever it began."""
        model: dict[bytes, bytes | None] = dict(base)
        acceptor = Acceptor(
            config(), [(key, record(1, value)) for key, value in model.items()], visible=b"u"
        )
        for counter, (key, value) in enumerate(writes, 2):
            acceptor.accept(EPOCH, key, record(counter, value))
            model[key] = value
        live = {key for key, value in model.items() if value is not None}
        self.assertEqual(acceptor.keys, sum(key.startswith(b"u") for key in live))
        self.assertEqual(acceptor.tombstones, len(model) - len(live))
        self.assertEqual(len(acceptor), len(model))
        alive = [item for item in acceptor.records.items() if item[1].value is not None]
        self.assertEqual(list(acceptor.records.live_draft().items()), alive)
        self.assertEqual({key for key, _ in alive}, live)
        self.assertEqual(acceptor.records.live_draft().base(), base_of(alive))
        self.assertEqual(acceptor.digests(4), digests(acceptor.records.items(), 4))
        self.assertEqual(acceptor.digests(1), base_of(acceptor.records.items()).digest)
        for key, value in model.items():
            kept = acceptor.read(EPOCH, key)
            assert kept is not None
            self.assertEqual(kept.value, value)

    def test_refused_writes_count_nothing(self) -> None:
        acceptor = Acceptor(config())
        acceptor.accept(EPOCH, KEY, record(5))
        self.assertRaises(NotPromised, acceptor.accept, EPOCH, KEY, record(4, None))
        self.assertEqual((acceptor.keys, acceptor.tombstones), (1, 0))

    def test_digests_follow_the_records(self) -> None:
        """They are remembered, and not longer than they hold."""
        acceptor = Acceptor(config(), [(b"%d" % number, record(1)) for number in range(200)])
        before = acceptor.digests()
        self.assertEqual(before, digests(acceptor.records.items(), 8))
        self.assertIs(acceptor.digests(), before)
        acceptor.accept(EPOCH, b"7", record(2))
        self.assertEqual(acceptor.digests(), digests(acceptor.records.items(), 8))
        self.assertNotEqual(acceptor.digests(), before)

    def test_records_cannot_be_changed_from_outside(self) -> None:
        acceptor = Acceptor(config(), [(KEY, record(1))])
        self.assertFalse(hasattr(acceptor.records, "__setitem__"))
        self.assertEqual(dict(acceptor.records), {KEY: record(1)})

    def test_base_leaves_tombstones_out(self) -> None:
        """A base with and without them is the same base (rule 11)."""
        alive = [(b"a", record(1)), (b"b", record(2))]
        acceptor = Acceptor(config(), [*alive, (b"c", record(3, None))])
        self.assertEqual(acceptor.records.live_draft().base(), base_of(alive))
        self.assertEqual(acceptor.records.live_draft().base().records, 2)


class PageTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(
        WRITES,
        st.lists(WRITES, max_size=12),
        st.integers(1, 4),
        st.sampled_from([b"", b"u", b"c", b"ub", b"x"]),
    )
    def test_walk(self, before: Any, between: list[Any], size: int, prefix: bytes) -> None:
        """While keys come and go: those that stay are seen once, in order; none was never there.

        Tombstones are shown, too: whoever asks several members takes the newest of what they say.
        """
        acceptor = Acceptor(config())
        counter = 1
        state: dict[bytes, bytes | None] = {}

        def write(writes: list[tuple[bytes, bytes | None]]) -> None:
            nonlocal counter
            for key, value in writes:
                counter += 1
                acceptor.accept(EPOCH, key, record(counter, value))
                state[key] = value

        def there() -> set[bytes]:
            return {key for key in state if key.startswith(prefix)}

        write(before)
        always, ever = there(), there()
        seen: list[bytes] = []
        while page := list(islice(acceptor.page(EPOCH, max(seen, default=None), prefix), size)):
            ahead = sorted(key for key in there() if not seen or key > seen[-1])
            self.assertEqual([key for key, _ in page], ahead[:size])
            for key, one in page:
                self.assertIs(one, acceptor.get(key))
                self.assertEqual(one.value, state[key])
            seen += [key for key, _ in page]
            if between:
                write(between.pop())
                ever |= there()
        self.assertFalse(seen and any(key > seen[-1] for key in there()))
        self.assertEqual(seen, sorted(set(seen)))
        self.assertLessEqual(always, set(seen))
        self.assertLessEqual(set(seen), ever)

    def test_from_before_the_prefix(self) -> None:
        """A cursor that lies before all keys of the prefix does not end the walk."""
        acceptor = Acceptor(config(), [(b"a", record(1)), (b"b", record(1)), (b"u1", record(1))])
        for after in (None, b"", b"a", b"aa", b"b", b"u", b"u0"):
            page = list(acceptor.page(EPOCH, after, b"u"))
            self.assertEqual(page, [(b"u1", record(1))], after)
        for after in (b"u1", b"u2", b"v"):
            self.assertEqual(list(acceptor.page(EPOCH, after, b"u")), [], after)
