"""Opens the data file: makes it, judges it, counts the opening (floor 1).

What is judged here can only be seen between two lives of the file: whose it is, whether it is a
copy or an old state of itself, and whether the machine stopped before all was on the disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

from ..errors import StorageCorrupt, StorageMismatch, StorageUnusable
from .faults import told
from .interface import Batch
from .lock import LockFile, fingerprint, machine
from .rows import apply, read_meta, read_states
from .schema import Life, begin_file, check_schema, is_empty, put_life, read_life, tally

__all__ = [
    "ALWAYS",
    "DATA_FILE",
    "INTERVAL",
    "Connect",
    "Opened",
    "connect",
    "locate",
    "make_folder",
    "open_file",
    "set_aside",
    "transaction",
]

#: How much is on the disk when a commit is done: all of it, or what is a second old.
ALWAYS, INTERVAL = "always", "interval"
#: The name of the data file in a folder.
DATA_FILE = "node.sqlite"
_FILE_ENDINGS = (".sqlite", ".sqlite3", ".db")
_BUSY_SECONDS = 5.0
#: The WAL never grows far beyond this many pages; see writer.py for when it is emptied earlier.
_MOST_WAL_PAGES = 16_384

Connect = Callable[..., sqlite3.Connection]


@dataclass(frozen=True)
class Opened:
    """An open file, as it was found.

    :ivar connection: for writing.
    :ivar life: the present one.
    :ivar used: bytes of all records.
    """

    connection: sqlite3.Connection
    life: Life
    meta: dict[str, bytes]
    states: dict[int, bytes]
    used: int


def locate(path: str | os.PathLike[str]) -> str:
    """The data file that a path means: itself, or the one in the folder that it is or will be."""
    absolute = os.path.realpath(os.fspath(path))
    if os.path.isdir(absolute) or not (
        os.path.exists(absolute) or absolute.endswith(_FILE_ENDINGS)
    ):
        return os.path.join(absolute, DATA_FILE)
    return absolute


def make_folder(path: str) -> None:
    """Make the data file's folder, for its user only."""
    folder = os.path.dirname(path)
    with told(folder, "made"):
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            os.mkdir(folder, 0o700)
            _sync_folder(os.path.dirname(folder))


def set_aside(path: str) -> None:
    """Rename the file, so that a new one can begin; an earlier one that was set aside goes."""
    with told(path, "set aside"):
        for ending in ("-wal", ""):
            if os.path.exists(path + ending):
                os.replace(path + ending, f"{path}.aside{ending}")
            elif os.path.exists(f"{path}.aside{ending}"):
                os.unlink(f"{path}.aside{ending}")
        if os.path.exists(path + "-shm"):
            os.unlink(path + "-shm")
        _sync_folder(os.path.dirname(path))


def connect(path: str, make: Connect, cache: int, *, writing: bool) -> sqlite3.Connection:
    """One connection to the file, for one thread at a time.

    :param make: ``sqlite3.connect``, or what stands for it.
    :param cache: bytes of pages to remember.
    """
    connection = make(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in (
            f"cache_size = -{max(cache // 1024, 64)}",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
            *(_FOR_WRITING if writing else ("query_only = ON",)),
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if writing and mode != "wal":
            raise StorageUnusable(
                f"{path} is on a file system where SQLite cannot share memory (its journal mode"
                f" stays {mode}). Keep the data on a local disk",
                path=path,
            )
    except BaseException:
        connection.close()
        raise
    return connection


_FOR_WRITING = (
    "synchronous = FULL",
    "fullfsync = ON",  # where fsync alone does not reach the disk
    f"wal_autocheckpoint = {_MOST_WAL_PAGES}",
    f"journal_size_limit = {_MOST_WAL_PAGES * 4096}",
    # So that writing in one thread and reading in another do not wait for each other.
    "journal_mode = WAL",
)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def open_file(
    path: str,
    make: Connect,
    cache: int,
    lock: LockFile,
    sync: str,
    expect: Mapping[str, bytes],
    *,
    anew: bool = False,
) -> Opened:
    """Open the file, or begin it; the lock is held.

    :param anew: there is nothing, and that is right, though there was something once.
    :raises StorageError: if it cannot be used; it is as it was then.
    """
    noted = 0 if anew else lock.boots()
    ended = noted if lock.ended() else 0
    log_lost = not os.path.exists(path + "-wal") and not lock.closed()
    if _size(path) == 0 and (noted or _size(path + "-wal")):
        raise _lost(path)
    _begin(path)
    inode, generation = fingerprint(path)
    now = Life(1, False, sync, machine(), inode, generation)
    meta: dict[str, bytes] = {}
    states: dict[int, bytes] = {}
    with told(path, "opened"), _refused(path, lock, log_lost=log_lost), ExitStack() as undo:
        # Nothing is written to a file before it is known to be ours.
        probe = connect(path, make, cache, writing=False)
        with closing(probe):
            fresh = is_empty(probe)
            if fresh and noted:
                raise _lost(path)
            if not fresh:
                check_schema(probe, path)
                meta, states = read_meta(probe, path), read_states(probe, path)
                bare = not states and not tally(probe, "record")[0]
                _compare(path, meta, expect, bare=bare)
                now = _again(now, read_life(probe, path), noted, ended, log_lost=log_lost)
            connection = connect(path, make, cache, writing=True)
            undo.callback(connection.close)
        with transaction(connection):
            if fresh:
                begin_file(connection)
            put_life(connection, now)
            apply(connection, _new_meta(meta, expect))
        # In this order: a lock file that knows of more openings than the file shows an old file.
        lock.note(now.boots)
        used = tally(connection, "record")[1]
        undo.pop_all()
    return Opened(connection, now, {**expect, **meta}, states, used)


@contextmanager
def _refused(path: str, lock: LockFile, *, log_lost: bool) -> Iterator[None]:
    """Who looks at a file and refuses it closes it: SQLite may have emptied and removed its log."""
    try:
        yield
    except BaseException:
        if not log_lost and lock.boots() and not os.path.exists(path + "-wal"):
            lock.note(lock.boots(), closed=True, ended=lock.ended())
        raise


def _size(path: str) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _lost(path: str) -> StorageCorrupt:
    return StorageCorrupt(
        f"{path} is missing or empty, and was not always: the data are gone, or not there yet (is"
        " the disk mounted?). If they are gone for good, remove the whole folder, or this file's"
        " -wal and -lock, and the node begins anew",
        path=path,
    )


def _again(now: Life, before: Life, noted: int, ended: int, *, log_lost: bool) -> Life:
    """The present life of a file that had one before."""
    doubt = _doubt(now, before, noted, ended, log_lost=log_lost)
    return replace(now, boots=before.boots + 1, doubt=doubt)


def _doubt(now: Life, before: Life, noted: int, ended: int, *, log_lost: bool) -> str:
    """Why the file may have forgotten what it promised; empty if it has not.

    :param noted: openings that the lock file knows of.
    :param ended: which of them is the last, if the lock file knows of its proper end; else 0.
    :param log_lost: SQLite's write-ahead log is not there, and nobody closed the file.
    """
    if before.doubt:
        return before.doubt
    generations = {now.generation, before.generation} - {None}
    if now.inode != before.inode or len(generations) > 1:
        return (
            "this file is a copy: it was restored, or moved from another disk, and the node may"
            " have promised more since"
        )
    if noted > before.boots:
        return (
            f"this file is an earlier state of itself: it was opened {before.boots} times, and the"
            f" lock file beside it knows of {noted}"
        )
    # Not if it was opened once more since: the machine may have stopped before that was noted.
    if ended == before.boots and not before.clean:
        return (
            "this file is an earlier state of itself: it is that of a running node, and the lock"
            " file beside it knows that this node was stopped properly"
        )
    if noted and log_lost and not before.clean:
        return (
            "the newest writes are gone: the file was not closed, and its -wal, where they were, is"
            " not there"
        )
    same_run = now.machine is not None and now.machine == before.machine
    if before.sync == INTERVAL and not before.clean and not same_run:
        return (
            "the machine stopped while the file was in use with sync=interval, and the last second"
            " may be missing"
        )
    return ""


def _begin(path: str) -> None:
    """Make an empty file, for its user only; its name is on the disk before anything is in it."""
    with told(path, "made"):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _new_meta(meta: Mapping[str, bytes], expect: Mapping[str, bytes]) -> Batch:
    batch = Batch()
    for name, content in expect.items():
        if name not in meta:
            batch.set_meta(name, content)
    return batch


def _compare(
    path: str, meta: Mapping[str, bytes], expect: Mapping[str, bytes], *, bare: bool
) -> None:
    """Refuse what is another's; nothing is taken over, though there may be nothing to lose.

    :param bare: no record and no state is kept.
    """
    differing = [
        f"{name} is {_shown(meta[name])} there and {_shown(content)} here"
        for name, content in expect.items()
        if meta.get(name, content) != content
    ]
    if differing:
        remedy = (
            "It holds no keys: if that node never was in a ring, because it was started with wrong"
            " options say, delete the file and what stands beside it under its name"
            if bare
            else "Start the node as it was, or name another file or folder"
        )
        raise StorageMismatch(
            f"{path} is another node's, or of another ring: {', '.join(differing)}. {remedy}",
            path=path,
        )


def _shown(content: bytes) -> str:
    text = content.decode("ascii", "replace")
    return repr(text) if text.isprintable() and text.isascii() and text else content.hex() or "''"
