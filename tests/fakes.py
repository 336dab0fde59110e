"""What the tests of the table and the wire share: stand-ins that implement the interfaces."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from struct import pack
from typing import Any, TypeVar, cast

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as shapes
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import Peer
from py2p_twisted.errors import BadMessage, ChordError, PeerUnreachable
from py2p_twisted.settings import DEFAULT_REPLICAS, Settings
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Record
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.link import Link
from py2p_twisted.wire.links import Links
from py2p_twisted.wire.messages import (
    OLDEST_VERSION,
    WIRE_VERSION,
    Done,
    Hello,
    Message,
    Ping,
    Read,
    Value,
)

from .simulation.clock import SimClock
from .simulation.connection import SimTransport
from .simulation.network import SimHost, SimNetwork
from .simulation.weather import PERFECT

__all__ = [
    "PORT",
    "FakeNode",
    "FakeReceiver",
    "FakeTransport",
    "RawFactory",
    "RawPeer",
    "WireCase",
    "config",
    "framed",
    "instances_of",
    "make_peer",
    "record",
    "unframed",
]

PORT = 4444

ChordErrorT = TypeVar("ChordErrorT", bound=ChordError)


def make_peer(number: int, host: str = "", port: int = PORT) -> Peer:
    """Peer `number`: of two, the one with the lower number has the lower instance."""
    return Peer(number.to_bytes(16, "big"), bytes([number % 64]), host or f"10.0.0.{number}", port)


def config(partition: int = 0, number: int = 1, *members: int) -> Config:
    """A configuration whose epoch has this number."""
    peers = tuple(make_peer(member) for member in members or (1,))
    return Config(partition, FIRST_EPOCH._replace(number=number), peers)


def record(counter: int, value: bytes | None = b"value", number: int = 1) -> Record:
    """A record at a ballot of the epoch with this number."""
    return Record(Ballot(FIRST_EPOCH._replace(number=number), counter, bytes(16)), value)


# -- instances of everything that travels


def instances_of(type_: Any) -> st.SearchStrategy[Any]:
    """Every instance that the type's own constraints allow."""
    return _of(shapes.type_info(type_))


def _of(shape: shapes.Type) -> st.SearchStrategy[Any]:
    match shape:
        case shapes.IntType(ge=low, le=high, lt=below):
            top = below - 1 if below is not None else high
            return st.integers(-(2**63) if low is None else low, 2**64 - 1 if top is None else top)
        case shapes.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=min(_or(high, 40), max(low or 0, 40)))
        case shapes.StrType(max_length=high):
            return st.text(max_size=min(_or(high, 20), 20))
        case shapes.BoolType():
            return st.booleans()
        case shapes.NoneType():
            return st.none()
        case shapes.EnumType(cls=cls):
            return st.sampled_from(cls)
        case shapes.UnionType(types=types):
            return st.one_of([_of(one) for one in types])
        case shapes.VarTupleType(item_type=item, min_length=low, max_length=high):
            size = min(_or(high, 3), 3)
            return st.lists(_of(item), min_size=low or 0, max_size=size).map(tuple)
        case shapes.TupleType(item_types=items):
            return st.tuples(*map(_of, items))
        case (
            shapes.NamedTupleType(cls=cls, fields=fields)
            | shapes.StructType(cls=cls, fields=fields)
        ):
            return st.builds(cls, *(_of(field.type) for field in fields))
    raise TypeError(f"no strategy for {shape!r}")


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


# -- one connection without a network


def framed(*messages: Any) -> bytes:
    """Messages as they travel."""
    return b"".join(pack("!I", len(raw)) + raw for raw in map(encode, messages))


def unframed(data: bytes) -> list[Any]:
    """What :func:`framed` made of them."""
    messages = []
    while data:
        size = int.from_bytes(data[:4], "big")
        messages.append(decode(data[4 : 4 + size]))
        data = data[4 + size :]
    return messages


class FakeTransport(StringTransport):
    """A transport in memory that counts its writes and says how it was closed."""

    aborted = False

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class FakeReceiver:
    """Remembers what one connection received."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.errors: list[tuple[str, bytes]] = []
        self.is_connected = False
        self.reason: Failure | None = None
        self.on_message: Callable[[Message], object] = lambda message: None

    def connected(self) -> None:
        self.is_connected = True

    def received(self, message: Message) -> None:
        self.messages.append(message)
        self.on_message(message)

    def garbled(self, error: BadMessage, first_bytes: bytes) -> None:
        self.errors.append((str(error), first_bytes))

    def disconnected(self, reason: Failure) -> None:
        self.reason = reason


# -- nodes without a ring


class FakeNode:
    """What the connections of a node need of it; answers reads with the key that was asked for.

    :ivar said: the HELLO that it announces.
    :ivar refusal: what :meth:`judge` says.
    :ivar reply: what answers a request.
    :ivar events: what happened to its links.
    """

    def __init__(self, number: int, host: SimHost, settings: Settings, port: int = PORT) -> None:
        prot = settings.prot
        self.peer = make_peer(number, host.address, port)
        self.host = host
        self.clock = host.clock
        self.said = Hello(
            *(OLDEST_VERSION, prot.subnet, prot.encryption, settings.k, b"ring"),
            *(False, False, self.peer, DEFAULT_REPLICAS),
            newest=settings.wire_version or WIRE_VERSION,
        )
        self.refusal: ChordError | None = None
        self.reply: Callable[[Any], Any] = self.answer_at_once
        self.asked: list[Any] = []
        self.events: list[tuple[str, int]] = []
        self.errors: list[ChordError] = []
        self.links = Links(host.clock, settings, host, self)

    @staticmethod
    def answer_at_once(request: Any) -> Any:
        return Value(request.key) if isinstance(request, Read) else Done()

    def announce(self, **changes: Any) -> None:
        """Say a HELLO that differs in these fields from now on."""
        self.said = msgspec.structs.replace(self.said, **changes)

    # Observer

    def hello(self) -> Hello:
        return self.said

    def judge(self, hello: Hello) -> ChordError | None:
        if hello.peer.instance == self.peer.instance:
            return PeerUnreachable("that is this node itself")
        return self.refusal

    def answer(self, link: Link, request: Any) -> Any:
        if not isinstance(request, Ping):
            self.asked.append(request)
        return self.reply(request)

    def link_up(self, link: Link) -> None:
        self.events.append(("up", link.peer.id))

    def link_changed(self, link: Link) -> None:
        self.events.append(("changed", link.peer.id))

    def link_down(self, link: Link, error: ChordError) -> None:
        self.events.append(("down", link.peer.id))
        self.errors.append(error)


class RawPeer(Protocol):
    """The other end of a connection that says what a test tells it, or nothing."""

    transport: SimTransport

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.data = b""
        self.lost: type[BaseException] | None = None

    def connectionMade(self) -> None:
        if self.first:
            self.transport.write(self.first)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.type

    def say(self, *messages: Message) -> None:
        self.transport.write(framed(*messages))

    def heard(self) -> list[Any]:
        """The messages received since the last call."""
        data, self.data = self.data, b""
        return unframed(data)


class RawFactory(Factory):
    """Makes raw peers that begin with some bytes, and keeps them."""

    noisy = False

    def __init__(self, first: bytes = b"") -> None:
        self.first = first
        self.made: list[RawPeer] = []

    def buildProtocol(self, addr: object) -> RawPeer:
        self.made.append(RawPeer(self.first))
        return self.made[-1]


class WireCase(SynchronousTestCase):
    """Nodes on a simulated network; at the end each is stopped and must have left nothing."""

    settings = Settings()

    def setUp(self) -> None:
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, Random(1), PERFECT)
        self.nodes: list[FakeNode] = []

    def tearDown(self) -> None:
        for node in self.nodes:
            self.stop(node)

    def stop(self, node: FakeNode) -> None:
        """Stop a node: no connection and no delayed call may be left."""
        stopped = node.links.stop()
        self.run_for(3)
        self.successResultOf(stopped)
        self.assertEqual(node.clock.getDelayedCalls(), [])
        self.assertEqual(node.host.transports, {})
        self.assertEqual(list(node.links), [])

    def node(self, number: int, settings: Settings | None = None) -> FakeNode:
        """A node that listens at 10.0.0.number."""
        host = self.network.host(f"10.0.0.{number}")
        node = FakeNode(number, host, settings or self.settings)
        self.successResultOf(node.links.listen("", PORT))
        self.nodes.append(node)
        return node

    def raw_host(self, number: int = 9) -> SimHost:
        """A host without a node."""
        return self.network.find(f"10.0.0.{number}") or self.network.host(f"10.0.0.{number}")

    def raw_client(self, node: FakeNode, first: bytes = b"", number: int = 9) -> RawPeer:
        """A connection to a node that begins with some bytes."""
        dialling = self.raw_host(number).connect(*node.peer.address, RawFactory(first))
        self.run_for(0.1)
        return cast(RawPeer, self.successResultOf(dialling))

    def raw_server(self, first: bytes = b"", number: int = 9) -> RawFactory:
        """Someone who listens and begins with some bytes."""
        factory = RawFactory(first)
        self.successResultOf(self.raw_host(number).listen("", PORT, factory))
        return factory

    def refused_with(self, kind: type[ChordErrorT], dialling: Deferred[Any]) -> ChordErrorT:
        """The error that a Deferred failed with; it must be exactly of this kind."""
        error = self.failureResultOf(dialling).value
        self.assertIs(type(error), kind, error)
        return cast(ChordErrorT, error)

    def run_for(self, seconds: float) -> None:
        self.clock.run_until(self.clock.seconds() + seconds)

    def dial(self, node: FakeNode, other: FakeNode) -> Deferred[Link]:
        return node.links.dial(*other.peer.address)

    def connected(self, node: FakeNode, other: FakeNode) -> tuple[Link, Link]:
        """Both ends of a connection that `node` dialled."""
        dialling = self.dial(node, other)
        self.run_for(0.1)
        link = other.links.get(node.peer.instance)
        assert link is not None
        return self.successResultOf(dialling), link

    def ask(self, node: FakeNode, other: FakeNode, key: bytes = b"key") -> Deferred[Any]:
        return node.links.ask(other.peer, Read(FIRST_EPOCH, key))
