"""A simulated TCP connection as its protocols see it: two transports (test support).

Owns the life of a connection's ends, their producers included.  Imports nothing of the product.
It behaves as Twisted's own TCP transports do, down to what is ignored after a close.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from .clock import HostClock
from .pipe import WINDOW, Mark, Pipe
from .weather import Weather

__all__ = ["Address", "SimTransport", "address", "establish"]

Address = IPv4Address | IPv6Address


def address(host: str, port: int) -> Address:
    """A TCP address as Twisted has it."""
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class SimTransport:
    """One end of a connection, as its protocol sees it.

    :ivar connected: between ``makeConnection`` and ``connectionLost``.
    :ivar disconnecting: after ``loseConnection`` or ``abortConnection``.
    :ivar reading: do bytes that arrive reach the protocol?
    :ivar out: the direction that it writes to, :ivar into: the one that it reads.
    """

    out: Pipe
    into: Pipe

    def __init__(
        self,
        clock: HostClock,
        here: Address,
        there: Address,
        opened: Callable[[SimTransport], None],
        closed: Callable[[SimTransport], None],
    ) -> None:
        self.clock = clock
        self.here = here
        self.there = there
        self.connected = False
        self.disconnecting = False
        self.disconnected = False
        self.reading = True
        self._opened = opened
        self._closed = closed
        self._protocol: IProtocol | None = None
        self._producer: IProducer | None = None
        self._streaming = False
        self._producer_paused = False
        self._aborted = False
        self._no_delay = False
        self._keep_alive = False

    # What the protocol calls.

    def write(self, data: bytes) -> None:
        """Send bytes; ignored once the connection is closed, as Twisted does."""
        if isinstance(data, str):
            raise TypeError("only bytes can be written, not str")
        if self.connected and not self._aborted:
            self.out.write(bytes(data))
            self._pause_producer_if_full()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several byte strings."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close once what was written is on its way; reading stops at once."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self.reading = False
            self.clock.callLater(0, self._close_when_written)

    def loseWriteConnection(self) -> None:
        """Half-closing is not simulated."""
        raise NotImplementedError("half-closed connections are not simulated")

    def abortConnection(self) -> None:
        """Reset the connection; the own protocol hears of it in the next turn."""
        if self.connected and not self._aborted:
            self._aborted = self.disconnecting = True
            self.drop()
            self.clock.callLater(0, self._lose, ConnectionAborted())

    def getPeer(self) -> Address:
        """The other end's address."""
        return self.there

    def getHost(self) -> Address:
        """This end's address."""
        return self.here

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause and resume this producer as the connection fills and drains.

        :raises RuntimeError: if there is one already.
        """
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        if self.disconnected:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            cast(IPullProducer, producer).resumeProducing()
        else:
            self._pause_producer_if_full()

    def unregisterProducer(self) -> None:
        """Forget the producer; a close that waited for it goes on."""
        self._producer = None
        if self.disconnecting and not self._aborted:
            self.clock.callLater(0, self._close_when_written)

    def pauseProducing(self) -> None:
        """Stop reading: bytes pile up, and the peer's producer will be paused."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected and not self.disconnecting:
            self.reading = True
            self.into.expect()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    def getTcpNoDelay(self) -> bool:
        """What was set; it changes nothing here."""
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Remembered only."""
        self._no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """What was set; it changes nothing here."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Remembered only."""
        self._keep_alive = bool(enabled)

    # What its host calls.

    def attach(self, protocol: IProtocol) -> None:
        """The connection stands and belongs to this protocol."""
        self.connected = True
        self._protocol = protocol
        protocol.makeConnection(self)

    def drop(self) -> None:
        """The kernel gives the connection up: the peer will see a reset, the own side nothing."""
        self.reading = False
        self.into.shut()
        self.out.reset()
        self._closed(self)

    def vanish(self) -> None:
        """The process is gone, and its protocol with it."""
        self.connected, self.disconnected = False, True
        self._protocol = self._producer = None
        self.drop()

    def break_off(self) -> None:
        """The network resets the connection: both ends will see it."""
        self.out.reset()
        self.into.reset()

    # What the pipes call.

    def told(self, mark: Mark) -> None:
        """Something other than bytes arrived."""
        if mark is Mark.OPEN:
            self._opened(self)
        else:
            self._lose(ConnectionDone() if mark is Mark.END else ConnectionLost())

    def deliver(self, chunk: bytes) -> None:
        """Bytes arrived."""
        if self._protocol is not None:
            self._protocol.dataReceived(chunk)

    def notice_arrival(self) -> None:
        """Some of what this end wrote was read: go on with what waits for that, if anything."""
        if not self.connected:
            return
        if self.disconnecting or (self._producer is not None and self._has_drained()):
            self.clock.callLater(0, self._drained)

    def _has_drained(self) -> bool:
        return self.out.in_flight == 0 and (self._producer_paused or not self._streaming)

    def _drained(self) -> None:
        if self.connected and self._producer is not None and self._has_drained():
            self._producer_paused = False
            cast("Any", self._producer).resumeProducing()
        if self.disconnecting:
            self._close_when_written()

    def _pause_producer_if_full(self) -> None:
        if self._producer is None or not self._streaming or self._producer_paused:
            return
        if self.out.in_flight > WINDOW:
            self._producer_paused = True
            cast(IPushProducer, self._producer).pauseProducing()

    def _close_when_written(self) -> None:
        written = self._producer is None and self.out.in_flight <= WINDOW
        if written and self.connected and not self._aborted:
            self.out.end()
            self._lose(ConnectionDone())

    def _lose(self, reason: Exception) -> None:
        if self.disconnected:
            return
        self.connected, self.disconnected = False, True
        self.reading = False
        self.into.shut()
        self._closed(self)
        producer, self._producer = self._producer, None
        protocol, self._protocol = self._protocol, None
        if producer is not None:
            producer.stopProducing()
        if protocol is not None:
            protocol.connectionLost(Failure(reason))


def establish(weather: Weather, client: SimTransport, server: SimTransport) -> None:
    """Tie two ends together; the request has just reached the server's kernel."""
    forth = (client.here.host, server.here.host)
    back = (server.here.host, client.here.host)
    client.out = server.into = Pipe(weather, client, server, forth)
    server.out = client.into = Pipe(weather, server, client, back)
    server.out.open()
    client.out.open()
