"""Looking at the ring for all who watch (floor 4): one look at a time serves everybody.

Owns when the members are asked how they are: never when nobody wants to know, and at most once in
:data:`EVERY` second, however many do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from ..ring.circle import partition_count
from .answers import as_json, later
from .timeline import Timeline
from .view import Rates, groups_of, id_of, node_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.web.server import Request

    from ..reporting import Member
    from ..service import ChordService

__all__ = ["EVERY", "Observatory", "Status"]

#: Seconds between two looks at a ring of up to so many nodes; in proportion more at a larger one.
EVERY = 1.0
_NODES = 200


class Observatory:
    """The ring, as its members last told.

    :param clock: IReactorTime.
    :param now: the calendar's time, in seconds since 1970.
    """

    def __init__(
        self, clock: Any, ring: ChordService, now: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._ring = ring
        self._now = now
        self._seen: dict[str, Any] = {}
        self._seen_at: float | None = None
        self._waiting: list[Deferred[dict[str, Any]]] = []
        self._counted: dict[bytes, tuple[int, int, int]] = {}  # instance: uptime, reads, writes
        self._timeline = Timeline()

    @property
    def pause(self) -> float:
        """Seconds from one look to the next: a large ring costs no more than a small one."""
        return EVERY * max(1.0, len(self._seen.get("nodes", ())) / _NODES)

    def look(self) -> Deferred[dict[str, Any]]:
        """The ring, as it was told within the last second."""
        at = self._seen_at
        if at is not None and 0 <= self._clock.seconds() - at < self.pause:
            return succeed(self._seen)
        waiting: Deferred[dict[str, Any]] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._look()).addBoth(self._tell)
        return waiting

    def _tell(self, result: dict[str, Any] | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.called:  # else whoever wanted to know went away
                one.callback(result)

    async def _look(self) -> dict[str, Any]:
        core = self._ring.node.core
        began = self._clock.seconds()
        members = await self._ring.reports()
        here = await self._ring.report()
        k = core.settings.k
        copies = sum(member.report.keys for member in members if member.report is not None)
        rates = self._count(members)
        for member in members:
            if member.report is not None:
                self._timeline.hear(member.report, self._now())
        trips = {link.peer.instance: link.round_trip for link in here.links}
        # One that is too busy to tell, or of a version that cannot, is there all the same.
        alive = {
            member.peer.instance: member.report is not None or core.alive(member.peer)
            for member in members
        }
        self._seen = {
            "at": self._now(),
            "ring": core.ring_name if core.ring_id else "",
            "subnet": core.settings.prot.subnet,
            "encryption": core.settings.prot.encryption,
            "k": k,
            "replicas": core.replicas,
            "here": id_of(core.me),
            "phase": here.phase,
            "status": here.status,
            "nodes": [
                node_of(
                    member,
                    k,
                    copies,
                    rates.get(member.peer.instance, Rates()),
                    trips.get(member.peer.instance),
                    alive=alive[member.peer.instance],
                )
                for member in members
            ],
            "groups": groups_of(core.directory, alive, core.replicas, partition_count(k)),
            "events": self._timeline.told(),
        }
        self._seen_at = began
        return self._seen

    def _count(self, members: list[Member]) -> dict[bytes, Rates]:
        """Operations per second of each node since the look before this one."""
        before, self._counted = self._counted, {}
        rates = {}
        for member in members:
            report = member.report
            if report is None:
                continue
            counters = dict(report.counters)
            now = (report.uptime, counters.get("reads", 0), counters.get("writes", 0))
            self._counted[member.peer.instance] = now
            last = before.get(member.peer.instance)
            if last is not None and last[0] < now[0]:
                seconds = (now[0] - last[0]) / 1000
                rates[member.peer.instance] = Rates(
                    round((now[1] - last[1]) / seconds, 1), round((now[2] - last[2]) / seconds, 1)
                )
        return rates


class Status(Resource):
    """``/status.json``: the ring, for programs."""

    isLeaf = True

    def __init__(self, observatory: Observatory) -> None:
        super().__init__()
        self._observatory = observatory

    def render_GET(self, request: Request) -> int:
        """What the page shows, as one document."""

        async def tell() -> bytes:
            return as_json(request, await self._observatory.look())

        return later(request, tell())
