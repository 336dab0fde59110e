"""Beginning a new era from what is left (floor 2).

``recover(accept_data_loss=True)`` is for members that will never come back.  What is alive keeps
its records and only counts a new era; what is gone begins empty, or with the frozen copy of a
hand-over that was cut short.  A member of the old era that turns up later finds a higher era and
discards what it had (:meth:`Core.learn`).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import NotConnected
from ..table.group import Config, Epoch, Successor, base_of
from ..wire.messages import Reply, TakeEra, TookEra
from .core import Core
from .handover import Handover

__all__ = ["Recovery", "RecoveryReport"]

#: Seconds that a member may take to begin the era.
_PATIENCE = 5.0


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
        """Begin a new era.

        :raises NotConnected: if this node is no member.
        """
        core = self._core
        if not core.member:
            raise NotConnected("only a member of the ring can recover it: join() first")
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
        lost = self._open_lost(Epoch(era, era_random, 1), kept)
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
