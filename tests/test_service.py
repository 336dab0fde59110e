"""The service as a Twisted application uses it: every operation, every error, start to stop.

Where time matters the nodes live in the simulator; where sockets do, on loopback.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from py2p_twisted.base import protocol
from py2p_twisted.errors import (
    AuthenticationFailed,
    ChordError,
    KeyTooLarge,
    NetworkMismatch,
    NotConnected,
    OperationTimeout,
    PeerUnreachable,
    RingConflict,
    Unavailable,
    ValueTooLarge,
)
from py2p_twisted.service import ChordService, Text
from py2p_twisted.settings import Settings

from .certificates import Authority, days_from_now
from .simulation.ring_case import RingCase, address
from .simulation.world import SimNode, World

SSL = protocol("chord", "SSL")


async def listed(items: AsyncIterator[Any]) -> list[Any]:
    """All that an asynchronous iterator yields."""
    return [item async for item in items]


class TestOperations(RingCase):
    """What each operation fires with, on a member and on a leeching node."""

    def each(self, check: Callable[[World, ChordService], None]) -> None:
        """Check on a ring of three: through a member, and through a leeching node."""
        with self.world(1, k=4) as world:
            members = self.grow(world, 3)
            reader = world.add()
            world.wait(reader.service.connect(*address(members[0])))
            for node in (members[1], reader):
                check(world, node.service)
                world.wait(node.service.clear())
                self.assertEqual(world.wait(node.service.count()), 0)

    def test_one_key(self) -> None:
        """get, set, contains and delete."""

        def check(world: World, service: ChordService) -> None:
            self.assertIs(world.wait(service.get("key")), None)
            self.assertEqual(world.wait(service.get("key", b"default")), b"default")
            self.assertIs(world.wait(service.contains("key")), False)
            self.assertIs(world.wait(service.set("key", "value")), None)
            self.assertEqual(world.wait(service.get(b"key", b"default")), b"value")
            self.assertIs(world.wait(service.contains("key")), True)
            self.assertIs(world.wait(service.delete("key")), True)
            self.assertIs(world.wait(service.delete("key")), False)
            self.assertIs(world.wait(service.get("key")), None)

        self.each(check)

    def test_odd_texts(self) -> None:
        """Unicode, empty and binary keys and values are ordinary; what comes back is bytes."""
        texts: list[Text] = [
            "",
            "schl\u00fcssel \U0001f511",
            b"\0\xff",
            bytearray(b"array"),
            memoryview(b"view"),
        ]

        def check(world: World, service: ChordService) -> None:
            for text in texts:
                world.wait(service.set(text, text))
            for text in texts:
                raw = text.encode() if isinstance(text, str) else bytes(text)
                found = world.wait(service.get(raw))
                self.assertEqual((found, type(found)), (raw, bytes))
            self.assertEqual(world.wait(service.count()), len(texts))

        self.each(check)

    def test_conditional(self) -> None:
        """compare_and_set, setdefault and pop."""

        def check(world: World, service: ChordService) -> None:
            swap = service.compare_and_set
            self.assertIs(world.wait(swap("key", "old", "new")), False)
            self.assertIs(world.wait(swap("key", None, "one")), True)
            self.assertIs(world.wait(swap("key", None, "two")), False)
            self.assertIs(world.wait(swap("key", "one", "")), True)
            self.assertIs(world.wait(swap("key", None, "no")), False)
            self.assertIs(world.wait(swap("key", "", "three")), True)
            self.assertEqual(world.wait(service.setdefault("key", "no")), b"three")
            self.assertEqual(world.wait(service.setdefault("other", "yes")), b"yes")
            self.assertEqual(world.wait(service.pop("key")), b"three")
            self.assertEqual(world.wait(service.pop("key", 7)), 7)
            self.assertIs(world.wait(service.pop("key", None)), None)
            self.fails(world, KeyError, service.pop("key"))
            self.assertEqual(world.wait(service.popitem()), (b"other", b"yes"))
            self.fails(world, KeyError, service.popitem())

        self.each(check)

    def test_many_keys(self) -> None:
        """update, get_many, count, keys, items and clear; pages and messages are bounded."""

        def check(world: World, service: ChordService) -> None:
            many = {b"key %d" % n: b"v" * (n % 7 * 100) for n in range(3000)}
            world.wait(service.update(many))
            world.wait(service.update([("pair", "1"), (b"pair", "2")], word="3"))
            many |= {b"pair": b"2", b"word": b"3"}
            self.assertEqual(world.wait(service.count()), len(many))
            self.assertEqual(sorted(world.wait(listed(service.keys()))), sorted(many))
            self.assertEqual(sorted(world.wait(listed(service.items()))), sorted(many.items()))
            self.assertEqual(world.wait(service.get_many([*many, "absent", "pair"])), many)
            self.assertEqual(world.wait(service.get_many([])), {})
            self.assertIs(world.wait(service.update()), None)
            world.wait(service.clear())
            self.assertEqual(world.wait(listed(service.keys())), [])

        self.each(check)

    def test_largest(self) -> None:
        """The largest keys and values, several in one call too."""

        def check(world: World, service: ChordService) -> None:
            key, value = b"k" * 4096, b"v" * 2**20
            many = {b"%d" % n: value for n in range(4)}
            world.wait(service.update({key: value, **many}))
            self.assertEqual(world.wait(service.get(key)), value)
            self.assertEqual(world.wait(service.get_many(many)), many)
            self.assertEqual(len(world.wait(listed(service.items()))), 5)

        self.each(check)

    def test_refused_texts(self) -> None:
        """Other types and sizes are refused at the call."""
        service = ChordService(reactor, "127.0.0.1", 0)
        for call in (
            service.get,
            service.contains,
            service.delete,
            service.pop,
            lambda bad: service.set(bad, ""),
            lambda bad: service.set("", bad),
            lambda bad: service.setdefault("", bad),
            lambda bad: service.get_many([bad]),
            lambda bad: service.update({"": bad}),
            lambda bad: service.update([(bad, "")]),
        ):
            wrong: list[Any] = [7, None, 1.5, ["text"], {}]
            for bad in wrong:
                error = self.assertRaises(TypeError, call, bad)
                self.assertIn("bytes-like or str", str(error))
        self.assertRaises(TypeError, service.compare_and_set, "", 7, "")
        self.assertRaises(TypeError, service.compare_and_set, "", "", 7)
        for long in (b"k" * 4097, "\u00e4" * 2049):
            self.assertIn("4096", str(self.assertRaises(KeyTooLarge, service.get, long)))
        for long in (b"v" * (2**20 + 1), "\u00e4" * 2**19 + "a"):
            for write in (service.set, service.setdefault):
                self.assertIn("1048576", str(self.assertRaises(ValueTooLarge, write, "", long)))
        self.assertRaises(ValueTooLarge, service.update, {"": b"v" * (2**20 + 1)})

    def test_recover_must_be_meant(self) -> None:
        """recover() without the consent is refused at the call."""
        service = ChordService(reactor, "127.0.0.1", 0)
        for consent in ({}, {"accept_data_loss": False}, {"accept_data_loss": 1}):
            error = self.assertRaises(ValueError, service.recover, **consent)
            self.assertIn("accept_data_loss=True", str(error))


class TestTrouble(RingCase):
    """Operations that cannot be done, or are given up."""

    def pair(self, world: World) -> tuple[SimNode, SimNode]:
        """A keeper of all keys, and a leeching node."""
        (keeper,) = self.grow(world, 1)
        reader = world.add()
        world.wait(reader.service.connect(*address(keeper)))
        world.run(3)
        return keeper, reader

    def operations(self, service: ChordService) -> list[Callable[[], Deferred[Any]]]:
        """Everything that asks other nodes."""
        return [
            lambda: service.get("key"),
            lambda: service.set("key", "value"),
            lambda: service.delete("key"),
            lambda: service.contains("key"),
            lambda: service.setdefault("key", "value"),
            lambda: service.pop("key"),
            lambda: service.popitem(),
            lambda: service.compare_and_set("key", None, "value"),
            lambda: service.update({"key": "value", "other": "value"}),
            lambda: service.get_many(["key", "other"]),
            lambda: service.count(),
            lambda: service.clear(),
            lambda: Deferred.fromCoroutine(listed(service.keys())),
            lambda: Deferred.fromCoroutine(listed(service.items())),
        ]

    def test_not_connected(self) -> None:
        """Before connect() or join() there is no ring to talk to."""
        with self.world(1) as world:
            lonely = world.add()
            for operation in self.operations(lonely.service):
                self.fails(world, NotConnected, operation())
            self.fails(world, NotConnected, lonely.service.recover(accept_data_loss=True))
            self.assertIn("connect()", lonely.service.status)

    def test_crashed_keeper(self) -> None:
        """The keys of a node that crashed are unavailable, and the error says how it is."""
        with self.world(1) as world:
            keeper, reader = self.pair(world)
            world.crash(keeper)
            for operation in self.operations(reader.service):
                began = world.clock.seconds()
                (error,) = self.all_of(world, [operation()])
                self.assertIsInstance(error, Unavailable, error)
                self.assertEqual((error.reachable, error.members), (0, 1))
                self.assertFalse(error.outcome_unknown)
                self.assertLess(world.clock.seconds() - began, 10.5)

    def test_frozen_keeper(self) -> None:
        """A write that was sent and never answered has an unknown outcome; a read has none."""
        with self.world(1) as world:
            keeper, reader = self.pair(world)
            keeper.host.pause()
            service = reader.service
            reading, writing = service.get("key"), service.set("key", "value")
            for error, unknown in zip(self.all_of(world, [reading, writing]), (0, 1), strict=True):
                self.assertIsInstance(error, Unavailable | OperationTimeout)
                self.assertEqual(error.outcome_unknown, bool(unknown), error)
            keeper.host.resume()
            world.run(20)

    def test_timeout(self) -> None:
        """Operations end when their time is over, whoever asks, and however many copies there are.

        All of them are tried at the same time: those that wait for others end in time, too.
        """
        for timeout, replicas in ((0.5, 1), (2.5, 1), (2.5, 3), (0.5, 5), (2.5, 5)):
            with self.world(1, operation_timeout=timeout, replicas=replicas) as world:
                members = self.grow(world, replicas)
                reader = world.add()
                world.wait(reader.service.connect(*address(members[0])))
                world.run(3)
                frozen = members[: replicas // 2 + 1]
                for node in frozen:
                    node.host.pause()
                waiting = [
                    operation()
                    for node in (reader, *members[len(frozen) :])
                    for operation in self.operations(node.service) * 3
                ]
                world.run(timeout + 0.3)
                self.assertEqual([deferred for deferred in waiting if not deferred.called], [])
                for error in self.all_of(world, waiting):
                    self.assertIsInstance(error, Unavailable | OperationTimeout)
                    self.assertIn(f"in {timeout:g} s", str(error))
                for node in frozen:
                    node.host.resume()
                world.run(20)
                self.assertIn(world.wait(reader.service.get("key")), (None, b"value"))

    def test_cancelled(self) -> None:
        """Every operation can be cancelled, at once or later, and leaves nothing behind."""
        for moment in (0.0, 0.01, 1.0, 9.0):
            with self.world(1) as world:
                keeper, reader = self.pair(world)
                keeper.host.pause()
                waiting = [operation() for operation in self.operations(reader.service)]
                world.run(moment)
                for deferred in waiting:
                    deferred.cancel()
                kinds = {type(error) for error in self.all_of(world, waiting)}
                self.assertEqual(kinds, {CancelledError})
                keeper.host.resume()
                world.run(20)
                world.wait(reader.service.set("key", "value"))

    def test_life_cancelled(self) -> None:
        """connect, join, unjoin, recover and when_ready can be cancelled, at any moment."""
        for moment in (0.0, 0.001, 0.004, 0.02, 0.5, 3.0):
            with self.world(1) as world:
                members = self.grow(world, 3)
                self.write(world, members[0])
                node, waiter = world.add(), world.add(join=[("10.9.9.9", 1)])
                self.cancelled(world, moment, node.service.connect(*address(members[0])))
                self.cancelled(world, moment, waiter.service.when_ready())
                world.run(1)
                world.wait(node.service.connect(*address(members[0])))
                self.cancelled(world, moment, node.service.join())
                world.run(1)
                world.wait(node.service.join())
                world.settle(20)
                self.cancelled(world, moment, node.service.unjoin())
                world.run(1)
                world.wait(node.service.unjoin())
                self.cancelled(world, moment, members[0].service.recover(accept_data_loss=True))
                world.settle(20)
                self.assertEqual(world.wait(node.service.count()), 100)
                waiter.host.crash()
                world.nodes.remove(waiter)

    def cancelled(self, world: World, moment: float, deferred: Deferred[Any]) -> None:
        """Cancel it after that time; if it was not done, it fails with nothing but that."""
        done = deferred.called and not deferred.paused
        if moment:
            world.run(moment)
            done = deferred.called and not deferred.paused
        deferred.cancel()
        (result,) = self.all_of(world, [deferred])
        if not done:
            self.assertIsInstance(result, CancelledError)

    def test_stopped_meanwhile(self) -> None:
        """What is under way when the service stops fails soon, and leaves nothing."""
        with self.world(1) as world:
            keeper, reader = self.pair(world)
            keeper.host.pause()
            waiting = [operation() for operation in self.operations(reader.service)]
            world.run(0.5)
            began = world.clock.seconds()
            world.wait(reader.service.stopService())
            self.assertLess(world.clock.seconds() - began, 3)
            self.assertEqual(reader.host.clock.getDelayedCalls(), [])
            for error in self.all_of(world, waiting):
                self.assertIsInstance(error, ChordError, error)
            world.nodes.remove(reader)
            keeper.host.resume()
            world.run(10)

    def test_after_the_stop(self) -> None:
        """A stopped service says so."""
        with self.world(1) as world:
            _, reader = self.pair(world)
            world.wait(reader.service.stopService())
            world.nodes.remove(reader)
            for operation in self.operations(reader.service):
                (error,) = self.all_of(world, [operation()])
                self.assertIsInstance(error, ChordError, error)
            for life in (
                reader.service.connect("10.0.0.1", 4444),
                reader.service.join(),
                reader.service.when_ready(),
            ):
                (error,) = self.all_of(world, [life])
                self.assertIsInstance(error, ChordError, error)
            self.assertEqual(reader.service.status, "Stopped")
            self.assertEqual(reader.host.clock.getDelayedCalls(), [])


class TestReady(RingCase):
    """when_ready()."""

    def test_when_ready(self) -> None:
        """Fires once in the ring; a leeching node is ready when it is connected."""
        with self.world(1) as world:
            founder = world.add(join=[])
            self.assertIs(world.wait(founder.service.when_ready()), founder.service)
            node, reader = world.add(join=[address(founder)]), world.add()
            joined, connected = node.service.when_ready(), reader.service.when_ready()
            self.assertFalse(joined.called or connected.called)
            world.wait(reader.service.connect(*address(founder)))
            self.assertIs(world.wait(connected), reader.service)
            self.assertIs(world.wait(joined), node.service)
            self.assertIs(world.wait(node.service.when_ready()), node.service)
            self.assertIs(world.wait(reader.service.when_ready()), reader.service)

    def test_ready_after_join(self) -> None:
        """A node that founds a ring by join() is ready too."""
        with self.world(1) as world:
            node = world.add()
            ready = node.service.when_ready()
            world.wait(node.service.join())
            self.assertIs(world.wait(ready), node.service)

    def test_never_ready(self) -> None:
        """What no patience can mend is told to those that wait, and so is a stop."""
        with self.world(1) as world:
            waiter = world.add(join=[("10.9.9.9", 1)])
            ready = waiter.service.when_ready()
            world.run(100)
            self.assertFalse(ready.called)
            world.wait(waiter.service.stopService())
            world.nodes.remove(waiter)
            self.fails(world, NotConnected, ready)


class TestParameters(SynchronousTestCase):
    """What the constructor refuses."""

    def test_refused(self) -> None:
        """Wrong types and values, each with its name in the message."""
        wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
            (ValueError, "k", {"k": 0}),
            (ValueError, "k", {"k": 161}),
            (ValueError, "k", {"k": True}),
            (ValueError, "k", {"k": "6"}),
            *(
                (ValueError, "replicas must be one of 1, 3, 5", {"replicas": number})
                for number in (-1, 0, 2, 4, 6, 7, True, False, 3.0, "3", [3])
            ),
            (ValueError, "timeout", {"timeout": 0}),
            (TypeError, "addr", {"addr": 7}),
            (TypeError, "addr", {"addr": ""}),
            (TypeError, "port", {"port": "4444"}),
            (ValueError, "port", {"port": -1}),
            (ValueError, "port", {"port": 65536}),
            (TypeError, "out_addr", {"out_addr": "host"}),
            (ValueError, "out_addr", {"out_addr": ("host", 0)}),
            (TypeError, "join", {"join": [("host",)]}),
            (ValueError, "join", {"join": [("host", 0)]}),
            *(
                (TypeError, "storage must be a path or a Storage", {"storage": storage})
                for storage in (5, b"data", False)
            ),
            (ValueError, "ca.pem", {"tls": "/nowhere"}),
            (ValueError, "tls= encrypts", {"tls": "/nowhere", "settings": Settings()}),
        ]
        for kind, name, parameter in wrong:
            with self.assertRaises(kind) as caught:
                ChordService(reactor, **{"addr": "127.0.0.1", "port": 0, **parameter})
            self.assertIn(name, str(caught.exception), parameter)

    def test_accepted(self) -> None:
        """What stands at the edges; nothing starts before the service does."""
        for parameter in (
            *({"k": 1}, {"k": 160}, {"out_addr": ("::1", 65535)}),
            *({"replicas": number} for number in (None, 1, 3, 5)),
        ):
            service = ChordService(reactor, "127.0.0.1", 0, **parameter)
            verifyObject(IService, service)
            self.assertFalse(service.running)
            self.assertTrue(service.leeching)
            self.failureResultOf(service.connect("127.0.0.1", 1), NotConnected)
            self.failureResultOf(service.join(), NotConnected)


class TestSettings(SynchronousTestCase):
    """What the numbers refuse."""

    def test_evict_after(self) -> None:
        """A time, not none and not the past."""
        self.assertEqual(Settings().evict_after, 30.0)
        Settings(evict_after=0.001)
        for seconds in (0, 0.0, -1.0, float("nan")):
            with self.assertRaisesRegex(ValueError, "evict_after must be positive"):
                Settings(evict_after=seconds)


class SocketCase(TestCase):
    """Services on loopback; at the end all are stopped and must have left nothing."""

    timeout = 20.0

    def setUp(self) -> None:
        """Listen to the log."""
        self.told: list[tuple[Any, str]] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict[str, Any]) -> None:
        """Remember what our code logs for the operator."""
        if event["log_namespace"].startswith("py2p_twisted") and (
            event["log_level"] > LogLevel.debug
        ):
            self.told.append((event["log_level"], formatEvent(event)))

    def log_has(self, *words: str) -> bool:
        """Is there a line with all of these words?"""
        return any(all(word in line for word in words) for _, line in self.told)

    def start(self, **parameters: Any) -> ChordService:
        """A service that listens on a free port."""
        service = ChordService(reactor, "127.0.0.1", 0, **parameters)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def error_of(self, deferred: Deferred[Any]) -> Any:
        """What it fails with; it must come within 2 s."""
        began = time.monotonic()
        try:
            result = await deferred
        except Exception as error:
            self.assertLess(time.monotonic() - began, 2)
            return error
        self.fail(f"it fired with {result!r}")


class TestSockets(SocketCase):
    """Life on real sockets."""

    async def test_port_in_use(self) -> None:
        """Starting raises at once, and the service can be stopped all the same."""
        taken = self.start().out_addr[1]
        for start in ("startService", "privilegedStartService"):
            service = ChordService(reactor, "127.0.0.1", taken)
            error = self.assertRaises(CannotListenError, getattr(service, start))
            self.assertEqual(error.port, taken)
            await service.stopService()

    async def test_in_a_multi_service(self) -> None:
        """Three nodes in one application: it starts, serves and stops as a whole."""
        await pause(0)  # a reactor that runs has readers of its own
        calls, readers = reactor.getDelayedCalls(), set(reactor.getReaders())
        application = MultiService()
        founder = ChordService(reactor, "127.0.0.1", 0, join=[])
        founder.setServiceParent(application)
        application.privilegedStartService()
        application.startService()
        self.assertEqual(application.getServiceNamed("chord"), founder)
        port = founder.out_addr[1]
        self.assertGreater(port, 0)
        late = [ChordService(reactor, "127.0.0.1", 0, join=[founder.out_addr]) for _ in range(2)]
        for number, service in enumerate(late):
            service.setName(f"late {number}")
            service.setServiceParent(application)
            self.assertIs(await service.when_ready(), service)
        await late[0].set("key", "value")
        self.assertEqual(await late[1].get("key"), b"value")
        self.assertEqual({service.status for service in [founder, *late]}, {"Nominal"})
        await application.stopService()
        self.assertEqual(set(reactor.getReaders()), readers)
        self.assertEqual(reactor.getDelayedCalls(), calls)
        self.assertFalse(founder.running)
        self.assertTrue(self.log_has("Founded ring") and self.log_has("Left ring"))

    async def test_names_and_addresses(self) -> None:
        """Host names can be dialled; what is announced can be chosen."""
        founder = self.start(join=[])
        node = self.start(out_addr=("node.example", 4444))
        await node.connect("localhost", founder.out_addr[1])
        self.assertEqual(node.out_addr, ("node.example", 4444))
        announced = [link.peer.address for link in founder.links()]
        self.assertEqual(announced, [("node.example", 4444)])
        error = await self.error_of(node.connect("127.0.0.1", 1))
        self.assertIsInstance(error, PeerUnreachable)

    async def test_other_networks(self) -> None:
        """Another subnet, k or encryption: both sides are told what differs, within 2 s."""
        ours = {"k": 6, "prot": protocol("chord", "Plaintext")}
        for words, other in (
            (("k is", "6", "7"), {"k": 7}),
            (("subnet is", "'chord'", "'other'"), {"prot": protocol("other", "Plaintext")}),
            (("TLS", "plain text"), {"prot": SSL}),
        ):
            for mine, theirs in ((ours, {**ours, **other}), ({**ours, **other}, ours)):
                self.told.clear()
                node, peer = self.start(**mine), self.start(**theirs)
                error = await self.error_of(node.connect(*peer.out_addr))
                self.assertIsInstance(error, NetworkMismatch, error)
                self.assertTrue(error.ours and error.theirs)
                for word in words:
                    self.assertIn(word, str(error))
                await pause()
                self.assertTrue(self.log_has("A peer was refused", *words), self.told)

    async def test_other_number_of_copies(self) -> None:
        """Each user is told from his own point of view, whoever dials, leeching or a founder."""
        at_asker = "in a ring that keeps 3 copies of every key, and replicas=5 was asked for here: "
        at_ring = (
            r"replicas=5 was asked for (there|at 127\.0\.0\.1:\d+), and the ring here keeps 3 "
            "copies of every key: "
        )
        for join in (None, []):
            for asker_dials in (True, False):
                ring, asker = self.start(replicas=3, join=[]), self.start(replicas=5, join=join)
                await ring.set("in", "use")
                self.told.clear()
                dialling, dialled = (asker, ring) if asker_dials else (ring, asker)
                error = await self.error_of(dialling.connect(*dialled.out_addr))
                self.assertIs(type(error), RingConflict, error)
                await pause()
                (line,) = [line for _, line in self.told if "A peer was refused: " in line]
                texts = (str(error), line) if asker_dials else (line, str(error))
                self.assertRegex(texts[0], at_asker + "leave replicas= out, or ask for 3$")
                self.assertRegex(texts[1], at_ring + "leave replicas= out there, or ask for 3$")
                self.assertEqual((ring.links(), asker.links()), ([], []))

    async def test_joins_once_it_can(self) -> None:
        """A service that is to join another network says so, and goes on trying."""
        peer = self.start(k=7)
        node = self.start(join=[peer.out_addr])
        ready = node.when_ready()
        await pause(0.2)
        self.assertTrue(self.log_has("Cannot join yet", "k is 6 here and 7 there"), self.told)
        port = peer.out_addr[1]
        await peer.stopService()
        right = ChordService(reactor, "127.0.0.1", port, join=[])
        right.startService()
        self.addCleanup(right.stopService)
        await ready
        self.assertFalse(node.leeching)


def pause(seconds: float = 0.05) -> Deferred[None]:
    """A moment for the other side."""
    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    return over


class TestEncrypted(SocketCase):
    """TLS folders, good and bad."""

    def setUp(self) -> None:
        """An authority, and the folder of a member of its ring."""
        super().setUp()
        self.folder = Path(self.mktemp())
        self.authority = Authority()
        self.good = self.authority.directory(str(self.folder / "good"))

    async def test_ring(self) -> None:
        """Nodes of one authority make a ring."""
        founder = self.start(tls=self.good, join=[])
        node = self.start(
            tls=self.authority.directory(str(self.folder / "2")), join=[founder.out_addr]
        )
        await node.when_ready()
        await node.set("key", "value")
        self.assertEqual(await founder.get("key"), b"value")
        self.assertEqual([line for level, line in self.told if level > LogLevel.info], [])

    async def refused(self, bad: dict[str, Any], *words: str) -> None:
        """A bad node cannot come in, whoever dials; the other side logs a refusal."""
        for bad_dials in (True, False):
            self.told.clear()
            good = self.start(tls=self.good, join=[])
            node = self.start(join=[], **bad)
            dialling, dialled = (node, good) if bad_dials else (good, node)
            error = await self.error_of(dialling.connect(*dialled.out_addr))
            self.assertIsInstance(error, AuthenticationFailed, error)
            await pause()
            self.assertTrue(self.log_has("A peer was refused", "certificate"), self.told)
            self.assertEqual((good.links(), node.links()), ([], []))
            told = [str(error), *(line for _, line in self.told)]
            for word in words:
                self.assertTrue(any(word in text for text in told), (word, told))

    async def test_no_certificate(self) -> None:
        """A node without a folder, which made its own certificate."""
        await self.refused({"prot": SSL})

    async def test_foreign(self) -> None:
        """A certificate of another authority."""
        await self.refused({"tls": Authority("elsewhere").directory(str(self.folder / "foreign"))})

    async def test_expired(self) -> None:
        """A certificate whose time is over."""
        end = days_from_now(-1)
        folder = self.authority.directory(str(self.folder / "expired"), valid_to=end)
        await self.refused({"tls": folder}, "expired")

    async def test_wrong_name(self) -> None:
        """A certificate that names another host: its node cannot be dialled, and cannot store."""
        folder = self.authority.directory(str(self.folder / "name"), "elsewhere.example")
        good, bad = self.start(tls=self.good, join=[]), self.start(tls=folder)
        error = await self.error_of(good.connect(*bad.out_addr))
        self.assertIsInstance(error, AuthenticationFailed)
        self.assertIn("elsewhere.example", str(error))
        await pause()
        self.assertTrue(self.log_has("A peer was refused", "certificate"), self.told)
        await bad.connect(*good.out_addr)  # a reader may be behind any address
        await bad.set("key", "value")
        error = await self.error_of(bad.join())
        self.assertIsInstance(error, AuthenticationFailed)
        self.assertIn("elsewhere.example", str(error))
        self.assertEqual(await bad.get("key"), b"value")
        founder = self.start(tls=folder, join=[])
        error = await self.error_of(founder.when_ready())
        self.assertIsInstance(error, AuthenticationFailed)
        self.assertTrue(self.log_has("does not join", "elsewhere.example"), self.told)

    async def test_false_name(self) -> None:
        """A node that stores under another name than its certificate's is refused."""
        good = self.start(tls=self.good, join=[])
        folder = self.authority.directory(str(self.folder / "name"), "elsewhere.example")
        liar = self.start(tls=folder, join=[], out_addr=("elsewhere.example", 4444))
        await liar.when_ready()
        liar.node.core.name("127.0.0.1", 4444)
        error = await self.error_of(liar.connect(*good.out_addr))
        self.assertIsInstance(error, AuthenticationFailed)
        await pause()
        self.assertTrue(self.log_has("A peer was refused", "127.0.0.1"), self.told)

    async def test_self_made(self) -> None:
        """Without folders: encrypted, and warned that nobody is authenticated."""
        founder = self.start(prot=SSL, join=[])
        warnings = [line for level, line in self.told if level is LogLevel.warn]
        self.assertEqual(len(warnings), 1)
        self.assertIn("without authentication", warnings[0])
        node = self.start(prot=SSL, join=[founder.out_addr])
        await node.when_ready()
        await node.set("key", "value")
        self.assertEqual(await founder.get("key"), b"value")

    def test_strangers_are_warned_of(self) -> None:
        """Whoever listens beyond this machine without TLS is told what that means."""
        for addr, how, warned in (
            ("127.0.0.1", {}, False),
            ("localhost", {}, False),
            ("0.0.0.0", {}, True),
            ("0.0.0.0", {"join": []}, True),
            ("0.0.0.0", {"tls": self.good}, False),
        ):
            self.told.clear()
            service = ChordService(reactor, addr, 0, **how)
            service.startService()
            self.addCleanup(service.stopService)
            warnings = [line for level, line in self.told if level is LogLevel.warn]
            self.assertEqual(len(warnings), warned, warnings)
            for line in warnings:
                self.assertIn("Everyone who reaches 0.0.0.0 can read and change", line)
                self.assertIn("--tls DIR", line)

    def test_bad_folders(self) -> None:
        """Folders that cannot be used are refused at once, naming the file."""
        for missing in ("ca.pem", "cert.pem", "key.pem"):
            folder = Path(self.authority.directory(str(self.folder / f"no {missing}")))
            (folder / missing).write_bytes(b"nonsense")
            for damage in (lambda: None, (folder / missing).unlink):
                damage()
                with self.assertRaises(ValueError) as caught:
                    ChordService(reactor, "127.0.0.1", 0, tls=str(folder))
                self.assertIn(missing, str(caught.exception))
