"""A version that members told a watcher, and the room that versions may take (floor 0; pure).

Whether it is chosen is judged by :class:`~py2p_twisted.table.witness.Witness`.
"""

from __future__ import annotations

from typing import Any

from .history import History

__all__ = ["CANDIDATE_BYTES", "UNTOLD", "Budget", "Candidate"]

#: The value was not told.
UNTOLD: Any = object()
#: About what a version takes beside its value.
CANDIDATE_BYTES = 400


class Budget:
    """Bytes, about, that versions may take before it is known whether they are chosen.

    :param most: of them; for all partitions of a watch together.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    @property
    def spent(self) -> bool:
        """Is there no room any more?"""
        return self.used >= self.most


class Candidate:
    """A version that is later than what was told to the user.

    :ivar by: the members that told it, as bits.
    """

    __slots__ = ("alive", "by", "history", "value")

    def __init__(self, *, alive: bool) -> None:
        self.by = 0
        self.alive = alive
        self.history: History | None = None
        self.value: Any = UNTOLD if alive else None

    @property
    def size(self) -> int:
        """About what it takes."""
        known = self.alive and self.value is not UNTOLD
        return CANDIDATE_BYTES + (len(self.value) if known else 0)

    def forget_value(self) -> None:
        """Its value has to be fetched."""
        self.value = UNTOLD if self.alive else None
