"""One connection after its handshake: requests, answers, deadlines and bounds."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.errors import OperationTimeout, Overloaded, PeerUnreachable, Unavailable
from py2p_twisted.settings import Settings
from py2p_twisted.table.group import FIRST_EPOCH
from py2p_twisted.wire.link import Link
from py2p_twisted.wire.messages import (
    OLDEST_VERSION,
    WIRE_VERSION,
    Accept,
    Answer,
    Ask,
    Busy,
    Declined,
    Done,
    Hello,
    Ping,
    Read,
    ReadMany,
    Value,
)
from py2p_twisted.wire.outbox import Outbox
from py2p_twisted.wire.protocol import MessageProtocol

from .fakes import FakeReceiver, FakeTransport, make_peer, unframed

HELLO = Hello(
    *(OLDEST_VERSION, "chord", "Plaintext", 6, b"ring", False, False, make_peer(2), 3),
    newest=WIRE_VERSION,
)


class LinkCase(SynchronousTestCase):
    settings = Settings(requests_per_connection=4, queued_requests=6, queued_bytes=10_000)

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = FakeTransport()
        self.protocol = MessageProtocol(FakeReceiver(), Outbox(self.clock), 10**6)
        self.protocol.makeConnection(self.transport)
        self.answered: list[Any] = []
        self.reply: Any = Done()
        self.link = Link(
            *(self.clock, self.settings, self.protocol, HELLO), dialled=True, answer=self.answer
        )

    def answer(self, link: Link, request: Any) -> Any:
        self.assertIs(link, self.link)
        self.answered.append(request)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply

    def sent(self) -> list[Any]:
        """What was written since the last call."""
        self.clock.advance(0)
        data = self.transport.value()
        self.transport.clear()
        return unframed(data)

    def ask(self, key: bytes = b"key", timeout: float | None = None) -> Deferred[Any]:
        return self.link.ask(Read(FIRST_EPOCH, key), timeout)

    def answer_after(self, seconds: float) -> None:
        """Ask something that is answered after so many seconds."""
        asking = self.ask()
        [ask] = self.sent()
        self.clock.advance(seconds)
        self.link.received_answer(Answer(ask.number, Done()))
        self.successResultOf(asking)


class AskTests(LinkCase):
    def test_answers_find_their_requests(self) -> None:
        """In whatever order they come."""
        asking = [self.ask(key) for key in (b"a", b"b", b"c")]
        numbers = {ask.body.key: ask.number for ask in self.sent()}
        for key in (b"b", b"c", b"a"):
            self.link.received_answer(Answer(numbers[key], Value(key)))
        results = [self.successResultOf(deferred) for deferred in asking]
        self.assertEqual(results, [Value(b"a"), Value(b"b"), Value(b"c")])
        self.assertTrue(self.link.idle)

    def test_late_stray_and_repeated_answers(self) -> None:
        asking = self.ask()
        [ask] = self.sent()
        self.link.received_answer(Answer(ask.number + 1, Done()))  # stray
        self.assertNoResult(asking)
        self.link.received_answer(Answer(ask.number, Done()))
        self.link.received_answer(Answer(ask.number, Value(b"again")))  # repeated
        self.assertEqual(self.successResultOf(asking), Done())
        late = self.ask(timeout=1.0)
        [ask] = self.sent()
        self.clock.advance(1.0)
        self.link.sweep(self.clock.seconds())
        self.failureResultOf(late, OperationTimeout)
        self.link.received_answer(Answer(ask.number, Done()))  # late
        self.assertEqual(self.link.ignored_answers, 3)

    def test_more_answers_than_questions(self) -> None:
        """A late answer is nobody's fault; a flood of them is, and ends at a bound."""
        self.ask()
        self.sent()
        most = 1 + self.settings.requests_per_connection
        for _ in range(most):
            self.link.received_answer(Answer(7, Done()))
        self.assertFalse(self.transport.aborted)
        with capturedLogs() as events:
            self.link.received_answer(Answer(7, Done()))
        self.assertTrue(self.transport.aborted)
        self.assertIn("answers what it was not asked", formatEvent(events[-1]))

    def test_late_answers_measure_nothing(self) -> None:
        self.link.received_answer(Answer(1, Done()))
        self.assertIsNone(self.link.round_trip)

    def test_timeout(self) -> None:
        asking = self.ask(timeout=0.7)
        self.clock.advance(0.69)
        self.link.sweep(self.clock.seconds())
        self.assertNoResult(asking)
        self.clock.advance(0.02)
        self.link.sweep(self.clock.seconds())
        error = self.failureResultOf(asking, OperationTimeout).value
        self.assertIn(str(make_peer(2)), str(error))
        self.assertFalse(error.outcome_unknown)
        self.assertTrue(self.link.idle)

    def test_timeouts_adapt(self) -> None:
        """As in RFC 6298: srtt + 4 rttvar, within the settings' bounds."""
        low, high = self.settings.request_timeout_min, self.settings.request_timeout_max
        self.assertEqual(self.link.request_timeout(), high)
        srtt = rttvar = None
        for sample in (0.1, 0.1, 0.3, 0.2, 0.2, 0.05, 0.6, 0.1):
            self.answer_after(sample)
            if srtt is None or rttvar is None:
                srtt, rttvar = sample, sample / 2
            else:
                rttvar = 0.75 * rttvar + 0.25 * abs(srtt - sample)
                srtt = 0.875 * srtt + 0.125 * sample
            self.assertAlmostEqual(self.link.round_trip or 0.0, srtt)
            self.assertAlmostEqual(self.link.request_timeout(), srtt + 4 * rttvar)
        for _ in range(60):
            self.answer_after(0.001)
        self.assertEqual(self.link.request_timeout(), low)
        for _ in range(60):
            self.answer_after(5.0)
        self.assertEqual(self.link.request_timeout(), high)

    def test_late_answers_make_patient(self) -> None:
        """Who answers late is waited for longer, for a while; who does not answer at all is not."""
        low, high = self.settings.request_timeout_min, self.settings.request_timeout_max
        for _ in range(60):
            self.answer_after(0.001)
        for late in (low + 0.3, 3 * high):
            self.assertEqual(self.link.request_timeout(), low)
            asking = self.ask()
            [sent] = self.sent()
            self.clock.advance(late)
            self.link.sweep(self.clock.seconds())
            self.failureResultOf(asking, OperationTimeout)
            self.assertEqual(self.link.request_timeout(), low)
            self.link.received_answer(Answer(sent.number, Done()))
            self.assertAlmostEqual(self.link.request_timeout(), min(2 * late, high))
            self.answer_after(0.001)
            self.assertAlmostEqual(self.link.request_timeout(), min(2 * late, high))
            self.clock.advance(10)

    def test_default_timeout_is_used(self) -> None:
        for _ in range(60):
            self.answer_after(0.001)
        asking = self.ask()
        self.clock.advance(self.settings.request_timeout_min + 0.001)
        self.link.sweep(self.clock.seconds())
        self.failureResultOf(asking, OperationTimeout)

    def test_busy_is_not_silent(self) -> None:
        """A request is not given up while the peer answers what it was asked before that."""
        for _ in range(60):
            self.answer_after(0.001)
        early = [self.ask() for _ in range(3)]
        [first, second, _] = self.sent()
        self.clock.advance(0.1)
        late = self.ask()
        self.sent()
        for answered in (first, second):
            self.clock.advance(0.3)
            self.link.received_answer(Answer(answered.number, Done()))
            self.link.sweep(self.clock.seconds())
            self.assertNoResult(late)
        self.link.sweep(self.clock.seconds())  # since the last look it said nothing
        self.failureResultOf(late, OperationTimeout)
        self.failureResultOf(early[2], OperationTimeout)

    def test_busy_for_too_long(self) -> None:
        """However much the peer answers, nothing is waited for without an end."""
        for _ in range(60):
            self.answer_after(0.001)
        self.ask()
        [first] = self.sent()
        late = self.ask()
        self.clock.advance(self.settings.request_timeout_max)
        self.link.received_answer(Answer(first.number, Done()))
        self.link.sweep(self.clock.seconds())
        self.failureResultOf(late, OperationTimeout)

    def test_cancel(self) -> None:
        asking, other = self.ask(b"a"), self.ask(b"b")
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        [first, second] = self.sent()
        self.link.received_answer(Answer(first.number, Done()))
        self.assertEqual(self.link.ignored_answers, 1)
        self.link.received_answer(Answer(second.number, Done()))
        self.successResultOf(other)


class QueueTests(LinkCase):
    def test_more_than_may_be_under_way_wait_their_turn(self) -> None:
        asking = [self.ask(bytes([number])) for number in range(10)]
        done: list[bytes] = []
        while len(done) < 10:
            asks = self.sent()
            self.assertLessEqual(len(asks), 4)
            for ask in asks:
                done.append(ask.body.key)
                self.link.received_answer(Answer(ask.number, Value(ask.body.key)))
        results = [self.successResultOf(deferred).value for deferred in asking]
        self.assertEqual(results, [bytes([number]) for number in range(10)])
        self.assertEqual(done, results, "first come, first served")

    def test_too_many(self) -> None:
        asking = [self.ask() for _ in range(11)]
        self.failureResultOf(asking.pop(), Overloaded)
        self.link.lost("gone")
        for deferred in asking:
            self.failureResultOf(deferred, PeerUnreachable)

    def test_too_long_a_wait(self) -> None:
        """What would have to wait for too long is refused at once, and was not sent."""
        for _ in range(60):
            self.answer_after(2 * self.settings.queue_patience)
        asking = [self.ask(b"%d" % number) for number in range(8)]
        error = self.failureResultOf(asking[7], Overloaded).value
        self.assertFalse(error.outcome_unknown)
        self.assertEqual(len(self.sent()), 4)
        for deferred in asking[:7]:
            self.assertNoResult(deferred)
        self.link.lost("gone")
        for deferred in asking[:7]:
            self.failureResultOf(deferred, PeerUnreachable)

    def test_held_requests_wait(self) -> None:
        """While the peer does not read, nothing more is sent, and time does not run for it."""
        self.protocol.pauseProducing()
        asking = self.ask(timeout=1.0)
        self.clock.advance(5)
        self.link.sweep(self.clock.seconds())
        self.assertNoResult(asking)
        self.protocol.resumeProducing()
        self.link.sweep(self.clock.seconds())
        [ask] = self.sent()
        self.link.received_answer(Answer(ask.number, Done()))
        self.successResultOf(asking)

    def test_nothing_waits_for_ever(self) -> None:
        """A peer that talks and never reads keeps no request for longer than an operation takes."""
        self.protocol.pauseProducing()
        early = self.ask()
        self.clock.advance(1)
        late = self.ask()
        self.clock.advance(self.settings.operation_timeout - 1)
        self.link.sweep(self.clock.seconds())
        error = self.failureResultOf(early, OperationTimeout).value
        self.assertFalse(error.outcome_unknown)
        self.assertNoResult(late)
        self.clock.advance(1)
        self.link.sweep(self.clock.seconds())
        self.failureResultOf(late, OperationTimeout)
        self.assertTrue(self.link.idle)

    def test_nobody_overtakes(self) -> None:
        """A place that a cancelled request gave up belongs to the first that waits."""
        under_way = [self.ask(b"under way") for _ in range(4)]
        waiting = self.ask(b"waiting")
        under_way[0].cancel()
        self.failureResultOf(under_way[0], CancelledError)
        late = self.ask(b"late")
        self.sent()
        self.link.sweep(self.clock.seconds())
        self.assertEqual([ask.body.key for ask in self.sent()], [b"waiting"])
        self.link.lost("gone")
        for deferred in (*under_way[1:], waiting, late):
            self.failureResultOf(deferred, PeerUnreachable)

    def test_cancelled_while_waiting(self) -> None:
        """It is never sent, and no answer is expected."""
        under_way = [self.ask() for _ in range(4)]
        waiting = [self.ask(b"x"), self.ask(b"y")]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        for ask in self.sent():
            self.link.received_answer(Answer(ask.number, Done()))
        self.assertEqual([ask.body.key for ask in self.sent()], [b"y"])
        self.link.lost("gone")
        self.failureResultOf(waiting[1], PeerUnreachable)
        for deferred in under_way:
            self.successResultOf(deferred)


class BusyPeerTests(LinkCase):
    """The window: see test_window."""

    settings = Settings(requests_per_connection=100)

    def setUp(self) -> None:
        super().setUp()
        self.asking = [self.ask() for _ in range(70)]
        self.under_way = self.sent()
        self.assertEqual(len(self.under_way), 64)

    def tearDown(self) -> None:
        self.link.lost("gone")
        for deferred in self.asking:
            deferred.addErrback(lambda failure: failure.trap(PeerUnreachable, OperationTimeout))

    def test_what_goes_on_with_an_operation(self) -> None:
        """It does not wait behind what begins one, up to the bound of all."""
        accepts = [self.link.ask(Accept(())) for _ in range(37)]
        self.asking += accepts
        self.assertEqual([ask.body for ask in self.sent()], 36 * [Accept(())])

    def test_busy(self) -> None:
        """Whoever says so gets no more before less is under way."""
        for ask in self.under_way[:15]:
            self.link.received_answer(Answer(ask.number, Busy()))
        self.assertEqual(self.sent(), [])
        for ask in self.under_way[15:30]:
            self.link.received_answer(Answer(ask.number, Done()))
        self.assertEqual(len(self.sent()), 6)

    def test_slow(self) -> None:
        """So does one that takes much longer than the way to it explains ..."""
        self.link.received_answer(Answer(self.under_way[0].number, Done()))
        self.assertEqual(len(self.sent()), 2, "one is done, and there may be one more")
        self.clock.advance(self.settings.slow_after + 0.01)
        self.link.received_answer(Answer(self.under_way[1].number, Done()))
        self.assertEqual(self.sent(), [])

    def test_slow_because_of_many_keys(self) -> None:
        """... unless that is what messages of many keys take."""
        self.link.received_answer(Answer(self.under_way[0].number, Done()))
        self.sent()
        self.link._send(ReadMany(()), lambda _: None, None)
        self.sent()
        self.clock.advance(self.settings.slow_after + 0.01)
        self.link.received_answer(Answer(self.under_way[1].number, Done()))
        self.assertEqual(len(self.sent()), 1)

    def test_silent(self) -> None:
        """So does one that does not answer in time."""
        self.clock.advance(self.settings.request_timeout_max)
        self.link.sweep(self.clock.seconds())
        self.assertEqual(len(self.sent()), 6)
        self.assertEqual(int(self.link._window.size), 44)


class LossTests(LinkCase):
    def test_loss(self) -> None:
        """What was sent may have arrived; what waited for its turn was not sent."""
        asking = [self.ask() for _ in range(6)]
        self.link.lost("the cable was pulled")
        errors = [self.failureResultOf(deferred, PeerUnreachable).value for deferred in asking]
        self.assertEqual([error.sent for error in errors], [True] * 4 + [False] * 2)
        self.assertEqual({str(error) for error in errors}, {"the cable was pulled"})
        self.assertTrue(self.link.idle)

    def test_asking_when_it_is_gone(self) -> None:
        self.link.lost("gone")
        self.assertFalse(self.failureResultOf(self.ask(), PeerUnreachable).value.sent)

    def test_asking_when_it_is_closing(self) -> None:
        """It would never be sent, and nobody need doubt whether it was."""
        for end in (self.link.close, self.link.abort):
            end()
            self.assertTrue(self.link.closing)
            self.assertFalse(self.failureResultOf(self.ask(), PeerUnreachable).value.sent)

    def test_asking_again_at_once(self) -> None:
        """Whoever hears of the loss may ask again; that fails too, and nothing is left."""
        again: list[Deferred[Any]] = []
        asking = self.ask()
        asking.addErrback(lambda _: again.append(self.ask()))
        self.link.lost("gone")
        self.successResultOf(asking)
        self.failureResultOf(again[0], PeerUnreachable)
        self.assertTrue(self.link.idle)


class AnswerTests(LinkCase):
    def asked(self, count: int = 1, body: Any = None) -> list[Any]:
        """The answers to the peer's requests."""
        for number in range(count):
            self.link.received_ask(Ask(number, body or Ping()))
        return self.sent()

    def test_at_once(self) -> None:
        self.reply = Value(b"v")
        self.assertEqual(self.asked(2), [Answer(0, Value(b"v")), Answer(1, Value(b"v"))])

    def test_what_came_too_late(self) -> None:
        """An operation that begins is refused, which costs little; one that goes on is not."""
        self.protocol.late = True
        read = Read(FIRST_EPOCH, b"key")
        self.assertEqual(self.asked(2, read), [Answer(0, Busy()), Answer(1, Busy())])
        self.assertEqual(self.answered, [])
        accept = Accept(((0, FIRST_EPOCH, ()),))
        self.assertEqual(self.asked(1, accept), [Answer(0, Done())])
        self.assertEqual(self.asked(), [Answer(0, Done())])
        self.protocol.late = False
        self.assertEqual(self.asked(1, read), [Answer(0, Done())])

    def test_later(self) -> None:
        self.reply = Deferred()
        self.assertEqual(self.asked(), [])
        self.assertEqual(self.link.unanswered, 1)
        self.reply.callback(Value(b"v"))
        self.assertEqual(self.sent(), [Answer(0, Value(b"v"))])
        self.assertEqual(self.link.unanswered, 0)

    def test_a_node_that_fails_declines(self) -> None:
        """At once or later, the connection stays and the log has the reason."""
        declined = Declined("the node failed to answer; see its log")
        self.reply = ZeroDivisionError()
        self.assertEqual(self.asked(), [Answer(0, declined)])
        self.reply = Deferred()
        self.asked()
        self.reply.errback(ZeroDivisionError())
        self.assertEqual(self.sent(), [Answer(0, declined)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertFalse(self.transport.disconnecting)
        self.reply = Done()
        self.assertEqual(self.asked(), [Answer(0, Done())])

    def test_a_node_that_cannot_says_why(self) -> None:
        """At once or later; it is no mistake of the program, and the log has nothing of it."""
        error = Unavailable("the node stops " + "now " * 500)
        declined = Declined(str(error)[:1024])
        self.reply = error
        self.assertEqual(self.asked(), [Answer(0, declined)])
        self.reply = Deferred()
        self.asked()
        self.reply.errback(error)
        self.assertEqual(self.sent(), [Answer(0, declined)])

    def test_too_many_that_wait(self) -> None:
        """Busy means that nothing was done: the node is not even asked."""
        waiting: list[Deferred[Any]] = []
        for number in range(4):
            self.reply = Deferred()
            waiting.append(self.reply)
            self.link.received_ask(Ask(number, Ping()))
        self.assertEqual(
            self.asked(3, Read(FIRST_EPOCH, b"k")), [Answer(n, Busy()) for n in range(3)]
        )
        self.assertEqual(self.answered, [Ping()] * 4)
        for deferred in waiting:
            deferred.callback(Done())
        self.assertEqual(self.sent(), [Answer(n, Done()) for n in range(4)])
        self.reply = Done()
        self.assertEqual(self.asked(), [Answer(0, Done())])

    def test_a_reply_after_the_loss(self) -> None:
        self.reply = Deferred()
        self.asked()
        self.protocol.abort()
        self.link.lost("gone")
        self.reply.callback(Done())
        self.assertEqual(self.sent(), [])

    def test_a_peer_that_does_not_read(self) -> None:
        """It gets what it asked for, then Busy, then the end; the memory is bounded throughout."""
        self.protocol.pauseProducing()
        self.reply = Value(bytes(500))
        most = 0
        for number in range(10_000):
            if self.transport.aborted:
                break
            self.link.received_ask(Ask(number, Ping()))
            most = max(most, self.protocol.queued_bytes)
        self.assertTrue(self.transport.aborted)
        self.assertLess(most, 2 * self.settings.queued_bytes + 1000)
        self.assertLess(len(self.answered), 25)

    def test_a_peer_that_does_not_read_while_others_do_not(self) -> None:
        """When all queues together are long, each may use little; who uses less is served."""
        self.reply = Value(bytes(500))
        self.protocol.pauseProducing()
        crowd = MessageProtocol(FakeReceiver(), self.protocol._outbox, 1 << 20)
        self.protocol._outbox.most_queued_bytes = 2000
        crowd.makeConnection(FakeTransport())
        crowd.pauseProducing()
        for _ in range(20):
            crowd.send(Ask(1, Ping()))
        most = self.settings.queued_bytes // 64
        for number in range(100):
            self.link.received_ask(Ask(number, Ping()))
            if self.transport.aborted:
                break
        self.assertTrue(self.transport.aborted)
        self.assertLessEqual(len(self.answered), 1 + most // 500)
        self.assertLess(self.protocol._outbox.queued_bytes, 5000)

    def test_a_peer_that_reads_in_the_end(self) -> None:
        self.protocol.pauseProducing()
        self.reply = Value(bytes(500))
        for number in range(40):
            self.link.received_ask(Ask(number, Ping()))
        self.protocol.resumeProducing()
        answers = self.sent()
        self.assertEqual([answer.number for answer in answers], list(range(40)))
        kinds = [type(answer.body) for answer in answers]
        served = kinds.count(Value)
        self.assertEqual(kinds, [Value] * served + [Busy] * (40 - served))
        self.assertEqual(len(self.answered), served)
        self.assertEqual(self.asked()[0].body, self.reply)
