"""The nemesis: does to a ring of processes what the plan says, and undoes it (test support).

Owns who is hit now, and the story of the run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .nodes import ClusterNode
from .plan import Deck, Fault, Limits, pairs_of
from .proxy import Proxies
from .ring import Ring

__all__ = ["Nemesis"]

#: Seconds within which the groups are whole again after a fault.
_WHOLE_WITHIN = 120.0
#: Seconds between the end of one fault and the next try to begin one.
_PAUSES = (0.5, 3.0)


class Nemesis:
    """Faults for some time.

    :param rng: all of its choices.
    :param clients: names of the clients, which a cut puts on one of its sides.
    :param kinds: of :data:`.plan.KINDS`.
    :ivar story: what it did, for the reader.
    :ivar done: how often it did what.
    :ivar problems: what went wrong although nothing had a right to.
    """

    def __init__(
        self,
        reactor: Any,
        rng: Random,
        ring: Ring,
        proxies: Proxies,
        clients: Sequence[str],
        *,
        limits: Limits,
        kinds: Sequence[str],
        longest: float,
    ) -> None:
        self.story: list[str] = []
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        self._reactor = reactor
        self._rng = rng
        self._ring = ring
        self._proxies = proxies
        self._clients = list(clients)
        self._limits = limits
        self._deck = Deck(rng, limits, kinds, longest)
        self._hit: dict[str, ClusterNode] = {}
        self._under_way: list[Deferred[Any]] = []
        self._began = time.monotonic()

    @property
    def begun(self) -> bool:
        """Did it do anything yet?"""
        return bool(self.done)

    def tell(self, what: str) -> None:
        """Note what happens."""
        self.story.append(f"{time.monotonic() - self._began:8.2f} {what}")

    async def rage(self, seconds: float) -> None:
        """Faults for so long, and until the last is over; what they met is in `problems`."""
        try:
            await self._rage(time.monotonic() + seconds)
            await DeferredList(self._under_way)
        except BaseException:
            for fault in self._under_way:
                fault.cancel()
            raise

    async def _rage(self, end: float) -> None:
        while time.monotonic() < end and not self.problems:
            await self._sleep(self._rng.uniform(*_PAUSES))
            fault = self._deck.look()
            if not self._limits.allow(fault, self._hit, whole=True):
                continue  # enough are hit; others would only delay it
            if not self._limits.allow(fault, self._hit, whole=not await self._ring.missing()):
                continue
            free = [node for node in self._ring.nodes if node.name not in self._hit]
            fault, names = self._deck.take([node.name for node in free])
            self._begin(fault, [node for node in free if node.name in names])

    def _begin(self, fault: Fault, nodes: list[ClusterNode]) -> None:
        what = " ".join(filter(None, [fault.kind, fault.style]))
        names = ", ".join(node.name for node in nodes)
        self.tell(f"{what}: {names}, for {fault.seconds:.1f} s")
        self.done[what] += 1
        for node in nodes:
            self._hit[node.name] = node
        action = {"kill": self._kill, "pause": self._pause, "leave": self._leave, "cut": self._cut}
        under_way = Deferred.fromCoroutine(action[fault.kind](fault, nodes))

        def ended(result: Any) -> None:
            for node in nodes:
                del self._hit[node.name]
            self.tell(f"{what} of {names} is over")
            if isinstance(result, Failure):
                error = result.value
                if not isinstance(error, AssertionError):
                    self.tell(result.getTraceback())
                self.problems.append(f"{what} of {names}: {type(error).__name__}: {error}")

        self._under_way.append(under_way.addBoth(ended))

    async def _kill(self, fault: Fault, nodes: list[ClusterNode]) -> None:
        await self._ring.bury(nodes)
        for node in nodes:
            node.kill()
        for node in nodes:
            node.end()
        await self._sleep(fault.seconds)
        await self._come_back(nodes)

    async def _pause(self, fault: Fault, nodes: list[ClusterNode]) -> None:
        for node in nodes:
            node.freeze()
        try:
            await self._sleep(fault.seconds)
        finally:
            for node in nodes:
                node.thaw()

    async def _leave(self, fault: Fault, nodes: list[ClusterNode]) -> None:
        await self._ring.bury(nodes)
        alone = len(self._hit) == len(nodes)
        for node in nodes:
            handed_over = await node.leave()
            alone = alone and len(self._hit) == len(nodes)
            if not handed_over:
                self.done["leave that did not hand over"] += 1
                self.tell(f"{node.life.name} did not hand over")
                assert not alone, f"{node.life.name} did not hand over though no other was hit"
        await self._sleep(fault.seconds)
        await self._come_back(nodes)

    async def _come_back(self, nodes: list[ClusterNode]) -> None:
        for node in nodes:
            self._ring.restart(node)
        for node in nodes:
            await node.joined()
        took = await self._ring.whole(_WHOLE_WITHIN)
        names = ", ".join(node.life.name for node in nodes)
        self.tell(f"{names}: in the ring; the groups were whole {took:.1f} s later")

    async def _cut(self, fault: Fault, nodes: list[ClusterNode]) -> None:
        hit = [node.name for node in nodes]
        inside = [name for name in self._clients if self._rng.random() < 0.25]
        others = [node.name for node in self._ring.nodes if node.name not in hit]
        others += [name for name in self._clients if name not in inside]
        pairs = pairs_of(fault.style, hit, others, inside)
        refuse = fault.style == "refuse"
        self._proxies.cut(pairs, refuse)
        try:
            await self._sleep(fault.seconds)
        finally:
            self._proxies.heal(pairs, refuse)

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds, lambda: None)
