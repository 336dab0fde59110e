"""Rings of real processes, each ``twistd -n chord``, and the client that measures them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

from .processes import CannotRun, Processes, free_ports

__all__ = ["Ring", "first_correct_read", "group_size"]

_HOST = "127.0.0.1"
#: Seconds after which a ring is taken for broken.
_PATIENCE = 60.0
#: Seconds that the directory must stay the same.
_SETTLED_FOR = 2.0


def group_size(replicas: int, nodes: int) -> int:
    """How many members each group of a settled ring has: an odd number, or both of two nodes."""
    most = min(replicas, nodes)
    return most if most % 2 or nodes == 2 else most - 1


class Ring:
    """Some nodes, started at the same time: the first founds, the others join through it.

    :param replicas: copies of a key; None leaves it to the daemon.
    :param member: the first client is a node of the ring, too.
    :param start: starts a ``twistd -n`` with a name and arguments, by default
        :meth:`Processes.twistd`.
    """

    def __init__(
        self,
        reactor: Any,
        processes: Processes,
        nodes: int,
        replicas: int | None = None,
        start: Callable[[str, Sequence[str]], int] | None = None,
        *,
        member: bool = False,
    ) -> None:
        self._reactor = reactor
        self._processes = processes
        self._replicas = replicas
        self._start = start or processes.twistd
        self.ports = free_ports(nodes)
        self.pids: list[int] = []
        self._clients: list[ChordService] = []
        self._member = member

    @property
    def size(self) -> int:
        """How many nodes it has in the end."""
        return len(self.ports) + self._member

    def start(self) -> None:
        """Start the processes."""
        copies = [] if self._replicas is None else ["--replicas", str(self._replicas)]
        for port in self.ports:
            join = [] if port == self.ports[0] else ["--join", f"{_HOST}:{self.ports[0]}"]
            arguments = ["chord", "--memory", "--port", str(port), *copies, *join]
            self.pids.append(self._start(self.name(port), arguments))

    def name(self, port: int) -> str:
        """The name of a node's process."""
        return f"node-{port}"

    async def stop(self) -> None:
        """Kill the nodes, and end the clients."""
        self._processes.stop(map(self.name, self.ports))
        for client in self._clients:
            await client.stopService()

    async def connect(self, port: int) -> ChordService:
        """A client, as soon as that node is in the ring."""
        joins = self._member and not self._clients
        client = ChordService(self._reactor, _HOST, free_ports(1)[0] if joins else 0)
        client.startService()
        self._clients.append(client)
        end = self._reactor.seconds() + _PATIENCE
        while True:
            try:
                await client.connect(_HOST, port)
                await client.contains(b"anything")
                if joins:
                    await client.join()
                return client
            except ChordError as error:
                if self._reactor.seconds() > end:
                    raise CannotRun(f"the ring does not come up: {error}") from error
            await self._pause(0.02)

    async def settled(self, client: ChordService) -> None:
        """Fires once every group has all its members, and the directory is quiet for a while."""
        core = client.node.core
        since = self._reactor.seconds()
        end = since + _PATIENCE
        version = -1
        while self._reactor.seconds() < since + _SETTLED_FOR:
            await client.node.finder.catch_up()
            missing = self._missing(client)
            if missing or core.directory.version != version:
                since, version = self._reactor.seconds(), core.directory.version
            if since > end:
                raise CannotRun(f"the ring does not settle: {missing or 'its groups still change'}")
            await self._pause(0.1)

    def _missing(self, client: ChordService) -> str:
        """What the directory lacks, as text; empty if nothing."""
        core = client.node.core
        members = len(list(core.directory.members()))
        if members != self.size:
            return f"{members} of {self.size} nodes keep keys"
        if len(core.directory) != core.partitions:
            return f"{len(core.directory)} of {core.partitions} partitions are known"
        sizes = Counter(len(config.members) for config in core.directory)
        wanted = group_size(self._replicas or 1, self.size)
        if set(sizes) != {wanted}:
            return ", ".join(
                f"{count} groups have {size} of {wanted} members" for size, count in sizes.items()
            )
        return ""

    def busiest(self, client: ChordService) -> int:
        """The port of the process that is the first live member, the proposer, of most groups."""
        first = Counter(config.members[0].port for config in client.node.core.directory)
        for port in first.keys() - set(self.ports):
            del first[port]  # the client's own
        return first.most_common(1)[0][0]

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
