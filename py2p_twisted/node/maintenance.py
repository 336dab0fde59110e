"""What a node does by itself, round by round (floor 2).

Owns the one timer of a node.  A round keeps the ring's pointers right, and the next one follows
about a second later, or at once if something changed.  Chores (moving partitions, catching up,
looking for lost peers) may take longer: they run beside the rounds and each other, each once at a
time.  What goes wrong is caught and logged.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..base import Peer, count_of
from ..errors import ChordError
from .checker import Checker
from .claims import Claims
from .core import Core, Phase
from .fellows import Fellows
from .finder import Finder
from .healer import Healer
from .membership import Membership
from .reconfigurer import Reconfigurer
from .stabilizer import Stabilizer
from .takeover import Takeover

__all__ = ["Maintenance"]

#: Rounds between two checks that the table still has this node's claim.
_CLAIM_EVERY = 10
#: Members that a leeching node is connected to, if there are as many.
_LEECHING_LINKS = 2
#: Rounds between two looks of a leeching node for news of the directory.
_CATCH_UP_EVERY = 5
#: Rounds after which it is said that partitions have no quorum.
_LASTING = 4
#: Seconds until the next round when something changed.
_SOON = 0.01


class Maintenance:
    """The rounds of one node."""

    log = Logger()

    def __init__(
        self,
        core: Core,
        finder: Finder,
        claims: Claims,
        stabilizer: Stabilizer,
        fellows: Fellows,
        reconfigurer: Reconfigurer,
        takeover: Takeover,
        checker: Checker,
        healer: Healer,
        membership: Membership,
    ) -> None:
        self._core = core
        self._finder = finder
        self._claims = claims
        self._stabilizer = stabilizer
        self._fellows = fellows
        self._reconfigurer = reconfigurer
        self._takeover = takeover
        self._checker = checker
        self._healer = healer
        self._membership = membership
        self._timer: IDelayedCall | None = None
        self._under_way: Deferred[None] | None = None
        self._chores: dict[Callable[[], Coroutine[Any, Any, None]], Deferred[None]] = {}
        self._kicked = False
        self._round = 0
        self._told: tuple[Peer | None, Peer | None] | None = None
        self._told_of_two = False
        self._told_full = False
        self._told_lacking = False
        self._lacking = 0  # rounds in which some partition had no quorum

    def start(self) -> None:
        """Begin with the rounds."""
        self._schedule(self._core.settings.stabilize_interval)

    def stop(self) -> None:
        """No more rounds and chores; those under way are cancelled."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for under_way in (self._under_way, *self._chores.values()):
            if under_way is not None:
                under_way.cancel()

    def kick(self) -> None:
        """Something changed: do the next round soon."""
        self._kicked = True
        if self._under_way is None and self._timer is not None:
            self._schedule(_SOON)

    def _schedule(self, seconds: float) -> None:
        core = self._core
        if core.phase is Phase.STOPPED:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = core.clock.callLater(core.jittered(seconds), self._begin)

    def _begin(self) -> None:
        self._kicked = False
        under_way = self._under_way = Deferred.fromCoroutine(self._one_round())
        under_way.addBoth(self._ended)

    def _ended(self, result: Any) -> None:
        self._under_way = None
        self._report(result)
        self._schedule(_SOON if self._kicked else self._core.settings.stabilize_interval)

    def _begin_chores(self) -> None:
        for chore in (
            self._keep_ring,
            self._move,
            self._takeover.catch_up,
            self._checker.catch_up,
            self._checker.check,
        ):
            if chore not in self._chores:
                under_way = self._chores[chore] = Deferred.fromCoroutine(chore())
                under_way.addBoth(partial(self._chore_ended, chore))

    def _chore_ended(self, chore: Callable[[], Coroutine[Any, Any, None]], result: Any) -> None:
        del self._chores[chore]
        self._report(result)

    def _report(self, result: Any) -> None:
        if not isinstance(result, Failure) or result.check(CancelledError):
            return
        if result.check(ChordError, ConnectionError):
            self._core.debug("maintenance: {error}", error=result.getErrorMessage())
        else:
            self.log.failure("maintenance failed", result)

    async def _one_round(self) -> None:
        core = self._core
        if core.discarded_keys:
            core.log.warn(
                "The ring was recovered without this node: {keys} keys that it still had are "
                "discarded.",
                keys=core.discarded_keys,
            )
            core.discarded_keys = 0
        if core.pointers is None:
            await self._leeching_round()
            return
        self._round += 1
        before = core.pointers
        await self._stabilizer.stabilize()
        await self._stabilizer.fix_fingers()
        self._fellows.look()
        self._takeover.tidy()
        self._tell_neighbours()
        self._tell_of_two()
        self._tell_full()
        self._tell_quorums()
        if core.pointers != before:
            self._kicked = True
        self._begin_chores()

    def _tell_neighbours(self) -> None:
        """The ring's story, as this member sees it: once for each change."""
        pointers = self._core.pointers
        if pointers is None:
            self._told = None
            return
        between = (pointers.predecessor, pointers.successor)
        if between == self._told:
            return
        self._told = between
        before, after = between
        if before is None or after is None:
            if pointers.alone and any(p.instance != self._core.instance for p in self._known()):
                self.log.info("No other node of its ring is in sight.")
            elif pointers.alone:
                self.log.info("This node is alone in its ring.")
        else:
            self.log.info("Neighbours: {before} before, {after} after.", before=before, after=after)

    def _tell_of_two(self) -> None:
        """A ring of two promises less than its number of copies: once for each time it is one."""
        core, pointers = self._core, self._core.pointers
        two = (
            core.replicas > 1
            and pointers is not None
            and pointers.predecessor is not None
            and pointers.successors == (pointers.predecessor,)
            and all(len(config.members) <= 2 for config in core.directory)
        )
        if two and not self._told_of_two:
            self.log.info(
                "Two nodes keep two copies: this ring survives no crash before a third one joins."
            )
        self._told_of_two = two

    def _known(self) -> Iterable[Peer]:
        return self._core.directory.members()

    def _tell_quorums(self) -> None:
        """Keys that cannot be used: once, when that lasts, and once when it is over."""
        lacking, missing = self._core.without_quorum()
        self._lacking = self._lacking + 1 if lacking else 0
        if self._lacking == _LASTING:
            self._told_lacking = True
            self.log.warn(
                "No quorum: the keys of {lacking} that this node keeps cannot be used before more "
                "of these are back: {missing}.",
                lacking=count_of(lacking, "partition"),
                missing=", ".join(map(str, missing)),
            )
            core = self._core
            groups = count_of(lacking, "group")
            core.chronicle.note("unusable", f"{groups} of {core.me} cannot be used")
        elif self._told_lacking and not lacking:
            self._told_lacking = False
            self.log.info("All partitions that this node keeps have a quorum again.")
            self._core.chronicle.note("usable", f"all groups of {self._core.me} can be used")

    def _tell_full(self) -> None:
        """Proposers should know who has no room: once for each time that it changes."""
        full = self._core.full
        if full == self._told_full:
            return
        self._told_full = full
        self._membership.tell()
        if full:
            self.log.warn(
                "The quota of this node is used up: it takes no more writes that need room."
            )
        else:
            self.log.info("This node has room again.")

    async def _keep_ring(self) -> None:
        if await self._healer.round():
            self.kick()
        if self._round % _CLAIM_EVERY == 0:
            if not await self._claims.check_claim():
                await self._lost_identifier()
            await self._claims.free_replaced()

    async def _move(self) -> None:
        if self._core.phase is Phase.JOINED:
            await self._reconfigurer.rebalance()
            await self._reconfigurer.drop_tombstones()

    async def _leeching_round(self) -> None:
        """A node that keeps nothing stays in touch with the ring, or looks for it."""
        core = self._core
        if not core.ring_id:
            return
        self._round += 1
        if len(list(core.ring_links())) < _LEECHING_LINKS:
            await self._healer.reconnect()
        self._healer.try_again()
        if self._round % _CATCH_UP_EVERY == 0:
            await self._finder.catch_up()

    async def _lost_identifier(self) -> None:
        """Another node was given this identifier while this one was away: take another one."""
        core = self._core
        core.log.warn("Identifier {id} belongs to another node now.", id=core.me.id)
        links = list(core.ring_links())
        if links and core.phase is Phase.JOINED:
            try:
                await self._membership.rejoin()
            except ChordError as error:
                core.log.warn("This node stores nothing any more: {error}", error=str(error))
