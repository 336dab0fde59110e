"""Moving partitions from one group to the next (floor 2).

Owns the reconfiguration of design section 5 for groups of one: copy ahead, wedge, agree the next
member together with the base, open.  The member that keeps a partition drives it.  What is lost of
a message costs time, never a record: a decided epoch is offered until it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from ..base import Peer
from ..errors import ChordError, PeerUnreachable
from ..ring.circle import between_right
from ..table.acceptor import Acceptor
from ..table.group import Ballot, Config, Successor
from ..wire.messages import Declined, Done, Learn, Open, Opened, Stage, StagePart
from .core import Core, Phase
from .finder import Finder
from .pages import Pages

__all__ = ["Handover"]

T = TypeVar("T")

_LEAVING = Phase.LEAVING.value

#: Records that stand still together, at most, unless one partition has more.
_BATCH = 10_000
#: A next epoch drops tombstones when they exceed this share of the records, and this number.
_TOMBSTONE_SHARE = 0.1
_TOMBSTONES = 64
#: Seconds that a peer may take for records or epochs.
_PATIENCE = 5.0


class Handover:
    """Gives partitions away."""

    def __init__(self, core: Core, finder: Finder) -> None:
        self._core = core
        self._finder = finder
        self._busy = False
        #: why nobody took over, when :meth:`leave_to` was last tried
        self.refusal = ""
        #: did everybody say that they are leaving, too?
        self.all_leaving = False

    # -- giving away

    def misplaced(self) -> list[int]:
        """The partitions kept here that the ring would give to another node, in circle order."""
        core = self._core
        pointers = core.pointers
        if pointers is None or pointers.predecessor is None:
            return []
        before, me = pointers.predecessor, pointers.me
        if not core.alive(before):
            return []
        return sorted(
            partition
            for partition in core.acceptors
            if not between_right(before.id, core.start(partition), me.id)
        )

    async def rebalance(self) -> None:
        """Give what is misplaced to the nodes that the ring makes responsible."""
        await self._exclusively(self._rebalance)

    async def _rebalance(self) -> None:
        core = self._core
        await self._finish_votes()
        waiting = self.misplaced()
        while waiting and core.phase is Phase.JOINED:
            start = core.start(waiting[0])
            found = await self._finder.find_successor(start, alive=True)
            target = found.owner
            assert target is not None
            if target.instance == core.instance:
                return  # the ring is on its way; next round
            group = [
                partition
                for partition in waiting
                if between_right(
                    (start - 1) % (1 << core.settings.k), core.start(partition), target.id
                )
            ]
            await self._move(group, target)
            waiting = [partition for partition in waiting if partition not in group]

    async def leave_to(self, targets: Iterable[Peer]) -> bool:
        """Give everything to the first of these nodes that takes it; True if nothing is left."""
        moved = await self._exclusively(lambda: self._leave_to(targets))
        return bool(moved)

    async def _leave_to(self, targets: Iterable[Peer]) -> bool:
        core = self._core
        await self._finish_votes()
        refusals: list[str] = []
        for target in targets:
            if not core.acceptors:
                break
            try:
                await self._move(sorted(core.acceptors), target)
            except (ConnectionError, ChordError) as error:
                refusals.append(str(error))
        self.all_leaving = bool(refusals) and all(_LEAVING in refusal for refusal in refusals)
        self.refusal = "; ".join(refusals)
        return not core.acceptors

    async def _exclusively(self, what: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """One reconfiguration drive at a time."""
        waited = 0.0
        while self._busy:
            if waited > 2 * _PATIENCE:
                return None
            waited += 0.05
            await self._core.sleep(0.05)
        self._busy = True
        try:
            return await what()
        finally:
            self._busy = False

    def _batches(self, partitions: Iterable[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        size = 0
        for partition in partitions:
            acceptor = self._core.acceptors.get(partition)
            if acceptor is None or acceptor.wedged:
                continue
            if batch and size + len(acceptor) > _BATCH:
                yield batch
                batch, size = [], 0
            batch.append(partition)
            size += len(acceptor)
        if batch:
            yield batch

    async def _move(self, partitions: list[int], target: Peer) -> None:
        """Reconfigure partitions to one new member.

        :raises ChordError: if it did not take them; they are served here again.
        """
        for batch in self._batches(partitions):
            await self._move_batch(batch, target)

    async def _move_batch(self, batch: list[int], target: Peer) -> None:
        core = self._core
        acceptors = {partition: core.acceptors[partition] for partition in batch}
        try:
            await self._copy_ahead(acceptors, target)
            successors = []
            for partition, acceptor in acceptors.items():
                epoch = acceptor.config.epoch
                acceptor.wedge(epoch, Ballot(epoch, acceptor.counter + 1, core.instance))
                config = Config(partition, epoch.following(), (target,))
                successors.append(acceptor.successor(config))
            await self._copy_rest(acceptors, successors, target)
        except BaseException:
            for partition, acceptor in acceptors.items():
                acceptor.changed = None
                if acceptor.wedged and core.acceptors.get(partition) is acceptor:
                    self.reopen(acceptor)
            raise
        chosen = []
        for successor in successors:
            acceptor = acceptors[successor.config.partition]
            current = core.acceptors.get(successor.config.partition) is acceptor
            if current and acceptor.vote is None:  # an earlier vote wins
                self._choose(acceptor, successor)
                chosen.append(successor)
        await self._open(chosen, target)

    def _choose(self, acceptor: Acceptor, successor: Successor) -> None:
        epoch = acceptor.config.epoch
        ballot = Ballot(epoch, acceptor.counter + 1, self._core.instance)
        acceptor.choose(epoch, ballot, successor)
        acceptor.changed = None

    def reopen(self, acceptor: Acceptor, config: Config | None = None) -> None:
        """Reconfigure to this node itself: a next epoch with the same member and base."""
        core = self._core
        epoch = acceptor.config.epoch
        acceptor.wedge(epoch, Ballot(epoch, acceptor.counter + 1, core.instance))
        if config is None:
            config = Config(acceptor.config.partition, epoch.following(), (core.me,))
        successor = acceptor.successor(config)
        self._choose(acceptor, successor)
        core.serve(successor, dict(acceptor.live_records()))

    async def _copy_ahead(self, acceptors: dict[int, Acceptor], target: Peer) -> None:
        """Copy while the partitions are served; what changes meanwhile is noted."""
        pages = Pages(self._core.settings.page_bytes, self._core.settings.page_keys)
        for partition, acceptor in acceptors.items():
            if not len(acceptor):
                continue
            acceptor.changed = set()
            epoch = acceptor.config.epoch
            pages.begin(StagePart(partition, epoch, True, ()))
            for key in [key for key, _ in acceptor.live_records()]:
                record = acceptor.get(key)
                if record is not None and record.value is not None and pages.add(key, record):
                    await self._stage(pages.take(), target)
        await self._stage(pages.take(), target)

    async def _copy_rest(
        self, acceptors: dict[int, Acceptor], successors: list[Successor], target: Peer
    ) -> None:
        """Copy what changed since, with the identity of the whole.

        Empty partitions are announced, too: a node that said yes does not leave before they open.
        """
        pages = Pages(self._core.settings.page_bytes, self._core.settings.page_keys)
        for successor in successors:
            partition = successor.config.partition
            acceptor = acceptors[partition]
            whole = acceptor.changed is None  # it was empty when copying ahead began
            pages.begin(StagePart(partition, acceptor.config.epoch, whole, ()))
            changed = acceptor.changed
            keys = [key for key, _ in acceptor.live_records()] if changed is None else changed
            for key in keys:
                record = acceptor.get(key)
                if record is None or record.value is None:
                    pages.drop(key)
                elif pages.add(key, record):
                    await self._stage(pages.take(), target)
            pages.end(successor)
        await self._stage(pages.take(), target)

    async def _stage(self, parts: tuple[StagePart, ...], target: Peer) -> None:
        if not parts:
            return
        reply = await self._core.ask(target, Stage(parts), _PATIENCE)
        if not isinstance(reply, Done):
            reason = reply.reason if isinstance(reply, Declined) else "it is busy"
            raise PeerUnreachable(f"{target} does not take over: {reason}")

    async def _open(self, successors: list[Successor], target: Peer) -> None:
        """Offer decided epochs; those that open are not kept here any more."""
        core = self._core
        reply = await core.ask(target, Open(tuple(successors)), _PATIENCE)
        opened = set(reply.partitions) if isinstance(reply, Opened) else set()
        configs = []
        for successor in successors:
            if successor.config.partition in opened:
                core.learn(successor.config)
                configs.append(successor.config)
        self.spread(configs)

    def spread(self, configs: list[Config]) -> None:
        """Tell every connected peer of the ring; who misses it learns later."""
        core = self._core
        if not configs:
            return
        for link in core.links:
            if core.same_ring(link.hello):
                link.ask(Learn(tuple(configs))).addErrback(lambda _: None)

    async def _finish_votes(self) -> None:
        """Offer epochs again that were decided but whose opening was never confirmed."""
        core = self._core
        stuck = [acceptor for acceptor in core.acceptors.values() if acceptor.vote is not None]
        for acceptor in stuck:
            successor = acceptor.vote
            assert successor is not None
            target = successor.config.members[0]
            try:
                await self._open([successor], target)
                if core.acceptors.get(successor.config.partition) is acceptor:
                    acceptor.changed = None
                    await self._copy_rest(
                        {successor.config.partition: acceptor}, [successor], target
                    )
                    await self._open([successor], target)
            except (ChordError, ConnectionError) as error:
                core.debug("{peer}: {error}", peer=target, error=str(error))

    def drop_tombstones(self) -> None:
        """Begin an epoch with the same member where tombstones pile up (rule 11)."""
        for acceptor in list(self._core.acceptors.values()):
            many = acceptor.tombstones > max(_TOMBSTONES, _TOMBSTONE_SHARE * len(acceptor))
            if many and not acceptor.wedged and acceptor.changed is None:
                self.reopen(acceptor)
