"""Who of those that keep partitions can be asked (floor 2).

Owns the look at the other members of the groups: since when one is silent, and that those who are
not connected are tried.  A member that is silent for long is replaced; see ``plans.py``.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..base import Peer
from ..wire.messages import Done, Ping
from .core import Core

__all__ = ["Fellows"]

#: Rounds without a look after which this node itself was away.
_AWAY = 10
#: Rounds between two tries to reach one that could not be reached.
_LOST_EVERY = 4
#: Fellows that are tried at the same time.
_MOST_TRIED = 16


class Fellows:
    """Watches the members of the groups."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._looked: float | None = None
        self._round = 0
        self._trying: set[bytes] = set()

    def look(self) -> None:
        """One look at all of them, once a round; drops what was kept for some of them too long."""
        core = self._core
        self._round += 1
        now = core.clock.seconds()
        silent = core.silent_since
        pause = now - self._looked if self._looked is not None else 0.0
        self._looked = now
        if pause > _AWAY * core.settings.stabilize_interval:  # the others are not to blame
            for instance in silent:
                silent[instance] += pause
        members = {peer.instance: peer for peer in core.directory.members()}
        members.pop(core.instance, None)
        for instance, peer in members.items():
            if self.fit(peer):
                silent.pop(instance, None)
            else:
                silent.setdefault(instance, now)
        for instance in [instance for instance in silent if instance not in members]:
            del silent[instance]
        for partition in [p for p, (until, _) in core.retired.items() if until <= now]:
            del core.retired[partition]
        if core.journal is not None:
            core.journal.tidy()
        self._try_those_not_connected()

    def fit(self, peer: Peer) -> bool:
        """Can it be a member of a group: does it answer, and is it in the ring?"""
        core = self._core
        if peer.instance == core.instance:
            return core.member
        link = core.links.get(peer.instance)
        if link is None:
            return core.usable(peer) and not core.replaced(peer)
        return core.usable(peer) and not link.hello.leeching

    def _try_those_not_connected(self) -> None:
        core = self._core
        fellows = {
            peer.instance: peer
            for acceptor in core.acceptors.values()
            for peer in acceptor.config.members
        }
        for instance, peer in fellows.items():
            if len(self._trying) == _MOST_TRIED:
                return
            if instance in self._trying or instance == core.instance:
                continue
            turn = self._round % _LOST_EVERY == 0 or not core.links.failed_lately(peer)
            if turn and core.links.get(instance) is None:
                self._trying.add(instance)
                tried = Deferred.fromCoroutine(self._try(peer))
                tried.addErrback(lambda failure: core.log.failure("trying failed", failure))

    async def _try(self, peer: Peer) -> None:
        try:
            await self._core.try_ask(peer, Ping(), Done, self._core.settings.request_timeout_max)
        finally:
            self._trying.discard(peer.instance)
