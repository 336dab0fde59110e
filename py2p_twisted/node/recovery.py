"""Beginning a new era from what is left (floor 2).

``recover(accept_data_loss=True)`` is for members that will never come back.  Groups that have a
quorum left go on as they are: what is dead among them is replaced in the ordinary way.  The others
are re-formed: one of those who still keep the partition merges what all of them have and begins the
new era alone; then the group grows again.  What nobody keeps begins empty.  A member of the old era
that turns up later finds a higher era and discards what it had (:meth:`Core.learn`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from ..base import Peer
from ..errors import NotConnected, Unavailable
from ..table.acceptor import NotPromised
from ..table.digest import EMPTY_BASE
from ..table.group import Ballot, Config, Epoch, Successor
from ..table.records import Records
from ..wire.messages import (
    Declined,
    Recover,
    Recovered,
    Reply,
    Source,
    Survey,
    Surveyed,
    TakeEra,
    TookEra,
)
from .core import Core
from .gather import gather
from .sync import Copy, Mode, Sync, Want

__all__ = ["Recovery", "RecoveryReport"]

#: Seconds that a member may take to tell what it keeps, to begin the era, and to recover the ring.
_PATIENCE, _LONG_PATIENCE, _LONGEST_PATIENCE = 5.0, 30.0, 60.0
#: Seconds after which an epoch that has stopped, and did not go on, never will by itself.
_MOVING = 5.0
#: Members that are asked to re-form a partition, one after the other, before it counts as lost.
_MOST_TRIES = 5


@dataclass(frozen=True)
class RecoveryReport:
    """What a recovery did.

    :ivar era: the new era's counter; the present one's if there was nothing to recover.
    :ivar kept: partitions whose group has a quorum: nothing was lost.
    :ivar reformed: partitions that were re-formed from less than a quorum.
    :ivar lost: partitions whose records are gone.
    :ivar keys: how many keys the re-formed partitions have: each may have lost its last write.
    :ivar superseded: another recovery won at the same time; run it again if keys are missing.
    """

    era: int
    kept: int
    lost: int
    superseded: bool = False
    reformed: int = 0
    keys: int = 0


@dataclass
class _Left:
    """What is left of one partition: its newest epoch that somebody keeps, and who keeps it."""

    config: Config
    keepers: list[Peer] = field(default_factory=list)
    stopped: int = 0  # how many of them have stopped

    def stands(self) -> bool:
        """Have so many stopped that nobody is served?"""
        return len(self.keepers) - self.stopped < self.config.quorum

    def moves(self, newest: Config | None) -> bool:
        """Has it only stopped for the epoch that follows?  Then it may go on by itself."""
        followed = newest is not None and newest.epoch > self.config.epoch
        return self.stands() and (self.stopped > 0 or followed)

    def still(self, later: _Left) -> bool:
        """Did nothing happen meanwhile?"""
        return self.stands() and later.stands() and self.config.epoch == later.config.epoch

    def enough(self, newest: Config | None) -> bool:
        """Can the group go on as it is?"""
        if newest is not None and newest.epoch > self.config.epoch:
            return False  # nobody is left of the epoch that followed
        members = [peer for peer in self.keepers if self.config.has(peer.instance)]
        return len(members) >= self.config.quorum


def _size(peers: Iterable[Peer]) -> int:
    """About what a configuration takes in a message, or other nodes that are named."""
    return 48 + sum(48 + 4 * len(peer.host) for peer in peers)


class Recovery:
    """Re-forms the groups of a ring that lost members.

    :param spread: tells the ring of new configurations.
    """

    def __init__(self, core: Core, sync: Sync, spread: Callable[[list[Config]], None]) -> None:
        self._core = core
        self._sync = sync
        self._spread = spread
        self._waiting: list[Deferred[RecoveryReport]] = []

    # -- what members answer

    def answer_survey(self, request: Survey) -> Reply:
        """What this node keeps, as much of it as fits."""
        core, first = self._core, request.first
        kept = sorted(part for part in core.acceptors if first is None or part >= first)
        room = core.settings.page_bytes
        parts: list[tuple[Config, bool]] = []
        for partition in kept:
            acceptor = core.acceptors[partition]
            room -= _size(acceptor.config.members)
            if room < 0 and parts and first is not None:
                break
            parts.append((acceptor.config, acceptor.wedged))
        return Surveyed(tuple(parts), len(parts) < len(kept))

    def answer_take_era(self, request: TakeEra) -> Reply | Deferred[Reply]:
        """Begin the era in partitions that are kept here, with what the others have of them."""
        for config, _ in request.parts:
            mine = [peer.instance for peer in config.members] == [self._core.instance]
            if not mine or not config.epoch.plausible():
                return Declined(f"partition {config.partition} cannot begin that era here")
        return Deferred.fromCoroutine(self._take_era(request))

    async def _take_era(self, request: TakeEra) -> Reply:
        core = self._core
        copies: dict[int, Copy] = {}
        wanted: dict[Peer, list[Want]] = {}
        for config, sources in request.parts:
            partition = config.partition
            acceptor = core.acceptors.get(partition)
            if acceptor is None or acceptor.config.epoch.era_name >= config.epoch.era_name:
                continue
            epoch = acceptor.config.epoch
            try:
                ballot = acceptor.wedge_ballot or Ballot(epoch, 0, core.instance)
                acceptor.wedge(epoch, ballot)
            except NotPromised as error:  # cannot be: it is the ballot that stands
                core.debug("{error}", error=str(error))
                continue
            copies[partition] = copy = Copy(acceptor.records.draft())
            for source in sources:
                if source.instance != core.instance:
                    want = Want(partition, epoch, Source.EPOCH, copy)
                    wanted.setdefault(source, []).append(want)
        for source, wants in wanted.items():
            await self._sync.pull(source, wants, Mode.MERGE)
        configs: list[tuple[Config, int]] = []
        for config, _ in request.parts:
            partition = config.partition
            found = copies.get(partition)
            known = core.directory.get(partition)
            if found is not None and (known is None or known.epoch < config.epoch):
                self._begin(config, found.records)
            acceptor = core.acceptors.get(partition)
            if acceptor is not None and acceptor.config.epoch.era_name >= config.epoch.era_name:
                configs.append((acceptor.config, acceptor.keys))
        return TookEra(tuple(configs))

    def _begin(self, config: Config, records: Records) -> None:
        """Keep a partition alone, in a new era."""
        live = records.live_draft()
        self._core.serve(Successor(config, live.base(), config.epoch), live)

    def answer_recover(self, request: Recover) -> Deferred[Reply]:
        """A peer wants the ring to be recovered."""

        async def answer() -> Reply:
            if not self._core.member:
                return Declined("not a member of the ring")
            report = await self.recover()
            return Recovered(
                report.era,
                report.kept,
                report.reformed,
                report.lost,
                report.keys,
                report.superseded,
            )

        return Deferred.fromCoroutine(answer())

    # -- recovering

    def _tell(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(result)  # a Failure makes it fail

    async def recover(self) -> RecoveryReport:
        """Begin a new era; a node that keeps nothing has a member do it.

        :raises NotConnected: if this node knows no member.
        :raises ChordError: if the member that was asked did not answer, or cannot.
        """
        if self._core.member:
            waiting: Deferred[RecoveryReport] = Deferred()
            self._waiting.append(waiting)
            if len(self._waiting) == 1:  # else one is under way
                Deferred.fromCoroutine(self._recover()).addBoth(self._tell)
            return await waiting
        link = next(self._core.ring_links(), None)
        if link is None:
            raise NotConnected("this node knows no member of a ring: connect() to one first")
        reply = await self._core.ask(link.peer, Recover(), _LONGEST_PATIENCE)
        if not isinstance(reply, Recovered):
            reason = reply.reason if isinstance(reply, Declined) else "it is busy"
            raise Unavailable(f"{link.peer} does not recover the ring: {reason}")
        return RecoveryReport(
            reply.era, reply.kept, reply.lost, reply.superseded, reply.reformed, reply.keys
        )

    async def _recover(self) -> RecoveryReport:
        core = self._core
        left = await self._survey()
        directory = core.directory
        if any(found.moves(directory.get(partition)) for partition, found in left.items()):
            await core.sleep(_MOVING)
            before, left = left, await self._survey()
        else:
            before = {}
        era = 1 + max((config.epoch.era for config in core.directory), default=0)
        era_random = core.rng.getrandbits(62)
        broken = {
            partition: found
            for partition, found in left.items()
            if not found.enough(core.directory.get(partition))
            or (partition in before and before[partition].still(found))
        }
        if not broken and len(left) == core.partitions:
            core.log.info("Nothing to recover: all partitions have a quorum.")
            return RecoveryReport(era=era - 1, kept=len(left), lost=0)
        taken: dict[int, tuple[Config, int]] = {}
        for number in range(1, _MOST_TRIES + 1):
            missing = [part for part in broken if part not in taken and broken[part].keepers]
            if not missing:
                break
            await self._reform({part: broken[part] for part in missing}, taken,
                               Epoch(era, era_random, number))  # fmt: skip
        lost = [
            part
            for part in range(core.partitions)
            if part not in taken and (part not in left or part in broken)
        ]
        empty = [self._open_empty(part, Epoch(era, era_random, _MOST_TRIES + 1)) for part in lost]
        await core.kept()
        self._spread([config for config, _ in taken.values()] + empty)
        newer = any(config.epoch.era_name > (era, era_random) for config in core.directory)
        report = RecoveryReport(
            era=era,
            kept=len(left) - len(broken),
            lost=len(lost),
            superseded=newer,
            reformed=len(taken),
            keys=sum(keys for _, keys in taken.values()),
        )
        core.log.warn(
            "Recovered ring {ring} in era {era}: {kept} partitions kept, {reformed} re-formed with "
            "{keys} keys that may have lost their last write, {lost} lost.",
            ring=core.ring_name,
            era=era,
            kept=report.kept,
            reformed=report.reformed,
            keys=report.keys,
            lost=report.lost,
        )
        core.chronicle.note("recovered", f"{core.me} recovered the ring")
        return report

    async def _survey(self) -> dict[int, _Left]:
        """Ask everybody what they keep, page by page."""
        core = self._core
        left: dict[int, _Left] = {}
        requests: dict[Peer, Survey] = {}

        def heard(peer: Peer, reply: Reply | None) -> None:
            if not isinstance(reply, Surveyed):
                return
            asked = requests.get(peer)
            after = 1 + max((config.partition for config, _ in reply.parts), default=-1)
            if reply.more and asked is not None and after > (asked.first or 0):
                rest[peer] = Survey(after)
            for config, stopped in reply.parts:
                if config.partition >= core.partitions:
                    continue
                known = left.get(config.partition)
                if known is None or known.config.epoch < config.epoch:
                    known = left[config.partition] = _Left(config)
                if known.config.epoch == config.epoch:
                    known.keepers.append(peer)
                    known.stopped += stopped

        rest: dict[Peer, Survey] = {}
        heard(core.me, self.answer_survey(Survey()))
        peers = {peer.instance: peer for peer in core.directory.members()}
        peers.update((link.peer.instance, link.peer) for link in core.ring_links())
        peers.pop(core.instance, None)
        rest = {peer: Survey(0) for peer in peers.values()}
        while rest:
            requests, rest = rest, {}
            await gather(core, requests, heard, lambda: False, _PATIENCE)
        return left

    async def _reform(
        self, broken: dict[int, _Left], taken: dict[int, tuple[Config, int]], epoch: Epoch
    ) -> None:
        """Have one keeper of each of these partitions begin the era; who fails is not asked again.

        :param epoch: another one in every call: two groups must never hold one epoch.
        """
        core = self._core
        parts: dict[Peer, list[tuple[Config, tuple[Peer, ...]]]] = {}
        for partition, found in broken.items():
            keepers = sorted(found.keepers, key=lambda peer: peer.instance != core.instance)
            keeper = keepers[0]
            found.keepers = [peer for peer in found.keepers if peer.instance != keeper.instance]
            config = Config(partition, epoch, (keeper,))
            parts.setdefault(keeper, []).append((config, tuple(found.keepers)))

        def take(configs: Iterable[tuple[Config, int]]) -> None:
            for config, keys in configs:
                core.learn(config)
                taken[config.partition] = (config, keys)

        def heard(_: Peer, reply: Reply | None) -> None:
            if isinstance(reply, TookEra):
                take(reply.configs)

        mine = parts.pop(core.me, None)
        while parts:
            requests = {peer: TakeEra(self._page(some)) for peer, some in parts.items()}
            parts = {peer: some for peer, some in parts.items() if some}
            await gather(core, requests, heard, lambda: False, _LONG_PATIENCE)
        if mine is not None:
            heard(core.me, await self._take_era(TakeEra(tuple(mine))))

    def _page(
        self, some: list[tuple[Config, tuple[Peer, ...]]]
    ) -> tuple[tuple[Config, tuple[Peer, ...]], ...]:
        """Take the first of them away, as many as fit a message."""
        room = self._core.settings.page_bytes
        taken = 0
        for config, sources in some:
            room -= _size(config.members) + _size(sources)
            if room < 0 and taken:
                break
            taken += 1
        page = tuple(some[:taken])
        del some[:taken]
        return page

    def _open_empty(self, partition: int, epoch: Epoch) -> Config:
        """Open here what nobody alive keeps; the ring moves it to where it belongs."""
        core = self._core
        config = Config(partition, epoch, (core.me,))
        known = core.directory.get(partition)
        if known is not None and known.epoch >= epoch:
            return known  # another recovery was there
        core.serve(Successor(config, EMPTY_BASE, epoch), core.blank(partition))
        return config
