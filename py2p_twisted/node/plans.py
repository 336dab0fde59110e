"""Which partitions ought to have other members (floor 2).

Owns the comparison of the groups with the ring, and whose turn it is to do something about it.
What a plan says is done, or not, by the Reconfigurer; a plan that is wrong costs a needless epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

from ..base import Peer
from ..errors import ChordError
from ..ring.circle import between_right, distance
from ..table.acceptor import Acceptor
from ..table.group import Config, Epoch
from ..table.placement import desired
from ..wire.messages import State
from .core import Core
from .fellows import Fellows
from .finder import Finder
from .stabilizer import Stabilizer

__all__ = ["Change", "Plans"]

#: A next epoch drops tombstones when they exceed this share of the records, and this number.
_TOMBSTONE_SHARE = 0.1
_TOMBSTONES = 64
#: Plans between two in which a member looks after partitions that others should look after.
_OTHERS_EVERY = 3
#: Seconds that a stopped epoch has to go on before another member drives it, at least.
_STOPPED = 1.0
#: Seconds that a node is left in peace that did not want to be a member.
_AVOIDED = 3.0
#: Such nodes that are remembered.
_MOST_AVOIDED = 256


@dataclass(frozen=True)
class Change:
    """One partition that this node keeps, and the members that it ought to have."""

    acceptor: Acceptor
    members: tuple[Peer, ...]


class Plans:
    """What this node is to change."""

    def __init__(
        self, core: Core, finder: Finder, stabilizer: Stabilizer, fellows: Fellows
    ) -> None:
        self._core = core
        self._finder = finder
        self._stabilizer = stabilizer
        self._fellows = fellows
        self._round = 0
        self._avoided: dict[bytes, float] = {}  # instance -> until when
        self._differs: dict[int, tuple[tuple[Peer, ...], float]] = {}
        self._stopped: dict[int, tuple[Epoch, float]] = {}

    def avoid(self, peer: Peer) -> None:
        """It does not want to be a member now."""
        if len(self._avoided) >= _MOST_AVOIDED:
            self._avoided.clear()
        self._avoided[peer.instance] = self._core.clock.seconds() + _AVOIDED

    # -- members that ought to be others

    async def changes(self) -> list[Change]:
        """What differs from the ring, and is this node's turn."""
        self._round += 1
        mine: dict[int, int] = {}
        for partition, acceptor in self._core.acceptors.items():
            rank = self._rank(acceptor.config)
            if not acceptor.wedged and (rank == 0 or self._round % _OTHERS_EVERY == 0):
                mine[partition] = rank
        due = []
        now = self._core.clock.seconds()
        for change in await self._differing(mine, ()):
            partition = change.acceptor.config.partition
            wanted, since = self._differs.get(partition, ((), now))
            if wanted != change.members:
                since = now
            self._differs[partition] = (change.members, since)
            mine_since = mine.pop(partition)
            if now - since >= mine_since:
                due.append(change)
        for partition in mine:  # as they ought to be
            self._differs.pop(partition, None)
        return due

    async def departures(self) -> list[Change]:
        """How everything that this node keeps is kept without it, as far as that is possible."""
        core = self._core
        serving = [p for p, acceptor in core.acceptors.items() if not acceptor.wedged]
        return [
            change
            for change in await self._differing(serving, (core.instance,))
            if all(peer.instance != core.instance for peer in change.members)
        ]

    def _rank(self, config: Config) -> int:
        """How many members are asked before this node to do something."""
        rank = 0
        for peer in config.members:
            if peer.instance == self._core.instance:
                break
            rank += self._fellows.fit(peer)
        return rank

    async def _differing(
        self, partitions: Iterable[int], leaving: Collection[bytes]
    ) -> list[Change]:
        """The partitions whose members are not as the ring would have them."""
        found: list[Change] = []
        for group, live in await self._by_owner(sorted(partitions)):
            fit = [
                peer
                for peer in live
                if peer.instance not in leaving
                and not self._is_avoided(peer)
                and self._fellows.fit(peer)
            ]
            for partition in group:
                acceptor = self._core.acceptors.get(partition)
                if acceptor is None or acceptor.wedged:
                    continue
                wanted = self._wanted(acceptor.config, fit, leaving)
                if wanted != acceptor.config.members:
                    found.append(Change(acceptor, wanted))
        return found

    def _is_avoided(self, peer: Peer) -> bool:
        until = self._avoided.get(peer.instance)
        return until is not None and self._core.clock.seconds() < until

    def _wanted(
        self, config: Config, fit: list[Peer], leaving: Collection[bytes]
    ) -> tuple[Peer, ...]:
        core = self._core
        start = core.start(config.partition)
        away = partial(_clockwise, start, core.settings.k)
        # One that moved counts where it is now, not where the group remembers it.
        gone = {peer.instance for peer in config.members if core.replaced(peer) or core.moved(peer)}
        dead = {peer.instance for peer in config.members if core.dead(peer)}
        wanted = desired(
            fit, config.members, core.replicas, away, dead=dead, gone=gone.union(leaving)
        )
        if not any(peer.instance in leaving for peer in wanted):
            return wanted
        # Dead members keep their place so that no fewer decide; but nobody is kept from leaving.
        left = sorted(fit, key=away)[: core.replicas]
        size = len(left) if len(left) == 2 else len(left) - (len(left) % 2 == 0)
        return tuple(left[:size]) if left else config.members

    # -- the ring's opinion

    async def _by_owner(self, partitions: list[int]) -> list[tuple[list[int], list[Peer]]]:
        """Partitions by the node that follows their start, with it and the nodes after it."""
        core = self._core
        pointers = core.pointers
        if pointers is None:
            return []
        found: list[tuple[list[int], list[Peer]]] = []
        before = pointers.predecessor
        if pointers.alone or (before is not None and core.alive(before)):
            edge = before.id if before is not None else pointers.me.id
            own = [p for p in partitions if between_right(edge, core.start(p), pointers.me.id)]
            found.append((own, [pointers.me, *pointers.successors]))
            partitions = [p for p in partitions if p not in set(own)]
        while partitions:
            group, live = await self._owner_of(partitions)
            if live:
                found.append((group, live))
            partitions = [p for p in partitions if p not in set(group)]
        return found

    async def _owner_of(self, partitions: list[int]) -> tuple[list[int], list[Peer]]:
        """The first partition and others with the same owner; the owner and those after it."""
        core = self._core
        start = core.start(partitions[0])
        try:
            found = await self._finder.find_successor(start, alive=True)
        except ChordError as error:
            core.debug("{error}", error=str(error))
            return partitions, []
        owner = found.owner
        assert owner is not None
        edge = (start - 1) % (1 << core.settings.k)
        group = [p for p in partitions if between_right(edge, core.start(p), owner.id)]
        group = group or partitions[:1]
        if owner.instance == core.instance:
            pointers = core.pointers
            return group, [pointers.me, *pointers.successors] if pointers is not None else []
        state = await self._stabilizer.query(owner)
        return group, [owner, *state.successors] if isinstance(state, State) else []

    # -- epochs that stopped, and tombstones

    def stuck(self, *, leaving: bool = False) -> list[Change]:
        """Partitions whose epoch stopped here, and whose next one did not begin."""
        core = self._core
        now = core.clock.seconds()
        stopped: dict[int, tuple[Epoch, float]] = {}
        found = []
        for partition, acceptor in core.acceptors.items():
            if not acceptor.wedged:
                continue
            config = acceptor.config
            epoch, since = self._stopped.get(partition, (config.epoch, now))
            since = since if epoch == config.epoch else now
            stopped[partition] = (config.epoch, since)
            ballot = acceptor.wedge_ballot
            own = ballot is not None and ballot.instance == core.instance
            if leaving or own or now - since >= _STOPPED + self._rank(config):
                gone = [peer for peer in config.members if core.replaced(peer)]
                alone = len(config.members) == 2 and bool(gone)
                found.append(Change(acceptor, (core.me,) if alone else config.members))
        self._stopped = stopped
        return found

    def with_tombstones(self) -> list[Change]:
        """Partitions that are to begin an epoch without their tombstones (rule 11)."""
        return [
            Change(acceptor, acceptor.config.members)
            for acceptor in self._core.acceptors.values()
            if not acceptor.wedged
            and acceptor.tombstones > max(_TOMBSTONES, _TOMBSTONE_SHARE * len(acceptor))
            and self._rank(acceptor.config) == 0
        ]


def _clockwise(start: int, k: int, peer: Peer) -> int:
    return distance(start, peer.id, k)
