"""The storage that keeps nothing: all that counts is in the node's own memory (floor 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ..errors import StorageError
from .interface import Batch, Done, Kept, Loaded, Seen

__all__ = ["MemoryStorage"]


class MemoryStorage:
    """Keeps nothing, and says at once that it is done.

    A node on it must keep its values itself: there is nothing to read here.
    """

    durable = False
    quota: int | None = None
    used = 0
    behind = 0
    broken: StorageError | None = None

    def open(self, reactor: Any, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """Nothing is there, except what is expected."""
        return Loaded(dict(expect or {}))

    def reset(self, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """The same as opening."""
        return Loaded(dict(expect or {}))

    def commit(self, batch: Batch, done: Done) -> None:
        """Forget the batch; `done` is called before this returns."""
        batch.take()
        done(None)

    def read(self, space: int, partition: int, key: bytes) -> Kept | None:
        """Nothing."""
        return None

    def look(self, space: int, partition: int, key: bytes, most: int) -> Seen | None:
        """Nothing."""
        return None

    def scan(self, space: int, partition: int, start: bytes, number: int, most: int) -> list[Seen]:
        """Nothing."""
        return []

    def close(self, clean: bool = True) -> Deferred[None]:
        """There is nothing to end."""
        return succeed(None)
