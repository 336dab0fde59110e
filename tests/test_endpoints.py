"""How a node reaches the network, in plain text: addresses, names, socket options, words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from py2p_twisted.errors import NetworkMismatch, PeerUnreachable
from py2p_twisted.wire.endpoints import (
    TLS_REFUSAL,
    TwistedEndpoints,
    announced_host,
    is_loopback,
    lan_address,
    looks_like_tls,
    plain_text_met_tls,
    tune,
    unreachable,
)


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Recorder(Protocol):
    """Keeps its connection's options and tells when it was closed."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        tune(self.transport)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost.errback(reason)


class LooksLikeTlsTests(SynchronousTestCase):
    def test_handshake_and_alert_records(self) -> None:
        for first_bytes in (b"\x16\x03\x01\x05\xa7\x01", b"\x16\x03", TLS_REFUSAL):
            self.assertTrue(looks_like_tls(first_bytes), first_bytes)

    def test_everything_else(self) -> None:
        for first_bytes in (
            b"",
            b"\x16",
            b"\x15",
            b"\0\0\0\x40hello",
            b"GET / HTTP/1.1",
            b"\x16\0",
        ):
            self.assertFalse(looks_like_tls(first_bytes), first_bytes)

    def test_a_frame_that_begins_so_would_be_far_too_long(self) -> None:
        self.assertGreater(int.from_bytes(b"\x15\x03\0\0", "big"), 100 * 1024 * 1024)

    def test_the_error_names_both_sides(self) -> None:
        mismatch = plain_text_met_tls("10.0.0.1:4444")
        self.assertIsInstance(mismatch, NetworkMismatch)
        self.assertEqual((mismatch.ours, mismatch.theirs), ("plain text", "TLS"))
        self.assertIn("10.0.0.1:4444", str(mismatch))


class UnreachableTests(SynchronousTestCase):
    def test_each_cause_has_its_words(self) -> None:
        for cause, words in (
            (error.ConnectionRefusedError(), "no node listens there"),
            (error.TimeoutError(), "did not answer in time"),
            (error.TCPTimedOutError(), "did not answer in time"),
            (error.DNSLookupError("x"), "its name is unknown"),
            (error.NoRouteError(), "no route"),
            (error.ConnectionDone(), "closed the connection"),
            (error.ConnectionLost(), "closed the connection"),
            (ValueError("strange"), "strange"),
        ):
            told = unreachable(Failure(cause), "[::1]:4444")
            self.assertIsInstance(told, PeerUnreachable)
            self.assertIn(words, str(told))
            self.assertTrue(str(told).startswith("[::1]:4444 "))


class AnnouncedHostTests(SynchronousTestCase):
    def test_wildcards_become_an_address_of_this_machine(self) -> None:
        self.assertEqual(announced_host("0.0.0.0"), lan_address("0.0.0.0"))
        self.assertEqual(announced_host(""), lan_address("0.0.0.0"))
        self.assertEqual(announced_host("::"), lan_address("::"))

    def test_anything_else_stays(self) -> None:
        for host in ("127.0.0.1", "::1", "node.example", "192.0.2.7"):
            self.assertEqual(announced_host(host), host)

    def test_the_address_can_be_bound(self) -> None:
        for wildcard, family in (("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)):
            if family == socket.AF_INET6 and not has_ipv6():
                continue
            with socket.socket(family) as probe:
                probe.bind((lan_address(wildcard), 0))


class LoopbackTests(SynchronousTestCase):
    def test_who_is_reached_by_this_machine_only(self) -> None:
        for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
            self.assertTrue(is_loopback(host), host)
        for host in ("0.0.0.0", "::", "", "192.0.2.7", "2001:db8::7", "localhost.example", "127.1"):
            self.assertFalse(is_loopback(host), host)


class DiallingTests(SynchronousTestCase):
    """On a reactor in memory: which address is dialled, and for how long."""

    def dial(self, host: str) -> tuple[MemoryReactorClock, Deferred[IProtocol]]:
        reactor = MemoryReactorClock()
        factory = Factory.forProtocol(Recorder)
        return reactor, TwistedEndpoints(reactor, timeout=3.0).connect(host, 4444, factory)

    def test_addresses_are_dialled_at_once(self) -> None:
        for host in ("127.0.0.1", "::1"):
            reactor, _ = self.dial(host)
            ((dialled, port, _, timeout, _),) = reactor.tcpClients
            self.assertEqual((dialled, port, timeout), (host, 4444, 3.0))

    def test_cancelling_gives_up(self) -> None:
        _, dialling = self.dial("127.0.0.1")
        dialling.cancel()
        self.failureResultOf(dialling, error.ConnectingCancelledError)

    def test_interfaces(self) -> None:
        for interface in ("127.0.0.1", "::1", "::", "0.0.0.0"):
            reactor = MemoryReactorClock()
            listening = TwistedEndpoints(reactor).listen(interface, 4444, Factory())
            self.successResultOf(listening)
            ((port, _, backlog, bound),) = reactor.tcpServers
            self.assertEqual(backlog, 1024)  # a burst of strangers makes nobody else wait
            self.assertEqual((port, bound), (4444, interface))


class RealSocketTests(TestCase):
    async def talk(self, interface: str, host: str) -> None:
        from twisted.internet import reactor

        endpoints = TwistedEndpoints(reactor)
        server, answered = Recorder(), Factory()
        answered.buildProtocol = lambda addr: server  # type: ignore[method-assign]
        port: IListeningPort = await endpoints.listen(interface, 0, answered)
        try:
            client = await endpoints.connect(
                host, port.getHost().port, Factory.forProtocol(Recorder)
            )
            assert isinstance(client, Recorder) and client.transport is not None
            self.check_options(client.transport.getHandle())
            client.transport.loseConnection()
            for end in (client, server):
                await self.assertFailure(end.lost, error.ConnectionDone)
        finally:
            await port.stopListening()

    def check_options(self, handle: socket.socket) -> None:
        self.assertTrue(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            timeout = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            self.assertEqual(timeout, 10_000)

    def test_ipv4(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.talk("127.0.0.1", "127.0.0.1"))

    def test_wildcard_is_reached_at_the_announced_address(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.talk("0.0.0.0", announced_host("0.0.0.0")))

    def test_name(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.talk("127.0.0.1", "localhost"))

    def test_ipv6(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.talk("::1", "::1"))

    if not has_ipv6():
        test_ipv6.skip = "this machine has no IPv6 loopback"  # type: ignore[attr-defined]

    async def refused(self) -> None:
        from twisted.internet import reactor

        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            number = unused.getsockname()[1]
            dialling = TwistedEndpoints(reactor).connect("127.0.0.1", number, Factory())
            await self.assertFailure(dialling, error.ConnectionRefusedError)

    def test_refused(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.refused())


class TuneTests(SynchronousTestCase):
    def test_a_transport_without_options_is_left_alone(self) -> None:
        tune(StringTransport())
        tune(Clock())


class ImportTests(SynchronousTestCase):
    def test_the_module_of_certificates_is_not_loaded_for_plain_text(self) -> None:
        program = (
            "import sys; from twisted.internet import reactor;"
            "from py2p_twisted.wire.endpoints import TwistedEndpoints; TwistedEndpoints(reactor);"
            "sys.exit('py2p_twisted.wire.tls' in sys.modules)"
        )
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **path})
        self.assertEqual(done.returncode, 0)
