"""Who is slow among those that a bulk operation asks, and how much is under way at once."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import Peer
from py2p_twisted.errors import OperationTimeout, PeerUnreachable
from py2p_twisted.node.dispatch import Batch, Dispatch, Piece, batches
from py2p_twisted.settings import Settings
from py2p_twisted.wire.link import Link
from py2p_twisted.wire.messages import Want

from .fakes import config, make_peer


def _patience(link: Link | None, owed: int) -> float:
    return 0.1 + owed / 1_000_000


class Operation:
    """A bulk operation with answers by hand; a slow member's pieces can be closed by nobody else.

    :ivar replaced: batches whose member was called slow.
    """

    def __init__(self, number: int, size: int = 100, members: int = 4) -> None:
        self.clock: Any = Clock()
        self.peers = [make_peer(number) for number in range(1, members + 1)]
        self.links = {
            peer.instance: SimpleNamespace(heard_at=0.0, round_trip=0.001) for peer in self.peers
        }
        core: Any = SimpleNamespace(
            clock=self.clock, links=self.links, instance=b"me", settings=Settings()
        )
        self.pieces: list[Piece[bytes]] = [
            Piece(config(n % 64), [b"k"], size) for n in range(number)
        ]
        self.waiting: dict[Batch[bytes], Deferred[Any]] = {}
        self.replaced: list[Batch[bytes]] = []
        self.slow: set[bytes] = set()
        self.dispatch: Dispatch[bytes] = Dispatch(
            core, self.pieces, self._ask, self._take, self._replace, _patience, self.slow
        )
        self.closes = False  # whether a replaced batch is over by that
        self.dispatch.add(
            [
                Batch(self.peers[n % members], Want.BOTH, [piece])
                for n, piece in enumerate(self.pieces)
            ]
        )
        self.result: list[Any] = []
        running = Deferred.fromCoroutine(self.dispatch.run(30.0))
        running.addBoth(self.result.append)
        self.running = running

    async def _ask(self, batch: Batch[bytes]) -> Any:
        self.waiting[batch] = Deferred()
        return (await self.waiting[batch])[0]

    def _take(self, batch: Batch[bytes], reply: Any) -> None:
        for piece in batch.pieces:
            piece.answers.append(reply)
            self.dispatch.close(piece)

    def _replace(self, batch: Batch[bytes]) -> list[Piece[bytes]]:
        self.replaced.append(batch)
        if not self.closes:
            return batch.pieces
        for piece in batch.pieces:
            self.dispatch.close(piece)
        return []

    def answer(self, *members: int, reply: Any = "good") -> None:
        """These members answer all that they were asked by now."""
        for member in members:
            peer = self.peers[member]
            for batch in [batch for batch in self.waiting if batch.member is peer]:
                self.links[peer.instance].heard_at = self.clock.seconds()
                self.waiting.pop(batch).callback((reply,))

    def run(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        self.clock.pump([0.005] * round(seconds / 0.005))

    def slow_ones(self) -> set[int]:
        """Which members were called slow."""
        return {self.peers.index(batch.member) for batch in self.replaced}


class SilenceTests(SynchronousTestCase):
    """Slow is who owes something and says nothing."""

    def test_silent(self) -> None:
        """A member that says nothing is slow after its patience, the others' answers are taken."""
        operation = Operation(4)
        self.run_and_answer(operation, 0.02, 0, 1, 2)
        operation.run(0.07)
        self.assertEqual(operation.replaced, [])
        operation.run(0.06)
        self.assertEqual(operation.slow_ones(), {3})
        self.assertEqual(operation.slow, {operation.peers[3].instance})
        self.assertEqual(operation.result, [])
        operation.answer(3)
        self.assertEqual(operation.result, [None])
        self.assertEqual(operation.slow, set(), "it was only slow")
        self.assertEqual(operation.clock.getDelayedCalls(), [])

    def run_and_answer(self, operation: Operation, seconds: float, *members: int) -> None:
        operation.run(seconds)
        operation.answer(*members)

    def test_heard(self) -> None:
        """Whoever is heard is not slow, however long an answer takes."""
        operation = Operation(4)
        for _ in range(40):
            operation.run(0.05)
            for link in operation.links.values():
                link.heard_at = operation.clock.seconds()
        self.assertEqual(operation.replaced, [])

    def test_large(self) -> None:
        """Who owes a megabyte has a second more."""
        operation = Operation(4, size=1_000_000)
        operation.run(1.0)
        self.assertEqual(operation.replaced, [])
        operation.run(0.2)
        self.assertEqual(operation.slow_ones(), {0, 1, 2, 3})

    def test_others_are_slow_too(self) -> None:
        """Where every answer takes long, one may take twice as long."""
        operation = Operation(4, size=500_000)
        self.run_and_answer(operation, 0.5, 0, 1, 2)
        operation.run(0.45)
        self.assertEqual(operation.replaced, [])
        operation.run(0.1)
        self.assertEqual(operation.slow_ones(), {3})

    def test_own_pause(self) -> None:
        """When this node itself was busy, what came meanwhile is read before anybody is judged."""
        operation = Operation(4)
        operation.run(0.02)
        operation.clock.advance(5.0)
        self.assertEqual(operation.replaced, [])
        operation.answer(0, 1, 2)
        operation.run(0.01)
        self.assertEqual(operation.replaced, [])

    def test_own_batches(self) -> None:
        """This node is not slow to itself."""
        operation = Operation(1, members=1)
        operation.dispatch._core.instance = operation.peers[0].instance
        operation.run(5)
        self.assertEqual(operation.replaced, [])


class WindowTests(SynchronousTestCase):
    """How much is under way."""

    def test_bounded(self) -> None:
        """At most 16 at once, in order; each answer makes room for one."""
        operation = Operation(100)
        most = 0
        while not operation.result:
            most = max(most, len(operation.waiting))
            batch = next(iter(operation.waiting))
            operation.answer(operation.peers.index(batch.member))
        self.assertEqual(most, 16)
        self.assertTrue(all(piece.answers == ["good"] for piece in operation.pieces))

    def test_slow_ones_make_room(self) -> None:
        """What is taken from a slow member frees its place, and it is asked no more."""
        operation = Operation(100)
        operation.closes = True
        for _ in range(40):
            operation.run(0.01)
            operation.answer(0, 1, 2)
        self.assertEqual(operation.result, [None])
        self.assertEqual(operation.slow_ones(), {3})
        self.assertEqual(len(operation.replaced), 25)
        sent = [batch for batch in operation.replaced if batch.sent_at is not None]
        self.assertLessEqual(len(sent), 16)
        self.assertEqual(operation.waiting.keys(), set(sent))

    def test_slow_ones_without_others(self) -> None:
        """Nobody can take its place: it is never asked more than the window holds."""
        operation = Operation(100, members=1)
        operation.run(2)
        self.assertEqual(len(operation.waiting), 16)
        self.assertEqual(len(operation.replaced), 16, "each is told once")
        operation.answer(0)
        self.assertEqual(len(operation.waiting), 16)

    def test_failures(self) -> None:
        """A failure is a reply; who timed out or is gone counts as slow at once."""
        for failure, slow in (
            (Failure(OperationTimeout("late")), True),
            (Failure(PeerUnreachable("gone")), True),
            (Failure(ValueError("its own")), False),
        ):
            operation = Operation(4)
            operation.answer(0, reply=failure)
            self.assertEqual(operation.pieces[0].answers, [failure])
            self.assertEqual(bool(operation.slow), slow)

    def test_out_of_time(self) -> None:
        """Pieces that are not over by then have a problem; nothing is left waiting."""
        operation = Operation(4)
        operation.answer(0, 1)
        operation.run(31)
        self.assertEqual(operation.result, [None])
        problems = [piece.problem for piece in operation.pieces]
        self.assertEqual(problems[:2], [None, None])
        for problem in problems[2:]:
            self.assertIsNotNone(problem.check(OperationTimeout))
        self.assertEqual(operation.clock.getDelayedCalls(), [])

    def test_raised(self) -> None:
        """What is no reply ends the operation."""
        operation = Operation(4)
        next(iter(operation.waiting.values())).errback(ValueError("a mistake"))
        self.assertIsNotNone(operation.result[0].check(ValueError))
        self.assertEqual(operation.clock.getDelayedCalls(), [])


class BatchesTests(SynchronousTestCase):
    """What travels together."""

    def test_bounds(self) -> None:
        """No message holds too many bytes or keys; nothing is left out, or asked of others."""
        settings = Settings(page_bytes=1000, page_keys=10)
        asks: list[tuple[Peer, Want, Piece[int]]] = []
        for number in range(60):
            items = list(range(1 + number % 10))
            piece: Piece[int] = Piece(config(number), items, 1 + number * 37 % 900)
            asks.append((make_peer(number % 3 + 1), Want(number % 2), piece))
        made = batches(settings, asks)
        told = [(batch.member, batch.want, piece) for batch in made for piece in batch.pieces]
        self.assertEqual(self.sorted(told), self.sorted(asks))
        for batch in made:
            self.assertLessEqual(batch.size, 1000)
            self.assertLessEqual(sum(len(piece.items) for piece in batch.pieces), 10)
        self.assertLess(len(made), 60)

    def sorted(self, asks: Sequence[tuple[Peer, Want, Piece[int]]]) -> list[tuple[int, int, int]]:
        return sorted((peer.id, want, piece.config.partition) for peer, want, piece in asks)

    def test_too_large(self) -> None:
        """What is larger than a page travels alone."""
        pieces: list[Piece[int]] = [Piece(config(n), [1], 5000) for n in range(3)]
        made = batches(Settings(page_bytes=1000), [(make_peer(1), Want.BOTH, p) for p in pieces])
        self.assertEqual([batch.pieces for batch in made], [[piece] for piece in pieces])
