"""Framing: any cut of the stream gives the same messages, and every bound holds."""

from __future__ import annotations

import socket
from struct import pack
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.table.group import FIRST_EPOCH
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import Answer, Ask, Done, Message, Ping, Read, Value
from py2p_twisted.wire.outbox import Outbox
from py2p_twisted.wire.protocol import MessageProtocol

from .fakes import FakeReceiver, FakeTransport, framed, unframed

MAX = 1280 * 1024


class ProtocolCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outbox = Outbox(self.clock)
        self.protocol, self.receiver, self.transport = self.connection()

    def connection(
        self, max_length: int = MAX
    ) -> tuple[MessageProtocol, FakeReceiver, FakeTransport]:
        receiver, transport = FakeReceiver(), FakeTransport()
        protocol = MessageProtocol(receiver, self.outbox, max_length)
        protocol.makeConnection(transport)
        return protocol, receiver, transport


class ReceivingTests(ProtocolCase):
    def feed(self, *chunks: bytes, max_length: int = MAX) -> FakeReceiver:
        """A new connection that received these chunks."""
        protocol, receiver, _ = self.connection(max_length)
        for chunk in chunks:
            protocol.dataReceived(chunk)
        return receiver

    def test_connected(self) -> None:
        self.assertTrue(self.receiver.is_connected)
        self.assertIs(self.transport.producer, self.protocol)
        self.assertTrue(self.transport.streaming)

    def test_whole(self) -> None:
        messages: list[Message] = [
            Ask(1, Ping()),
            Answer(2, Value(b"x")),
            Ask(3, Read(FIRST_EPOCH, b"key")),
        ]
        self.assertEqual(self.feed(framed(*messages)).messages, messages)
        self.assertEqual(self.feed(*map(framed, messages)).messages, messages)

    def test_every_split(self) -> None:
        messages: list[Message] = [
            Ask(1, Read(FIRST_EPOCH, b"key")),
            Answer(2, Value(b"value" * 9)),
        ]
        stream = framed(*messages)
        for at in range(len(stream) + 1):
            receiver = self.feed(stream[:at], stream[at:])
            self.assertEqual(receiver.messages, messages, at)

    def test_every_split_of_long_frames(self) -> None:
        """Long frames are collected otherwise than short ones; what follows must not suffer."""
        size = MessageProtocol.collect_from
        messages: list[Message] = [
            Answer(1, Value(b"a" * size)),
            Ask(2, Ping()),
            Answer(3, Value(b"b" * size)),
        ]
        stream = framed(*messages)
        first = len(framed(messages[0]))
        edges = (0, 4, size, first, first + len(framed(messages[1])), len(stream))
        for edge in edges:
            for at in range(max(0, edge - 6), min(len(stream), edge + 7)):
                self.assertEqual(self.feed(stream[:at], stream[at:]).messages, messages, at)

    def test_around_the_length_where_collecting_begins(self) -> None:
        for size in range(MessageProtocol.collect_from - 12, MessageProtocol.collect_from + 4):
            message = Answer(1, Value(b"x" * size))
            stream = framed(message, message)
            chunks = [stream[at : at + 1000] for at in range(0, len(stream), 1000)]
            self.assertEqual(self.feed(*chunks).messages, [message, message])

    def test_byte_by_byte(self) -> None:
        messages: list[Message] = [Ask(1, Ping()), Answer(2, Value(b"v" * 300)), Ask(3, Ping())]
        stream = framed(*messages)
        receiver = self.feed(*(stream[at : at + 1] for at in range(len(stream))))
        self.assertEqual(receiver.messages, messages)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.integers(0, 40_000), min_size=1, max_size=4),
        st.lists(st.integers(1, 30_000), min_size=1, max_size=12),
    )
    def test_any_cut(self, sizes: list[int], cuts: list[int]) -> None:
        messages: list[Message] = [
            Answer(number, Value(b"x" * size)) for number, size in enumerate(sizes)
        ]
        stream = framed(*messages)
        protocol, receiver, _ = self.connection()
        at = turn = 0
        while at < len(stream):
            protocol.dataReceived(stream[at : at + cuts[turn % len(cuts)]])
            at += cuts[turn % len(cuts)]
            turn += 1
        self.assertEqual(receiver.messages, messages)

    def test_long_frames_cost_linear_time(self) -> None:
        """A frame four times as long, in the same small pieces, costs about four times as much."""

        def cost(size: int) -> float:
            stream = framed(Answer(1, Value(bytes(size))))
            chunks = [stream[at : at + 64] for at in range(0, len(stream), 64)]
            protocol, receiver, _ = self.connection()
            start = process_time()
            for chunk in chunks:
                protocol.dataReceived(chunk)
            self.assertEqual(len(receiver.messages), 1)
            return process_time() - start

        cost(100_000)
        short = min(cost(300_000) for _ in range(3))
        long = min(cost(1_200_000) for _ in range(3))
        self.assertLess(long, 10 * short)  # quadratic would be 16 times
        self.assertLess(long, 1.0)  # copying the buffer for every piece takes many seconds

    def test_long_frames_are_not_copied_while_they_arrive(self) -> None:
        """Between two pieces only what arrived is kept, each piece as it came."""
        stream = framed(Answer(1, Value(bytes(500_000))))
        chunks = [stream[at : at + 50_000] for at in range(0, len(stream), 50_000)]
        for chunk in chunks[:-1]:
            self.protocol.dataReceived(chunk)
        self.assertEqual(self.protocol._unprocessed, b"")
        for kept, chunk in zip(self.protocol._chunks[1:], chunks[1:-1], strict=True):
            self.assertIs(kept, chunk)
        self.protocol.dataReceived(chunks[-1])
        self.assertEqual(len(self.receiver.messages), 1)
        self.assertEqual(self.protocol._chunks, [])

    def test_a_long_frame_in_tiny_pieces_costs_its_length(self) -> None:
        """Not an object for every piece: of two bytes each they would be some 30 MB."""
        stream = framed(Answer(1, Value(bytes(300_000))))
        for at in range(20_000):
            self.protocol.dataReceived(stream[at : at + 1])
        self.assertLess(len(self.protocol._chunks), 20)
        mixed = [stream[20_000:40_000], *(stream[at : at + 7] for at in range(40_000, 50_000, 7))]
        at = 20_000 + sum(map(len, mixed))
        for piece in (*mixed, stream[at:]):
            self.protocol.dataReceived(piece)
        self.assertEqual(self.receiver.messages, [Answer(1, Value(bytes(300_000)))])

    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(
            st.binary(max_size=60).map(lambda raw: pack("!I", len(raw)) + raw)
            | st.sampled_from([framed(Ask(1, Ping())), framed(Answer(1, Value(bytes(20_000))))])
            | st.binary(max_size=60),
            max_size=6,
        ),
        st.lists(st.integers(1, 30_000), min_size=1, max_size=8),
    )
    def test_any_stream(self, parts: list[bytes], cuts: list[int]) -> None:
        """Good frames, bad frames and no frames: one complaint at most, and nothing after it."""
        stream = b"".join(parts)
        whole, pieces = self.connection(), self.connection()
        whole[0].dataReceived(stream)
        at = turn = 0
        while at < len(stream):
            pieces[0].dataReceived(stream[at : at + cuts[turn % len(cuts)]])
            at += cuts[turn % len(cuts)]
            turn += 1
        self.assertEqual(pieces[1].messages, whole[1].messages)
        self.assertEqual(pieces[1].errors, whole[1].errors)
        self.assertLessEqual(len(whole[1].errors), 1)
        self.assertEqual(whole[2].disconnecting, bool(whole[1].errors))

    def test_length_limit(self) -> None:
        message = Answer(1, Value(bytes(100)))
        size = len(encode(message))
        self.assertEqual(self.feed(framed(message), max_length=size).messages, [message])
        refused = self.feed(framed(message), max_length=size - 1)
        self.assertEqual(refused.messages, [])
        text = f"a frame of {size} bytes is announced; {size - 1} are allowed"
        self.assertEqual(refused.errors, [(text, pack("!I", size))])

    def test_length_limit_needs_no_more_than_the_length(self) -> None:
        """The announcement alone ends it, whatever its size; nothing is waited for."""
        for length in (MAX + 1, 2**31 - 1, 2**31, 2**32 - 1):
            protocol, receiver, transport = self.connection()
            announced = pack("!I", length)
            for at in range(4):
                self.assertEqual(receiver.errors, [])
                protocol.dataReceived(announced[at : at + 1])
            self.assertEqual(len(receiver.errors), 1)
            self.assertEqual(receiver.errors[0][1], announced)
            self.assertTrue(transport.disconnecting)

    def test_limit_grows_between_two_frames_of_one_chunk(self) -> None:
        """The first message may raise the limit for the second, as HELLO does."""
        protocol, receiver, _ = self.connection(max_length=50)

        def grow(message: Message) -> None:
            protocol.MAX_LENGTH = 1000

        receiver.on_message = grow
        messages: list[Message] = [Ask(1, Ping()), Answer(2, Value(bytes(500)))]
        protocol.dataReceived(framed(*messages))
        self.assertEqual(receiver.messages, messages)

    def test_frames_that_are_no_messages(self) -> None:
        good = framed(Ask(1, Ping()))
        for raw in (b"", b"\xc1", b"garbage", encode(Ask(1, Ping())) + b"\0"):
            protocol, receiver, transport = self.connection()
            protocol.dataReceived(good + pack("!I", len(raw)) + raw + good)
            self.assertEqual(receiver.messages, [Ask(1, Ping())])
            self.assertEqual([first for _, first in receiver.errors], [raw[:4]])
            self.assertTrue(transport.disconnecting, "the connection ends with what is no message")
            protocol.dataReceived(good)
            self.assertEqual(len(receiver.messages), 1)

    def test_nothing_after_close(self) -> None:
        """Whether closed between two frames or two chunks, and within a long frame."""
        for end in (MessageProtocol.close, MessageProtocol.abort):
            protocol, receiver, _ = self.connection()
            receiver.on_message = lambda message: end(protocol)  # noqa: B023
            protocol.dataReceived(framed(Ask(1, Ping()), Ask(2, Ping())) + b"\xff\xff\xff\xff")
            protocol.dataReceived(framed(Ask(3, Ping())))
            self.assertEqual(receiver.messages, [Ask(1, Ping())])
            self.assertEqual(receiver.errors, [])

            protocol, receiver, _ = self.connection()
            stream = framed(Answer(1, Value(bytes(100_000))))
            protocol.dataReceived(stream[:50_000])
            end(protocol)
            protocol.dataReceived(stream[50_000:90_000])
            self.assertEqual(receiver.messages, [])
            self.assertEqual(protocol._chunks, [], "a closed connection keeps nothing")

    def test_connection_lost(self) -> None:
        reason = Failure(ConnectionLost())
        self.protocol.dataReceived(framed(Answer(1, Value(bytes(100_000))))[:50_000])
        self.protocol.send(Ask(1, Ping()))
        self.protocol.connectionLost(reason)
        self.assertIs(self.receiver.reason, reason)
        self.protocol.send(Ask(2, Ping()))
        self.clock.advance(0)
        self.assertEqual(self.transport.writes, [])
        self.assertEqual(self.protocol.queued_bytes, 0)


class LoneFrameTests(ProtocolCase):
    """A chunk that looks like one frame is one only where a frame begins."""

    def test_within_another_frame(self) -> None:
        inner = framed(Ask(1, Ping()))
        outer: Message = Answer(2, Value(inner))
        stream = framed(outer)
        at = stream.index(inner)
        for chunk in (stream[:at], inner, stream[at + len(inner) :]):
            if chunk:
                self.protocol.dataReceived(chunk)
        self.assertEqual(self.receiver.messages, [outer])

    def test_within_a_long_frame(self) -> None:
        inner = framed(Ask(1, Ping()))
        outer: Message = Answer(2, Value(bytes(50_000) + inner + bytes(50_000)))
        stream = framed(outer)
        at = stream.index(inner)
        for chunk in (stream[:at], inner, stream[at + len(inner) :]):
            self.protocol.dataReceived(chunk)
        self.assertEqual(self.receiver.messages, [outer])

    def test_after_the_end(self) -> None:
        self.protocol.close()
        self.protocol.dataReceived(framed(Ask(1, Ping())))
        self.assertEqual(self.receiver.messages, [])

    def test_too_long(self) -> None:
        self.protocol.MAX_LENGTH = 10
        self.protocol.dataReceived(framed(Answer(2, Value(bytes(100)))))
        self.assertEqual((self.receiver.messages, len(self.receiver.errors)), ([], 1))


class TurnTests(ProtocolCase):
    """Nobody makes others wait by sending much."""

    def setUp(self) -> None:
        super().setUp()
        self.receiver.on_message = lambda message: self.spend(self.outbox.share)

    def spend(self, seconds: float) -> None:
        """A message takes so long; no call runs meanwhile."""
        self.clock.rightNow += seconds

    def heard(self, receiver: FakeReceiver | None = None) -> int:
        return len((receiver or self.receiver).messages)

    def turn(self) -> None:
        """What the reactor does next; a Clock would also do at once what that leaves to do."""
        call = self.clock.calls.pop(0)
        call.called = 1
        call.func()

    def test_one_chunk_takes_many_turns(self) -> None:
        """Nothing is lost, doubled or out of order; nothing is read before the rest is done."""
        messages: list[Message] = [Ask(number, Ping()) for number in range(9)]
        self.protocol.dataReceived(framed(*messages)[:-2])
        seen = [self.heard()]
        while self.transport.producerState == "paused":
            self.turn()
            seen.append(self.heard())
        self.assertEqual(seen, [2, 4, 6, 8])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.protocol.dataReceived(framed(*messages)[-2:])
        self.assertEqual(self.receiver.messages, messages)

    def test_what_waited_too_long_is_late(self) -> None:
        """From its arrival to its turn; what comes then is not."""
        late = []
        self.receiver.on_message = lambda message: (
            late.append(self.protocol.late),
            self.spend(self.outbox.most_wait * 0.6),
        )
        self.protocol.dataReceived(framed(*[Ask(1, Ping())] * 4))
        while self.transport.producerState == "paused":
            self.turn()
        self.assertEqual(late, [False, False, True, True])
        self.protocol.dataReceived(framed(Ask(1, Ping())))
        self.assertEqual(late[4:], [False])

    def test_two_take_turns(self) -> None:
        other, receiver, _ = self.connection()
        receiver.on_message = self.receiver.on_message
        for protocol in (self.protocol, other):
            protocol.dataReceived(framed(*[Ask(1, Ping())] * 6))
        seen = [(self.heard(), self.heard(receiver))]
        for _ in range(2):
            self.turn()
            seen.append((self.heard(), self.heard(receiver)))
        self.assertEqual(seen, [(2, 2), (4, 4), (6, 6)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_more_go_on_than_fit_a_turn(self) -> None:
        """The others have theirs after them, before those have another one."""
        at_once = self.outbox.at_once
        several = [self.connection() for _ in range(2 * at_once + 1)]
        for protocol, receiver, _ in several:
            receiver.on_message = self.receiver.on_message
            protocol.dataReceived(framed(*[Ask(1, Ping())] * 6))
        for expected in (
            [4] * at_once + [2] * (at_once + 1),
            [4] * 2 * at_once + [2],
            [6] * (at_once - 1) + [4] * (at_once + 2),
        ):
            self.turn()
            self.assertEqual([self.heard(receiver) for _, receiver, _ in several], expected)
        self.clock.advance(1)
        self.assertEqual({self.heard(receiver) for _, receiver, _ in several}, {6})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_slow_message_alone_pauses_nothing(self) -> None:
        self.receiver.on_message = lambda message: self.spend(1)
        self.protocol.dataReceived(framed(Ask(1, Ping())))
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_leave_at_the_end_of_each_turn(self) -> None:
        def answer(message: Message) -> None:
            self.spend(self.outbox.share)
            self.protocol.send(message)

        self.receiver.on_message = answer
        self.protocol.dataReceived(framed(*[Ask(1, Ping())] * 6))
        self.assertEqual(len(self.transport.writes), 1)
        self.turn()
        self.turn()
        self.assertEqual(self.transport.writes, [framed(*[Ask(1, Ping())] * 2)] * 3)

    def test_what_comes_all_the_same_waits(self) -> None:
        """TLS hands over what it has decrypted, paused or not."""
        messages: list[Message] = [Ask(number, Ping()) for number in range(6)]
        self.protocol.dataReceived(framed(*messages[:4]))
        self.protocol.dataReceived(framed(*messages[4:]))
        self.assertEqual(self.heard(), 2)
        while self.clock.getDelayedCalls():
            self.turn()
        self.assertEqual(self.receiver.messages, messages)

    def test_a_lone_frame_that_comes_all_the_same_waits(self) -> None:
        messages: list[Message] = [Ask(number, Ping()) for number in range(5)]
        self.protocol.dataReceived(framed(*messages[:4]))
        self.protocol.dataReceived(framed(messages[4]))
        self.assertEqual(self.heard(), 2)
        while self.clock.getDelayedCalls():
            self.turn()
        self.assertEqual(self.receiver.messages, messages)

    def test_a_long_frame_behind_many_short_ones(self) -> None:
        messages: list[Message] = [Ask(number, Ping()) for number in range(5)]
        messages.append(Answer(5, Value(bytes(100_000))))
        stream = framed(*messages)
        self.protocol.dataReceived(stream[:50_000])
        while self.transport.producerState == "paused":
            self.turn()
        self.protocol.dataReceived(stream[50_000:])
        self.assertEqual(self.receiver.messages, messages)

    def test_a_bad_length_behind_many(self) -> None:
        self.protocol.dataReceived(framed(*[Ask(1, Ping())] * 3) + b"\xff\xff\xff\xff")
        self.assertEqual(self.receiver.errors, [])
        while self.clock.getDelayedCalls():
            self.turn()
        self.assertEqual((self.heard(), len(self.receiver.errors)), (3, 1))
        self.assertTrue(self.transport.disconnecting)

    def test_the_end_in_between(self) -> None:
        """Closed, aborted or lost: what is left is not dealt with."""
        for end in (
            MessageProtocol.close,
            MessageProtocol.abort,
            lambda protocol: protocol.connectionLost(Failure(ConnectionDone())),
        ):
            protocol, receiver, _ = self.connection()
            receiver.on_message = self.receiver.on_message
            protocol.dataReceived(framed(*[Ask(1, Ping())] * 6))
            end(protocol)
            self.clock.advance(0)
            self.assertEqual(self.heard(receiver), 2)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stopped_outbox_leaves_no_call(self) -> None:
        self.protocol.dataReceived(framed(*[Ask(1, Ping())] * 6))
        self.outbox.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_receiver_that_raises_ends_only_its_own(self) -> None:
        other, receiver, _ = self.connection()
        receiver.on_message = self.receiver.on_message
        for protocol in (self.protocol, other):
            protocol.dataReceived(framed(*[Ask(1, Ping())] * 4))

        def fail(message: Message) -> None:
            raise ZeroDivisionError

        self.receiver.on_message = fail
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.heard(receiver), 4)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.integers(0, 40_000), min_size=1, max_size=6),
        st.lists(st.integers(1, 30_000), min_size=1, max_size=12),
        st.lists(st.sampled_from((0.0, 0.3, 0.6, 5.0)), min_size=1, max_size=5),
    )
    def test_any_cut_and_any_pace(
        self, sizes: list[int], cuts: list[int], paces: list[float]
    ) -> None:
        """However the stream is cut, and however long each message takes: all, in order, once."""
        messages: list[Message] = [
            Answer(number, Value(b"x" * size)) for number, size in enumerate(sizes)
        ]
        stream = framed(*messages)
        protocol, receiver, transport = self.connection()
        receiver.on_message = lambda message: self.spend(
            paces[len(receiver.messages) % len(paces)] * self.outbox.share
        )
        at = turn = 0
        while at < len(stream):
            if transport.producerState == "producing":
                protocol.dataReceived(stream[at : at + cuts[turn % len(cuts)]])
                at += cuts[turn % len(cuts)]
                turn += 1
            else:
                self.turn()
        while self.clock.getDelayedCalls():
            self.turn()
        self.assertEqual(receiver.messages, messages)


class QueueTests(ProtocolCase):
    """What peers do not read is counted until they do, for all of them together."""

    def test_what_the_transport_holds_counts(self) -> None:
        size = self.protocol.send(Ask(1, Read(FIRST_EPOCH, bytes(4096))))
        self.transport.write = lambda data: self.protocol.pauseProducing()  # type: ignore[method-assign]
        self.clock.advance(0)
        self.assertGreaterEqual(self.protocol.queued_bytes, size)
        other, _, _ = self.connection()
        other.send(Ask(1, Ping()))
        self.assertEqual(self.outbox.queued_bytes, self.protocol.queued_bytes + other.queued_bytes)
        self.protocol.send(Ask(2, Ping()))
        self.assertGreater(self.protocol.queued_bytes, size + 100)
        del self.transport.write  # type: ignore[method-assign]
        self.protocol.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.outbox.queued_bytes, 0)
        self.assertEqual(self.protocol.queued_bytes, 0)

    def test_whatever_happens_nothing_stays_counted(self) -> None:
        for end in (
            MessageProtocol.close,
            MessageProtocol.abort,
            lambda protocol: protocol.connectionLost(Failure(ConnectionDone())),
        ):
            for held in (False, True):
                protocol, _, transport = self.connection()
                protocol.send(Ask(1, Ping()))
                if held:
                    transport.write = lambda data, to=protocol: to.pauseProducing()
                    self.clock.advance(0)
                    del transport.write
                protocol.send(Ask(2, Ping()))
                self.assertGreater(self.outbox.queued_bytes, 0)
                end(protocol)
                self.assertEqual(self.outbox.queued_bytes, 0)

    def test_crowded(self) -> None:
        self.protocol.pauseProducing()
        self.assertFalse(self.protocol.crowded)
        self.outbox.most_queued_bytes = 1000
        for number in range(10):
            self.protocol.send(Ask(number, Ping()))
        other, _, _ = self.connection()
        self.assertTrue(other.crowded)
        self.protocol.abort()
        self.assertFalse(other.crowded)


class SendingTests(ProtocolCase):
    def test_one_write_per_turn(self) -> None:
        messages: list[Message] = [Ask(number, Ping()) for number in range(100)]
        for message in messages:
            self.protocol.send(message)
        self.assertEqual(self.transport.writes, [])
        self.clock.advance(0)
        self.assertEqual(self.transport.writes, [framed(*messages)])
        self.assertEqual(self.protocol.queued_bytes, 0)
        self.protocol.send(messages[0])
        self.clock.advance(0)
        self.assertEqual(len(self.transport.writes), 2)

    def test_one_delayed_call_for_all_connections(self) -> None:
        others = [self.connection() for _ in range(3)]
        for _ in range(5):
            for protocol, _, _ in others:
                protocol.send(Ask(1, Ping()))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        for _, _, transport in others:
            self.assertEqual(unframed(transport.value()), [Ask(1, Ping())] * 5)
            self.assertEqual(len(transport.writes), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_leave_with_the_chunk_that_asked(self) -> None:
        """All requests of one chunk are answered in one write, without waiting for a turn."""
        self.receiver.on_message = lambda message: self.protocol.send(Answer(1, Done()))
        self.protocol.dataReceived(framed(*[Ask(1, Ping())] * 50))
        self.assertEqual(len(self.transport.writes), 1)
        self.assertEqual(unframed(self.transport.value()), [Answer(1, Done())] * 50)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_others_are_sent_meanwhile_leaves_too(self) -> None:
        other, _, transport = self.connection()
        self.receiver.on_message = lambda message: other.send(message)
        self.protocol.dataReceived(framed(Ask(1, Ping()), Ask(2, Ping())))
        self.assertEqual(transport.writes, [framed(Ask(1, Ping()), Ask(2, Ping()))])

    def test_a_receiver_that_raises_holds_nothing_up(self) -> None:
        def fail(message: Message) -> None:
            raise RuntimeError("the receiver is broken")

        other, _, transport = self.connection()
        self.receiver.on_message = fail
        self.assertRaises(RuntimeError, self.protocol.dataReceived, framed(Ask(1, Ping())))
        other.send(Ask(2, Ping()))
        self.clock.advance(0)
        self.assertEqual(len(transport.writes), 1)

    def test_size(self) -> None:
        message = Answer(1, Value(bytes(1000)))
        self.assertEqual(self.protocol.send(message), len(encode(message)))

    def test_pause_holds_and_resume_flushes(self) -> None:
        self.protocol.send(Ask(1, Ping()))
        self.protocol.pauseProducing()
        self.assertTrue(self.protocol.held)
        self.clock.advance(0)
        for number in range(2, 10):
            self.protocol.send(Ask(number, Ping()))
            self.clock.advance(0)
        self.assertEqual(self.transport.writes, [])
        self.protocol.resumeProducing()
        self.assertFalse(self.protocol.held)
        self.assertEqual(self.transport.writes, [framed(*(Ask(n, Ping()) for n in range(1, 10)))])
        self.protocol.send(Ask(10, Ping()))
        self.clock.advance(0)
        self.assertEqual(len(self.transport.writes), 2)

    def test_queued_bytes_count_what_small_messages_cost(self) -> None:
        """Not the bytes on the wire: a million tiny answers are much more than a megabyte."""
        self.protocol.pauseProducing()
        for number in range(1000):
            self.protocol.send(Answer(number, Done()))
        self.assertGreater(self.protocol.queued_bytes, 1000 * 100)
        self.protocol.resumeProducing()
        self.assertEqual(self.protocol.queued_bytes, 0)

    def test_close_sends_what_is_left(self) -> None:
        """Held or not: the transport keeps it until it is sent."""
        for held in (False, True):
            protocol, _, transport = self.connection()
            if held:
                protocol.pauseProducing()
            protocol.send(Ask(1, Ping()))
            protocol.close()
            protocol.close()
            self.assertEqual(transport.writes, [framed(Ask(1, Ping()))])
            self.assertTrue(transport.disconnecting)
            self.assertIsNone(transport.producer)
            self.assertTrue(protocol.closed)
            protocol.send(Ask(2, Ping()))
            self.clock.advance(0)
            self.assertEqual(len(transport.writes), 1)

    def test_abort_sends_nothing(self) -> None:
        self.protocol.send(Ask(1, Ping()))
        self.protocol.abort()
        self.clock.advance(0)
        self.assertEqual(self.transport.writes, [])
        self.assertTrue(self.transport.aborted)

    def test_stopped_producer_writes_nothing(self) -> None:
        """A transport that is gone says so before it says why."""
        self.protocol.send(Ask(1, Ping()))
        self.protocol.stopProducing()
        self.clock.advance(0)
        self.assertEqual(self.transport.writes, [])
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def test_stopped_outbox_leaves_no_call(self) -> None:
        self.outbox.stop()
        self.protocol.send(Ask(1, Ping()))
        self.outbox.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class IdleReactor:
    """Knows what wants to be written, and never writes it."""

    def __init__(self) -> None:
        self.writers: set[object] = set()

    def addReader(self, reader: object) -> None:
        pass

    def removeReader(self, reader: object) -> None:
        pass

    def addWriter(self, writer: object) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        self.writers.discard(writer)

    def getWriters(self) -> list[object]:
        return list(self.writers)


class AtOnceTests(SynchronousTestCase):
    """What leaves over TCP without waiting for the reactor's next turn."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reactor = IdleReactor()
        self.peer, ours = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        for each in (self.peer, ours):
            each.setblocking(False)
        self.protocol = MessageProtocol(FakeReceiver(), Outbox(self.clock), MAX)
        self.connection = Connection(ours, self.protocol, self.reactor)
        self.connection.connected = True
        self.protocol.transport = self.connection

    def test_a_lone_message_leaves_at_once(self) -> None:
        self.protocol.send(Ask(1, Ping()))
        self.clock.advance(0)
        self.assertEqual(self.peer.recv(1000), framed(Ask(1, Ping())))
        self.assertEqual(self.reactor.writers, set())

    def test_what_was_written_before_leaves_first(self) -> None:
        many = [Ask(number, Ping()) for number in range(3)]
        for ask in many:
            self.protocol.send(ask)
        self.clock.advance(0)
        self.assertRaises(BlockingIOError, self.peer.recv, 1000)
        self.protocol.send(Ask(9, Ping()))
        self.clock.advance(0)
        self.assertEqual(self.peer.recv(1000), framed(*many, Ask(9, Ping())))

    def test_what_the_kernel_does_not_take_is_left_to_the_reactor(self) -> None:
        message = Answer(1, Value(b"x" * 1_000_000))
        self.protocol.send(message)
        self.clock.advance(0)
        self.assertEqual(self.reactor.writers, {self.connection})
        received = bytearray()
        while self.reactor.writers:
            received += self.peer.recv(2_000_000)
            self.assertIsNone(self.connection.doWrite())
        received += self.peer.recv(2_000_000)
        self.assertEqual(bytes(received), framed(message))

    def test_what_the_kernel_did_not_take_leaves_first(self) -> None:
        """Also when it takes something again before the reactor knows."""
        long = Answer(1, Value(b"x" * 1_000_000))
        self.protocol.send(long)
        self.clock.advance(0)
        received = bytearray(self.peer.recv(2_000_000))
        self.protocol.resumeProducing()  # as if there were room again
        self.protocol.send(Ask(2, Ping()))
        self.clock.advance(0)
        while self.reactor.writers:
            received += self.peer.recv(2_000_000)
            self.connection.doWrite()
        received += self.peer.recv(2_000_000)
        self.assertEqual(bytes(received), framed(long, Ask(2, Ping())))

    def test_once_all_is_written_a_lone_message_leaves_at_once_again(self) -> None:
        for number in range(2):
            self.protocol.send(Ask(number, Ping()))
        self.clock.advance(0)
        self.assertEqual(self.reactor.writers, {self.connection})
        self.connection.doWrite()
        self.protocol.send(Ask(2, Ping()))
        self.clock.advance(0)
        self.assertEqual(self.reactor.writers, set())
        self.assertEqual(
            self.peer.recv(1000), framed(*[Ask(number, Ping()) for number in range(3)])
        )

    def test_an_error_is_left_to_the_reactor(self) -> None:
        self.peer.close()
        self.protocol.send(Ask(1, Ping()))
        self.clock.advance(0)
        self.assertEqual(self.reactor.writers, {self.connection})
        self.assertIsInstance(self.connection.doWrite(), ConnectionLost)
