"""Members of next epochs: they hold what was agreed, open it once, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import Peer
from py2p_twisted.node.core import Core, Phase, Staged
from py2p_twisted.node.keeper import MOST_COUNTER
from py2p_twisted.node.sync import Sync
from py2p_twisted.node.takeover import Takeover
from py2p_twisted.ring.ring import Pointers
from py2p_twisted.settings import Settings
from py2p_twisted.table.acceptor import Acceptor
from py2p_twisted.table.digest import base_of, combined
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Record, Successor
from py2p_twisted.table.records import MemoryRecords
from py2p_twisted.wire.link import Link
from py2p_twisted.wire.messages import (
    Choose,
    Chosen,
    Declined,
    Done,
    Fetch,
    GetDifference,
    GetDigests,
    Learn,
    Open,
    Opened,
    Outbid,
    Prefetch,
    Ready,
    Reply,
    Request,
    Stopped,
    Wedge,
    Wedged,
    WrongEpoch,
)

from .fakes import config, make_peer, record
from .test_sync import KEYS, NUMBERS, FakeLinks

#: Identifiers have one bit here, so only these two are possible.
DRIVER = make_peer(0, "10.0.0.2")
SECOND = FIRST_EPOCH.following()


class GroupLinks(FakeLinks):
    """As :class:`FakeLinks`; everybody can be asked."""

    changes = 0

    def get(self, _: bytes) -> None:
        """There is no connection yet."""

    def failed_lately(self, _: object) -> bool:
        """None failed."""
        return False


class Giver:
    """Who is at the other end of a link."""

    peer = DRIVER


class Case(SynchronousTestCase):
    """This node and a driver, which keeps partition 0 in epoch 1."""

    def setUp(self) -> None:
        """Set them up."""
        self.clock = Clock()
        self.core, self.driver = self.node(1), self.node(2)
        self.me = self.core.me
        self.takeover = Takeover(self.core, Sync(self.core))
        self.server = Sync(self.driver)
        self.core.links = cast(Any, GroupLinks(self.answer, NUMBERS))
        self.records = {key: record(1) for key in KEYS}
        self.driver.acceptors[0] = Acceptor(
            Config(0, FIRST_EPOCH, (self.driver.me,)), self.records.items()
        )

    def node(self, seed: int) -> Core:
        """A member of the ring."""
        core = Core(self.clock, Random(seed), Settings(k=1))
        core.name(f"10.0.0.{seed}", 4444)
        core.phase = Phase.JOINED
        core.pointers = Pointers(core.me)
        return core

    def answer(self, request: Request) -> Reply:
        """What the driver says."""
        if isinstance(request, GetDigests):
            return self.server.answer_digests(request)
        assert isinstance(request, GetDifference)
        return self.server.answer_difference(request)

    def replied(self, reply: Reply | Deferred[Reply]) -> Reply:
        """A reply that came in the same turn."""
        return self.successResultOf(reply) if isinstance(reply, Deferred) else reply

    def tell(self, answer: Callable[[Link, Any], Any], request: Request) -> Reply:
        """What this node answers the driver."""
        return self.replied(answer(cast(Link, Giver()), request))

    def next(
        self, records: dict[bytes, Record] | None = None, counter: int = 5, *others: int
    ) -> tuple[Ballot, Successor]:
        """A proposal: epoch 2 with this node, beginning with these records; the driver holds it."""
        records = self.records if records is None else records
        members = (
            self.core.me,
            *(Peer(bytes([other]) * 16, b"\0", f"10.0.1.{other}", 4444) for other in others),
        )
        successor = Successor(Config(0, SECOND, members), base_of(records.items()), FIRST_EPOCH)
        ballot = Ballot(FIRST_EPOCH, counter, self.driver.instance)
        self.driver.staged[0] = Staged(FIRST_EPOCH, MemoryRecords(dict(records)), successor, ballot)
        return ballot, successor

    def fetch(self, *parts: tuple[Ballot, Successor]) -> Reply:
        """Ask this node to hold bases ready."""
        return self.tell(self.takeover.answer_fetch, Fetch(parts))

    def open(self, successor: Successor) -> Reply:
        """Tell this node that it is decided."""
        return self.takeover.answer_open(Open((successor,)))

    def frozen(self, records: dict[bytes, Record]) -> Acceptor:
        """This node is a member of epoch 1, too, and has stopped."""
        acceptor = Acceptor(Config(0, FIRST_EPOCH, (DRIVER, self.core.me)), records.items())
        acceptor.wedge(FIRST_EPOCH, Ballot(FIRST_EPOCH, 1, bytes(16)))
        self.core.acceptors[0] = acceptor
        return acceptor


class Ahead(Case):
    """Copying ahead."""

    def prefetch(self, partition: int = 0, number: int = 1) -> Reply:
        """Ask for it."""
        epoch = FIRST_EPOCH._replace(number=number)
        return self.tell(self.takeover.answer_prefetch, Prefetch(((partition, epoch),)))

    def test_copied(self) -> None:
        """All is copied, tombstones too; what is there already does not travel again."""
        self.records[KEYS[0]] = record(2, None)
        self.driver.acceptors[0].accept(FIRST_EPOCH, KEYS[0], record(2, None))
        self.assertEqual(self.prefetch(), Done())
        staged = self.core.staged[0]
        self.assertEqual(staged.records, self.records)
        self.assertIs(staged.successor, None)
        self.assertTrue(self.takeover.promised, "the driver relies on it")
        self.clock.advance(3)
        self.assertFalse(self.takeover.promised)
        self.driver.acceptors[0].accept(FIRST_EPOCH, KEYS[1], record(7))
        before = self.takeover._sync.pulled
        self.assertEqual(self.prefetch(), Done())
        self.assertEqual(self.takeover._sync.pulled, before + 1)
        self.assertEqual(self.core.staged[0].records[KEYS[1]], record(7))

    def test_declined(self) -> None:
        """Not without being a member, nor for what is not there or over."""
        for phase in set(Phase) - {Phase.JOINED}:
            self.core.phase = phase
            self.assertEqual(self.prefetch(), Declined(f"this node is {phase.value}"))
        self.core.phase = Phase.JOINED
        self.assertIsInstance(self.prefetch(partition=2), Declined)
        self.assertIsInstance(self.prefetch(partition=1), Declined, "the driver has none")
        self.core.learn(config(0, 4))
        self.assertIsInstance(self.prefetch(number=3), Declined)

    def test_no_base_is_touched(self) -> None:
        """A base that is held ready may have been decided: it stays as it is."""
        self.fetch(self.next())
        held = self.core.staged[0]
        self.driver.acceptors[0].accept(FIRST_EPOCH, KEYS[1], record(7))
        self.assertEqual(self.prefetch(), Done())
        self.assertIs(self.core.staged[0], held)
        self.assertEqual(held.records, self.records)

    def test_in_vain(self) -> None:
        """What was copied and never asked for is dropped after a minute."""
        self.prefetch()
        self.clock.advance(59)
        self.takeover.tidy()
        self.assertIn(0, self.core.staged)
        self.clock.advance(2)
        self.takeover.tidy()
        self.assertNotIn(0, self.core.staged)

    def test_a_base_is_not_in_vain(self) -> None:
        """A base stays, for as long as it takes."""
        self.prefetch()
        self.fetch(self.next())
        self.clock.advance(3600)
        self.takeover.tidy()
        self.assertIn(0, self.core.staged)


class Stopping(Case):
    """WEDGE, and votes."""

    def wedge(self, counter: int, partition: int = 0, number: int = 1) -> Any:
        """Ask for it; the part of the answer."""
        ballot = Ballot(FIRST_EPOCH._replace(number=number), counter, bytes(16))
        reply = self.takeover.answer_wedge(Wedge(((partition, ballot),)))
        assert isinstance(reply, Wedged)
        return reply.parts[0]

    def test_stopped(self) -> None:
        """It tells its vote and its digests; a lower ballot is outbid."""
        acceptor = self.core.acceptors[0] = Acceptor(config(0), self.records.items())
        self.assertEqual(self.wedge(3), Stopped(None, acceptor.digests()))
        self.assertTrue(acceptor.wedged)
        ballot, successor = self.next()
        self.takeover.answer_choose(Choose(((ballot, successor),)))
        self.assertEqual(self.wedge(4), Outbid(ballot))
        self.assertEqual(self.wedge(6).vote, (ballot, successor))
        self.assertEqual(combined(self.wedge(6).digests), base_of(self.records.items()).digest)

    def test_wrong_epoch(self) -> None:
        """For another epoch it tells the newest configuration that it knows."""
        self.core.learn(config(0, 2))
        self.assertEqual(self.wedge(3), WrongEpoch(config(0, 2), False))
        self.core.acceptors[0] = Acceptor(config(0, 2))
        self.assertEqual(self.wedge(3), WrongEpoch(config(0, 2), False))
        self.assertFalse(self.core.acceptors[0].wedged)
        self.assertEqual(self.wedge(3, partition=1), WrongEpoch(None, False))

    def test_a_count_beyond_reason(self) -> None:
        """No honest driver counts so far; the epoch goes on."""
        acceptor = self.core.acceptors[0] = Acceptor(config(0), self.records.items())
        ballot = Ballot(FIRST_EPOCH, MOST_COUNTER + 1, bytes(16))
        reply = self.takeover.answer_wedge(Wedge(((0, ballot),)))
        self.assertIsInstance(reply, Declined)
        self.assertFalse(acceptor.wedged)

    def test_votes(self) -> None:
        """Only who has stopped votes, and not below what it promised."""
        part = self.next()
        self.assertEqual(self.takeover.answer_choose(Choose((part,))), Chosen(()))
        acceptor = self.core.acceptors[0] = Acceptor(config(0))
        self.assertEqual(self.takeover.answer_choose(Choose((part,))), Chosen(()))
        self.wedge(5)
        self.assertEqual(self.takeover.answer_choose(Choose((part,))), Chosen((0,)))
        self.wedge(9)
        self.assertEqual(self.takeover.answer_choose(Choose((self.next(counter=8),))), Chosen(()))
        self.assertEqual(acceptor.vote, part)


class Holding(Case):
    """Holding a base ready."""

    def test_fetched(self) -> None:
        """It comes from the driver."""
        ballot, successor = self.next()
        self.assertEqual(self.fetch((ballot, successor)), Ready((0,)))
        staged = self.core.staged[0]
        self.assertEqual((staged.records, staged.epoch), (self.records, FIRST_EPOCH))
        self.assertEqual((staged.successor, staged.ballot), (successor, ballot))
        self.assertTrue(self.takeover.promised)

    def test_nothing_travels(self) -> None:
        """What was copied ahead, or is frozen here, is the base already."""
        part = self.next()
        del self.driver.staged[0]
        self.frozen({**self.records, KEYS[0]: record(1)})
        self.assertEqual(self.fetch(part), Ready((0,)))
        del self.core.acceptors[0]
        self.core.staged[0] = Staged(FIRST_EPOCH, MemoryRecords(dict(self.records)))
        self.assertEqual(self.fetch(part), Ready((0,)))
        self.assertEqual(cast(Any, self.core.links).asked, [])

    def test_differences_travel(self) -> None:
        """What a minority had accepted gives way, and tombstones are no part of it."""
        self.frozen({**self.records, KEYS[0]: record(9), KEYS[1]: record(3, None)})
        self.assertEqual(self.fetch(self.next()), Ready((0,)))
        self.assertEqual(self.core.staged[0].records, self.records)
        self.assertEqual(self.takeover._sync.pulled, 2)

    def test_not_the_base(self) -> None:
        """If the driver has other records than it says, nothing is held."""
        ballot, successor = self.next()
        self.driver.staged[0].records.drop(KEYS[0])
        self.assertEqual(self.fetch((ballot, successor)), Ready(()))
        self.assertNotIn(0, self.core.staged)

    def test_only_a_higher_ballot(self) -> None:
        """A base gives way to another one at a higher ballot only."""
        first = self.next(counter=5)
        self.fetch(first)
        other = {KEYS[0]: record(1)}
        self.assertEqual(self.fetch(self.next(other, 4)), Ready(()))
        self.assertEqual(self.fetch(self.next(other, 5)), Ready(()))
        self.assertEqual(self.core.staged[0].successor, first[1])
        self.assertEqual(self.fetch(self.next(other, 6)), Ready((0,)))
        self.assertEqual(self.core.staged[0].records, other)

    def test_the_same_again(self) -> None:
        """The same base is held for whoever asks, at the highest ballot that asked."""
        self.fetch(self.next(counter=5))
        self.assertEqual(self.fetch(self.next(counter=3)), Ready((0,)))
        ballot = self.core.staged[0].ballot
        self.assertEqual(ballot is not None and ballot.counter, 5)
        self.assertEqual(self.fetch(self.next(self.records, 7, 8)), Ready((0,)))
        successor = self.core.staged[0].successor
        assert successor is not None
        self.assertEqual(len(successor.config.members), 2)

    def test_leaving(self) -> None:
        """Who leaves fetches nothing, but says so if it holds a base already."""
        self.core.phase = Phase.LEAVING
        self.assertEqual(self.fetch(self.next()), Declined("this node is leaving"))
        self.frozen(self.records)
        self.assertEqual(self.fetch(self.next()), Ready((0,)))
        self.assertTrue(self.takeover.promised)

    def test_not_for_this_node(self) -> None:
        """Nothing is held for groups of others, for what cannot be, or for what is open."""
        ballot, successor = self.next()
        elsewhere = Successor(config(0, 2), successor.base, FIRST_EPOCH)
        later = ballot._replace(epoch=SECOND)
        self.assertEqual(self.fetch((ballot, elsewhere), (later, successor)), Ready(()))
        self.core.serve(successor, MemoryRecords(dict(self.records)))
        self.assertEqual(self.fetch((ballot, successor)), Ready((0,)), "it is open here")
        self.assertEqual(self.fetch(self.next({}, 9, 3)), Ready(()), "another one is")

    def test_promises_end(self) -> None:
        """A promise ends when the epoch is open, here or without this node."""
        ballot, successor = self.next()
        self.fetch((ballot, successor))
        self.core.learn(successor.config)
        self.assertTrue(self.takeover.promised, "it is decided, and not open here")
        self.open(successor)
        self.assertFalse(self.takeover.promised)
        self.core.acceptors.clear()
        self.setUp()
        self.fetch(self.next())
        self.core.learn(config(0, 2))
        self.assertFalse(self.takeover.promised)


class Opening(Case):
    """OPEN."""

    def test_with_the_base(self) -> None:
        """The epoch begins with exactly the base, and once: what came later stays."""
        ballot, successor = self.next()
        self.fetch((ballot, successor))
        self.assertEqual(self.open(successor), Opened((0,)))
        acceptor = self.core.acceptors[0]
        self.assertEqual(dict(acceptor.records), self.records)
        self.assertEqual(acceptor.config, successor.config)
        self.assertEqual(self.core.staged, {})
        acceptor.accept(SECOND, KEYS[0], record(3, number=2))
        self.assertEqual(self.open(successor), Opened((0,)))
        self.assertIs(self.core.acceptors[0], acceptor)
        self.assertEqual(acceptor.get(KEYS[0]), record(3, number=2))

    def test_with_nothing_else(self) -> None:
        """Without the base, or with another one, it does not begin."""
        _, agreed = self.next({KEYS[0]: record(1)})
        self.assertEqual(self.open(agreed), Opened(()))
        self.fetch(self.next())
        self.assertEqual(self.open(agreed), Opened(()))
        self.assertNotIn(0, self.core.acceptors)
        self.assertEqual(self.core.directory.get(0), agreed.config)
        self.assertEqual(self.core.behind(), [agreed.config])

    def test_base_after_the_news(self) -> None:
        """Who is told too early opens as soon as it holds the base."""
        part = self.next()
        self.assertEqual(self.open(part[1]), Opened(()))
        self.assertEqual(self.fetch(part), Ready((0,)))
        self.assertEqual(self.core.acceptors[0].config, part[1].config)

    def test_not_what_is_over(self) -> None:
        """An epoch that was followed by another one does not begin any more."""
        ballot, successor = self.next()
        self.fetch((ballot, successor))
        self.core.learn(Config(0, SECOND.following(), (self.me, DRIVER)))
        self.assertEqual(self.open(successor), Opened(()))
        self.assertNotIn(0, self.core.acceptors)

    def test_not_without_being_a_member(self) -> None:
        """Neither of the ring, nor of the group."""
        ballot, successor = self.next()
        self.fetch((ballot, successor))
        self.core.pointers = None
        self.assertEqual(self.open(successor), Opened(()))
        self.core.pointers = Pointers(self.me)
        other = Successor(config(0, 2), successor.base, FIRST_EPOCH)
        self.assertEqual(self.open(other), Opened(()))

    def test_released(self) -> None:
        """What stopped is kept until it is told that the next epoch is open."""
        frozen = self.frozen(self.records)
        self.core.learn(config(0, 2))
        self.assertIs(self.core.acceptors[0], frozen)
        self.takeover.answer_learn(Learn((config(0, 2),)))
        self.assertEqual(self.core.acceptors, {})

    def test_serving_stops(self) -> None:
        """Who hears of a next epoch stops serving the present one, whoever told."""
        acceptor = self.core.acceptors[0] = Acceptor(config(0), self.records.items())
        self.core.learn(config(0, 2))
        self.assertTrue(acceptor.wedged)
        self.core.learn(config(0, 3))
        self.assertEqual(self.core.acceptors, {})


class CatchingUp(Case):
    """Opening what others have opened."""

    def catch_up(self) -> None:
        """It ends in the same turn."""
        self.successResultOf(Deferred.fromCoroutine(self.takeover.catch_up()))

    def open_at_driver(self) -> Config:
        """The driver has opened epoch 2 with both as members, and it was written since."""
        both = Config(0, SECOND, (self.driver.me, self.me))
        self.records[KEYS[0]] = record(4, number=2)
        self.records[KEYS[1]] = record(2, None, number=2)
        self.driver.acceptors[0] = Acceptor(both, self.records.items(), purged=SECOND)
        self.core.learn(both)
        return both

    def test_from_a_member(self) -> None:
        """It has what that one has, whatever it had itself."""
        both = self.open_at_driver()
        self.frozen({KEYS[0]: record(3), KEYS[2]: record(9)})
        self.catch_up()
        acceptor = self.core.acceptors[0]
        self.assertEqual((acceptor.config, acceptor.purged), (both, SECOND))
        self.assertEqual(dict(acceptor.records), self.records)
        self.assertEqual(self.core.behind(), [])

    def test_nobody_has_it(self) -> None:
        """It stays behind, and asks nobody twice."""
        both = self.open_at_driver()
        del self.driver.acceptors[0]
        self.catch_up()
        self.assertEqual(self.core.behind(), [both])
        self.assertEqual(len(cast(Any, self.core.links).asked), 1)

    def test_news_meanwhile(self) -> None:
        """What became old while it was copied is not opened."""
        both = self.open_at_driver()
        answer = self.core.links.answer

        def newer(request: Any) -> Any:
            self.core.learn(Config(0, SECOND.following(), (DRIVER,)))
            return answer(request)  # type: ignore[call-arg]

        self.core.links.answer = newer  # type: ignore[assignment]
        self.catch_up()
        self.assertNotIn(0, self.core.acceptors)
        self.assertNotEqual(self.core.directory.get(0), both)

    def test_by_the_news_of_old(self) -> None:
        """A base that is held ready is opened once it is known to be the agreed one."""
        part = self.next()
        self.assertEqual(self.open(part[1]), Opened(()))
        self.core.staged[0] = Staged(
            FIRST_EPOCH, MemoryRecords(dict(self.records)), part[1], part[0]
        )
        self.catch_up()
        self.assertEqual(self.core.acceptors[0].config, part[1].config)
