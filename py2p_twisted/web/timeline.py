"""What happened in the ring, put together from what its members tell (floor 4; pure).

Several members notice the same: it is told once.  Bounded, the oldest are forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base import to_base_58

if TYPE_CHECKING:
    from ..wire.reports import Report

__all__ = ["Timeline"]

#: Events that are kept.
_MOST = 200
#: Nodes of which it is remembered what they told.
_MOST_NODES = 4096
#: Seconds within which two members that tell the same mean the same.
_SAME = 15.0


class Timeline:
    """Events of a ring, by the time at which they happened."""

    def __init__(self) -> None:
        self._heard: dict[bytes, tuple[int, int]] = {}  # by node: its uptime, its last event
        self._events: list[dict[str, Any]] = []

    def hear(self, report: Report, now: float) -> None:
        """A node told what it has noticed lately.

        :param now: seconds since 1970, by the clock of this machine.
        """
        instance = report.peer.instance
        uptime, last = self._heard.pop(instance, (0, 0))
        if report.uptime < uptime:
            last = 0  # it was started again, and counts anew
        newest = max((event.number for event in report.events), default=0)
        self._heard[instance] = (report.uptime, max(last, newest))
        if len(self._heard) > _MOST_NODES:
            del self._heard[next(iter(self._heard))]
        for event in report.events:
            if event.number <= last:
                continue
            self._add(
                {
                    "at": round(now - event.ago / 1000, 3),
                    "kind": event.kind,
                    "text": event.text,
                    "by": to_base_58(report.peer.id).decode(),
                }
            )

    def _add(self, event: dict[str, Any]) -> None:
        for known in self._events:
            same = known["kind"] == event["kind"] and known["text"] == event["text"]
            if same and abs(known["at"] - event["at"]) < _SAME:
                return
        self._events.append(event)
        self._events.sort(key=lambda event: float(event["at"]))
        del self._events[:-_MOST]

    def told(self) -> list[dict[str, Any]]:
        """All of them, the oldest first."""
        return list(self._events)
