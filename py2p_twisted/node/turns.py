"""One write of a key at a time (floor 2).

Owns the queues of the keys that are being written by this node.
"""

from __future__ import annotations

from collections import deque

from .mail import Job

__all__ = ["Turns"]

#: Writes of one key that wait for their turn.
_MOST_WAITING = 1024


class Turns:
    """Who may write which key now.

    :ivar ready: jobs that waited, and whose turn has come.
    """

    def __init__(self) -> None:
        self.ready: deque[Job] = deque()
        self._busy: dict[bytes, deque[Job] | None] = {}  # key -> those that wait

    def take(self, job: Job) -> bool | None:
        """Is it this job's turn?  False: it waits; None: too many wait already."""
        key = job.key
        if key not in self._busy:
            self._busy[key] = None
            return True
        queue = self._busy[key]
        if queue is None:
            queue = self._busy[key] = deque()
        if len(queue) >= _MOST_WAITING:
            return None
        queue.append(job)
        return False

    def over(self, key: bytes) -> None:
        """Whoever wrote the key is done."""
        waiting = self._busy.pop(key)
        if waiting:
            self.ready.append(waiting.popleft())
            self._busy[key] = waiting or None
