"""Entering and leaving a ring (floor 2).

Owns the node's phase: founding a ring, claiming an identifier in the table, Zave's JOIN, and the
leave that hands everything over before it happens.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..base import Peer
from ..errors import (
    ChordError,
    NotConnected,
    OperationTimeout,
    RingConflict,
    RingFull,
    Unavailable,
)
from ..ring.circle import to_bytes, widest_gap_middles
from ..ring.lookup import Fingers
from ..ring.ring import Pointers
from ..table.directory import Directory
from ..table.group import FIRST_EPOCH, Config
from ..table.proposer import Condition, Write
from ..wire.messages import Done, GetState, Leaving, Ping, State
from .core import Core, Phase, claim_key
from .finder import Finder
from .handover import Handover
from .operations import Operations
from .stabilizer import Stabilizer

__all__ = ["Membership"]

#: Seconds that one claim may take; keys of a dead node must not stop a joiner for long.
_CLAIM_TIMEOUT = 2.0
#: Seconds that a joiner looks for its place behind a member.
_JOIN_TIMEOUT = 30.0

_decode_peer = msgspec.msgpack.Decoder(Peer).decode
_encode_peer = msgspec.msgpack.Encoder().encode


class Membership:
    """The life of one node in a ring."""

    def __init__(
        self,
        core: Core,
        finder: Finder,
        operations: Operations,
        handover: Handover,
        stabilizer: Stabilizer,
        announce: Callable[[], None],
    ) -> None:
        self._core = core
        self._finder = finder
        self._operations = operations
        self._handover = handover
        self._stabilizer = stabilizer
        self._announce = announce

    # -- in

    async def join(self) -> None:
        """Enter the ring that this node is connected to, or found one if there is none.

        :raises RingFull: if every identifier is claimed.
        :raises ChordError: if the ring could not be entered in time; the node stays leeching.
        """
        core = self._core
        if core.phase is Phase.JOINED:
            return
        if core.phase is not Phase.LEECHING:
            raise RingConflict(f"this node is {core.phase.value}: wait until that is over")
        if not core.ring_id:
            self._found()
            return
        if not any(core.ring_links()):
            raise NotConnected(
                f"the connection to ring {core.ring_name} is lost; it is looked for: try again soon"
            )
        core.phase = Phase.JOINING
        try:
            await self._enter()
        except BaseException:
            if core.phase is Phase.JOINING:
                core.phase = Phase.LEECHING
            raise

    def _found(self) -> None:
        """The first node: a ring id, and epoch 1 of every partition (rule 10)."""
        core = self._core
        core.ring_id = core.rng.randbytes(16)
        core.directory = Directory()
        core.acceptors.clear()
        core.staged.clear()
        for partition in range(core.partitions):
            core.serve(Config(partition, FIRST_EPOCH, (core.me,)), {})
        self._become_member(Pointers(core.me))
        claim = self._claim_of(core.me, None)
        self._operations.local_write(claim)
        core.log.info(
            "Founded ring {ring} with k={k}: this node is {id} at {address[0]}:{address[1]}.",
            ring=core.ring_name,
            k=core.settings.k,
            id=core.me.id,
            address=core.me.address,
        )

    def _become_member(self, pointers: Pointers) -> None:
        core = self._core
        core.steps = core.make_steps()
        core.fingers = Fingers(core.me.id, core.settings.k)
        core.pointers = pointers
        core.phase = Phase.JOINED
        self._announce()
        core.joined_changed()

    async def rejoin(self) -> None:
        """Enter the ring anew under another identifier, keeping instance, data and groups."""
        core = self._core
        core.pointers = None
        self._stabilizer.stop()
        core.phase = Phase.JOINING
        await self._enter()

    async def _enter(self) -> None:
        core = self._core
        deadline = core.clock.seconds() + _JOIN_TIMEOUT
        identifier = await self._claim_identifier(deadline)
        core.me = self._named(identifier)
        while True:
            if core.phase is not Phase.JOINING:
                raise RingConflict("the join was given up")
            if await self._enter_behind(identifier):
                break
            if core.clock.seconds() > deadline:
                raise OperationTimeout(f"no place in the ring was found in {_JOIN_TIMEOUT:g} s")
            await core.sleep(core.jittered(0.1))
        core.log.info(
            "Joined ring {ring} at {id} ({address[0]}:{address[1]}), before {successor}.",
            ring=core.ring_name,
            id=core.me.id,
            address=core.me.address,
            successor=core.pointers.successor if core.pointers else None,
        )

    async def _enter_behind(self, identifier: int) -> bool:
        """One try of Zave's JOIN."""
        core = self._core
        try:
            found = await self._finder.find_successor(identifier)
        except (Unavailable, NotConnected) as error:
            core.log.debug("{error}", error=str(error))
            return False
        member = found.before
        if member is None or member.instance == core.instance:
            return False
        request = GetState(0, None)
        state = await core.try_ask(member, request, State, core.settings.request_timeout_max)
        if state is None or core.phase is not Phase.JOINING:
            return False
        for config in state.configs:
            core.learn(config)
        if not core.rules.may_join_after(core.me, member, state.successors):
            return False
        self._become_member(core.rules.joined(core.me, member, state.successors))
        return True

    # -- identifiers

    def _named(self, identifier: int) -> Peer:
        core = self._core
        return Peer(
            core.instance, to_bytes(identifier, core.settings.k), core.me.host, core.me.port
        )

    def _claim_of(self, peer: Peer | None, before: bytes | None, identifier: bytes = b"") -> Write:
        """Change the reserved record of an identifier from `before` to this peer (None: free)."""
        return Write(
            claim_key(peer.identifier if peer is not None else identifier),
            None if peer is None else _encode_peer(peer),
            self._operations.next_operation(),
            Condition.EQUALS,
            before,
        )

    async def _claim_identifier(self, deadline: float) -> int:
        """Claim a free identifier: the preferred one, else one that halves a wide gap.

        :param deadline: on the clock, when to give up.

        :raises RingFull: if live nodes hold all of them.
        :raises Unavailable: if the table cannot tell.
        """
        core = self._core
        k = core.settings.k
        taken: dict[int, bytes | None] = {}  # identifier -> claim, None if it cannot be read
        candidate = core.me.id
        while True:
            claim = await self._try_claim(candidate, taken)
            if claim:
                return candidate
            known = {peer.id for peer in core.directory.members()} | set(taken)
            free = widest_gap_middles(known, k) or widest_gap_middles(taken, k)
            if core.clock.seconds() > deadline:
                raise Unavailable(
                    "no identifier could be claimed: the nodes that keep the claims do not answer"
                )
            if free:
                candidate = core.rng.choice(free)
                continue
            evicted = await self._evict_dead(taken)
            if evicted is None:
                if None in taken.values():
                    raise Unavailable(
                        "identifiers may be free, but the nodes that know it cannot be reached"
                    )
                raise RingFull(
                    f"all {1 << k} identifiers of a ring with k={k} are claimed; "
                    "a larger ring needs a larger k"
                )
            candidate = evicted
            taken.pop(evicted, None)

    async def _try_claim(self, candidate: int, taken: dict[int, bytes | None]) -> bool:
        """Claim one identifier; notes in `taken` who has it."""
        wanted = self._named(candidate)
        try:
            if await self._operations.write(self._claim_of(wanted, None), _CLAIM_TIMEOUT):
                return True
            there = await self._operations.read(claim_key(wanted.identifier))
            owner = _peer_of(there)
            if owner is not None and owner.instance == wanted.instance:
                return True
            if there is not None and owner is not None and owner.address == wanted.address:
                # An earlier memory of this very node: it cannot come back.
                if await self._operations.write(self._claim_of(wanted, there), _CLAIM_TIMEOUT):
                    return True
        except (Unavailable, OperationTimeout) as error:
            self._core.log.debug("identifier {id}: {error}", id=candidate, error=str(error))
            taken[candidate] = None
            return False
        taken[candidate] = there
        return False

    async def _evict_dead(self, taken: dict[int, bytes | None]) -> int | None:
        """Free the identifier of a claimer that does not answer any more."""
        core = self._core
        for identifier, claim in taken.items():
            owner = _peer_of(claim)
            if claim is None or owner is None:
                continue
            if await core.try_ask(owner, Ping(), Done, core.settings.request_timeout_max) is None:
                free = self._claim_of(None, claim, to_bytes(identifier, core.settings.k))
                try:
                    if await self._operations.write(free, _CLAIM_TIMEOUT):
                        return identifier
                except (Unavailable, OperationTimeout) as error:
                    core.log.debug("{error}", error=str(error))
        return None

    async def check_claim(self) -> bool:
        """Does the table still say that this node's identifier is its own?  Claims it if nobody
        does; False if somebody else does."""
        core = self._core
        if core.phase is not Phase.JOINED:
            return True
        me = core.me
        try:
            there = await self._operations.read(claim_key(me.identifier))
            if there is None:
                return await self._operations.write(self._claim_of(me, None), _CLAIM_TIMEOUT)
        except (Unavailable, OperationTimeout, NotConnected) as error:
            core.log.debug("{error}", error=str(error))
            return True
        owner = _peer_of(there)
        return owner is None or owner.instance == me.instance

    # -- out

    async def leave(self, *, discard: bool = False, timeout: float) -> None:
        """Hand everything over, then leave the ring; the node stays connected, leeching.

        :param discard: give up what nobody takes over.
        :param timeout: seconds to find somebody who takes it.
        :raises Unavailable: if nobody does, and `discard` is false; the node stays a member.
        """
        core = self._core
        if core.phase is not Phase.JOINED:
            if core.phase is Phase.JOINING:
                core.phase = Phase.LEECHING
            return
        core.phase = Phase.LEAVING
        deadline = core.clock.seconds() + timeout
        done = False
        while not done:
            done = await self._handover.leave_to(await self._heirs())
            done = done and not self._handover.promised
            alone = core.pointers is None or core.pointers.alone
            if not done and (alone or core.clock.seconds() > deadline):
                break
            if not done:
                await core.sleep(core.jittered(0.1))
        # A node that was cut off seems to be alone, and its partitions would be lost to the others.
        others = any(peer.instance != core.instance for peer in core.directory.members())
        if not done and not discard and (core.keys or others):
            core.phase = Phase.JOINED
            raise Unavailable(
                f"this node keeps {core.keys} keys and no other node takes its part of the ring "
                f"over: {'the others cannot be reached' if others else 'it is the last one'}; "
                "unjoin(discard=True) gives the keys up"
            )
        if done:
            await self._free_claim()
        await self._depart()
        core.log.info("Left ring {ring}.", ring=core.ring_name)

    async def _heirs(self) -> list[Peer]:
        """Who may take over, the most suitable first."""
        core = self._core
        pointers = core.pointers
        if pointers is None:
            return []
        heirs = {peer.instance: peer for peer in pointers.successors}
        if pointers.predecessor is not None:
            heirs.setdefault(pointers.predecessor.instance, pointers.predecessor)
        for link in core.ring_links():
            heirs.setdefault(link.peer.instance, link.peer)
        return [peer for peer in heirs.values() if core.links.get(peer.instance) or len(heirs) < 4]

    async def _free_claim(self) -> None:
        core = self._core
        me = core.me
        try:
            free = self._claim_of(None, _encode_peer(me), me.identifier)
            await self._operations.write(free, _CLAIM_TIMEOUT)
        except ChordError as error:
            core.log.debug("the identifier stays claimed: {error}", error=str(error))

    async def _depart(self) -> None:
        """Stop being a member, and tell the neighbours."""
        core = self._core
        pointers = core.pointers
        ring_id = core.ring_id
        self.forget_ring()
        core.ring_id = ring_id
        self._announce()
        if pointers is None:
            return
        neighbours = {peer.instance: peer for peer in pointers.successors[:1]}
        if pointers.predecessor is not None:
            neighbours[pointers.predecessor.instance] = pointers.predecessor
        for peer in neighbours.values():
            await core.try_ask(peer, Leaving(pointers.me), Done)

    def forget_ring(self) -> None:
        """Drop all that belongs to a ring: pointers, partitions and its id."""
        core = self._core
        core.pointers = None
        core.phase = Phase.LEECHING
        core.ring_id = b""
        core.acceptors.clear()
        core.staged.clear()
        self._stabilizer.stop()


def _peer_of(claim: bytes | None) -> Peer | None:
    """Who claims, None if nobody does or the record cannot be read."""
    if claim is None:
        return None
    try:
        return _decode_peer(claim)
    except msgspec.MsgspecError:
        return None


