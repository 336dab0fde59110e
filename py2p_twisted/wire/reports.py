"""What whoever looks after a ring asks its nodes, and what they tell (floor 1; data only).

Everything is bounded, and all numbers are whole: a report of the largest node fits one message.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..base import Peer
from .bodies import Frozen, Number, Peers, Reason

__all__ = [
    "MOST_LINKS",
    "EventReport",
    "GetReport",
    "GroupsReport",
    "Leave",
    "LinkReport",
    "Report",
    "StorageReport",
    "Who",
]

#: Connections that one report tells of; members of the ring come first.
MOST_LINKS = 256

Word = Annotated[str, msgspec.Meta(max_length=64)]
#: Names and how often what they name happened.
Counts = Annotated[tuple[tuple[Word, Number], ...], msgspec.Meta(max_length=128)]


class GetReport(Frozen, frozen=True, tag=60):
    """How are you?  Answered by :class:`Report`."""


class Leave(Frozen, frozen=True, tag=61):
    """Hand everything over, and leave the ring.  Answered by :class:`Done` once that is over."""


class Who(Frozen, frozen=True, tag=62):
    """Instead of HELLO: tell who you are, to one who does not know yet what it would have to say.

    Answered by HELLO, and the connection is closed.
    """


class LinkReport(Frozen, frozen=True):
    """One connection.

    :ivar peer: who is at the other end.
    :ivar leeching: it keeps nothing.
    :ivar suspected: nothing was heard for so long that others are preferred.
    :ivar heard: milliseconds since something was heard.
    :ivar round_trip: smoothed, in microseconds; None: it was not asked anything yet.
    """

    peer: Peer
    leeching: bool
    suspected: bool
    heard: Number
    round_trip: Number | None


class GroupsReport(Frozen, frozen=True):
    """The groups that a node is in.

    :ivar kept: how many there are.
    :ivar proposes: of how many it is the first that lives: who writes there asks it.
    :ivar stopped: how many are on their way to their next epoch.
    :ivar below: how many have fewer living members than the ring has nodes for, or than they count.
    :ivar without_quorum: how many have too few to be used.
    :ivar keys: of users, in those that it proposes for: added up over all nodes, those of the ring.
    :ivar behind: how many are still to be compared with a member to which the connection is new;
        this node may have missed writes in them.
    """

    kept: Number
    proposes: Number
    stopped: Number
    below: Number
    without_quorum: Number
    keys: Number = 0
    behind: Number = 0


class StorageReport(Frozen, frozen=True):
    """Where a node keeps what it must not forget.

    :ivar durable: it outlives the process.
    :ivar sync: when it is on the disk; empty: nothing is.
    :ivar used: bytes of all keys, heads and values.
    :ivar quota: bytes that may be kept; None: no limit.
    :ivar behind: bytes that are on their way to the disk.
    """

    durable: bool
    sync: Word
    used: Number
    quota: Number | None
    behind: Number


class EventReport(Frozen, frozen=True):
    """Something that a node noticed.

    :ivar number: counts up, from its start on.
    :ivar ago: milliseconds since.
    :ivar kind: in a word, see :class:`~py2p_twisted.node.chronicle.Event`.
    :ivar text: in a sentence.
    """

    number: Number
    ago: Number
    kind: Word
    text: Annotated[str, msgspec.Meta(max_length=256)]


class Report(Frozen, frozen=True, tag=160):
    """A node, as it sees itself at one moment.

    :ivar version: of the package.
    :ivar wire: the newest wire version that it speaks.
    :ivar peer: its instance, identifier and address.
    :ivar ring: the ring's id, empty if it is in none.
    :ivar k: bits of an identifier.
    :ivar replicas: copies of a key in its ring; 0 while it knows none.
    :ivar phase: what it is doing: leeching, joining, joined, leaving or stopped.
    :ivar uptime: milliseconds since it began.
    :ivar clock: its wall clock, in milliseconds since 1970 (UTC).
    :ivar keys: of users, that it keeps.
    :ivar size: bytes of all values that it keeps.
    :ivar groups: that it is in.
    :ivar predecessor: on the circle.
    :ivar successors: on the circle, nearest first.
    :ivar fingers: the distinct nodes of its finger table.
    :ivar missing: members of groups that do not answer, and for how many milliseconds.
    :ivar links: its connections, at most :data:`MOST_LINKS`.
    :ivar connections: how many there are in all.
    :ivar asked: how often peers sent each kind of request.
    :ivar counters: what else it counts, see ``docs/chordctl.rst``.
    :ivar storage: None: all is in memory.
    :ivar expires: when its certificate ends to be valid, in seconds since 1970 (UTC).
    :ivar status: ``Nominal``, or what is wrong.
    :ivar events: what it noticed lately, the oldest first.
    """

    version: Word
    wire: Number
    peer: Peer
    ring: Annotated[bytes, msgspec.Meta(max_length=16)]
    k: Annotated[int, msgspec.Meta(ge=1, le=160)]
    replicas: Annotated[int, msgspec.Meta(ge=0, le=5)]
    phase: Word
    uptime: Number
    clock: Number
    keys: Number
    size: Number
    groups: GroupsReport
    predecessor: Peer | None
    successors: Peers
    fingers: Annotated[tuple[Peer, ...], msgspec.Meta(max_length=160)]
    missing: Annotated[tuple[tuple[Peer, Number], ...], msgspec.Meta(max_length=64)]
    links: Annotated[tuple[LinkReport, ...], msgspec.Meta(max_length=MOST_LINKS)]
    connections: Number
    asked: Counts
    counters: Counts
    storage: StorageReport | None
    expires: Number | None
    status: Reason
    events: Annotated[tuple[EventReport, ...], msgspec.Meta(max_length=64)] = ()

    @property
    def leeching(self) -> bool:
        """Does it keep nothing, and has no place on the circle?"""
        return self.phase not in ("joined", "leaving")
