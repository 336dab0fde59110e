"""Who may talk to whom: what *both* sides are told, over real sockets on the loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from py2p_twisted.errors import (
    AuthenticationFailed,
    ChordError,
    NetworkMismatch,
    PeerUnreachable,
)
from py2p_twisted.wire.endpoints import (
    TLS_REFUSAL,
    TwistedEndpoints,
    looks_like_tls,
    plain_text_met_tls,
    tune,
    unreachable,
)
from py2p_twisted.wire.tls import Security

from .certificates import LOOPBACK, Authority, Pair, days_from_now
from .test_endpoints import has_ipv6

FRAME = b"\x00\x00\x00\x10sixteen bytes..."


class Stranger:
    """A TLS peer that is no node of ours; stands where a node has its :class:`Security`."""

    def __init__(self, options: CertificateOptions) -> None:
        self.options = options
        self.explain = Security.self_made().explain

    def client_creator(self, host: str) -> CertificateOptions:
        return self.options

    def server_creator(self) -> CertificateOptions:
        return self.options

    def verify_host(self, transport: object, host: str) -> None:
        """It trusts everyone."""


def stranger(pair: Pair | None, **options: Any) -> Stranger:
    """A peer with this certificate, or none, and these options of Twisted's."""
    if pair is None:
        return Stranger(CertificateOptions(**options))
    options.update(privateKey=pair.key, certificate=pair.certificate)
    return Stranger(CertificateOptions(**options))


class Node(Protocol):
    """Says a frame at once, checks who said one, hangs up, and tells how it ended."""

    def __init__(self, security: Any, announced: str | None) -> None:
        self.security = security
        self.announced = announced
        self.error: ChordError | None = None
        self.heard = b""
        self.done: Deferred[ChordError | None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(FRAME)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.heard += data
        if self.security is None and looks_like_tls(self.heard):
            self.error = plain_text_met_tls("peer")
        elif self.security is not None and self.announced is not None:
            try:
                self.security.verify_host(self.transport, self.announced)
            except AuthenticationFailed as refusal:
                self.error = refusal
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.error is None and self.heard != FRAME:
            explain = unreachable if self.security is None else self.security.explain
            self.error = explain(reason, "peer")
        self.done.callback(self.error)


class Listener(Protocol):
    """Says something, never hangs up, and tells everything that it heard."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.heard = b""
        self.done: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.said)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.done.callback(self.heard)


def only(protocol: Protocol | None) -> Factory:
    """A factory for one connection."""
    factory = Factory()
    factory.buildProtocol = lambda addr: protocol  # type: ignore[method-assign]
    return factory


async def meet(
    server_security: Any,
    client_security: Any,
    announced: str | None = None,
    host: str = "127.0.0.1",
) -> tuple[ChordError | None, ChordError | None]:
    """Let a client dial a server; what the server and the client were told."""
    from twisted.internet import reactor

    server, client = Node(server_security, announced), Node(client_security, None)
    port = await TwistedEndpoints(reactor, server_security).listen(host, 0, only(server))
    try:
        number = port.getHost().port
        await TwistedEndpoints(reactor, client_security).connect(host, number, only(client))
        both = gatherResults([server.done, client.done]).addTimeout(5, reactor)
        server_told, client_told = await both
    finally:
        await port.stopListening()
    return server_told, client_told


class Told(NamedTuple):
    """What one side is told."""

    kind: type[ChordError]
    words: str


def refused(words: str) -> Told:
    return Told(AuthenticationFailed, words)


def mismatched(words: str) -> Told:
    return Told(NetworkMismatch, words)


class MeetingTests(TestCase):
    """Each test is a row: a server, a client, and what either is told (None: they talked)."""

    timeout = 10

    def setUp(self) -> None:
        self.authority = Authority()

    def node(self, *hosts: str, authority: Authority | None = None, **dates: Any) -> Security:
        folder = (authority or self.authority).directory(self.mktemp(), *hosts, **dates)
        return Security.from_directory(folder)

    def holder(self, pair: Pair) -> Security:
        return Security.from_directory(self.authority.write(self.mktemp(), pair))

    async def row(
        self,
        server: Any,
        client: Any,
        server_told: Told | None,
        client_told: Told | None,
        **how: Any,
    ) -> None:
        told = await meet(server, client, **how)
        for side, got, expected in zip(
            ("server", "client"), told, (server_told, client_told), strict=True
        ):
            if expected is None:
                self.assertIsNone(got, side)
                continue
            self.assertIsInstance(got, expected.kind, side)
            self.assertIn(expected.words, str(got), f"{side} was told: {got}")

    async def test_good(self) -> None:
        await self.row(self.node(), self.node(), None, None, announced="127.0.0.1")

    async def test_socket_options_under_tls(self) -> None:
        from twisted.internet import reactor

        security = self.node()
        endpoints = TwistedEndpoints(reactor, security)
        server, client = Node(security, None), Node(security, None)
        port = await endpoints.listen("127.0.0.1", 0, only(server))
        self.addCleanup(port.stopListening)
        await endpoints.connect("127.0.0.1", port.getHost().port, only(client))
        for transport in (server.transport, client.transport):
            tune(transport)
            self.assertTrue(transport.getTcpNoDelay())
            self.assertTrue(transport.getTcpKeepAlive())
        await gatherResults([server.done, client.done])

    async def test_good_by_name(self) -> None:
        await self.row(
            self.node(), self.node(), None, None, host="localhost", announced="localhost"
        )

    async def test_good_over_ipv6(self) -> None:
        await self.row(self.node(), self.node(), None, None, host="::1", announced="::1")

    async def test_wrong_address_over_ipv6(self) -> None:
        await self.row(
            self.node("::2"),
            self.node(),
            refused("does not name the host that was dialled (ours names ::2 "),
            refused("does not name '::1'; it names ::2"),
            host="::1",
        )

    if not has_ipv6():
        test_good_over_ipv6.skip = "no IPv6 loopback"  # type: ignore[attr-defined]
        test_wrong_address_over_ipv6.skip = "no IPv6 loopback"  # type: ignore[attr-defined]

    async def test_certificates_without_authority_only_encrypt(self) -> None:
        await self.row(Security.self_made(), Security.self_made(), None, None, announced="anyone")

    async def test_server_of_another_authority(self) -> None:
        await self.row(
            self.node(authority=Authority("elsewhere")),
            self.node(),
            refused("refused our certificate: it does not know the authority"),
            refused("the certificate of peer is signed by an authority that is not our ca.pem"),
        )

    async def test_server_of_another_authority_with_the_same_name(self) -> None:
        await self.row(
            self.node(authority=Authority()),
            self.node(),
            refused("refused our certificate: its signature is not by the other's ca.pem"),
            refused("peer is signed by another authority of our ca.pem's name"),
        )

    async def test_client_of_another_authority(self) -> None:
        elsewhere = Authority("elsewhere").issue(*LOOPBACK)
        await self.row(
            self.node(),
            stranger(elsewhere),
            refused("the certificate of peer is signed by an authority that is not our ca.pem"),
            refused("refused our certificate: it does not know the authority"),
        )

    async def test_client_whose_certificate_is_self_made(self) -> None:
        await self.row(
            self.node(),
            Security.self_made(),
            refused("the certificate of peer is self-signed"),
            refused("this node was started without a TLS folder"),
        )

    async def test_server_whose_certificate_is_self_made(self) -> None:
        await self.row(
            Security.self_made(),
            self.node(),
            refused("this node was started without a TLS folder"),
            refused("the certificate of peer is self-signed"),
        )

    async def test_client_without_certificate(self) -> None:
        await self.row(
            self.node(),
            stranger(None),
            refused("peer showed no certificate"),
            refused("no certificate was shown to it"),
        )

    async def test_server_that_does_not_name_the_dialled_host(self) -> None:
        await self.row(
            self.node("192.0.2.1", "other.example"),
            self.node(),
            refused("ours names 192.0.2.1, other.example "),
            refused("does not name '127.0.0.1'; it names 192.0.2.1, other.example"),
        )

    async def test_server_that_names_nobody(self) -> None:
        await self.row(
            self.holder(self.authority.issue()),
            self.node(),
            refused("ours names no host "),
            refused("does not name '127.0.0.1'; it names no host"),
        )

    async def test_client_that_does_not_name_the_host_it_announces(self) -> None:
        for announced in ("192.0.2.9", "2001:db8::9", "other.example", "not a host", "\n", ""):
            await self.row(
                self.node(),
                self.node(),
                refused(f"does not name {announced!r}; it names 127.0.0.1, ::1, localhost"),
                None,
                announced=announced,
            )

    async def test_client_that_names_nobody(self) -> None:
        nobody = self.holder(self.authority.issue())
        await self.row(self.node(), nobody, None, None)
        await self.row(
            self.node(), nobody, refused("it names no host"), None, announced="127.0.0.1"
        )

    async def test_expired_server(self) -> None:
        await self.row(
            self.node(valid_to=days_from_now(-2)),
            self.node(),
            refused("refused our certificate: it has expired"),
            refused(f"the certificate of peer expired on {days_from_now(-2):%Y-%m-%d}"),
        )

    async def test_expired_client(self) -> None:
        await self.row(
            self.node(),
            self.node(valid_to=days_from_now(-2)),
            refused(f"the certificate of peer expired on {days_from_now(-2):%Y-%m-%d}"),
            refused("refused our certificate: it has expired"),
        )

    async def test_authority_that_expired(self) -> None:
        old = Authority(valid_to=days_from_now(-1))
        node = Security.from_directory(old.directory(self.mktemp()))
        server_told, client_told = await meet(node, node)
        self.assertIsInstance(server_told, AuthenticationFailed)
        self.assertIn("is signed by an authority whose certificate expired on", str(client_told))

    async def test_server_that_is_not_yet_valid(self) -> None:
        await self.row(
            self.node(valid_from=days_from_now(2)),
            self.node(),
            refused(f"not yet valid: check the dates and the clocks (ours names {LOOPBACK[0]}"),
            refused(f"peer is valid only from {days_from_now(2):%Y-%m-%d}"),
        )

    async def test_client_that_is_not_yet_valid(self) -> None:
        await self.row(
            self.node(),
            self.node(valid_from=days_from_now(2)),
            refused(f"peer is valid only from {days_from_now(2):%Y-%m-%d}"),
            refused(f"valid from {days_from_now(2):%Y-%m-%d}"),
        )

    async def test_client_whose_certificate_is_for_servers_only(self) -> None:
        one_way = self.authority.issue(*LOOPBACK, uses=(ExtendedKeyUsageOID.SERVER_AUTH,))
        words = "must serve for both ends (serverAuth and clientAuth)"
        await self.row(self.node(), self.holder(one_way), refused(words), refused(words))

    async def test_tls_client_and_plain_server(self) -> None:
        await self.row(
            None, self.node(), mismatched("peer speaks TLS"), mismatched("peer speaks plain text")
        )

    async def test_plain_client_and_tls_server(self) -> None:
        for security in (self.node(), Security.self_made()):
            await self.row(
                security, None, mismatched("peer speaks plain text"), mismatched("peer speaks TLS")
            )

    async def test_older_tls(self) -> None:
        pair = self.authority.issue(*LOOPBACK)
        older = stranger(pair, lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
        words = mismatched("does not speak TLS 1.3")
        await self.row(self.node(), older, words, words)
        await self.row(older, self.node(), words, words)

    async def test_what_is_not_tls_is_answered_with_one_alert(self) -> None:
        from twisted.internet import reactor

        anyone = Factory.forProtocol(Protocol)
        port = await TwistedEndpoints(reactor, self.node()).listen("127.0.0.1", 0, anyone)
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        for said in (b"\0", b"\x80\x2e\x01", b"GET / HTTP/1.0\r\n\r\n", b"\x17\x03\x03"):
            client = Listener(said)
            await TwistedEndpoints(reactor).connect("127.0.0.1", number, only(client))
            self.assertEqual(await client.done, TLS_REFUSAL)

    async def test_a_full_house_closes_the_connection(self) -> None:
        from twisted.internet import reactor

        security = self.node()
        endpoints = TwistedEndpoints(reactor, security)
        port = await endpoints.listen("127.0.0.1", 0, only(None))
        self.addCleanup(port.stopListening)
        client = Node(security, None)
        await endpoints.connect("127.0.0.1", port.getHost().port, only(client))
        self.assertIsInstance(await client.done, PeerUnreachable)


class FolderTests(SynchronousTestCase):
    """Every defect of a TLS folder is one sentence that names the file."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = Path(self.authority.directory(self.mktemp()))

    def refusal(self) -> str:
        refusal = self.assertRaises(ValueError, Security.from_directory, self.folder)
        self.assertNotIn("\n", str(refusal))
        return str(refusal)

    def test_good(self) -> None:
        self.assertTrue(Security.from_directory(self.folder).authenticated)
        self.assertTrue(Security.from_directory(str(self.folder)).authenticated)
        self.assertFalse(Security.self_made().authenticated)

    def test_missing(self) -> None:
        for name in ("key.pem", "cert.pem", "ca.pem"):
            (self.folder / name).unlink()
            self.assertIn(f"{self.folder / name} cannot be read (No such file", self.refusal())
            self.assertIn("ca.pem, cert.pem and key.pem", self.refusal())

    def test_unreadable(self) -> None:
        (self.folder / "cert.pem").unlink()
        (self.folder / "cert.pem").mkdir()
        self.assertIn(f"{self.folder / 'cert.pem'} cannot be read (Is a directory)", self.refusal())

    def test_garbled(self) -> None:
        for name, expected in (
            ("key.pem", "no private key in PEM form"),
            ("cert.pem", "no certificate in PEM form"),
            ("ca.pem", "no certificate in PEM form"),
        ):
            for content in (b"", b"hello", b"\xff\x00", self.halved(name)):
                (self.folder / name).write_bytes(content)
                self.assertIn(f"{self.folder / name} holds {expected}", self.refusal())

    def halved(self, name: str) -> bytes:
        whole = Path(self.authority.directory(self.mktemp())) / name
        return whole.read_bytes()[:150]

    def test_swapped(self) -> None:
        (self.folder / "cert.pem").replace(self.folder / "ca.pem")
        (self.folder / "cert.pem").write_bytes((self.folder / "key.pem").read_bytes())
        self.assertIn("cert.pem holds no certificate", self.refusal())

    def test_key_of_another_certificate(self) -> None:
        (self.folder / "key.pem").write_bytes(self.authority.issue(*LOOPBACK).key_pem)
        self.assertIn("key.pem is not the private key of", self.refusal())

    def test_certificate_of_another_authority(self) -> None:
        (self.folder / "ca.pem").write_bytes(Authority().pair.certificate_pem)
        self.assertIn("cert.pem is not signed by the authority in", self.refusal())

    def test_key_with_a_password(self) -> None:
        pair = self.authority.issue(*LOOPBACK)
        locked = pair.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        (self.folder / "key.pem").write_bytes(locked)
        self.assertIn("key.pem is protected by a password", self.refusal())

    def test_a_key_that_openssl_finds_too_short(self) -> None:
        """It is found out when the folder is read, not when the first peer connects."""
        key = rsa.generate_private_key(65537, 1024)
        short = self.authority.certify(key, "localhost")
        (self.folder / "cert.pem").write_bytes(short.public_bytes(serialization.Encoding.PEM))
        (self.folder / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.assertIn("OpenSSL refuses the certificate or its key: ", self.refusal())
        self.assertIn("key too small", self.refusal())

    def test_several_authorities(self) -> None:
        with (self.folder / "ca.pem").open("ab") as ca_file:
            ca_file.write(Authority("next year's").pair.certificate_pem)
        self.assertTrue(Security.from_directory(self.folder).authenticated)


class ExplainTests(SynchronousTestCase):
    """The words of other versions of OpenSSL, and what is none of TLS's business."""

    def test_words_of_openssl(self) -> None:
        security = Security.self_made()
        for words, kind in (
            ("tlsv13 alert certificate required", AuthenticationFailed),
            ("tlsv1 alert unknown ca", AuthenticationFailed),
            ("sslv3 alert certificate expired", AuthenticationFailed),
            ("ssl/tls alert bad certificate", AuthenticationFailed),
            ("peer did not return a certificate", AuthenticationFailed),
            ("wrong version number", NetworkMismatch),
            ("packet length too long", NetworkMismatch),
            ("http request", NetworkMismatch),
            ("tlsv1 alert protocol version", NetworkMismatch),
            ("unsupported protocol", NetworkMismatch),
            ("ssl/tls alert handshake failure", NetworkMismatch),
            ("decryption failed or bad record mac", PeerUnreachable),
        ):
            failure = Failure(SSL.Error([("SSL routines", "", words)]))
            told = security.explain(failure, "127.0.0.1:4444")
            self.assertIs(type(told), kind, words)
            self.assertIn("127.0.0.1:4444", str(told))

    def test_an_empty_error_queue(self) -> None:
        for failure in (Failure(SSL.Error([])), Failure(SSL.SysCallError(-1, "Unexpected EOF"))):
            told = Security.self_made().explain(failure, "127.0.0.1:4444")
            self.assertIsInstance(told, PeerUnreachable)

    def test_a_lost_connection(self) -> None:
        for lost in (error.ConnectionLost(), error.ConnectionDone(), error.TimeoutError()):
            told = Security.self_made().explain(Failure(lost), "127.0.0.1:4444")
            self.assertIsInstance(told, PeerUnreachable)

    def test_our_own_errors_pass(self) -> None:
        ours = NetworkMismatch("k differs")
        self.assertIs(Security.self_made().explain(Failure(ours), "127.0.0.1:4444"), ours)
