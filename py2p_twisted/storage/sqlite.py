"""The storage that keeps all in one SQLite file (floor 1).

Joins the parts: the lock, the file, the writer's thread, and a connection of the reactor's thread
for reading.  All methods are for the reactor's thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import StorageError
from .faults import told
from .interface import Batch, Done, Head, Kept, Loaded, Seen
from .lock import LockFile
from .opening import (
    ALWAYS,
    INTERVAL,
    Connect,
    connect,
    locate,
    make_folder,
    open_file,
    set_aside,
)
from .rows import look_at, read_heads, read_record, scan
from .writer import Outcome, Waiting, Writer

__all__ = ["SQLiteStorage"]

#: Bytes of pages that the writing connection remembers.
_WRITER_CACHE = 4 * 1024 * 1024


class SQLiteStorage:
    """Keeps all in one file, and little of it in memory.

    :param path: a file, or a folder in which it is ``node.sqlite``; made if they are not there.
    :param sync: ``always``: a commit is done when it is on the disk.  ``interval``: it is done when
        the system has it; the end of the process loses nothing, that of the machine a second.
    :param quota: bytes that the owner wants to keep at most.
    :param cache: bytes of the file that reading remembers.
    :param close_timeout: seconds after which :meth:`close` gives up.
    :param make: makes connections; ``sqlite3.connect`` in life.
    :raises ValueError: for another `sync`.
    """

    log = Logger()
    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        sync: str = ALWAYS,
        quota: int | None = None,
        *,
        cache: int = 16 * 1024 * 1024,
        close_timeout: float = 30.0,
        make: Connect = sqlite3.connect,
    ) -> None:
        if sync not in (ALWAYS, INTERVAL):
            raise ValueError(f"sync must be {ALWAYS!r} or {INTERVAL!r}, not {sync!r}")
        self.path = locate(path)
        self.sync = sync
        self.quota = quota
        self._cache = cache
        self._close_timeout = close_timeout
        self._make = make
        self._lock = LockFile(self.path)
        self._used = 0
        self._behind = 0
        self._broken: StorageError | None = None
        self._reactor: Any = None
        self._reader: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        self._scans: set[sqlite3.Connection] = set()
        self._writing = False  # was the writer's thread started?
        self._clean = False  # will the writer note a proper end?
        self._closing: list[Deferred[None]] | None = None
        self._patience: Any = None  # the delayed call that ends closing

    @property
    def used(self) -> int:
        """Bytes of all kept keys, heads and values."""
        return self._used

    @property
    def behind(self) -> int:
        """Bytes that were given to :meth:`commit` and whose `done` was not called yet."""
        return self._behind

    @property
    def broken(self) -> StorageError | None:
        """Why nothing is kept any more; None while all is well."""
        return self._broken

    def open(self, reactor: Any, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """Begin, and tell what is there.  It blocks, so do it before the reactor matters.

        :param reactor: its ``callFromThread`` and ``callLater`` are used.
        :param expect: meta that must be as it is here; what has no such name yet is given it.
        :raises StorageInUse: if another process has it.
        :raises StorageMismatch: if it is another ring's, application's or later version's.
        :raises StorageCorrupt: if it is damaged; :meth:`reset` is possible then.
        :raises StorageFull: if there is no room.
        :raises StorageUnusable: if it cannot be opened or written.
        """
        self._must(self._writer is None, "opened twice")
        self._reactor = reactor
        make_folder(self.path)
        self._lock.acquire()
        return self._begin(expect or {})

    def reset(self, expect: Mapping[str, bytes] | None = None) -> Loaded:
        """Begin a new file with nothing but this meta; the old one stays as ``FILE.aside``.

        Only before the first commit, also when :meth:`open` found the file damaged.  A file that
        an earlier reset has set aside is deleted.

        :raises StorageError: like :meth:`open`.
        """
        self._must(self._reactor is not None and not self._writing, "reset too early or too late")
        if self._writer is None:
            self._lock.acquire()
        else:
            self._release(keep_lock=True)
        try:
            # What is set aside must not be taken for the newest state again, whatever happens now.
            self._lock.note(self._lock.boots() + 1)
            set_aside(self.path)
        except BaseException:
            self._lock.release()
            raise
        return self._begin(expect or {}, anew=True)

    def commit(self, batch: Batch, done: Done) -> None:
        """Keep a batch, which is empty and free afterwards.

        `done` is called later, never from here, in the order of the commits.  Until then nobody may
        be told anything that rests on the batch.  After a failure every later commit fails too.
        """
        self._must(self._writer is not None and self._closing is None, "written while it is closed")
        assert self._writer is not None
        taken = batch.take()
        self._behind += taken.size
        self._start()
        self._writer.write(Waiting(taken, taken.size, done))

    def read(self, space: int, partition: int, key: bytes) -> Kept | None:
        """The record that is kept at this moment; None if there is none.

        It may be newer than the newest one whose `done` was called: compare the head.

        :raises StorageCorrupt: if it is not what was written.
        :raises StorageError: if it cannot be read.
        """
        with told(self.path, "read"):
            return read_record(self._reading(), self.path, space, partition, key)

    def look(self, space: int, partition: int, key: bytes, most: int) -> Seen | None:
        """As :meth:`read`, but a value of more than `most` bytes is not read."""
        with told(self.path, "read"):
            return look_at(self._reading(), self.path, space, partition, key, most)

    def scan(self, space: int, partition: int, start: bytes, number: int, most: int) -> list[Seen]:
        """So many records in the order of their keys, from a key on.  See :meth:`look`."""
        with told(self.path, "read"):
            return scan(self._reading(), self.path, space, partition, start, number, most)

    def close(self, clean: bool = True) -> Deferred[None]:
        """Keep what is on the way, and end.

        :param clean: note that this was a proper end.
        :return: fires when all is on the disk and no thread is left, after every `done`; fails with
            :class:`.StorageError` if something could not be kept, or takes too long.
        """
        if self._writer is None:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        if self._closing is not None:
            self._closing.append(waiting)
            return waiting
        self._closing = [waiting]
        self._stop_reading()
        self._start()
        self._clean = clean
        self._writer.end(clean)
        self._patience = self._reactor.callLater(self._close_timeout, self._give_up)
        return waiting

    def _begin(self, expect: Mapping[str, bytes], *, anew: bool = False) -> Loaded:
        try:
            opened = open_file(
                self.path, self._make, _WRITER_CACHE, self._lock, self.sync, expect, anew=anew
            )
            try:
                with told(self.path, "opened"):
                    self._reader = connect(self.path, self._make, self._cache, writing=False)
            except BaseException:
                opened.connection.close()
                self._lock.note(self._lock.boots(), closed=True)
                raise
        except BaseException:
            self._lock.release()
            raise
        self._broken, self._used = None, opened.used
        call = self._reactor.callFromThread
        self._connection = opened.connection
        self._writer = Writer(
            self.path,
            opened,
            lambda outcome: call(self._deliver, outcome),
            lambda error: call(self._ended, error),
        )
        doubt = opened.life.doubt
        return Loaded(opened.meta, opened.states, opened.life.boots, not doubt, doubt, self._heads)

    def _start(self) -> None:
        if not self._writing:
            assert self._writer is not None
            self._writing = True
            self._writer.start()

    def _deliver(self, outcome: Outcome) -> None:
        if outcome.used is not None:
            self._used = outcome.used
        if outcome.error is not None and self._broken is None:
            self._broken = outcome.error
            self.log.error("Nothing is written any more. {error}", error=outcome.error)
        for commit in outcome.commits:
            self._behind -= commit.size
            try:
                commit.done(None if outcome.error is None else Failure(outcome.error))
            except Exception:
                self.log.failure("What follows a commit failed")

    def _heads(self) -> Iterator[Head]:
        with told(self.path, "read"):
            connection = connect(self.path, self._make, self._cache, writing=False)
            self._scans.add(connection)
            try:
                with closing(connection):
                    connection.execute("BEGIN")
                    yield from read_heads(connection, self.path)
            finally:
                self._scans.discard(connection)

    def _reading(self) -> sqlite3.Connection:
        if self._reader is None:
            raise StorageError(f"{self.path} cannot be read: it is closed", path=self.path)
        return self._reader

    def _stop_reading(self) -> None:
        """So that the writer is the last to close, and empties the log in its own thread."""
        for connection in (*self._scans, *([self._reader] if self._reader is not None else ())):
            connection.close()
        self._reader = None

    def _release(self, *, keep_lock: bool = False, ended: bool = False) -> None:
        self._stop_reading()
        self._connection.close()
        self._writer = None
        if not keep_lock:
            with suppress(StorageError):  # then the next opening has a doubt
                self._lock.note(self._lock.boots(), closed=True, ended=ended)
            self._lock.release()

    def _ended(self, error: StorageError | None) -> None:
        assert self._writer is not None
        self._writer.join(self._close_timeout)
        self._release(ended=self._clean and error is None)
        self._writing = False
        if self._patience.active():
            self._patience.cancel()
        waiting, self._closing = self._closing or [], None
        self._answer(waiting, error)

    def _give_up(self) -> None:
        error = StorageError(
            f"{self.path} was not written within {self._close_timeout:g} s of closing: the disk"
            " does not answer. What was acknowledged is there; the rest may be missing",
            path=self.path,
            outcome_unknown=True,
        )
        waiting, self._closing = self._closing or [], []
        self._answer(waiting, error)

    def _answer(self, waiting: list[Deferred[None]], error: StorageError | None) -> None:
        for deferred in waiting:
            if error is None:
                deferred.callback(None)
            else:
                deferred.errback(Failure(error))

    def _must(self, holds: bool, what: str) -> None:
        if not holds:
            raise RuntimeError(f"{self.path} is {what}")
