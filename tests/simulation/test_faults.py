"""Resets, cuts, pauses, crashes and slow spells do what they do to real hosts."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet import error

from .network_case import PORT, Listener, NetworkCase, Recorder
from .weather import PERFECT


class Faults(NetworkCase):
    """Resets, cuts, pauses, crashes and slow spells."""

    def test_reset(self) -> None:
        """Both sides lose the connection; other connections stand."""
        client, server = self.connected()
        other = self.network.host("10.0.0.3").connect("10.0.0.2", PORT, Listener(self.clock))
        self.run_for(0.1)
        self.assertEqual(self.network.reset("10.0.0.2", "10.0.0.1"), 1)
        self.assertEqual(self.network.reset("10.0.0.9", "10.0.0.1"), 0)
        self.run_for(0.1)
        self.assertIs(client.lost, error.ConnectionLost)
        self.assertIs(server.lost, error.ConnectionLost)
        bystander = self.successResultOf(other)
        assert isinstance(bystander, Recorder)
        self.assertIs(bystander.lost, None)

    def test_random_resets(self) -> None:
        """At a rate of one the first chunk resets its connection, of one just closed too."""
        self.network.weather.options = replace(PERFECT, reset_rate=1.0)
        seen = set()
        for seed in range(20):
            client, server = self.connected()
            self.network.weather.rng.seed(seed)
            client.transport.write(b"x")
            if seed % 2:
                client.transport.loseConnection()
            self.run_for(1)
            own = error.ConnectionDone if seed % 2 else error.ConnectionLost
            self.assertEqual((client.lost, server.lost), (own, error.ConnectionLost))
            seen.add((own, server.data))
        self.assertEqual(len(seen), 4, "the chunk may arrive before the reset, or not")

    def test_cut_stalls(self) -> None:
        """Bytes wait, nobody hears of it; after the heal all arrives, in order."""
        client, server = self.connected()
        cut = self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        for piece in (b"a", b"b"):
            client.transport.write(piece)
            server.transport.write(piece)
            self.run_for(100)
        self.assertEqual((client.data, server.data, client.lost), (b"", b"", None))
        self.network.heal(cut)
        self.assertRaises(ValueError, self.network.heal, cut)
        self.run_for(2)
        self.assertEqual((client.data, server.data), (b"ab", b"ab"))

    def test_one_way_cut(self) -> None:
        """One direction stalls, the other does not; new connects fail in both."""
        client, server = self.connected()
        self.network.cut(["10.0.0.1"], ["10.0.0.2"], one_way=True)
        client.transport.write(b"x")
        server.transport.write(b"x")
        forth = self.dial()
        unreachable = Listener(self.clock)
        self.successResultOf(self.a.listen("", PORT, unreachable))
        back = self.b.connect("10.0.0.1", PORT, Listener(self.clock))
        self.run_for(29)
        self.assertEqual((client.data, server.data), (b"x", b""))
        self.assertNoResult(forth)
        self.run_for(2)
        self.failureResultOf(forth, error.TimeoutError)
        self.failureResultOf(back, error.TimeoutError)
        self.assertEqual((unreachable.made, len(self.servers.made)), ([], 1))

    def test_two_cuts(self) -> None:
        """Healing one does not open what the other still holds."""
        client, server = self.connected()
        one = self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        other = self.network.cut(["10.0.0.2"], ["10.0.0.1", "10.0.0.3"])
        client.transport.write(b"x")
        self.run_for(1)
        self.network.heal(one)
        self.run_for(5)
        self.assertEqual(server.data, b"")
        self.network.heal(other)
        self.run_for(5)
        self.assertEqual(server.data, b"x")

    def test_connect_through_a_short_cut(self) -> None:
        """A lost request is repeated: if the cut heals in time the connect succeeds."""
        self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        dialling = self.dial()
        self.clock.callLater(5, self.network.heal)
        self.run_for(20)
        self.successResultOf(dialling)

    def test_cut_while_the_answer_is_under_way(self) -> None:
        """The server saw the request, the client never its answer: it times out, both forget."""
        for steps in range(1, 4):
            dialling = self.dial()
            for _ in range(steps):
                self.clock.step()
            if dialling.called:
                continue
            self.network.cut(["10.0.0.2"], ["10.0.0.1"], one_way=True)
            self.run_for(40)
            self.failureResultOf(dialling, error.TimeoutError)
            self.network.heal()
            self.run_for(2)
            self.assertEqual((self.a.transports, self.b.transports), ({}, {}))

    def test_abort_during_a_cut(self) -> None:
        """What was held is not delivered in full after the end; the peer learns of it on heal."""
        client, server = self.connected()
        self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        client.transport.write(b"x")
        client.transport.abortConnection()
        server.transport.write(b"into the void")
        self.run_for(100)
        self.assertIs(client.lost, error.ConnectionAborted)
        self.assertIs(server.lost, None)
        self.network.heal()
        self.run_for(2)
        self.assertIs(server.lost, error.ConnectionLost)
        self.assertEqual(client.data, b"")

    def test_paused_host(self) -> None:
        """It sees and does nothing; its kernel takes connections and bytes; then all at once."""
        client, server = self.connected()
        ticks: list[float] = []
        self.b.clock.callLater(1, lambda: ticks.append(self.clock.seconds()))
        self.b.pause()
        client.transport.write(b"while stopped")
        dialling = self.dial()
        self.run_for(10)
        late = self.successResultOf(dialling)
        assert isinstance(late, Recorder)
        late.transport.write(b"hello?")
        self.run_for(10)
        self.assertEqual((server.data, ticks, len(self.servers.made)), (b"", [], 1))
        now = self.clock.seconds()
        self.b.resume()
        self.clock.run_until(now)
        self.assertEqual((server.data, ticks), (b"while stopped", [now]))
        self.assertEqual(self.servers.made[1].data, b"hello?")

    def test_crash(self) -> None:
        """Peers lose the connection, connects are refused, nothing of it runs or is told."""
        client, server = self.connected()
        ran: list[int] = []
        self.b.clock.callLater(0.5, ran.append, 1)
        half_open = self.dial()
        own = self.b.connect("10.0.0.1", 1, Listener(self.clock))
        for _ in range(2):
            self.clock.step()
        self.b.crash()
        self.assertIs(client.lost, None)
        self.run_for(0.1)
        self.assertIs(client.lost, error.ConnectionLost)
        after = self.dial()
        self.run_for(1)
        self.failureResultOf(after, error.ConnectionRefusedError)
        self.assertEqual((ran, server.lost), ([], None))
        self.assertNoResult(own)
        self.assertEqual((self.a.transports, self.b.transports), ({}, {}))
        self.assertTrue(half_open.called)
        half_open.addErrback(lambda failure: failure.trap(error.ConnectionRefusedError))

    def test_crash_of_the_dialler(self) -> None:
        """A host that crashes while it connects leaves nothing at the other end."""
        for steps in range(6):
            host = self.network.host("10.0.0.7")
            dialling = host.connect("10.0.0.2", PORT, Listener(self.clock))
            for _ in range(steps):
                self.clock.step()
            was_fired = dialling.called
            host.crash()
            self.run_for(40)
            self.assertEqual(dialling.called, was_fired)
            self.assertEqual(self.b.transports, {})

    def test_new_host_at_an_old_address(self) -> None:
        """After a crash another may live there; old connections are not its own."""
        client, _ = self.connected()
        self.assertRaises(ValueError, self.network.host, "10.0.0.2")
        self.b.crash()
        again = self.network.host("10.0.0.2")
        self.assertEqual(self.network.hosts(), [self.a, again])
        self.assertIs(self.network.find("10.0.0.2"), again)
        self.successResultOf(again.listen("", PORT, self.servers))
        fresh, server = self.connected()
        fresh.transport.write(b"x")
        self.run_for(1)
        self.assertEqual((server.data, client.lost), (b"x", error.ConnectionLost))

    def test_crash_behind_a_cut(self) -> None:
        """The peer learns of it when the cut heals."""
        client, _ = self.connected()
        self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        self.b.crash()
        self.run_for(60)
        self.assertIs(client.lost, None)
        self.network.heal()
        self.run_for(2)
        self.assertIs(client.lost, error.ConnectionLost)

    def test_slow_spell(self) -> None:
        """Deliveries take longer for its time, and not afterwards; order holds."""
        client, server = self.connected()
        self.network.slow(["10.0.0.2"], 10.0, 1.0)
        client.transport.write(b"a")
        self.run_for(0.1)
        self.assertEqual(server.data, b"")
        self.run_for(20)
        client.transport.write(b"b")
        self.run_for(0.1)
        self.assertEqual(server.data, b"ab")

    def test_calm(self) -> None:
        """All faults end at once; only what had died stays dead."""
        client, server = self.connected()
        self.network.weather.options = replace(PERFECT, reset_rate=1.0, spike_rate=1.0)
        self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        self.network.slow(["10.0.0.1"], 100.0, 100.0)
        self.b.pause()
        self.network.calm()
        client.transport.write(b"x")
        self.run_for(0.1)
        self.assertEqual(server.data, b"x")
