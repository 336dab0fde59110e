"""The parts of ``tests.cluster`` that can be told apart from its processes."""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.errors import OperationTimeout, Unavailable
from py2p_twisted.settings import DEFAULT_REPLICAS
from py2p_twisted.wire.messages import OLDEST_VERSION, Done, Hello

from .cluster.__main__ import options
from .cluster.keys import KeyPool, WorkKey, teams
from .cluster.plan import KINDS, STYLES, Deck, Limits, pairs_of
from .cluster.proxy import Cuts, Proxies
from .cluster.report import Sample, chaos_lines, latencies, longest_gap, percentile
from .cluster.ring import what_is_missing
from .cluster.workload import Workload
from .fakes import FakeTransport, framed, make_peer

HOST = "127.0.0.1"


class PlanTests(SynchronousTestCase):
    """The nemesis keeps within what a ring may be asked to bear."""

    def play(self, limits: Limits, count: int) -> list[str]:
        """Play cards, some of them on top of others; the kinds in their order."""
        nodes = [f"node {number}" for number in range(8)]
        rng = Random(5)
        deck = Deck(rng, limits, KINDS, 20.0)
        hit: list[list[str]] = []
        kinds = []
        while len(kinds) < count:
            taken = [name for names in hit for name in names]
            fault = deck.look()
            whole = rng.random() < 0.5
            if not limits.allow(fault, taken, whole) or rng.random() < 0.3:
                if hit:
                    hit.pop(rng.randrange(len(hit)))
                continue
            played, names = deck.take([name for name in nodes if name not in taken])
            self.assertIs(played, fault)
            self.assertEqual(len(set(names)), fault.nodes)
            self.assertLessEqual(len(taken) + fault.nodes, limits.at_once)
            self.assertLessEqual(fault.seconds, 20.0)
            if fault.kind == "kill":
                self.assertTrue(whole)
                self.assertEqual((taken, fault.nodes), ([], limits.kills))
            hit.append(names)
            kinds.append(fault.kind)
        return kinds

    def test_five_copies(self) -> None:
        """Two at once at most, killed only alone and in a whole ring; every kind finds its turn."""
        kinds = self.play(Limits.of(5), 60)
        for start in range(0, 60, 6):
            self.assertEqual(set(kinds[start : start + 6]), set(KINDS))

    def test_fewer_copies(self) -> None:
        """Of three one may be away; with one copy nobody is killed, and who leaves is alone."""
        self.assertEqual((Limits.of(3).at_once, Limits.of(3).kills), (1, 1))
        self.play(Limits.of(3), 40)
        self.assertNotIn("kill", self.play(Limits.of(1), 40))
        deck = Deck(Random(1), Limits.of(1), ["leave"], 20.0)
        self.assertFalse(Limits.of(1).allow(deck.look(), ["somebody"], whole=True))

    def test_same_seed(self) -> None:
        """The seed decides."""
        first, second = (Deck(Random(9), Limits.of(5), KINDS, 20.0) for _ in range(2))
        for _ in range(30):
            self.assertEqual(first.take("abcdefgh"), second.take("abcdefgh"))

    def test_cuts(self) -> None:
        """Who does not reach whom."""
        off = pairs_of("off", ["a"], ["b", "c"], ["x"])
        self.assertEqual(
            off,
            {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
            | {("x", "b"), ("b", "x"), ("x", "c"), ("c", "x")},
        )
        self.assertEqual(pairs_of("deaf", ["a"], ["b"]), {("b", "a")})
        self.assertEqual(pairs_of("mute", ["a"], ["b"]), {("a", "b")})
        self.assertEqual(pairs_of("between", ["a", "b"], ["c"]), {("a", "b"), ("b", "a")})
        for style in STYLES:
            self.assertTrue(pairs_of(style, ["a", "b"], ["c"]), style)

    def test_overlapping_cuts(self) -> None:
        """What two cuts hold is free when both are over."""
        cuts = Cuts()
        cuts.add([("a", "b")])
        cuts.add([("a", "b"), ("b", "a")])
        cuts.remove([("a", "b"), ("b", "a")])
        self.assertEqual((cuts.holds("a", "b"), cuts.holds("b", "a")), (True, False))
        self.assertTrue(cuts.bars("b", "a"))
        cuts.remove([("a", "b")])
        self.assertFalse(cuts.bars("b", "a"))


class DirectoryTests(SynchronousTestCase):
    """What keeps groups from being whole."""

    def test_missing(self) -> None:
        """Each reason by its name; nothing if all is well."""
        a, b, c = (HOST, 1), (HOST, 2), (HOST, 3)
        groups = [[(b"a", a), (b"b", b), (b"c", c)], [(b"b", b), (b"c", c), (b"a", a)]]
        self.assertEqual(what_is_missing(groups, [a, b, c], set(), 3), "")
        self.assertEqual(what_is_missing(groups, [a, b, c], set(), None), "")
        for expected, groups_then, living, buried, replicas in (
            ("no group is known", [], [a], set(), 1),
            ("members that are dead: :2", groups, [a, b, c], {b"b"}, 3),
            ("members that nobody started: :3", groups, [a, b], set(), 3),
            ("nodes that keep nothing: :4", groups, [a, b, c, (HOST, 4)], set(), 3),
            ("groups of 3 members instead of 5", groups, [a, b, c], set(), 5),
            ("two instances at one address: :1", [[(b"a", a), (b"b", a)]], [a], set(), 2),
        ):
            self.assertEqual(what_is_missing(groups_then, living, buried, replicas), expected)


class KeyTests(SynchronousTestCase):
    """Keys are given up before a checker could despair of them."""

    def test_pool(self) -> None:
        """No key gets more operations than allowed, and every name is new."""
        pool = KeyPool(Random(1), "team", 3, 50)
        taken: dict[bytes, int] = {}
        for _ in range(1000):
            key = pool.take()
            taken[key.name] = taken.get(key.name, 0) + 1
        self.assertEqual(max(taken.values()), 50)
        self.assertLessEqual(set(taken), {key.name for key in pool.all})
        self.assertEqual(len({key.name for key in pool.all}), len(pool.all))

    def test_teams(self) -> None:
        """The workers of a team use different clients, and all clients are used."""
        found = teams(8, 4, 8)
        self.assertEqual({len(set(team)) for team in found}, {4})
        self.assertEqual({client for team in found for client in team}, set(range(8)))


class ReportTests(SynchronousTestCase):
    """Figures."""

    def test_percentile(self) -> None:
        """The smallest value that so many do not exceed."""
        values = [float(number) for number in range(100, 0, -1)]
        self.assertEqual(
            [percentile(values, share) for share in (0, 0.5, 0.99, 1)], [1, 50, 99, 100]
        )
        self.assertEqual(percentile([7.0], 0.5), 7.0)

    def test_lines(self) -> None:
        """All that was asked for is there."""
        samples = [Sample(1.0, 0.001, False), Sample(4.0, 0.2, True), Sample(4.5, 0.4, True)]
        self.assertEqual(longest_gap(samples, 6.0), 3.0)
        self.assertEqual(latencies([]), "none")
        text = "\n".join(
            chaos_lines(samples, {"returned": 3, "failed": 1}, {"Unavailable": 1}, {"kill": 2}, 6.0)
        )
        for part in (
            "2 kill",
            "4 in 6 s (1 a second): 1 failed, 3 returned",
            "under faults: p50 200.0 ms, p99 400 ms, max 400 ms (2)",
            "first fault: p50 1.0 ms",
            "any success: 3.0 s",
            "1 Unavailable",
        ):
            self.assertIn(part, text)


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def test_defaults(self) -> None:
        """Eight nodes, or five where they keep their data; five copies, every fault, some seed."""
        chosen = options(["all"])
        self.assertEqual(chosen.nodes, {"kill": 8, "chaos": 8, "restart": 5})
        self.assertEqual((chosen.replicas, chosen.kinds), (5, list(KINDS)))
        self.assertEqual(options(["chaos", "--nodes", "9"]).nodes["chaos"], 9)
        self.assertEqual(options(["restart", "--nodes", "3", "--replicas", "1"]).replicas, 1)
        self.assertIsInstance(chosen.seed, int)
        self.assertEqual(options(["kill", "--seed", "3"]).seed, 3)
        self.assertNotIn("kill", options(["chaos", "--replicas", "1"]).kinds)

    def test_refused(self) -> None:
        """What would lose data by right, or show nothing, is no run."""
        for wrong in (
            ["kill", "--replicas", "1"],
            ["kill", "--replicas", "3"],
            ["kill", "--nodes", "6"],
            ["chaos", "--faults", "flood"],
            ["chaos", "--replicas", "1", "--faults", "kill"],
            ["chaos", "--replicas", "2"],
            ["chaos", "--clients", "2"],
            ["restart", "--nodes", "3"],
            ["restart", "--nodes", "2", "--replicas", "1"],
            ["all", "--replicas", "3"],
        ):
            with redirect_stderr(StringIO()) as said:
                self.assertRaises(SystemExit, options, wrong)
            self.assertIn("error:", said.getvalue(), wrong)


class EndTransport(FakeTransport):
    """A transport of one end of a proxied connection."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Twisted."""


def hello_from(port: int) -> bytes:
    """The first frame of whoever announces this port."""
    fields = (OLDEST_VERSION, "chord", "Plaintext", 6, b"", True, False)
    return framed(Hello(*fields, make_peer(1, HOST, port), DEFAULT_REPLICAS))


class ProxyTests(SynchronousTestCase):
    """What passes a proxy, and what does not."""

    def setUp(self) -> None:
        """Node a behind a proxy; b and c dial it."""
        self.reactor = MemoryReactor()
        self.proxies = Proxies(self.reactor)
        self.proxies.listen("a", HOST, 1111)
        self.proxies.name("b", (HOST, 2))
        self.proxies.name("c", (HOST, 3))

    def dial(self) -> tuple[Protocol, EndTransport]:
        """Somebody connects to the proxy."""
        factory = self.reactor.tcpServers[0][1]
        end = factory.buildProtocol(None)
        transport = EndTransport()
        end.makeConnection(transport)
        return end, transport

    def answer(self) -> tuple[Protocol, EndTransport]:
        """The node accepts the connection that the proxy makes."""
        host, port, factory, *_ = self.reactor.tcpClients.pop()
        self.assertEqual((host, port), (HOST, 1111))
        end = factory.buildProtocol(None)
        transport = EndTransport()
        end.makeConnection(transport)
        return end, transport

    def connected(self, port: int = 2) -> tuple[Any, EndTransport, Any, EndTransport]:
        """A connection through the proxy, its HELLO on the way."""
        front, near = self.dial()
        front.dataReceived(hello_from(port))
        rear, far = self.answer()
        self.assertEqual(far.value(), hello_from(port))
        far.clear()
        return front, near, rear, far

    def test_passes(self) -> None:
        """Both directions, also byte by byte; the node is not troubled before HELLO is there."""
        front, near = self.dial()
        hello = hello_from(2)
        for at in range(len(hello)):
            self.assertEqual(self.reactor.tcpClients, [])
            front.dataReceived(hello[at : at + 1])
        rear, far = self.answer()
        self.assertEqual(far.value(), hello)
        rear.dataReceived(b"answer")
        self.assertEqual(near.value(), b"answer")
        front.dataReceived(b"more")
        self.assertEqual(far.value(), hello + b"more")

    def test_no_hello(self) -> None:
        """Who says something else, or too much, is nobody we know."""
        for said in (framed(Done()), b"\xff" * 8, b"\0\0\0\3abc"):
            front, near = self.dial()
            front.dataReceived(said)
            self.assertTrue(near.aborted, said)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_cut(self) -> None:
        """Bytes stall in both directions, the sources are told to wait, and all comes later."""
        front, near, rear, far = self.connected()
        other, _, _, elsewhere = self.connected(3)
        pairs = pairs_of("off", ["a"], ["b"])
        self.proxies.cut(pairs)
        self.assertEqual((near.producerState, far.producerState), ("paused", "paused"))
        front.dataReceived(b"there")  # what was read already
        rear.dataReceived(b"back")
        self.assertEqual((near.value(), far.value()), (b"", b""))
        other.dataReceived(b"c's")
        self.assertEqual(elsewhere.value(), b"c's")
        self.proxies.heal(pairs)
        self.assertEqual((near.value(), far.value()), (b"back", b"there"))
        self.assertEqual((near.producerState, far.producerState), ("producing", "producing"))

    def test_named_late(self) -> None:
        """A client dials before it has its name, and is cut off all the same."""
        front, _, _, far = self.connected(4)
        self.proxies.name("d", (HOST, 4))
        self.proxies.cut(pairs_of("off", ["a"], ["d"]))
        front.dataReceived(b"there")
        self.assertEqual(far.value(), b"")

    def test_one_way(self) -> None:
        """A node that is deaf can still be heard; but no new connection comes about."""
        front, near, rear, far = self.connected()
        self.proxies.cut(pairs_of("deaf", ["a"], ["b"]))
        front.dataReceived(b"there")
        rear.dataReceived(b"back")
        self.assertEqual((near.value(), far.value()), (b"back", b""))
        self.dial()[0].dataReceived(hello_from(2))
        self.assertEqual(self.reactor.tcpClients, [])

    def test_dialled_during_a_cut(self) -> None:
        """Who waits long enough is connected when it heals; who gives up is forgotten."""
        pairs = pairs_of("off", ["a"], ["b"])
        self.proxies.cut(pairs)
        patient, _ = self.dial()
        patient.dataReceived(hello_from(2))
        hasty, _ = self.dial()
        hasty.dataReceived(hello_from(2))
        hasty.connectionLost(Failure(ConnectionDone()))
        self.proxies.heal(pairs)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.assertEqual(self.answer()[1].value(), hello_from(2))

    def test_refused(self) -> None:
        """Connections break, and new ones break as soon as it is known whose they are."""
        pairs = pairs_of("refuse", ["a"], ["b"])
        _, near, _, far = self.connected()
        self.proxies.cut(pairs, refuse=True)
        self.assertTrue(near.aborted and far.aborted)
        front, again = self.dial()
        self.assertFalse(again.aborted)
        front.dataReceived(hello_from(2))
        self.assertTrue(again.aborted)
        self.proxies.heal(pairs, refuse=True)
        self.connected()

    def test_the_end(self) -> None:
        """A clean end is one on the other side, after all that was said; an abort is an abort."""
        front, _, _, far = self.connected()
        front.dataReceived(b"last")
        front.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((far.value(), far.disconnecting, far.aborted), (b"last", True, False))
        _, near, rear, _ = self.connected()
        rear.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(near.aborted)

    def test_the_end_during_a_cut(self) -> None:
        """The other side learns of it when the cut heals; then nothing is left."""
        front, _, rear, far = self.connected()
        pairs = pairs_of("off", ["a"], ["b"])
        self.proxies.cut(pairs)
        front.connectionLost(Failure(ConnectionLost()))
        self.assertFalse(far.disconnecting or far.aborted)
        self.proxies.heal(pairs)
        self.assertTrue(far.aborted)
        rear.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.proxies.pipes, set())

    def test_slow_reader(self) -> None:
        """Who reads slowly slows its peer down, and nobody else."""
        _, near, _, far = self.connected()
        far.producer.pauseProducing()
        self.assertEqual((near.producerState, far.producerState), ("paused", "producing"))
        far.producer.resumeProducing()
        self.assertEqual(near.producerState, "producing")

    def test_dead_node(self) -> None:
        """Nobody listens behind the proxy: the dialler's connection breaks."""
        front, near = self.dial()
        front.dataReceived(hello_from(2))
        factory = self.reactor.tcpClients.pop()[2]
        factory.clientConnectionFailed(None, Failure(ConnectionLost()))
        self.assertTrue(near.aborted)


class FakeDictionary:
    """Answers every operation as it is told to."""

    def __init__(self) -> None:
        self.answer: Any = None

    def get(self, key: bytes) -> Deferred[Any]:
        """As told."""
        return fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer)


class WorkloadTests(SynchronousTestCase):
    """What becomes of an operation in the record."""

    def setUp(self) -> None:
        """Workers whose clock stands still."""
        self.client = FakeDictionary()
        self.workload = Workload(
            Clock(), Random(1), [self.client] * 6, rate=0.001, under_fault=lambda: True
        )
        self.addCleanup(self.workload.cancel)

    def operate(self, answer: Any) -> bool:
        """One read with this answer; did it succeed?"""
        self.client.answer = answer
        operated = self.workload.operate("worker", self.client, WorkKey(b"key"), "get")
        result: bool = self.successResultOf(Deferred.fromCoroutine(operated))
        return result

    def test_fates(self) -> None:
        """Returned, failed, unknown; and what is none of the package's errors is a problem."""
        self.assertTrue(self.operate(None))
        self.assertFalse(self.operate(Unavailable("2 of 5")))
        self.assertFalse(self.operate(OperationTimeout("late", outcome_unknown=True)))
        self.assertEqual(self.workload.problems, [])
        self.assertFalse(self.operate(ZeroDivisionError()))
        fates = [operation.fate for operation in self.workload.history.operations]
        self.assertEqual(fates, ["returned", "failed", "outcome unknown", "outcome unknown"])
        self.assertEqual(len(self.workload.problems), 1)
        self.assertEqual(
            self.workload.errors, {"Unavailable": 1, "OperationTimeout, outcome unknown": 1}
        )
        self.assertEqual([sample.under_fault for sample in self.workload.samples], [True])

    def test_judged(self) -> None:
        """A value that nobody wrote turns the history red."""
        self.operate(None)
        self.assertTrue(self.workload.history.check())
        self.operate(b"out of thin air")
        self.assertFalse(self.workload.history.check())
