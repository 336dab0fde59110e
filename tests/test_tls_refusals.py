"""Who does not belong: a table of real nodes that a ring's node refuses, whoever dials.

Each row is a node that is wrong in one way.  Both its user and the ring's are told what is wrong:
the one who dials by an error and by a line of its log, the other by a line of its log.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

from twisted.internet import reactor, threads
from twisted.internet.defer import Deferred
from twisted.internet.ssl import TLSVersion
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from py2p_twisted.base import protocol
from py2p_twisted.errors import AuthenticationFailed, ChordError, NetworkMismatch
from py2p_twisted.service import ChordService
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.endpoints import TwistedEndpoints
from py2p_twisted.wire.messages import Ask, Ping

from .certificates import LOOPBACK, Authority, days_from_now
from .processes import eventually
from .test_tls import stranger

SSL, OTHER = protocol("chord", "SSL"), protocol("other", "SSL")
ELSEWHERE = "elsewhere.example"


class Row(NamedTuple):
    """A node that is refused: how to make it, and what its user and the ring's are told.

    :ivar mutual: neither would have the other, so the one who dials, and sees first, refuses.
    :ivar dials: try it when it dials, and when it is dialled.
    """

    make: Callable[[RefusalTests], dict[str, Any]]
    error: type[ChordError]
    at_ring: tuple[str, ...]
    at_stranger: tuple[str, ...]
    mutual: bool = False
    dials: tuple[bool, ...] = (True, False)


def folder(*hosts: str, **dates: float) -> Callable[[RefusalTests], dict[str, Any]]:
    """A node with a certificate of the ring's authority."""

    def make(case: RefusalTests) -> dict[str, Any]:
        when = {name: days_from_now(days) for name, days in dates.items()}
        return {"tls": case.authority.directory(case.mktemp(), *hosts, **when)}

    return make


def of_authority(name: str) -> Callable[[RefusalTests], dict[str, Any]]:
    """A node with a certificate of another authority."""
    return lambda case: {"tls": Authority(name).directory(case.mktemp())}


def of_authority_that_trusts_ours(case: RefusalTests) -> dict[str, Any]:
    """A node with a certificate of another authority, that would have the ring's nodes."""
    mine = Path(Authority("elsewhere").directory(case.mktemp()))
    with (mine / "ca.pem").open("ab") as opened:
        opened.write(case.authority.pair.certificate_pem)
    return {"tls": str(mine)}


def without_certificate(case: RefusalTests) -> dict[str, Any]:
    """A node that shows no certificate at all."""
    endpoints = TwistedEndpoints(reactor, stranger(None))  # type: ignore[arg-type]
    return {"prot": SSL, "endpoints": endpoints}


def older_tls(case: RefusalTests) -> dict[str, Any]:
    """A node with a good certificate and an old OpenSSL."""
    pair = case.authority.issue(*LOOPBACK)
    old = stranger(pair, lowerMaximumSecurityTo=TLSVersion.TLSv1_2)
    endpoints = TwistedEndpoints(reactor, old)  # type: ignore[arg-type]
    return {"tls": case.authority.write(case.mktemp(), pair), "endpoints": endpoints}


def day(days: float) -> str:
    return f"{days_from_now(days):%Y-%m-%d}"


ROWS = {
    "no_certificate": Row(
        without_certificate,
        AuthenticationFailed,
        ("showed no certificate: it needs a TLS folder",),
        ("refused our certificate: no certificate was shown to it",),
        dials=(True,),
    ),
    # OpenSSL has no TLS 1.3 for a server without one, and says so.
    "no_certificate_at_all": Row(
        without_certificate,
        NetworkMismatch,
        ("does not speak TLS 1.3 with a certificate",),
        ("does not speak TLS 1.3 with a certificate",),
        dials=(False,),
    ),
    "self_made": Row(
        lambda case: {"prot": SSL},
        AuthenticationFailed,
        ("the certificate of ", "is self-signed"),
        ("refused our certificate", "ours is self-made"),
    ),
    "other_authority": Row(
        of_authority("elsewhere"),
        AuthenticationFailed,
        ("is signed by an authority that is not our ca.pem", "give both nodes the same"),
        ("refused our certificate: it does not know the authority",),
        mutual=True,
    ),
    "other_authority_that_trusts_ours": Row(
        of_authority_that_trusts_ours,
        AuthenticationFailed,
        ("is signed by an authority that is not our ca.pem", "give both nodes the same"),
        ("refused our certificate: it does not know the authority",),
    ),
    "other_authority_of_the_same_name": Row(
        of_authority("test authority"),
        AuthenticationFailed,
        ("is signed by another authority of our ca.pem's name",),
        ("refused our certificate: its signature is not by the other's ca.pem",),
        mutual=True,
    ),
    "expired": Row(
        folder(valid_to=-2),
        AuthenticationFailed,
        ("the certificate of ", f"expired on {day(-2)}"),
        ("refused our certificate: it has expired", day(-2)),
    ),
    "not_yet_valid": Row(
        folder(valid_from=2),
        AuthenticationFailed,
        ("the certificate of ", f"is valid only from {day(2)}"),
        ("refused our certificate", "not yet valid", day(2)),
    ),
    "other_subnet": Row(
        lambda case: {**folder()(case), "prot": OTHER},
        NetworkMismatch,
        ("belongs to another network: subnet is 'chord' here and 'other' there",),
        ("belongs to another network: subnet is 'other' here and 'chord' there",),
    ),
    "plain_text": Row(
        lambda case: {},
        NetworkMismatch,
        ("speaks plain text and this node TLS",),
        ("speaks TLS and this node plain text",),
    ),
    "tls_1_2": Row(
        older_tls,
        NetworkMismatch,
        ("does not speak TLS 1.3",),
        ("does not speak TLS 1.3",),
    ),
}


class RefusalTests(TestCase):
    """The table, and the names of hosts."""

    timeout = 20

    def setUp(self) -> None:
        self.authority = Authority()
        self.told: list[tuple[str, str]] = []  # the port of the node that tells, and what
        self.failures: list[Any] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)
        self.good = {"tls": self.authority.directory(self.mktemp())}

    def hear(self, event: dict[str, Any]) -> None:
        if event.get("log_failure") is not None:
            self.failures.append(event)
        if event["log_namespace"].startswith("py2p_twisted"):
            self.told.append((event["log_namespace"], formatEvent(event)))

    def start(self, join: Any = None, **how: Any) -> ChordService:
        service = ChordService(reactor, "127.0.0.1", 0, join=join, **how)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def error_of(self, operation: Deferred[Any]) -> ChordError:
        try:
            await operation
        except ChordError as error:
            return error
        self.fail("nobody was refused")

    async def line(self, begin: str) -> str:
        """A line of the log that begins so, once there is one."""

        def found() -> list[str]:
            return [line for _, line in self.told if line.startswith(begin)]

        await eventually(found, begin, 5)
        (first, *_) = found()
        self.assertNotIn("\n", first)
        return first

    async def refuse(self, row: Row, *, stranger_dials: bool) -> None:
        """Try it, and hold both sides against the row."""
        strange = row.make(self)
        mine, theirs = (strange, self.good) if stranger_dials else (self.good, strange)
        at_dialler, at_dialled = row.at_ring, row.at_stranger
        if stranger_dials and not row.mutual:
            at_dialler, at_dialled = at_dialled, at_dialler
        dialled = self.start(**theirs)
        dialler = self.start(join=[dialled.out_addr], **mine)
        ready = dialler.when_ready()
        logged = await self.line("Cannot join yet: ")
        error = await self.error_of(dialler.connect(*dialled.out_addr))
        self.assertIs(type(error), row.error, error)
        refusal = await self.line("A peer was refused: ")
        for words, texts in ((at_dialler, (str(error), logged)), (at_dialled, (refusal,))):
            for word in words:
                for text in texts:
                    self.assertIn(word, text)
        self.assertNotIn("\n", str(error))
        self.assertEqual((dialler.links(), dialled.links()), ([], []))
        self.assertFalse(ready.called)
        ready.cancel()
        ready.addErrback(lambda _: None)
        self.assertEqual(self.failures, [])

    async def test_good(self) -> None:
        """The same nodes belong together when nothing is wrong."""
        dialled = self.start(join=[], **self.good)
        dialler = self.start(join=[dialled.out_addr], **folder()(self))
        await dialler.when_ready()
        self.assertEqual([line for _, line in self.told if "refused" in line], [])

    async def test_wrong_name_of_who_is_dialled(self) -> None:
        row = Row(
            folder(ELSEWHERE),
            AuthenticationFailed,
            (f"does not name '127.0.0.1'; it names {ELSEWHERE}",),
            ("refused our certificate", "does not name the host that was dialled", ELSEWHERE),
        )
        await self.refuse(row, stranger_dials=False)

    async def test_wrong_name_of_who_stores(self) -> None:
        """A member's certificate is held against what it announces; here it lies."""
        ring = self.start(join=[], **self.good)
        liar = self.start(join=[], out_addr=(ELSEWHERE, 4444), **folder(ELSEWHERE)(self))
        await liar.when_ready()
        liar.node.core.name("127.0.0.1", 4444)
        error = await self.error_of(liar.connect(*ring.out_addr))
        self.assertIs(type(error), AuthenticationFailed)
        words = f"the certificate of the peer does not name '127.0.0.1'; it names {ELSEWHERE}"
        self.assertIn(f"refused this node: {words}", str(error))
        self.assertIn(words, await self.line("A peer was refused: "))
        self.assertEqual((liar.links(), ring.links()), ([], []))

    async def test_wrong_name_of_who_begins_to_store(self) -> None:
        """It was let in as one that stores nothing."""
        ring = self.start(join=[], **self.good)
        liar = self.start(**folder(ELSEWHERE)(self))
        await liar.connect(*ring.out_addr)
        await liar.set("key", "value")
        self.patch(liar.node.links, "check_own_name", lambda: None)
        joining = liar.join()
        words = f"the certificate of the peer does not name '127.0.0.1'; it names {ELSEWHERE}"
        self.assertIn(words, await self.line("A peer was refused: "))
        await eventually(lambda: not ring.links(), "the liar is gone", 5)
        joining.addErrback(lambda _: None)
        joining.cancel()

    async def test_who_stores_nothing_may_have_any_name(self) -> None:
        ring = self.start(join=[], **self.good)
        reader = self.start(**folder(ELSEWHERE)(self))
        await reader.connect(*ring.out_addr)
        await reader.set("key", "value")
        self.assertEqual(await ring.get("key"), b"value")

    async def test_sessions_are_not_resumed(self) -> None:
        """Whoever belonged once shows the certificate each time."""
        ring = self.start(join=[], **self.good)
        reused = await threads.deferToThread(self.connect_twice, ring.out_addr[1])
        self.assertEqual(reused, [False, False])

    def connect_twice(self, port: int) -> list[bool | None]:
        """Shake hands twice, the second time with the session of the first."""
        no_hello = encode(Ask(1, Ping()))
        mine = Path(self.good["tls"])
        context = ssl.create_default_context(cafile=str(mine / "ca.pem"))
        context.load_cert_chain(mine / "cert.pem", mine / "key.pem")
        reused, session = [], None
        for _ in range(2):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as talk,
            ):
                talk.sendall(pack("!I", len(no_hello)) + no_hello)
                while talk.recv(4096):
                    pass  # it is refused
                session = talk.session
                reused.append(talk.session_reused)
        assert session is not None and session.has_ticket
        return reused


def _add(name: str, row: Row, *, stranger_dials: bool) -> None:
    """Make a test of a row."""

    async def test(self: RefusalTests) -> None:
        await self.refuse(row, stranger_dials=stranger_dials)

    test.__doc__ = (
        f"A stranger, {name.replace('_', ' ')}: {'it dials' if stranger_dials else 'dialled'}."
    )
    setattr(RefusalTests, f"test_{name}_{'dials' if stranger_dials else 'dialled'}", test)


for _name, _row in ROWS.items():
    for _dials in _row.dials:
        _add(_name, _row, stranger_dials=_dials)
