"""A simulated connection carries bytes, closes and slows down as TCP under Twisted does."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from .network_case import NetworkCase
from .pipe import WINDOW
from .weather import ROUGH, SimOptions


@implementer(IPushProducer)
class PushProducer:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Bytes(NetworkCase):
    """What is written arrives, whole and in order."""

    def test_one_turn_is_one_chunk(self) -> None:
        """Writes of one turn travel together; those of another turn apart."""
        client, server = self.connected()
        client.transport.write(b"a")
        client.transport.writeSequence([b"b", b"c"])
        self.clock.callLater(0.0, client.transport.write, b"d")
        self.assertEqual(server.chunks, [])
        self.run_for(1)
        self.assertEqual(server.chunks[0][:3], b"abc")
        self.assertEqual(server.data, b"abcd")

    def test_turns_apart(self) -> None:
        """Far enough apart, two turns are two chunks."""
        client, server = self.connected()
        for delay in (0.0, 0.1):
            self.clock.callLater(delay, client.transport.write, b"x")
        self.run_for(1)
        self.assertEqual(server.chunks, [b"x", b"x"])

    def test_both_ways(self) -> None:
        """The server writes in connectionMade, before it heard anything."""
        self.servers.on_made = lambda made: made.transport.write(b"hello")
        client, _ = self.connected()
        self.assertEqual(client.data, b"hello")

    def test_only_bytes(self) -> None:
        """Text is refused, as by Twisted; what was written may be changed afterwards."""
        client, server = self.connected()
        self.assertRaises(TypeError, client.transport.write, "text")
        buffer = bytearray(b"before")
        client.transport.write(buffer)  # type: ignore[arg-type]  # Twisted takes it too
        buffer[:] = b"after!"
        self.run_for(1)
        self.assertEqual(server.data, b"before")

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(
        st.lists(st.tuples(st.floats(0, 0.01), st.integers(0, 3000)), max_size=30),
        st.integers(0, 99),
    )
    def test_stream(self, writes: list[tuple[float, int]], seed: int) -> None:
        """Whatever the delays, splits and merges: the same bytes in the same order."""
        self.setUp()
        client, server = self.connected()
        self.network.weather.rng.seed(seed)
        self.network.weather.options = replace(
            ROUGH, split_rate=0.4, merge_rate=0.4, reset_rate=0.0, spike_rate=0.1
        )
        sent = b""
        for number, (pause, size) in enumerate(writes):
            piece = bytes([number]) * size
            sent += piece
            client.transport.write(piece)
            self.run_for(pause)
        client.transport.loseConnection()
        self.run_for(60)
        self.assertEqual(server.data, sent)
        self.assertIs(server.lost, error.ConnectionDone)

    def test_splits_and_merges(self) -> None:
        """At high rates they really happen."""
        self.network.weather.options = SimOptions(split_rate=0.5, merge_rate=0.5)
        client, server = self.connected()
        for _ in range(200):
            self.clock.callLater(0, client.transport.write, b"0123456789")
            self.run_for(0.001)
        self.run_for(1)
        sizes = {len(chunk) for chunk in server.chunks}
        self.assertTrue(min(sizes) < 10 < max(sizes), sizes)
        self.assertEqual(server.data, b"0123456789" * 200)

    def test_large_write(self) -> None:
        """A megabyte arrives in chunks that a socket would give."""
        client, server = self.connected()
        sent = b"0123456789" * 100_000
        client.transport.write(sent)
        self.run_for(1)
        self.assertEqual(server.data, sent)
        self.assertLessEqual(max(map(len, server.chunks)), WINDOW)

    def test_pause_reading(self) -> None:
        """Nothing arrives while reading is paused, the end neither; then all of it does."""
        client, server = self.connected()
        server.transport.pauseProducing()
        client.transport.write(b"abc")
        client.transport.loseConnection()
        self.run_for(5)
        self.assertEqual((server.data, server.lost), (b"", None))
        server.transport.resumeProducing()
        self.run_for(1)
        self.assertEqual((server.data, server.lost), (b"abc", error.ConnectionDone))


class Closing(NetworkCase):
    """Connections end as under Twisted, and each side hears of it once."""

    def test_lose_connection(self) -> None:
        """What was written arrives first; both sides see a clean end; nobody reads any more."""
        client, server = self.connected()
        server.transport.write(b"never read")
        client.transport.write(b"last words")
        client.transport.loseConnection()
        self.assertTrue(client.transport.disconnecting)
        self.assertIs(client.lost, None)
        self.run_for(1)
        self.assertEqual((server.data, client.data), (b"last words", b""))
        self.assertIs(server.lost, error.ConnectionDone)
        self.assertIs(client.lost, error.ConnectionDone)
        self.assertEqual((self.a.transports, self.b.transports), ({}, {}))

    def test_abort(self) -> None:
        """The peer sees a loss; the own side too, in the next turn."""
        client, server = self.connected()
        client.transport.abortConnection()
        client.transport.write(b"ignored")
        self.assertIs(client.lost, None)
        self.clock.step()
        self.assertIs(client.lost, error.ConnectionAborted)
        self.run_for(1)
        self.assertEqual((server.lost, server.data), (error.ConnectionLost, b""))

    def test_abort_keeps_a_first_part(self) -> None:
        """Of what was under way any first part may arrive: all, some, none, in some seed."""
        seen = set()
        for seed in range(30):
            self.network.weather.rng.seed(seed)
            client, server = self.connected()
            self.network.weather.slow(["10.0.0.1"], 0.1, 1)
            for piece in (b"a", b"b"):
                client.transport.write(piece)
                self.clock.callLater(0, lambda: None)
                self.clock.step()
            client.transport.abortConnection()
            self.run_for(2)
            self.assertIs(server.lost, error.ConnectionLost)
            seen.add(server.data)
        self.assertEqual(seen, {b"", b"a", b"ab"})

    def test_closed_ends_ignore(self) -> None:
        """Writing, closing and resuming a closed connection do nothing."""
        client, server = self.connected()
        client.transport.loseConnection()
        self.run_for(1)
        for end in (client, server):
            end.transport.write(b"x")
            end.transport.loseConnection()
            end.transport.abortConnection()
            end.transport.resumeProducing()
        self.run_for(1)
        self.assertEqual((client.data, server.data), (b"", b""))

    def test_close_in_data_received(self) -> None:
        """A protocol that closes on its first chunk is given no second one."""
        client, server = self.connected()

        def abort(data: bytes) -> None:
            server.chunks.append(data)
            server.transport.abortConnection()

        server.dataReceived = abort  # type: ignore[method-assign]
        for _ in range(3):
            client.transport.write(b"x")
            self.clock.callLater(0, lambda: None)
            self.clock.step()
        self.run_for(1)
        self.assertEqual(len(server.chunks), 1)
        self.assertIs(client.lost, error.ConnectionLost)

    def test_exception_in_a_protocol_ends_the_simulation(self) -> None:
        """It is not swallowed."""
        client, server = self.connected()
        server.dataReceived = lambda data: 1 // 0  # type: ignore[assignment,method-assign]
        client.transport.write(b"x")
        self.assertRaises(ZeroDivisionError, self.run_for, 1)


class Producers(NetworkCase):
    """A slow reader slows the writer down."""

    def test_push_producer(self) -> None:
        """Paused above the window, resumed once all was read; balanced."""
        client, server = self.connected()
        producer = PushProducer()
        client.transport.registerProducer(producer, True)
        server.transport.pauseProducing()
        client.transport.write(b"x" * WINDOW)
        self.run_for(1)
        self.assertEqual(producer.told, [])
        client.transport.write(b"x")
        client.transport.write(b"x")
        self.assertEqual(producer.told, ["pause"])
        self.run_for(5)
        self.assertEqual(producer.told, ["pause"])
        server.transport.resumeProducing()
        self.run_for(1)
        self.assertEqual(producer.told, ["pause", "resume"])
        self.assertRaises(RuntimeError, client.transport.registerProducer, producer, True)

    def test_paused_host_does_not_read(self) -> None:
        """A stopped process fills the window too."""
        client, _ = self.connected()
        producer = PushProducer()
        client.transport.registerProducer(producer, True)
        self.b.pause()
        client.transport.write(b"x" * (WINDOW + 1))
        self.run_for(5)
        self.assertEqual(producer.told, ["pause"])
        self.b.resume()
        self.run_for(1)
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_stopped_when_lost(self) -> None:
        """The producer is told of the end; one registered later at once."""
        client, _ = self.connected()
        early, late = PushProducer(), PushProducer()
        client.transport.registerProducer(early, True)
        client.transport.abortConnection()
        self.run_for(1)
        client.transport.registerProducer(late, True)
        self.assertEqual((early.told, late.told), (["stop"], ["stop"]))

    def test_pull_producer(self) -> None:
        """Asked once at first, and again each time that all was read."""
        client, server = self.connected()
        transport = client.transport

        class Pull(PushProducer):
            def resumeProducing(self) -> None:
                self.told.append("resume")
                transport.write(b"x")
                if len(self.told) == 5:
                    transport.unregisterProducer()

        transport.registerProducer(Pull(), False)
        transport.loseConnection()
        self.run_for(1)
        self.assertEqual((server.data, server.lost), (b"xxxxx", error.ConnectionDone))

    def test_close_waits_for_a_full_window(self) -> None:
        """A loseConnection to a peer that does not read waits; abortConnection does not."""
        for end, reason in ((False, None), (True, error.ConnectionAborted)):
            client, server = self.connected()
            server.transport.pauseProducing()
            client.transport.write(b"x" * (3 * WINDOW))
            client.transport.loseConnection()
            server.transport.write(b"never read")
            if end:
                client.transport.abortConnection()
            self.run_for(60)
            self.assertIs(client.lost, reason)
            self.assertEqual(client.data, b"")
            if not end:
                server.transport.resumeProducing()
                self.run_for(1)
                self.assertEqual(len(server.data), 3 * WINDOW)
                self.assertIs(client.lost, error.ConnectionDone)
