"""How a group of the model gets its next epoch (test support; pure): design section 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py2p_twisted.base import Peer
from py2p_twisted.table.acceptor import Acceptor
from py2p_twisted.table.digest import base_of
from py2p_twisted.table.group import Ballot, Config, Epoch, Record, Successor

from .clients import Client
from .member import EPOCH, STAGED
from .talk import Ask, Missing, Records, Stopped, Task, Wrong

__all__ = ["Mover"]

#: The next members and their base, with the base itself.
Decision = tuple[Successor, Mapping[bytes, Record]]


class Mover(Client):
    """A node that drives epochs, and catches up with them."""

    def drive(self, wanted: tuple[Peer, ...]) -> Task[None]:
        """Give its group a next epoch, with these members unless others were voted for."""
        acceptor = self.acceptor
        if acceptor is None:
            return
        config, epoch = acceptor.config, acceptor.config.epoch
        if self.world.maybe(0.3):
            new = [peer.instance for peer in wanted if not config.has(peer.instance)]
            self.world.tell(Ask("prefetch", (epoch, self.instance), new))
        promised = acceptor.wedge_ballot
        heard = promised.counter if promised is not None else 0
        ballot = self.new_ballot(epoch, heard)
        stopped = yield from self.wedge(config, ballot)
        if stopped is None:
            return
        decision = yield from self.decide(acceptor, stopped, wanted)
        if decision is None or self.acceptor is not acceptor:
            return
        successor, records = decision
        if not (yield from self.stage(ballot, successor, records)):
            return
        if not (yield from self.choose(config, ballot, successor)):
            return
        self.publish(successor)

    def needed(self, config: Config) -> int:
        """How many members decide; of two, one, if the memory of the other is proven gone."""
        others = [peer for peer in config.members if peer.instance != self.instance]
        if len(others) == 1 and self.world.replaced(others[0].instance):
            return 1
        return config.quorum

    def gather(self, ask: Ask, got: dict[bytes, Any], good: Any, needed: int) -> Task[bool]:
        """Ask members, each once, until so many gave a good answer; `got` has those."""
        heard = 0
        if len(got) >= needed:
            self.world.tell(ask)  # the others are to know as well
            return True
        reply = yield ask
        while reply is not None:
            instance, answer = reply
            heard += 1
            if good(answer):
                got[instance] = answer
            elif isinstance(answer, (Wrong, Missing)):
                self.learn(answer.config)
            if len(got) >= needed:
                return True
            if heard == len(ask.to):
                return False
            reply = yield None
        return False

    def others(self, config: Config) -> list[bytes]:
        """The other members."""
        return [peer.instance for peer in config.members if peer.instance != self.instance]

    # -- 1: WEDGE

    def wedge(self, config: Config, ballot: Ballot) -> Task[dict[bytes, Stopped] | None]:
        """Stop the epoch at a quorum (rule 2); what those said, or None."""
        own = self.answer_wedge(config.epoch, ballot)
        if not isinstance(own, Stopped):
            return None
        stopped = {self.instance: own}
        ask = Ask("wedge", (config.epoch, ballot), self.others(config))
        needed = self.needed(config)
        wanted = len(config.members) if self.world.maybe(0.2) else needed
        yield from self.gather(ask, stopped, lambda answer: isinstance(answer, Stopped), wanted)
        return stopped if len(stopped) >= needed else None

    # -- 2: the base

    def decide(
        self, acceptor: Acceptor, stopped: dict[bytes, Stopped], wanted: tuple[Peer, ...]
    ) -> Task[Decision | None]:
        """What is to follow: what was voted for at the highest ballot, or what this node likes."""
        votes = [one.vote for one in stopped.values() if one.vote is not None]
        _, successor = max(votes, key=lambda vote: vote[0], default=(None, None))
        if successor is not None and not self.void(acceptor.config, stopped, successor):
            records, free = yield from self.find_base(acceptor.config.epoch, successor)
            if records is not None:
                return successor, records
            if not free:
                return None
        merged = yield from self.merge(acceptor, stopped)
        if merged is None:
            return None
        return self.propose_base(acceptor, merged, wanted)

    def void(self, config: Config, stopped: dict[bytes, Stopped], successor: Successor) -> bool:
        """Did too few members vote for it for it to be chosen, ever?

        Had a quorum done so at some ballot, no vote at a later one would be for anything else.
        """
        others = sum(one.vote is None or one.vote[1] != successor for one in stopped.values())
        return others > len(config.members) - self.needed(config)

    def propose_base(
        self, acceptor: Acceptor, merged: dict[bytes, Record], wanted: tuple[Peer, ...]
    ) -> Decision:
        """The next epoch with these records; tombstones go here, and only here (rule 11)."""
        following = acceptor.config.epoch.following()
        records = {key: record for key, record in merged.items() if record.value is not None}
        purged = following if len(records) < len(merged) else acceptor.purged
        config = Config(acceptor.config.partition, following, wanted)
        return Successor(config, base_of(records.items()), purged), records

    def merge(
        self, acceptor: Acceptor, stopped: dict[bytes, Stopped]
    ) -> Task[dict[bytes, Record] | None]:
        """Of each key the highest ballot among those who stopped: a quorum (rule 3)."""
        merged = dict(acceptor.records)
        mine = stopped[self.instance].digests
        for instance, one in stopped.items():
            if instance == self.instance or one.digests == mine:
                continue
            reply = yield Ask("records", (acceptor.config.epoch, EPOCH), (instance,))
            if reply is None or not isinstance(reply[1], Records):
                return None
            for key, record in reply[1].records.items():
                old = merged.get(key)
                if old is None or old.ballot < record.ballot:
                    merged[key] = record
        return merged

    def find_base(
        self, epoch: Epoch, successor: Successor
    ) -> Task[tuple[Mapping[bytes, Record] | None, bool]]:
        """The base of what was voted for, from whoever holds it.

        The second is true if it cannot have been chosen: then so many of its members do not hold
        it, and know of no later epoch, that a quorum of them never did.
        """
        if self.holds(successor):
            assert self.staged is not None
            return self.staged.records, False
        config = successor.config
        without = int(config.has(self.instance))
        others = self.world.shuffled(self.others(config))
        if not others:
            return None, without > 0
        reply = yield Ask("records", (epoch, STAGED), others)
        heard = 0
        while reply is not None:
            heard += 1
            answer = reply[1]
            if isinstance(answer, Records):
                if base_of(answer.records.items()) == successor.base:
                    return answer.records, False
                without += 1
            else:
                without += self.lacks(answer, epoch)
            if without > len(config.members) - config.quorum:
                return None, True
            if heard == len(others):
                break
            reply = yield None
        return None, False

    def lacks(self, answer: Missing, epoch: Epoch) -> bool:
        """Does this answer prove that its sender never held the base?"""
        if answer.config is not None and answer.config.epoch > epoch:
            self.learn(answer.config)  # it may have opened with it, and gone on
            return False
        return True

    # -- 3: a quorum of the next members holds it

    def stage(
        self, ballot: Ballot, successor: Successor, records: Mapping[bytes, Record]
    ) -> Task[bool]:
        """Have the base held by a quorum of the next members."""
        if not self.hold(ballot, successor, records):
            return False
        config = successor.config
        ready: dict[bytes, Any] = {self.instance: True} if config.has(self.instance) else {}
        ask = Ask("fetch", (ballot, successor, self.instance), self.others(config))
        return (yield from self.gather(ask, ready, lambda answer: answer is True, config.quorum))

    # -- 4: ACCEPT of the epoch's own Paxos

    def choose(self, config: Config, ballot: Ballot, successor: Successor) -> Task[bool]:
        """Have it voted for by a quorum of the present members (rule 5)."""
        if not self.answer_choose(config.epoch, ballot, successor):
            return False
        agreed: dict[bytes, Any] = {self.instance: True}
        ask = Ask("choose", (config.epoch, ballot, successor), self.others(config))
        needed = self.needed(config)
        return (yield from self.gather(ask, agreed, lambda answer: answer is True, needed))

    # -- 5: OPEN

    def publish(self, successor: Successor) -> None:
        """It is decided: tell those who are to open, and a few others."""
        world, config = self.world, successor.config
        world.decided(successor)
        world.tell(Ask("open", (successor,), self.others(config)))
        self.answer_open(successor)
        some = [one for one in world.nodes if not config.has(one) and world.maybe(0.4)]
        world.tell(Ask("learn", (config,), some))

    # -- in the background

    def repair(self) -> Task[None]:
        """Take over what another member has in a higher version."""
        acceptor = self.acceptor
        if acceptor is None or acceptor.wedged or len(acceptor.config.members) == 1:
            return
        epoch = acceptor.config.epoch
        source = self.world.choice(self.others(acceptor.config))
        reply = yield Ask("records", (epoch, EPOCH), (source,))
        if reply is not None and isinstance(reply[1], Records):
            for key, record in reply[1].records.items():
                if record.ballot.epoch == epoch:
                    self.answer_accept(epoch, key, record)

    # -- late

    @property
    def behind(self) -> bool:
        """Is it a member of an epoch that it has not opened?"""
        mine, known = self.acceptor, self.known
        return (
            known is not None
            and known.has(self.instance)
            and (mine is None or mine.config.epoch < known.epoch)
        )

    def catch_up(self, source: bytes | None = None) -> Task[None]:
        """Open an epoch late, with what a member has that serves it."""
        config = self.known
        if config is None or len(config.members) == 1:
            return
        source = source or self.world.choice(self.others(config))
        reply = yield Ask("records", (config.epoch, EPOCH), (source,))
        if reply is None:
            return
        if isinstance(reply[1], Records):
            self.open(config, reply[1].records, reply[1].purged)
        elif isinstance(reply[1], Missing):
            self.learn(reply[1].config)
