"""What the dictionary is compared with: a bare echo, a relay, and a dictionary behind AMP.

``python -m benchmarks.yardsticks echo PORT`` and ``... amp PORT`` run the servers, and ``... relay
PORT ECHO_PORT...`` one that asks echo servers before it answers.  The clients answer through a
callback, like every operation that :mod:`benchmarks.measure` measures.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.amp import AMP, Command, String
from twisted.protocols.basic import Int32StringReceiver

__all__ = ["AmpClient", "EchoClient", "ask_all", "connect"]


class EchoServer(Int32StringReceiver):
    """Sends back what it gets."""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def stringReceived(self, string: bytes) -> None:
        self.sendString(string)


class EchoClient(Int32StringReceiver):
    """Sends strings and tells when each came back, without even a Deferred."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[bytes], None]] = deque()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def ask(self, string: bytes, answered: Callable[[Any], None]) -> None:
        """Send a string."""
        self._waiting.append(answered)
        self.sendString(string)

    def stringReceived(self, string: bytes) -> None:
        self._waiting.popleft()(string)


def ask_all(clients: Sequence[EchoClient], string: bytes, answered: Callable[[Any], None]) -> None:
    """Send a string to several at the same time; `answered` hears the last that comes back."""
    missing = len(clients)
    if not missing:
        answered(string)

    def heard(result: bytes) -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            answered(result)

    for client in clients:
        client.ask(string, heard)


class RelayServer(EchoServer):
    """Sends back what it gets, once all of some echo servers did that, too."""

    echoes: ClassVar[list[EchoClient]] = []

    def stringReceived(self, string: bytes) -> None:
        ask_all(self.echoes, string, self.sendString)


class Get(Command):
    """Read a key."""

    arguments: ClassVar[Any] = [(b"key", String())]
    response: ClassVar[Any] = [(b"value", String(optional=True))]


class Set(Command):
    """Write a key."""

    arguments: ClassVar[Any] = [(b"key", String()), (b"value", String())]
    response: ClassVar[Any] = []


class AmpServer(AMP):
    """A dictionary behind two commands."""

    table: ClassVar[dict[bytes, bytes]] = {}

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.setTcpNoDelay(True)

    @Get.responder
    def get(self, key: bytes) -> dict[str, Any]:
        return {"value": self.table.get(key)}

    @Set.responder
    def set(self, key: bytes, value: bytes) -> dict[str, Any]:
        self.table[key] = value
        return {}


class AmpClient(AMP):
    """Its user."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.setTcpNoDelay(True)

    def get(self, key: bytes, answered: Callable[[Any], None]) -> None:
        """Read a key."""
        self.callRemote(Get, key=key).addBoth(answered)

    def set(self, key: bytes, value: bytes, answered: Callable[[Any], None]) -> None:
        """Write a key."""
        self.callRemote(Set, key=key, value=value).addBoth(answered)


async def connect(reactor: Any, port: int, protocol: Any) -> Any:
    """Connect a client to its server, as soon as that listens."""
    end = reactor.seconds() + 20
    while True:
        try:
            return await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), protocol)
        except ConnectError:
            if reactor.seconds() > end:
                raise
            await deferLater(reactor, 0.05)


def serve(kind: str, port: int, others: Sequence[int]) -> None:
    """Run a server until the process is killed."""
    from twisted.internet import reactor

    kinds = {"echo": EchoServer, "relay": RelayServer, "amp": AmpServer}
    factory = Factory.forProtocol(kinds[kind])
    factory.noisy = False
    running: Any = reactor

    async def listen() -> None:
        for other in others:
            RelayServer.echoes.append(await connect(reactor, other, EchoClient()))
        running.listenTCP(port, factory, interface="127.0.0.1")

    running.callWhenRunning(lambda: Deferred.fromCoroutine(listen()))
    running.run()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), [int(port) for port in sys.argv[3:]])
