"""What one watcher is told of one partition (floor 2).

Owns what waits to be told, and how far the telling of what is there has come.  Knows nobody who
listens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ..table.acceptor import Acceptor
from ..table.group import Ballot, Record
from ..wire.messages import Told
from .values import in_memory

__all__ = ["Share", "Stream"]

#: About what an entry takes beside key and value.
_ENTRY_BYTES = 120


class Share:
    """What waits for one watcher, over all that it watches.

    :param most: bytes, about; a single record may be longer.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0


class Stream:
    """What one watch is told of one partition.

    :param key: a table key.
    :param prefix: is it all keys that begin with it?
    :ivar reports: are records told, not only their versions?
    """

    __slots__ = (
        "_anew", "_cursor", "_key", "_last", "_owes_end", "_prefix", "_queue", "_scanning",
        "_share", "_size", "_until", "acceptor", "reports",
    )  # fmt: skip

    def __init__(self, key: bytes, acceptor: Acceptor, share: Share, *, prefix: bool) -> None:
        self.acceptor = acceptor
        self.reports = False
        self._key = key
        self._prefix = prefix
        self._share = share
        self._queue: deque[tuple[bytes, Record, int]] = deque()  # accepted, and not told yet
        self._size = 0  # of that
        self._scanning = True  # is there more to tell of what is there?
        self._cursor: bytes | None = None  # up to it was told what is there ...
        self._until: bytes | None = None  # then from the first key up to this one ...
        self._last = False  # ... which is being done
        self._owes_end = False  # has the watcher to be told that this was all?
        self._anew = True  # has the watcher to be told that it missed something?

    def begin_anew(self) -> None:
        """Forget what waits: all that is there is told from its beginning."""
        self._forget()
        self._cursor = self._until = None
        self._last = False
        self._scanning = self._anew = True

    def _forget(self) -> None:
        self._queue.clear()
        self._share.size -= self._size
        self._size = 0
        self._owes_end = False

    def _too_much(self) -> None:
        """Forget what waits: all that is there is told, beginning where the telling is just now.

        If it began with the first key each time, the last ones would never be told.
        """
        if not self._scanning:
            self.begin_anew()
            return
        self._forget()
        self._until, self._last = self._cursor, False
        self._anew = True

    def _comes_anyway(self, key: bytes) -> bool:
        """Is the telling of what is there still to reach this key?"""
        if not self._scanning:
            return False
        ahead = self._cursor is None or key > self._cursor
        before = self._until is not None and key <= self._until
        return ahead and before if self._last else ahead or before

    @property
    def ready(self) -> bool:
        """Is there something to tell?"""
        return bool(self._queue) or (
            not self.acceptor.wedged and (self._scanning or self._owes_end)
        )

    def add(self, key: bytes, record: Record) -> bool:
        """A record was accepted; False if nothing has to be done about it."""
        if key != self._key and not (self._prefix and key.startswith(self._key)):
            return False
        if self._comes_anyway(key):
            return False
        share = self._share
        size = _size(key, record if self.reports else None)
        if share.size and share.size + size > share.most:
            self._too_much()
            return True
        self._queue.append((key, record, size))
        self._size += size
        share.size += size
        return True

    def take(self, room: int, most: int) -> tuple[Told, int, int]:
        """The next that is to be told, about so many bytes and keys; how much it is.

        What is there and what is new take turns: neither keeps the other from being told.

        :raises StorageError: if a value cannot be read.
        """
        ballots: list[tuple[bytes, Ballot, bool]] = []
        heads: list[tuple[bytes, Record]] = []
        records: list[tuple[bytes, Record]] = []
        used = count = 0
        first = room // 2 if self._queue else room
        while self._scanning and not self.acceptor.wedged:
            for key, record in self._rest():
                if used >= first or count >= most:
                    break
                self._cursor = key
                used, count = used + _size(key, None), count + 1
                if self.reports:
                    heads.append((key, _head(record)))
                else:
                    ballots.append((key, record.ballot, record.value is not None))
            else:
                self._end_of_keys()
                continue
            break
        while self._queue and used < room and count < most:
            key, record, size = self._queue.popleft()
            self._size -= size
            self._share.size -= size
            used, count = used + size, count + 1
            if self.reports:
                records.append((key, in_memory(record)))
            else:
                ballots.append((key, record.ballot, record.value is not None))
        current = self._owes_end and not self._queue and not self._scanning
        self._owes_end = self._owes_end and not current
        anew, self._anew = self._anew, False
        config = self.acceptor.config
        told = Told(
            *(config.partition, config.epoch, anew),
            *(tuple(ballots), tuple(heads), tuple(records)),
            current,
        )
        return told, used + _ENTRY_BYTES, count

    def _end_of_keys(self) -> None:
        """All after the cursor was told."""
        if self._until is None or self._last:
            self._scanning, self._owes_end = False, True
        else:
            self._cursor, self._last = None, True

    def _rest(self) -> Iterator[tuple[bytes, Record]]:
        """What is there and was not told yet, up to the end of the keys."""
        acceptor = self.acceptor
        if not self._prefix:
            record = acceptor.get(self._key) if self._cursor is None else None
            if record is not None:
                yield self._key, record
            return
        for key, record in acceptor.page(acceptor.config.epoch, self._cursor, self._key):
            if self._last and self._until is not None and key > self._until:
                return
            yield key, record


def _size(key: bytes, record: Record | None) -> int:
    value = None if record is None else record.value
    return len(key) + _ENTRY_BYTES + (0 if value is None else len(value))


def _head(record: Record) -> Record:
    """The record without its value."""
    value = None if record.value is None else b""
    return Record(record.ballot, value, record.operations, record.forgot)
