"""What a node noticed lately, for whoever watches the ring (floor 2).

Owns a few dozen events; older ones are forgotten.  Nothing in the node acts on them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from ..base import Peer, count_of, to_base_58
from ..table.group import Config

__all__ = ["MOST_EVENTS", "Chronicle", "Event"]

#: Events that are kept, and characters of one.
MOST_EVENTS = 32
_MOST_TEXT = 256
#: Groups that change within so many seconds are one event ...
_TOGETHER = 1.0
#: ... that names so many of those who came and went.
_MOST_NAMES = 4


class Event(NamedTuple):
    """One thing that happened.

    :ivar number: counts up in one process.
    :ivar at: on the node's clock.
    :ivar kind: in a word: joined, left, lost, found, regrouped, unusable, usable or recovered.
    :ivar text: in a sentence without its full stop.
    """

    number: int
    at: float
    kind: str
    text: str


class Chronicle:
    """The latest events of one node.

    :param clock: IReactorTime.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._number = 0
        self._groups = 0  # that changed since the last event about them
        self._changed_at = 0.0
        self._came: dict[bytes, Peer] = {}
        self._went: dict[bytes, Peer] = {}

    def note(self, kind: str, text: str) -> None:
        """Something happened."""
        self._note(kind, text, self._clock.seconds())

    def _note(self, kind: str, text: str, at: float) -> None:
        self._number += 1
        self._events.append(Event(self._number, at, kind, text[:_MOST_TEXT]))

    def regrouped(self, before: Config, config: Config) -> None:
        """A group has other members from now on; many at a time become one event."""
        was = {peer.instance: peer for peer in before.members}
        now = {peer.instance: peer for peer in config.members}
        if was.keys() == now.keys():
            return
        self._close()
        self._groups += 1
        self._changed_at = self._clock.seconds()
        self._came.update((one, now[one]) for one in now if one not in was)
        self._went.update((one, was[one]) for one in was if one not in now)

    def _close(self) -> None:
        """Tell of the groups that changed, unless more of them may follow."""
        if not self._groups or self._clock.seconds() - self._changed_at < _TOGETHER:
            return
        parts = []
        for peers, others, what in (
            (self._came, self._went, "came"),
            (self._went, self._came, "went"),
        ):
            names = [to_base_58(peers[one].id).decode() for one in peers if one not in others]
            more = len(names) - _MOST_NAMES
            if names:
                rest = f" and {more} more" if more > 0 else ""
                parts.append(f"{', '.join(names[:_MOST_NAMES])}{rest} {what}")
        text = f"{count_of(self._groups, 'group')} changed" + ": " * bool(parts) + ", ".join(parts)
        self._note("regrouped", text, self._changed_at)
        self._groups = 0
        self._came.clear()
        self._went.clear()

    def latest(self) -> list[Event]:
        """The events that are kept, the oldest first."""
        self._close()
        return list(self._events)
