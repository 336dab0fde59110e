"""The counters of one node's ballots (floor 0; pure).

A node counts apart in each partition and epoch: a number that a liar sent there, too high to be
outbid, is worth nothing anywhere else.
"""

from __future__ import annotations

from .group import Epoch

__all__ = ["Counters"]


class Counters:
    """Numbers for ballots: none is given twice in one partition and epoch.

    The first one is 2: an epoch's first ballot counts 1, and is promised to its first member.
    """

    def __init__(self) -> None:
        self._newest: dict[int, tuple[Epoch, int]] = {}
        self._highest = 1  # of all that were given

    def next(self, partition: int, epoch: Epoch, heard: int = 0) -> int:
        """A counter above all that were given there, and above one that was heard of."""
        newest, counter = self._newest.get(partition, (epoch, 1))
        if epoch < newest:  # what was given there is forgotten, but it was not above this
            self._highest = max(self._highest, heard) + 1
            return self._highest
        counter = max(counter if epoch == newest else 1, heard) + 1
        self._newest[partition] = (epoch, counter)
        self._highest = max(self._highest, counter)
        return counter
