"""A group of members without ring and wire (test support): cores that hand messages to each other.

Owns who hears what, and when: messages take random times, members can be frozen, cut off or dead.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from py2p_twisted.base import Peer
from py2p_twisted.errors import OperationTimeout, PeerUnreachable
from py2p_twisted.node.bulk import Bulk
from py2p_twisted.node.core import USER, Core
from py2p_twisted.node.keeper import Keeper
from py2p_twisted.node.operations import Operations
from py2p_twisted.node.proposals import Proposals
from py2p_twisted.node.walk import Walk
from py2p_twisted.settings import Settings
from py2p_twisted.table.acceptor import Acceptor
from py2p_twisted.table.group import FIRST_EPOCH, Config
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.link import Pending
from py2p_twisted.wire.messages import Answer, Ask, Hello

__all__ = ["Group", "Member"]


class _Link:
    """The connection of one node to another one."""

    def __init__(self, owner: Member, other: Member) -> None:
        self.owner = owner
        self.other = other
        self.peer = other.core.me
        self.round_trip = 0.001

    @property
    def hello(self) -> Hello:
        """All of them are members."""
        return msgspec.structs.replace(self.other.core.hello(), leeching=False)

    @property
    def heard_at(self) -> float:
        """A frozen peer is heard no more."""
        now: float = self.owner.group.clock.seconds()
        return now if self.other.frozen_since is None else self.other.frozen_since

    def request(
        self, request: Any, done: Callable[[Any], None], timeout: float | None = None
    ) -> None:
        """Carry it there, and the reply back."""
        self.owner.group.carry(self.owner, self.other, request, done, timeout or 0.5)


class _Links:
    """The connections of one node."""

    def __init__(self, owner: Member) -> None:
        self.owner = owner
        self.changes = 0

    def get(self, instance: bytes) -> _Link | None:
        """The connection, unless the peer is dead."""
        other = self.owner.group.by_instance.get(instance)
        return None if other is None or other.dead else _Link(self.owner, other)

    def failed_lately(self, peer: Peer) -> bool:
        """It is known at once who is dead."""
        return self.get(peer.instance) is None

    def request(
        self, peer: Peer, request: Any, done: Callable[[Any], None], timeout: float | None = None
    ) -> None:
        """As the product's."""
        link = self.get(peer.instance)
        if link is None:
            done(Failure(PeerUnreachable(f"{peer} is dead")))
        else:
            link.request(request, done, timeout)

    def ask(self, peer: Peer, request: Any, timeout: float | None = None) -> Deferred[Any]:
        """As the product's."""
        deferred: Deferred[Any] = Deferred(lambda _: None)
        self.request(peer, request, lambda r: None if deferred.called else deferred.callback(r))
        return deferred

    def __iter__(self) -> Any:
        return iter(())


class _Finder:
    async def refresh(self, partition: int) -> None:
        """There is nobody to ask."""

    async def catch_up(self) -> None:
        """There is nothing to catch up with."""


class Member:
    """One node: a member of the group, or a client of it."""

    def __init__(self, group: Group, number: int) -> None:
        self.group = group
        self.number = number
        self.dead = False
        self.frozen_since: float | None = None
        settings = Settings(k=1, request_timeout_min=0.2)
        self.core = Core(group.clock, Random(group.rng.getrandbits(64)), settings)
        self.core.name(f"10.0.0.{number}", 4444)
        self.core.ring_id = b"r" * 16
        self.core.links = _Links(self)  # type: ignore[assignment]
        self.keeper = Keeper(self.core)
        self.proposals = Proposals(self.core, self.keeper)
        finder: Any = _Finder()
        self.operations = Operations(self.core, finder, self.keeper, self.proposals)
        self.operations.check_connected = lambda: None  # type: ignore[method-assign]
        self.bulk = Bulk(self.core, finder, self.operations, self.proposals)
        self.walk = Walk(self.core, finder, self.operations)
        self.handlers = {**self.keeper.handlers, **self.proposals.handlers}

    def freeze(self) -> None:
        """What it is sent waits."""
        self.frozen_since = self.group.clock.seconds()

    def thaw(self) -> None:
        """It goes on."""
        self.frozen_since = None
        waiting, self.group.waiting = self.group.waiting, []
        for deliver in waiting:
            self.group.clock.callLater(0, deliver)


class Group:
    """Members and clients on one clock.

    :param members: how many keep both partitions.
    :param clients: how many more nodes only read and write.
    """

    def __init__(self, seed: int, members: int, clients: int = 1) -> None:
        self.clock: Any = Clock()
        self.rng = Random(seed)
        self.delay = (0.0005, 0.002)
        self.lose = 0.0  # the chance that a message never arrives
        self.messages: list[Any] = []
        self.waiting: list[Callable[[], None]] = []
        self.nodes = [Member(self, number) for number in range(members + clients)]
        self.by_instance = {node.core.instance: node for node in self.nodes}
        peers = tuple(node.core.me for node in self.nodes[:members])
        for partition in range(2):
            config = Config(partition, FIRST_EPOCH, peers)
            for node in self.nodes:
                node.core.joined_changed = lambda: None
                node.core.learn(config)
                if node.number < members:
                    node.core.acceptors[partition] = Acceptor(config, visible=USER)

    def carry(
        self,
        source: Member,
        target: Member,
        request: Any,
        done: Callable[[Any], None],
        timeout: float,
    ) -> None:
        """Carry a request to its target, as the wire would, and the reply back."""
        self.messages.append((source.number, target.number, request))
        ended = False

        def end(result: Any) -> None:
            nonlocal ended
            if not ended:
                ended = True
                call.cancel() if call.active() else None
                done(result)

        call = self.clock.callLater(
            timeout, lambda: end(Failure(OperationTimeout(f"no answer from {target.core.me}")))
        )
        body = decode(encode(Ask(1, request))).body  # type: ignore[union-attr]

        def arrive() -> None:
            if target.dead:
                end(Failure(PeerUnreachable("it died", sent=True)))
            elif target.frozen_since is not None:
                self.waiting.append(arrive)
            else:
                reply = target.handlers[type(body)](body)
                if isinstance(reply, Pending):
                    reply.then(answer)
                else:
                    answer(reply)

        def answer(reply: Any) -> None:
            back = decode(encode(Answer(1, reply))).body  # type: ignore[union-attr]
            if not self.chance():
                self.clock.callLater(self.rng.uniform(*self.delay), lambda: end(back))

        if not self.chance():
            self.clock.callLater(self.rng.uniform(*self.delay), arrive)

    def chance(self) -> bool:
        """Is this message lost?"""
        return self.lose > 0 and self.rng.random() < self.lose

    def wait(self, deferred: Deferred[Any], seconds: float = 30.0) -> Any:
        """What it fires with; what it fails with is raised."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        end = self.clock.seconds() + seconds
        while not results:
            self.step(end)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def step(self, end: float) -> None:
        """The next thing that happens."""
        calls = self.clock.getDelayedCalls()
        if not calls or calls[0].getTime() > end:
            raise AssertionError("nothing happens any more")
        self.clock.advance(max(0.0, min(call.getTime() for call in calls) - self.clock.seconds()))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.seconds() + seconds
        self.clock.callLater(seconds, lambda: None)
        while self.clock.seconds() < end:
            self.step(end)
