"""Leader election with compare_and_set: one of many does the work, and another when that one fails.

Three candidates on one machine; each brings its own node of the ring::

    python examples/leader.py --port 4444
    python examples/leader.py --port 4445 --join 127.0.0.1:4444
    python examples/leader.py --port 4446 --join 127.0.0.1:4444

End the one that leads, kill it, or freeze it for a while (``kill -STOP``), and watch the others.

What this guarantees: a term has one leader, and terms only grow.  What it does not: that nobody
else *believes* to lead.  A process may be frozen between the moment in which it looks at its lease
and the moment in which it acts; when it goes on, somebody else leads.  So what two must not do at
once has to carry the term, and whoever carries it out has to refuse every term that is lower than
one it has seen: the term is a fencing token.  ``fenced`` does that for values in the dictionary.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

log = Logger("leader")


class Election:
    """One candidate.

    The record in the dictionary says who leads, in which term, and counts the leader's beats.  No
    two machines compare their clocks: a candidate steps in when it saw the same record for the
    length of a lease by its own clock.  The leader counts its lease from before it asked for it,
    so it is over for the leader first.

    :param office: the key of the record.
    :param lease: seconds.  A leader that is gone is replaced within two leases.
    """

    def __init__(
        self,
        ring: ChordService,
        office: str,
        lease: float = 10.0,
        now: Callable[[], float] = time.monotonic,  # time.time() jumps when a clock is set
    ) -> None:
        self._ring = ring
        self._office = office
        self._me = secrets.token_hex(8)  # another one at every start: a restart is a new candidate
        self._lease = lease
        self._now = now
        self._seen: bytes | None = None  # the record as it was last seen,
        self._since = now()  # and since when
        self._until = -math.inf
        self.term = 0

    @property
    def leads(self) -> bool:
        """True while nobody else can have won.  Look at it before each step of the work."""
        return self._now() < self._until

    async def beat(self) -> None:
        """Win, renew, or wait.  Call it about three times in a lease, never twice at once.

        :raises ChordError: the ring did not answer: nothing changed, and the lease runs on.
        """
        record = await self._look()
        if record["leader"] == self._me:
            await self._take({**record, "beats": record["beats"] + 1})
        elif record["leader"] is None or self._now() - self._since > self._lease:
            await self._take({"leader": self._me, "term": record["term"] + 1, "beats": 0})

    async def step_down(self) -> None:
        """Let another one lead at once; without this they wait for the end of the lease."""
        self._until = -math.inf
        record = await self._look()
        if record["leader"] == self._me:
            # The record must stay: if it were deleted, terms would begin again.
            await self._replace({**record, "leader": None})

    async def _look(self) -> dict[str, Any]:
        seen = await self._ring.get(self._office)
        if seen != self._seen:
            self._seen, self._since = seen, self._now()
        return {"leader": None, "term": 0} if seen is None else dict(json.loads(seen))

    async def _take(self, record: dict[str, Any]) -> None:
        began = self._now()
        if await self._replace(record):
            self.term, self._until = record["term"], began + self._lease

    async def _replace(self, record: dict[str, Any]) -> bool:
        """Write it, if nobody wrote since the last look."""
        return await self._ring.compare_and_set(
            self._office, self._seen, json.dumps(record).encode()
        )


class Deposed(Exception):
    """A later leader has been here."""


async def fenced(ring: ChordService, key: str, term: int, change: Callable[[Any], Any]) -> Any:
    """Change a value in the name of a term; returns the new one.

    :param change: makes the new value of the old one, at first of None; may be called repeatedly.
    :raises Deposed: the value was written in a later term.
    """
    while True:
        kept = await ring.get(key)
        written, value = (0, None) if kept is None else json.loads(kept)
        if written > term:
            raise Deposed(f"{key!r} was written in term {written}, this is term {term}")
        value = change(value)
        if await ring.compare_and_set(key, kept, json.dumps([term, value]).encode()):
            return value


async def work(ring: ChordService, term: int) -> None:
    """Yours, in small steps: this one counts."""
    count = await fenced(ring, "count", term, lambda old: (old or 0) + 1)
    log.info("term {term}: {count}", term=term, count=count)


async def main(reactor: Any, *arguments: str) -> None:
    """One candidate, until it is stopped."""
    parser = argparse.ArgumentParser(description="leader election")
    parser.add_argument("--port", type=int, default=0, help="the port of this node of the ring")
    parser.add_argument("--join", metavar="HOST:PORT", help="a member of the ring; else found one")
    parser.add_argument("--lease", type=float, default=10.0, help="seconds")
    options = parser.parse_args(arguments)
    host, _, port = (options.join or "").rpartition(":")

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    ring = ChordService(
        reactor, "127.0.0.1", options.port, join=[(host, int(port))] if options.join else []
    )
    election = Election(ring, "leader", options.lease)

    led = 0

    async def beat() -> None:
        nonlocal led
        try:
            await election.beat()
        except ChordError as error:
            log.warn("no beat: {error}", error=error)
        if led != (leads := election.term if election.leads else 0):
            log.info("leads term {leads}" if leads else "leads no more", leads=leads)
            led = leads

    async def step() -> None:
        if election.leads:
            try:
                await work(ring, election.term)
            except (ChordError, Deposed) as error:
                log.warn("not done: {error}", error=error)

    async def stop() -> None:
        beating.stop()
        working.stop()
        try:
            await election.step_down()
        except ChordError as error:
            log.warn("the others have to wait for the end of the lease: {error}", error=error)
        await ring.stopService()

    beating = task.LoopingCall(lambda: Deferred.fromCoroutine(beat()))
    working = task.LoopingCall(lambda: Deferred.fromCoroutine(step()))
    ring.startService()
    await ring.when_ready()
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
    await gatherResults([beating.start(options.lease / 3), working.start(0.2)])


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
