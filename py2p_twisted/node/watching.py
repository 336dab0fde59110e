"""The watches of this node's user (floor 2).

Owns all of them, and the one timer that keeps them going: it looks for groups, renews, fetches the
values that were not told, and finds out what became of versions that no quorum told.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import ChordError, NotConnected, Unavailable
from ..table.group import Ballot, Config, Epoch
from ..table.witness import Witness
from ..wire.link import Link
from ..wire.messages import (
    Changed,
    Declined,
    Done,
    ReadMany,
    Reply,
    SomeValues,
    Unwatch,
    Values,
    Want,
    Watch,
)
from .attempts import Attempts
from .core import Core, Phase
from .finder import Finder
from .keeper import Keeper
from .operations import Operations
from .watcher import Watcher
from .watchers import Watchers

__all__ = ["Watching"]

#: Seconds between two looks at what is missing, and at the groups.
_TICK, _LOOK = 0.1, 1.0
#: Keys that are fetched in one request.
_MOST_FETCHED = 128
#: Keys of one watch whose state is being found out.
_MOST_SETTLING = 8
#: Seconds that a member has for answering with values.
_PATIENCE = 2.0
_DECLINED = Declined("nobody watches that any more")


class Watching:
    """All watches of this node's user.

    :param spawn: runs something in the background.
    :ivar watchers: tells others, and this node, what this node accepts.
    """

    log = Logger()

    def __init__(
        self,
        core: Core,
        finder: Finder,
        keeper: Keeper,
        operations: Operations,
        spawn: Callable[[Coroutine[Any, Any, None], str], None],
    ) -> None:
        self._core = core
        self._finder = finder
        self._operations = operations
        self._spawn = spawn
        self.watchers = watchers = Watchers(core, keeper, self.take)
        #: what answers which request of a link
        self.handlers: dict[type, Callable[[Link, Any], Reply]] = {
            Watch: watchers.answer_watch,
            Unwatch: watchers.answer_unwatch,
            Changed: lambda link, request: self.take(link.peer.instance, request),
        }
        self._watches: dict[Watcher, Callable[[], object]] = {}  # and who may still want it
        self._sources: dict[int, tuple[Watcher, bytes]] = {}
        self._number = core.rng.getrandbits(48)
        self._timer: IDelayedCall | None = None
        self._looked_at = 0.0
        self._searching = False
        self._fetching: set[tuple[Watcher, int]] = set()
        self._settling: set[Deferred[Any]] = set()

    # -- the user's side

    def watch(self, key: bytes, *, prefix: bool, initial: bool) -> Watcher:
        """Begin to watch a table key, or all that begin with it.

        :raises Unavailable: if there are too many watches.
        :raises NotConnected: if the node was stopped.
        """
        if self._core.phase is Phase.STOPPED:
            raise NotConnected("this node was stopped")
        most = self._core.settings.watches
        if len(self._watches) >= most:
            raise Unavailable(
                f"{most} watches are open already: close some, watch a prefix instead of many "
                "keys, or raise watches of the Settings"
            )
        watcher = Watcher(
            *(self._core, key, self._send, self._enter), prefix=prefix, initial=initial
        )
        self._watches[watcher] = lambda: watcher
        watcher.look()
        self._soon()
        return watcher

    def keep_while(self, watcher: Watcher, wanted: Callable[[], object]) -> None:
        """End a watch that nobody closed once this returns None: nobody has it any more."""
        if watcher in self._watches:
            self._watches[watcher] = wanted

    def close(self, watcher: Watcher) -> None:
        """Watch no more."""
        watcher.close()
        self._forget(watcher)

    def _forget(self, watcher: Watcher) -> None:
        self._watches.pop(watcher, None)
        for number in [n for n, (owner, _) in self._sources.items() if owner is watcher]:
            del self._sources[number]

    def stop(self) -> None:
        """The node stops: all watches end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for watcher in list(self._watches):
            watcher.inbox.stop()
            watcher.forget()
        self._watches.clear()
        self._sources.clear()
        for settling in list(self._settling):
            settling.cancel()
        self.watchers.stop()

    # -- members

    def _enter(self, watcher: Watcher, instance: bytes) -> int:
        self._number += 1
        self._sources[self._number] = (watcher, instance)
        return self._number

    def _send(self, peer: Peer, request: Watch | Unwatch, done: Callable[[Any], None]) -> None:
        core = self._core
        if peer.instance != core.instance:
            core.links.request(peer, request, done, core.settings.request_timeout_max)
        elif isinstance(request, Watch):
            done(self.watchers.answer_watch(None, request))
        else:
            done(self.watchers.answer_unwatch(None, request))

    def take(self, instance: bytes, request: Changed) -> Reply:
        """A member tells what it accepted."""
        watcher, member = self._sources.get(request.number, (None, b""))
        source = None if watcher is None else watcher.sources.get(instance)
        if watcher is None or source is None or source.number != request.number:
            if member == instance:
                del self._sources[request.number]
            return _DECLINED
        watcher.take(source, request)
        if watcher.inbox.ended:
            self._forget(watcher)
        elif watcher.busy:
            self._pump(watcher, self._core.clock.seconds())
        return Done()

    def lost(self, instance: bytes) -> None:
        """A node is not connected any more."""
        self.watchers.lost(instance)
        for watcher in self._watches:
            watcher.lost(instance)

    def moved(self, config: Config) -> None:
        """A newer configuration of a partition is known."""
        self.watchers.moved(config)
        if self._watches:
            for watcher in self._watches:
                watcher.follow(config)
            self._soon()

    # -- keeping them going

    def _soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._core.clock.callLater(0, self._tick)

    def _tick(self) -> None:
        self._timer = None
        core = self._core
        now = core.clock.seconds()
        look = now - self._looked_at >= _LOOK
        if look:
            self._looked_at = now
            self._sources = {
                number: (watcher, instance)
                for number, (watcher, instance) in self._sources.items()
                if instance in watcher.sources and watcher.sources[instance].number == number
            }
        for watcher, wanted in list(self._watches.items()):
            if wanted() is None:
                self.close(watcher)
                continue
            if look:
                watcher.look()
            watcher.ask(now)
            self._pump(watcher, now)
        if look and not self._searching:
            self._search()
        if self._watches and self._timer is None:
            self._timer = core.clock.callLater(_TICK, self._tick)

    def _search(self) -> None:
        """Some group is not known, or has changed: look for one of them."""
        core = self._core
        waiting = sorted({one for watcher in self._watches for one in watcher.lagging})
        if not waiting or not (core.member or any(core.ring_links())):
            return
        partition = core.rng.choice(waiting)
        self._searching = True
        self._spawn(self._refresh(partition), "looking for the group of a watched partition")

    async def _refresh(self, partition: int) -> None:
        try:
            if not self._core.member:
                await self._finder.catch_up()
            await self._finder.refresh(partition)
        finally:
            self._searching = False

    def _pump(self, watcher: Watcher, now: float) -> None:
        """Tell what is not waited for any more, and fetch what is missing."""
        for partition in list(watcher.busy):
            witness = watcher.witnesses[partition]
            if not witness.busy:
                watcher.busy.discard(partition)
                continue
            if watcher.inbox.room and (watcher, partition) not in self._fetching:
                keys = witness.lacking(now, _MOST_FETCHED)
                if keys:
                    self._begin_fetch(watcher, partition, witness, keys)
            room = _MOST_SETTLING - len(self._settling)
            if room > 0:
                for key in witness.due(now, room):
                    self._settle(key)

    def _begin_fetch(
        self, watcher: Watcher, partition: int, witness: Witness, keys: list[tuple[bytes, Ballot]]
    ) -> None:
        core, config = self._core, witness.config
        assert config is not None
        holders = {*witness.holders(*keys[0])}
        usable = [p for p in config.members if p.instance in holders and core.usable(p)]
        if not usable:
            return
        here = [peer for peer in usable if peer.instance == core.instance]
        peer = here[0] if here else core.rng.choice(usable)
        wanted = tuple(key for key, ballot in keys if peer.instance in witness.holders(key, ballot))
        self._fetching.add((watcher, partition))
        self._spawn(
            self._fetch(watcher, partition, peer, config.epoch, wanted), "fetching watched values"
        )

    async def _fetch(
        self, watcher: Watcher, partition: int, peer: Peer, epoch: Epoch, keys: tuple[bytes, ...]
    ) -> None:
        core = self._core
        try:
            attempts = Attempts(core, write=False, timeout=_PATIENCE)
            request = ReadMany(((epoch, keys),), Want.BOTH)
            reply = await self._operations.ask_member(peer, request, attempts)
        finally:
            self._fetching.discard((watcher, partition))
        witness = watcher.witnesses[partition]
        config = witness.config
        if not isinstance(reply, Values) or watcher.inbox.ended:
            return
        if config is None or config.epoch != epoch or len(reply.parts) != 1:
            return
        found = reply.parts[0]
        if isinstance(found, SomeValues):
            now, missing = core.clock.seconds(), len(witness.wanted)
            for key, value, ballot in zip(keys, found.values, found.ballots, strict=False):
                if ballot is not None:
                    alive = value is not None
                    witness.tell(peer.instance, key, ballot, now, alive=alive, value=value)
            if len(witness.wanted) < missing:
                self._soon()

    def _settle(self, key: bytes) -> None:
        """Read a key: the members agree about it then, and tell that."""
        settling: Deferred[Any] = self._operations.read(key)
        self._settling.add(settling)

        def settled(result: Any) -> None:
            self._settling.discard(settling)
            if self._watches:
                self._soon()  # there may be more
            if isinstance(result, Failure) and not result.check(ChordError, CancelledError):
                self.log.failure("a watched key could not be read", result)

        settling.addBoth(settled)
