"""A look, in the background, whether the members of a group keep the same (floor 2).

Owns two of them.  With a member to which there is a new connection all common partitions are
compared at once: who was away, or was cut off, has missed writes.  And all partitions are compared
slowly, for ever: what that finds was lost on the way; it is counted and logged.  Nothing depends on
either: a write reaches a quorum, and a read asks one.
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
#: Records that are compared with a member in one go, unless one partition has more.
_RECORDS_AT_ONCE = 10_000


class Checker:
    """Compares the partitions of this node with other members', some in each round."""

    def __init__(self, core: Core, sync: Sync) -> None:
        self._core = core
        self._sync = sync
        self._last = -1  # the partition that was compared last
        self._due = 0.0  # how many are to be compared
        self._counted = core.clock.seconds()
        #: partitions that are to be compared at once, with which instances
        self._missed: dict[int, set[bytes]] = {}

    # -- at once

    def connected(self, instance: bytes) -> None:
        """There is a new connection to it: what was written before that may be missing here."""
        for partition, acceptor in self._core.acceptors.items():
            if acceptor.config.has(instance):
                self._missed.setdefault(partition, set()).add(instance)
        self._tell()

    async def catch_up(self) -> None:
        """Compare with the members that came back, and take what this node lacks."""
        core = self._core
        caught = 0
        while self._missed:
            peer, some = self._next_missed()
            wants = [_Newer(acceptor) for acceptor in some]
            if peer is not None and wants:
                await self._sync.pull(peer, [newer.want() for newer in wants], Mode.MERGE)
            caught += sum(map(self._accept, wants))
            self._tell()
        if caught:
            core.log.info(
                "Caught up: {records} that this node had missed.",
                records=count_of(caught, "record"),
            )

    def _tell(self) -> None:
        self._core.catching_up = len(self._missed)

    def _next_missed(self) -> tuple[Peer | None, list[Acceptor]]:
        """A member, and some partitions that are compared with it now; they are due no more.

        If that fails, its connection is lost or it is busy: the former brings them here again, the
        latter leaves them to the slow look.
        """
        core = self._core
        instance = next(iter(next(iter(self._missed.values()))))
        member: Peer | None = None
        some: list[Acceptor] = []
        records = 0
        for partition, instances in list(self._missed.items()):
            if instance not in instances:
                continue
            acceptor = core.acceptors.get(partition)
            records += len(acceptor.records) if acceptor is not None else 0
            if some and records > _RECORDS_AT_ONCE:
                break
            instances.discard(instance)
            if not instances:
                del self._missed[partition]
            if acceptor is None or acceptor.wedged:
                continue
            there = [peer for peer in acceptor.config.members if peer.instance == instance]
            if there and core.usable(there[0]):
                member = there[0]
                some.append(acceptor)
        return member, some

    # -- slowly

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
        """Take what is still lacking, and say so."""
        lacking = self._accept(newer)
        if lacking:
            core = self._core
            core.found_differences += 1
            core.log.info(
                "The check found {records} in partition {partition} that {peer} had and this node "
                "had not.",
                records=count_of(lacking, "record"),
                partition=newer.acceptor.config.partition,
                peer=peer,
            )

    def _accept(self, newer: _Newer) -> int:
        """Accept what is lacking; how much that is.

        Where a promise forbids it, a write is under way.
        """
        acceptor = newer.acceptor
        config = acceptor.config
        if self._core.acceptors.get(config.partition) is not acceptor or acceptor.wedged:
            return 0
        lacking = 0
        for key, record in newer.found.items():
            mine = acceptor.get(key)
            if mine is None or mine.ballot < record.ballot:
                lacking += 1
                with suppress(NotPromised):
                    acceptor.accept(config.epoch, key, record)
        return lacking

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
