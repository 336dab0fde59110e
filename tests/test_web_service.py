"""The server of the ring's page on real sockets: where it listens, whom it lets in, how it ends."""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, clientFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, ResponseNeverReceived, readBody
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from py2p_twisted.service import ChordService
from py2p_twisted.web import WebService, site
from py2p_twisted.web.service import CannotServe

from .certificates import Authority, Pair


class Teller(Protocol):
    """Says something, and remembers all that comes back."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.heard = b""
        self.over: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.text)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(self.heard)


@implementer(IPolicyForHTTPS)
class Policy:
    """How a client connects, whatever the host."""

    def __init__(self, options: Any) -> None:
        self.options = options

    def creatorForNetloc(self, host: bytes, port: int) -> Any:
        return self.options


class ServiceCase(TestCase):
    """Nodes and their servers, stopped in the end."""

    timeout = 30

    def setUp(self) -> None:
        self.parent = MultiService()
        self.parent.startService()
        self.addCleanup(self.parent.stopService)
        self.warned: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"] is LogLevel.warn:
                self.warned.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    async def serve(self, endpoint: str = "0", **how: Any) -> tuple[ChordService, WebService]:
        """A node that founded a ring, and its server."""
        ring = ChordService(reactor, "127.0.0.1", 0, join=[], **how)
        web = WebService(reactor, ring, endpoint)
        ring.setServiceParent(self.parent)
        web.setServiceParent(self.parent)
        await ring.when_ready()
        return ring, web

    def url(self, web: WebService, path: str, scheme: str = "http") -> bytes:
        assert web.port is not None
        return f"{scheme}://127.0.0.1:{web.port.getHost().port}{path}".encode()


class PlainTests(ServiceCase):
    """Without TLS."""

    async def test_answers(self) -> None:
        """A value that was set is read; nobody is warned of what only this machine reaches."""
        ring, web = await self.serve()
        await ring.set("key", b"x" * 1_000_000)
        response = await Agent(reactor).request(b"GET", self.url(web, "/v1/keys/key"))
        self.assertEqual(response.code, 200)
        self.assertEqual(await readBody(response), b"x" * 1_000_000)
        self.assertEqual(self.warned, [])

    async def test_stops(self) -> None:
        """Streams and idle connections are ended with it, and nothing is left."""
        _, web = await self.serve()
        port = web.port
        assert port is not None
        tellers = []
        for text in (b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET", b""):
            endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
            tellers.append(await endpoint.connect(Factory.forProtocol(lambda t=text: Teller(t))))
        while b"event: ring" not in tellers[0].heard:
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.01, pause.callback, None)  # type: ignore[attr-defined]
            await pause
        await web.disownServiceParent()
        for teller in tellers:
            await teller.over
        self.assertEqual(web.site.channels, set())

    async def test_beyond_this_machine(self) -> None:
        """It is warned of, in one line."""
        await self.serve("tcp:0:interface=0.0.0.0")
        (warning,) = self.warned
        self.assertIn("Everyone who reaches tcp:0:interface=0.0.0.0 over HTTP", warning)

    async def test_unix(self) -> None:
        """A socket of the file system: any name will do, since no browser comes that way."""
        path = self.mktemp()[-60:].replace("/", "_")
        _, web = await self.serve(f"unix:{path}")
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        request = b"GET /readyz HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n"
        endpoint = UNIXClientEndpoint(reactor, path)
        teller = await endpoint.connect(Factory.forProtocol(lambda: Teller(request)))
        heard = await teller.over
        self.assertTrue(heard.endswith(b"\r\n\r\nready\n"), heard)
        self.assertEqual(self.warned, [])
        await web.disownServiceParent()

    async def test_in_use(self) -> None:
        """An endpoint that somebody has is told from the node's port."""
        _, web = await self.serve()
        assert web.port is not None
        ring = ChordService(reactor, "127.0.0.1", 0)
        other = WebService(reactor, ring, str(web.port.getHost().port))
        error = self.assertRaises(CannotServe, other.startService)
        self.assertEqual(error.port, web.port.getHost().port)
        await other.stopService()


class TLSTests(ServiceCase):
    """Under the ring's TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.folder = self.authority.directory(self.mktemp())

    def agent(self, pair: Pair | None = None) -> Agent:
        """A client that trusts the authority, and shows a certificate, or none."""
        mine = None
        if pair is not None:
            mine = PrivateCertificate.loadPEM(pair.certificate_pem + pair.key_pem)
        trusted = Certificate.loadPEM(self.authority.pair.certificate_pem)
        return Agent(reactor, Policy(optionsForClientTLS("127.0.0.1", trusted, mine)))

    async def test_members(self) -> None:
        """Who has a certificate of the authority is let in; no warning, wherever it listens."""
        ring, web = await self.serve("tcp:0:interface=0.0.0.0", tls=self.folder)
        await ring.set("key", "value")
        pair = self.authority.issue("somebody.example")
        agent = self.agent(pair)
        response = await agent.request(b"GET", self.url(web, "/v1/keys/key", "https"))
        self.assertEqual((response.code, await readBody(response)), (200, b"value"))
        self.assertEqual(self.warned, [])

    async def test_connections(self) -> None:
        """Connections that do not finish their handshake count, and have their time, too."""
        self.patch(site, "MOST_CONNECTIONS", 2)
        _, web = await self.serve(tls=self.folder)
        assert web.port is not None
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{web.port.getHost().port}")
        tellers = [await endpoint.connect(Factory.forProtocol(lambda: Teller(b""))) for _ in "123"]
        self.assertEqual(await tellers[2].over, b"")
        self.assertEqual([teller.over.called for teller in tellers], [False, False, True])
        for channel in web.site.channels:
            channel.timeoutConnection()
        await tellers[0].over
        await tellers[1].over

    async def test_strangers(self) -> None:
        """Nobody else learns anything, not even whether the node is well."""
        _, web = await self.serve(tls=self.folder)
        for pair in (None, Authority("elsewhere").issue("localhost")):
            with self.assertRaises(ResponseNeverReceived) as caught:
                await self.agent(pair).request(b"GET", self.url(web, "/healthz", "https"))
            self.assertIn("alert", str(caught.exception.reasons[0].value))
        plain = await Agent(reactor).request(b"GET", self.url(web, "/healthz"))
        self.assertEqual(plain.code, 400)
        self.assertIn(b"speaks HTTPS", await readBody(plain))

    async def test_renewed(self) -> None:
        """A renewed certificate is the server's, too, without a restart."""
        ring, web = await self.serve(tls=self.folder)
        new = self.authority.issue("127.0.0.1", "localhost")
        self.authority.write(self.folder, new)
        ring._renewal._look()
        seen: list[Any] = []
        agent = self.agent(self.authority.issue("somebody.example"))
        response = await agent.request(b"GET", self.url(web, "/healthz", "https"))
        seen.append(response._transport._producer.getPeerCertificate())
        await readBody(response)
        self.assertEqual(seen[0].to_cryptography(), new.certificate)

    def test_settings(self) -> None:
        """A certificate of its own is not what the ring has."""
        ring = ChordService(reactor, "127.0.0.1", 0, tls=self.folder)
        self.assertRaises(ValueError, WebService, reactor, ring, "ssl:0")
