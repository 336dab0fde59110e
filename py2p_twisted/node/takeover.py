"""Being a member of a next epoch (floor 2).

Owns what members answer to a driver: they copy ahead, stop, hold the base ready, vote, and open an
epoch once (rule 4), with the agreed base only (rule 8).  Who missed that catches up with a member
that has opened the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred

from ..base import Peer
from ..table.acceptor import NotPromised
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Ballot, Config, Epoch, Record, Successor
from ..table.records import Records
from ..wire.link import Link
from ..wire.messages import (
    Choose,
    Chosen,
    Declined,
    Done,
    Fetch,
    Learn,
    Open,
    Opened,
    Outbid,
    Prefetch,
    Ready,
    Reply,
    Source,
    Stopped,
    Wedge,
    Wedged,
    WrongEpoch,
)
from .core import Core, Phase, Staged
from .keeper import MOST_COUNTER
from .sync import Copy, Mode, Sync, Want

__all__ = ["Takeover"]

#: Seconds that records are kept that were copied ahead, and for which no base was asked.
_AHEAD_FOR = 60.0
#: Seconds after copying ahead in which the driver asks for the base, about.
_RELIED_ON = 2.0
#: Partitions that are caught up with in one go.
_MOST_AT_ONCE = 256
_RECORDS_AT_ONCE = 10_000  # about


class _Ahead(Copy):
    """What is copied ahead; once it is a base it stays as it is."""

    def __init__(self, core: Core, partition: int, staged: Staged) -> None:
        super().__init__(staged.records)
        self._staged = staged
        self._current = lambda: core.staged.get(partition) is staged

    def put(self, key: bytes, record: Record) -> None:
        """As :meth:`Copy.put`."""
        if self._current():
            super().put(key, record)

    def drop(self, key: bytes) -> None:
        """As :meth:`Copy.drop`."""
        if self._current():
            super().drop(key)


class Takeover:
    """Receives partitions, and the news of them."""

    def __init__(self, core: Core, sync: Sync) -> None:
        self._core = core
        self._sync = sync
        self._ahead: dict[int, float] = {}  # partition -> when it was copied ahead
        self._agreed: dict[int, Successor] = {}  # decided, and not open here

    # -- 0: copying ahead

    def answer_prefetch(self, link: Link, request: Prefetch) -> Reply | Deferred[Reply]:
        """A driver asks to copy partitions, while they are served elsewhere."""
        core = self._core
        if core.phase is not Phase.JOINED:
            return Declined(f"this node is {core.phase.value}")
        for partition, epoch in request.parts:
            if partition >= core.partitions:
                return Declined(f"there is no partition {partition}")
            known = core.directory.get(partition)
            if known is not None and known.epoch > epoch:
                return Declined(f"partition {partition} is in a later epoch")
        return Deferred.fromCoroutine(self._prefetch(link.peer, request))

    async def _prefetch(self, giver: Peer, request: Prefetch) -> Reply:
        core = self._core
        wants = []
        for partition, epoch in request.parts:
            staged = core.staged.get(partition)
            if staged is not None and self._keeps(partition, staged, epoch):
                continue  # a base is here; it may have been decided
            if staged is None or staged.epoch < epoch:
                records = staged.records.draft() if staged is not None else core.blank(partition)
                staged = Staged(epoch, records)
                core.hold(partition, staged)
            self._ahead[partition] = core.clock.seconds()
            wants.append(Want(partition, epoch, Source.EPOCH, _Ahead(core, partition, staged)))
        done = await self._sync.pull(giver, wants, Mode.MIRROR)
        if len(done) < len(wants):
            return Declined("the records could not be copied")
        return Done()

    def tidy(self) -> None:
        """Drop what was copied ahead in vain, and what is known to be over."""
        core = self._core
        late = core.clock.seconds() - _AHEAD_FOR
        for partition, since in list(self._ahead.items()):
            if since > late:
                continue
            del self._ahead[partition]
            staged = core.staged.get(partition)
            config = core.directory.get(partition)
            mine = config is not None and config.has(core.instance)
            if staged is not None and staged.successor is None and not mine:
                core.let_go(partition)
        behind = {config.partition: config for config in core.behind()} if self._agreed else {}
        for partition, successor in list(self._agreed.items()):
            if behind.get(partition) != successor.config:
                del self._agreed[partition]

    # -- 1: WEDGE

    def answer_wedge(self, request: Wedge) -> Reply:
        """A driver stops epochs."""
        if any(ballot.counter > MOST_COUNTER for _, ballot in request.parts):
            return Declined("a ballot counts too high")
        return Wedged(tuple(self._stopped(*part) for part in request.parts))

    def _stopped(self, partition: int, ballot: Ballot) -> Stopped | Outbid | WrongEpoch:
        acceptor = self._core.acceptors.get(partition)
        if acceptor is None:
            return WrongEpoch(self._core.directory.get(partition), False)
        try:
            vote = acceptor.wedge(ballot.epoch, ballot)
        except EpochRefused:
            return WrongEpoch(self._core.directory.get(partition), False)
        except NotPromised as refusal:
            return Outbid(refusal.promised)
        return Stopped(vote, acceptor.digests())

    # -- 3: holding a base ready

    def answer_fetch(self, link: Link, request: Fetch) -> Reply | Deferred[Reply]:
        """A driver asks to hold bases ready."""
        held, lacking = [], []
        for ballot, successor in request.parts:
            if not self._possible(ballot, successor):
                continue
            if self._held(ballot, successor):
                held.append(successor.config.partition)
            elif self._may_hold(ballot, successor):
                lacking.append((ballot, successor))
        phase = self._core.phase
        if not lacking:
            return Ready(tuple(held))
        if phase is not Phase.JOINED:
            reason = f"this node is {phase.value}"
            return Ready(tuple(held), reason) if held else Declined(reason)
        return Deferred.fromCoroutine(self._fetch(link.peer, held, lacking))

    def _possible(self, ballot: Ballot, successor: Successor) -> bool:
        core, config = self._core, successor.config
        newest = core.directory.get(config.partition)
        if newest is not None and newest.epoch >= config.epoch and newest != config:
            return False  # that epoch was decided otherwise, or is over
        return (
            config.partition < core.partitions
            and config.has(core.instance)
            and config.epoch == ballot.epoch.following()
            and core.valid(*config.members)
        )

    def _may_hold(self, ballot: Ballot, successor: Successor) -> bool:
        """May this base take the place of what is here?"""
        core, config = self._core, successor.config
        acceptor = core.acceptors.get(config.partition)
        if acceptor is not None and acceptor.config.epoch >= config.epoch:
            return False  # each epoch is opened once
        staged = core.staged.get(config.partition)
        if staged is None or staged.successor is None:
            return True
        if staged.epoch != ballot.epoch:
            passed = self._passed(config.partition, staged.epoch)
            return staged.epoch < ballot.epoch and passed
        assert staged.ballot is not None
        return staged.ballot < ballot or staged.successor == successor

    def _keeps(self, partition: int, staged: Staged, epoch: Epoch) -> bool:
        """Is this a base that must not give way to records of that epoch?"""
        passed = staged.epoch < epoch and self._passed(partition, staged.epoch)
        return staged.successor is not None and not passed

    def _passed(self, partition: int, epoch: Epoch) -> bool:
        """Is a later epoch known?  Then what was held ready after this one is decided and open."""
        known = self._core.directory.get(partition)
        return known is not None and known.epoch > epoch

    def _held(self, ballot: Ballot, successor: Successor) -> bool:
        """Is the base here, or the epoch open already?  Holds it ready for this ballot."""
        core, config = self._core, successor.config
        acceptor = core.acceptors.get(config.partition)
        if acceptor is not None and acceptor.config.epoch >= config.epoch:
            return acceptor.config == config
        if not self._may_hold(ballot, successor):
            return False
        staged = core.staged.get(config.partition)
        here = staged is not None and staged.epoch == ballot.epoch
        if staged is not None and here and successor.base == (staged.base or staged.records.base()):
            return self._hold(ballot, successor, staged.records)
        if acceptor is not None and acceptor.config.epoch == ballot.epoch:
            live = acceptor.records.live_draft()
            if live.base() == successor.base:
                return self._hold(ballot, successor, live)
        return False

    def _hold(self, ballot: Ballot, successor: Successor, records: Records) -> bool:
        """Keep a base ready; open it if it is known to be decided."""
        partition = successor.config.partition
        staged = self._core.staged.get(partition)
        if staged is not None and staged.ballot is not None and staged.epoch == ballot.epoch:
            ballot = max(ballot, staged.ballot)
        self._core.hold(partition, Staged(ballot.epoch, records, successor, ballot))
        if self._agreed.get(partition) == successor:
            self._open(successor)
        return True

    async def _fetch(
        self, giver: Peer, held: list[int], lacking: list[tuple[Ballot, Successor]]
    ) -> Reply:
        copies: dict[Want, tuple[Ballot, Successor, Records]] = {}
        for ballot, successor in lacking:
            partition = successor.config.partition
            records = self._beginning(partition)
            want = Want(partition, ballot.epoch, Source.STAGED, Copy(records), base=successor.base)
            copies[want] = (ballot, successor, records)
        for want in await self._sync.pull(giver, copies, Mode.MIRROR):
            ballot, successor, records = copies[want]
            if records.base() != successor.base:
                continue
            if self._may_hold(ballot, successor) and self._hold(ballot, successor, records):
                held.append(successor.config.partition)
        return Ready(tuple(held))

    def _beginning(self, partition: int) -> Records:
        """What is here that may be nearly the same already."""
        acceptor = self._core.acceptors.get(partition)
        staged = self._core.staged.get(partition)
        if staged is not None and (acceptor is None or acceptor.config.epoch <= staged.epoch):
            return staged.records.draft()
        return (
            acceptor.records.live_draft() if acceptor is not None else self._core.blank(partition)
        )

    @property
    def promised(self) -> bool:
        """Does this node hold bases that may have been decided, and are to be opened here?

        Whoever lets go of one could make others believe that nothing was decided.  What was copied
        ahead a moment ago counts, too: a driver relies on this node.
        """
        core = self._core
        lately = core.clock.seconds() - _RELIED_ON
        if any(since > lately and part in core.staged for part, since in self._ahead.items()):
            return True
        for partition, staged in core.staged.items():
            successor = staged.successor
            if successor is not None and successor.config.has(core.instance):
                newest = core.directory.get(partition)
                if newest is None or newest.epoch <= successor.config.epoch:
                    return True
        return False

    # -- 4 and 5: the vote, and OPEN

    def answer_choose(self, request: Choose) -> Reply:
        """A driver asks for votes."""
        return Chosen(
            tuple(
                successor.config.partition
                for ballot, successor in request.parts
                if self._voted(ballot, successor)
            )
        )

    def _voted(self, ballot: Ballot, successor: Successor) -> bool:
        acceptor = self._core.acceptors.get(successor.config.partition)
        if acceptor is None:
            return False
        try:
            acceptor.choose(ballot.epoch, ballot, successor)
        except (EpochRefused, NotPromised):
            return False
        return True

    def answer_open(self, request: Open) -> Reply:
        """Epochs were decided: open those whose base is here."""
        return Opened(
            tuple(
                successor.config.partition
                for successor in request.successors
                if self._opened(successor)
            )
        )

    def _opened(self, successor: Successor) -> bool:
        core, config = self._core, successor.config
        if not core.member or not config.has(core.instance):
            return False
        if self._open(successor):
            return True
        if core.learn(config) or core.directory.get(config.partition) == config:
            self._agreed[config.partition] = successor
        return False

    def _open(self, successor: Successor) -> bool:
        """Open an epoch with its base, if that is here and the epoch was not opened before."""
        core, config = self._core, successor.config
        acceptor = core.acceptors.get(config.partition)
        if acceptor is not None and acceptor.config.epoch >= config.epoch:
            return acceptor.config == config
        staged = core.staged.get(config.partition)
        known = core.directory.get(config.partition)
        if known is not None and known.epoch > config.epoch:
            return False
        if staged is None or staged.successor != successor:
            return False
        core.serve(successor, staged.records)
        self._agreed.pop(config.partition, None)
        return True

    def answer_learn(self, request: Learn) -> Reply:
        """A peer tells which epochs are open."""
        for config in request.configs:
            self._core.learn(config)
            self._core.release(config)
        return Done()

    # -- catching up

    async def catch_up(self) -> None:
        """Open what this node is a member of, and has not opened, with what another member has."""
        for successor in list(self._agreed.values()):
            self._open(successor)
        tried: dict[int, set[bytes]] = {}
        while True:
            by_peer: dict[Peer, list[Config]] = {}
            for config in self._core.behind():
                peer = self._next_peer(config, tried.setdefault(config.partition, set()))
                if peer is not None:
                    by_peer.setdefault(peer, []).append(config)
            if not by_peer:
                break
            for peer, configs in by_peer.items():
                at_once = self._at_once(configs)
                for place in range(0, len(configs), at_once):
                    await self._catch_up_with(peer, configs[place : place + at_once])

    def _at_once(self, configs: Sequence[Config]) -> int:
        """How many of these are copied together: what differs is in memory meanwhile."""
        mine = [self._core.acceptors.get(config.partition) for config in configs]
        records = sum(len(acceptor) for acceptor in mine if acceptor is not None)
        return max(1, min(_MOST_AT_ONCE, _RECORDS_AT_ONCE * len(configs) // (records + 1)))

    def _next_peer(self, config: Config, tried: set[bytes]) -> Peer | None:
        """A member that was not asked yet and can be."""
        core = self._core
        for peer in config.members:
            if peer.instance not in tried and peer.instance != core.instance and core.usable(peer):
                tried.add(peer.instance)
                return peer
        return None

    async def _catch_up_with(self, peer: Peer, configs: Iterable[Config]) -> None:
        core = self._core
        copies: dict[Want, tuple[Config, Records]] = {}
        for config in configs:
            records = self._beginning(config.partition)
            want = Want(config.partition, config.epoch, Source.EPOCH, Copy(records))
            copies[want] = (config, records)
        for want in await self._sync.pull(peer, copies, Mode.MIRROR):
            config, records = copies[want]
            mine = core.acceptors.get(config.partition)
            newest = core.directory.get(config.partition)
            if newest != config or (mine is not None and mine.config.epoch >= config.epoch):
                continue
            assert want.purged is not None
            core.serve(Successor(config, records.base(), want.purged), records)
