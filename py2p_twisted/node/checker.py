"""A slow look, in the background, whether the members of a group keep the same (floor 2).

Nothing depends on it: writes reach a quorum, and what a member missed it is told lazily, or copies
when it catches up.  What the check finds was lost on the way; it is repaired, counted and logged.
"""

from __future__ import annotations

from contextlib import suppress

from ..base import Peer, count_of
from ..table.acceptor import Acceptor, NotPromised
from ..table.group import Record
from ..table.records import Records
from ..wire.messages import Source
from .core import Core
from .sync import Mode, Sync, Want

__all__ = ["Checker"]

#: Seconds in which all partitions are compared once.
_ALL_IN = 60.0
#: Seconds that what is under way has to arrive.
_UNDER_WAY = 1.0


class Checker:
    """Compares the partitions of this node with other members', some in each round."""

    def __init__(self, core: Core, sync: Sync) -> None:
        self._core = core
        self._sync = sync
        self._last = -1  # the partition that was compared last
        self._due = 0.0  # how many are to be compared
        self._counted = core.clock.seconds()

    async def check(self) -> None:
        """Compare the next few partitions, and repair what this node lacks."""
        core = self._core
        compared: dict[Peer, list[_Newer]] = {}
        for acceptor in self._next():
            others = [
                peer
                for peer in acceptor.config.members
                if peer.instance != core.instance and core.usable(peer)
            ]
            if others:
                compared.setdefault(core.rng.choice(others), []).append(_Newer(acceptor))
        for peer, some in compared.items():
            await self._sync.pull(peer, [newer.want() for newer in some], Mode.MERGE)
        if any(newer.found for some in compared.values() for newer in some):
            await core.sleep(_UNDER_WAY)
        for peer, some in compared.items():
            for newer in some:
                self._repair(peer, newer)

    def _repair(self, peer: Peer, newer: _Newer) -> None:
        """Accept what is still lacking; where a promise forbids that, a write is under way."""
        core, acceptor = self._core, newer.acceptor
        config = acceptor.config
        if core.acceptors.get(config.partition) is not acceptor or acceptor.wedged:
            return
        lacking = 0
        for key, record in newer.found.items():
            mine = acceptor.get(key)
            if mine is None or mine.ballot < record.ballot:
                lacking += 1
                with suppress(NotPromised):
                    acceptor.accept(config.epoch, key, record)
        if lacking:
            core.found_differences += 1
            core.log.info(
                "The check found {records} in partition {partition} that {peer} had and this node "
                "had not.",
                records=count_of(lacking, "record"),
                partition=config.partition,
                peer=peer,
            )

    def _next(self) -> list[Acceptor]:
        """The partitions whose turn it is."""
        serving = {
            partition: acceptor
            for partition, acceptor in self._core.acceptors.items()
            if len(acceptor.config.members) > 1 and not acceptor.wedged
        }
        now = self._core.clock.seconds()
        due = self._due + len(serving) * (now - self._counted) / _ALL_IN
        self._counted = now
        turn = sorted(serving, key=lambda partition: (partition <= self._last, partition))
        turn = turn[: int(due)]
        self._due = min(due, len(serving)) - len(turn)
        self._last = turn[-1] if turn else self._last
        return [serving[partition] for partition in turn]


class _Newer:
    """Collects what a peer has in a higher version than an acceptor; changes nothing."""

    def __init__(self, acceptor: Acceptor) -> None:
        self.acceptor = acceptor
        self.found: dict[bytes, Record] = {}

    def want(self) -> Want:
        """All of the same epoch."""
        config = self.acceptor.config
        return Want(config.partition, config.epoch, Source.EPOCH, self)

    @property
    def records(self) -> Records:
        """What is here."""
        return self.acceptor.records

    def put(self, key: bytes, record: Record) -> None:
        """Note one."""
        self.found[key] = record

    def drop(self, key: bytes) -> None:
        """Never happens in a merge."""
        raise AssertionError("a merge drops nothing")
