"""What the parts of one node share: its state, and the way to its peers (floor 2).

Owns the node's memory.  Each field has one writer, named beside it; everyone may read.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.logger import Logger

from ..base import Peer, to_base_58
from ..errors import ChordError, OperationTimeout
from ..ring.circle import (
    from_bytes,
    key_partition,
    node_identifier,
    partition_of,
    partition_start,
    to_bytes,
)
from ..ring.lookup import Fingers
from ..ring.ring import Pointers, RingRules
from ..ring.steps import Steps
from ..settings import Settings
from ..table.group import Config
from ..table.witness import Witness
from ..wire.link import Link
from ..wire.links import Links
from ..wire.messages import OLDEST_VERSION, WIRE_VERSION, Hello, Reply, Request
from .chronicle import Chronicle
from .kept import Kept
from .sleeper import Sleeper
from .state import CLAIM, USER, Phase, Remembered, Staged, claim_key, name_in_ballots, user_key

__all__ = ["CLAIM", "USER", "Core", "Phase", "Remembered", "Staged", "claim_key", "user_key"]

R = TypeVar("R")

#: Seconds that the order in which members are asked stays the same.
_PREFERRED_FOR = 0.1
#: Seconds for which a proposer is not asked first that could do nothing.
_PASSED_OVER_FOR = 5.0


class Core(Kept):
    """The state of one node.

    :param clock: IReactorTime.
    :param rng: all chance.
    :param rules: of the ring; tests take one out.
    """

    log = Logger()

    def __init__(
        self, clock: Any, rng: random.Random, settings: Settings, rules: RingRules | None = None
    ) -> None:
        super().__init__()
        self.clock = clock
        self.rng = rng
        self.settings = settings
        self.rules = rules or RingRules(settings.successors)
        self.links: Links  # set once by Node
        self.instance = rng.randbytes(16)  # renew(), become()
        self.lives = 1  # become(): how many processes were this instance so far
        self.proposer = self.instance  # become(): this node's name in ballots
        self.me = Peer(self.instance, to_bytes(0, settings.k), "", 0)  # Node, Membership
        self.phase = Phase.LEECHING  # Membership
        self.ring_id = b""  # Membership
        self.replicas = 0  # Membership, Node: copies of a key in that ring; 0 while there is none
        self.pointers: Pointers | None = None  # Membership, Stabilizer
        self.make_steps: Callable[[], Steps] = Steps  # tests take a rule out
        self.steps = Steps()  # Stabilizer
        self.fingers: Fingers[Peer] = Fingers(0, settings.k)  # Membership, Stabilizer
        self.full_peers: set[bytes] = set()  # Node: connected instances that have no room
        self.silent_since: dict[bytes, float] = {}  # Maintenance: members that do not answer
        self.asked: Counter[type] = Counter()  # Node: requests of peers, by kind
        self.reads = 0  # Keeper, Reading: values that were read here
        self.writes = 0  # Proposals: that this node carried through groups
        self.began = clock.seconds()  # Node: when it was named
        self.chronicle = Chronicle(clock)  # note(): everyone
        self.found_differences = 0  # Checker: how often two members kept different records
        self.storage_problem = ""  # Node: why it keeps nothing any more
        self.catching_up = 0  # Checker: partitions that are to be compared at once
        self.remembered: dict[tuple[str, int], Remembered] = {}  # remember(), Healer, Node
        self.refused = 0  # Attempts: operations that busy nodes refused, and that wait a little
        self._sleeper = Sleeper(clock)
        self._passed_over: dict[bytes, float] = {}  # pass_over()
        self._preferred: dict[int, tuple[Config, int, float, tuple[Peer, ...]]] = {}
        self.make_witness: type[Witness] = Witness  # tests take a rule out
        self.joined_changed = lambda: None  # Node
        self.group_changed: Callable[[Config], None] = lambda config: None  # Node

    def debug(self, text: str, **details: object) -> None:
        """Log what only an author wants to read; daemons print every level, so it is off."""
        if self.settings.verbose:
            self.log.debug(text, **details)

    # -- names and places

    def name(self, host: str, port: int) -> None:
        """The address that others dial is known: choose the first identifier to ask for."""
        k = self.settings.k
        preferred = node_identifier(host, port, self.settings.network, k)
        known = from_bytes(self.me.identifier, k) if self.me.host else preferred  # of a life before
        self.become(Peer(self.instance, to_bytes(known, k), host, port))

    def renew(self) -> None:
        """Be another instance: what the present one had promised is forgotten (rule 6)."""
        me = Peer(self.rng.randbytes(16), self.me.identifier, self.me.host, self.me.port)
        self.become(me, lives=1)

    def become(self, me: Peer, lives: int | None = None) -> None:
        """Be this instance, in that life; None: in the present one."""
        self.instance, self.me = me.instance, me
        self.lives = self.lives if lives is None else lives
        self.proposer = name_in_ballots(self.instance, self.lives)
        self.renamed()

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
            and all(peer.instance == self.instance for peer in self.directory.members())
            and all(link.hello.ring != self.ring_id for link in self.links)
        )

    @property
    def wire_version(self) -> int:
        """The newest wire version that this node speaks."""
        asked = self.settings.wire_version
        return WIRE_VERSION if asked is None else min(asked, WIRE_VERSION)

    def hello(self) -> Hello:
        """What this node announces now."""
        settings = self.settings
        ring = self.ring_id
        return Hello(
            OLDEST_VERSION,
            settings.prot.subnet,
            settings.prot.encryption,
            settings.k,
            ring,
            not self.member,
            self.fresh,
            self.me,
            self.replicas if ring else settings.replicas or 0,
            self.full,
            self.wire_version,
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

    def keeps(self, peer: Peer) -> bool:
        """Is it alive, and does it say that it is a member?  One whose disk failed does not."""
        link = self.links.get(peer.instance)
        return link is not None and not link.hello.leeching and self.alive(peer)

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
        if peer.instance == self.instance:
            return peer.identifier != self.me.identifier
        link = self.links.get(peer.instance)
        return link is not None and link.peer.identifier != peer.identifier

    def remember(self, peer: Peer) -> None:
        """Keep an address to look for later."""
        if peer.instance != self.instance:
            self.remember_address(peer.address)

    def remember_address(self, address: tuple[str, int]) -> None:
        """As :meth:`remember`."""
        if address == self.me.address or not address[0]:
            return
        if address not in self.remembered:
            if len(self.remembered) >= self.settings.remembered_peers:
                linked = {link.peer.address for link in self.links}
                gone = [address for address in self.remembered if address not in linked]
                if not gone:
                    return
                del self.remembered[self.rng.choice(gone)]
            self.remembered[address] = Remembered()
            self.renamed()

    # -- members

    def usable(self, peer: Peer) -> bool:
        """May it be asked: is it connected and heard of lately, or was it not tried in vain?"""
        if peer.instance == self.instance:
            return True
        link = self.links.get(peer.instance)
        if link is None:
            return not self.links.failed_lately(peer)
        silence: float = self.clock.seconds() - link.heard_at
        return silence < self.settings.suspect_after

    def preferred(self, config: Config) -> tuple[Peer, ...]:
        """A config's members: those that may be asked come first, both in the group's order."""
        if len(config.members) == 1:
            return config.members
        now = self.clock.seconds()
        known = self._preferred.get(config.partition)
        if known is not None:
            same, changes, until, members = known
            if same is config and changes == self.links.changes and now < until:
                return members
        passed = {peer for peer, until in self._passed_over.items() if until > now}
        usable = [p.instance not in passed and self.usable(p) for p in config.members]
        members = config.members
        if not all(usable):
            members = tuple(
                [peer for peer, good in zip(members, usable, strict=True) if good]
                + [peer for peer, good in zip(members, usable, strict=True) if not good]
            )
        until = now + _PREFERRED_FOR
        self._preferred[config.partition] = (config, self.links.changes, until, members)
        return members

    def pass_over(self, peer: Peer) -> None:
        """Others did what this one could not: ask them first for a while.

        It may be cut off from the members, and not from this node.
        """
        if peer.instance != self.instance:
            if len(self._passed_over) >= self.settings.connections:
                self._passed_over.clear()
            self._passed_over[peer.instance] = self.clock.seconds() + _PASSED_OVER_FOR
            self._preferred.clear()

    def replaced(self, peer: Peer) -> bool:
        """Does another instance answer at its address?  Then its memory is gone for good."""
        return peer.instance != self.instance and any(
            link.peer.address == peer.address and link.peer.instance != peer.instance
            for link in self.links
        )

    def without_quorum(self) -> tuple[int, Sequence[Peer]]:
        """How many partitions that this node keeps have too few living members; who is missing."""
        count = 0
        missing: dict[bytes, Peer] = {}
        for partition, acceptor in self.acceptors.items():
            config = self.directory.get(partition) or acceptor.config
            away = [
                peer
                for peer in config.members
                if peer.instance != self.instance and not self.keeps(peer)
            ]
            if len(config.members) - len(away) < self.needed(config):
                count += 1
                missing.update((peer.instance, peer) for peer in away)
        return count, list(missing.values())

    def is_gone(self, ring: bytes, hello: Hello) -> bool:
        """Is the ring that this node reads no more: is nobody in it who was?

        :param hello: of a peer that may be one of these; it may not be connected yet.
        """
        members = self.directory.members()
        return (
            not self.member
            and bool(members)
            and hello.ring != ring
            and all(self._is_out(peer, hello) for peer in members)
        )

    def _is_out(self, peer: Peer, hello: Hello) -> bool:
        """Has a member another memory by now, or does it say that it is in no ring?"""
        if peer.instance == self.instance:
            return True  # see is_gone()
        if peer.instance == hello.peer.instance:
            return not hello.ring
        if peer.address == hello.peer.address:
            return True
        link = self.links.get(peer.instance)
        return self.replaced(peer) or (link is not None and not link.hello.ring)

    def needed(self, config: Config) -> int:
        """How many members of a group decide.

        Of two, one is enough once the memory of the other is proven gone: all that was
        acknowledged is with the one.
        """
        if len(config.members) == 2 and any(map(self.replaced, config.members)):
            return 1
        return config.quorum

    def dead(self, peer: Peer) -> bool:
        """Was it silent for so long that it is to be replaced?"""
        since = self.silent_since.get(peer.instance)
        return since is not None and self.clock.seconds() - since >= self.settings.evict_after

    # -- time

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after that long; can be cancelled, and fails if the node stops meanwhile."""
        return self._sleeper.sleep(seconds)

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self.phase = Phase.STOPPED
        self._sleeper.stop()

    def jittered(self, seconds: float) -> float:
        """About that long."""
        spread = self.settings.jitter
        return seconds * self.rng.uniform(1 - spread, 1 + spread)
