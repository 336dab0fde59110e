"""Beginning a new era from what is left (floor 2).

``recover(accept_data_loss=True)`` is for members that will never come back.  What is alive keeps
its records and only counts a new era; what is gone begins empty, or with the frozen copy of a
hand-over that was cut short.  A member of the old era that turns up later finds a higher era and
discards what it had (:meth:`Core.learn`).
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred

from ..errors import NotConnected, Unavailable
from ..table.group import Config, Epoch, Successor, base_of
from ..wire.messages import Declined, Recover, Recovered, Reply, TakeEra, TookEra
from .core import Core
from .handover import Handover

__all__ = ["Recovery", "RecoveryReport"]

#: Seconds that a member may take to begin the era, and to recover the ring.
_PATIENCE, _LONG_PATIENCE = 5.0, 60.0
#: What was lost begins so high that it wins over a member that did begin the era, and whose answer
#: was lost: two groups must never hold one epoch.
_LOST_NUMBER = 1 << 40


@dataclass(frozen=True)
class RecoveryReport:
    """What a recovery did.

    :ivar era: the new era's counter.
    :ivar kept: partitions whose member was alive and kept its records.
    :ivar lost: partitions whose records are gone.
    :ivar superseded: another recovery won at the same time; run it again if keys are missing.
    """

    era: int
    kept: int
    lost: int
    superseded: bool = False


class Recovery:
    """Re-forms the groups of a ring that lost members."""

    def __init__(self, core: Core, handover: Handover) -> None:
        self._core = core
        self._handover = handover

    def answer_take_era(self, request: TakeEra) -> Reply:
        """Begin the era in every partition that is kept here."""
        if not Epoch(request.era, request.era_random, 1).plausible():
            return Declined(f"era {request.era} cannot be")
        return TookEra(tuple(self._take(request.era, request.era_random)))

    def _take(self, era: int, era_random: int) -> list[Config]:
        core = self._core
        configs = []
        for partition, acceptor in list(core.acceptors.items()):
            if acceptor.config.epoch.era_name >= (era, era_random):
                configs.append(acceptor.config)
                continue
            if acceptor.vote is not None:
                continue  # decided to move; the frozen copy counts only if its new member is gone
            config = Config(partition, Epoch(era, era_random, 1), (core.me,))
            self._handover.reopen(acceptor, config)
            configs.append(config)
        return configs

    async def recover(self) -> RecoveryReport:
        """Begin a new era; a node that keeps nothing has a member do it.

        :raises NotConnected: if this node knows no member.
        :raises ChordError: if the member that was asked did not answer, or cannot.
        """
        if self._core.member:
            return await self._recover()
        link = next(self._core.ring_links(), None)
        if link is None:
            raise NotConnected("this node knows no member of a ring: connect() to one first")
        reply = await self._core.ask(link.peer, Recover(), _LONG_PATIENCE)
        if not isinstance(reply, Recovered):
            reason = reply.reason if isinstance(reply, Declined) else "it is busy"
            raise Unavailable(f"{link.peer} does not recover the ring: {reason}")
        return RecoveryReport(reply.era, reply.kept, reply.lost, reply.superseded)

    def answer_recover(self, request: Recover) -> Deferred[Reply]:
        """A peer wants the ring to be recovered."""

        async def answer() -> Reply:
            if not self._core.member:
                return Declined("not a member of the ring")
            report = await self._recover()
            return Recovered(report.era, report.kept, report.lost, report.superseded)

        return Deferred.fromCoroutine(answer())

    async def _recover(self) -> RecoveryReport:
        core = self._core
        era = 1 + max((config.epoch.era for config in core.directory), default=0)
        era_random = core.rng.getrandbits(62)
        kept = {config.partition: config for config in self._take(era, era_random)}
        for peer in list(core.directory.members()):
            if peer.instance == core.instance:
                continue
            reply = await core.try_ask(peer, TakeEra(era, era_random), TookEra, _PATIENCE)
            for config in reply.configs if reply is not None else ():
                core.learn(config)
                kept[config.partition] = config
        lost = self._open_lost(Epoch(era, era_random, _LOST_NUMBER), kept)
        self._handover.spread([*kept.values(), *lost])
        mine = (era, era_random)
        superseded = any(config.epoch.era_name > mine for config in core.directory)
        report = RecoveryReport(era, len(kept), len(lost), superseded)
        core.log.warn(
            "Recovered ring {ring} in era {era}: {kept} partitions kept, {lost} lost.",
            ring=core.ring_name,
            era=era,
            kept=report.kept,
            lost=report.lost,
        )
        return report

    def _open_lost(self, epoch: Epoch, kept: dict[int, Config]) -> list[Config]:
        """Open here what nobody alive keeps; the ring moves it to where it belongs."""
        core = self._core
        opened = []
        for partition in range(core.partitions):
            known = core.directory.get(partition)
            if partition in kept or (known is not None and known.epoch >= epoch):
                continue
            frozen = core.acceptors.get(partition)
            config = Config(partition, epoch, (core.me,))
            records = dict(frozen.live_records()) if frozen is not None else {}
            core.serve(Successor(config, base_of(records.items()), epoch), records)
            opened.append(config)
        return opened
