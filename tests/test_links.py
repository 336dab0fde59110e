"""All connections of a node: one per peer, bounded, watched, and gone when the node stops."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import capturedLogs, formatEvent

from py2p_twisted.errors import OperationTimeout, PeerUnreachable
from py2p_twisted.settings import Settings
from py2p_twisted.table.group import FIRST_EPOCH
from py2p_twisted.wire.messages import Answer, Ask, Done, Hello, Ping, Read, Value

from .fakes import FakeNode, RawPeer, WireCase, framed, make_peer
from .simulation.network import SimNetwork
from .simulation.weather import ROUGH, SimOptions


def answer_later(request: Any, waiting: list[Deferred[Any]]) -> Any:
    """Pings are answered at once, everything else when the test says so."""
    if isinstance(request, Ping):
        return Done()
    waiting.append(Deferred())
    return waiting[-1]


class AskTests(WireCase):
    def test_ask_and_answer_both_ways(self) -> None:
        """One connection serves both sides."""
        a, b = self.node(1), self.node(2)
        first = self.ask(a, b, b"one")
        self.run_for(0.1)
        second = self.ask(b, a, b"two")
        self.run_for(0.1)
        self.assertEqual(self.successResultOf(first), Value(b"one"))
        self.assertEqual(self.successResultOf(second), Value(b"two"))
        self.assertEqual(len(a.host.transports), 1)
        self.assertEqual(a.events + b.events, [("up", 2), ("up", 1)])

    def test_requests_of_one_turn_dial_once(self) -> None:
        a, b = self.node(1), self.node(2)
        asking = [self.ask(a, b, bytes([number])) for number in range(50)]
        self.run_for(0.1)
        values = [self.successResultOf(deferred).value for deferred in asking]
        self.assertEqual(values, [bytes([number]) for number in range(50)])
        self.assertEqual(len(b.host.transports), 1)

    def test_more_than_a_connection_takes_at_once(self) -> None:
        """They wait for their turn, all are answered, and the peer never has more than allowed."""
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        most = 0

        def reply(request: Any) -> Deferred[Any]:
            nonlocal most
            link = b.links.get(a.peer.instance)
            assert link is not None
            most = max(most, link.unanswered + 1)
            later: Deferred[Any] = Deferred()
            b.clock.callLater(0.01, later.callback, Value(request.key))
            return later

        b.reply = reply
        keys = [number.to_bytes(2, "big") for number in range(3000)]
        asking = [self.ask(a, b, key) for key in keys]
        self.run_for(1)
        self.assertEqual([self.successResultOf(deferred).value for deferred in asking], keys)
        self.assertEqual([request.key for request in b.asked], keys)
        self.assertEqual(most, self.settings.requests_per_connection)

    def test_no_answer(self) -> None:
        """The request fails on time, the others are not held up, and the late answer is ignored."""
        a, b = self.node(1), self.node(2)
        link, _ = self.connected(a, b)
        late: list[Deferred[Any]] = []
        b.reply = lambda request: answer_later(request, late)
        asking = self.ask(a, b)
        other = a.links.ask(b.peer, Read(FIRST_EPOCH, b"k"), 0.5)
        self.run_for(0.6)
        self.refused_with(OperationTimeout, other)
        self.assertNoResult(asking)
        self.run_for(1.5)
        self.refused_with(OperationTimeout, asking)
        for deferred in late:
            deferred.callback(Done())
        self.run_for(0.1)
        self.assertEqual(link.ignored_answers, 2)
        self.assertEqual(a.events, [("up", 2)])

    def test_connection_lost(self) -> None:
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        b.reply = lambda request: Deferred()
        asking = [self.ask(a, b) for _ in range(3)]
        self.run_for(0.1)
        self.assertEqual(self.network.reset("10.0.0.1", "10.0.0.2"), 1)
        self.run_for(0.1)
        for deferred in asking:
            self.assertTrue(self.refused_with(PeerUnreachable, deferred).sent)
        self.assertEqual(a.events, [("up", 2), ("down", 2)])
        self.assertEqual(b.events, [("up", 1), ("down", 1)])
        self.assertIsNone(a.links.get(b.peer.instance))

    def test_dials_again_after_a_loss(self) -> None:
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        self.network.reset("10.0.0.1", "10.0.0.2")
        self.run_for(0.1)
        asking = self.ask(a, b)
        self.run_for(0.1)
        self.successResultOf(asking)
        self.assertEqual(a.events, [("up", 2), ("down", 2), ("up", 2)])

    def test_nobody_there(self) -> None:
        """The address rests for a moment, in which asking fails at once; then it is tried again."""
        a = self.node(1)
        peer = make_peer(9)
        asking = a.links.ask(peer, Ping())
        self.run_for(0.1)
        error = self.refused_with(PeerUnreachable, asking)
        self.assertEqual(str(error), "10.0.0.9:4444 refused the connection: no node listens there")
        self.assertFalse(error.sent)
        self.assertTrue(a.links.failed_lately(peer))
        self.refused_with(PeerUnreachable, a.links.ask(peer, Ping()))
        b = self.node(9)
        self.run_for(self.settings.retry_max)
        asking = self.ask(a, b)
        self.run_for(0.1)
        self.successResultOf(asking)
        self.assertFalse(a.links.failed_lately(peer))

    def test_no_way_there(self) -> None:
        a, b = self.node(1), self.node(2)
        cut = self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        dialling, asking = self.dial(a, b), self.ask(a, b)
        longer = a.links.ask(b.peer, Ping(), 4.0)
        for deferred, seconds in ((asking, 2.0), (longer, 4.0), (dialling, 5.0)):
            self.run_for(seconds - 0.1 - self.clock.seconds())
            self.assertNoResult(deferred)
            self.run_for(0.2)
            self.assertFalse(self.refused_with(PeerUnreachable, deferred).sent)
        self.network.heal(cut)

    def test_another_instance_at_the_address(self) -> None:
        """The request was meant for one that is gone; it is not given to its heir."""
        a, b = self.node(1), self.node(2)
        peer = msgspec.structs.replace(b.peer, instance=b"i" * 16)
        asking = a.links.ask(peer, Read(FIRST_EPOCH, b"k"))
        self.run_for(0.1)
        self.assertIn("another instance", str(self.refused_with(PeerUnreachable, asking)))
        self.assertEqual(b.asked, [])

    def test_cancelled(self) -> None:
        """While dialling and later: nothing is left behind, and the connection stays."""
        a, b = self.node(1), self.node(2)
        for _ in range(2):
            asking = self.ask(a, b)
            asking.cancel()
            self.run_for(0.1)
            self.failureResultOf(asking, CancelledError)
            self.assertEqual(a.events, [("up", 2)])
        link = a.links.get(b.peer.instance)
        assert link is not None
        self.assertTrue(link.idle)


class OneConnectionTests(WireCase):
    def test_dialling_what_is_connected(self) -> None:
        """By its own address or the one that was dialled: no second connection."""
        a, b = self.node(1), self.node(2)
        b.announce(peer=msgspec.structs.replace(b.peer, host="b.example"))
        first = a.links.dial("10.0.0.2", 4444)
        self.run_for(0.1)
        link = self.successResultOf(first)
        self.assertIs(self.successResultOf(a.links.dial("10.0.0.2", 4444)), link)
        self.assertIs(self.successResultOf(a.links.dial("b.example", 4444)), link)
        self.assertEqual(len(b.host.transports), 1)

    def simultaneous(self, seed: int, options: SimOptions) -> None:
        """Two nodes dial each other at about the same time, and ask all the while."""
        rng = Random(seed)
        self.network = SimNetwork(self.clock, rng, options)
        a, b = self.node(1), self.node(2)
        asking: list[Deferred[Any]] = []
        for turn in range(60):
            for node, other in rng.sample([(a, b), (b, a)], 2):
                if turn or rng.random() < 0.9:
                    asking.append(self.ask(node, other))
            self.run_for(rng.uniform(0, 0.0004))
        self.run_for(1)
        for deferred in asking:
            self.successResultOf(deferred)
        self.run_for(5)
        for node, other, dialled in ((a, b, True), (b, a, False)):
            self.assertEqual(len(node.host.transports), 1, f"seed {seed}")
            link = node.links.get(other.peer.instance)
            assert link is not None
            self.assertFalse(link.retired)
            if len(node.events) > 1:  # there were two
                self.assertIs(link.dialled, dialled, f"seed {seed}")
            self.assertNotIn(("down", other.peer.id), node.events)
        for node in (a, b):
            self.stop(node)
        self.nodes.clear()

    def test_simultaneous_dialling(self) -> None:
        """One stays, that which the lower instance dialled, and no request is lost."""
        for seed in range(60):
            self.simultaneous(seed, SimOptions(delay=(0.0005, 0.005)))

    def test_simultaneous_dialling_on_a_rough_network(self) -> None:
        for seed in range(30):
            self.simultaneous(seed, SimOptions(split_rate=ROUGH.split_rate, merge_rate=0.1))

    def test_exactly_simultaneous(self) -> None:
        """There are two connections for a while, and it is the right one that stays."""
        a, b = self.node(1), self.node(2)
        dialling = [self.dial(b, a), self.dial(a, b)]
        self.run_for(0.5)
        self.assertEqual(len(a.host.transports), 2)
        links = [self.successResultOf(deferred) for deferred in dialling]
        self.assertEqual(sorted(a.events), [("changed", 2), ("up", 2)])
        self.run_for(5)
        self.assertEqual(len(a.host.transports), 1)
        kept = a.links.get(b.peer.instance)
        self.assertIs(kept, links[1])
        assert kept is not None
        self.assertTrue(kept.dialled)

    def test_a_replaced_connection_finishes_its_requests(self) -> None:
        """It is closed only when nothing waits on it any more, on either side."""
        replaced = 0
        for head_start in range(8):
            a, b = self.node(2 * head_start + 1), self.node(2 * head_start + 2)
            waiting: list[Deferred[Any]] = []
            a.reply = partial(answer_later, waiting=waiting)
            asking = b.links.ask(a.peer, Read(FIRST_EPOCH, b"k"), 20.0)
            self.run_for(head_start * 0.0005)
            self.dial(a, b)
            self.run_for(12)
            replaced += len(a.host.transports) - 1
            self.assertNoResult(asking)
            waiting[0].callback(Value(b"v"))
            self.run_for(4)
            self.assertEqual(self.successResultOf(asking), Value(b"v"))
            self.assertEqual(len(a.host.transports), 1)
        self.assertGreater(replaced, 0)

    def test_the_other_connection_takes_over(self) -> None:
        """When the one that was kept is lost and another one is there, the peer is not gone."""
        a, b = self.node(1), self.node(2)
        dialling = [self.dial(b, a), self.dial(a, b)]
        self.run_for(0.5)
        for deferred in dialling:
            self.successResultOf(deferred)
        kept, other = a.links.get(b.peer.instance), b.links.get(a.peer.instance)
        assert kept is not None and other is not None
        kept.abort()
        self.run_for(0.5)
        self.assertNotIn(("down", 2), a.events)
        self.assertNotIn(("down", 1), b.events)
        asking = [self.ask(a, b), self.ask(b, a)]
        self.run_for(5)
        for deferred in asking:
            self.successResultOf(deferred)
        self.assertEqual(len(a.host.transports), 1)

    def test_a_peer_that_dials_anew(self) -> None:
        """It had lost the old connection, which this side still takes for alive."""
        a, b = self.node(1), self.node(2)
        self.connected(b, a)
        newer = RawPeerThatIs(self, b, a)
        link = a.links.get(b.peer.instance)
        assert link is not None
        asking = a.links.ask(b.peer, Ping())
        self.run_for(0.1)
        self.assertIsInstance(newer.peer.heard()[-1], Ask)
        newer.peer.transport.loseConnection()
        self.run_for(0.1)
        self.refused_with(PeerUnreachable, asking)


class RawPeerThatIs:
    """A further connection of a node to another, in the hands of the test."""

    def __init__(self, case: WireCase, node: FakeNode, other: FakeNode) -> None:
        self.peer: RawPeer = case.raw_client(other, framed(node.said))


def answer(ask: Ask) -> Answer:
    return Answer(ask.number, Done())


class WatchTests(WireCase):
    def test_idle_peers_are_pinged_and_live(self) -> None:
        """After a second of silence, about once a second, for ever."""
        node = self.node(1)
        client = self.raw_client(node, framed(self.hello(node)))
        client.heard()
        for _ in range(60):
            self.run_for(1)
            for message in client.heard():
                self.assertEqual(message.body, Ping())
                client.transport.write(framed(answer(message)))
        self.assertEqual(node.events, [("up", 9)])

    def hello(self, node: FakeNode) -> Hello:
        return msgspec.structs.replace(node.said, peer=make_peer(9))

    def test_first_ping(self) -> None:
        node = self.node(1)
        client = self.raw_client(node, framed(self.hello(node)))
        client.heard()
        self.run_for(0.8)
        self.assertEqual(client.heard(), [])
        self.run_for(0.8)
        self.assertEqual([type(message) for message in client.heard()], [Ask])

    def test_silence_is_death(self) -> None:
        """8 s after the last word, not earlier, and not much later."""
        node = self.node(1)
        client = self.raw_client(node, framed(self.hello(node)))
        asking = node.links.ask(make_peer(9), Ping(), 60.0)
        self.run_for(7.8)
        self.assertEqual(node.events, [("up", 9)])
        self.run_for(0.8)
        self.assertEqual(node.events, [("up", 9), ("down", 9)])
        self.assertIn("was silent for 8", str(node.errors[0]))
        self.assertIs(client.lost, ConnectionLost)
        self.assertIn("silent", str(self.refused_with(PeerUnreachable, asking)))

    def test_any_word_is_life(self) -> None:
        """A peer that does not answer pings but sends something now and then is not dead."""
        node = self.node(1)
        client = self.raw_client(node, framed(self.hello(node)))
        for _ in range(10):
            self.run_for(3)
            client.say(self.hello(node))
        self.assertNotIn(("down", 9), node.events)

    def test_frozen_peer(self) -> None:
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        self.run_for(3)
        b.host.pause()
        self.run_for(7)
        self.assertEqual(a.events, [("up", 2)])
        self.run_for(3)
        self.assertEqual(a.events, [("up", 2), ("down", 2)])
        b.host.resume()

    def test_cut_off_peer(self) -> None:
        """Both sides notice within 10 s, and connect again after the heal."""
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        self.run_for(3)
        cut = self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        self.run_for(10)
        self.assertEqual((a.events[-1], b.events[-1]), (("down", 2), ("down", 1)))
        self.network.heal(cut)
        self.run_for(self.settings.request_timeout_max)
        asking = self.ask(a, b)
        self.run_for(0.1)
        self.successResultOf(asking)

    def test_who_fell_silent_is_not_dialled_at_once(self) -> None:
        """That would only cost every asker a timeout; asking fails at once for a while."""
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        b.host.pause()
        self.clock.run_while(lambda: not a.errors, 20)
        self.assertIn("was silent", str(a.errors[0]))
        self.refused_with(PeerUnreachable, self.ask(a, b))
        b.host.resume()
        self.run_for(self.settings.request_timeout_max)
        asking = self.ask(a, b)
        self.run_for(0.1)
        self.successResultOf(asking)

    def test_one_that_was_away_itself_blames_nobody(self) -> None:
        """The process was stopped for a minute: its peers had no chance to be heard."""
        patient = Settings(dead_after=10_000.0)
        a = self.node(1)
        others = [self.node(number, patient) for number in (2, 3, 4)]
        for other in others:
            self.connected(a, other)
        self.run_for(3)
        for away in (7.0, 60.0, 3600.0):
            a.host.pause()
            self.run_for(away)
            a.host.resume()
            self.run_for(10)
            self.assertEqual(a.events, [("up", 2), ("up", 3), ("up", 4)], away)

    def test_nor_does_it_forget_who_is_dead(self) -> None:
        """Being away itself delays the verdict; it does not prevent it."""
        node = self.node(1)
        self.raw_client(node, framed(self.hello(node)))
        node.host.pause()
        self.run_for(60)
        node.host.resume()
        self.run_for(10)
        self.assertEqual(node.events, [("up", 9), ("down", 9)])


class BoundsTests(WireCase):
    settings = Settings(
        connections=5, connections_per_address=3, queued_bytes=200_000, requests_per_connection=50
    )

    def test_connections_per_address(self) -> None:
        node = self.node(1)
        clients = [self.raw_client(node) for _ in range(4)]
        self.assertEqual([client.lost for client in clients], [None] * 3 + [ConnectionLost])
        self.assertIsNone(self.raw_client(node, number=8).lost)
        clients[0].transport.loseConnection()
        self.run_for(0.1)
        self.assertIsNone(self.raw_client(node).lost)
        self.assertIs(self.raw_client(node).lost, ConnectionLost)

    def test_connections_in_all(self) -> None:
        node = self.node(1)
        clients = [self.raw_client(node, number=number) for number in range(11, 17)]
        self.assertEqual([client.lost for client in clients], [None] * 5 + [ConnectionLost])
        clients[0].transport.loseConnection()
        self.run_for(0.1)
        self.assertIsNone(self.raw_client(node, number=20).lost)

    def test_who_comes_too_often_is_counted_and_logged_a_few_times(self) -> None:
        node = self.node(1)
        with capturedLogs() as events:
            for _ in range(30):
                self.raw_client(node)
        texts = [formatEvent(event) for event in events if event["log_namespace"].endswith("Links")]
        self.assertEqual(len(texts), 6, texts)
        self.assertEqual(texts[0], "A peer was refused: 10.0.0.9 has 3 connections already")
        self.assertIn("again and again", texts[-1])
        self.assertEqual(node.links.complaints.count, 27)

    def test_many_hosts_fill_the_log_no_more_than_one(self) -> None:
        """Some lines of all hosts together, and again after a minute."""
        node = self.node(1)

        def lines() -> list[str]:
            with capturedLogs() as events:
                for number in range(20, 200):
                    self.raw_client(node, b"\0\0\0\1\xc1", number=number)
            return [formatEvent(e) for e in events if e["log_namespace"].endswith("Links")]

        texts = lines()
        self.assertEqual(len(texts), 51)
        self.assertEqual(texts[-1], "Many hosts are refused; no more is said of them for a minute.")
        self.assertEqual(lines(), [])
        self.run_for(60)
        self.assertEqual(len(lines()), 51)
        self.assertEqual(node.links.complaints.count, 540)

    def test_another_name_each_time_is_no_way_to_fill_the_log(self) -> None:
        """What counts is where a connection comes from, and what it says is shown harmlessly."""
        node = self.node(1)
        with capturedLogs() as events:
            for number in range(20):
                peer = make_peer(9, host=f"\x1b[2J\n{number}")
                hello = msgspec.structs.replace(node.said, peer=peer)
                self.raw_client(node, framed(hello) + b"\0\0\0\1\xc1")
        texts = [formatEvent(event) for event in events if event["log_namespace"].endswith("Links")]
        self.assertEqual(len(texts), 6, texts)
        self.assertTrue(all(map(str.isprintable, texts)), texts)
        self.assertEqual(node.links.bad_messages, 20)

    def test_a_mistake_is_logged_a_few_times(self) -> None:
        """Whoever finds a request that this program fails at cannot fill the log with it."""
        node = self.node(1)
        node.reply = lambda request: 1 // 0
        hello = msgspec.structs.replace(node.said, peer=make_peer(9))
        client = self.raw_client(node, framed(hello))
        client.say(*(Ask(number, Ping()) for number in range(30)))
        self.run_for(0.1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 5)
        self.assertEqual(len(client.heard()), 31)

    def test_what_was_dialled_is_not_counted_as_accepted(self) -> None:
        """A node that dials many of one host can still be dialled from there."""
        a, b = self.node(1), self.node(2)
        for _ in range(10):
            self.connected(a, b)
            self.network.reset("10.0.0.1", "10.0.0.2")
            self.run_for(0.1)
        clients = [self.raw_client(a, number=2) for _ in range(3)]
        self.assertEqual([client.lost for client in clients], [None] * 3)

    def test_a_client_that_does_not_read(self) -> None:
        """It asks for more and more; it is dropped, and memory stays within the bounds."""
        node = self.node(1)
        node.reply = lambda request: Value(bytes(10_000))
        hello = msgspec.structs.replace(node.said, peer=make_peer(9))
        client = self.raw_client(node, framed(hello))
        client.transport.pauseProducing()
        link = node.links.get(make_peer(9).instance)
        assert link is not None
        most = 0
        for round_ in range(500):
            client.say(*(Ask(20 * round_ + number, Ping()) for number in range(20)))
            self.run_for(0.01)
            most = max(most, link._protocol.queued_bytes)
            if ("down", 9) in node.events:
                break
        self.assertEqual(node.events, [("up", 9), ("down", 9)])
        self.assertLess(most, 2 * 200_000 + 10_000)

    def test_a_client_that_does_not_read_is_not_asked_for_ever(self) -> None:
        """What this side asks it waits, times out, and never piles up without an end."""
        node = self.node(1)
        hello = msgspec.structs.replace(node.said, peer=make_peer(9))
        client = self.raw_client(node, framed(hello))
        client.transport.pauseProducing()
        asking = [node.links.ask(make_peer(9), Read(FIRST_EPOCH, bytes(4096))) for _ in range(200)]
        for _ in range(13):
            client.say(hello)  # alive, and deaf
            self.run_for(1)
        for deferred in asking:
            self.refused_with(OperationTimeout, deferred)
        self.assertNotIn(("down", 9), node.events)


class StopTests(WireCase):
    """That nothing is left is asserted by :meth:`WireCase.stop`, after every test."""

    def test_stop(self) -> None:
        a, b, c = self.node(1), self.node(2), self.node(3)
        self.connected(a, b)
        self.connected(c, a)
        asking = self.ask(a, b)
        stopped = a.links.stop()
        self.assertIs(a.links.stop(), stopped)
        self.run_for(0.1)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(a.clock.getDelayedCalls(), [])
        self.assertEqual(a.host.transports, {})
        self.refused_with(PeerUnreachable, asking)
        self.assertEqual((b.events[-1], c.events[-1]), (("down", 1), ("down", 1)))

    def test_stop_at_every_moment_of_dialling(self) -> None:
        """Before, during and after the handshake, on either side."""
        for stopping_first in (0, 1):
            for step in range(30):
                nodes = (self.node(1 + 2 * step), self.node(2 + 2 * step))
                asking = self.ask(*nodes)
                for _ in range(step):
                    if not self.clock.step():
                        break
                self.stop(nodes[stopping_first])
                result = asking.result
                if isinstance(result, Value):
                    self.successResultOf(asking)
                else:
                    self.refused_with(PeerUnreachable, asking)
                self.stop(nodes[1 - stopping_first])
                self.nodes.clear()
                for node in nodes:
                    node.host.crash()

    def test_stop_while_nobody_answers(self) -> None:
        a, b = self.node(1), self.node(2)
        cut = self.network.cut(["10.0.0.1"], ["10.0.0.2"])
        asking = self.ask(a, b)
        self.run_for(1)
        self.stop(a)
        self.refused_with(PeerUnreachable, asking)
        self.network.heal(cut)

    def test_stop_with_a_peer_that_does_not_read(self) -> None:
        """It has a second to read what is left, then it is cut."""
        node = self.node(1)
        node.reply = lambda request: Value(bytes(200_000))
        hello = msgspec.structs.replace(node.said, peer=make_peer(9))
        client = self.raw_client(node, framed(hello))
        client.transport.pauseProducing()
        client.say(Ask(1, Ping()))
        self.run_for(0.1)
        stopped = node.links.stop()
        self.run_for(0.9)
        self.assertNoResult(stopped)
        self.run_for(0.2)
        self.successResultOf(stopped)

    def test_what_is_left_is_sent(self) -> None:
        """A node that stops still says what it had to say."""
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        asking = a.links.ask(b.peer, Read(FIRST_EPOCH, b"last"))
        self.stop(a)
        self.assertEqual([request.key for request in b.asked], [b"last"])
        self.assertTrue(self.refused_with(PeerUnreachable, asking).sent)

    def test_stopped_nodes_do_not_dial(self) -> None:
        a, b = self.node(1), self.node(2)
        self.stop(a)
        self.refused_with(PeerUnreachable, self.ask(a, b))
        dialling = self.dial(b, a)
        self.run_for(0.1)
        self.refused_with(PeerUnreachable, dialling)

    def test_stop_before_listening(self) -> None:
        node = FakeNode(5, self.network.host("10.0.0.5"), self.settings)
        self.assertIsNone(self.successResultOf(node.links.stop()))
        self.assertEqual(node.clock.getDelayedCalls(), [])
