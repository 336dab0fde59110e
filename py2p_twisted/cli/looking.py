"""One look at a whole ring, for the commands that show it (floor 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..base import Peer, show_address, to_base_58
from .session import Session
from .texts import count

__all__ = ["Look", "Seen", "look"]

_WELL = "All is well."


@dataclass
class Seen:
    """One node, as it and the others see it.

    :ivar peer: who it is.
    :ivar report: what it tells; None: it was asked in vain.
    :ivar problem: why; empty if it told.
    :ivar place: on the circle, from 0 to 1.
    :ivar share: of the groups, those that it proposes for, from 0 to 1.
    :ivar linked: is it connected, though it may tell nothing?
    :ivar round_trip: seconds, from here.
    :ivar suspected_by: members that hear nothing from it, or know that it is away.
    """

    peer: Peer
    report: Any
    problem: str
    place: float
    share: float = 0.0
    linked: bool = False
    round_trip: float | None = None
    suspected_by: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its identifier, in base 58."""
        return to_base_58(self.peer.id).decode("ascii")

    @property
    def address(self) -> str:
        """Where it is."""
        return show_address(*self.peer.address)

    @property
    def well(self) -> bool:
        """Is it in the ring, and known to be there?"""
        return self.state == "well"

    @property
    def state(self) -> str:
        """How it is, in a few words."""
        if self.report is None:
            return "tells nothing" if self.linked else "unreachable"
        if self.suspected_by:
            return f"suspected by {len(self.suspected_by)}"
        if self.report.phase != "joined":
            return str(self.report.phase)
        if self.report.groups.without_quorum:
            return "lacks quorums"
        if self.report.groups.below:
            return "below strength"
        return "well" if self.report.status == "Nominal" else "see status"

    def entry(self) -> dict[str, Any]:
        """For a program."""
        entry: dict[str, Any] = {
            "node": self.name,
            "identifier": self.peer.id,
            "instance": self.peer.instance.hex(),
            "address": self.address,
            "reachable": self.report is not None or self.linked,
            "state": self.state,
            "suspected_by": self.suspected_by,
        }
        if self.report is None:
            return {**entry, "problem": self.problem}
        report, groups = self.report, self.report.groups
        storage = report.storage
        return {
            **entry,
            "round_trip_seconds": self.round_trip,
            "share": round(self.share, 4),
            "version": report.version,
            "wire_version": report.wire,
            "phase": report.phase,
            "status": report.status,
            "uptime_seconds": report.uptime / 1000,
            "keys": report.keys,
            "bytes": report.size,
            "groups": {name: getattr(groups, name) for name in groups.__struct_fields__},
            "predecessor": report.predecessor and show_address(*report.predecessor.address),
            "successors": [show_address(*peer.address) for peer in report.successors],
            "connections": report.connections,
            "links": [
                {
                    "address": show_address(*link.peer.address),
                    "leeching": link.leeching,
                    "suspected": link.suspected,
                    "heard_seconds": link.heard / 1000,
                    "round_trip_seconds": link.round_trip and link.round_trip / 1e6,
                }
                for link in report.links
            ],
            "asked": dict(report.asked),
            "counters": dict(report.counters),
            "storage": storage
            and {name: getattr(storage, name) for name in storage.__struct_fields__},
            "certificate_expires": report.expires,
        }


@dataclass
class Look:
    """A ring at one moment.

    :ivar name: of the ring.
    :ivar nodes: in the order of the circle.
    :ivar keys: how many there are.
    """

    name: str
    k: int
    replicas: int
    nodes: list[Seen]
    keys: int

    @property
    def partitions(self) -> int:
        """Groups of the ring."""
        return int(2 ** min(self.k, 10))

    def groups(self, which: str) -> int:
        """The most groups that one member sees like this: members of one group see the same."""
        return max(
            (getattr(node.report.groups, which) for node in self.nodes if node.report), default=0
        )

    @property
    def lacking(self) -> int:
        """Groups without a quorum."""
        return self.groups("without_quorum")

    @property
    def below(self) -> int:
        """Groups below strength."""
        return self.groups("below")

    @property
    def well(self) -> bool:
        """Is there nothing to say but that?"""
        return self.summary() == _WELL

    def summary(self) -> str:
        """How the ring is, in a sentence."""
        away = sum(node.report is None and not node.linked for node in self.nodes)
        if lacking := self.lacking:
            groups = f"{count(lacking)} of {count(self.partitions)} groups"
            return f"{groups} have no quorum: run chordctl doctor."
        if below := self.below:
            return f"{count(below)} of {count(self.partitions)} groups are below strength."
        if away:
            return f"{count(away)} of {count(len(self.nodes))} nodes cannot be reached from here."
        if behind := self.groups("behind"):
            return f"{count(behind)} groups catch up with what they missed."
        if not all(node.well for node in self.nodes):
            return "Some nodes are not well."
        members = len(self.nodes)
        if members < 3 <= self.replicas:
            copies = (
                "1 node keeps 1 copy" if members == 1 else f"{members} nodes keep {members} copies"
            )
            wanted = f"{self.replicas} are wanted"
            return f"All is well, but this ring survives no crash: {copies}; {wanted}."
        return _WELL


async def look(session: Session) -> Look:
    """Ask all members how they are."""
    service = session.service
    members = await service.reports()
    nodes = [
        Seen(member.peer, member.report, member.problem, member.peer.id / 2**session.hello.k)
        for member in members
    ]
    proposed = sum(node.report.groups.proposes for node in nodes if node.report) or 1
    links = {link.peer.instance: link for link in service.links()}
    seen = {node.peer.instance: node for node in nodes}
    for node in nodes:
        link = links.get(node.peer.instance)
        node.linked = link is not None
        node.round_trip = link.round_trip if link is not None else None
        if node.report is None:
            continue
        node.share = node.report.groups.proposes / proposed
        silent = {other.peer.instance for other in node.report.links if other.suspected}
        silent |= {peer.instance for peer, _ in node.report.missing}
        for instance in silent & seen.keys():
            seen[instance].suspected_by.append(node.address)
    core = service.node.core
    return Look(core.ring_name, session.hello.k, core.replicas, nodes, await _keys(session, nodes))


async def _keys(session: Session, nodes: list[Seen]) -> int:
    """How many keys there are; as far as members tell, if they cannot be counted."""
    from ..errors import ChordError

    try:
        return int(await session.service.count())
    except ChordError:
        copies = [node.report.keys for node in nodes if node.report]
        return max(copies, default=0)
