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
#: Seconds within which two members that tell the same mean the same.
_SAME = 15.0


class Timeline:
    """Events of a ring, by the time at which they happened."""

    def __init__(self) -> None:
        self._heard: dict[bytes, int] = {}  # by node: the number of its last event
        self._events: list[dict[str, Any]] = []

    def hear(self, report: Report, now: float) -> None:
        """A node told what it has noticed lately.

        :param now: seconds since 1970, by the clock of this machine.
        """
        instance = report.peer.instance
        last = self._heard.get(instance, 0)
        for event in report.events:
            if event.number <= last:
                continue
            self._heard[instance] = event.number
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
