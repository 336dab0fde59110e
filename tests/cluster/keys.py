"""Which keys are worked on, by whom and for how long (test support; pure).

A key is given up for a new one after so many operations, and only the workers of one team touch it:
so the checker of histories can decide about each.
"""

from __future__ import annotations

from collections import deque
from random import Random

__all__ = ["KeyPool", "WorkKey", "teams"]

#: Values that a key remembers, for compare-and-set to expect.
_SEEN = 4


class WorkKey:
    """A key, and what was seen of it lately."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.operations = 0
        self.seen: deque[bytes | None] = deque([None], maxlen=_SEEN)


class KeyPool:
    """The keys of one team.

    :param at_once: how many are worked on at the same time.
    :param most: operations on one key; it is then given up for a new one.
    """

    def __init__(self, rng: Random, team: str, at_once: int, most: int) -> None:
        self._rng = rng
        self._team = team
        self._most = most
        self.all: list[WorkKey] = []
        self._active = [self._new() for _ in range(at_once)]
        # They begin at different points of their lives, or all would end together.
        for number, key in enumerate(self._active):
            key.operations = most * number // at_once

    def _new(self) -> WorkKey:
        key = WorkKey(f"{self._team} key {len(self.all) + 1}".encode())
        self.all.append(key)
        return key

    def take(self) -> WorkKey:
        """A key for one more operation."""
        place = self._rng.randrange(len(self._active))
        if self._active[place].operations >= self._most:
            self._active[place] = self._new()
        key = self._active[place]
        key.operations += 1
        return key


def teams(clients: int, size: int, count: int) -> list[list[int]]:
    """Which client each worker of each team uses: different ones as far as there are any."""
    return [[(team + worker) % clients for worker in range(size)] for team in range(count)]
