"""A real client whose only peer, over a real socket, says that it is a member, and lies."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int32StringReceiver
from twisted.trial.unittest import TestCase

from py2p_twisted.base import Peer
from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import (
    Answer,
    Ask,
    Configs,
    Declined,
    Done,
    FindSuccessor,
    GetConfig,
    GetConfigs,
    Hello,
    Ping,
    RouteTo,
    Value,
    Versioned,
)

from .forge import REPLIES, Forger
from .raw import hello

#: How many times the client asks in one test, at most; a loop would ask without an end.
MOST_ASKED = 4000


class Liar(Int32StringReceiver):
    """Says HELLO, and answers as a test likes."""

    MAX_LENGTH = 1 << 21
    factory: LiarFactory

    def stringReceived(self, string: bytes) -> None:
        message = decode(string)
        if isinstance(message, Hello):
            self.say(self.factory.said)
        elif isinstance(message, Ask):
            self.factory.asked.append(message.body)
            if len(self.factory.asked) > MOST_ASKED:
                self.transport.loseConnection()
            for reply in self.factory.lie(message.body):
                self.say(Answer(message.number, reply))

    def say(self, message: Any) -> None:
        self.sendString(encode(message))


class LiarFactory(Factory):
    """A member of a ring that nobody else has seen."""

    protocol = Liar
    noisy = False

    def __init__(self) -> None:
        self.lie: Callable[[Any], list[Any]] = lambda request: [Done()]
        self.asked: list[Any] = []
        self.said = hello()

    def listening(self, port: int) -> None:
        """It has this port."""
        peer = Peer(b"liarliarliarliar", b"\x05", "127.0.0.1", port)
        self.said = hello(leeching=False, ring=b"liars' ring", replicas=5, peer=peer)

    def count(self, kind: type) -> int:
        """How often that was asked."""
        return sum(isinstance(request, kind) for request in self.asked)


class LiarCase(TestCase):
    timeout = 30.0

    async def client(self, patience: float = 1.0) -> tuple[ChordService, LiarFactory]:
        """A client of a liar."""
        liar = LiarFactory()
        port: IListeningPort = reactor.listenTCP(0, liar, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        liar.listening(port.getHost().port)
        service = ChordService(reactor, "127.0.0.1", 0, timeout=patience)
        service.startService()
        self.addCleanup(service.stopService)
        return service, liar

    async def fails(self, operation: Deferred[Any], seconds: float) -> None:
        """It fails, with an error of the library, and not later than it should."""
        began = reactor.seconds()
        try:
            found = await operation
        except ChordError:
            pass
        else:
            self.fail(f"it resulted in {found!r}")
        self.assertLess(reactor.seconds() - began, seconds)


class TestLookUps(LiarCase):
    """The liar's way leads nowhere: the user is told so in time, and the questions are bounded."""

    def fake(self, liar: LiarFactory, place: int, number: int = 0) -> Peer:
        """A peer that is the liar itself under another name."""
        instance = number.to_bytes(16, "big")
        return msgspec.structs.replace(
            liar.said.peer, identifier=bytes([place % 64]), instance=instance
        )

    def route(self, liar: LiarFactory, target: int) -> dict[str, RouteTo]:
        """Some answers to one question."""
        me = liar.said.peer
        number = len(liar.asked)
        behind = tuple(self.fake(liar, target + step, number) for step in range(1, 60))
        return {
            "to itself": RouteTo((me,), ()),
            "nowhere": RouteTo((), ()),
            "away from it": RouteTo(behind[:64], behind[:64]),
            "to ever new ones before it": RouteTo((self.fake(liar, target - 1, number),), ()),
            "slowly": RouteTo(tuple(self.fake(liar, target - 64 + n, n) for n in range(60)), ()),
            "to no place": RouteTo((Peer(bytes(16), bytes(20), "", 0),), ()),
            "to nobody who listens": RouteTo((), (Peer(bytes(16), b"\x06", "127.0.0.1", 1),)),
        }

    async def test_no_progress(self) -> None:
        for name in self.route(LiarFactory(), 0):
            client, liar = await self.client(0.2)

            def lie(request: Any, name: str = name, liar: LiarFactory = liar) -> list[Any]:
                if isinstance(request, FindSuccessor):
                    return [self.route(liar, int.from_bytes(request.target, "big"))[name]]
                if isinstance(request, GetConfig | GetConfigs):
                    return [Configs((), 0)]
                return [Done() if isinstance(request, Ping) else Declined("no")]

            liar.lie = lie
            await client.connect(*liar.said.peer.address)
            await self.fails(client.get(b"key"), 2.0)
            self.assertLess(liar.count(FindSuccessor), 60, name)
            await client.stopService()


class TestReplies(LiarCase):
    """Whatever the liar answers, operations end with an error of the library, or a lie."""

    async def work(self, client: ChordService) -> int:
        """Some of every operation; how many failed."""
        failed = 0
        for operation in (
            lambda: client.get(b"key"),
            lambda: client.set(b"key", b"value"),
            lambda: client.get_many([b"%d" % n for n in range(20)]),
            lambda: client.update({b"%d" % n: b"x" for n in range(20)}),
            lambda: client.compare_and_set(b"key", b"a", b"b"),
            lambda: client.count(),
        ):
            try:
                await operation()
            except (ChordError, KeyError):
                failed += 1
        return failed

    async def test_anything(self) -> None:
        """Replies of every kind that fit their types, at random and at their ends."""
        rng = Random(5)
        client, liar = await self.client(0.15)
        forger = Forger(liar.said, rng)
        kinds = dict.fromkeys(REPLIES, 0)

        def lie(request: Any) -> list[Any]:
            if isinstance(request, Ping):
                return [Done()]
            if isinstance(request, GetConfig | GetConfigs) and rng.random() < 0.9:
                return [Configs(everything, 1)]
            kind = rng.choice(REPLIES)
            kinds[kind] += 1
            return [forger.body(kind) for _ in range(rng.choice([1, 1, 2]))]

        everything = tuple(Config(part, FIRST_EPOCH, (liar.said.peer,)) for part in range(64))
        liar.lie = lie
        await client.connect(*liar.said.peer.address)
        for _ in range(2):
            await self.work(client)
        self.assertGreater(sum(kinds.values()), 30)
        self.assertLess(len(liar.asked), MOST_ASKED)

    async def test_repeated(self) -> None:
        """The first reply counts."""
        client, liar = await self.client()
        everything = tuple(Config(part, FIRST_EPOCH, (liar.said.peer,)) for part in range(64))
        ballot = Ballot(FIRST_EPOCH, 1, liar.said.peer.instance)

        def lie(request: Any) -> list[Any]:
            if isinstance(request, GetConfig | GetConfigs):
                return [Configs(everything, 1)]
            if isinstance(request, Ping):
                return [Done()] * 3
            return [Value(b"first"), Value(b"second"), Versioned(b"third", ballot)]

        liar.lie = lie
        await client.connect(*liar.said.peer.address)
        for _ in range(20):
            self.assertEqual(await client.get(b"key"), b"first")

    async def test_silence(self) -> None:
        """A member that takes every request and answers none."""
        client, liar = await self.client(0.2)
        liar.lie = lambda request: []
        await client.connect(*liar.said.peer.address)
        asking = [client.get(b"%d" % number) for number in range(200)]
        began = reactor.seconds()
        for deferred in asking:
            await self.fails(deferred, 3.0)
        self.assertLess(reactor.seconds() - began, 3.0)
        self.assertLess(len(liar.asked), MOST_ASKED)
