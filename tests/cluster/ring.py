"""A ring of such nodes, its clients, and the look at its directory from outside (test support).

Which fault happens when is the nemesis's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

from ..processes import eventually
from .nodes import HOST, Address, ClusterNode, Guard, quiet_ports
from .proxy import Proxies

__all__ = ["Ring", "what_is_missing"]

#: Seconds within which a new ring is whole and quiet.
_BEGUN_WITHIN = 60.0
#: Seconds for which nothing may change in a ring that counts as quiet.
_QUIET_FOR = 2.0
#: What no log may contain.
_ACCIDENTS = ("Traceback", "Unhandled")


class Ring:
    """All nodes of one run.

    :param replicas: of the ring; None leaves it to the daemon.
    :param proxies: connections to nodes run through these, if given.
    :param durable: do nodes keep their data when their processes end?
    """

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        guard: Guard,
        size: int,
        replicas: int | None,
        proxies: Proxies | None = None,
        *,
        durable: bool = False,
    ) -> None:
        options = [] if replicas is None else ["--replicas", str(replicas)]
        self.nodes: list[ClusterNode] = []
        self.buried: set[bytes] = set()  # the instances that will never come back
        self._reactor = reactor
        self._proxies = proxies
        self._replicas = replicas
        self._clients: list[ChordService] = []
        for number, port in enumerate(quiet_ports(size), start=1):
            name = f"node {number}"
            announced = port if proxies is None else proxies.listen(name, HOST, port)
            self.nodes.append(
                ClusterNode(folder, guard, options, name, port, announced, durable=durable)
            )

    # -- life

    async def start(self) -> None:
        """Start all; fires once all are in the ring and keep their share, and it is quiet."""
        first, *others = self.nodes
        first.start([])
        await first.joined()
        for node in others:
            node.start([first.address])
        for node in others:
            await node.joined()
        self.observer = await self.client("observer", first)
        await self.quiet(_BEGUN_WITHIN)

    def restart(self, node: ClusterNode) -> None:
        """Start a new process at an old place."""
        node.start([other.address for other in self.nodes if other is not node])

    async def stop(self) -> None:
        """End the clients, and kill the nodes."""
        for node in self.nodes:
            node.end()  # first: a client then has nobody to say farewell to
        for client in self._clients:
            await client.stopService()
        self._clients.clear()

    def check(self) -> None:
        """Does every node run that is to run?

        :raises AssertionError: naming one that does not.
        """
        for node in self.nodes:
            if node.wanted:
                code = node.life.exit_code
                assert code is None, f"{node.life.name} ended by itself with exit code {code}"

    def accidents(self) -> list[str]:
        """The processes in whose logs is what should be in none."""
        return [
            f"{word} in the log of {life.name}"
            for node in self.nodes
            for life in node.lives
            for word in _ACCIDENTS
            if word in life.log
        ]

    # -- clients

    async def client(self, name: str, node: ClusterNode) -> ChordService:
        """A leeching client that enters through this node."""
        client = ChordService(self._reactor, HOST, 0)
        client.startService()
        self._clients.append(client)
        problem = ""

        async def connect() -> bool:
            nonlocal problem
            try:
                await client.connect(*node.address)
            except ChordError as error:
                problem = str(error)
                return False
            return True

        try:
            await eventually(lambda: Deferred.fromCoroutine(connect()), f"{name} connected")
        except AssertionError as error:
            raise AssertionError(f"{error}: {problem}") from None
        if self._proxies is not None:
            self._proxies.name(name, client.out_addr)
        return client

    # -- the directory, as the observer sees it

    async def groups(self) -> list[Sequence[tuple[bytes, Address]]]:
        """The members of each partition's group, as instance and address; freshly asked for."""
        asking = Deferred.fromCoroutine(self.observer.node.finder.catch_up())
        with suppress(TimeoutError):  # what it knows is old then: it names whom it should not
            await asking.addTimeout(10.0, self._reactor)
        directory = self.observer.node.core.directory
        return [[(peer.instance, peer.address) for peer in each.members] for each in directory]

    async def missing(self) -> str:
        """What keeps the groups from being whole: without the dead, with all who live."""
        living = [node.address for node in self.nodes if node.wanted]
        return what_is_missing(await self.groups(), living, self.buried, self._replicas)

    async def bury(self, nodes: Iterable[ClusterNode]) -> None:
        """The present instances of these nodes are about to be no more."""
        addresses = {node.address for node in nodes}
        for members in await self.groups():
            self.buried.update(instance for instance, at in members if at in addresses)

    async def whole(self, seconds: float) -> float:
        """Wait until no group has a dead member and all nodes keep a share; how long it took.

        :raises AssertionError: if that takes longer than so many seconds.
        """
        missing = ""

        async def look() -> bool:
            nonlocal missing
            self.check()
            missing = await self.missing()
            return not missing

        try:
            return await eventually(
                lambda: Deferred.fromCoroutine(look()), "whole groups without the dead", seconds
            )
        except AssertionError as error:
            raise AssertionError(f"{error}: {missing}") from None

    async def quiet(self, seconds: float) -> float:
        """Wait until the groups are whole and stay as they are for a while; how long it took."""
        began = self._reactor.seconds()
        end = began + seconds
        await self.whole(seconds)
        while True:
            before = await self.groups()
            await deferLater(self._reactor, _QUIET_FOR, lambda: None)
            if await self.groups() == before and not await self.missing():
                return float(self._reactor.seconds() - began)
            assert self._reactor.seconds() < end, f"the groups still change after {seconds:g} s"


def what_is_missing(
    groups: Sequence[Sequence[tuple[bytes, Address]]],
    living: Iterable[Address],
    buried: set[bytes],
    replicas: int | None,
) -> str:
    """What keeps groups from being whole; empty if nothing does.

    :param groups: the members of each, as instance and address.
    :param living: the addresses of all nodes that are to keep a share.
    :param buried: instances that no group may name.
    :param replicas: how many members a group must have; None: at least one.
    """
    members = {member for group in groups for member in group}
    if not members:
        return "no group is known"
    dead = sorted({address for instance, address in members if instance in buried})
    if dead:
        return f"members that are dead: {_ports(dead)}"
    places = sorted(address for _, address in members)
    strangers = sorted(set(places) - set(living))
    if strangers:
        return f"members that nobody started: {_ports(strangers)}"
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        return f"two instances at one address: {_ports(twice)}"
    absent = sorted(set(living) - set(places))
    if absent:
        return f"nodes that keep nothing: {_ports(absent)}"
    sizes = sorted({len(group) for group in groups})
    if replicas is not None and sizes != [replicas]:
        return f"groups of {', '.join(map(str, sizes))} members instead of {replicas}"
    return ""


def _ports(addresses: Iterable[Address]) -> str:
    return ", ".join(f":{port}" for _, port in addresses)
