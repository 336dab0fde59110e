"""Rings of real processes, each ``twistd -n chord``, and the leeching client that measures them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

from .processes import CannotRun, Processes, free_ports

__all__ = ["Ring", "first_correct_read"]

_HOST = "127.0.0.1"
#: Seconds after which a ring is taken for broken.
_PATIENCE = 60.0
#: Seconds that the members must stay the same.
_SETTLED_FOR = 2.0


class Ring:
    """Some nodes, started at the same time: the first founds, the others join through it."""

    def __init__(self, reactor: Any, processes: Processes, size: int) -> None:
        self._reactor = reactor
        self._processes = processes
        self.ports = free_ports(size)
        self.pids: list[int] = []
        self._clients: list[ChordService] = []

    def start(self) -> None:
        """Start the processes."""
        for port in self.ports:
            join = [] if port == self.ports[0] else ["--join", f"{_HOST}:{self.ports[0]}"]
            arguments = ["chord", "--port", str(port), *join]
            self.pids.append(self._processes.twistd(f"node-{port}", arguments))

    async def stop(self) -> None:
        """Kill the nodes, and end the clients."""
        self._processes.stop(f"node-{port}" for port in self.ports)
        for client in self._clients:
            await client.stopService()

    async def connect(self, port: int) -> ChordService:
        """A client, as soon as that node is in the ring."""
        client = ChordService(self._reactor, _HOST, 0)
        client.startService()
        self._clients.append(client)
        end = self._reactor.seconds() + _PATIENCE
        while True:
            try:
                await client.connect(_HOST, port)
                await client.contains(b"anything")
                return client
            except ChordError as error:
                if self._reactor.seconds() > end:
                    raise CannotRun(f"the ring does not come up: {error}") from error
            await self._pause(0.02)

    async def settled(self) -> ChordService:
        """A client of the ring, once every node keeps its share for a while."""
        client = await self.connect(self.ports[0])
        core = client.node.core
        since = self._reactor.seconds()
        end = since + _PATIENCE
        version = -1
        while self._reactor.seconds() < since + _SETTLED_FOR:
            await client.node.finder.catch_up()
            members = len(list(core.directory.members()))
            if members != len(self.ports) or core.directory.version != version:
                since, version = self._reactor.seconds(), core.directory.version
            if since > end:
                raise CannotRun(
                    f"{members} of {len(self.ports)} nodes keep keys after all this time"
                )
            await self._pause(0.1)
        return client

    def _pause(self, seconds: float) -> Deferred[None]:
        self._processes.check()
        return deferLater(self._reactor, seconds, lambda: None)


async def first_correct_read(reactor: Any, processes: Processes) -> float:
    """Seconds from the start of two nodes until what was written at one is read at the other."""
    ring = Ring(reactor, processes, 2)
    began = reactor.seconds()
    ring.start()
    try:
        first, second = ring.ports
        writer = await ring.connect(first)
        await writer.set(b"key", b"value")
        reader = await ring.connect(second)
        value = await reader.get(b"key")
        if value != b"value":
            raise CannotRun(f"read {value!r} where b'value' had been written")
        return float(reactor.seconds() - began)
    finally:
        await ring.stop()
