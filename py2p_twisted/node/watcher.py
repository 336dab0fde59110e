"""One watch, from the side of who watches (floor 2).

Owns whom it listens to: it subscribes to all members of the groups that keep what is watched,
renews that, and begins anew where an epoch, a member or a connection is another one.  What is
chosen of all that they tell stands in :class:`~py2p_twisted.table.witness.Witness`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from ..base import Peer
from ..errors import ChordError, WatchTooWide
from ..table.candidate import Budget
from ..table.group import Config
from ..table.history import history_of
from ..table.witness import Witness
from ..wire.complaints import printable
from ..wire.messages import Changed, Declined, Told, Unwatch, Watch, Watched, WatchPart
from .core import USER, Core
from .inbox import Inbox
from .source import MOST_RETRY, RETRY, Source

__all__ = ["Watcher"]

#: Seconds after which a subscription is renewed.
_RENEW = 5.0
#: Partitions in one request.
_MOST_PARTS = 1024


class Watcher:
    """One watch of this node's user.

    :param key: a table key.
    :param prefix: watch all keys that begin with it?
    :param initial: tell what is there at the beginning, too.
    :param send: sends a request to a peer; its last argument hears the reply, or a Failure.
    :param enter: makes a source known; returns its number.
    :ivar inbox: where the user takes events.
    """

    log = Logger()

    def __init__(
        self,
        core: Core,
        key: bytes,
        send: Callable[[Peer, Any, Callable[[Any], None]], None],
        enter: Callable[[Watcher, bytes], int],
        *,
        prefix: bool,
        initial: bool,
    ) -> None:
        settings = core.settings
        self._core = core
        self._key = key
        self._prefix = prefix
        self._send = send
        self._enter = enter
        self._ring = core.ring_id
        self._keys = 0  # that are known
        self._reporters: dict[int, bytes] = {}
        self._complained = False
        self.sources: dict[bytes, Source] = {}
        self.inbox = Inbox(core.clock, settings.watch_events, settings.watch_bytes)
        budget = Budget(settings.watch_bytes)
        self.witnesses = {
            partition: core.make_witness(self.inbox.put, budget, prefix=len(USER), initial=initial)
            for partition in (range(core.partitions) if prefix else (core.partition(key),))
        }
        self.uncovered = set(self.witnesses)
        self.lagging: set[int] = set()  # partitions that should be covered for long
        self._uncovered_before: set[int] = set()
        self.busy: set[int] = set()  # partitions in which something is missing

    def close(self, error: ChordError | None = None) -> None:
        """No member is listened to any more."""
        if self.inbox.ended:
            return
        self.inbox.end(error)
        for source in self.sources.values():
            self._send_end(source)
        self.forget()

    def forget(self) -> None:
        """Nothing of it is needed any more."""
        self.sources.clear()
        self.busy.clear()
        for witness in self.witnesses.values():
            witness.forget()

    # -- whom to listen to

    def look(self) -> None:
        """Follow all groups, and see to it that somebody reports of each; once in a while."""
        core = self._core
        anew = bool(self._ring) and core.ring_id not in (b"", self._ring)
        self._ring = core.ring_id or self._ring
        reporting = {
            instance
            for instance in {*self._reporters.values()}
            if instance in self.sources and self._may_report(self.sources[instance].peer)
        }
        lagging = set()
        for partition, witness in self.witnesses.items():
            config = core.directory.get(partition)
            if config is None:
                self._uncovered_before.add(partition)
            else:
                self.follow(config, anew=anew)
                if self._reporters.get(partition) not in reporting:
                    self._choose_reporter(partition, config)
                if partition in self.uncovered:
                    self._listen(partition, config)
            if partition in self.uncovered:
                if witness.settled:
                    self._covered(partition)
                else:
                    lagging.add(partition)
        self.lagging, self._uncovered_before = lagging & self._uncovered_before, lagging

    def follow(self, config: Config, *, anew: bool = False) -> None:
        """A configuration is known: listen to its members, if it is a newer one."""
        partition = config.partition
        witness = self.witnesses.get(partition)
        if witness is None or self.inbox.ended:
            return
        known = witness.config
        if known is not None and known.epoch >= config.epoch and not anew:
            return
        witness.follow(config, anew=anew)
        self.uncovered.add(partition)
        self.inbox.set_ready(False)
        self.busy.discard(partition)
        for source in self.sources.values():
            source.told.discard(partition)
            source.asked.discard(partition)
            source.todo.pop(partition, None)
        self._reporters.pop(partition, None)
        self._listen(partition, config)
        self._choose_reporter(partition, config)

    def _listen(self, partition: int, config: Config) -> None:
        """See to it that every member is asked for this partition."""
        for member in config.members:
            source = self._source(member)
            if partition not in source.told and partition not in source.asked:
                source.todo.setdefault(partition, True)

    def _source(self, peer: Peer) -> Source:
        source = self.sources.get(peer.instance)
        if source is None:
            number = self._enter(self, peer.instance)
            source = self.sources[peer.instance] = Source(peer, number)
        source.peer = peer  # it may have another address by now
        return source

    def _choose_reporter(self, partition: int, config: Config) -> None:
        """Have one member of the group, which is there, tell values, too."""
        core = self._core
        present = self._reporters.get(partition)
        usable = [peer for peer in core.preferred(config) if self._may_report(peer)]
        if any(peer.instance == present for peer in usable) or not usable:
            return
        telling = [peer for peer in usable if partition in self._source(peer).told]
        # The first ones have every version; the last get only the latest of those made at a time.
        best = self._source((telling or usable)[0])
        self._reporters[partition] = best.peer.instance
        anew = not self.witnesses[partition].covered
        best.todo[partition] = anew or best.todo.get(partition, False)
        before = None if present is None else self.sources.get(present)
        if before is not None and partition in before.told:
            before.todo.setdefault(partition, False)

    def _may_report(self, peer: Peer) -> bool:
        source = self.sources.get(peer.instance)
        return self._core.usable(peer) and (source is None or not source.mute)

    def lost(self, instance: bytes) -> None:
        """A node is not connected any more."""
        source = self.sources.pop(instance, None)
        if source is None:
            return
        for partition in {*source.told, *source.todo, *source.asked}:
            witness = self.witnesses[partition]
            witness.unsure(instance)
            config = witness.config
            if config is not None:
                self._listen(partition, config)
            if self._reporters.get(partition) == instance and config is not None:
                del self._reporters[partition]
                self._choose_reporter(partition, config)

    # -- asking them

    def ask(self, now: float) -> None:
        """Subscribe where that is to be done, and renew."""
        for source in list(self.sources.values()):
            if source.asking or now < source.due or self.inbox.ended:
                continue
            if not source.told and not source.todo:
                del self.sources[source.peer.instance]
                self._send_end(source)
            elif source.todo or now >= source.renew_at:
                self._ask(source)

    def _ask(self, source: Source) -> None:
        parts = []
        for partition, anew in list(source.todo.items())[:_MOST_PARTS]:
            del source.todo[partition]
            config = self.witnesses[partition].config
            assert config is not None
            reports = self._reporters.get(partition) == source.peer.instance
            parts.append(WatchPart(partition, config.epoch, reports, anew))
        source.asking = True
        source.asked = {part.partition for part in parts}
        request = Watch(source.number, self._key, self._prefix, tuple(parts))
        self._send(source.peer, request, lambda reply: self._asked(source, parts, reply))

    def _send_end(self, source: Source) -> None:
        core, instance = self._core, source.peer.instance
        if instance == core.instance or core.links.get(instance) is not None:
            self._send(source.peer, Unwatch(source.number), _ignore)

    def _asked(self, source: Source, parts: list[WatchPart], reply: Any) -> None:
        source.asking = False
        source.asked.clear()
        source.mute = type(reply) is Declined
        if type(reply) is Declined:
            self._complain(source, reply.reason)
        if self.inbox.ended or self.sources.get(source.peer.instance) is not source:
            return
        now = self._core.clock.seconds()
        good = type(reply) is Watched
        refused = {place for place, _ in reply.refused} if good else set(range(len(parts)))
        if good:
            source.renew_at = now + self._core.jittered(_RENEW)
            for _, wrong in reply.refused:
                if wrong.config is not None:
                    self._core.learn(wrong.config)
            if reply.new:  # what it told before, it has forgotten
                for partition in source.told:
                    self._begin_anew(source, partition)
                source.told.clear()
        for place, part in enumerate(parts):
            config = self.witnesses[part.partition].config
            if config is None or config.epoch != part.epoch:
                continue  # the group is another one by now
            if place not in refused:
                source.told.add(part.partition)
            else:
                source.todo.setdefault(part.partition, part.anew)
        if not good or reply.partitions < len(source.told):
            # It forgot some, or all, and what it said of that was lost.
            for partition in source.told:
                source.todo.setdefault(partition, False)
        failed = refused or not good
        source.pause = min(2 * source.pause, MOST_RETRY) if failed else RETRY
        source.due = now + (source.pause if failed else 0.0)

    def _complain(self, source: Source, reason: str) -> None:
        if not self._complained:
            self._complained = True
            self.log.warn(
                "{peer} does not tell what is watched: {reason}",
                peer=source.peer,
                reason=printable(reason),
            )

    def _begin_anew(self, source: Source, partition: int) -> None:
        self.witnesses[partition].unsure(source.peer.instance)
        source.todo[partition] = True

    # -- what they tell

    def take(self, source: Source, request: Changed) -> None:
        """A member tells something."""
        now = self._core.clock.seconds()
        for told in request.parts:
            witness = self.witnesses.get(told.partition)
            if witness is None or witness.config is None:
                continue
            if told.over:
                if told.config is not None:
                    self._core.learn(told.config)
                if witness.config.epoch == told.epoch and told.partition in source.told:
                    source.told.discard(told.partition)
                    self._begin_anew(source, told.partition)
                    source.due = now + source.pause
                continue
            if witness.config.epoch == told.epoch:
                self._keys -= len(witness)
                self._take(witness, source.peer.instance, told, now)
                self._keys += len(witness)
                self._after(told.partition, witness)
        if self._keys > self._core.settings.watched_keys:
            most = self._core.settings.watched_keys
            self.close(
                WatchTooWide(
                    f"more than {most} keys are covered by one watch: watch a longer prefix, or "
                    "raise watched_keys of the Settings"
                )
            )

    def _take(self, witness: Witness, member: bytes, told: Told, now: float) -> None:
        if told.anew:
            witness.unsure(member)
        for key, ballot, alive in told.ballots:
            witness.tell(member, key, ballot, now, alive=alive)
        for key, head in told.heads:
            witness.tell(
                *(member, key, head.ballot, now),
                alive=head.value is not None,
                history=history_of(head),
            )
        for key, record in told.records:
            witness.tell(
                *(member, key, record.ballot, now),
                alive=record.value is not None,
                history=history_of(record),
                value=record.value,
            )
        if told.current:
            witness.current(member, now)

    def _after(self, partition: int, witness: Witness) -> None:
        """A member told something of a partition."""
        if witness.busy:
            self.busy.add(partition)
        if partition not in self.uncovered or not witness.settled or witness.config is None:
            return
        # With a quorum, nothing is missed; if all tell, nothing is skipped either.
        members, usable = witness.config.members, self._core.usable
        if all(witness.is_current(peer.instance) or not usable(peer) for peer in members):
            self._covered(partition)

    def _covered(self, partition: int) -> None:
        self.uncovered.discard(partition)
        self.inbox.set_ready(not self.uncovered)


def _ignore(_: Any) -> None:
    """Nobody waits for it."""
