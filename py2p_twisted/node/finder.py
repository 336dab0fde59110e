"""Look-ups over the network (floor 2): asks the peers that the pure look-up names."""

from __future__ import annotations

from ..base import Peer
from ..errors import NotConnected, Unavailable
from ..ring.circle import to_bytes
from ..ring.lookup import Lookup, route
from ..wire.messages import (
    Configs,
    Done,
    FindSuccessor,
    GetConfig,
    GetConfigs,
    Ping,
    RouteTo,
)
from .core import Core

__all__ = ["Finder"]

#: Configurations in one answer.
_MOST_CONFIGS = 256


class Finder:
    """Finds successors of identifiers, and configurations of partitions."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._versions: dict[bytes, int] = {}  # instance -> version of its directory

    def answer(self, request: FindSuccessor) -> RouteTo | None:
        """The way that this node knows; None if it is no member."""
        found = self._route(int.from_bytes(request.target, "big"))
        return None if found is None else RouteTo(*found)

    def _route(self, target: int) -> tuple[tuple[Peer, ...], tuple[Peer, ...]] | None:
        pointers = self._core.pointers
        if pointers is None:
            return None
        fingers = self._core.fingers.peers()
        return route(pointers.me, pointers.successors, fingers, target)

    def answer_configs(self, request: GetConfigs) -> Configs:
        """What the directory learnt since then; members or not, all nodes tell."""
        configs, version = self._core.directory.since(request.since, _MOST_CONFIGS)
        return Configs(tuple(configs), version)

    def answer_config(self, request: GetConfig) -> Configs:
        """The newest configuration of one partition, if one is known."""
        config = self._core.directory.get(request.partition)
        return Configs((config,) if config is not None else (), 0)

    async def find_successor(
        self, target: int, *, through: Peer | None = None, alive: bool = False
    ) -> Lookup[Peer]:
        """Find the node that follows an identifier.

        :param through: begin at this peer instead of here.
        :param alive: make sure that the answer answers.
        :returns: a look-up whose owner is not None.
        :raises NotConnected: if there is nobody to ask.
        :raises Unavailable: if the way is broken.
        """
        core = self._core
        limit = 2 * core.settings.k + 2 * core.settings.successors
        lookup: Lookup[Peer]
        local = self._route(target) if through is None else None
        if local is not None:
            lookup = Lookup(target, [], limit)
            lookup.answered(core.me, *local, local=True)
        else:
            start = [through] if through else [link.peer for link in core.ring_links()]
            core.rng.shuffle(start)
            if not start:
                raise NotConnected("this node knows no member of a ring: connect() to one first")
            lookup = Lookup(target, start[:3], limit)
        wire_target = FindSuccessor(to_bytes(target, core.settings.k))
        while True:
            while (peer := lookup.ask_next) is not None:
                if peer.instance == core.instance:
                    reply = self.answer(wire_target)
                else:
                    reply = await core.try_ask(peer, wire_target, RouteTo)
                if (
                    reply is None
                    or core.moved(peer)
                    or not core.valid(*reply.preceding, *reply.owners)
                ):
                    core.fingers.forget(peer.id)
                    lookup.failed(peer)
                else:
                    lookup.answered(peer, reply.preceding, reply.owners)
            owner = lookup.owner
            if owner is None or not alive or owner.instance == core.instance:
                break
            answered = await core.try_ask(owner, Ping(member=True), Done)
            if answered is not None and not core.moved(owner):
                break
            lookup.dead(owner)
        if lookup.owner is None:
            raise Unavailable(
                f"no way to identifier {target} was found in {lookup.requests} requests"
            )
        return lookup

    async def refresh(self, partition: int) -> None:
        """Ask around for the newest configuration of a partition."""
        core = self._core
        asked: list[Peer] = []
        try:
            found = await self.find_successor(core.start(partition))
            asked += [peer for peer in (found.owner, found.before) if peer is not None]
        except (NotConnected, Unavailable) as error:
            core.debug("{error}", error=str(error))
        links = [link.peer for link in core.ring_links()]
        core.rng.shuffle(links)
        asked += links[:2]
        for peer in {peer.instance: peer for peer in asked}.values():
            if peer.instance != core.instance:
                reply = await core.try_ask(peer, GetConfig(partition), Configs)
                for config in reply.configs if reply is not None else ():
                    core.learn(config)

    async def catch_up(self) -> None:
        """Take over the news of two members' directories."""
        links = [link.peer for link in self._core.ring_links()]
        self._core.rng.shuffle(links)
        for peer in links[:2]:
            await self.fetch_directory(peer)

    async def fetch_directory(self, peer: Peer) -> None:
        """Take over all that a peer's directory learnt since it was last asked."""
        version = self._versions.get(peer.instance, 0)
        while True:
            reply = await self._core.try_ask(
                peer, GetConfigs(version), Configs, self._core.settings.request_timeout_max
            )
            if reply is None:
                return
            for config in reply.configs:
                self._core.learn(config)
            if reply.version <= version or not reply.configs:
                break
            version = reply.version
        if len(self._versions) > 4096:
            self._versions.clear()
        self._versions[peer.instance] = version

    def forget(self) -> None:
        """The directory was cleared: take everything anew."""
        self._versions.clear()
