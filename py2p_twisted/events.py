"""What a watch tells its user (floor 0; pure data, and the bounded queue that it waits in)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from .table.group import Ballot

__all__ = ["Backlog", "Event", "Kind", "Version"]

#: What happened to a key.
Kind = Literal["add", "change", "delete"]


@dataclass(frozen=True, order=True)
class Version:
    """Which of two states of one key is the later one.  Versions of different keys say nothing.

    Versions can be compared, hashed and shown, and mean the same on every node.
    """

    _ballot: Ballot

    def __str__(self) -> str:
        epoch, counter, instance = self._ballot
        return f"{epoch.era}.{epoch.number}.{counter}-{instance[:4].hex()}"

    def __repr__(self) -> str:
        return f"<Version {self}>"


@dataclass(frozen=True)
class Event:
    """A key of the ring changed.

    :ivar key: that key.
    :ivar kind: ``"add"``: there was no value before; ``"change"``: there was another one (or the
        same, written again); ``"delete"``: there is none any more.
    :ivar value: the value from then on; None if it was deleted.
    :ivar version: of that value; each event of a key has a later one than the event before it.
    :ivar skipped: there may have been other changes of this key since the event before it, which
        are not told.
    """

    key: bytes
    kind: Kind
    value: bytes | None
    version: Version
    skipped: bool = False


#: About what an event takes beside its key and value.
_EVENT_BYTES = 300


class Backlog:
    """Events that nobody has taken yet.

    :param most: of them.
    :param most_bytes: that they may take, about; one event always finds room.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._events: deque[Event] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def room(self) -> bool:
        """Is there room for one more?"""
        return not self._events or (len(self._events) < self._most and self.size < self._most_bytes)

    def add(self, event: Event) -> None:
        """One more, which waits behind the others."""
        self._events.append(event)
        self.size += _size(event)

    def take(self) -> Event:
        """The oldest.

        :raises IndexError: if there is none.
        """
        event = self._events.popleft()
        self.size -= _size(event)
        return event

    def clear(self) -> None:
        """Nobody will take them."""
        self._events.clear()
        self.size = 0


def _size(event: Event) -> int:
    return len(event.key) + len(event.value or b"") + _EVENT_BYTES
