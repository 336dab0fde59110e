"""One reconfiguration of some partitions together, phase by phase (floor 2).

Owns the driver's side: copy ahead, WEDGE, agree the next members *and* their base, OPEN.  The
driver is a member of all these groups.  Whatever of it is lost costs time: an epoch that has
stopped is driven on by another member, which finds the votes that were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..base import Peer
from ..table.acceptor import NotPromised
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Ballot, Config, quorum
from ..wire.messages import (
    Choose,
    Chosen,
    Declined,
    Done,
    Fetch,
    Open,
    Opened,
    Outbid,
    Prefetch,
    Ready,
    Reply,
    Request,
    Stopped,
    Wedge,
    Wedged,
    WrongEpoch,
)
from .bases import Bases, Move
from .core import Core
from .gather import gather
from .plans import Change
from .sync import Sync

__all__ = ["Drive"]

#: Seconds for copying ahead, while all is served.
_AHEAD = 30.0
#: Seconds that a member may take to stop, to vote and to open: nothing is served meanwhile.
_QUICK = 1.0
#: Seconds for fetching what differs from the base.
_FETCH = 5.0


class Drive:
    """Some partitions, driven once.

    :ivar refusals: why peers did not copy ahead.
    """

    def __init__(self, core: Core, sync: Sync, changes: Iterable[Change]) -> None:
        self._core = core
        self._bases = Bases(core, sync)
        self._moves = [Move(core, change) for change in changes]
        self.refusals: dict[Peer, str] = {}

    async def run(self) -> list[Config]:
        """Drive them; the configurations that a quorum of their members has opened."""
        ahead = await self._copy_ahead(self._moves)
        opened, failed = await self._attempt(ahead)
        if failed:  # the next members cannot take over: the present ones can
            for move in failed:
                move.wanted = move.config.members
            more, _ = await self._attempt(failed, again=True)
            opened += more
        return opened

    async def _attempt(
        self, moves: list[Move], *, again: bool = False
    ) -> tuple[list[Config], list[Move]]:
        """From WEDGE to OPEN: what is open, and what stopped for want of next members."""
        stopped = await self._wedge(moves, again=again)
        based = await self._bases.find(stopped, again=again)
        ready = await self._stage(based)
        decided = await self._choose(ready)
        opened = await self._open(decided)
        settled = set(ready)
        return opened, [m for m in stopped if m not in settled and m.current and not m.superseded]

    # -- asking

    async def _ask(
        self,
        moves: list[Move],
        members: Callable[[Move], Iterable[Peer]],
        request: Callable[[list[Move]], Request],
        heard: Callable[[Peer, list[Move], Reply | None], None],
        enough: Callable[[Move], bool],
        seconds: float,
    ) -> None:
        """Ask members of all these groups, each once, until there is enough for each group."""
        by_peer: dict[Peer, list[Move]] = {}
        for move in moves:
            for peer in members(move):
                if peer.instance != self._core.instance:
                    by_peer.setdefault(peer, []).append(move)
        await gather(
            self._core,
            {peer: request(some) for peer, some in by_peer.items()},
            lambda peer, reply: heard(peer, by_peer[peer], reply),
            lambda: all(map(enough, moves)),
            seconds,
        )
        await self._core.kept()  # what this node itself answered counts, too

    # -- 0: copy ahead

    async def _copy_ahead(self, moves: list[Move]) -> list[Move]:
        """Let those copy who come new; the moves whose next members can be had."""
        core = self._core
        lost: set[bytes] = set()
        stopped = {move for move in moves if move.acceptor.wedged}

        def heard(peer: Peer, some: list[Move], reply: Reply | None) -> None:
            if not isinstance(reply, Done):
                why = reply.reason if isinstance(reply, Declined) else "it does not answer"
                self.refusals[peer] = f"{peer} does not take over: {why}"
                lost.add(peer.instance)

        await self._ask(
            [move for move in moves if move not in stopped],
            lambda move: [peer for peer in move.wanted if not move.config.has(peer.instance)],
            lambda some: Prefetch(tuple((move.partition, move.epoch) for move in some)),
            heard,
            lambda move: False,
            _AHEAD,
        )
        kept = []
        for move in moves:
            members = sum(core.usable(peer) for peer in move.config.members)
            following = sum(core.usable(peer) and peer.instance not in lost for peer in move.wanted)
            possible = (
                members >= move.needed
                and following >= quorum(len(move.wanted))
                and not any(peer.instance in lost for peer in move.wanted)
                and not move.acceptor.wedged  # by another driver, while this one waited
            )
            if move.current and (move in stopped or possible):
                kept.append(move)
        return kept

    # -- 1: WEDGE

    async def _wedge(self, moves: list[Move], *, again: bool) -> list[Move]:
        """Stop the epochs at a quorum of their members."""
        core = self._core
        begun = []
        for move in moves:
            promised = move.acceptor.wedge_ballot
            staged = core.staged.get(move.partition)
            held = staged.ballot if staged is not None else None
            known = max(ballot.counter if ballot is not None else 0 for ballot in (promised, held))
            counter = core.ends.next(move.partition, move.epoch, known)
            move.ballot = Ballot(move.epoch, counter, core.proposer)
            move.stopped.clear()
            move.refused.clear()
            if move.current:
                vote = move.acceptor.wedge(move.epoch, move.ballot)
                told = move.acceptor.digests()
                move.stopped[core.instance] = Stopped(vote, told)
                begun.append(move)

        def heard(peer: Peer, some: list[Move], reply: Reply | None) -> None:
            parts = reply.parts if isinstance(reply, Wedged) else ()
            for place, move in enumerate(some):
                part = parts[place] if place < len(parts) else None
                if isinstance(part, Stopped):
                    move.stopped[peer.instance] = part
                    continue
                move.refused.add(peer.instance)
                if isinstance(part, Outbid):
                    core.ends.next(move.partition, move.epoch, part.ballot.counter)
                elif isinstance(part, WrongEpoch) and part.config is not None:
                    core.learn(part.config)

        def enough(move: Move) -> bool:
            heard_of = len(move.stopped) + len(move.refused)
            hopeless = len(move.config.members) - len(move.refused) < move.needed
            done = len(move.stopped) >= move.needed and not again
            return done or hopeless or heard_of == len(move.config.members)

        await self._ask(
            begun,
            lambda move: move.config.members,
            lambda some: Wedge(tuple((move.partition, move.ballot) for move in some)),
            heard,
            enough,
            _QUICK,
        )
        return [move for move in begun if move.current and len(move.stopped) >= move.needed]

    # -- 3: it is held by a quorum of the next members

    async def _stage(self, moves: list[Move]) -> list[Move]:
        """Let the next members fetch what they lack."""

        def held(move: Move) -> bool:
            return len(move.agreed) >= self._core.needed(move.next[1].config)

        def heard(peer: Peer, some: list[Move], reply: Reply | None) -> None:
            partitions = set(reply.partitions) if isinstance(reply, Ready) else set()
            for move in some:
                if move.partition in partitions:
                    move.agreed.add(peer.instance)

        self._begin(moves, lambda move: move.next[1].config.has(self._core.instance))
        await self._ask(
            moves,
            lambda move: move.next[1].config.members,
            lambda some: Fetch(tuple(move.next for move in some)),
            heard,
            held,
            _FETCH,
        )
        return [move for move in moves if held(move) and move.current]

    def _begin(self, moves: list[Move], mine: Callable[[Move], bool]) -> None:
        for move in moves:
            move.agreed = {self._core.instance} if mine(move) else set()

    # -- 4: ACCEPT of the epoch's Paxos

    async def _choose(self, moves: list[Move]) -> list[Move]:
        """Let the present members vote; what a quorum voted for is decided."""

        def vote(move: Move) -> bool:
            try:
                move.acceptor.choose(move.epoch, *move.next)
            except (NotPromised, EpochRefused):
                return False
            return True

        def heard(peer: Peer, some: list[Move], reply: Reply | None) -> None:
            partitions = set(reply.partitions) if isinstance(reply, Chosen) else set()
            for move in some:
                if move.partition in partitions:
                    move.agreed.add(peer.instance)

        def decided(move: Move) -> bool:
            return len(move.agreed) >= move.needed

        self._begin(moves, vote)
        voting = [move for move in moves if move.agreed]
        await self._ask(
            voting,
            lambda move: move.config.members,
            lambda some: Choose(tuple(move.next for move in some)),
            heard,
            decided,
            _QUICK,
        )
        return [move for move in voting if decided(move)]

    # -- 5: OPEN

    async def _open(self, moves: list[Move]) -> list[Config]:
        """Open what was decided; the configurations that a quorum of their members opened."""
        core = self._core

        def serve(move: Move) -> bool:
            _, successor = move.next
            staged = core.staged.get(move.partition)
            held = staged is not None and staged.successor == successor
            if held and move.current and successor.config.has(core.instance):
                core.serve(successor, core.staged[move.partition].records)
            acceptor = core.acceptors.get(move.partition)
            return acceptor is not None and acceptor.config == successor.config

        def heard(peer: Peer, some: list[Move], reply: Reply | None) -> None:
            partitions = set(reply.partitions) if isinstance(reply, Opened) else set()
            for move in some:
                if move.partition in partitions:
                    move.agreed.add(peer.instance)

        def all_open(move: Move) -> bool:
            members = move.next[1].config.members
            return all(peer.instance in move.agreed or not core.usable(peer) for peer in members)

        self._begin(moves, serve)
        await self._ask(
            moves,
            lambda move: move.next[1].config.members,
            lambda some: Open(tuple(move.next[1] for move in some)),
            heard,
            all_open,
            _QUICK,
        )
        opened = []
        for move in moves:
            config = move.next[1].config
            if len(move.agreed) >= core.needed(config):
                core.learn(config)
                core.release(config)
                opened.append(config)
        return opened
