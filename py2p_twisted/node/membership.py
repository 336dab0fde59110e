"""Entering and leaving a ring (floor 2).

Owns the node's phase: founding a ring, claiming an identifier in the table, Zave's JOIN, and the
leave that hands everything over before it happens.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from ..base import count_of
from ..errors import (
    ChordError,
    NotConnected,
    OperationTimeout,
    RingConflict,
    StorageError,
    Unavailable,
)
from ..ring.lookup import Fingers
from ..ring.ring import Pointers
from ..settings import DEFAULT_REPLICAS
from ..table.digest import EMPTY_BASE
from ..table.group import FIRST_EPOCH, Config, Successor
from ..wire.messages import Declined, Done, Leaving, Ping, Reply, State
from .claims import Claims
from .core import Core, Phase
from .finder import Finder
from .gather import gather
from .proposals import Proposals
from .reconfigurer import Reconfigurer
from .stabilizer import Stabilizer
from .takeover import Takeover

__all__ = ["Membership"]

#: Seconds that a joiner looks for its place behind a member.
_JOIN_TIMEOUT = 30.0
#: Seconds to wait for somebody to stay, when everybody else is leaving too, or nobody is known.
_ALL_LEAVING = 1.0


class Membership:
    """The life of one node in a ring."""

    def __init__(
        self,
        core: Core,
        finder: Finder,
        proposals: Proposals,
        claims: Claims,
        takeover: Takeover,
        reconfigurer: Reconfigurer,
        stabilizer: Stabilizer,
        announce: Callable[[], None],
    ) -> None:
        self._core = core
        self._finder = finder
        self._proposals = proposals
        self._claims = claims
        self._takeover = takeover
        self._reconfigurer = reconfigurer
        self._stabilizer = stabilizer
        self.tell = announce  # all peers who this node is now
        self._attempt = object()  # the join that may go on; an unjoin() puts an end to it

    # -- in

    async def join(self) -> None:
        """Enter the ring that this node is connected to, or found one if there is none.

        :raises StorageError: if its disk failed.
        :raises RingFull: if every identifier is claimed.
        :raises AuthenticationFailed: if its certificate does not name the host that it announces.
        :raises ChordError: if the ring could not be entered in time; the node stays leeching.
        """
        core = self._core
        if core.phase is Phase.JOINED:
            return
        if core.phase is not Phase.LEECHING:
            raise RingConflict(f"this node is {core.phase.value}: wait until that is over")
        if core.storage_problem:
            raise StorageError(
                f"this node keeps nothing any more ({core.storage_problem}), so it cannot be a "
                "member: mend that and start it again"
            )
        core.links.check_own_name()
        if not core.ring_id:
            self._found()
            await core.kept()
            return
        core.phase = Phase.JOINING
        attempt = self._attempt = object()
        try:
            await self._claims.freed()
            await self._find_ring(attempt)
            await self._enter(attempt)
            await core.kept()
        except BaseException:
            if not self._given_up(attempt):
                core.phase = Phase.LEECHING
            if core.phase is Phase.LEECHING:  # others may need what was claimed
                freeing = Deferred.fromCoroutine(self._claims.free())
                freeing.addErrback(lambda failure: core.log.failure("freeing failed", failure))
            raise

    def _given_up(self, attempt: object) -> bool:
        """Was this join put an end to?"""
        return self._core.phase is not Phase.JOINING or self._attempt is not attempt

    async def _find_ring(self, attempt: object) -> None:
        """Wait while the connection to the ring is lost, and looked for.

        :raises NotConnected: if it is not found in time.
        """
        core = self._core
        deadline = core.clock.seconds() + core.settings.operation_timeout
        while not any(core.ring_links()):
            if self._given_up(attempt):
                raise RingConflict("the join was given up")
            if core.clock.seconds() > deadline:
                raise NotConnected(f"no member of ring {core.ring_name} can be reached any more")
            core.joined_changed()
            await core.sleep(core.jittered(0.1))

    def _found(self) -> None:
        """The first node: a ring id, and epoch 1 of every partition (rule 10)."""
        core = self._core
        core.ring_id = core.rng.randbytes(16)
        core.replicas = core.settings.replicas or DEFAULT_REPLICAS
        core.forget_directory()
        core.forget()
        for partition in range(core.partitions):
            config = Config(partition, FIRST_EPOCH, (core.me,))
            core.serve(Successor(config, EMPTY_BASE, FIRST_EPOCH), core.blank(partition))
        self._become_member(Pointers(core.me))
        claim = self._claims.claim_of(core.me, None)
        partition = core.partition(claim.key)
        self._proposals.write(core.acceptors[partition].config, claim, lambda _: None)
        core.log.info(
            "Founded ring {ring} with k={k}: this node is {me}.",
            ring=core.ring_name,
            k=core.settings.k,
            me=core.me,
        )
        core.chronicle.note("joined", f"{core.me} founded the ring")

    def _become_member(self, pointers: Pointers) -> None:
        core = self._core
        core.steps = core.make_steps()
        core.fingers = Fingers(core.me.id, core.settings.k)
        core.pointers = pointers
        core.phase = Phase.JOINED
        core.renamed()
        self.tell()
        core.joined_changed()

    def resume(self) -> None:
        """Go on after a restart: alone at first, as after a cut; the healer finds the ring."""
        core = self._core
        self._become_member(Pointers(core.me))
        core.log.info(
            "Back in ring {ring} as {me}, with {keys}.",
            ring=core.ring_name,
            me=core.me,
            keys=count_of(core.keys, "key"),
        )
        core.chronicle.note("joined", f"{core.me} is back")

    async def rejoin(self) -> None:
        """Enter the ring anew under another identifier, keeping instance, data and groups."""
        core = self._core
        core.pointers = None
        self._stabilizer.stop()
        core.phase = Phase.LEECHING
        try:
            await self.join()
        finally:
            if core.pointers is None:
                self.tell()  # the groups that it is a member of go on without it

    async def _enter(self, attempt: object) -> None:
        core = self._core
        deadline = core.clock.seconds() + _JOIN_TIMEOUT
        identifier = await self._claims.claim_identifier(deadline)
        core.me = self._claims.named(identifier)
        while True:
            if self._given_up(attempt):
                raise RingConflict("the join was given up")
            if await self._enter_behind(identifier, attempt):
                break
            if core.clock.seconds() > deadline:
                raise OperationTimeout(f"no place in the ring was found in {_JOIN_TIMEOUT:g} s")
            await core.sleep(core.jittered(0.1))
        core.log.info(
            "Joined ring {ring} as {me}, before {successor}.",
            ring=core.ring_name,
            me=core.me,
            successor=core.pointers.successor if core.pointers else None,
        )
        core.chronicle.note("joined", f"{core.me} joined")

    async def _enter_behind(self, identifier: int, attempt: object) -> bool:
        """One try of Zave's JOIN."""
        core = self._core
        try:
            found = await self._finder.find_successor(identifier)
        except (Unavailable, NotConnected) as error:
            core.debug("{error}", error=str(error))
            return False
        member = found.before
        if member is None or member.instance == core.instance:
            return False
        state = await self._stabilizer.query(member)
        if not isinstance(state, State) or self._given_up(attempt):
            return False
        if not core.rules.may_join_after(core.me, member, state.successors):
            return False
        self._become_member(core.rules.joined(core.me, member, state.successors))
        return True

    # -- out

    async def leave(self, *, discard: bool = False, timeout: float) -> None:
        """Hand everything over, then leave the ring; the node stays connected, leeching.

        :param discard: give up what nobody takes over.
        :param timeout: seconds to find somebody who takes it.
        :raises Unavailable: if nobody does, and `discard` is false; the node stays a member.
        """
        core = self._core
        if core.phase is Phase.JOINING:
            self._attempt = object()
            core.phase = Phase.LEECHING
        if core.phase is Phase.LEAVING:
            raise RingConflict("this node is leaving already: wait until that is over")
        if core.phase is not Phase.JOINED:
            return
        core.phase = Phase.LEAVING
        self._reconfigurer.refusal = ""
        try:
            done = await self._hand_over(core.clock.seconds() + timeout)
            # A node that was cut off seems to be alone; its part would be lost to the others.
            others = any(peer.instance != core.instance for peer in core.directory.members())
            if not done and not discard and (core.keys or others):
                why = self._reconfigurer.refusal or "the others cannot be reached"
                raise Unavailable(
                    f"this node keeps {count_of(core.keys, 'key')} and no other node takes its "
                    f"part of the ring over: {why if others else 'it is the last one'}; "
                    "unjoin(discard=True) gives up what it keeps"
                )
        finally:
            if core.phase is Phase.LEAVING:  # it failed, or was cancelled: nothing has changed
                core.phase = Phase.JOINED
        await self._depart()
        core.log.info("Left ring {ring}.", ring=core.ring_name)
        if not done and others:
            await self._begin_anew()
        elif not done:
            core.ring_id, core.replicas = b"", 0  # nobody keeps anything of it: it is no more
            core.renamed()
            self.tell()

    def answer_leave(self) -> Deferred[Reply]:
        """Somebody who looks after the ring asks this node to leave it."""

        async def answer() -> Reply:
            if not self._core.member:
                return Declined("it is not a member of the ring")
            try:
                await self.leave(timeout=self._core.settings.leave_timeout)
            except ChordError as error:
                return Declined(str(error))
            return Done()

        return Deferred.fromCoroutine(answer())

    async def _begin_anew(self) -> None:
        """Be another instance: the one that was still counts in groups whose data it gave up."""
        core = self._core
        linked = [link.peer for link in core.ring_links()]
        core.renew()
        for link in core.links:
            link.close()
        for peer in linked[:2]:
            await core.try_ask(peer, Ping(), Done)

    async def _hand_over(self, deadline: float) -> bool:
        """Give everything to others, and the identifier back; True if nothing is left."""
        core = self._core
        while True:
            done = await self._reconfigurer.hand_over()
            if done and not self._takeover.promised:
                await self._claims.free(core.me.id)
                if not core.acceptors and not self._takeover.promised:
                    return True
            alone = core.pointers is None or core.pointers.alone
            joining = alone and await self._somebody_joined()
            if (alone and not joining) or core.clock.seconds() > deadline:
                return False
            if joining or self._reconfigurer.all_leaving:
                deadline = min(deadline, core.clock.seconds() + _ALL_LEAVING)
            await core.sleep(core.jittered(0.1))

    async def _somebody_joined(self) -> bool:
        """Is somebody in the ring who did not tell its place yet?"""
        core = self._core
        if not any(core.ring_links()):  # who has just joined said so before it answers
            pings = {link.peer: Ping() for link in core.links}
            await gather(core, pings, lambda _, __: None, lambda: False, _ALL_LEAVING)
        return any(core.ring_links())

    async def _depart(self) -> None:
        """Stop being a member, and tell the neighbours."""
        core = self._core
        pointers = core.pointers
        self._only_read()
        self.tell()
        if pointers is None:
            return
        neighbours = {peer.instance: peer for peer in pointers.successors[:1]}
        if pointers.predecessor is not None:
            neighbours[pointers.predecessor.instance] = pointers.predecessor
        for peer in neighbours.values():
            await core.try_ask(peer, Leaving(pointers.me), Done)

    def drop_out(self) -> None:
        """Stop being a member at once, with no word to anybody; the disk keeps what it has.

        The node stays the instance that it is, and answers for none of its groups any more: it may
        come back with its disk, so nobody must take its memory for gone (:meth:`Core.replaced`).
        """
        core = self._core
        self._attempt = object()
        self._only_read()
        for link in core.links:
            link.close()

    def _only_read(self) -> None:
        """Drop all that a member has, and go on as a reader of the same ring."""
        core = self._core
        ring = core.ring_id, core.replicas
        self.forget_ring()
        core.ring_id, core.replicas = ring

    def forget_ring(self) -> None:
        """Drop all that belongs to a ring: pointers, partitions, its id and number of copies."""
        core = self._core
        core.pointers = None
        core.phase = Phase.LEECHING
        core.ring_id, core.replicas = b"", 0
        core.forget()
        core.renamed()
        self._stabilizer.stop()
