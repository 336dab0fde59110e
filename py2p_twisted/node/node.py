"""One node: who it is, what it answers, and what it does by itself (floor 2).

Puts the parts of a node together and is their face to the wire below (:class:`Observer`) and to the
service above.  What the parts know stands in :class:`~.core.Core`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ChordError, RingConflict
from ..ring.ring import RingRules
from ..settings import Settings
from ..storage.interface import Loaded, Storage
from ..wire.endpoints import Endpoints
from ..wire.link import Link
from ..wire.links import Links
from ..wire.messages import (
    Choose,
    Declined,
    Done,
    Fetch,
    FindSuccessor,
    GetConfig,
    GetConfigs,
    GetDifference,
    GetDigests,
    GetReport,
    GetState,
    Hello,
    Learn,
    Leave,
    Leaving,
    Notify,
    Open,
    Ping,
    Prefetch,
    Recover,
    Reply,
    Report,
    Request,
    Survey,
    TakeEra,
    Wedge,
)
from .bulk import Bulk
from .checker import Checker
from .claims import Claims
from .core import Core, Phase
from .fellows import Fellows
from .finder import Finder
from .gate import once_kept
from .healer import Healer
from .journal import Journal
from .judging import judge, yields
from .keeper import Keeper
from .maintenance import Maintenance
from .membership import Membership
from .memory import restore
from .operations import Operations
from .proposals import Proposals
from .reconfigurer import Reconfigurer
from .recovery import Recovery
from .report import Reporter, status_of
from .stabilizer import Stabilizer
from .sync import Sync
from .takeover import Takeover
from .walk import Walk
from .watching import Watching

__all__ = ["Node"]

#: What a node that keeps nothing has no business to ask.
_OF_MEMBERS = (
    *(Learn, GetDigests, GetDifference, Prefetch),
    *(Wedge, Fetch, Choose, Open, TakeEra, Survey),
)


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
        self.finder = Finder(core)
        self.keeper = Keeper(core)
        self.proposals = Proposals(core, self.keeper)
        self.operations = Operations(core, self.finder, self.keeper, self.proposals)
        self.bulk = Bulk(core, self.finder, self.operations, self.proposals)
        self.walk = Walk(core, self.finder, self.operations)
        self.watching = Watching(core, self.finder, self.keeper, self.operations, self.spawn)
        self.stabilizer = Stabilizer(core, self.finder)
        self.sync = sync = Sync(core)
        fellows = Fellows(core)
        self.takeover = Takeover(core, sync)
        self.reconfigurer = Reconfigurer(core, self.finder, self.stabilizer, fellows, sync)
        self.recovery = Recovery(core, sync, self.reconfigurer.spread)
        claims = Claims(core, self.operations)
        self.membership = Membership(
            core,
            self.finder,
            self.proposals,
            claims,
            self.takeover,
            self.reconfigurer,
            self.stabilizer,
            self.announce,
        )
        self.checker = Checker(core, sync)
        self.maintenance = Maintenance(
            core,
            self.finder,
            claims,
            self.stabilizer,
            fellows,
            self.reconfigurer,
            self.takeover,
            self.checker,
            Healer(core, self.finder, self.stabilizer),
            self.membership,
        )
        core.joined_changed = self.maintenance.kick
        core.group_changed = self.watching.moved
        self._own = self._handler_table()
        self._of_keys = {**self.keeper.handlers, **self.proposals.handlers}
        self.security = security
        self._reporter = Reporter(core, sync, security, self.status)
        self._tasks: set[Deferred[Any]] = set()
        self._yielding = False
        self._resumes = False

    # -- life

    def listen(self, interface: str, port: int) -> Deferred[int]:
        """Open the port; fires with its number."""
        return self.links.listen(interface, port)

    def begin(self, host: str, port: int) -> None:
        """Announce this address, and live."""
        self.core.name(host, port)
        self.core.began = self.core.clock.seconds()
        self.maintenance.start()
        if self._resumes:
            self.membership.resume()

    def keep_in(self, storage: Storage, loaded: Loaded) -> None:
        """Be who was written down, and write down what must not be forgotten; before it begins.

        :raises StorageCorrupt: if what was written cannot be read.
        """
        core = self.core
        journal = Journal(core, storage, self._storage_failed)
        self._resumes = restore(core, loaded, journal.shelf)
        core.journal, core.storage = journal, storage
        journal.begin()

    def _storage_failed(self, failure: Failure) -> None:
        """Nothing can be promised any more: drop out, so that others take this node's place."""
        core = self.core
        core.storage_problem = failure.getErrorMessage()
        core.log.error(
            "This node keeps nothing any more, and others take its place: {error}",
            error=core.storage_problem,
        )
        core.journal = None
        self.membership.drop_out()

    def stop(self) -> Deferred[None]:
        """Close everything; fires when no connection and no delayed call is left."""
        self.core.stop()
        self.maintenance.stop()
        for task in list(self._tasks):
            task.cancel()
        self.stabilizer.stop()
        self.watching.stop()
        self.operations.stop()
        self.proposals.stop()
        stopping = self.links.stop()
        journal = self.core.journal
        if journal is not None:
            stopping.addCallback(lambda _: journal.close())
        return stopping

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
        return judge(self.core, hello)

    def link_up(self, link: Link) -> None:
        """A peer is connected."""
        self.core.debug("connected to {peer}", peer=link.peer)
        self.checker.connected(link.peer.instance)
        self.link_changed(link)

    def link_changed(self, link: Link) -> None:
        """A peer announced itself, or announced itself anew."""
        core = self.core
        hello = link.hello
        if hello.full:
            core.full_peers.add(hello.peer.instance)
        else:
            core.full_peers.discard(hello.peer.instance)
        if not hello.leeching:
            core.remember(hello.peer)
        if not hello.ring and core.ring_id and core.is_gone(core.ring_id, hello):
            self.forget_lost_ring()  # the last member says that it is no more
        if not hello.ring or hello.ring == core.ring_id:
            return
        if not core.member:
            if core.phase is Phase.LEECHING and not (hello.leeching and core.ring_id):
                self._adopt_ring(link)
        elif not hello.leeching and not self._yielding and yields(core.hello(), hello):
            self._yielding = True
            self.spawn(self._yield_to(link), "joining the other ring")

    def _adopt_ring(self, link: Link) -> None:
        """A node without a ring met one."""
        core = self.core
        ring = core.ring_id
        if ring and (ring == link.hello.ring or not core.is_gone(ring, link.hello)):
            return  # it is known already, or the known one may come back
        core.forget_directory()
        self.finder.forget()
        core.ring_id, core.replicas = link.hello.ring, link.hello.replicas
        core.renamed()
        self.announce()
        self.spawn(self.finder.fetch_directory(link.peer), "fetching the directory")
        self.maintenance.kick()  # a leeching peer leads to members, which are dialled now

    def forget_lost_ring(self) -> None:
        """Somebody says where to read now: do not wait for a ring of which nobody is heard."""
        core = self.core
        if core.phase is Phase.LEECHING and core.ring_id and not any(core.ring_links()):
            core.ring_id, core.replicas = b"", 0
            core.forget_directory()
            self.finder.forget()
            core.renamed()
            self.announce()

    async def _yield_to(self, link: Link) -> None:
        """Give up a ring that holds nothing, and join the other."""
        core = self.core
        try:
            core.log.info("Gives up its empty ring for that of {peer}.", peer=link.peer)
            self.membership.forget_ring()
            core.forget_directory()
            self.finder.forget()
            core.ring_id, core.replicas = link.hello.ring, link.hello.replicas
            self.announce()
            await self.finder.fetch_directory(link.peer)
            await self.membership.join()
        finally:
            self._yielding = False

    def link_down(self, link: Link, error: ChordError) -> None:
        """A peer is gone, or only its connection."""
        core = self.core
        core.full_peers.discard(link.peer.instance)
        if core.phase is Phase.STOPPED:
            return
        pointers = core.pointers
        self.core.debug("connection lost: {error}", error=str(error))
        self.watching.lost(link.peer.instance)
        if isinstance(error, RingConflict):
            core.remembered.pop(link.peer.address, None)  # it is none of this ring
            core.links.complain(link.peer.host, error)
        if pointers is None:
            if core.ring_id and not any(core.ring_links()):
                self.maintenance.kick()
            return
        if link.hello.leeching:
            return
        neighbours = {peer.instance for peer in pointers.successors[:1]}
        if pointers.predecessor is not None:
            neighbours.add(pointers.predecessor.instance)
        if link.peer.instance in neighbours:
            self.maintenance.kick()

    def answer(self, link: Link, request: Request) -> Any:
        """The reply to a request of a peer, or a Deferred of it."""
        core = self.core
        ring = link.hello.ring
        if ring and ring != core.ring_id and core.member and type(request) is not Ping:
            return Declined("this node is in another ring")
        core.asked[type(request)] += 1
        handler = self._of_keys.get(type(request))
        if handler is not None:
            reply = handler(request)
        elif link.hello.leeching and isinstance(request, _OF_MEMBERS):
            return Declined("only members of the ring may say that")
        elif core.storage_problem and isinstance(request, _OF_MEMBERS):
            return Declined("this node keeps nothing any more: its disk failed")
        else:
            reply = self._own[type(request)](link, request)
        return once_kept(core, request, reply)

    def _handler_table(self) -> dict[type, Callable[[Link, Any], Any]]:
        finder, stabilizer, takeover = self.finder, self.stabilizer, self.takeover
        table: dict[type, Callable[[Link, Any], Any]] = {
            Ping: self._answer_ping,
            FindSuccessor: self._answer_find_successor,
            GetState: stabilizer.answer_state,
            Notify: stabilizer.answer_notify,
            Leaving: self._answer_leaving,
            GetConfigs: lambda _, request: finder.answer_configs(request),
            GetConfig: lambda _, request: finder.answer_config(request),
            Learn: lambda _, request: takeover.answer_learn(request),
            GetDigests: lambda _, request: self.sync.answer_digests(request),
            GetDifference: lambda _, request: self.sync.answer_difference(request),
            Prefetch: takeover.answer_prefetch,
            Wedge: lambda _, request: takeover.answer_wedge(request),
            Fetch: takeover.answer_fetch,
            Choose: lambda _, request: takeover.answer_choose(request),
            Open: lambda _, request: takeover.answer_open(request),
            TakeEra: lambda _, request: self.recovery.answer_take_era(request),
            Survey: lambda _, request: self.recovery.answer_survey(request),
            Recover: lambda _, request: self.recovery.answer_recover(request),
            GetReport: lambda _, __: self.report(),
            Leave: lambda _, __: self.membership.answer_leave(),
            **self.watching.handlers,
        }
        return table

    def _answer_ping(self, link: Link, request: Ping) -> Reply:
        if request.member and not self.core.member:
            return Declined("not a member of the ring")
        return Done()

    def _answer_find_successor(self, link: Link, request: FindSuccessor) -> Reply:
        found = self.finder.answer(request)
        return Declined("not a member of the ring") if found is None else found

    def _answer_leaving(self, link: Link, request: Leaving) -> Reply:
        reply = self.stabilizer.answer_leaving(link, request)
        self.maintenance.kick()
        return reply

    def status(self) -> str:
        """``"Nominal"``, or what is wrong, in a sentence."""
        return status_of(self.core)

    def report(self, status: str = "") -> Report:
        """What this node tells of itself.

        :param status: in words, by who knows more of it than :meth:`status`.
        """
        return self._reporter.make(status)
