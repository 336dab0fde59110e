"""Moving partitions from one group to the next (floor 2).

Owns when this node drives what: the members of the groups follow the ring, a leaver gives all away
before it goes, an epoch that has stopped goes on, and tombstones end.  One drive at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from ..base import Peer
from ..table.group import Config
from ..wire.messages import Count, Counted, Learn, WrongEpoch
from .core import Core, Phase
from .drive import Drive
from .fellows import Fellows
from .finder import Finder
from .plans import Change, Plans
from .stabilizer import Stabilizer
from .sync import Sync

__all__ = ["Reconfigurer"]

T = TypeVar("T")

_LEAVING = Phase.LEAVING.value

#: Records and bytes that stand still together, at most, unless one partition has more.
_BATCH, _BATCH_BYTES = 10_000, 32 * 1024 * 1024
#: And partitions.
_MOST_PARTITIONS = 256
#: Seconds that a drive waits for the one that is under way.
_PATIENCE = 10.0
#: Configurations in one message.
_MOST_CONFIGS = 256


class Reconfigurer:
    """Drives the groups that this node is a member of."""

    def __init__(
        self, core: Core, finder: Finder, stabilizer: Stabilizer, fellows: Fellows, sync: Sync
    ) -> None:
        self._core = core
        self._sync = sync
        self._plans = Plans(core, finder, stabilizer, fellows)
        self._busy = False
        #: why nobody took over, as the others said last since this was emptied
        self.refusal = ""
        #: did everybody say that they are leaving, too?
        self.all_leaving = False

    async def rebalance(self) -> None:
        """Go on with what stopped, and let the members follow the ring."""
        await self._exclusively(self._rebalance)

    async def _rebalance(self) -> None:
        await self._go_on()
        if self._core.phase is Phase.JOINED:
            await self._drive(await self._plans.changes())

    async def drop_tombstones(self) -> None:
        """Begin an epoch with the same members where tombstones pile up (rule 11)."""
        if self._plans.with_tombstones():
            await self._exclusively(lambda: self._drive(self._plans.with_tombstones()))

    async def hand_over(self) -> bool:
        """Give everything away; True if nothing is left that this node has to keep."""
        return bool(await self._exclusively(self._hand_over))

    async def _hand_over(self) -> bool:
        core = self._core
        await self._go_on(leaving=True)
        refusals = await self._drive(await self._plans.departures())
        self.all_leaving = bool(refusals) and all(_LEAVING in why for why in refusals.values())
        if refusals:  # who refused is not asked again at once: what it said still holds
            self.refusal = "; ".join(refusals.values())
        return not core.acceptors and not core.behind()

    async def _exclusively(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """One drive at a time; None if the one under way takes too long."""
        waited = 0.0
        while self._busy:
            if waited > _PATIENCE:
                return None
            waited += 0.05
            await self._core.sleep(0.05)
        self._busy = True
        try:
            return await what()
        finally:
            self._busy = False

    async def _drive(self, changes: Iterable[Change]) -> dict[Peer, str]:
        """Drive changes, batch by batch; who refused, and why."""
        core = self._core
        phase = core.phase
        refusals: dict[Peer, str] = {}
        for batch in _batches(changes):
            if core.phase is not phase:
                break
            lost = {peer.instance for peer in refusals}
            possible = [c for c in batch if not any(p.instance in lost for p in c.members)]
            drive = Drive(core, self._sync, possible)
            self.spread(await drive.run())
            for peer, why in drive.refusals.items():
                refusals[peer] = why
                self._plans.avoid(peer)
        return refusals

    def spread(self, configs: list[Config]) -> None:
        """Tell every connected peer of the ring what is open now; who misses it learns later."""
        core = self._core
        for place in range(0, len(configs), _MOST_CONFIGS):
            news = Learn(tuple(configs[place : place + _MOST_CONFIGS]))
            for link in core.links:
                if core.same_ring(link.hello):
                    link.ask(news).addErrback(lambda _: None)

    # -- epochs that stopped

    async def _go_on(self, *, leaving: bool = False) -> None:
        """Drive on what stopped here, unless the next epoch is open."""
        stuck = self._plans.stuck(leaving=leaving)
        finished = await self._finished(change.acceptor.config for change in stuck)
        acceptors = self._core.acceptors
        await self._drive(
            change
            for change in stuck
            if (partition := change.acceptor.config.partition) not in finished
            and acceptors.get(partition) is change.acceptor
        )

    async def _finished(self, stopped: Iterable[Config]) -> set[int]:
        """Those of which a quorum of the next members has opened the next epoch; lets them go."""
        core = self._core
        newer = [
            config
            for old in stopped
            if (config := core.directory.get(old.partition)) is not None
            and config.epoch > old.epoch
        ]
        open_at: dict[int, int] = {}
        by_peer: dict[Peer, list[Config]] = {}
        for config in newer:
            for peer in config.members:
                if peer.instance != core.instance and core.usable(peer):
                    by_peer.setdefault(peer, []).append(config)
        for peer, configs in by_peer.items():
            request = Count(tuple((config.partition, config.epoch) for config in configs))
            reply = await core.try_ask(peer, request, Counted)
            for config, part in zip(
                configs, reply.parts if reply is not None else (), strict=False
            ):
                passed = isinstance(part, WrongEpoch) and (
                    part.config is not None and part.config.epoch > config.epoch
                )
                if passed or isinstance(part, int):
                    open_at[config.partition] = open_at.get(config.partition, 0) + 1
        finished = [c for c in newer if open_at.get(c.partition, 0) >= core.needed(c)]
        for config in finished:
            core.release(config)
        return {config.partition for config in finished}


def _batches(changes: Iterable[Change]) -> Iterator[list[Change]]:
    batch: list[Change] = []
    records = size = 0
    for change in changes:
        records += len(change.acceptor)
        size += change.acceptor.size
        if batch and (records > _BATCH or size > _BATCH_BYTES or len(batch) == _MOST_PARTITIONS):
            yield batch
            batch, records, size = [], len(change.acceptor), change.acceptor.size
        batch.append(change)
    if batch:
        yield batch
