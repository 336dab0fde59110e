"""A client that offers writes to a ring: ``python -m benchmarks.offering``, a process of its own.

With ``--depth`` each write begins when another has its answer, which finds out what the ring can
do; with ``--rate`` they begin when their time has come, whatever became of those before.  Then it
reads back what it wrote to keys that were written once, and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from math import exp, log
from time import perf_counter, time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.python.failure import Failure

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

__all__ = ["Times"]

KEYS = 10_000
VALUE = b"%0100d"
#: Of so many writes one goes to a key of its own, which tells afterwards if it was done.
ONCE_IN = 100
#: Seconds between two looks at what is due.
STEP = 0.002
#: How long after the last write may its answer come, in seconds.
PATIENCE = 15.0
#: Each bin of times is so much longer than the one before, from 10 microseconds on.
FINENESS, SHORTEST = log(1.02), 1e-5


class Times:
    """How long things took, in bins that differ by 2%."""

    def __init__(self, bins: dict[int, int] | None = None) -> None:
        self.bins: Counter[int] = Counter(bins or {})

    def add(self, seconds: float) -> None:
        """One took so long."""
        self.bins[int(log(max(seconds, SHORTEST) / SHORTEST) / FINENESS)] += 1

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.bins.values())

    def at(self, share: float) -> float:
        """That share of them took at most so many seconds; 1 for the slowest."""
        left = share * self.count
        for number in sorted(self.bins):
            left -= self.bins[number]
            if left <= 0:
                return SHORTEST * exp((number + 1) * FINENESS)
        return 0.0


class Offering:
    """The writes of one client.

    :ivar done: how long those took that were acknowledged.
    :ivar refused: how long those took that certainly were not done, and said so.
    :ivar errors: how many failed with which error, and whether the outcome is known.
    :ivar per_second: how many were acknowledged in each second.
    """

    def __init__(self, reactor: Any, client: ChordService, name: str) -> None:
        self._reactor = reactor
        self._client = client
        self._name = name.encode()
        self._once: dict[bytes, bool | None] = {}  # key -> was it written; None: unknown
        self._ended: Deferred[None] | None = None
        self._under_way = 0
        self._began = 0.0
        self._again = 0.0  # until then, each answer begins another write
        self.offered = 0
        self.done, self.refused = Times(), Times()
        self.errors: Counter[str] = Counter()
        self.per_second: Counter[int] = Counter()

    def _write(self) -> None:
        number, self.offered = self.offered, self.offered + 1
        once = number % ONCE_IN == 0
        if once:
            key = b"once %s %d" % (self._name, number)
        else:
            key = b"%s %d" % (self._name, number % KEYS)
        self._under_way += 1
        write = self._client.set(key, VALUE % number)
        write.addBoth(self._answered, perf_counter(), key if once else None)

    def _answered(self, result: Any, began: float, once: bytes | None) -> None:
        now = perf_counter()
        self._under_way -= 1
        outcome: bool | None = True
        if isinstance(result, Failure):
            result.trap(ChordError)
            unknown = result.value.outcome_unknown
            outcome = None if unknown else False
            self.errors[type(result.value).__name__ + (", unknown" if unknown else "")] += 1
            if not unknown:
                self.refused.add(now - began)
        else:
            self.done.add(now - began)
            self.per_second[int(now - self._began)] += 1
        if once is not None:
            self._once[once] = outcome
        if self._again and now < self._again:
            self._write()
        elif self._ended is not None and not self._under_way:
            ended, self._ended = self._ended, None
            ended.callback(None)

    async def at_rate(self, rate: float, seconds: float) -> None:
        """Offer so many a second."""
        self._began = perf_counter()
        while (passed := perf_counter() - self._began) < seconds:
            # A client that lags behind makes up for it, but answers have their turn, too.
            for _ in range(min(int(rate * passed) - self.offered, int(10 * rate * STEP) + 1)):
                self._write()
            await deferLater(self._reactor, STEP)

    async def at_depth(self, depth: int, seconds: float) -> None:
        """Offer another one whenever one has its answer."""
        self._began = perf_counter()
        self._again = self._began + seconds
        for _ in range(depth):
            self._write()
        await deferLater(self._reactor, seconds)

    async def rest(self) -> None:
        """Wait for the answers that are missing."""
        if self._under_way:
            self._ended = Deferred()
            self._ended.addTimeout(PATIENCE, self._reactor, lambda _, __: None)
            await self._ended

    async def wrong(self) -> list[str]:
        """What is not as it was told."""
        found = await self._client.get_many(list(self._once))
        wrong = [f"{self._under_way} writes have no answer"] if self._under_way else []
        for key, written in self._once.items():
            if written is not None and written != (key in found):
                told = "acknowledged, and is not there" if written else "refused, and was done"
                wrong.append(f"{key!r} was {told}")
        return wrong


async def offer(reactor: Any, chosen: argparse.Namespace) -> None:
    """Connect, wait for the others, offer, print."""
    client = ChordService(reactor, "127.0.0.1", 0)
    client.startService()
    await client.connect("127.0.0.1", chosen.port)
    await client.contains(b"anything")
    await client.node.finder.catch_up()
    offering = Offering(reactor, client, chosen.name)
    await deferLater(reactor, max(chosen.begin - time(), 0.0))
    if chosen.rate:
        await offering.at_rate(chosen.rate, chosen.seconds)
    else:
        await offering.at_depth(chosen.depth, chosen.seconds)
    await offering.rest()
    wrong = await offering.wrong()
    told = {
        "offered": offering.offered,
        "done": offering.done.bins,
        "refused": offering.refused.bins,
        "errors": offering.errors,
        "per second": offering.per_second,
        "wrong": wrong[:10],
        "checked": len(offering._once),
    }
    print(json.dumps(told), flush=True)
    await client.stopService()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one client."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offering", description=__doc__)
    add = parser.add_argument
    add("name", help="of this client, part of its keys")
    add("port", type=int, help="of a node on 127.0.0.1")
    add("--rate", type=float, default=0.0, help="writes a second")
    add("--depth", type=int, default=64, help="without --rate: writes under way")
    add("--seconds", type=float, default=5.0)
    add("--begin", type=float, default=0.0, help="when to begin, in seconds since 1970")
    chosen = parser.parse_args(arguments)
    react(lambda reactor: Deferred.fromCoroutine(offer(reactor, chosen)))


if __name__ == "__main__":
    sys.exit(main())
