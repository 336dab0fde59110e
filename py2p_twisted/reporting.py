"""Asking nodes how they are (floor 3): how :class:`~.service.ChordService` looks after a ring.

Owns whom to ask, and how long to wait.  Changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.error import ConnectionClosed

from .base import Peer
from .errors import ChordError, Unavailable
from .node import Node
from .wire.messages import Declined, GetReport, Reply
from .wire.reports import Report

__all__ = ["Member", "Report", "Reporting"]

#: Seconds that a member may take to tell how it is, and members that are asked at the same time.
_PATIENCE = 2.0
_AT_ONCE = 32
#: More members are not asked: k may be large, and what peers tell of others may be wrong.
_MOST_MEMBERS = 4096


@dataclass(frozen=True)
class Member:
    """A member of the ring, and how it is.

    :ivar peer: who it is.
    :ivar report: what it tells; None: it was asked in vain.
    :ivar problem: why there is no report; empty if there is one.
    """

    peer: Peer
    report: Report | None
    problem: str = ""


class Reporting:
    """Reports of the nodes of one ring, through the node that it is given."""

    node: Node

    @property
    def status(self) -> str:
        """``"Nominal"``, or what is wrong."""
        return self.node.status()

    def report(self, peer: Peer | tuple[str, int] | None = None) -> Deferred[Report]:
        """How a node is.

        :param peer: a node, or the address of one; None: this node itself.
        :returns: fails with `PeerUnreachable`, `OperationTimeout`, or `Unavailable` if it is busy.
        """
        return Deferred.fromCoroutine(self._report(peer))

    async def _report(self, peer: Peer | tuple[str, int] | None) -> Report:
        core = self.node.core
        if peer is None or (isinstance(peer, Peer) and peer.instance == core.instance):
            return self.node.report(self.status)
        reply: Reply
        if isinstance(peer, Peer):
            reply = await core.ask(peer, GetReport(), _PATIENCE)
        else:
            link = await core.links.dial(*peer)
            peer = link.peer
            reply = await core.ask(peer, GetReport(), _PATIENCE)
        if isinstance(reply, Report):
            return reply
        reason = reply.reason if isinstance(reply, Declined) else "it is busy"
        raise Unavailable(f"{peer} does not tell how it is: {reason}")

    def reports(self) -> Deferred[list[Member]]:
        """How all members of the ring are, in the order of the circle.

        Members are those that keep something, as far as this node has heard, and those that they
        name as their neighbours.  Those that are asked in vain are listed as such.
        """
        return Deferred.fromCoroutine(self._reports())

    async def _reports(self) -> list[Member]:
        core = self.node.core
        found: dict[bytes, Member] = {}
        wanted = {peer.instance: peer for peer in core.directory.members()}
        wanted.update((link.peer.instance, link.peer) for link in core.ring_links())
        if core.member:
            wanted[core.instance] = core.me
        limit = DeferredSemaphore(_AT_ONCE)
        while wanted:
            asked = [limit.run(self._member, peer) for peer in wanted.values()]
            wanted = {}
            members: list[Member] = await gatherResults(asked, consumeErrors=True)
            for member in members:
                found[member.peer.instance] = member
            for member in members:
                if member.report is not None:
                    wanted.update(
                        (peer.instance, peer)
                        for peer in (member.report.predecessor, *member.report.successors)
                        if peer is not None and peer.instance not in found and core.valid(peer)
                    )
            if len(found) + len(wanted) > _MOST_MEMBERS:
                break
        return sorted(found.values(), key=lambda member: (member.peer.id, member.peer.address))

    def _member(self, peer: Peer) -> Deferred[Member]:
        async def ask() -> Member:
            try:
                report = await self._report(peer)
            except (ChordError, ConnectionError, ConnectionClosed) as error:
                return Member(peer, None, str(error))
            return Member(peer if report.leeching else report.peer, report)

        return Deferred.fromCoroutine(ask())
