"""The ring over HTTP: what is answered to whom, and how much of it, on simulated nodes.

The requests go into the server's own protocol, byte by byte where that matters; time is simulated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import to_base_58
from py2p_twisted.web import WebService, observatory
from py2p_twisted.web import events as events_module
from py2p_twisted.web.endpoint import endpoint_of, on_loopback
from py2p_twisted.web.events import MOST_VIEWERS
from py2p_twisted.web.site import MOST_BODY, MOST_CONNECTIONS, PATIENCE, is_this_machine
from py2p_twisted.web.timeline import Timeline
from py2p_twisted.web.view import id_of
from py2p_twisted.wire.messages import Declined, GetReport
from py2p_twisted.wire.reports import EventReport, GroupsReport, Report

from .fakes import FakeTransport, make_peer
from .simulation.ring_case import RingCase
from .simulation.world import SimNode, World


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


class UnreadTransport(FakeTransport):
    """Pauses who writes, as TCP does, once 64 KiB are not read; nobody ever reads."""

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.value()) > 65536 and self.producer is not None:
            self.producer.pauseProducing()


class Client:
    """A connection to a server in memory."""

    def __init__(
        self, world: World, web: WebService, transport: FakeTransport | None = None
    ) -> None:
        self.world = world
        self.transport = transport or FakeTransport()
        self.channel: Any = web.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Bytes arrive."""
        self.channel.dataReceived(data)

    def ask(self, path: str, method: str = "GET", **headers: str) -> None:
        """Send a whole request."""
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items()),
        ]
        if "Host" not in headers:
            lines.append("Host: localhost:8080")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def answer(self, seconds: float = 0.0) -> Answer:
        """What came back so far, if it is a whole answer with its length."""
        self.world.run(seconds)
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.transport.clear()
        return Answer(int(first.split()[1]), headers, body)

    def hang_up(self) -> None:
        """The connection is lost."""
        self.channel.connectionLost(Failure(ConnectionDone()))


class WebCase(RingCase):
    """A ring of simulated nodes, and a server for one of them."""

    @contextmanager
    def ring(
        self, size: int = 3, seed: int = 1, **numbers: Any
    ) -> Iterator[tuple[World, list[SimNode]]]:
        """Nodes that are settled."""
        with self.world(seed, k=4, **numbers) as world:
            members = self.grow(world, size)
            world.run(2)
            yield world, members

    def web(self, world: World, node: SimNode) -> WebService:
        """A server that does not listen; its clock is the node's."""
        web = WebService(node.host.clock, node.service, "8080")
        self.addCleanup(web.site.close)
        return web

    def get(
        self, world: World, web: WebService, path: str, method: str = "GET", **headers: str
    ) -> Answer:
        """One request on a connection of its own."""
        client = Client(world, web)
        client.ask(path, method, **headers)
        answer = client.answer(0.5)
        client.hang_up()
        return answer


class KeyTests(WebCase):
    """/v1/keys and /v1/places."""

    def test_values(self) -> None:
        """What was written, byte for byte, under odd keys too; a tag that changes with it."""
        with self.ring() as (world, members):
            web = self.web(world, members[0])
            for key, path in (
                (b"user:1", "user:1"),
                (b"", ""),
                (b"a b/c?d", "a%20b/c%3Fd"),
                (b"a/b", "a/b"),
                (b"\xff\x00", "%ff%00"),
                ("schlüssel".encode(), "schl%C3%BCssel"),
            ):
                world.wait(members[1].service.set(key, b"<script>\0" + key))
                found = self.get(world, web, f"/v1/keys/{path}")
                self.assertEqual((found.status, found.body), (200, b"<script>\0" + key), key)
                self.assertEqual(found.headers["content-type"], "application/octet-stream")
                self.assertEqual(found.headers["x-content-type-options"], "nosniff")
                self.assertIn("sandbox", found.headers["content-security-policy"])
            tag = found.headers["etag"]
            same = self.get(world, web, f"/v1/keys/{path}", If_None_Match=tag)
            self.assertEqual((same.status, same.body), (304, b""))
            world.wait(members[1].service.set(key, b"other"))
            other = self.get(world, web, f"/v1/keys/{path}", If_None_Match=tag)
            self.assertEqual((other.status, other.body), (200, b"other"))
            head = self.get(world, web, f"/v1/keys/{path}", "HEAD")
            self.assertEqual(
                (head.status, head.headers["content-length"], head.body), (200, "5", b"")
            )

    def test_problems(self) -> None:
        """Absent, too long, badly written; each as a problem in JSON."""
        with self.ring() as (world, members):
            web = self.web(world, members[0])
            for path, status in (
                ("/v1/keys/absent", 404),
                ("/v1/keys", 404),
                ("/v1/keys/" + "x" * 4097, 414),
                ("/v1/keys/100%", 400),
                ("/v1/keys/%zz", 400),
                ("/v1/nothing", 404),
                ("/v1", 404),
                ("/v1/", 404),
                ("/v1/keys/" + "x" * 17_000, 414),
            ):
                found = self.get(world, web, path)
                self.assertEqual(found.status, status, path)
                self.assertEqual(found.headers["content-type"], "application/problem+json")
                self.assertEqual(found.json["status"], status)
                self.assertTrue(found.json["detail"])
            endless = Client(world, web)
            endless.ask("/v1/keys/" + "x" * 20_000)
            self.assertTrue(endless.transport.disconnecting)
            self.assertEqual(endless.answer().status, 414)
            endless.hang_up()
            late = Client(world, web)  # a header, not the address
            late.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 20_000)
            self.assertTrue(late.transport.disconnecting)
            self.assertEqual(late.transport.value(), b"")
            late.hang_up()
            second = Client(world, web)  # after an answer on the same connection
            second.ask("/v1")
            self.assertEqual(second.answer().status, 404)
            second.ask("/" + "x" * 20_000)
            self.assertEqual(second.answer().status, 414)
            second.hang_up()

    def test_unavailable(self) -> None:
        """Without a quorum: 503 or 504, and when to come again; who hangs up is not waited for."""
        with self.ring(evict_after=1000.0, operation_timeout=3.0) as (world, members):
            web = self.web(world, members[0])
            world.wait(members[0].service.set("key", "value"))
            for node in members[1:]:
                world.crash(node)
            hasty = Client(world, web)
            hasty.ask("/v1/keys/key")
            hasty.hang_up()
            client = Client(world, web)
            client.ask("/v1/keys/key")
            found = client.answer(10)
            client.hang_up()
            self.assertIn(found.status, (503, 504))
            self.assertEqual(found.headers["retry-after"], "1")
            self.assertEqual(hasty.transport.value(), b"")
            ready = self.get(world, web, "/readyz")
            self.assertEqual(
                (ready.status, ready.body), (503, b"16 of its 16 groups have no quorum\n")
            )
            self.assertEqual(self.get(world, web, "/healthz").status, 200)

    def test_places(self) -> None:
        """The nodes of a key's group, whether there is a value or not; who is away is told."""
        with self.ring(5, evict_after=1000.0, replicas=3) as (world, members):
            web = self.web(world, members[0])
            told = self.get(world, web, "/v1/places/a%20key").json
            core = members[0].service.node.core
            config = core.directory.get(told["partition"])
            assert config is not None
            self.assertEqual(
                [node["id"] for node in told["nodes"]], [id_of(p) for p in config.members]
            )
            self.assertEqual(told["quorum"], 2)
            self.assertTrue(0 <= told["place"] < 1)
            self.assertEqual({node["alive"] for node in told["nodes"]}, {True})
            (gone,) = [
                node
                for node in members[1:]
                if node.service.node.core.instance == config.members[-1].instance
            ] or members[1:2]
            world.crash(gone)
            world.run(5)
            again = self.get(world, web, "/v1/places/a%20key").json
            away = {node["id"] for node in again["nodes"] if not node["alive"]}
            self.assertLessEqual(away, {id_of(gone.service.node.core.me)})


class ProbeTests(WebCase):
    """/healthz, /readyz, /metrics and /status.json."""

    def test_ready(self) -> None:
        """Only a member is; a leeching node is well, and not ready."""
        with self.ring(1) as (world, members):
            found = self.get(world, self.web(world, members[0]), "/readyz")
            self.assertEqual((found.status, found.body), (200, b"ready\n"))
            reader = world.add()
            world.wait(reader.service.connect(*members[0].service.out_addr))
            web = self.web(world, reader)
            found = self.get(world, web, "/readyz")
            self.assertEqual(
                (found.status, found.body), (503, b"it is leeching, not in the ring\n")
            )
            found = self.get(world, web, "/healthz", "HEAD")
            self.assertEqual((found.status, found.body), (200, b""))
            reader.service.node.core.storage_problem = "the disk is broken"
            found = self.get(world, web, "/healthz")
            self.assertEqual(found.status, 503)
            self.assertIn(b"the disk is broken", found.body)

    def test_metrics(self) -> None:
        """Prometheus can read them, and they are true."""
        from prometheus_client.parser import text_string_to_metric_families

        with self.ring() as (world, members):
            self.write(world, members[0], 20)
            world.run(2)
            web = self.web(world, members[0])
            found = self.get(world, web, "/metrics")
            self.assertEqual(found.status, 200)
            self.assertTrue(found.headers["content-type"].startswith("text/plain; version="))
            told = {
                (sample.name, *sample.labels.values()): sample.value
                for family in text_string_to_metric_families(found.body.decode())
                for sample in family.samples
            }
            self.assertEqual(told["py2p_twisted_keys",], 20)
            self.assertEqual(told["py2p_twisted_groups",], 16)
            self.assertEqual(told["py2p_twisted_joined",], 1)
            self.assertGreaterEqual(told["py2p_twisted_writes_total",], 1)
            self.assertIn(("py2p_twisted_requests_total", "Ping"), told)
            self.assertIn(("process_resident_memory_bytes",), told)
            open_metrics = self.get(world, web, "/metrics", Accept="application/openmetrics-text")
            self.assertTrue(open_metrics.body.endswith(b"# EOF\n"))

    def test_without_prometheus(self) -> None:
        """Whoever asks is told what to install."""
        import prometheus_client

        self.addCleanup(sys.modules.__setitem__, "prometheus_client", prometheus_client)
        sys.modules["prometheus_client"] = None  # type: ignore[assignment]
        with self.ring(1) as (world, members):
            found = self.get(world, self.web(world, members[0]), "/metrics")
            self.assertEqual(found.status, 501)
            self.assertIn("py2p_twisted[metrics]", found.json["detail"])

    def test_status(self) -> None:
        """All members in the order of the circle, those that are lost too, and what happened."""
        with self.ring(4, evict_after=1000.0) as (world, members):
            self.write(world, members[0], 30)
            web = self.web(world, members[0])
            told = self.get(world, web, "/status.json").json
            self.assertEqual([n["place"] * 16 for n in told["nodes"]], self.ids(members))
            self.assertEqual(sum(node["keys"] for node in told["nodes"]), 30)
            self.assertAlmostEqual(sum(node["share"] for node in told["nodes"]), 1)
            self.assertEqual((told["groups"]["below"], told["groups"]["weak"]), (0, []))
            trips = [n["round_trip"] for n in told["nodes"] if n["id"] != told["here"]]
            self.assertTrue(all(0 < trip < 100_000 for trip in trips), trips)
            self.assertEqual({node["reads"] for node in told["nodes"]}, {None})
            for node in members:
                joined = f"{node.service.node.core.me} joined"
                texts = [event["text"] for event in told["events"]]
                self.assertEqual(texts.count(joined), int(node is not members[0]), texts)
            gone = members[2].service.node.core.me
            world.crash(members[2])
            world.run(10)
            client = Client(world, web)
            client.ask("/status.json")
            told = client.answer(10).json
            client.hang_up()
            (lost,) = [node for node in told["nodes"] if node["problem"]]
            self.assertEqual(
                (lost["id"], lost["name"]), (id_of(gone), to_base_58(gone.id).decode())
            )
            self.assertNotIn("status", lost)
            self.assertFalse(lost["alive"])
            self.assertEqual(
                told["groups"]["below"], sum(w["groups"] for w in told["groups"]["weak"])
            )
            self.assertGreater(told["groups"]["below"], 0)
            self.assertEqual(told["groups"]["without_quorum"], 0)
            losses = [event for event in told["events"] if event["kind"] == "lost"]
            self.assertEqual(len(losses), 1, losses)  # two neighbours noticed

    def test_there_and_silent(self) -> None:
        """A member that does not tell how it is, but is there, is not lost."""
        with self.ring(3) as (world, members):
            web = self.web(world, members[0])
            old = members[2].service.node
            old._own[GetReport] = lambda *_: Declined("of another version")
            told = self.get(world, web, "/status.json").json
            (mute,) = [node for node in told["nodes"] if node["problem"]]
            self.assertEqual((mute["id"], mute["alive"]), (id_of(old.core.me), True))
            self.assertIn("of another version", mute["problem"])
            self.assertEqual(told["groups"]["below"], 0)

    def test_nothing_of_keys(self) -> None:
        """No key and no value is in what the page gets."""
        with self.ring() as (world, members):
            world.wait(members[0].service.set("a secret key", "a secret value"))
            found = self.get(world, self.web(world, members[0]), "/status.json")
            self.assertEqual(found.status, 200)
            self.assertNotIn(b"secret", found.body)


class StreamTests(WebCase):
    """/events: server-sent events."""

    def events(self, client: Client) -> list[Any]:
        """The rings that a stream told of since the last call."""
        text = client.transport.value().decode()
        client.transport.clear()
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]

    def asked(self, node: SimNode) -> int:
        """How often a node was asked how it is."""
        return sum(
            n for kind, n in node.service.node.core.asked.items() if kind.__name__ == "GetReport"
        )

    def test_one_poll_for_all(self) -> None:
        """However many watch, the members are asked once a second; when nobody does, not at all."""
        with self.ring() as (world, members):
            web = self.web(world, members[0])
            world.run(5)
            self.assertEqual(self.asked(members[1]), 0)
            viewers = [Client(world, web) for _ in range(5)]
            for viewer in viewers:
                viewer.ask("/events")
            world.run(10.5)
            self.assertTrue(9 <= self.asked(members[1]) <= 11, self.asked(members[1]))
            for viewer in viewers:
                self.assertIn(b"text/event-stream", viewer.transport.value())
                heard = self.events(viewer)
                self.assertTrue(9 <= len(heard) <= 11, len(heard))
                self.assertEqual(len(heard[-1]["nodes"]), 3)
            for _ in range(20):
                self.get(world, web, "/status.json")
            for viewer in viewers:
                viewer.hang_up()
            before = self.asked(members[1])
            world.run(10)
            self.assertEqual(self.asked(members[1]), before)

    def test_large_ring(self) -> None:
        """It is looked at less often."""
        self.patch(observatory, "_NODES", 1)
        with self.ring() as (world, members):
            viewer = Client(world, self.web(world, members[0]))
            viewer.ask("/events")
            world.run(12.5)
            self.assertTrue(4 <= len(self.events(viewer)) <= 5)
            viewer.hang_up()

    def test_operations_per_second(self) -> None:
        """Counted from one look to the next."""
        with self.ring() as (world, members):
            web = self.web(world, members[0])
            viewer = Client(world, web)
            viewer.ask("/events")
            world.run(1.5)
            for _ in range(40):
                world.wait(members[1].service.set("key", "value"))
            world.run(2)
            rates = [sum(n["writes"] or 0 for n in ring["nodes"]) for ring in self.events(viewer)]
            self.assertGreater(max(rates), 0)
            self.assertEqual(rates[-1], 0)
            viewer.hang_up()

    def test_slow_viewer(self) -> None:
        """Nothing is written to one that does not read; he is given up after a while."""
        with self.ring() as (world, members):
            web = self.web(world, members[0])
            viewer = Client(world, web)
            viewer.ask("/events")
            world.run(2)
            self.assertTrue(self.events(viewer))
            viewer.channel.pauseProducing()
            world.run(20)
            self.assertEqual(self.events(viewer), [])
            viewer.channel.resumeProducing()
            world.run(2)
            self.assertTrue(self.events(viewer))
            viewer.channel.pauseProducing()
            world.run(35)
            self.assertTrue(viewer.transport.aborted)
            viewer.hang_up()

    def test_too_many(self) -> None:
        """The next one is asked to come again."""
        self.patch(events_module, "MOST_VIEWERS", 2)
        self.assertGreaterEqual(MOST_VIEWERS, 16)
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            viewers = [Client(world, web) for _ in range(2)]
            for viewer in viewers:
                viewer.ask("/events")
            found = self.get(world, web, "/events")
            self.assertEqual((found.status, found.headers["retry-after"]), (503, "10"))
            viewers.pop().hang_up()
            again = Client(world, web)
            again.ask("/events")
            world.run(0.1)
            self.assertIn(b"200 OK", again.transport.value())
            for viewer in (again, *viewers):
                viewer.hang_up()

    def test_head(self) -> None:
        """Whoever asks for the head gets no stream."""
        with self.ring(1) as (world, members):
            found = self.get(world, self.web(world, members[0]), "/events", "HEAD")
            self.assertEqual((found.status, found.body), (200, b""))


class BoundTests(WebCase):
    """What holds for every path."""

    def test_methods(self) -> None:
        """Only GET and HEAD, wherever it is."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "NONSENSE"):
                for path in ("/", "/v1/keys/x", "/events", "/nothing", "*"):
                    found = self.get(world, web, path, method)
                    self.assertEqual((found.status, found.headers["allow"]), (405, "GET, HEAD"))

    def test_headers(self) -> None:
        """Every answer forbids what nobody needs."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            for path in (
                "/",
                "/ring.js",
                "/circle.js",
                "/style.css",
                "/icon.svg",
                "/nothing",
                "/readyz",
            ):
                found = self.get(world, web, path)
                self.assertIn("default-src 'self'", found.headers["content-security-policy"])
                self.assertNotIn("unsafe", found.headers["content-security-policy"])
                self.assertEqual(found.headers["x-content-type-options"], "nosniff")
                self.assertNotIn("access-control-allow-origin", found.headers)
                self.assertNotIn("Twisted", found.headers["server"])

    def test_page_is_its_own(self) -> None:
        """Nothing is inline, and nothing comes from elsewhere; a browser may keep what it has."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            page = self.get(world, web, "/")
            self.assertNotRegex(page.body.decode(), r"<script>|<style| style=| on\w+=|https?://")
            again = self.get(world, web, "/", If_None_Match=page.headers["etag"])
            self.assertEqual((again.status, again.body), (304, b""))

    def test_other_names(self) -> None:
        """On loopback only this machine's names: another may be a stranger's that leads here."""
        for host in (
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:80",
            "[::1]:8080",
            "a.localhost",
            "127.0.0.9",
        ):
            self.assertTrue(is_this_machine(host), host)
        for host in (
            "evil.example",
            "evil.example:8080",
            "192.0.2.1",
            "localhost.evil.example",
            "[fe80::1]",
            "",
            ":80",
        ):
            self.assertFalse(is_this_machine(host), host)
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            for path in ("/", "/v1/keys/x", "/status.json", "/events"):
                self.assertEqual(self.get(world, web, path, Host="evil.example").status, 403)
            web.site.loopback = False
            self.assertEqual(self.get(world, web, "/", Host="node1:8080").status, 200)

    def test_other_sites(self) -> None:
        """A page of another site may lead here, and not fetch from here."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            for site in ("cross-site", "same-site"):
                fetched = self.get(
                    world, web, "/events", Sec_Fetch_Site=site, Sec_Fetch_Mode="cors"
                )
                self.assertEqual(fetched.status, 403)
            link = self.get(world, web, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
            self.assertEqual(link.status, 200)

    def test_odd_requests(self) -> None:
        """Whatever bytes stand in a request, it is answered, and nothing is logged."""
        logged: list[Any] = []

        def observe(event: Any) -> None:
            if "web" in event["log_namespace"]:
                logged.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            odd = "\xff\xfe;version=1.x;;q="
            for path in ("/", "/metrics", "/v1/keys/%ff%00", "/events", "/?a=%ff&b", "//"):
                for name in ("Accept", "If_None_Match", "Cookie", "Sec_Fetch_Site", "Connection"):
                    found = self.get(world, web, path, **{name: odd})
                    self.assertLess(found.status, 500, (path, name))
            versions = "application/openmetrics-text;version=1.x, text/plain;version=a.b"
            self.assertEqual(self.get(world, web, "/metrics", Accept=versions).status, 200)
            self.assertEqual(self.get(world, web, "/", Host=odd).status, 403)
            for path in ("/", "/status.json", "/nothing", "/\xa6"):
                self.get(world, web, path, "HEAD")
            self.assertEqual(logged, [])

    def test_below_nothing(self) -> None:
        """What is below a page is not the page."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            for path in ("//", "//v1/keys/x", "/healthz/", "/ring.js/x", "/events/x", "http://x/"):
                self.assertEqual(self.get(world, web, path).status, 404, path)

    def test_slow_request(self) -> None:
        """A byte now and then wins no time."""
        with self.ring(1) as (world, members):
            client = Client(world, self.web(world, members[0]))
            for byte in b"GET /" + b"x" * int(PATIENCE):
                client.send(bytes([byte]))
                world.run(1)
            self.assertTrue(client.transport.aborted)
            client.hang_up()

    def test_idle(self) -> None:
        """A connection that is kept is closed at last."""
        with self.ring(1) as (world, members):
            client = Client(world, self.web(world, members[0]))
            for _ in range(3):
                client.ask("/healthz")
                self.assertEqual(client.answer(PATIENCE - 1).status, 200)
                self.assertFalse(client.transport.aborted)
            world.run(2)
            self.assertTrue(client.transport.aborted)
            client.hang_up()

    def test_bodies(self) -> None:
        """A body is read and thrown away, as far as it is short."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            client = Client(world, web)
            client.ask("/v1/keys/x", "PUT", Content_Length="5")
            client.send(b"value")
            self.assertEqual(client.answer().status, 405)
            client.ask("/v1/keys/x", "PUT", Content_Length=str(1 << 40))
            for _ in range(MOST_BODY // 1024 + 1):
                self.assertFalse(client.transport.aborted)
                client.send(b"x" * 1024)
            self.assertTrue(client.transport.aborted)
            client.hang_up()

    def test_headers_without_end(self) -> None:
        """Many headers, or long ones, are refused."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            for header in (b"A: b\r\n", b"A: " + b"x" * 1000 + b"\r\n"):
                client = Client(world, web)
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + header * 65)
                self.assertIn(b"400 Bad Request", client.transport.value())
                self.assertTrue(client.transport.disconnecting)
                client.hang_up()

    def test_asks_and_does_not_read(self) -> None:
        """One answer at a time waits for a client: who asks on, and reads nothing, is cut off."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            world.wait(members[0].service.set("big", b"x" * 1_000_000))
            client = Client(world, web, UnreadTransport())
            one = b"GET /v1/keys/big HTTP/1.1\r\nHost: localhost\r\n\r\n"
            client.send(one * 100)
            world.run(PATIENCE + 1)
            self.assertTrue(client.transport.aborted)
            self.assertLess(len(client.transport.value()), 1_100_000)
            client.hang_up()

    def test_asks_on_and_reads(self) -> None:
        """Who asks for the next before it has read the last gets all answers, one by one."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            world.wait(members[0].service.set("big", b"x" * 1_000_000))
            client = Client(world, web, UnreadTransport())
            one = b"GET /v1/keys/big HTTP/1.1\r\nHost: localhost\r\n\r\n"
            client.send(one * 3)
            for _ in range(3):
                self.assertEqual(len(client.answer(1).body), 1_000_000)
                client.channel.resumeProducing()
            self.assertFalse(client.transport.aborted)
            client.ask("/healthz")
            self.assertEqual(client.answer(1).status, 200)
            client.hang_up()

    def test_connections(self) -> None:
        """So many, and no more."""
        with self.ring(1) as (world, members):
            web = self.web(world, members[0])
            clients = [Client(world, web) for _ in range(MOST_CONNECTIONS + 1)]
            self.assertEqual([c.transport.aborted for c in clients].count(True), 1)
            self.assertTrue(clients[-1].transport.aborted)
            for client in clients:
                client.hang_up()
            self.assertEqual(web.site.channels, set())


class TimelineTests(SynchronousTestCase):
    """What several nodes tell becomes one story."""

    def setUp(self) -> None:
        self.timeline = Timeline()

    def hear(self, now: float, uptime: int, *events: EventReport, number: int = 1) -> list[Any]:
        """A node reports; the texts that are told then, with their times."""
        groups = GroupsReport(0, 0, 0, 0, 0)
        report = Report(
            *("1", 2, make_peer(number), b"r" * 16, 6, 5, "joined", uptime, 0, 0, 0, groups),
            *(None, (), (), (), (), 0, (), (), None, None, "Nominal", events),
        )
        self.timeline.hear(report, now)
        return [(event["at"], event["text"]) for event in self.timeline.told()]

    def test_once(self) -> None:
        """An event that is told again and again, or by two, is one; in the order of time."""
        lost = EventReport(1, 2000, "lost", "A is lost")
        self.assertEqual(self.hear(100.0, 5000, lost), [(98.0, "A is lost")])
        again = EventReport(1, 3000, "lost", "A is lost")
        self.assertEqual(self.hear(101.0, 6000, again), [(98.0, "A is lost")])
        seen = EventReport(7, 1000, "lost", "A is lost")
        earlier = EventReport(6, 9000, "joined", "B joined")
        told = [(92.0, "B joined"), (98.0, "A is lost")]
        self.assertEqual(self.hear(101.0, 9000, earlier, seen, number=2), told)
        later = EventReport(8, 0, "lost", "A is lost")
        self.assertEqual(len(self.hear(120.0, 20_000, later, number=2)), 3)

    def test_started_again(self) -> None:
        """A node that was started again counts from the beginning."""
        self.hear(100.0, 5000, EventReport(5, 0, "lost", "A is lost"))
        told = self.hear(150.0, 100, EventReport(1, 0, "joined", "B is back"))
        self.assertEqual(told[-1], (150.0, "B is back"))

    def test_bounded(self) -> None:
        """The oldest are forgotten."""
        for number in range(1, 301):
            told = self.hear(number, 1000 * number, EventReport(number, 0, "lost", f"{number}"))
        self.assertEqual([text for _, text in told], [str(number) for number in range(101, 301)])


class EndpointTests(SynchronousTestCase):
    """What an operator may write."""

    def test_loopback(self) -> None:
        """Unless an interface is named."""
        for text, meant in (
            ("8080", "tcp:8080:interface=127.0.0.1"),
            ("0", "tcp:0:interface=127.0.0.1"),
            ("tcp:8080", "tcp:8080:interface=127.0.0.1"),
            ("tcp:port=8080", "tcp:port=8080:interface=127.0.0.1"),
            ("tcp:8080:backlog=5", "tcp:8080:backlog=5:interface=127.0.0.1"),
            ("tcp6:8080", r"tcp6:8080:interface=\:\:1"),
            ("tcp:8080:interface=0.0.0.0", "tcp:8080:interface=0.0.0.0"),
            ("tcp:8080:0.0.0.0", "tcp:8080:0.0.0.0"),
            (r"tcp6:8080:interface=\:\:", r"tcp6:8080:interface=\:\:"),
            ("unix:/run/chord.sock", "unix:/run/chord.sock"),
        ):
            self.assertEqual(on_loopback(text), meant)

    def test_wrong(self) -> None:
        """In one line, with what is expected."""
        for text in (
            "",
            "tcp:",
            "tcp:http",
            "tcp:70000",
            "70000",
            "-1",
            "nothing:80",
            "tcp:80:x=1",
        ):
            error = self.assertRaises(ValueError, endpoint_of, None, text, encrypted=False)
            self.assertIn("expected a port such as 8080", str(error))
            self.assertIn(repr(text), str(error))

    def test_certificate_of_its_own(self) -> None:
        """Where the ring has one, it is used."""
        error = self.assertRaises(ValueError, endpoint_of, None, "ssl:8080", encrypted=True)
        self.assertIn("say tcp: instead", str(error))
