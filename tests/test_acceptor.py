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
from py2p_twisted.table.group import (
    EMPTY_BASE,
    FIRST_EPOCH,
    Ballot,
    Record,
    Successor,
    base_of,
)

from .fakes import config, record

EPOCH = FIRST_EPOCH
KEY = b"key"


def ballot(counter: int, instance: bytes = bytes(16)) -> Ballot:
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
        self.assertEqual(self.acceptor.vote, successor(2))
        self.assertEqual(self.acceptor.wedge(EPOCH, ballot(2)), successor(2))

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
        self.assertEqual(self.acceptor.vote, successor(3))

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
        self.assertEqual(self.acceptor.wedge(EPOCH, ballot(1)), successor(2))


State = tuple[Ballot | None, Record | None]


def register(state: State) -> Acceptor:
    """An acceptor whose only key is in this state: what it promised, what it accepted."""
    promised, accepted = state
    acceptor = Acceptor(config(), [] if accepted is None else [(KEY, accepted)])
    if promised is not None:
        acceptor.prepare(EPOCH, promised, KEY)
    return acceptor


class RegisterTests(SynchronousTestCase):
    def test_every_order_of_small_ballots(self) -> None:
        """All sequences of five messages with three ballots, against the rule as it is written."""
        events = [(kind, counter) for kind in ("prepare", "accept") for counter in (1, 2, 3)]
        for sequence in product(events, repeat=5):
            acceptor = Acceptor(config())
            promised = accepted = 0
            for kind, counter in sequence:
                highest = max(promised, accepted)
                asked: Callable[[], object]
                if kind == "prepare":
                    holds = counter > highest
                    asked = partial(acceptor.prepare, EPOCH, ballot(counter), KEY)
                else:
                    holds = counter >= highest
                    asked = partial(acceptor.accept, EPOCH, KEY, record(counter))
                expected = record(accepted) if accepted else None
                if not holds:
                    error = self.assertRaises(NotPromised, asked)
                    self.assertEqual(error.promised, ballot(highest), sequence)
                elif kind == "prepare":
                    self.assertEqual(asked(), expected, sequence)
                    promised = counter
                else:
                    asked()
                    accepted = counter
                    expected = record(accepted)
                self.assertEqual(acceptor.read(EPOCH, KEY), expected, sequence)

    def test_ballots_of_equal_counters_are_ordered_by_instance(self) -> None:
        acceptor = Acceptor(config())
        acceptor.prepare(EPOCH, ballot(1, b"b" * 16), KEY)
        self.assertRaises(NotPromised, acceptor.prepare, EPOCH, ballot(1, b"a" * 16), KEY)
        acceptor.prepare(EPOCH, ballot(1, b"c" * 16), KEY)

    def test_keys_are_independent(self) -> None:
        acceptor = Acceptor(config())
        acceptor.prepare(EPOCH, ballot(9), b"one")
        acceptor.accept(EPOCH, b"two", record(1))
        self.assertIsNone(acceptor.read(EPOCH, b"one"))
        self.assertEqual(acceptor.read(EPOCH, b"two"), record(1))

    def test_counter_is_the_highest_seen(self) -> None:
        """A proposer that takes the next one is not refused."""
        acceptor = Acceptor(config())
        acceptor.prepare(EPOCH, ballot(4), b"one")
        acceptor.accept(EPOCH, b"two", record(2))
        self.assertEqual(acceptor.counter, 4)
        acceptor.accept(EPOCH, b"two", record(7))
        self.assertEqual(acceptor.counter, 7)

    def test_two_proposers_at_three_acceptors(self) -> None:
        """Every order and every loss of their messages: what was chosen is never lost.

        Each adds its mark to the value that it learnt.  If both were acknowledged by a quorum, the
        later value must hold both marks.
        """
        nothing: State = (None, None)
        start: World = ((nothing,) * 3, (_Proposer(), _Proposer()))
        seen, todo, both = {start}, [start], 0
        while todo:
            acceptors, proposers = todo.pop()
            first, second = proposers
            if len(first.acknowledged) >= 2 and len(second.acknowledged) >= 2:
                both += 1
                self.assertEqual(second.value, b"12")
            for which, at in product((0, 1), range(3)):
                for following in proposers[which].next_steps(which, at, acceptors[at]):
                    state, proposer = following
                    others = (*acceptors[:at], state, *acceptors[at + 1 :])
                    pair = (proposer, second) if which == 0 else (first, proposer)
                    reached = (others, pair)
                    if reached not in seen:
                        seen.add(reached)
                        todo.append(reached)
        self.assertGreater(both, 10)


World = tuple[tuple[State, ...], tuple["_Proposer", "_Proposer"]]


class _Proposer(tuple[Any, ...]):
    """What a proposer did so far: where it prepared, its promises, its value, its accepts."""

    def __new__(
        cls,
        prepared: frozenset[int] = frozenset(),
        promises: tuple[Record | None, ...] = (),
        value: bytes | None = None,
        accepting: frozenset[int] = frozenset(),
        acknowledged: frozenset[int] = frozenset(),
    ) -> _Proposer:
        return super().__new__(cls, (prepared, promises, value, accepting, acknowledged))

    @property
    def value(self) -> Any:
        return self[2]

    @property
    def acknowledged(self) -> Any:
        return self[4]

    def next_steps(self, which: int, at: int, state: State) -> list[tuple[State, _Proposer]]:
        """Its next message to one acceptor arrives there."""
        prepared, promises, value, accepting, acknowledged = self
        mine = ballot(which + 1)
        if value is None and at not in prepared:
            try:
                promises = (*promises, register(state).prepare(EPOCH, mine, KEY))
                state = (mine, state[1])
            except NotPromised:
                pass
            if len(promises) == 2:
                accepted = max(filter(None, promises), key=lambda one: one.ballot, default=None)
                old = b"" if accepted is None else accepted.value
                value = old + str(which + 1).encode()
            return [(state, _Proposer(prepared | {at}, promises, value))]
        if value is not None and at not in accepting:
            wanted = Record(mine, value)
            try:
                register(state).accept(EPOCH, KEY, wanted)
                state = (None, wanted)
                acknowledged |= {at}
            except NotPromised:
                pass
            return [(state, _Proposer(prepared, promises, value, accepting | {at}, acknowledged))]
        return []


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
        self.assertEqual({key for key, _ in acceptor.live_records()}, live)
        self.assertEqual(acceptor.base(), base_of(acceptor.live_records()))
        for key, value in model.items():
            kept = acceptor.read(EPOCH, key)
            assert kept is not None
            self.assertEqual(kept.value, value)

    def test_refused_writes_count_nothing(self) -> None:
        acceptor = Acceptor(config())
        acceptor.accept(EPOCH, KEY, record(5))
        self.assertRaises(NotPromised, acceptor.accept, EPOCH, KEY, record(4, None))
        self.assertEqual((acceptor.keys, acceptor.tombstones), (1, 0))

    def test_changed_keys(self) -> None:
        """Those accepted since copying ahead began, and only those."""
        acceptor = Acceptor(config())
        acceptor.accept(EPOCH, b"before", record(1))
        self.assertIsNone(acceptor.changed)
        acceptor.changed = set()
        acceptor.prepare(EPOCH, ballot(1), b"only promised")
        acceptor.accept(EPOCH, b"one", record(2))
        acceptor.accept(EPOCH, b"one", record(3))
        acceptor.accept(EPOCH, b"two", record(4, None))
        self.assertRaises(NotPromised, acceptor.accept, EPOCH, b"before", record(0))
        self.assertEqual(acceptor.changed, {b"one", b"two"})

    def test_base_leaves_tombstones_out(self) -> None:
        """A base with and without them is the same base (rule 11)."""
        alive = [(b"a", record(1)), (b"b", record(2))]
        acceptor = Acceptor(config(), [*alive, (b"c", record(3, None))])
        self.assertEqual(acceptor.base(), base_of(alive))
        self.assertEqual(acceptor.base().records, 2)


class PageTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(
        WRITES,
        st.lists(WRITES, max_size=12),
        st.integers(1, 4),
        st.sampled_from([b"", b"u", b"c", b"ub", b"x"]),
    )
    def test_walk(self, before: Any, between: list[Any], size: int, prefix: bytes) -> None:
        """While keys come and go: those that stay are seen once, in order; none was never there."""
        acceptor = Acceptor(config())
        counter = 0
        state: dict[bytes, bytes | None] = {}

        def write(writes: list[tuple[bytes, bytes | None]]) -> None:
            nonlocal counter
            for key, value in writes:
                counter += 1
                acceptor.accept(EPOCH, key, record(counter, value))
                state[key] = value

        def live() -> set[bytes]:
            return {k for k, v in state.items() if v is not None and k.startswith(prefix)}

        write(before)
        always, ever = live(), live()
        seen: list[bytes] = []
        while page := list(islice(self.page(acceptor, seen, prefix), size)):
            ahead = sorted(key for key in live() if not seen or key > seen[-1])
            self.assertEqual(page, ahead[:size])
            seen += page
            if between:
                for one in between.pop():
                    write([one])
                    always &= live()
                    ever |= live()
        self.assertFalse(seen and any(key > seen[-1] for key in live()))
        self.assertEqual(seen, sorted(set(seen)))
        self.assertLessEqual(always, set(seen))
        self.assertLessEqual(set(seen), ever)

    @staticmethod
    def page(acceptor: Acceptor, seen: list[bytes], prefix: bytes) -> Any:
        return acceptor.page(EPOCH, seen[-1] if seen else None, prefix)

    def test_from_before_the_prefix(self) -> None:
        """A cursor that lies before all keys of the prefix does not end the walk."""
        acceptor = Acceptor(config(), [(b"a", record(1)), (b"b", record(1)), (b"u1", record(1))])
        for after in (None, b"", b"a", b"aa", b"b", b"u", b"u0"):
            self.assertEqual(list(acceptor.page(EPOCH, after, b"u")), [b"u1"], after)
        for after in (b"u1", b"u2", b"v"):
            self.assertEqual(list(acceptor.page(EPOCH, after, b"u")), [], after)
