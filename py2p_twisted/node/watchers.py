"""Who watches what this node keeps, and what they are told (floor 2).

Owns the leases of watchers.  A watcher is told first what is there, page by page, then whatever is
accepted; what waits for a slow one is bounded: if it becomes too much, that is dropped, and the
partition is told again from its beginning.  Nothing is told before it is on the disk (rule 13).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from ..base import Peer
from ..errors import StorageError
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Config, Record
from ..wire.link import Link
from ..wire.messages import (
    Changed,
    Declined,
    Done,
    Reply,
    Told,
    Unwatch,
    Watch,
    Watched,
    WatchPart,
    WrongEpoch,
)
from .core import USER, Core
from .keeper import Keeper
from .stream import Share, Stream

__all__ = ["Watchers"]

#: Seconds for which a watch stands if it is not renewed ...
LEASE = 15.0
#: ... and after which that is looked at.
_SWEEP = 5.0
#: Seconds from one time that watchers are told to the next; after a pause they are told at once.
_DELAY = 0.005
#: Seconds until a watcher that did not take something is told again.
_PAUSE = 0.5
#: Messages to one watcher that it has not answered yet.
_WINDOW = 4
#: Bytes, about, that wait for one watcher.
_MOST_BYTES = 1024 * 1024
#: Keys in one message.
_MOST_KEYS = 2048
#: Parts of one message, and those of them that tell that an epoch is over.
_MOST_PARTS, _MOST_OVER = 1024, 512
#: Watches of all nodes together.
_MOST_WATCHES = 4096
#: Partitions that all watches together may watch.
_MOST_STREAMS = 65_536


class _Watch:
    """One watch of one watcher."""

    def __init__(self, audience: _Audience, request: Watch) -> None:
        self.audience = audience
        self.number = request.number
        self.key = request.key
        self.prefix = request.prefix
        self.until = 0.0
        self.streams: dict[int, Stream] = {}
        self.over: list[Told] = []  # to be told, too


class _Audience:
    """One node that watches.

    :ivar share: what waits for it.
    :ivar unanswered: messages that it has not answered.
    :ivar sent_at: when the last was sent.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.share = Share(_MOST_BYTES)
        self.unanswered = 0
        self.sent_at = 0.0
        self.paused_until = 0.0
        self.watches: dict[int, _Watch] = {}
        #: what may have something to tell, in order
        self.ready: dict[tuple[_Watch, Stream | None], None] = {}


class Watchers:
    """Tells watchers what this node accepts.

    :param here: takes what this node's own watches are told.
    """

    def __init__(self, core: Core, keeper: Keeper, here: Callable[[bytes, Changed], Reply]) -> None:
        self._core = core
        self._keeper = keeper
        self._here = here
        self._audiences: dict[bytes, _Audience] = {}
        self._streams: dict[int, list[tuple[_Watch, Stream]]] = {}  # by partition
        self._count = 0
        self._flushing: IDelayedCall | None = None
        self._flushed_at = 0.0
        self._resuming: IDelayedCall | None = None
        self._sweeping: IDelayedCall | None = None

    # -- who watches

    def answer_watch(self, link: Link | None, request: Watch) -> Reply:
        """A peer (None: this node) watches some partitions, or goes on with it."""
        core = self._core
        if request.key[:1] != USER:
            return Declined("only keys of users can be watched")
        peer = core.me if link is None else link.peer
        audience = self._audiences.get(peer.instance)
        watch = None if audience is None else audience.watches.get(request.number)
        new = watch is None
        declined = self._too_many(audience, request, new=new)
        if declined is not None:
            return declined
        if audience is None:
            audience = self._audiences[peer.instance] = _Audience(peer)
        if watch is None:
            watch = audience.watches[request.number] = _Watch(audience, request)
        watch.until = core.clock.seconds() + LEASE
        refused: list[tuple[int, WrongEpoch]] = []
        for place, part in enumerate(request.parts):
            refusal = self._begin(watch, part)
            if refusal is not None:
                refused.append((place, refusal))
        if self._sweeping is None:
            self._sweeping = core.clock.callLater(_SWEEP, self._sweep)
        self._soon()
        return Watched(new, len(watch.streams), tuple(refused))

    def _too_many(
        self, audience: _Audience | None, request: Watch, *, new: bool
    ) -> Declined | None:
        """Why no more can be watched, if that is so."""
        most = self._core.settings.watches
        if self._count + len(request.parts) > _MOST_STREAMS:
            return Declined("too many partitions are watched here")
        if new and audience is not None and len(audience.watches) >= most:
            return Declined(f"{most} watches of one node are enough")
        if new and sum(len(one.watches) for one in self._audiences.values()) >= _MOST_WATCHES:
            return Declined(f"{_MOST_WATCHES} watches are enough")
        return None

    def _begin(self, watch: _Watch, part: WatchPart) -> WrongEpoch | None:
        """One partition is watched; or why it is not."""
        acceptor = self._core.acceptors.get(part.partition)
        if acceptor is None:
            return self._keeper.wrong_epoch(part.partition)
        try:
            acceptor.check(part.epoch)
        except EpochRefused as refusal:
            return self._keeper.wrong_epoch(part.partition, wedged=refusal.wedged)
        stream = watch.streams.get(part.partition)
        if stream is None or stream.acceptor is not acceptor:
            if stream is not None:
                self._end(watch, stream)
            share = watch.audience.share
            stream = Stream(watch.key, acceptor, share, prefix=watch.prefix)
            watch.streams[part.partition] = stream
            self._streams.setdefault(part.partition, []).append((watch, stream))
            self._count += 1
            acceptor.accepted = partial(self._accepted, part.partition)
        elif part.anew:
            stream.begin_anew()
        stream.reports = part.reports
        watch.audience.ready[watch, stream] = None
        return None

    def answer_unwatch(self, link: Link | None, request: Unwatch) -> Reply:
        """A peer wants to hear no more."""
        instance = self._core.instance if link is None else link.peer.instance
        audience = self._audiences.get(instance)
        watch = None if audience is None else audience.watches.get(request.number)
        if watch is not None:
            self._drop(watch)
        return Done()

    def lost(self, instance: bytes) -> None:
        """A peer is gone, and with it all that it watched."""
        audience = self._audiences.get(instance)
        if audience is not None:
            for watch in list(audience.watches.values()):
                self._drop(watch)

    def moved(self, config: Config) -> None:
        """A newer configuration of a partition is known: who watches has to ask its members."""
        for watch, stream in list(self._streams.get(config.partition, ())):
            if stream.acceptor.config.epoch < config.epoch:
                self._tell_over(watch, stream, config)
                self._soon()

    def _tell_over(self, watch: _Watch, stream: Stream, config: Config | None) -> None:
        old = stream.acceptor.config
        self._end(watch, stream)
        watch.over.append(Told(old.partition, old.epoch, True, (), (), (), False, True, config))
        watch.audience.ready[watch, None] = None

    def _end(self, watch: _Watch, stream: Stream) -> None:
        partition = stream.acceptor.config.partition
        stream.begin_anew()  # what waits is not counted any more
        watch.audience.ready.pop((watch, stream), None)
        if watch.streams.get(partition) is stream:
            del watch.streams[partition]
        others = self._streams[partition]
        others.remove((watch, stream))
        self._count -= 1
        if not any(other.acceptor is stream.acceptor for _, other in others):
            stream.acceptor.accepted = None
        if not others:
            del self._streams[partition]

    def _drop(self, watch: _Watch) -> None:
        audience = watch.audience
        for stream in list(watch.streams.values()):
            self._end(watch, stream)
        audience.ready.pop((watch, None), None)
        audience.watches.pop(watch.number, None)
        if not audience.watches:
            self._audiences.pop(audience.peer.instance, None)

    def _sweep(self) -> None:
        """Forget who does not renew, and what is not served here any more."""
        core = self._core
        now = core.clock.seconds()
        self._sweeping = None
        for audience in list(self._audiences.values()):
            stuck = audience.unanswered and now - audience.sent_at > LEASE
            for watch in list(audience.watches.values()):
                if watch.until <= now or stuck:
                    self._drop(watch)
        for streams in list(self._streams.values()):
            for watch, stream in list(streams):
                partition = stream.acceptor.config.partition
                if core.acceptors.get(partition) is not stream.acceptor:
                    self._tell_over(watch, stream, core.directory.get(partition))
        if self._audiences:
            self._sweeping = core.clock.callLater(_SWEEP, self._sweep)
            self._soon()

    def stop(self) -> None:
        """Nobody is told any more."""
        for call in (self._flushing, self._resuming, self._sweeping):
            if call is not None:
                call.cancel()
        self._flushing = self._resuming = self._sweeping = None
        for instance in list(self._audiences):
            self.lost(instance)

    # -- what they are told

    def _accepted(self, partition: int, key: bytes, record: Record) -> None:
        """This node accepted a record."""
        told = False
        for watch, stream in self._streams[partition]:
            if stream.add(key, record):
                watch.audience.ready[watch, stream] = None
                told = True
        if told and self._flushing is None:
            self._soon()

    def _soon(self) -> None:
        if self._flushing is None and self._audiences:
            clock = self._core.clock
            wait = max(0.0, self._flushed_at + _DELAY - clock.seconds())
            self._flushing = clock.callLater(wait, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        core = self._core
        now = self._flushed_at = core.clock.seconds()
        for audience in list(self._audiences.values()):
            if audience.paused_until <= now:
                self._tell(audience, now)
            elif self._resuming is None:
                self._resuming = core.clock.callLater(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._soon()

    def _tell(self, audience: _Audience, now: float) -> None:
        """Send what there is, as far as the watcher keeps up."""
        while audience.ready and audience.unanswered < _WINDOW and audience.paused_until <= now:
            watch = next(iter(audience.ready))[0]
            try:
                parts = self._collect(watch)
            except StorageError:
                self._drop(watch)  # it is asked for again
                continue
            if parts:
                audience.unanswered += 1
                audience.sent_at = now
                send = partial(self._send, audience, watch, Changed(watch.number, parts))
                self._core.when_kept(send, [part.partition for part in parts])

    def _collect(self, watch: _Watch) -> tuple[Told, ...]:
        """The next message of a watch."""
        ready = watch.audience.ready
        room, most = self._core.settings.page_bytes, _MOST_KEYS
        parts, watch.over = watch.over[:_MOST_OVER], watch.over[_MOST_OVER:]
        if not watch.over:
            ready.pop((watch, None), None)
        for place in [place for place in ready if place[0] is watch and place[1] is not None]:
            if room <= 0 or most <= 0 or len(parts) == _MOST_PARTS:
                break
            del ready[place]
            stream = place[1]
            if stream is not None and stream.ready:
                told, used, count = stream.take(room, most)
                room, most = room - used, most - count
                parts.append(told)
                if stream.ready:
                    ready[place] = None
        return tuple(parts)

    def _send(self, audience: _Audience, watch: _Watch, message: Changed) -> None:
        """What it tells is kept."""
        core = self._core
        instance = audience.peer.instance
        if self._audiences.get(instance) is not audience:
            return
        answered = partial(self._answered, audience, watch)
        if instance == core.instance:
            answered(self._here(instance, message))
            return
        link = core.links.get(instance)
        if link is None:
            self.lost(instance)
        else:
            link.request(message, answered, core.settings.request_timeout_max)

    def _answered(self, audience: _Audience, watch: _Watch, reply: Any) -> None:
        audience.unanswered -= 1
        if self._audiences.get(audience.peer.instance) is not audience:
            return
        if type(reply) is Declined:
            self._drop(watch)
        elif type(reply) is not Done:
            now = self._core.clock.seconds()
            for stream in watch.streams.values():
                stream.begin_anew()
                audience.ready[watch, stream] = None
            audience.paused_until = max(audience.paused_until, now + _PAUSE)
            self._soon()
        elif audience.ready:
            self._soon()
