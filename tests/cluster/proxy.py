"""A TCP proxy before every node, which can hold or refuse what passes between two of them.

Owns the connections in between.  Who dials is read from its HELLO, the first frame of every
connection; so is each byte known by who sent it and whom it is for, and a cut can be between any
two, in both directions or one, as on a real network.  Bytes that are held are not lost: they stall,
as TCP's do, and arrive when the cut heals, unless the connection was given up meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from py2p_twisted.errors import BadMessage
from py2p_twisted.wire.codec import decode
from py2p_twisted.wire.messages import Hello

__all__ = ["Cuts", "Pair", "Pipe", "Proxies", "Stream"]

#: Who sends, and to whom.
Pair = tuple[str, str]

#: Bytes of the longest first frame, and of what may wait before the connection goes on.
_MOST_HELLO = 4 * 1024
_MOST_WAITING = 64 * 1024


class Cuts:
    """Which pairs are cut now; cuts may overlap (pure)."""

    def __init__(self) -> None:
        self._held: Counter[Pair] = Counter()
        self._refused: Counter[Pair] = Counter()

    def add(self, pairs: Iterable[Pair], refuse: bool = False) -> None:
        """Cut these from now on."""
        (self._refused if refuse else self._held).update(pairs)

    def remove(self, pairs: Iterable[Pair], refuse: bool = False) -> None:
        """One cut of these is over."""
        (self._refused if refuse else self._held).subtract(pairs)

    def holds(self, sender: str, receiver: str) -> bool:
        """Is what the one sends to the other held?"""
        return self._held[sender, receiver] > 0

    def refuses(self, one: str, other: str) -> bool:
        """Is every connection between the two broken?"""
        return self._refused[one, other] > 0 or self._refused[other, one] > 0

    def bars(self, one: str, other: str) -> bool:
        """Can no connection come about?  That takes both directions."""
        return self.holds(one, other) or self.holds(other, one)


@implementer(IPushProducer)
class Stream:
    """One direction of a connection: the producer of the transport that it writes to."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: list[bytes] = []
        self._source: Any = None
        self._sink: Any = None
        self._full = False
        self._gone = False  # the sink was there, and is no more
        self._ended: Failure | None = None

    def begins_at(self, source: Any) -> None:
        """Bytes come from this transport."""
        self._source = source
        self._throttle()

    def ends_at(self, sink: Any) -> None:
        """Bytes go to this transport, also those that waited."""
        self._sink = sink
        sink.registerProducer(self, True)
        self._throttle()
        self._pass_on()

    def hold(self, held: bool) -> None:
        """Pass nothing on from now on, or pass all on again."""
        if held is not self.held:
            self.held = held
            self._throttle()
            self._pass_on()

    def received(self, data: bytes) -> None:
        """The source said something."""
        if not self._gone:
            self.waiting.append(data)
            self._pass_on()

    def ended(self, reason: Failure) -> None:
        """The source is gone; the sink hears of it after what was said before."""
        self._source = None
        self._ended = reason
        self._pass_on()

    def _pass_on(self) -> None:
        if self.held or self._sink is None:
            return
        if self.waiting:
            data = b"".join(self.waiting)
            self.waiting.clear()
            self._sink.write(data)
        if self._ended is not None:
            sink, self._sink = self._sink, None
            if self._ended.check(ConnectionDone):
                sink.unregisterProducer()
                sink.loseConnection()
            else:
                sink.abortConnection()

    def _throttle(self) -> None:
        if self._source is None or self._source.disconnecting:
            return
        if self._full or (self.held and self._sink is not None):
            self._source.pauseProducing()
        else:
            self._source.resumeProducing()

    # -- IPushProducer: of the sink

    def pauseProducing(self) -> None:
        """Twisted: the sink has more than it can send."""
        self._full = True
        self._throttle()

    def resumeProducing(self) -> None:
        """Twisted: the sink has room again."""
        self._full = False
        self._throttle()

    def stopProducing(self) -> None:
        """Twisted: the sink is gone."""
        self._sink = None
        self._gone = True
        self.waiting.clear()


class _End(Protocol):
    """One end of a pipe: where its owner's bytes come in."""

    transport: Any  # ITCPTransport, IPushProducer and IConsumer, as TCP connections are

    def __init__(self, pipe: Pipe, out: Stream, back: Stream) -> None:
        self.pipe = pipe
        self.out = out
        self.back = back

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.pipe.made(self)

    def dataReceived(self, data: bytes) -> None:
        self.pipe.received(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.pipe.lost(self, reason)


class _Accepted(Factory):
    """Makes the first end of a new pipe."""

    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._make()


class _Dialled(ClientFactory):
    """Makes the second end of a pipe, towards the node itself."""

    noisy = False

    def __init__(self, make: Callable[[], Protocol], failed: Callable[[], None]) -> None:
        self._make = make
        self._failed = failed

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._make()

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._failed()


class Pipe:
    """One connection: from the dialler to the proxy, and on to the node.

    :param target: the node's name.
    """

    def __init__(self, proxies: Proxies, target: str, port: int) -> None:
        self.target = target
        self._announced: tuple[str, int] | None = None  # by whoever dials, in its HELLO
        self.there, self.back = Stream(), Stream()
        self.front = _End(self, self.there, self.back)
        self._rear: _End | None = None
        self._lost: set[_End] = set()
        self._dialling: Any = None
        self._proxies = proxies
        self._port = port

    # -- what the ends report

    def made(self, end: _End) -> None:
        """An end is connected."""
        end.out.begins_at(end.transport)
        if end is self.front:
            self._proxies.pipes.add(self)
        else:
            self.there.ends_at(end.transport)
            self.back.ends_at(self.front.transport)

    def received(self, end: _End, data: bytes) -> None:
        """Bytes came in."""
        end.out.received(data)
        if end is not self.front or self._rear is not None or self._dialling is not None:
            return
        if sum(map(len, self.there.waiting)) > _MOST_WAITING:
            self.break_off()
        elif self._announced is None:
            self._identify(b"".join(self.there.waiting))

    def lost(self, end: _End, reason: Failure) -> None:
        """An end is gone."""
        end.out.ended(reason)
        self._lost.add(end)
        if self._rear is None and self._dialling is not None:
            self._dialling.disconnect()
        if self._rear is None or len(self._lost) == 2:
            self._proxies.pipes.discard(self)

    def _identify(self, data: bytes) -> None:
        size = int.from_bytes(data[:4], "big")
        if size > _MOST_HELLO:
            self.break_off()
        elif len(data) >= 4 + size and len(data) > 4:
            try:
                hello = decode(data[4 : 4 + size])
            except BadMessage:
                hello = None
            if isinstance(hello, Hello):
                self._announced = hello.peer.address
                self.weather_changed()
            else:
                self.break_off()

    # -- what the proxies decide

    def weather_changed(self) -> None:
        """Cuts began or ended: hold, pass on, connect or break off as they demand."""
        if self._announced is None:
            return
        # Asked anew: a client has its name only once it is connected.
        one, other = self._proxies.name_of(self._announced), self.target
        cuts = self._proxies.cuts
        self.there.hold(cuts.holds(one, other))
        self.back.hold(cuts.holds(other, one))
        if cuts.refuses(one, other):
            self.break_off()
        elif self._dialling is None and not cuts.bars(one, other):
            self._dial()

    def _dial(self) -> None:
        def rear() -> _End:
            self._rear = _End(self, self.back, self.there)
            return self._rear

        self._dialling = self._proxies.connect(self._port, _Dialled(rear, self.break_off))

    def break_off(self) -> None:
        """Abort both ends."""
        for end in (self.front, self._rear):
            if end is not None and end.transport is not None:
                end.transport.abortConnection()


class Proxies:
    """The proxies of one run.

    :param reactor: opens ports and connections.
    :ivar pipes: all connections of which an end is still there.
    """

    def __init__(self, reactor: Any, host: str = "127.0.0.1") -> None:
        self.cuts = Cuts()
        self.pipes: set[Pipe] = set()
        self._reactor = reactor
        self._host = host
        self._ports: list[Any] = []
        self._names: dict[tuple[str, int], str] = {}

    def listen(self, name: str, host: str, port: int) -> int:
        """Stand before a node that listens at this port; returns the port to dial instead."""
        factory = _Accepted(lambda: Pipe(self, name, port).front)
        listening = self._reactor.listenTCP(0, factory, interface=self._host)
        self._ports.append(listening)
        announced: int = listening.getHost().port
        self.name(name, (host, announced))
        return announced

    def name(self, name: str, address: tuple[str, int]) -> None:
        """Who announces this address is called so."""
        self._names[address] = name

    def name_of(self, address: tuple[str, int]) -> str:
        """Who announces this address; strangers are never cut off."""
        return self._names.get(address, f"a stranger at {address[1]}")

    def connect(self, port: int, factory: Any) -> Any:
        """Connect to a node itself."""
        return self._reactor.connectTCP(self._host, port, factory, timeout=5)

    # -- cuts

    def cut(self, pairs: Iterable[Pair], refuse: bool = False) -> None:
        """Hold what the first of each pair sends to the second; or break all between them."""
        self.cuts.add(pairs, refuse)
        self._tell()

    def heal(self, pairs: Iterable[Pair], refuse: bool = False) -> None:
        """The same cut is over."""
        self.cuts.remove(pairs, refuse)
        self._tell()

    def _tell(self) -> None:
        for pipe in list(self.pipes):
            pipe.weather_changed()

    def stop(self) -> Deferred[Any]:
        """Close everything; fires when the ports are closed."""
        closed = [port.stopListening() for port in self._ports]
        for pipe in list(self.pipes):
            pipe.break_off()
        return gatherResults([each for each in closed if isinstance(each, Deferred)])
