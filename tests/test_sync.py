"""One exchange for copies: after it two members have the same, whatever they had before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, cast

from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.errors import PeerUnreachable
from py2p_twisted.node.core import Core, Staged, user_key
from py2p_twisted.node.pulls import Copy, Mode, Want
from py2p_twisted.node.sync import Sync
from py2p_twisted.ring.ring import Pointers
from py2p_twisted.settings import Settings
from py2p_twisted.table.acceptor import Acceptor
from py2p_twisted.table.digest import DIGEST_BYTES, MOST_BUCKETS, base_of
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Record, Successor
from py2p_twisted.table.records import MemoryRecords
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import (
    Answer,
    Ask,
    Declined,
    Difference,
    Differences,
    Differing,
    Digests,
    GetDifference,
    GetDigests,
    Reply,
    Request,
    SomeDigests,
    Source,
)

from .fakes import config, make_peer, record

PEER = make_peer(2)
#: One partition holds all keys, so that there are enough of them.
NUMBERS = Settings(k=1)
SECOND = FIRST_EPOCH.following()


def partition_of(core: Core, key: bytes) -> int:
    """The partition of a user's key."""
    return core.partition(user_key(key))


def in_partition(number: int, count: int, settings: Settings = NUMBERS) -> list[bytes]:
    """So many table keys of a partition."""
    core = Core(Clock(), Random(0), settings)
    found: list[bytes] = []
    candidate = 0
    while len(found) < count:
        key = b"key %d" % candidate
        candidate += 1
        if partition_of(core, key) == number:
            found.append(user_key(key))
    return found


KEYS = in_partition(0, 40)


class FakeLinks:
    """Answers what is asked as another node's Sync would, through the real codec.

    :ivar asked: the requests so far.
    """

    def __init__(self, answer: Callable[[Request], Reply], settings: Settings) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        self._settings = settings

    def ask(self, peer: object, request: Request, timeout: float) -> Deferred[Reply]:
        """Answer at once."""
        self.asked.append(request)
        if len(self.asked) > 20_000:
            raise AssertionError("it asks for ever")
        sent = self.through(Ask(1, request))
        try:
            reply = self.answer(sent.body)
        except PeerUnreachable as error:
            return fail(error)
        return succeed(self.through(Answer(1, reply)).body)

    def through(self, message: Any) -> Any:
        """What arrives of it."""
        raw = encode(message)
        assert len(raw) <= self._settings.max_frame, f"{len(raw)} bytes do not fit a frame"
        return decode(raw)


class Case(SynchronousTestCase):
    """Two members: one pulls, the other answers."""

    def pair(self, theirs: dict[bytes, Record], numbers: Settings = NUMBERS) -> None:
        """Set them up: the peer serves these records in epoch 1 of partition 0."""
        self.here = Core(Clock(), Random(1), numbers)
        self.there = Core(Clock(), Random(2), numbers)
        self.there.pointers = Pointers(PEER)
        self.there.acceptors[0] = Acceptor(config(0), theirs.items())
        self.server = Sync(self.there)
        self.client = Sync(self.here)
        self.links = FakeLinks(self.answer, numbers)
        self.here.links = cast(Any, self.links)

    def answer(self, request: Request) -> Reply:
        """What the peer says."""
        if isinstance(request, GetDigests):
            return self.server.answer_digests(request)
        assert isinstance(request, GetDifference)
        return self.server.answer_difference(request)

    def pull(self, wants: list[Want], mode: Mode) -> list[Want]:
        """Pull; it ends in the same turn."""
        return self.successResultOf(Deferred.fromCoroutine(self.client.pull(PEER, wants, mode)))

    def want(self, mine: dict[bytes, Record], **more: Any) -> Want:
        """The peer's records of partition 0, into these."""
        return Want(0, FIRST_EPOCH, Source.EPOCH, Copy(MemoryRecords(mine)), **more)


COUNTERS = st.dictionaries(st.sampled_from(KEYS), st.integers(1, 5), max_size=40)


def records(counters: dict[bytes, int]) -> dict[bytes, Record]:
    """A record of each key; every third ballot is a deletion."""
    return {
        key: record(counter, None if counter % 3 == 0 else b"%d" % counter)
        for key, counter in counters.items()
    }


class AnySets(Case):
    """Any two sets of records, in any page size."""

    @hypothesis(max_examples=150, deadline=None)
    @given(COUNTERS, COUNTERS, st.sampled_from([1, 3, 40, 512]), st.sampled_from([1, 300, 10**5]))
    def test_mirror(
        self, one: dict[bytes, int], other: dict[bytes, int], page_keys: int, page_bytes: int
    ) -> None:
        """Mirrored, the target is exactly the source."""
        mine, theirs = records(one), records(other)
        self.pair(theirs, replace(NUMBERS, page_keys=page_keys, page_bytes=page_bytes))
        want = self.want(mine)
        self.assertEqual(self.pull([want], Mode.MIRROR), [want])
        self.assertEqual(mine, theirs)

    @hypothesis(max_examples=150, deadline=None)
    @given(COUNTERS, COUNTERS, st.sampled_from([1, 3, 40, 512]), st.sampled_from([1, 300, 10**5]))
    def test_merge(
        self, one: dict[bytes, int], other: dict[bytes, int], page_keys: int, page_bytes: int
    ) -> None:
        """Merged, every key has the higher ballot, and nothing is dropped."""
        mine, theirs = records(one), records(other)
        self.pair(theirs, replace(NUMBERS, page_keys=page_keys, page_bytes=page_bytes))
        want = self.want(mine)
        self.assertEqual(self.pull([want], Mode.MERGE), [want])
        expected = {key: max(one.get(key, 0), other.get(key, 0)) for key in {**one, **other}}
        self.assertEqual(mine, records(expected))
        self.assertEqual(theirs, records(other))

    def test_equal(self) -> None:
        """What is equal costs one question."""
        theirs = records(dict.fromkeys(KEYS, 2))
        self.pair(theirs)
        want = self.want(dict(theirs))
        self.assertEqual(self.pull([want], Mode.MIRROR), [want])
        self.assertEqual(len(self.links.asked), 1)
        self.assertEqual(want.purged, FIRST_EPOCH)

    def test_known_digests(self) -> None:
        """Digests that are known are not asked for again."""
        theirs = records(dict.fromkeys(KEYS, 2))
        self.pair(theirs)
        mine: dict[bytes, Record] = {}
        want = self.want(mine, theirs=self.there.acceptors[0].digests())
        self.assertEqual(self.pull([want], Mode.MERGE), [want])
        self.assertEqual(mine, theirs)
        self.assertEqual([type(request) for request in self.links.asked], [GetDifference])

    def test_only_a_base(self) -> None:
        """Who wants one base takes no other."""
        theirs = records(dict.fromkeys(KEYS, 1))
        self.pair(theirs)
        other = self.want({}, base=base_of(records(dict.fromkeys(KEYS, 2)).items()))
        self.assertEqual(self.pull([other], Mode.MIRROR), [])
        self.assertTrue(other.missing)
        same = self.want({}, base=base_of(theirs.items()))
        self.assertEqual(self.pull([same], Mode.MIRROR), [same])


class Sources(Case):
    """Which records a peer tells."""

    def test_no_such_epoch(self) -> None:
        """Another epoch, another partition, nothing staged: they are not here."""
        self.pair({})
        wants = [
            Want(0, SECOND, Source.EPOCH, Copy(MemoryRecords())),
            Want(1, FIRST_EPOCH, Source.EPOCH, Copy(MemoryRecords())),
            Want(0, FIRST_EPOCH, Source.STAGED, Copy(MemoryRecords())),
        ]
        self.assertEqual(self.pull(wants, Mode.MIRROR), [])
        self.assertTrue(all(want.missing for want in wants))

    def test_no_member(self) -> None:
        """Who left the ring cannot tell what it had: that is no answer."""
        self.pair({})
        self.there.pointers = None
        want = Want(0, FIRST_EPOCH, Source.STAGED, Copy(MemoryRecords()))
        self.assertEqual(self.pull([want], Mode.MIRROR), [])
        self.assertFalse(want.missing)

    def test_wedged(self) -> None:
        """A stopped epoch is told like one that is served."""
        theirs = records(dict.fromkeys(KEYS, 1))
        self.pair(theirs)
        self.there.acceptors[0].wedge(FIRST_EPOCH, Ballot(FIRST_EPOCH, 1, b"i" * 16))
        mine: dict[bytes, Record] = {}
        self.assertEqual(len(self.pull([self.want(mine)], Mode.MIRROR)), 1)
        self.assertEqual(mine, theirs)

    def test_staged(self) -> None:
        """What is staged is told once it is a base, and for a while after the node let it go."""
        base = records(dict.fromkeys(KEYS[:10], 1))
        self.pair({})
        successor = Successor(config(0, 2), base_of(base.items()), SECOND)
        staged = Staged(FIRST_EPOCH, MemoryRecords(dict(base)))
        mine: dict[bytes, Record] = {}

        def pulled() -> list[Want]:
            mine.clear()
            return self.pull(
                [Want(0, FIRST_EPOCH, Source.STAGED, Copy(MemoryRecords(mine)))], Mode.MIRROR
            )

        self.there.staged[0] = staged
        self.assertEqual(pulled(), [], "it is not complete")
        staged.successor = successor
        (want,) = pulled()
        self.assertEqual((mine, want.purged), (base, SECOND))
        del self.there.staged[0]
        self.assertEqual(pulled(), [])
        self.there.retired[0] = (1.0, staged)
        self.assertEqual(len(pulled()), 1)
        self.assertEqual(mine, base)

    def test_changing(self) -> None:
        """A source that is written meanwhile: the pull ends, and nothing that was there is lost."""
        theirs = records(dict.fromkeys(KEYS, 1))
        self.pair(theirs, replace(NUMBERS, page_keys=3))
        rng = Random(7)
        counter = 1

        def answer(request: Request) -> Reply:
            nonlocal counter
            counter += 1
            key = rng.choice(KEYS)
            self.there.acceptors[0].accept(FIRST_EPOCH, key, record(counter))
            return self.answer(request)

        self.links.answer = answer
        mine: dict[bytes, Record] = {}
        self.assertEqual(len(self.pull([self.want(mine)], Mode.MIRROR)), 1)
        self.assertEqual(set(mine), set(KEYS))


class Bounds(Case):
    """Pages, and messages that fit."""

    def test_pages(self) -> None:
        """Thousands of records travel in pages, none of which is larger than allowed."""
        keys = in_partition(0, 3000)
        theirs = {key: record(1, bytes(200)) for key in keys}
        self.pair(theirs)
        mine: dict[bytes, Record] = {}
        self.pull([self.want(mine)], Mode.MIRROR)
        self.assertEqual(mine, theirs)
        self.assertEqual(self.client.pulled, 3000, "none came twice")
        self.assertLess(len(self.links.asked), 3 + 2 * 3000 // NUMBERS.page_keys)

    def test_large_values(self) -> None:
        """Values as large as allowed come one by one."""
        theirs = {key: record(1, bytes(NUMBERS.max_value)) for key in KEYS[:5]}
        self.pair(theirs)
        mine: dict[bytes, Record] = {}
        self.assertEqual(len(self.pull([self.want(mine)], Mode.MIRROR)), 1)
        self.assertEqual(mine, theirs)
        self.assertEqual(self.client.pulled, 5)

    def test_large_keys(self) -> None:
        """Keys as long as allowed, on both sides: no question and no answer is too large."""
        core = Core(Clock(), Random(0), NUMBERS)
        long = [
            user_key(key)
            for number in range(2400)
            if partition_of(core, key := b"%04d" % number + bytes(NUMBERS.max_key - 4)) == 0
        ]
        for mode in Mode:
            theirs = {key: record(2) for key in long[100:]}
            mine = {key: record(1) for key in long[:-100]}
            self.pair(theirs)
            self.assertEqual(len(self.pull([self.want(mine)], mode)), 1, mode)
            if mode is Mode.MIRROR:
                self.assertEqual(mine, theirs)
            else:
                self.assertEqual(mine, {**{key: record(1) for key in long[:100]}, **theirs})

    def test_far_more_here_than_there(self) -> None:
        """A peer with few records has few buckets; a long list of what is here does not fit."""
        keys = in_partition(0, 9000)
        for mode in Mode:
            theirs = {key: record(2) for key in keys[:50]}
            mine = {key: record(1) for key in keys}
            self.pair(theirs)
            self.assertEqual(len(self.pull([self.want(mine)], mode)), 1, mode)
            expected = theirs if mode is Mode.MIRROR else {**mine, **theirs}
            self.assertEqual(mine, expected)
            self.assertEqual(len(mine), 50 if mode is Mode.MIRROR else 9000)

    def test_many_partitions(self) -> None:
        """A thousand partitions travel together, full or empty."""
        numbers = replace(NUMBERS, k=10)
        core = Core(Clock(), Random(0), numbers)
        theirs: dict[int, dict[bytes, Record]] = {part: {} for part in range(core.partitions)}
        for number in range(4000):
            key = user_key(b"%d" % number)
            if core.partition(key) % 3:
                theirs[core.partition(key)][key] = record(1)
        self.pair({}, numbers)
        for part, some in theirs.items():
            self.there.acceptors[part] = Acceptor(
                Config(part, FIRST_EPOCH, (make_peer(1),)), some.items()
            )
        mine: dict[int, dict[bytes, Record]] = {part: {} for part in theirs}
        wants = [
            Want(p, FIRST_EPOCH, Source.EPOCH, Copy(MemoryRecords(some)))
            for p, some in mine.items()
        ]
        done = self.pull(wants, Mode.MIRROR)
        self.assertEqual({want.partition for want in done}, set(theirs))
        self.assertEqual(mine, theirs)
        self.assertLess(len(self.links.asked), 40)


class Liars(Case):
    """Peers that answer what cannot be cost a bounded number of questions, and nothing is done."""

    def pull_from(self, answer: Callable[[Request], Reply], mine: dict[bytes, Record]) -> int:
        """Pull from it; that is not done.  How many questions that took."""
        self.pair({})
        self.links.answer = answer
        self.assertEqual(self.pull([self.want(mine)], Mode.MIRROR), [])
        return len(self.links.asked)

    def lying(self, difference: Callable[[Differing], Difference]) -> Callable[[Request], Reply]:
        """A peer whose digests differ, and which then answers that."""

        def answer(request: Request) -> Reply:
            if isinstance(request, GetDigests):
                return Digests((SomeDigests(b"d" * DIGEST_BYTES, FIRST_EPOCH),))
            assert isinstance(request, GetDifference)
            return Differences((difference(request.parts[0]),))

        return answer

    def test_digests(self) -> None:
        """Digests of a length that cannot be."""
        for length in (0, 1, 15, 17, 3 * DIGEST_BYTES, 2 * MOST_BUCKETS * DIGEST_BYTES):
            told = Digests((SomeDigests(bytes(length), FIRST_EPOCH),))
            if length > NUMBERS.max_frame:
                continue
            self.assertEqual(self.pull_from(lambda _, told=told: told, {}), 1, length)

    def test_too_many_parts_or_none(self) -> None:
        """More answers than questions, or none at all."""
        one = SomeDigests(bytes(DIGEST_BYTES), FIRST_EPOCH)
        for parts in ((), (one, one), (None, None)):
            self.assertEqual(self.pull_from(lambda _, parts=parts: Digests(parts), {}), 1)

    def test_no_answer(self) -> None:
        """A refusal, or a connection that breaks, ends it."""

        def broken(_: Request) -> Reply:
            raise PeerUnreachable("gone")

        self.assertEqual(self.pull_from(lambda _: Declined("no"), {}), 1)
        self.assertEqual(self.pull_from(broken, {}), 1)

    def test_broken_in_the_middle(self) -> None:
        """What was complete before the connection broke is done; what came before stays."""
        self.pair(records(dict.fromkeys(KEYS, 1)), replace(NUMBERS, k=1, page_keys=8))
        other = in_partition(1, 1)
        self.there.acceptors[1] = Acceptor(config(1), [(other[0], record(1))])

        def answer(request: Request) -> Reply:
            if len(self.links.asked) > 3:
                raise PeerUnreachable("gone")
            return self.answer(request)

        self.links.answer = answer
        mine: dict[bytes, Record] = {}
        wants = [self.want(mine), Want(1, FIRST_EPOCH, Source.EPOCH, Copy(MemoryRecords()))]
        self.assertEqual(self.pull(wants, Mode.MIRROR), wants[1:])
        self.assertTrue(0 < len(mine) < len(KEYS))

    def test_endless(self) -> None:
        """Ever more of the same, or nothing but promises of more."""
        endless = Difference(((KEYS[0], record(1)),), (), True)
        self.assertLess(self.pull_from(self.lying(lambda _: endless), {}), 5000)
        empty = Difference((), (KEYS[0],), True)
        self.assertEqual(self.pull_from(self.lying(lambda _: empty), {}), 2)

    def test_other_records(self) -> None:
        """Records of other partitions, of none, or of other buckets are not taken."""
        foreign = in_partition(1, 1)[0]
        for key in (foreign, b"", b"\7x"):
            mine: dict[bytes, Record] = {}
            lie = Difference(((key, record(1)),), (), False)
            self.assertEqual(self.pull_from(self.lying(lambda _, lie=lie: lie), mine), 2)
            self.assertEqual(mine, {})

    def test_bad_questions(self) -> None:
        """A number of buckets that is no power of two is not answered."""
        self.pair(records(dict.fromkeys(KEYS, 1)))
        for buckets in (3, 5, 100):
            part = Differing(0, FIRST_EPOCH, Source.EPOCH, buckets, (0,), ())
            reply = self.server.answer_difference(GetDifference((part,)))
            self.assertEqual(reply.parts, (None,))

    def test_the_same_question_again(self) -> None:
        """Each looks at all records of its partition, so each is answered once in a message."""
        self.pair(records(dict.fromkeys(KEYS, 1)))
        part = Differing(0, FIRST_EPOCH, Source.EPOCH, 4, (0,), ())
        first, *others = self.server.answer_difference(GetDifference((part,) * 50)).parts
        assert first is not None
        self.assertTrue(first.records)
        self.assertEqual(others, [None] * 49)
