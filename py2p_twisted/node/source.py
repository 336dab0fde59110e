"""A member that a watch listens to (floor 2; data only)."""

from __future__ import annotations

from ..base import Peer

__all__ = ["MOST_RETRY", "RETRY", "Source"]

#: Seconds until a member is asked again that did not answer, or not well, at first and at most.
RETRY, MOST_RETRY = 0.05, 2.0


class Source:
    """One member of some of the groups.

    :ivar number: under which it knows the watch.
    :ivar told: the partitions that it tells.
    :ivar asked: the partitions that it is asked for just now, and has not answered.
    :ivar todo: the partitions that it has to be asked for; true: to begin anew.
    """

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer = peer
        self.number = number
        self.told: set[int] = set()
        self.todo: dict[int, bool] = {}
        self.asked: set[int] = set()
        self.asking = False
        self.mute = False  # did it decline?
        self.due = 0.0
        self.pause = RETRY
        self.renew_at = 0.0
