"""Watching keys of a ring where nothing goes wrong, or just one thing; and what it may cost."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import formatEvent, globalLogPublisher

from py2p_twisted.base import Peer
from py2p_twisted.errors import KeyTooLarge, NotConnected, Unavailable, WatchTooWide
from py2p_twisted.events import Event
from py2p_twisted.node import watchers as watchers_module
from py2p_twisted.node.core import user_key
from py2p_twisted.node.stream import Share, Stream
from py2p_twisted.node.watchers import LEASE, Watchers
from py2p_twisted.table.acceptor import Acceptor
from py2p_twisted.table.group import FIRST_EPOCH
from py2p_twisted.watch import Watch
from py2p_twisted.wire.messages import (
    OLDEST_VERSION,
    Busy,
    Changed,
    Declined,
    Done,
    Unwatch,
    Watched,
    WatchPart,
)
from py2p_twisted.wire.messages import Watch as WatchRequest

from .fakes import config, make_peer, record
from .simulation.disk import SimDisk
from .simulation.ring_case import RingCase, address
from .simulation.world import SimNode, World


class Listener:
    """Takes what a watch tells, as it comes."""

    def __init__(self, node: SimNode, **what: Any) -> None:
        self.watch = node.service.watch(**what)
        self.events: list[Event] = []
        self.failure: Any = None
        self.over = False
        self.task = Deferred.fromCoroutine(self._listen())
        self.task.addErrback(lambda failure: setattr(self, "failure", failure.value))

    async def _listen(self) -> None:
        async for event in self.watch:
            self.events.append(event)
        self.over = True

    def told(self) -> list[tuple[bytes, str, bytes | None]]:
        """Keys, kinds and values, of which none was skipped."""
        skipped = [event for event in self.events if event.skipped]
        assert not skipped, skipped
        return [(event.key, event.kind, event.value) for event in self.events]


class WatchCase(RingCase):
    """Rings with somebody who watches."""

    def listen(self, world: World, node: SimNode, **what: Any) -> Listener:
        """Watch, and wait until nothing will be missed."""
        listener = Listener(node, **what)
        world.wait(listener.watch.ready())
        return listener

    def leech(self, world: World) -> SimNode:
        """A node that keeps nothing."""
        node = world.add()
        world.wait(node.service.connect(*address(world.members()[0])))
        return node

    def watching(self, node: SimNode) -> Any:
        """The watches of a node."""
        return node.service.node.watching


class SettledTests(WatchCase):
    """Nothing goes wrong: every change is exactly one event."""

    def settled(self, size: int, replicas: int) -> None:
        with self.world(1, replicas=replicas) as world:
            self.grow(world, size)
            member, leech = world.members()[0], self.leech(world)
            listeners = [self.listen(world, node, prefix="key") for node in (member, leech)]
            single = self.listen(world, leech, key="key 3")
            writers = [world.rng.choice(world.nodes).service for _ in range(8)]

            async def write(number: int) -> None:
                ring, key = writers[number], f"key {number % 4}"
                for turn in range(5):
                    await ring.set(key, f"{number} {turn}")
                await ring.set(f"other {number}", b"")
                await ring.compare_and_set(key, b"never", b"was")
                await ring.get(key)

            world.wait(gatherResults([Deferred.fromCoroutine(write(n)) for n in range(8)]))
            for number in range(4):
                world.wait(writers[0].delete(f"key {number}"))
                world.wait(writers[0].delete(f"key {number}"))
            world.run(1)
            for listener in listeners:
                told = listener.told()
                self.assertEqual(len(told), 8 * 5 + 4)
                self.assertEqual(len(set(told)), 8 * 5 + 4)
                for number in range(4):
                    mine = [(kind, value) for key, kind, value in told if key[4:] == b"%d" % number]
                    self.assertEqual([kind for kind, _ in mine], ["add", *["change"] * 9, "delete"])
            here = {key: [e for e in listeners[0].events if e.key == key] for key in (b"key 3",)}
            self.assertEqual([e for e in listeners[1].events if e.key == b"key 3"], here[b"key 3"])
            self.assertEqual(single.events, here[b"key 3"])

    def test_alone(self) -> None:
        """A group of one."""
        self.settled(1, 5)

    def test_three_copies(self) -> None:
        """Two members make a quorum."""
        self.settled(4, 3)

    def test_five_copies(self) -> None:
        """Three do, and two are told later."""
        self.settled(6, 5)

    def test_moving(self) -> None:
        """Groups get new members, and lose some, in the meantime."""
        with self.world(2, replicas=3) as world:
            nodes = self.grow(world, 3)
            leech = self.leech(world)
            listeners = [self.listen(world, node, prefix=b"") for node in (nodes[0], leech)]
            number = 0

            def write() -> None:
                nonlocal number
                for _ in range(5):
                    world.wait(leech.service.set(b"%d" % (number % 7), b"%d" % number))
                    number += 1

            for _ in range(3):
                joining = self.enter(world.add(), nodes[0])
                write()
                world.wait(joining)
                write()
                world.settle(60)
            leaving = nodes[1].service.unjoin()
            write()
            world.wait(leaving)
            world.settle(60)
            write()
            world.run(2)
            for listener in listeners:
                for key in {event.key for event in listener.events}:
                    events = [event for event in listener.events if event.key == key]
                    versions = [event.version for event in events]
                    self.assertEqual(versions, sorted(set(versions)))
                    self.assertEqual(events[-1].value, world.wait(leech.service.get(key)))
                last = listener.events[-1]
                self.assertEqual(last.value, b"%d" % (number - 1))

    def test_initial(self) -> None:
        """What is there comes first, in any number, then what changes."""
        with self.world(3) as world:
            nodes = self.grow(world, 3)
            written = self.write(world, nodes[0], 3000)
            listener = self.listen(world, nodes[1], prefix="", initial=True)
            self.until(world, lambda: len(listener.events) == 3000, 30, "not all are told")
            self.assertEqual({key: value for key, _, value in listener.told()}, written)
            self.assertEqual({kind for _, kind, _ in listener.told()}, {"add"})
            world.wait(nodes[2].service.set("key 7", "new"))
            world.run(1)
            self.assertEqual(listener.told()[3000:], [(b"key 7", "change", b"new")])

    def test_nothing_between_ready_and_a_read(self) -> None:
        """Who reads after ready() and goes on by events has the present value all the time."""
        with self.world(4) as world:
            nodes = self.grow(world, 3)

            async def write() -> None:
                for number in range(200):
                    await nodes[0].service.set("key", b"%d" % number)

            writing = Deferred.fromCoroutine(write())
            listener = self.listen(world, nodes[1], key="key")
            known = world.wait(nodes[1].service.get("key"))
            world.wait(writing)
            world.run(1)
            numbers = [int(event.value or b"") for event in listener.events]
            following = [number for number in numbers if known is None or number > int(known)]
            self.assertEqual(following, list(range(following[0], 200)))
            self.assertEqual(following[0], int(known or b"-1") + 1)


class FaultTests(WatchCase):
    """Just one thing goes wrong."""

    def test_a_member_crashes(self) -> None:
        """Also the one that reported values."""
        for place in range(3):
            with self.world(5 + place, replicas=3, evict_after=2.0) as world:
                nodes = self.grow(world, 4)
                leech = self.leech(world)
                listener = self.listen(world, leech, key="key")
                world.wait(leech.service.set("key", "before"))
                core = leech.service.node.core
                group = core.directory.get(core.partition(user_key(b"key")))
                assert group is not None
                victim = group.members[place].instance
                for node in nodes:
                    if node.service.node.core.instance == victim:
                        world.crash(node)
                for number in range(5):
                    world.wait(leech.service.set("key", b"%d" % number))
                world.run(8)
                world.wait(leech.service.set("key", "after"))
                world.run(2)
                values = [event.value for event in listener.events]
                self.assertEqual(values[0], b"before")
                self.assertEqual(values[-1], b"after")
                self.assertIn(b"4", values)

    def test_a_connection_is_lost(self) -> None:
        """What happened meanwhile is told after it."""
        with self.world(8, replicas=3) as world:
            nodes = self.grow(world, 3)
            leech = self.leech(world)
            listener = self.listen(world, leech, key="key")
            world.wait(nodes[0].service.set("key", "0"))
            world.run(1)
            others = [node.host.address for node in nodes]
            cut = world.network.cut([leech.host.address], others)
            for number in range(1, 9):
                world.wait(nodes[0].service.set("key", b"%d" % number))
            world.run(20)
            world.network.heal(cut)
            self.until(world, lambda: listener.events[-1].value == b"8", 40, "the last is not told")
            self.assertEqual([event.value for event in listener.events], [b"0", b"8"])
            self.assertTrue(listener.events[-1].skipped)

    def test_a_slow_disk(self) -> None:
        """Nothing is told, to others or to this node, before it is written down (rule 13)."""
        with self.world(21) as world:
            node = world.add(disk=SimDisk(Random(1), (2.0, 2.0)))
            world.wait(node.service.join())
            world.run(10)
            leech = self.leech(world)
            listeners = [self.listen(world, one, key="key") for one in (node, leech)]
            writing = node.service.set("key", "1")
            world.run(1.5)
            self.assertEqual([listener.events for listener in listeners], [[], []])
            world.wait(writing)
            world.run(0.5)
            for listener in listeners:
                self.assertEqual(listener.told(), [(b"key", "add", b"1")])

    def test_a_slow_user(self) -> None:
        """Gets the latest of each key, and is told that something was skipped."""
        with self.world(9, replicas=3, watch_events=10) as world:
            nodes = self.grow(world, 3)
            watch = nodes[0].service.watch(prefix="")
            world.wait(watch.ready())
            for number in range(300):
                world.wait(nodes[1].service.set(b"%d" % (number % 20), b"%d" % number))
            world.run(1)
            (watcher,) = self.watching(nodes[0])._watches
            self.assertEqual(len(watcher.inbox), 10)
            known: dict[bytes, bytes | None] = {}
            skipped = 0

            async def take() -> None:
                nonlocal skipped
                async for event in watch:
                    known[event.key] = event.value
                    skipped += event.skipped

            task = Deferred.fromCoroutine(take())
            world.run(5)
            self.assertEqual(known, {b"%d" % n: b"%d" % (n + 280) for n in range(20)})
            self.assertGreater(skipped, 10)
            world.wait(watch.aclose())
            world.wait(task)


class VersionTests(WatchCase):
    """Members that do not know these messages."""

    def ring(self, world: World, old: int) -> list[SimNode]:
        """Three members, so many of the oldest wire version."""
        nodes: list[SimNode] = []
        for number in range(3):
            version = OLDEST_VERSION if number < old else None
            node = world.add(settings=replace(world.settings, wire_version=version))
            world.wait(self.enter(node, nodes[0]) if nodes else node.service.join())
            nodes.append(node)
        world.settle(60)
        return nodes

    def test_one_is_old(self) -> None:
        """The others are a quorum."""
        with self.world(23, replicas=3) as world:
            nodes = self.ring(world, 1)
            listener = self.listen(world, nodes[2], prefix="")
            world.run(3)
            for number in range(30):
                world.wait(nodes[1].service.set(b"%d" % number, "1"))
            world.run(2)
            self.assertEqual(len(listener.events), 30)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_most_are_old(self) -> None:
        """The watch waits until they are upgraded, and the log says what to do."""
        with self.world(24, replicas=3) as world:
            logged: list[str] = []

            def hear(event: Any) -> None:
                logged.append(formatEvent(event) or "")

            globalLogPublisher.addObserver(hear)
            self.addCleanup(globalLogPublisher.removeObserver, hear)
            nodes = self.ring(world, 2)
            listener = Listener(nodes[2], key="key", initial=True)
            world.wait(nodes[2].service.set("key", "1"))
            world.run(5)
            self.assertEqual(listener.events, [])
            said = [line for line in logged if "does not tell what is watched" in line]
            self.assertEqual(len(said), 1)
            self.assertRegex(said[0], "speaks wire version 2 and knows no Watch, .*: upgrade it")
            for node in nodes[:2]:
                world.wait(node.service.unjoin())
                self.grow(world, 3 - (node is nodes[1]))
            world.wait(listener.watch.ready())
            world.run(1)
            self.assertEqual(listener.told(), [(b"key", "add", b"1")])


class LifeTests(WatchCase):
    """How watches begin and end."""

    def test_what_cannot_be(self) -> None:
        """Is refused at once."""
        with self.world(10) as world:
            ring = self.grow(world, 1)[0].service
            self.assertRaises(TypeError, ring.watch)
            self.assertRaises(TypeError, ring.watch, "key", prefix="key")
            self.assertRaises(TypeError, ring.watch, 5)
            self.assertRaises(KeyTooLarge, ring.watch, bytes(5000))

    def test_close(self) -> None:
        """The loop ends, members forget it, and nobody hears any more."""
        with self.world(11) as world:
            nodes = self.grow(world, 3)
            leech = self.leech(world)
            listener = self.listen(world, leech, prefix="")
            world.wait(leech.service.set("key", "1"))
            world.run(1)
            world.wait(listener.watch.aclose())
            world.wait(listener.task)
            self.assertTrue(listener.over)
            world.wait(listener.watch.aclose())
            world.run(1)
            for node in nodes:
                watchers = self.watching(node).watchers
                self.assertEqual((watchers._audiences, watchers._streams), ({}, {}))
                for acceptor in node.service.node.core.acceptors.values():
                    self.assertIsNone(acceptor.accepted)
            self.fails(world, NotConnected, listener.watch.ready())
            self.assertEqual(len(listener.events), 1)

    def test_nobody_has_it(self) -> None:
        """A loop that was left without closing the watch: it ends by itself."""
        with self.world(12) as world:
            (node,) = self.grow(world, 1)

            async def one() -> bytes | None:
                async for event in node.service.watch("key"):
                    return event.value
                return None

            first = Deferred.fromCoroutine(one())
            world.run(1)
            world.wait(node.service.set("key", "1"))
            self.assertEqual(world.wait(first), b"1")
            world.run(2)
            self.assertEqual(self.watching(node)._watches, {})
            self.assertEqual(self.watching(node).watchers._audiences, {})

    def test_the_service_stops(self) -> None:
        """Loops end; who waits for ready() learns that it will not be."""
        with self.world(13) as world:
            nodes = self.grow(world, 2)
            listener = self.listen(world, nodes[0], prefix="")
            alone = world.add()
            waiting = alone.service.watch("key")
            ready = waiting.ready()
            for node in (nodes[0], alone):
                world.wait(node.service.stopService())
                world.nodes.remove(node)
            world.wait(listener.task)
            self.assertTrue(listener.over)
            self.fails(world, NotConnected, ready)
            self.assertRaises(NotConnected, nodes[0].service.watch, "key")

    def test_cancelling(self) -> None:
        """No event is lost with who does not wait any longer; two cannot wait."""
        with self.world(14) as world:
            (node,) = self.grow(world, 1)
            watch = node.service.watch("key")
            world.wait(watch.ready())
            first = Deferred.fromCoroutine(watch.__anext__())
            self.fails(world, RuntimeError, Deferred.fromCoroutine(watch.__anext__()))
            first.cancel()
            self.fails(world, CancelledError, first)
            world.wait(node.service.set("key", "1"))
            world.run(1)
            self.assertEqual(world.wait(watch.__anext__()).value, b"1")
            ready = node.service.watch(prefix="x").ready()
            ready.cancel()
            self.fails(world, CancelledError, ready)

    def test_a_watch_in_an_event(self) -> None:
        """The user may do all things in the middle of a loop."""
        with self.world(15) as world:
            (node,) = self.grow(world, 1)
            ring, seen = node.service, []

            async def listen(watch: Watch) -> None:
                async for event in watch:
                    seen.append(event.value)
                    if event.value == b"3":
                        await watch.aclose()
                    else:
                        await ring.set("key", b"%d" % (int(event.value or b"") + 1))

            watch = ring.watch("key")
            world.wait(watch.ready())
            task = Deferred.fromCoroutine(listen(watch))
            world.wait(ring.set("key", "1"))
            world.wait(task)
            self.assertEqual(seen, [b"1", b"2", b"3"])

    def test_before_there_is_a_ring(self) -> None:
        """A watch waits for one."""
        with self.world(16) as world:
            nodes = self.grow(world, 3)
            node = world.add()
            listener = Listener(node, prefix="", initial=True)
            world.wait(nodes[0].service.set("key", "1"))
            world.run(3)
            world.wait(node.service.connect(*address(nodes[0])))
            world.wait(listener.watch.ready())
            world.run(1)
            self.assertEqual(listener.told(), [(b"key", "add", b"1")])


class BoundTests(WatchCase):
    """What watches may take."""

    def test_too_many(self) -> None:
        """Watches of one node."""
        with self.world(17, watches=3) as world:
            (node,) = self.grow(world, 1)
            kept = [node.service.watch(b"%d" % number) for number in range(3)]
            self.assertRaises(Unavailable, node.service.watch, "key")
            world.wait(kept.pop().aclose())
            kept.append(node.service.watch("key"))

    def test_too_wide(self) -> None:
        """Keys of one watch."""
        with self.world(18, watched_keys=50) as world:
            (node,) = self.grow(world, 1)
            self.write(world, node, 40)
            listener = self.listen(world, node, prefix="")
            self.write(world, node, 60)
            world.run(1)
            self.assertIsInstance(listener.failure, WatchTooWide)
            self.assertEqual(self.watching(node)._watches, {})
            self.fails(world, WatchTooWide, Deferred.fromCoroutine(listener.watch.__anext__()))

    def test_a_lease(self) -> None:
        """Who does not renew is forgotten."""
        with self.world(19) as world:
            (node,) = self.grow(world, 1)
            watchers: Watchers = self.watching(node).watchers
            request = WatchRequest(1, user_key(b"key"), False, ())
            for peer, new in ((5, True), (5, False), (6, True)):
                reply = watchers.answer_watch(self.link(peer), request)
                self.assertEqual(reply, Watched(new, 0))
            world.run(LEASE / 2)
            self.assertEqual(watchers.answer_watch(self.link(6), request), Watched(False, 0))
            world.run(LEASE * 0.9)
            self.assertEqual(list(watchers._audiences), [make_peer(6).instance])
            world.run(LEASE)
            self.assertEqual(watchers._audiences, {})

    def test_what_a_member_bears(self) -> None:
        """Watches of one node, of all nodes, and partitions of all watches."""
        with self.world(22, watches=2) as world:
            (node,) = self.grow(world, 1)
            watchers: Watchers = self.watching(node).watchers
            self.patch(watchers_module, "_MOST_WATCHES", 5)
            self.patch(watchers_module, "_MOST_STREAMS", 1)

            def ask(peer: int, number: int, *parts: WatchPart) -> Any:
                request = WatchRequest(number, user_key(b""), True, parts)
                reply = watchers.answer_watch(self.link(peer), request)
                return reply.reason if isinstance(reply, Declined) else reply.new

            self.assertEqual([ask(5, 1), ask(5, 2), ask(5, 1)], [True, True, False])
            self.assertEqual(ask(5, 3), "2 watches of one node are enough")
            self.assertEqual([ask(6, 1), ask(6, 2), ask(7, 1)], [True, True, True])
            self.assertEqual(ask(8, 1), "5 watches are enough")
            self.assertEqual(len(watchers._audiences), 3)
            parts = [WatchPart(number, FIRST_EPOCH, False, False) for number in range(2)]
            self.assertEqual(ask(5, 1, *parts), "too many partitions are watched here")
            self.assertEqual(ask(5, 1, parts[0]), False)
            for peer in (5, 6, 7):
                watchers.lost(make_peer(peer).instance)
            self.assertEqual((watchers._audiences, watchers._streams), ({}, {}))

    def link(self, number: int) -> Any:
        """What stands for the connection to a peer."""

        class Link:
            peer: Peer = make_peer(number)

        return Link()


class MemberTests(WatchCase):
    """What one member tells one watcher."""

    def setUp(self) -> None:
        self.acceptor = Acceptor(config(0, 1, 1, 2, 3))
        self.share = Share(1000)
        self.stream = Stream(b"\0", self.acceptor, self.share, prefix=True)
        self.stream.reports = True

    def accept(self, key: bytes, counter: int, size: int = 1) -> None:
        one = record(counter, bytes(size))
        self.acceptor.accept(FIRST_EPOCH, key, one)
        self.stream.add(key, one)

    def everything(self, room: int = 10**6) -> list[Any]:
        told = []
        while self.stream.ready:
            told.append(self.stream.take(room, 1000)[0])
        return told

    def test_what_is_there_then_what_comes(self) -> None:
        """Heads first, records later; and nothing twice."""
        self.accept(b"\0a", 2)
        self.accept(b"\0b", 2)
        (told,) = self.everything()
        self.assertTrue(told.anew and told.current)
        self.assertEqual([key for key, _ in told.heads], [b"\0a", b"\0b"])
        self.assertEqual({head.value for _, head in told.heads}, {b""})
        self.accept(b"\0a", 3)
        self.accept(b"\1claim", 2)
        (told,) = self.everything()
        self.assertEqual([(key, r.ballot.counter) for key, r in told.records], [(b"\0a", 3)])
        self.assertFalse(told.anew or told.current or told.heads)

    def test_writes_while_it_begins(self) -> None:
        """What was told already is told again if it changes; the rest comes anyway."""
        for letter in b"abcd":
            self.accept(bytes([0, letter]), 2)
        first = self.stream.take(200, 1000)[0]
        self.assertEqual([key for key, _ in first.heads], [b"\0a", b"\0b"])
        self.accept(b"\0a", 3)
        self.accept(b"\0d", 3)
        second = self.stream.take(10**6, 1000)[0]
        self.assertEqual([key for key, _ in second.records], [b"\0a"])
        self.assertEqual(
            [(k, h.ballot.counter) for k, h in second.heads], [(b"\0c", 2), (b"\0d", 3)]
        )
        self.assertEqual((first.current, second.current, second.anew), (False, True, False))

    def test_too_much(self) -> None:
        """What waits for somebody slow is dropped; then all that is there is told again."""
        self.accept(b"\0a", 2)
        self.everything()
        for counter in range(3, 40):
            self.accept(b"\0a", counter, 100)
            self.assertLessEqual(self.share.size, 1000)
        told = self.everything()
        self.assertTrue(told[0].anew and told[-1].current)
        self.assertEqual(told[-1].heads[-1][1].ballot.counter, 39)
        self.assertEqual(self.share.size, 0)
        self.accept(b"\0a", 40, 5000)
        self.assertEqual(len(self.everything()[0].records), 1)

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 2**32), st.sampled_from((400, 1000, 10**6)))
    def test_any_order(self, seed: int, most: int) -> None:
        """Whatever is accepted while some of it is told: in the end all is told, up to the last."""
        rng = Random(seed)
        acceptor = Acceptor(config(0, 1, 1, 2, 3))
        share = Share(most)
        stream = Stream(b"\0", acceptor, share, prefix=True)
        stream.reports = rng.random() < 0.5
        known: dict[bytes, int] = {}
        current = False

        def take(room: int) -> None:
            nonlocal current
            told = stream.take(room, 1000)[0]
            current = (current and not told.anew) or told.current
            entries = [(key, ballot) for key, ballot, _ in told.ballots]
            entries += [(key, one.ballot) for key, one in (*told.heads, *told.records)]
            for key, ballot in entries:
                known[key] = max(known.get(key, 0), ballot.counter)

        for counter in range(2, 80):
            key = b"\0%d" % rng.randrange(12)
            one = record(counter)
            acceptor.accept(FIRST_EPOCH, key, one)
            stream.add(key, one)
            self.assertLessEqual(share.size, most)
            while stream.ready and rng.random() < 0.3:
                take(rng.choice((1, 200, 1000)))
            if not stream.ready:
                self.assertTrue(current)
                self.assertEqual(known, {k: r.ballot.counter for k, r in acceptor.records.items()})
        while stream.ready:
            take(300)
        self.assertTrue(current)
        self.assertEqual(known, {k: r.ballot.counter for k, r in acceptor.records.items()})
        self.assertEqual(share.size, 0)

    def test_somebody_who_is_always_slow(self) -> None:
        """Hears of the last keys, too, however often the first ones change."""
        for number in range(30):
            self.acceptor.accept(FIRST_EPOCH, b"\0%02d" % number, record(2))
        heard = set()
        for counter in range(3, 100):
            for number in range(20):
                self.accept(b"\0%02d" % number, counter)
            told = self.stream.take(300, 1000)[0]
            heard.update(key for key, _ in (*told.heads, *told.records))
        self.assertEqual(len(heard), 30)

    def test_a_stopped_epoch(self) -> None:
        """Nothing more is read of it."""
        self.accept(b"\0a", 2)
        self.acceptor.wedge(FIRST_EPOCH, record(50).ballot)
        self.assertFalse(self.stream.ready)

    def test_who_does_not_answer(self) -> None:
        """Is told anew after a while; who declines is forgotten."""
        with self.world(20) as world:
            (node,) = self.grow(world, 1)
            watching = self.watching(node)
            replies: list[Any] = []
            messages: list[Changed] = []

            def here(_: bytes, message: Changed) -> Any:
                messages.append(message)
                return replies.pop(0) if replies else Done()

            watchers = Watchers(node.service.node.core, node.service.node.keeper, here)
            core = node.service.node.core
            partition = core.partition(user_key(b"key"))
            epoch = core.acceptors[partition].config.epoch
            part = WatchPart(partition, epoch, True, False)
            replies.append(Busy())
            self.assertEqual(
                watchers.answer_watch(None, WatchRequest(7, b"\1", True, (part,))),
                Declined("only keys of users can be watched"),
            )
            request = WatchRequest(7, user_key(b"key"), False, (part,))
            self.assertEqual(watchers.answer_watch(None, request), Watched(True, 1))
            world.run(0.1)
            self.assertEqual(len(messages), 1)
            world.run(1)
            self.assertEqual([one.parts[0].anew for one in messages], [True, True])
            replies.append(Declined("no"))
            world.wait(node.service.set("key", "1"))
            world.run(1)
            self.assertEqual((len(messages), watchers._audiences), (3, {}))
            watchers.answer_unwatch(None, Unwatch(7))
            watchers.stop()
            watching.stop()
