"""What one node of the model keeps and answers (test support; pure).

Thin on purpose: the product's acceptor decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from py2p_twisted.base import Peer
from py2p_twisted.table.acceptor import Acceptor, NotPromised, WrongEpoch
from py2p_twisted.table.digest import base_of
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Epoch, Record, Successor

from .talk import Accepted, Ask, Held, Missing, Promised, Records, Refused, Stopped, Task, Wrong

if TYPE_CHECKING:
    from .world import World

__all__ = ["EPOCH", "STAGED", "Member", "Staged"]

#: Which of a member's records are meant: those of its acceptor, or those held for the next epoch.
EPOCH, STAGED = "epoch", "staged"


@dataclass(frozen=True)
class Staged:
    """Records held ready for the epoch after `epoch`.

    :ivar successor: whose base they are, which may have been decided; None: they are copied ahead.
    :ivar ballot: at which they were asked for.
    """

    epoch: Epoch
    records: Mapping[bytes, Record]
    successor: Successor | None = None
    ballot: Ballot | None = None


class Member:
    """One memory of one node.

    :ivar known: the newest configuration that it heard of.
    :ivar acceptor: what it serves, or served last.
    """

    acceptor_class = Acceptor
    forgets = False  # does a restart keep its instance?

    def __init__(self, world: World, peer: Peer) -> None:
        self.world = world
        self.peer = peer
        self.instance = peer.instance
        self.known: Config | None = None
        self.acceptor: Acceptor | None = None
        self.staged: Staged | None = None
        self.counter = 1
        self.stamp = 0

    def __repr__(self) -> str:
        return self.peer.host

    def answer(self, kind: str, args: tuple[Any, ...]) -> Any:
        """Answer a question; a generator if that takes time."""
        return getattr(self, "answer_" + kind)(*args)

    # -- clocks

    def hear(self, stamp: int) -> None:
        """A stamp was heard of."""
        self.stamp = max(self.stamp, stamp)

    def new_ballot(self, epoch: Epoch, heard: int = 0) -> Ballot:
        """A ballot of its own, above that counter."""
        self.counter = max(self.counter, heard) + 1
        return Ballot(epoch, self.counter, self.instance)

    # -- registers

    def serving(self, epoch: Epoch) -> Acceptor:
        """Its acceptor, if that serves this epoch.

        :raises WrongEpoch: if not (rule 1).
        """
        if self.acceptor is None:
            raise WrongEpoch(wedged=False)
        self.acceptor.check(epoch)
        return self.acceptor

    def answer_read(self, epoch: Epoch, key: bytes) -> Held | Wrong:
        """READ."""
        try:
            return Held(self.serving(epoch).read(epoch, key))
        except WrongEpoch:
            return Wrong(self.known)

    def answer_prepare(
        self, epoch: Epoch, key: bytes, ballot: Ballot
    ) -> Promised | Refused | Wrong:
        """PREPARE."""
        try:
            acceptor = self.serving(epoch)
            found = acceptor.prepare(epoch, ballot, key)
        except WrongEpoch:
            return Wrong(self.known)
        except NotPromised as refusal:
            return Refused(refusal.promised)
        return Promised(found, acceptor.purged, acceptor.stamp)

    def answer_accept(self, epoch: Epoch, key: bytes, record: Record) -> Accepted | Refused | Wrong:
        """ACCEPT."""
        try:
            acceptor = self.serving(epoch)
            acceptor.accept(epoch, key, record)
            self.world.accepted(key, record)
        except WrongEpoch:
            return Wrong(self.known)
        except NotPromised as refusal:
            return Refused(refusal.promised)
        self.hear(acceptor.stamp)
        return Accepted(acceptor.stamp)

    # -- configurations

    def answer_config(self) -> Config | None:
        """The newest configuration that it knows."""
        return self.known

    def answer_learn(self, config: Config | None) -> None:
        """There is a newer configuration."""
        self.learn(config)

    def learn(self, config: Config | None) -> None:
        """Take a configuration; what it takes from this node is given up."""
        if config is None or (self.known is not None and config.epoch <= self.known.epoch):
            return
        self.known = config
        mine = self.acceptor
        if mine is not None and mine.config.epoch < config.epoch:
            if mine.config.epoch.following() < config.epoch:
                self.acceptor = None
            elif not mine.wedged:  # it is kept with its vote, which tells what was agreed
                mine.wedge(mine.config.epoch, Ballot(mine.config.epoch, 0, b""))
        staged = self.staged
        if staged is not None and staged.epoch < config.epoch and not config.has(self.instance):
            self.staged = None

    # -- the end of an epoch

    def answer_wedge(self, epoch: Epoch, ballot: Ballot) -> Stopped | Refused | Wrong:
        """WEDGE."""
        acceptor = self.acceptor
        if acceptor is None:
            return Wrong(self.known)
        try:
            vote = acceptor.wedge(epoch, ballot)
        except WrongEpoch:
            return Wrong(self.known)
        except NotPromised as refusal:
            return Refused(refusal.promised)
        return Stopped(vote, acceptor.digests(4))

    def answer_choose(self, epoch: Epoch, ballot: Ballot, successor: Successor) -> bool:
        """ACCEPT of the epoch's own Paxos: did it vote for that?"""
        acceptor = self.acceptor
        if acceptor is None:
            return False
        try:
            acceptor.choose(epoch, ballot, successor)
        except (WrongEpoch, NotPromised):
            return False
        return True

    def answer_records(self, epoch: Epoch, source: str) -> Records | Missing:
        """All records of an epoch, or those held for the epoch after it."""
        if source == EPOCH:
            acceptor = self.acceptor
            if acceptor is not None and acceptor.config.epoch == epoch:
                return Records(dict(acceptor.records), acceptor.purged)
        else:
            staged = self.staged
            if staged is not None and staged.epoch == epoch and staged.successor is not None:
                return Records(dict(staged.records), staged.successor.purged)
        return Missing(self.known)

    # -- the beginning of the next one

    def hold(self, ballot: Ballot, successor: Successor, records: Mapping[bytes, Record]) -> bool:
        """Hold a base ready; one that may have been decided gives way to a higher ballot only."""
        if not self._outbids(ballot):
            return False
        self.staged = Staged(ballot.epoch, records, successor, ballot)
        return True

    def holds(self, successor: Successor) -> bool:
        """Does it hold exactly this base for that epoch?"""
        staged = self.staged
        return (
            staged is not None
            and staged.epoch.following() == successor.config.epoch
            and staged.successor is not None
            and staged.successor.base == successor.base
        )

    def _outbids(self, ballot: Ballot) -> bool:
        """Is no base held at a higher ballot, of this epoch or a later one?"""
        held = self.staged
        return held is None or held.ballot is None or held.ballot <= ballot

    def answer_prefetch(self, epoch: Epoch, giver: bytes) -> Task[None]:
        """Copy ahead what may be wanted; nothing that may have been decided gives way to that."""
        if not self._may_copy(epoch):
            return
        heard = yield Ask("records", (epoch, EPOCH), (giver,))
        if heard is not None and isinstance(heard[1], Records) and self._may_copy(epoch):
            self.staged = Staged(epoch, heard[1].records)

    def _may_copy(self, epoch: Epoch) -> bool:
        staged = self.staged
        if staged is None or staged.successor is None:
            return True
        known = self.known is not None and self.known.epoch > staged.epoch  # it was, or was not
        return staged.epoch < epoch and known

    def answer_fetch(self, ballot: Ballot, successor: Successor, giver: bytes) -> Task[bool]:
        """Hold this base ready: is it held?"""
        epoch = ballot.epoch
        if self.acceptor is not None and self.acceptor.config == successor.config:
            return True  # it is open already
        if self.holds(successor):
            assert self.staged is not None
            return self.hold(ballot, successor, self.staged.records)
        if not self._may_hold(ballot):
            return False
        heard = yield Ask("records", (epoch, STAGED), (giver,))
        if heard is None or not isinstance(heard[1], Records) or not self._may_hold(ballot):
            return False
        records = heard[1].records
        return self.is_base(records, successor) and self.hold(ballot, successor, records)

    def is_base(self, records: Mapping[bytes, Record], successor: Successor) -> bool:
        """Are these exactly the records of the base?"""
        return base_of(records.items()) == successor.base

    def _may_hold(self, ballot: Ballot) -> bool:
        """Has the epoch not ended here, and is no higher ballot's base held?"""
        if self.known is not None and self.known.epoch > ballot.epoch:
            return False
        return self._outbids(ballot)

    def answer_open(self, successor: Successor) -> bool:
        """OPEN: only with the agreed base (rule 8)."""
        config = successor.config
        if self.known is not None and self.known.epoch > config.epoch:
            return False
        if config.has(self.instance) and self.holds(successor):
            assert self.staged is not None
            self.open(config, self.staged.records, successor.purged)
        self.learn(config)
        return self.acceptor is not None and self.acceptor.config == config

    def open(self, config: Config, records: Mapping[bytes, Record], purged: Epoch) -> None:
        """Serve an epoch, each at most once (rule 4)."""
        mine = self.acceptor
        if self.known is not None and self.known.epoch > config.epoch:
            return
        if mine is not None and mine.config.epoch >= config.epoch:
            return
        self.serve(config, records, purged)

    def serve(self, config: Config, records: Mapping[bytes, Record], purged: Epoch) -> None:
        """Begin to serve an epoch."""
        self.world.opened(config)
        self.learn(config)
        self.drop_staged(config)
        self.acceptor = self.acceptor_class(config, records.items(), purged=purged)
        self.hear(self.acceptor.stamp)

    def drop_staged(self, config: Config) -> None:
        """What was held for this epoch is not needed any more; what is for the next one stays."""
        if self.staged is not None and self.staged.epoch < config.epoch:
            self.staged = None

    def found(self, members: tuple[Peer, ...]) -> None:
        """Be one of the founders: epoch 1 comes only from here (rule 10)."""
        config = Config(0, FIRST_EPOCH, members)
        self.known = config
        if config.has(self.instance):
            self.serve(config, {}, FIRST_EPOCH)
