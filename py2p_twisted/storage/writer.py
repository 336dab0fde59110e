"""The thread that writes: whatever has come in meanwhile goes into one transaction (floor 1).

Owns the writing connection.  The reactor's thread hands batches over and hears what became of them;
it never waits for the disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from ..errors import StorageError, StorageUnusable
from .faults import refused, storage_error
from .interface import Batch, Done
from .opening import INTERVAL, Opened, transaction
from .rows import apply
from .schema import put_life, tally

__all__ = ["Outcome", "Waiting", "Writer"]

#: With sync=interval, seconds after which what was written is on the disk.
SYNC_SECONDS = 1.0
#: Seconds between two looks whether the file is still where it was.
LOOK_SECONDS = 2.0
#: Bytes that may be joined into one transaction; one batch may be larger.
_MOST_JOINED = 8 * 1024 * 1024
#: Commits in one transaction, so that the first of them does not wait for too many others.
_MOST_COMMITS = 1024
#: Changed pages, estimated, after which they go from the log to where they belong.
_PAGES = 1000
_PAGE = 4096


@dataclass(frozen=True)
class Waiting:
    """One commit that is on its way."""

    batch: Batch
    size: int
    done: Done


@dataclass(frozen=True)
class Outcome:
    """What became of some commits, in their order.

    :ivar used: bytes of all records now; None if nothing was written.
    """

    commits: Sequence[Waiting]
    error: StorageError | None
    used: int | None = None


class Writer:
    """The thread, from its start to its end.

    :param tell: called in the writer's thread with each :class:`Outcome`; must not block.
    :param ended: called last in the writer's thread, with what kept it from ending well, or None.
    """

    def __init__(
        self,
        path: str,
        opened: Opened,
        tell: Callable[[Outcome], Any],
        ended: Callable[[StorageError | None], Any],
    ) -> None:
        self._path = path
        self._connection = opened.connection
        self._life = opened.life
        self._tell = tell
        self._ended = ended
        self._news = threading.Condition()
        # Guarded by the condition:
        self._queue: deque[Waiting] = deque()
        self._ending = False
        self._clean = False
        self._broken: StorageError | None = None
        # The thread's own:
        self._unsynced_since: float | None = None
        self._looked_at = monotonic()
        self._changed_pages = 0
        self._waits_for_disk = True
        self._thread = threading.Thread(target=self._run, name="py2p_twisted storage")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, commit: Waiting) -> None:
        """Write this after everything else."""
        with self._news:
            if self._broken is not None:
                self._tell(Outcome([commit], refused(self._broken)))
            else:
                self._queue.append(commit)
                self._news.notify()

    def end(self, clean: bool) -> None:
        """Write what is there, then end."""
        with self._news:
            self._ending, self._clean = True, clean
            self._news.notify()

    def join(self, timeout: float) -> None:
        """Wait until the thread is gone, which it is as good as once `ended` was called."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            commits, ending = self._next()
            if commits:
                self._attempt("written", self._write_group, commits)
            elif not ending and self._until_sync() == 0.0:
                self._attempt("synced", self._sync)
            elif not ending:
                self._attempt("found", self._look)
            if ending and not commits:
                break
            if self._changed_pages >= _PAGES and self._broken is None:
                self._attempt("written", self._checkpoint)
        if self._broken is None:
            self._attempt("closed", self._finish)
        try:
            self._connection.close()
        except sqlite3.Error as error:
            self._break(storage_error(error, self._path, "closed"), [])
        self._ended(self._broken)

    def _next(self) -> tuple[list[Waiting], bool]:
        """What to write now; nothing if it is time to sync, to look for the file, or to end."""
        with self._news:
            while not self._queue and not self._ending:
                if not self._news.wait(self._until_duty()):
                    return [], False
            commits: list[Waiting] = []
            size = 0
            while self._queue and size < _MOST_JOINED and len(commits) < _MOST_COMMITS:
                size += self._queue[0].size
                commits.append(self._queue.popleft())
            return commits, self._ending

    def _until_duty(self) -> float | None:
        """Seconds until there is something to do though nothing is to be written."""
        if self._broken is not None:
            return None
        sync, look = self._until_sync(), max(0.0, self._looked_at + LOOK_SECONDS - monotonic())
        return look if sync is None else min(sync, look)

    def _until_sync(self) -> float | None:
        if self._unsynced_since is None or self._broken is not None:
            return None
        return max(0.0, self._unsynced_since + SYNC_SECONDS - monotonic())

    def _attempt(self, doing: str, work: Callable[..., None], *commits: Any) -> None:
        """Do it; whatever goes wrong ends all writing, and everybody who waits hears of it."""
        try:
            work(*commits)
        except Exception as error:
            unknown = storage_error(error, self._path, doing, outcome_unknown=True)
            self._break(unknown, commits[0] if commits else [])

    def _break(self, error: StorageError, commits: Sequence[Waiting]) -> None:
        with self._news:
            first = self._broken is None
            self._broken = self._broken or error
            never_tried = list(self._queue)
            self._queue.clear()
            if first or commits:
                self._tell(Outcome(commits, error))
            if never_tried:
                self._tell(Outcome(never_tried, refused(error)))

    def _look(self) -> None:
        """Is the file that is written to the one that the next start will find?

        :raises StorageUnusable: if not; SQLite would not notice.
        """
        self._looked_at = monotonic()
        try:
            inode = os.stat(self._path).st_ino
        except FileNotFoundError:
            inode = None
        if inode != self._life.inode:
            what = "is not there any more" if inode is None else "is another file by now"
            raise StorageUnusable(
                f"{self._path} {what}: it, or its folder, was deleted or moved while it was in use."
                " Nothing that is written would be found again; start the node again",
                path=self._path,
                outcome_unknown=True,
            )

    def _write_group(self, commits: Sequence[Waiting]) -> None:
        if monotonic() - self._looked_at > LOOK_SECONDS:
            self._look()
        joined = commits[0].batch
        for commit in commits[1:]:
            joined.join(commit.batch)
        lazy = self._life.sync == INTERVAL
        if lazy and self._unsynced_since is None:
            self._unsynced_since = monotonic()
        sync_now = not lazy or self._until_sync() == 0.0
        self._set_sync(sync_now)
        with transaction(self._connection):
            apply(self._connection, joined)
            used = tally(self._connection, "record")[1]
        if sync_now:
            self._unsynced_since = None
        self._changed_pages += len(joined) + joined.size // _PAGE
        self._tell(Outcome(commits, None, used))

    def _set_sync(self, now: bool) -> None:
        """Does the next transaction wait for the disk?"""
        if now == self._waits_for_disk:
            return
        self._waits_for_disk = now
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if now else 'NORMAL'}")

    def _sync(self) -> None:
        """Bring all to the disk: only a transaction that changes something does so."""
        self._set_sync(True)
        with transaction(self._connection):
            put_life(self._connection, self._life)
        self._unsynced_since = None

    def _checkpoint(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._changed_pages = 0

    def _finish(self) -> None:
        self._life = replace(self._life, clean=self._clean)
        self._sync()
