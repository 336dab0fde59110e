"""What the parts of one node share: its state, and the way to its peers (floor 2).

Owns the node's memory.  Each field has one writer, named beside it; everyone may read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..base import Peer, to_base_58
from ..errors import ChordError, NotConnected, OperationTimeout
from ..ring.circle import (
    from_bytes,
    key_partition,
    node_identifier,
    partition_count,
    partition_of,
    partition_start,
    to_bytes,
)
from ..ring.lookup import Fingers
from ..ring.ring import Pointers, RingRules
from ..ring.steps import Steps
from ..settings import Settings
from ..table.acceptor import Acceptor
from ..table.directory import Directory
from ..table.group import Base, Config, Epoch, Record, Successor
from ..wire.link import Link
from ..wire.links import Links
from ..wire.messages import WIRE_VERSION, Hello, Reply, Request

__all__ = ["CLAIM", "USER", "Core", "Phase", "Remembered", "Staged", "claim_key", "user_key"]

#: How the keys of users begin inside the table.
USER = b"\0"
#: How the reserved records begin that claim identifiers.
CLAIM = b"\1"

R = TypeVar("R")


def user_key(key: bytes) -> bytes:
    """The table's key of a user's key."""
    return USER + key


def claim_key(identifier: bytes) -> bytes:
    """The table's key of the record that claims an identifier."""
    return CLAIM + identifier


class Phase(Enum):
    """What a node is doing."""

    LEECHING = "leeching"
    JOINING = "joining"
    JOINED = "joined"
    LEAVING = "leaving"
    STOPPED = "stopped"


@dataclass
class Staged:
    """Records that this node keeps ready for an epoch that it may open."""

    epoch: Epoch  # in which they were taken
    giver: Peer
    records: dict[bytes, Record] = field(default_factory=dict)
    base: Base | None = None  # once they are complete: the node promised to open with them


@dataclass
class Remembered:
    """A peer to look for when the ring may have fallen apart."""

    next_try: float = 0.0
    pause: float = 0.0


class Core:
    """The state of one node.

    :param clock: IReactorTime.
    :param rng: all chance.
    :param rules: of the ring; tests take one out.
    """

    log = Logger()

    def __init__(
        self, clock: Any, rng: random.Random, settings: Settings, rules: RingRules | None = None
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.settings = settings
        self.rules = rules or RingRules(settings.successors)
        self.links: Links  # set once by Node
        self.instance = rng.randbytes(16)
        self.me = Peer(self.instance, to_bytes(0, settings.k), "", 0)  # Node, Membership
        self.phase = Phase.LEECHING  # Membership
        self.ring_id = b""  # Membership
        self.pointers: Pointers | None = None  # Membership, Stabilizer
        self.make_steps: Callable[[], Steps] = Steps  # tests take a rule out
        self.steps = Steps()  # Stabilizer
        self.fingers: Fingers[Peer] = Fingers(0, settings.k)  # Membership, Stabilizer
        self.directory = Directory()  # learn(), Membership
        self.acceptors: dict[int, Acceptor] = {}  # learn(), Handover, Membership
        self.staged: dict[int, Staged] = {}  # learn(), Handover
        self.remembered: dict[tuple[str, int], Remembered] = {}  # remember(), Healer
        self.discarded_keys = 0  # learn(), Maintenance: not told yet
        self._asleep: dict[Deferred[None], IDelayedCall] = {}
        self.joined_changed: Callable[[], None] = lambda: None  # Node

    def debug(self, text: str, **details: object) -> None:
        """Log what only an author wants to read; daemons print every level, so it is off."""
        if self.settings.verbose:
            self.log.debug(text, **details)

    # -- names and places

    def name(self, host: str, port: int) -> None:
        """The address that others dial is known: choose the first identifier to ask for."""
        k = self.settings.k
        preferred = node_identifier(host, port, self.settings.network, k)
        self.me = Peer(self.instance, to_bytes(preferred, k), host, port)

    def partition(self, key: bytes) -> int:
        """The partition of a table key.

        :raises ValueError: for a key that no partition has.
        """
        k = self.settings.k
        kind, rest = key[:1], key[1:]
        if kind == USER:
            return key_partition(rest, k)
        if kind == CLAIM:
            return partition_of(from_bytes(rest, k), k)
        raise ValueError("a table key begins with its kind")

    def start(self, partition: int) -> int:
        """The first identifier of a partition."""
        return partition_start(partition, self.settings.k)

    @property
    def partitions(self) -> int:
        """How many partitions the circle has."""
        return partition_count(self.settings.k)

    @property
    def ring_name(self) -> str:
        """The ring's id, for people."""
        return to_base_58(int.from_bytes(self.ring_id[:6], "big")).decode()

    # -- what this node is

    @property
    def member(self) -> bool:
        """Is this node in the ring?"""
        return self.pointers is not None

    @property
    def keys(self) -> int:
        """How many keys of users this node keeps."""
        return sum(acceptor.keys for acceptor in self.acceptors.values())

    @property
    def fresh(self) -> bool:
        """Alone in a ring of its own that holds nothing and has no other reader?"""
        return (
            self.phase is Phase.JOINED
            and self.pointers is not None
            and self.pointers.alone
            and not self.keys
            and all(link.hello.ring != self.ring_id for link in self.links)
        )

    def hello(self) -> Hello:
        """What this node announces now."""
        settings = self.settings
        ring = self.ring_id
        if not self.member and not any(self.ring_links()):
            ring = b""  # it knew a ring, but has lost it
        return Hello(
            WIRE_VERSION,
            settings.prot.subnet,
            settings.prot.encryption,
            settings.k,
            ring,
            not self.member,
            self.fresh,
            self.me,
        )

    # -- peers

    def ring_links(self) -> Iterator[Link]:
        """The connections to members of this node's ring."""
        return (
            link for link in self.links if not link.hello.leeching and self.same_ring(link.hello)
        )

    def same_ring(self, hello: Hello) -> bool:
        """Does this peer announce this node's ring?"""
        return bool(self.ring_id) and hello.ring == self.ring_id

    def ask(self, peer: Peer, request: Request, timeout: float | None = None) -> Deferred[Reply]:
        """The narrow waist: ask a peer; see :meth:`Links.ask`."""
        return self.links.ask(peer, request, timeout)

    async def try_ask(
        self, peer: Peer, request: Request, reply: type[R], timeout: float | None = None
    ) -> R | None:
        """Ask a peer whose silence is no error: its reply if it is of that type, else None."""
        try:
            answer = await self.links.ask(peer, request, timeout)
        except (OperationTimeout, ConnectionError, ConnectionClosed, ChordError) as error:
            self.debug("{peer}: {error}", peer=peer, error=str(error))
            return None
        return answer if isinstance(answer, reply) else None

    def alive(self, peer: Peer) -> bool:
        """Is there a connection to it on which something was heard lately?"""
        link = self.links.get(peer.instance)
        return (
            link is not None and self.clock.seconds() - link.heard_at < self.settings.suspect_after
        )

    def valid(self, *peers: Peer | None) -> bool:
        """Could all of these be nodes of this network?  What peers tell is not believed blindly."""
        length, k = (self.settings.k + 7) // 8, self.settings.k
        return all(
            peer is None
            or (len(peer.identifier) == length and peer.id >> k == 0 and len(peer.instance) == 16)
            for peer in peers
        )

    def moved(self, peer: Peer) -> bool:
        """Is this instance at another place of the circle by now?  It left, and came back."""
        link = self.links.get(peer.instance)
        return link is not None and link.peer.identifier != peer.identifier

    def remember(self, peer: Peer) -> None:
        """Keep an address to look for later."""
        if peer.instance == self.instance or peer.address == self.me.address or not peer.host:
            return
        if peer.address not in self.remembered:
            if len(self.remembered) >= self.settings.remembered_peers:
                linked = {link.peer.address for link in self.links}
                gone = [address for address in self.remembered if address not in linked]
                if not gone:
                    return
                del self.remembered[self.rng.choice(gone)]
            self.remembered[peer.address] = Remembered()

    # -- the directory

    def learn(self, config: Config) -> bool:
        """Take a configuration if it is news; gives up what it takes from this node."""
        sane = config.partition < self.partitions and config.epoch.plausible()
        if not sane or not self.valid(*config.members):
            self.log.warn("A configuration that cannot be was ignored: {config}.", config=config)
            return False
        if not self.directory.learn(config):
            return False
        for peer in config.members:
            self.remember(peer)
        partition = config.partition
        mine = self.acceptors.get(partition)
        if mine is not None and mine.config.epoch < config.epoch:
            del self.acceptors[partition]
            newer_era = mine.config.epoch.era_name < config.epoch.era_name
            if newer_era and mine.keys and not config.has(self.instance):
                self.discarded_keys += mine.keys
        staged = self.staged.get(partition)
        if staged is not None and staged.epoch.following() <= config.epoch:
            del self.staged[partition]
        return True

    def serve(self, successor: Successor, records: dict[bytes, Record]) -> None:
        """Open an epoch: this node keeps the partition from now on."""
        config, purged = successor.config, successor.purged
        self.learn(config)
        self.acceptors[config.partition] = Acceptor(
            config, records.items(), visible=USER, purged=purged
        )

    # -- time

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after that long; can be cancelled, and fails if the node stops meanwhile."""
        deferred: Deferred[None] = Deferred(self._awake)
        self._asleep[deferred] = self.clock.callLater(seconds, self._wake, deferred)
        return deferred

    def _wake(self, deferred: Deferred[None]) -> None:
        del self._asleep[deferred]
        deferred.callback(None)

    def _awake(self, deferred: Deferred[None]) -> None:
        self._asleep.pop(deferred).cancel()

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self.phase = Phase.STOPPED
        for deferred in list(self._asleep):
            self._awake(deferred)
            deferred.errback(NotConnected("this node was stopped"))

    def jittered(self, seconds: float) -> float:
        """About that long."""
        spread = self.settings.jitter
        return seconds * self.rng.uniform(1 - spread, 1 + spread)
