"""Two nodes killed at the same moment, twice: every key is readable within three seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

from .nodes import ClusterNode, Guard
from .ring import Ring

__all__ = ["KillRun"]

KEYS = 500
#: Within which all keys must be readable again.
READABLE_WITHIN = 3.0
#: Within which the groups replace their dead members.
REPLACED_WITHIN = 120.0

#: Operations under way at the same time.
_AT_ONCE = 64
#: When reading on is given up; later than the limit, to tell by how much it was missed.
_GIVE_UP = 30.0
_PAUSE = 0.02


class KillRun:
    """One run.

    :param replicas: of the ring; None leaves it to the daemon.
    :param tell: shows a line to the user.
    :ivar problems: why the run failed, if it did.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        guard: Guard,
        rng: Random,
        *,
        nodes: int,
        replicas: int | None,
        tell: Callable[[str], None],
    ) -> None:
        self.problems: list[str] = []
        self._reactor = reactor
        self._rng = rng
        self._tell = tell
        self._ring = Ring(reactor, folder, guard, nodes, replicas)
        self._written: dict[bytes, bytes] = {}

    async def run(self) -> None:
        """All of it.

        :raises AssertionError: if something does not come to pass at all.
        """
        ring = self._ring
        try:
            await ring.start()
            await self._write()
            for time_of in ("first", "second"):
                await self._kill_two(time_of)
                if time_of == "first":
                    took = await ring.whole(REPLACED_WITHIN)
                    self._tell(f"all groups replaced their dead members {took:.1f} s later")
            self.problems += ring.accidents()
        finally:
            await ring.stop()

    async def _write(self) -> None:
        writer = await self._ring.client("writer", self._ring.nodes[0])
        self._written = {
            b"key %d" % number: b"value %d of %d" % (number, self._rng.getrandbits(64))
            for number in range(KEYS)
        }
        began = time.monotonic()

        async def write(key: bytes) -> None:
            await writer.set(key, self._written[key])

        await _each(self._written, write)
        self._tell(f"{KEYS} keys written in {time.monotonic() - began:.1f} s")

    async def _kill_two(self, time_of: str) -> None:
        living = [node for node in self._ring.nodes if node.wanted]
        victims = self._rng.sample(living, 2)
        survivors = [node for node in living if node not in victims]
        client = await self._ring.client("reader", self._rng.choice(survivors))
        await self._check_observer(survivors)
        await self._ring.bury(victims)
        began = time.monotonic()
        for node in victims:
            node.kill()
        wrong, lost, unread = await self._read_all(client, began + _GIVE_UP)
        took = time.monotonic() - began
        for node in victims:
            node.end()
        names = " and ".join(node.name for node in victims)
        result = f"{wrong} wrong, {lost} lost, {unread} unreadable"
        self._tell(f"{time_of}: {names} killed; {KEYS} keys read {took:.2f} s later: {result}")
        if wrong or lost or unread:
            self.problems.append(f"after the {time_of} kill of {names}: {result}")
        if took > READABLE_WITHIN:
            self.problems.append(
                f"after the {time_of} kill of {names}: {took:.2f} s until all keys were read,"
                f" {READABLE_WITHIN:g} s are allowed"
            )

    async def _check_observer(self, survivors: list[ClusterNode]) -> None:
        """The observer outlives its way in: it knows others by now."""
        if await self._ring.missing():
            self._ring.observer = await self._ring.client("observer", survivors[0])

    async def _read_all(self, client: ChordService, until: float) -> tuple[int, int, int]:
        """Read every key, again as long as it fails; how many are wrong, lost and unreadable."""
        wrong = lost = unread = 0

        async def read(key: bytes) -> None:
            nonlocal wrong, lost, unread
            while True:
                try:
                    value = await client.get(key)
                except ChordError:
                    if time.monotonic() > until:
                        unread += 1
                        return
                    await deferLater(self._reactor, _PAUSE, lambda: None)
                    continue
                if value is None:
                    lost += 1
                elif value != self._written[key]:
                    wrong += 1
                return

        await _each(self._written, read)
        return wrong, lost, unread


async def _each(
    keys: Iterable[bytes], operate: Callable[[bytes], Coroutine[Any, Any, None]]
) -> None:
    """Do something with each key, several at the same time."""
    left = list(keys)

    async def work() -> None:
        while left:
            await operate(left.pop())

    working = [Deferred.fromCoroutine(work()) for _ in range(_AT_ONCE)]
    await gatherResults(working, consumeErrors=True)
