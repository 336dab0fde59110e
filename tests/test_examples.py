"""The examples, as processes of their own, as somebody would run them who copies them."""

from __future__ import annotations

import json
import random
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from py2p_twisted.service import ChordService

from .processes import eventually
from .test_plugin import ROOT, environment

EXAMPLES = ROOT / "examples"


class Example:
    """One process of an example; its port is a free one."""

    def __init__(self, log: Path, name: str, *arguments: str, **variables: str) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLES / f"{name}.py"), "--port=0", *arguments],
                cwd=log.parent,
                env={**environment(), **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def says(self, pattern: str) -> re.Match[str] | None:
        """The last line so far that matches."""
        found = list(re.finditer(pattern, self.log.read_text(errors="replace")))
        return found[-1] if found else None

    async def said(self, pattern: str) -> str:
        """Wait until it says that; the group, if there is one, or the whole."""
        await eventually(lambda: self.says(pattern), f"{pattern!r} from {self.log.name}")
        match = self.says(pattern)
        assert match is not None
        return match[match.lastindex or 0]


class ExampleCase(TestCase):
    """Processes in a folder of their own, none of which outlives its test."""

    timeout = 60

    def setUp(self) -> None:
        """No process yet."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.started: list[Example] = []

    def tearDown(self) -> None:
        """End them all."""
        for example in self.started:
            example.process.kill()
            example.process.wait()

    def start(self, name: str, *arguments: str, **variables: str) -> Example:
        """Start one more."""
        log = self.folder / f"{name}-{len(self.started)}.log"
        self.started.append(Example(log, name, *arguments, **variables))
        return self.started[-1]

    async def ring(self, name: str, number: int, *arguments: str, **variables: str) -> list[str]:
        """Start so many in one ring; where their nodes listen."""
        first = self.start(name, *arguments, **variables)
        where = await first.said(r"Founded ring .* at (\S+)\.")
        for _ in range(number - 1):
            self.start(name, f"--join={where}", *arguments, **variables)
        for example in self.started[1:]:
            await example.said(r"Joined ring")
        return [where]

    async def client(self, where: str) -> ChordService:
        """A node of this process, connected to that ring."""
        from twisted.internet import reactor

        client = ChordService(reactor, "127.0.0.1", 0)
        client.startService()
        self.addCleanup(client.stopService)
        host, _, port = where.rpartition(":")
        await client.connect(host, int(port))
        return client

    async def all_stop(self) -> None:
        """They stop in good order."""
        for example in self.started:
            example.process.send_signal(signal.SIGTERM)
        for example in self.started:
            await eventually(lambda one=example: one.process.poll() is not None, "it stops")
            self.assertEqual(example.process.returncode, 0, example.log.read_text())
            self.assertIsNone(example.says("Traceback|Unhandled"), example.log.read_text())


class TestSessions(ExampleCase):
    """Web sessions that all servers know."""

    async def visit(
        self, url: str, cookie: str = "", method: str = "GET", body: str = ""
    ) -> tuple[int, str, str]:
        """What a browser does: the code, the session's cookie, the page."""
        from twisted.internet import reactor

        headers = Headers({"Cookie": [f"session={cookie}"]} if cookie else {})
        headers.addRawHeader("Content-Type", "application/x-www-form-urlencoded")
        response = await Agent(reactor).request(
            method.encode(), url.encode(), headers, FileBodyProducer(BytesIO(body.encode()))
        )
        page = (await readBody(response)).decode()
        for line in response.headers.getRawHeaders("Set-Cookie", []):
            self.assertIn("; HttpOnly", line)
            cookie = line.partition(";")[0].removeprefix("session=")
        return response.code, cookie, page

    async def test_known_at_the_other(self) -> None:
        """Log in at one, be known at the other, and log out there; what is over is swept."""
        (where,) = await self.ring("sessions", 1, "--web=0", PASSWORD="secret")
        client = await self.client(where)
        await client.set("session:of yesterday", json.dumps({"user": "eve", "until": 1.0}))
        self.start("sessions", f"--join={where}", "--web=0", PASSWORD="secret")
        one, other = [await each.said(r"ready: (http://\S+/)") for each in self.started]
        await self.started[1].said("1 sessions were over")
        self.assertEqual(await client.count(), 0)

        code, _, page = await self.visit(f"{one}login", "", "POST", "user=ada&password=guess")
        self.assertEqual((code, "Wrong" in page), (403, True))
        _, cookie, _ = await self.visit(f"{one}login", "", "POST", "user=%3Cada&password=secret")
        self.assertIn("Hello &lt;ada.", (await self.visit(other, cookie))[2])
        self.assertNotIn("Hello", (await self.visit(other))[2])
        self.assertNotIn(cookie.encode(), b"".join([key async for key, _ in client.items()]))
        await self.visit(f"{other}logout", cookie, "POST")
        self.assertNotIn("Hello", (await self.visit(one, cookie))[2])
        await self.all_stop()


class TestExpiry(SynchronousTestCase):
    """How long a session lasts, on a clock of its own."""

    def setUp(self) -> None:
        """Somebody logs in."""
        example = runpy.run_path(str(EXAMPLES / "sessions.py"))
        self.clock = task.Clock()
        self.ring = Register()
        self.sessions = example["Sessions"](self.ring, 100.0, self.clock.seconds)
        self.token = self.now(self.sessions.begin("ada"))

    def now(self, coroutine: Any) -> Any:
        """What it comes to, at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def user(self) -> str | None:
        """Who the token stands for."""
        return self.now(self.sessions.user(self.token))

    def test_who_comes_back_stays(self) -> None:
        """A session lasts as long as it is used; a write is not needed each time."""
        for _ in range(10):
            self.clock.advance(60)
            self.assertEqual(self.user(), "ada")
        writes = self.ring.writes
        self.clock.advance(40)
        self.assertEqual((self.user(), self.ring.writes), ("ada", writes))

    def test_over(self) -> None:
        """It is over at its time, and swept only then."""
        self.clock.advance(99)
        self.assertEqual(self.now(self.sessions.sweep()), 0)
        self.clock.advance(1)
        self.assertIsNone(self.user())
        self.assertEqual((self.now(self.sessions.sweep()), self.ring.kept), (1, {}))

    def test_logged_out_while_it_is_renewed(self) -> None:
        """A session that ends at another server at the same moment stays ended."""
        self.clock.advance(60)
        self.ring.before_write = self.ring.kept.clear
        self.assertEqual(self.user(), "ada")
        self.assertEqual(self.ring.kept, {})

    def test_renewed_while_it_is_swept(self) -> None:
        """A sweep leaves what was renewed since it was read."""
        self.clock.advance(100)
        ((key, _),) = self.ring.kept.items()
        later = json.dumps({"user": "ada", "until": 300.0}).encode()
        self.ring.before_write = lambda: self.ring.kept.update({key: later})
        self.assertEqual(self.now(self.sessions.sweep()), 0)
        self.assertEqual(self.user(), "ada")


class TestConfiguration(ExampleCase):
    """A configuration that many watch."""

    async def test_everywhere(self) -> None:
        """A change arrives at all; nonsense changes nothing, whoever writes it."""
        (where,) = await self.ring("configuration", 2)
        users = list(self.started)
        for user in users:
            await user.said("begins with .*level='info', rate=10")

        changed = self.start(
            "configuration", f"--join={where}", "--set=level=debug", "--set=rate=50"
        )
        for user in users:
            await user.said("runs with .*level='debug', rate=50")
        for wrong in ("--set=rate=5000", "--set=rte=50"):
            refused = self.start("configuration", f"--join={where}", wrong)
            await refused.said("nothing was changed: ")
            await eventually(lambda one=refused: one.process.poll() is not None, "it ends")
            self.assertEqual(refused.process.returncode, 1)
        await eventually(lambda: changed.process.poll() is not None, "it ends")
        self.assertEqual(changed.process.returncode, 0)
        self.started = users

        client = await self.client(where)
        await client.set("configuration", "nonsense")
        await users[1].said("is not taken up: .*malformed")
        await client.set("configuration", '{"rate": 7, "later": true}')
        for user in users:
            await user.said("runs with .*level='info', rate=7")
        await self.all_stop()


class TestLeader(ExampleCase):
    """Leader election."""

    async def test_the_next_leads(self) -> None:
        """A leader that is frozen is replaced, and one that is stopped; all is counted once."""
        (where,) = await self.ring("leader", 3, "--lease=1")
        client = await self.client(where)
        directory = client.node.core.directory
        await eventually(
            lambda: {len(config.members) for config in directory} == {3}, "three copies"
        )
        frozen = self.started[0]
        await frozen.said("term 1: ")
        frozen.process.send_signal(signal.SIGSTOP)
        second = await self.leads(2)
        await second.said("term 2: ")
        frozen.process.send_signal(signal.SIGCONT)
        await frozen.said("leads no more")

        example = runpy.run_path(str(EXAMPLES / "leader.py"))
        with self.assertRaises(example["Deposed"]):
            await example["fenced"](client, "count", 1, lambda old: old + 1)

        second.process.send_signal(signal.SIGTERM)
        third = await self.leads(3)
        await third.said("term 3: ")
        await self.all_stop()
        log = "".join(each.log.read_text() for each in self.started)
        counted = sorted((int(n), int(term)) for term, n in re.findall(r"term (\d+): (\d+)", log))
        self.assertEqual([n for n, _ in counted], list(range(1, len(counted) + 1)))
        self.assertEqual([term for _, term in counted], sorted(term for _, term in counted))

    async def leads(self, term: int) -> Example:
        """Who leads this term."""
        await eventually(
            lambda: any(one.says(f"leads term {term}") for one in self.started), f"term {term}"
        )
        (leader,) = [one for one in self.started if one.says(f"leads term {term}")]
        return leader


class Register:
    """A ring's promises for single keys, at once and in memory."""

    def __init__(self) -> None:
        self.kept: dict[str | bytes, bytes] = {}
        self.writes = 0
        self.before_write: Callable[[], None] = lambda: None  # what somebody else does just then

    async def get(self, key: str | bytes) -> bytes | None:
        """As the ring does."""
        return self.kept.get(key)

    async def set(self, key: str | bytes, value: bytes) -> None:
        """As the ring does."""
        self.before_write()
        self.writes += 1
        self.kept[key] = value

    async def compare_and_set(
        self, key: str | bytes, expected: bytes | None, value: bytes | None
    ) -> bool:
        """As the ring does."""
        self.before_write()
        self.writes += 1
        if held := self.kept.get(key) == expected:
            if value is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = value
        return held

    async def items(self) -> AsyncIterator[tuple[str | bytes, bytes]]:
        """As the ring does."""
        for pair in list(self.kept.items()):
            yield pair


class SlowRing(Register):
    """The same, but everything takes some time (for one clock)."""

    def __init__(self, clock: task.Clock, rng: random.Random) -> None:
        super().__init__()
        self._clock = clock
        self._rng = rng

    async def _takes_time(self) -> None:
        await task.deferLater(self._clock, self._rng.choice((0.01, 0.1, 1.0)), lambda: None)

    async def get(self, key: str | bytes) -> bytes | None:
        """As the ring does."""
        await self._takes_time()
        value = await super().get(key)
        await self._takes_time()
        return value

    async def compare_and_set(
        self, key: str | bytes, expected: bytes | None, value: bytes | None
    ) -> bool:
        """As the ring does."""
        await self._takes_time()
        held = await super().compare_and_set(key, expected, value)
        await self._takes_time()
        return held


class TestElection(SynchronousTestCase):
    """The rules, on a clock of its own."""

    def run_one(self, seed: int) -> list[int]:
        """Five candidates that come, pause and step down; the terms that were led."""
        rng = random.Random(seed)
        clock = task.Clock()
        make = runpy.run_path(str(EXAMPLES / "leader.py"))["Election"]
        ring: Any = SlowRing(clock, rng)
        terms: list[int] = []

        async def live(election: Any) -> None:
            while True:
                await election.beat()
                if rng.random() < 0.05:
                    await election.step_down()
                often = 3.3 if rng.random() < 0.9 else 30.0
                await task.deferLater(clock, often, lambda: None)

        def candidate() -> Any:
            hour = rng.uniform(-1e6, 1e6)  # no two clocks agree
            election = make(ring, "leader", 10.0, lambda: clock.seconds() + hour)
            Deferred.fromCoroutine(live(election)).addErrback(self.fail)
            return election

        candidates = [candidate() for _ in range(5)]
        while clock.seconds() < 600:
            clock.advance(min(call.getTime() for call in clock.getDelayedCalls()) - clock.seconds())
            leaders = [one for one in candidates if one.leads]
            self.assertLessEqual(len(leaders), 1, f"seed {seed}, at {clock.seconds():.2f} s")
            terms += [one.term for one in leaders if [one.term] != terms[-1:]]
        return terms

    def test_one_leader(self) -> None:
        """Never two at once, as long as nobody is frozen; terms only grow; somebody leads."""
        for seed in range(20):
            terms = self.run_one(seed)
            self.assertEqual(terms, sorted(set(terms)), f"seed {seed}")
            self.assertGreater(len(terms), 3)


class TestAll(SynchronousTestCase):
    """Nothing is left out."""

    def test_each_is_run_and_shown(self) -> None:
        """Each example has a test here, and its code stands in the docs."""
        names = {path.stem for path in EXAMPLES.glob("*.py")}
        source = Path(__file__).read_text(encoding="utf-8")
        page = (ROOT / "docs" / "examples.rst").read_text(encoding="utf-8")
        self.assertEqual({name for name in names if f'self.ring("{name}"' not in source}, set())
        shown = set(re.findall(r"literalinclude:: \.\./examples/(\w+)\.py", page))
        self.assertEqual(shown, names)
