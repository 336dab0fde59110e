"""Identifiers, claimed in the table itself (floor 2).

The ring cannot arbitrate who may have an identifier: two nodes can both believe that they may grant
it.  So a joiner changes a reserved record from absent to itself, by compare-and-set.
"""

from __future__ import annotations

import msgspec

from ..base import Peer
from ..errors import ChordError, NotConnected, OperationTimeout, RingFull, Unavailable
from ..ring.circle import between_right, to_bytes, widest_gap_middles
from ..table.proposer import Condition, Write
from ..wire.messages import Done, Ping
from .core import Core, Phase, claim_key
from .operations import Operations

__all__ = ["Claims"]

#: Seconds that one claim may take: a proposer that froze just now costs two of them.
_CLAIM_TIMEOUT = 5.0
#: Tries to claim one identifier while nobody has it.
_CLAIM_TRIES = 3

_decode_peer = msgspec.msgpack.Decoder(Peer).decode
_encode_peer = msgspec.msgpack.Encoder().encode


class Claims:
    """Claims and frees identifiers."""

    def __init__(self, core: Core, operations: Operations) -> None:
        self._core = core
        self._operations = operations
        self._maybe: set[int] = set()  # identifiers whose records name this node, or may do so
        self._seen: dict[bytes, Peer] = {}  # who was a member of a group when it was last looked
        self._freeing = 0

    def named(self, identifier: int) -> Peer:
        """This node, under another identifier."""
        core = self._core
        return Peer(
            core.instance, to_bytes(identifier, core.settings.k), core.me.host, core.me.port
        )

    def claim_of(self, peer: Peer | None, before: bytes | None, identifier: bytes = b"") -> Write:
        """Change the reserved record of an identifier from `before` to this peer (None: free)."""
        return Write(
            claim_key(peer.identifier if peer is not None else identifier),
            None if peer is None else _encode_peer(peer),
            self._operations.next_operation(),
            Condition.EQUALS,
            before,
            self._core.stamp,
        )

    async def claim_identifier(self, deadline: float) -> int:
        """Claim a free identifier: the preferred one, else one that halves a wide gap.

        :param deadline: on the clock, when to give up.

        :raises RingFull: if live nodes hold all of them.
        :raises Unavailable: if the table cannot tell.
        """
        core = self._core
        k = core.settings.k
        taken: dict[int, bytes | None] = {}  # identifier -> claim, None if it cannot be read
        candidate = core.me.id
        told = False
        while True:
            claim = await self._try_claim(candidate, taken)
            if claim:
                return candidate
            if taken.get(candidate, b"") is None and not told:
                told = True
                core.log.info(
                    "Waiting for the nodes that keep the ring's identifiers: too few of them "
                    "answer. Start them again, or recover the ring from one that is left."
                )
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
        wanted = self.named(candidate)
        self._maybe.add(candidate)
        try:
            for _ in range(_CLAIM_TRIES):
                if await self._replace(wanted, None):
                    return True
                there = await self._operations.read(claim_key(wanted.identifier))
                if there is not None:
                    break  # else it was freed just now, or the write was lost
            owner = _peer_of(there)
            if owner is not None and owner.instance == wanted.instance:
                return True
            # An earlier memory of this very node cannot come back: its claim is replaced.
            stale = owner is not None and owner.address == wanted.address
            if stale and await self._replace(wanted, there):
                return True
        except (Unavailable, OperationTimeout) as error:
            self._core.debug("identifier {id}: {error}", id=candidate, error=str(error))
            taken[candidate] = None
            return False
        taken[candidate] = there
        if there is not None:
            self._maybe.discard(candidate)  # it certainly names another node
        return False

    async def _replace(self, wanted: Peer, before: bytes | None) -> bool:
        """Write a claim over what was there; False too if nobody can tell: look what is there."""
        try:
            return await self._operations.write(self.claim_of(wanted, before), _CLAIM_TIMEOUT)
        except OperationTimeout as error:
            if not error.outcome_unknown:
                raise
            return False

    async def _evict_dead(self, taken: dict[int, bytes | None]) -> int | None:
        """Free the identifier of a claimer that does not answer any more."""
        core = self._core
        for identifier, claim in taken.items():
            owner = _peer_of(claim)
            if claim is None or owner is None:
                continue
            if await core.try_ask(owner, Ping(), Done, core.settings.request_timeout_max) is None:
                free = self.claim_of(None, claim, to_bytes(identifier, core.settings.k))
                try:
                    if await self._operations.write(free, _CLAIM_TIMEOUT):
                        return identifier
                except (Unavailable, OperationTimeout) as error:
                    core.debug("{error}", error=str(error))
        return None

    async def free_replaced(self) -> None:
        """Free the identifiers of dead members that were replaced in all groups.

        The member that follows them in the ring does it, once; whatever keeps it from that, a
        joiner that finds no other place looks whether the claimers are alive.
        """
        core, pointers = self._core, self._core.pointers
        if pointers is None or (pointers.predecessor is None and not pointers.alone):
            return
        before = pointers.me if pointers.predecessor is None else pointers.predecessor
        members = {peer.instance: peer for peer in core.directory.members()}
        gone = [peer for instance, peer in self._seen.items() if instance not in members]
        self._seen = members
        for peer in gone:
            mine = between_right(before.id, peer.id, pointers.me.id)
            if mine and peer.instance != core.instance and not await self._free_dead(peer):
                self._seen.setdefault(peer.instance, peer)  # it is tried again

    async def _free_dead(self, peer: Peer) -> bool:
        """Free the identifier of a peer that does not answer; False if that is to be done yet."""
        core = self._core
        if await core.try_ask(peer, Ping(), Done, core.settings.request_timeout_max) is not None:
            return True
        try:
            free = self.claim_of(None, _encode_peer(peer), peer.identifier)
            await self._operations.write(free, _CLAIM_TIMEOUT)
        except (Unavailable, OperationTimeout, NotConnected) as error:
            core.debug("{error}", error=str(error))
            return False
        return True

    async def check_claim(self) -> bool:
        """Make sure that the table says that this node's identifier is its own.

        :returns: False if it belongs to another node.
        """
        core = self._core
        if core.phase is not Phase.JOINED:
            return True
        me = core.me
        for identifier in self._maybe - {me.id}:
            await self._free(identifier)
        try:
            there = await self._operations.read(claim_key(me.identifier))
            if there is None:
                return await self._operations.write(self.claim_of(me, None), _CLAIM_TIMEOUT)
        except (Unavailable, OperationTimeout, NotConnected) as error:
            core.debug("{error}", error=str(error))
            return True
        owner = _peer_of(there)
        return owner is None or owner.instance == me.instance

    async def free(self, *more: int) -> None:
        """Give back every identifier that this node has claimed, or may have.

        :param more: identifiers that it certainly has.
        """
        self._maybe.update(more)
        self._freeing += 1
        try:
            for identifier in list(self._maybe):
                await self._free(identifier)
        finally:
            self._freeing -= 1

    async def freed(self) -> None:
        """Wait while identifiers are given back: one of them may be claimed again."""
        while self._freeing:
            await self._core.sleep(0.02)

    async def _free(self, identifier: int) -> None:
        mine = self.named(identifier)
        try:
            free = self.claim_of(None, _encode_peer(mine), mine.identifier)
            await self._operations.write(free, _CLAIM_TIMEOUT)
        except ChordError as error:
            self._core.debug("the identifier stays claimed: {error}", error=str(error))
        else:
            self._maybe.discard(identifier)


def _peer_of(claim: bytes | None) -> Peer | None:
    """Who claims, None if nobody does or the record cannot be read."""
    if claim is None:
        return None
    try:
        return _decode_peer(claim)
    except msgspec.MsgspecError:
        return None
