"""Probes for supervisors (floor 4): is the process well, and may it be given work?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web.resource import Resource

from .answers import as_text, later

if TYPE_CHECKING:
    from twisted.web.server import Request

    from ..service import ChordService

__all__ = ["Health", "Readiness", "unready", "unwell"]


def unwell(ring: ChordService) -> str:
    """Why a node should be started again; empty if it should not."""
    if ring.node.core.storage_problem:
        return f"it keeps nothing any more: {ring.node.core.storage_problem}"
    if ring.given_up:
        return f"it does not join: {ring.given_up}"
    return ""


async def unready(ring: ChordService) -> str:
    """Why a node does not do its part in the ring; empty if it does."""
    report = await ring.report()
    if report.phase != "joined":
        return f"it is {report.phase}, not in the ring"
    lacking = report.groups.without_quorum
    if lacking:
        return f"{lacking} of its {report.groups.kept} groups have no quorum"
    return ""


class Health(Resource):
    """``/healthz``: 503 if only a restart can help."""

    isLeaf = True

    def __init__(self, ring: ChordService) -> None:
        super().__init__()
        self._ring = ring

    def render_GET(self, request: Request) -> bytes:
        """Tell it in a line."""
        why = unwell(self._ring)
        return as_text(request, 503 if why else 200, why or "ok")


class Readiness(Resource):
    """``/readyz``: 200 only while the node is in the ring and its groups have quorums."""

    isLeaf = True

    def __init__(self, ring: ChordService) -> None:
        super().__init__()
        self._ring = ring

    def render_GET(self, request: Request) -> int:
        """Tell it in a line."""

        async def tell() -> bytes:
            why = await unready(self._ring)
            return as_text(request, 503 if why else 200, why or "ready")

        return later(request, tell())
