"""A small ring with an intruder in it (test support).

Owns the nodes, the intruder's connections, and the judgement of what the nodes came to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from py2p_twisted.base import Peer
from py2p_twisted.errors import BadMessage
from py2p_twisted.settings import Settings
from py2p_twisted.wire.codec import decode
from py2p_twisted.wire.messages import Ask, Hello, Ping

from ..hostile.raw import framed
from ..simulation.connection import SimTransport
from ..simulation.disk import SimDisk
from ..simulation.world import PORT, SimNode, World

__all__ = ["HOME", "Intruder", "Stage", "nothing_failed"]

#: Where the intruder is.
HOME = Peer(b"intruder's name!", b"\x02", "10.9.9.9", PORT)
#: What the bystander reads and writes; an intruder that only reads and writes knows it not.
_KEY, _VALUE = b"the bystander's key", b"the bystander's value"
#: Seconds until a bystander is served after that, pauses of its retries included.
_PATIENCE = 30.0


@contextmanager
def nothing_failed() -> Iterator[None]:
    """Raise at the end if something was logged that only a mistake of the program logs."""
    failures: list[LogEvent] = []

    def look(event: LogEvent) -> None:
        if event.get("log_failure") is not None or event["log_level"] >= LogLevel.error:
            failures.append(event)

    globalLogPublisher.addObserver(look)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(look)
    for event in failures:
        failure = event.get("log_failure")
        text = "" if failure is None else failure.getTraceback()
        raise AssertionError(f"logged: {event.get('log_format')}\n{text}")


class Intruder(Protocol):
    """One connection of the intruder's.

    :ivar asked: what the node asked, and the numbers of these requests.
    """

    transport: SimTransport

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._data = b""
        self.asked: list[Ask] = []
        self.lost = False

    def connectionMade(self) -> None:
        self._stage.met(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= 4:
            size = int.from_bytes(self._data[:4], "big")
            if len(self._data) < 4 + size:
                break
            raw, self._data = self._data[4 : 4 + size], self._data[4 + size :]
            try:
                message = decode(raw)
            except BadMessage as error:
                raise AssertionError("a node said what is no message") from error
            if isinstance(message, Ask):
                self.asked.append(message)
                self._stage.was_asked(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def say(self, *bodies: bytes) -> None:
        self.write(framed(*bodies))


class _Factory(Factory):
    noisy = False

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def buildProtocol(self, addr: object) -> Intruder:
        return Intruder(self._stage)


class Stage:
    """Three members, a client, and the intruder's host.

    :param disks: the members keep what they have on simulated disks.
    :ivar connections: the intruder's, the oldest first.
    :ivar on_meeting: is called with each new one.
    :ivar on_question: is called when a node asks the intruder something.
    """

    def __init__(self, *, disks: bool) -> None:
        self.world = world = World(1, Settings(k=2))
        for number in range(3):
            node = world.add(disk=SimDisk(Random(number)) if disks else None)
            if number:
                world.wait(node.service.connect(world.nodes[0].host.address, PORT))
            world.wait(node.service.join())
        founder = world.nodes[0]
        self.members: list[SimNode] = list(world.nodes)
        self.client = world.add()
        world.wait(self.client.service.connect(founder.host.address, PORT))
        world.wait(self.client.service.set(_KEY, _VALUE))
        self.host = world.network.host(HOME.host)
        self.connections: list[Intruder] = []
        self.on_meeting: Any = lambda intruder: None
        self.on_question: Any = lambda intruder: None
        self._factory = _Factory(self)
        world.wait(self.host.listen("", PORT, self._factory))

    # -- the intruder

    def dial(self, member: SimNode) -> None:
        """Connect the intruder to a member."""
        self.world.wait(self.host.connect(member.host.address, PORT, self._factory))

    def met(self, intruder: Intruder) -> None:
        """A connection of the intruder's was made, by whichever side."""
        self.connections = [one for one in self.connections if not one.lost]
        self.connections.append(intruder)
        self.on_meeting(intruder)

    def was_asked(self, intruder: Intruder) -> None:
        """A node asks the intruder something."""
        self.on_question(intruder)

    def said(self) -> Hello:
        """What the first member announces."""
        return self.members[0].service.node.core.hello()

    # -- judgement

    def judge(self, *, told_lies: bool) -> None:
        """Every buffer is bounded, and a bystander is served.

        :param told_lies: the intruder said that it was a member: what it did to the ring is no
            fault of the nodes, as long as they still answer.
        """
        world = self.world
        for member in self.members:
            _check_bounds(member)
        for connection in self.connections:
            connection.transport.abortConnection()
        self.host.crash()
        service = self.client.service
        if not told_lies:
            assert world.wait(service.get(_KEY), _PATIENCE) == _VALUE
            world.wait(service.set(_KEY, _VALUE), _PATIENCE)
        for member in self.members:
            reachable = world.wait(self.client.service.node.links.dial(member.host.address, PORT))
            world.wait(reachable.ask(Ping()))
            member.service.status  # noqa: B018 - a property that must not raise
        world.stop()


def _check_bounds(member: SimNode) -> None:
    """What an intruder could make grow has not."""
    core = member.service.node.core
    settings, links = core.settings, core.links
    sizes = {
        "remembered": (len(core.remembered), settings.remembered_peers),
        "full peers": (len(core.full_peers), settings.connections),
        "partitions": (len(core.acceptors), core.partitions),
        "configurations": (len(list(core.directory.members())), 7 * core.partitions),
        "bases": (len(core.staged) + len(core.retired), 2 * core.partitions),
        "connections": (len(links._connections), settings.connections),
        "silent": (len(core.silent_since), 7 * core.partitions + settings.successors + 1),
        "queued": (links.outbox.queued_bytes, 2 * settings.queued_bytes * 8),
    }
    for connection in links._connections:
        protocol, link = connection.protocol, connection.link
        received = len(protocol._unprocessed) + sum(map(len, protocol._chunks))
        sizes["received"] = (received, settings.max_frame + 4 + 64 * 1024)
        if link is not None:
            sizes["asked"] = (len(link._asked), settings.requests_per_connection)
            sizes["queue"] = (len(link._queue), settings.queued_requests)
            sizes["answering"] = (link.unanswered, settings.requests_per_connection)
        for name, (size, most) in sizes.items():
            assert size <= most, f"{name}: {size} of {most}"
