"""One node: who it is, what it answers, and what it does by itself (floor 2).

Puts the parts of a node together and is their face to the wire below (:class:`Observer`) and to the
service above.  What the parts know stands in :class:`~.core.Core`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..base import show_address
from ..errors import ChordError, PeerUnreachable, RingConflict
from ..ring.ring import RingRules
from ..settings import Settings
from ..wire.endpoints import Endpoints
from ..wire.link import Link
from ..wire.links import Links
from ..wire.messages import (
    Configs,
    Count,
    Declined,
    Done,
    FindSuccessor,
    GetConfig,
    GetConfigs,
    GetState,
    Hello,
    Learn,
    Leaving,
    Notify,
    Open,
    Page,
    Ping,
    Read,
    ReadMany,
    Reply,
    Request,
    Stage,
    TakeEra,
    WriteMany,
    WriteOne,
)
from .bulk import Bulk
from .core import Core, Phase
from .finder import Finder
from .handover import Handover
from .healer import Healer
from .membership import Membership
from .operations import Operations
from .recovery import Recovery
from .stabilizer import Stabilizer

__all__ = ["Node"]

#: Configurations in one answer.
_MOST_CONFIGS = 1024
#: Rounds between two checks that the table still has this node's claim.
_CLAIM_EVERY = 10
#: Members that a leeching node is connected to, if there are as many.
_LEECHING_LINKS = 2
#: Rounds between two looks of a leeching node for news of the directory.
_CATCH_UP_EVERY = 5


class Node:
    """One node of a ring, over whatever network it is given.

    :param clock: IReactorTime.
    :param rng: all chance.
    :param endpoints: how to dial and listen.
    :param security: checks certificates; None for plain text.
    :param rules: of the ring; tests take one out.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        rng: random.Random,
        settings: Settings,
        endpoints: Endpoints,
        security: Any = None,
        rules: RingRules | None = None,
    ) -> None:
        core = self.core = Core(clock, rng, settings, rules)
        core.links = self.links = Links(clock, settings, endpoints, self, security)
        core.joined_changed = self.kick
        self.finder = Finder(core)
        self.operations = Operations(core, self.finder)
        self.operations.local = self._answer_self
        self.bulk = Bulk(core, self.finder, self.operations)
        self.stabilizer = Stabilizer(core, self.finder)
        self.handover = Handover(core, self.finder)
        self.healer = Healer(core, self.finder)
        self.recovery = Recovery(core, self.handover)
        self.membership = Membership(
            core, self.finder, self.operations, self.handover, self.stabilizer, self.announce
        )
        self._handlers: dict[type, Callable[[Link, Any], Any]] = self._handler_table()
        self._timer: IDelayedCall | None = None
        self._kicked = False
        self._running = False
        self._round = 0
        self._tasks: set[Deferred[Any]] = set()
        self._yielding = False

    # -- life

    def listen(self, interface: str, port: int, out_addr: tuple[str, int]) -> Deferred[None]:
        """Open the port; `out_addr` is announced, its port 0 standing for the port that opens."""

        def listening(got: int) -> None:
            host, announced = out_addr
            self.core.name(host, announced or got)
            self._schedule(self.core.settings.stabilize_interval)

        return self.links.listen(interface, port).addCallback(listening)

    def stop(self) -> Deferred[None]:
        """Close everything; fires when no connection and no delayed call is left."""
        self.core.phase = Phase.STOPPED
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        self.stabilizer.stop()
        return self.links.stop()

    def spawn(self, coroutine: Any, what: str) -> None:
        """Run something in the background; what it cannot do is logged."""
        task = Deferred.fromCoroutine(coroutine)
        self._tasks.add(task)

        def ended(result: Any) -> None:
            self._tasks.discard(task)
            if not isinstance(result, Failure) or result.check(CancelledError):
                return
            if result.check(ChordError, ConnectionError):
                self.log.info("{what}: {error}", what=what, error=result.getErrorMessage())
            else:
                self.log.failure("{what} failed", result, what=what)

        task.addBoth(ended)

    # -- Observer

    def hello(self) -> Hello:
        """What this node announces now."""
        return self.core.hello()

    def announce(self) -> None:
        """Tell all peers."""
        self.links.announce()

    def judge(self, hello: Hello) -> ChordError | None:
        """May this peer stay?  Two rings that both hold something never merge by themselves."""
        core = self.core
        if hello.peer.instance == core.instance:
            return PeerUnreachable(
                f"{show_address(hello.peer.host, hello.peer.port)} is this node itself"
            )
        mine = core.hello()
        if not mine.ring or not hello.ring or mine.ring == hello.ring:
            return None
        if hello.leeching or self._yields(mine, hello) or self._yields(hello, mine):
            return None
        return RingConflict(
            f"{show_address(hello.peer.host, hello.peer.port)} is in another ring, and both rings "
            "are in use: they are not merged by themselves. Export the keys of one (items()), "
            "unjoin(discard=True) its nodes, connect to the other, join(), and import them "
            "(update())"
        )

    @staticmethod
    def _yields(one: Hello, other: Hello) -> bool:
        """Does `one` give up its ring for the other's?"""
        return one.fresh and (not other.fresh or one.ring > other.ring)

    def link_up(self, link: Link) -> None:
        """A peer is connected."""
        self.log.debug("connected to {peer}", peer=link.peer)
        self.link_changed(link)

    def link_changed(self, link: Link) -> None:
        """A peer announced itself, or announced itself anew."""
        core = self.core
        hello = link.hello
        if not hello.leeching:
            core.remember(hello.peer)
        if not hello.ring or hello.ring == core.ring_id:
            return
        if not core.member:
            if not hello.leeching and core.phase is Phase.LEECHING:
                self._adopt_ring(link)
        elif not hello.leeching and not self._yielding and self._yields(core.hello(), hello):
            self._yielding = True
            self.spawn(self._yield_to(link), "joining the other ring")

    def _adopt_ring(self, link: Link) -> None:
        """A node without a ring met one."""
        core = self.core
        if core.ring_id and any(core.ring_links()):
            return
        if core.ring_id != link.hello.ring:
            core.directory.clear()
            self.finder.forget()
        core.ring_id = link.hello.ring
        self.announce()
        self.spawn(self.finder.fetch_directory(link.peer), "fetching the directory")

    async def _yield_to(self, link: Link) -> None:
        """Give up a ring that holds nothing, and join the other."""
        core = self.core
        try:
            core.log.info("Gives up its empty ring for that of {peer}.", peer=link.peer)
            self.membership.forget_ring()
            core.directory.clear()
            self.finder.forget()
            core.ring_id = link.hello.ring
            self.announce()
            await self.finder.fetch_directory(link.peer)
            await self.membership.join()
        finally:
            self._yielding = False

    def link_down(self, link: Link, error: ChordError) -> None:
        """A peer is gone, or only its connection."""
        core = self.core
        if core.phase is Phase.STOPPED:
            return
        pointers = core.pointers
        self.log.debug("connection lost: {error}", error=str(error))
        if pointers is None:
            if core.ring_id and not any(core.ring_links()):
                self.kick()
            return
        if link.hello.leeching:
            return
        neighbours = {peer.instance for peer in pointers.successors[:1]}
        if pointers.predecessor is not None:
            neighbours.add(pointers.predecessor.instance)
        if link.peer.instance in neighbours:
            self.log.info("Neighbour lost? {error}", error=str(error))
            self.kick()

    def answer(self, link: Link, request: Request) -> Any:
        """The reply to a request of a peer, or a Deferred of it."""
        core = self.core
        if core.member and link.hello.ring and link.hello.ring != core.ring_id:
            if type(request) is not Ping:
                return Declined("this node is in another ring")
        return self._handlers[type(request)](link, request)

    def _answer_self(self, request: Request) -> Reply:
        """A request of this node to itself."""
        reply: Reply = self._handlers[type(request)](None, request)  # type: ignore[arg-type]
        return reply

    def _handler_table(self) -> dict[type, Callable[[Link, Any], Any]]:
        bulk, operations = self.bulk, self.operations
        stabilizer, handover = self.stabilizer, self.handover
        return {
            Ping: self._answer_ping,
            Read: lambda _, request: operations.answer_read(request),
            WriteOne: lambda _, request: operations.answer_write(request),
            ReadMany: lambda _, request: bulk.answer_read_many(request),
            WriteMany: lambda _, request: bulk.answer_write_many(request),
            Count: lambda _, request: bulk.answer_count(request),
            Page: lambda _, request: bulk.answer_page(request),
            FindSuccessor: self._answer_find_successor,
            GetState: stabilizer.answer_state,
            Notify: stabilizer.answer_notify,
            Leaving: self._answer_leaving,
            GetConfigs: self._answer_configs,
            GetConfig: self._answer_config,
            Learn: handover.answer_learn,
            Stage: lambda _, request: handover.answer_stage(request),
            Open: lambda _, request: handover.answer_open(request),
            TakeEra: lambda _, request: self.recovery.answer_take_era(request),
        }

    def _answer_ping(self, link: Link, request: Ping) -> Reply:
        if request.member and not self.core.member:
            return Declined("not a member of the ring")
        return Done()

    def _answer_find_successor(self, link: Link, request: FindSuccessor) -> Reply:
        found = self.finder.answer(request)
        return Declined("not a member of the ring") if found is None else found

    def _answer_configs(self, link: Link, request: GetConfigs) -> Reply:
        configs, version = self.core.directory.since(request.since, _MOST_CONFIGS)
        return Configs(tuple(configs), version)

    def _answer_config(self, link: Link, request: GetConfig) -> Reply:
        config = self.core.directory.get(request.partition)
        return Configs((config,) if config is not None else (), 0)

    def _answer_leaving(self, link: Link, request: Leaving) -> Reply:
        reply = self.stabilizer.answer_leaving(link, request)
        self.log.info("Neighbour left: {peer}.", peer=request.peer)
        self.kick()
        return reply

    # -- what it does by itself

    def kick(self) -> None:
        """Something changed: do the next round of maintenance soon."""
        self._kicked = True
        if not self._running and self.core.phase is not Phase.STOPPED:
            self._schedule(0.01)

    def _schedule(self, seconds: float) -> None:
        if self.core.phase is Phase.STOPPED:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self.core.clock.callLater(self.core.jittered(seconds), self._maintain)

    def _maintain(self) -> None:
        self._running, self._kicked = True, False
        task = Deferred.fromCoroutine(self._one_round())
        self._tasks.add(task)

        def ended(result: Any) -> None:
            self._running = False
            self._tasks.discard(task)
            if isinstance(result, Failure) and not result.check(CancelledError):
                if result.check(ChordError, ConnectionError):
                    self.log.debug("maintenance: {error}", error=result.getErrorMessage())
                else:
                    self.log.failure("maintenance failed", result)
            self._schedule(0.01 if self._kicked else self.core.settings.stabilize_interval)

        task.addBoth(ended)

    async def _one_round(self) -> None:
        core = self.core
        if core.pointers is None:
            await self._leeching_round()
            return
        self._round += 1
        before = core.pointers
        await self.stabilizer.stabilize()
        await self.stabilizer.fix_fingers()
        if await self.healer.round() or core.pointers != before:
            self._kicked = True
        if core.phase is Phase.JOINED:
            await self.handover.rebalance()
            self.handover.drop_tombstones()
        if self._round % _CLAIM_EVERY == 0 and not await self.membership.check_claim():
            await self._lost_identifier()

    async def _leeching_round(self) -> None:
        """A node that keeps nothing stays in touch with the ring, and looks for it if it lost it."""
        core = self.core
        if not core.ring_id:
            return
        self._round += 1
        if len(list(core.ring_links())) < _LEECHING_LINKS:
            await self.healer.reconnect()
        if self._round % _CATCH_UP_EVERY == 0:
            await self.finder.catch_up()

    async def _lost_identifier(self) -> None:
        """Another node was given this identifier while this one was away: take another one."""
        core = self.core
        core.log.warn("Identifier {id} belongs to another node now.", id=core.me.id)
        links = list(core.ring_links())
        if links and core.phase is Phase.JOINED:
            await self.membership.rejoin()

    def status(self) -> str:
        """``"Nominal"``, or what is wrong, in a sentence."""
        core = self.core
        if core.phase is Phase.STOPPED:
            return "Stopped"
        if core.pointers is None:
            if any(core.ring_links()):
                return "Nominal"
            return "Not connected to a ring: connect() to a member, or join() to found one"
        if core.phase is Phase.LEAVING:
            return "Leaving the ring"
        lost = [
            peer
            for peer in core.directory.members()
            if peer.instance != core.instance and core.links.failed_lately(peer)
        ]
        if lost:
            return "Not reachable: " + ", ".join(str(peer) for peer in lost)
        return "Nominal"
