"""With which records the next epochs begin (floor 2): phase 2 of a drive.

Owns the choice between what was voted for and something new, and the making of a base: for every
key the highest ballot over a quorum that has stopped (rule 3), without tombstones (rule 11).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults

from ..base import Peer
from ..table.group import Ballot, Base, Config, Successor, quorum
from ..table.records import Records
from ..wire.messages import Configs, GetConfig, Source, Stopped
from .core import Core, Staged
from .plans import Change
from .sync import Copy, Mode, Sync, Want

__all__ = ["Bases", "Move"]


class Move:
    """One partition on its way to its next epoch.

    :ivar wanted: the next members, unless others were voted for.
    :ivar needed: how many of the present members decide.
    :ivar ballot: of this attempt.
    :ivar stopped: what those members said who stopped, by instance.
    :ivar refused: members that did not stop, or not for this ballot.
    :ivar successor: what is proposed.
    :ivar agreed: members that said yes in the phase that is under way.
    """

    def __init__(self, core: Core, change: Change) -> None:
        self._core = core
        self.acceptor = change.acceptor
        self.config = change.acceptor.config
        self.partition = self.config.partition
        self.epoch = self.config.epoch
        self.wanted = change.members
        self.ballot = Ballot(self.epoch, 0, b"")
        self.stopped: dict[bytes, Stopped] = {}
        self.refused: set[bytes] = set()
        self.successor: Successor | None = None
        self.agreed: set[bytes] = set()

    @property
    def current(self) -> bool:
        """Is it this partition's epoch still?"""
        return self._core.acceptors.get(self.partition) is self.acceptor

    @property
    def superseded(self) -> bool:
        """Is a next epoch known, which somebody has opened?"""
        newest = self._core.directory.get(self.partition)
        return newest is not None and newest.epoch > self.epoch

    @property
    def next(self) -> tuple[Ballot, Successor]:
        """What is proposed, and at which ballot."""
        assert self.successor is not None
        return self.ballot, self.successor

    @property
    def needed(self) -> int:
        """How many of the present members decide."""
        return self._core.needed(self.config)


class Bases:
    """Finds what follows."""

    def __init__(self, core: Core, sync: Sync) -> None:
        self._core = core
        self._sync = sync

    async def find(self, moves: Iterable[Move], *, again: bool) -> list[Move]:
        """Give each a successor whose base is held here; those that have one.

        The highest vote of those who stopped wins.  Without a vote it is the wanted members, with
        the records of a quorum.

        :param again: the first attempt failed: see whether a vote that is in the way is void.
        """
        fresh, voted = [], []
        for move in moves:
            votes = [stopped.vote for stopped in move.stopped.values() if stopped.vote]
            highest = max(votes, key=lambda vote: vote[0], default=None)
            if highest is None or (again and self._not_chosen(move, highest[1])):
                move.successor = None
                fresh.append(move)
            else:
                move.successor = highest[1]
                voted.append(move)
        found = await self._all([self._find_voted(move) for move in voted])
        based = [move for move, held in zip(voted, found, strict=True) if held]
        fresh += [move for move in voted if move.successor is None]
        return based + await self._merge(fresh)

    async def _all(self, coroutines: Iterable[Any]) -> list[bool]:
        waiting = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
        try:
            return list(await gatherResults(waiting, consumeErrors=True))
        except FirstError as error:
            error.subFailure.raiseException()

    # -- what was voted for

    @staticmethod
    def _not_chosen(move: Move, successor: Successor) -> bool:
        """Did too few members vote for it for ever having been chosen?

        Had a quorum voted for it at some ballot, no vote at a later one would be for another.
        """
        against = sum(
            stopped.vote is None or stopped.vote[1] != successor
            for stopped in move.stopped.values()
        )
        return against > len(move.config.members) - move.needed

    async def _find_voted(self, move: Move) -> bool:
        """Get the base that was voted for; forgets the vote if it cannot have been chosen.

        It can have been chosen only if a quorum of its members held the base before, and those
        keep it until they open with it.
        """
        core, successor = self._core, move.successor
        assert successor is not None
        if self._here(move, successor.base):
            return True
        lacking = 0
        for peer in successor.config.members:
            if peer.instance == core.instance:
                lacking += 1
                continue
            copy = Copy(move.acceptor.records.live_draft())
            want = Want(move.partition, move.epoch, Source.STAGED, copy, base=successor.base)
            if await self._sync.pull(peer, [want], Mode.MIRROR):
                if copy.records.base() == successor.base:
                    return self._keep(move, copy.records)
            elif want.missing:  # it may have opened the epoch, and then has it no more
                reply = await core.try_ask(peer, GetConfig(move.partition), Configs)
                for config in reply.configs if reply is not None else ():
                    core.learn(config)
                lacking += reply is not None
        members = len(successor.config.members)
        if not move.superseded and lacking > members - quorum(members):
            move.successor = None
        return False

    def _here(self, move: Move, base: Base) -> bool:
        """Hold the base ready if its records are here."""
        staged = self._core.staged.get(move.partition)
        if staged is not None and staged.epoch == move.epoch and staged.base == base:
            return self._keep(move, staged.records)
        acceptor = move.acceptor
        if len(acceptor) - acceptor.tombstones != base.records:
            return False
        live = acceptor.records.live_draft()
        return live.base() == base and self._keep(move, live)

    # -- something new

    async def _merge(self, moves: list[Move]) -> list[Move]:
        """Make bases, of the records of a quorum."""
        pulls: dict[Peer, list[tuple[Move, Want]]] = {}
        copies: dict[Move, Copy] = {}
        have: dict[Move, int] = {}
        for move in moves:
            have[move], differing = self._compared(move)
            for peer, theirs in differing[: max(0, move.needed - have[move])]:
                copy = copies.setdefault(move, Copy(move.acceptor.records.draft()))
                want = Want(move.partition, move.epoch, Source.EPOCH, copy, theirs=theirs)
                pulls.setdefault(peer, []).append((move, want))

        async def pull(peer: Peer, wants: list[tuple[Move, Want]]) -> bool:
            done = set(await self._sync.pull(peer, [want for _, want in wants], Mode.MERGE))
            for move, want in wants:
                have[move] += want in done
            return True

        await self._all([pull(peer, wants) for peer, wants in pulls.items()])
        return [
            move
            for move in moves
            if have[move] >= move.needed and move.current and self._make(move, copies.get(move))
        ]

    def _compared(self, move: Move) -> tuple[int, list[tuple[Peer, bytes]]]:
        """How many have the records that are here, and the others with their digests."""
        told = move.stopped[self._core.instance].digests
        equal, differing = 1, []
        for peer in move.config.members:
            stopped = move.stopped.get(peer.instance)
            if stopped is None or peer.instance == self._core.instance:
                continue
            if stopped.digests == told:
                equal += 1
            else:
                differing.append((peer, stopped.digests))
        return equal, differing

    def _make(self, move: Move, copy: Copy | None) -> bool:
        acceptor = move.acceptor
        records = copy.records if copy is not None else acceptor.records
        live = records.live_draft()
        config = Config(move.partition, move.epoch.following(), move.wanted)
        purged = config.epoch if records.tombstones else acceptor.purged
        move.successor = Successor(config, live.base(), purged)
        return self._keep(move, live)

    def _keep(self, move: Move, records: Records) -> bool:
        """Hold a base ready, unless another one is held at a higher ballot."""
        held = self._core.staged.get(move.partition)
        if held is not None and held.ballot is not None and held.ballot > move.ballot:
            return False
        ballot, successor = move.next
        self._core.hold(move.partition, Staged(move.epoch, records, successor, ballot))
        return True
