"""A TLS folder that changes while a node runs: what is taken up, when, and what is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from py2p_twisted.errors import AuthenticationFailed
from py2p_twisted.service import ChordService
from py2p_twisted.wire import renewal
from py2p_twisted.wire.renewal import CHECK_EVERY, LOOK_EVERY, Renewal
from py2p_twisted.wire.tls import Security

from .certificates import Authority, days_from_now


class RenewalCase(SynchronousTestCase):
    """A folder, a clock, a calendar, and what was logged."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.clock = Clock()
        self.today = days_from_now(0)
        self.host = "127.0.0.1"
        self.told: list[tuple[LogLevel, str]] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)
        self.folder = Path(self.mktemp())
        self.issue()
        self.security = Security.from_directory(self.folder)
        self.renewal = Renewal(
            self.clock, self.security, str(self.folder), lambda: self.host, lambda: self.today
        )

    def hear(self, event: dict[str, Any]) -> None:
        if event["log_namespace"].startswith("py2p_twisted"):
            self.told.append((event["log_level"], formatEvent(event)))

    def lines(self) -> list[str]:
        """What was logged since the last call; each a single line."""
        lines = [line for _, line in self.told]
        self.told.clear()
        for line in lines:
            self.assertNotIn("\n", line)
        return lines

    def issue(self, *hosts: str, **dates: datetime) -> None:
        """Put another certificate into the folder."""
        self.authority.directory(str(self.folder), *hosts, **dates)

    def connect(self) -> None:
        """A connection begins, after a while."""
        self.clock.advance(LOOK_EVERY)
        self.security.connection(None)

    @contextmanager
    def taken_up(self, holds: bool = True) -> Iterator[None]:
        before = self.security.certificate
        yield
        self.assertEqual(self.security.certificate != before, holds, self.told)


class LookTests(RenewalCase):
    """When the files are looked at."""

    def test_a_connection_takes_it_up(self) -> None:
        with self.taken_up():
            self.issue("127.0.0.1", valid_to=days_from_now(100))
            self.connect()
        (line,) = self.lines()
        self.assertIn(f"Took up the certificate in {self.folder.absolute()}", line)
        self.assertIn("names 127.0.0.1", line)
        self.assertIn(f"until {days_from_now(100):%Y-%m-%d}", line)

    def test_that_connection_uses_it(self) -> None:
        self.issue(valid_to=days_from_now(100))
        before = self.security.connection(None).get_certificate()
        self.clock.advance(LOOK_EVERY)
        after = self.security.connection(None).get_certificate()
        self.assertNotEqual(before, after)

    def test_the_timer_takes_it_up(self) -> None:
        self.renewal.start()
        with self.taken_up():
            self.issue()
            self.clock.advance(CHECK_EVERY)

    def test_no_more_often_than_that(self) -> None:
        """A thousand connections cost one look."""
        self.connect()
        with patch.object(renewal.os, "stat", side_effect=AssertionError) as stat:
            for _ in range(1000):
                self.security.connection(None)
                self.clock.advance(LOOK_EVERY / 1001)
            stat.assert_not_called()

    def test_nothing_is_read_that_did_not_change(self) -> None:
        self.connect()
        with patch.object(renewal, "read_folder", side_effect=AssertionError):
            for _ in range(5):
                self.connect()
        self.assertEqual(self.lines(), [])

    def test_touched(self) -> None:
        """Other files of the same content are nothing new."""
        with self.taken_up(False):
            for _ in range(3):
                for path in self.folder.iterdir():
                    path.write_bytes(path.read_bytes())
                self.connect()
        self.assertEqual(self.lines(), [])

    def test_changed_before_the_first_look(self) -> None:
        """Between reading the folder at the start and the first connection."""
        self.issue()
        security = Security.from_directory(self.folder)
        self.issue()
        Renewal(self.clock, security, str(self.folder), lambda: "").start()
        self.assertEqual(len(self.lines()), 1)

    def test_a_clock_that_is_set_back(self) -> None:
        self.connect()
        self.clock.rightNow -= 1e6
        with self.taken_up():
            self.issue()
            self.security.connection(None)

    def test_start_and_stop(self) -> None:
        self.renewal.stop()
        self.renewal.start()
        self.renewal.start()
        self.clock.advance(10 * CHECK_EVERY)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.renewal.stop()
        self.renewal.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_authorities_change_too(self) -> None:
        with (self.folder / "ca.pem").open("ab") as opened:
            opened.write(Authority("next").pair.certificate_pem)
        self.connect()
        self.assertEqual(len(self.security.credentials[2]), 2)
        self.assertEqual(len(self.lines()), 1)


class KeepTests(RenewalCase):
    """What is not taken up."""

    def kept(self, *words: str) -> None:
        """The certificate before stays, whatever connects; that is logged once."""
        with self.taken_up(False):
            for _ in range(3):
                self.connect()
                self.clock.advance(CHECK_EVERY)
        (line,) = self.lines()
        for word in (str(self.folder.absolute()), "stays in use", *words):
            self.assertIn(word, line)

    def test_half_written(self) -> None:
        """File after file, as a copy over the network does it."""
        self.renewal.start()
        other = Path(self.authority.directory(self.mktemp()))
        shutil.copy(other / "cert.pem", self.folder)
        self.kept("key.pem is not the private key of")
        with self.taken_up():
            shutil.copy(other / "key.pem", self.folder)
            self.connect()
        self.assertIn("Took up", self.lines()[0])

    def test_damaged(self) -> None:
        self.renewal.start()
        for name in ("ca.pem", "cert.pem", "key.pem"):
            path = self.folder / name
            good = path.read_bytes()
            for bad in (b"", good[:-40], b"\xff"):
                path.write_bytes(bad)
                self.connect()
            path.unlink()
            self.connect()
            self.assertIn("cannot be read", self.lines()[-1])
            path.write_bytes(good)
            self.connect()
            self.assertEqual(self.lines(), [])
        shutil.rmtree(self.folder)
        self.kept("cannot be read")

    def test_refused_by_openssl(self) -> None:
        self.renewal.start()
        with patch.object(Security, "renew", side_effect=ValueError("OpenSSL refuses it")):
            self.issue()
            self.kept("OpenSSL refuses it")

    def test_expired(self) -> None:
        self.renewal.start()
        self.issue(valid_to=days_from_now(-1))
        self.kept(f"The certificate of this node expired on {days_from_now(-1):%Y-%m-%d}")

    def test_not_yet_valid(self) -> None:
        """It is taken up when its day comes."""
        self.renewal.start()
        self.issue(valid_from=days_from_now(2))
        self.kept(f"valid only from {days_from_now(2):%Y-%m-%d}")
        with self.taken_up():
            self.today += timedelta(days=3)
            self.clock.advance(CHECK_EVERY)

    def test_wrong_name(self) -> None:
        self.renewal.start()
        self.issue("192.0.2.9")
        self.kept("does not name '127.0.0.1'; it names 192.0.2.9")

    def test_wrong_name_of_one_that_stores_nothing(self) -> None:
        self.host = ""
        with self.taken_up():
            self.issue("192.0.2.9")
            self.connect()

    def test_no_better_than_before(self) -> None:
        """What is as bad as the one before is taken: an operator may know why."""
        self.issue("192.0.2.9")
        self.host = ""
        self.connect()
        self.host = "127.0.0.1"
        with self.taken_up():
            self.issue("192.0.2.10")
            self.connect()
        self.today += timedelta(days=500)
        with self.taken_up():
            self.issue("192.0.2.11")
            self.connect()


class ExpiryTests(RenewalCase):
    """Warned of in time, once a day."""

    def expiring(self, days: float) -> None:
        self.issue(valid_to=days_from_now(days))
        self.connect()
        self.told.clear()

    def test_in_time(self) -> None:
        self.expiring(14.1)
        self.assertEqual(self.renewal.warning(), "")
        self.today += timedelta(days=0.2)
        self.assertIn("expires on", self.renewal.warning())
        self.assertIn("in 13 days", self.renewal.warning())

    def test_words(self) -> None:
        self.expiring(10)
        for past, words in (
            (5.9, "in 4 days"),
            (8.49, "in 36 hours"),
            (9.95, "in less than two hours"),
            (10.1, "The certificate of this node expired on"),
        ):
            start, self.today = self.today, self.today + timedelta(days=past)
            self.assertIn(words, self.renewal.warning())
            self.assertIn(f"{days_from_now(10):%Y-%m-%d}", self.renewal.warning())
            self.today = start

    def test_the_log_says_it_once_a_day(self) -> None:
        self.expiring(13)
        self.renewal.start()
        self.assertIn("renew the folder", self.lines()[0])
        for _ in range(4):
            self.today += timedelta(hours=23)
            self.clock.advance(CHECK_EVERY)
            self.assertEqual(self.lines(), [])
            self.today += timedelta(hours=2)
            self.clock.advance(CHECK_EVERY)
            self.assertEqual(len(self.lines()), 1)

    def test_the_end_is_said_at_once(self) -> None:
        self.expiring(1)
        self.renewal.start()
        self.lines()
        self.today += timedelta(hours=23.9)
        self.clock.advance(CHECK_EVERY)
        self.assertEqual(self.lines(), [])
        self.today += timedelta(hours=0.2)
        self.clock.advance(CHECK_EVERY)
        self.assertIn("expired on", self.lines()[0])

    def test_renewing_ends_it(self) -> None:
        self.expiring(3)
        self.renewal.start()
        self.lines()
        self.issue()
        self.clock.advance(CHECK_EVERY)
        self.assertEqual(self.renewal.warning(), "")
        self.assertEqual(len(self.lines()), 1)

    def test_an_authority_that_ends_before(self) -> None:
        self.authority = Authority(valid_to=days_from_now(5))
        self.expiring(100)
        self.assertIn("The authority in ca.pem expires on", self.renewal.warning())
        with (self.folder / "ca.pem").open("ab") as opened:  # its successor does not help
            opened.write(Authority("next").pair.certificate_pem)
        self.connect()
        self.assertIn("The authority in ca.pem expires on", self.renewal.warning())


class NodeTests(TestCase):
    """Real nodes, real sockets."""

    timeout = 20

    def setUp(self) -> None:
        self.authority = Authority()
        self.top = Path(self.mktemp())
        self.told: list[tuple[LogLevel, str]] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)

    def hear(self, event: dict[str, Any]) -> None:
        if event["log_namespace"].startswith("py2p_twisted"):
            self.told.append((event["log_level"], formatEvent(event)))

    def start(self, tls: Path, join: list[tuple[str, int]] | None) -> ChordService:
        service = ChordService(reactor, "127.0.0.1", 0, tls=tls, join=join)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def folder(self, name: str, authority: Authority | None = None, **dates: Any) -> Path:
        return Path((authority or self.authority).directory(str(self.top / name), **dates))

    async def test_without_a_restart(self) -> None:
        """The ring moves to another authority while it runs."""
        self.patch(renewal, "LOOK_EVERY", 0.0)
        newer = Authority("newer")
        old, new = self.folder("old"), self.folder("new", newer)
        node = self.start(old, [])
        await node.when_ready()
        stranger = self.start(new, None)
        await self.assertFailure(
            Deferred.fromCoroutine(self.connect(stranger, node)), AuthenticationFailed
        )
        both = newer.pair.certificate_pem + self.authority.pair.certificate_pem
        for folder in (old, new):
            (folder / "ca.pem").write_bytes(both)
        await stranger.connect(*node.out_addr)
        await stranger.set("key", "value")
        self.assertEqual(await node.get("key"), b"value")
        for name in ("cert.pem", "key.pem"):
            shutil.copy(new / name, old / name)
        third = self.start(self.folder("third", newer), [node.out_addr])
        await third.when_ready()
        self.assertEqual(len([1 for _, line in self.told if "Took up" in line]), 3, self.told)

    async def connect(self, node: ChordService, peer: ChordService) -> None:
        await node.connect(*peer.out_addr)

    async def test_status(self) -> None:
        node = self.start(self.folder("good"), [])
        await node.when_ready()
        self.assertEqual(node.status, "Nominal")
        assert node.certificate_expires is not None
        left = node.certificate_expires - days_from_now(300)
        self.assertLess(abs(left.total_seconds()), 60)
        old = self.start(self.folder("old", valid_to=days_from_now(3.5)), None)
        words = "The certificate of this node expires on .*, in 3 days$"
        self.assertRegex(old.status, f"^Not connected .*; {words}")
        await old.connect(*node.out_addr)
        self.assertRegex(old.status, f"^{words}")
        self.assertRegex(
            str([line for level, line in self.told if level is LogLevel.warn]), "renew"
        )
        await old.stopService()
        self.assertEqual(old.status, "Stopped")

    async def test_relative_folder(self) -> None:
        """A folder is meant from where the program was when it said so."""
        folder = self.folder("good")
        service = ChordService(reactor, "127.0.0.1", 0, tls=folder)
        self.assertEqual(service._renewal._folder, str(folder.absolute()))

    async def test_without_a_folder(self) -> None:
        node = ChordService(reactor, "127.0.0.1", 0)
        self.assertIs(node.certificate_expires, None)
