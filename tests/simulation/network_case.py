"""What the tests of the simulated network share: two hosts, and protocols that remember."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from .clock import SimClock
from .connection import SimTransport
from .network import SimNetwork
from .weather import PERFECT

__all__ = ["PORT", "Listener", "NetworkCase", "Recorder"]

PORT = 4444


class Recorder(Protocol):
    """Remembers all that happens to it, and when."""

    transport: SimTransport

    def __init__(self, factory: Listener) -> None:
        self.listener = factory
        self.chunks: list[bytes] = []
        self.lost: type[BaseException] | None = None
        self.lost_at = 0.0

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    def connectionMade(self) -> None:
        self.listener.on_made(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.lost is None, "no data after connectionLost"
        self.chunks.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.lost is None, "connectionLost comes once"
        self.lost = reason.type
        self.lost_at = self.listener.clock.seconds()


class Listener(Factory):
    """Makes recorders and keeps them."""

    noisy = False

    def __init__(self, clock: SimClock) -> None:
        self.clock = clock
        self.made: list[Recorder] = []
        self.refusing = False
        self.on_made: Callable[[Recorder], None] = lambda made: None

    def buildProtocol(self, addr: object) -> Recorder | None:
        if self.refusing:
            return None
        self.made.append(Recorder(self))
        return self.made[-1]


class NetworkCase(SynchronousTestCase):
    """Two hosts; the second listens."""

    def setUp(self) -> None:
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, Random(1), PERFECT)
        self.a, self.b = self.network.host("10.0.0.1"), self.network.host("10.0.0.2")
        self.servers = Listener(self.clock)
        self.port = self.successResultOf(self.b.listen("", PORT, self.servers))

    def dial(self, port: int = PORT) -> Deferred[IProtocol]:
        return self.a.connect("10.0.0.2", port, Listener(self.clock))

    def connected(self) -> tuple[Recorder, Recorder]:
        """A client on a and its server on b."""
        dialling = self.dial()
        self.run_for(0.1)
        client = self.successResultOf(dialling)
        assert isinstance(client, Recorder)
        return client, self.servers.made[-1]

    def run_for(self, seconds: float) -> None:
        self.clock.run_until(self.clock.seconds() + seconds)
