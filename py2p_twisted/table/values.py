"""Values that are not in memory (floor 0; pure).

A record's value may stand for bytes that are on a disk.  Who compares, returns or sends it asks for
the bytes; everybody else passes it on.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Stored", "plain"]


class Stored:
    """Bytes that are somewhere else."""

    __slots__ = ()

    def __len__(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def load(self) -> bytes:
        """The bytes.

        :raises StorageError: if they cannot be had.
        """
        raise NotImplementedError


def plain(value: Any) -> bytes | None:
    """A record's value, as bytes; None for a tombstone.

    :raises StorageError: if it cannot be had.
    """
    return value.load() if isinstance(value, Stored) else value
