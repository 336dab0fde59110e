"""Joining a ring through a list of addresses (floor 3): see design, "Ring identity".

Owns the patience of a node that was told where its ring is: it tries for ever, with growing,
jittered pauses, and says what is in the way once, not at every try.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from .base import show_address
from .errors import ChordError
from .node import Node
from .node.core import Phase

__all__ = ["Joiner"]

Address = tuple[str, int]


class Joiner:
    """Joins through addresses, for ever.

    With the same list on every node, the one whose own address is first founds the ring, after all
    others said twice that they are in none.
    """

    log = Logger()

    def __init__(self, node: Node, addresses: Sequence[Address]) -> None:
        self._node = node
        self._core = node.core
        self._others = [a for a in addresses if a != node.core.me.address]
        self._first = bool(addresses) and addresses[0] == node.core.me.address
        self._alone = not self._others
        self._said_no_ring: dict[Address, int] = {}

    async def run(self) -> None:
        """Returns once the node is a member; what is in the way may be mended at any time.

        :raises AuthenticationFailed: if it is to found a ring and its certificate does not name it.
        """
        core, settings = self._core, self._node.core.settings
        pause = settings.redial_min
        told = ""
        while core.phase is not Phase.JOINED:
            if core.ring_id and self._alone:
                problem = await self._join_known()
            elif self._alone or self._may_found():
                await self._node.membership.join()
                return
            else:
                problem = await self._try()
            if problem and problem != told:
                self.log.info("Cannot join yet: {problem}. Trying on.", problem=problem)
                told = problem
            if problem:
                await core.sleep(core.jittered(pause))
                pause = min(2 * pause, settings.redial_max)

    def _may_found(self) -> bool:
        return self._first and all(self._said_no_ring.get(a, 0) >= 2 for a in self._others)

    async def _join_known(self) -> str:
        """Back in the ring that this node knew, through the peers that it remembers."""
        try:
            await self._node.membership.join()
        except ChordError as error:
            return str(error)
        return ""

    async def _try(self) -> str:
        """One round over all addresses; empty once joined, else what is in the way."""
        problems = []
        for host, port in self._others:
            try:
                link = await self._node.links.dial(host, port)
                if not link.hello.ring:
                    address = (host, port)
                    self._said_no_ring[address] = self._said_no_ring.get(address, 0) + 1
                    problems.append(f"{show_address(host, port)} is in no ring yet")
                    continue
                if not link.hello.leeching:
                    await self._node.finder.fetch_directory(link.peer)
                if self._core.phase is Phase.LEECHING:
                    await self._node.membership.join()
                if self._core.phase is Phase.JOINED:
                    return ""
                problems.append(f"this node is {self._core.phase.value}")
            except (ChordError, ConnectionError) as error:
                problems.append(str(error))
        return "; ".join(problems)
