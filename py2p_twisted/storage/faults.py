"""From what SQLite and the system say to errors that tell people what to do (floor 1)."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageUnusable,
)

__all__ = ["SET_ASIDE", "refused", "storage_error", "told"]

#: What to do about a file that cannot be trusted.
SET_ASIDE = (
    "Move it away (with the files that begin with its name) and start the node again: it comes back"
    " as a new instance and gets its data from the other members"
)

_FULL, _CORRUPT, _NOT_ONE, _NO_WRITING, _NO_OPENING, _FAILING, _BUSY, _ODD = range(8)

#: SQLite's primary result codes.
_BY_CODE = {
    1: _ODD,
    3: _NO_OPENING,
    5: _BUSY,
    6: _BUSY,
    8: _NO_WRITING,
    10: _FAILING,
    11: _CORRUPT,
    13: _FULL,
    14: _NO_OPENING,
    23: _NO_OPENING,
    26: _NOT_ONE,
}
#: What stands for them in Python 3.10, which does not tell the codes.
_BY_TEXT = {
    "database or disk is full": _FULL,
    "malformed": _CORRUPT,
    "not a database": _NOT_ONE,
    "readonly database": _NO_WRITING,
    "unable to open": _NO_OPENING,
    "disk i/o error": _FAILING,
    "is locked": _BUSY,
    "no such": _ODD,
    "could not decode": _CORRUPT,
}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


def storage_error(
    error: BaseException, path: str, doing: str, *, outcome_unknown: bool = False
) -> StorageError:
    """The error of this package for one of SQLite, of the system, or of this package.

    :param doing: what failed, as in "cannot be opened".
    :param outcome_unknown: of every kind but a full disk, where nothing was written.
    """
    if isinstance(error, StorageError):
        return error
    kind: type[StorageError]
    if isinstance(error, OSError):
        kind, text = _of_system(error)
    elif isinstance(error, sqlite3.Error):
        kind, text = _of_sqlite(error)
    else:
        kind, text = StorageError, f"{type(error).__name__}: {error}"
    unknown = outcome_unknown and kind is not StorageFull
    made = kind(f"{path} cannot be {doing}: {text}", path=path, outcome_unknown=unknown)
    made.__cause__ = error
    return made


def refused(cause: StorageError) -> StorageError:
    """The error for a commit that was not even tried, because an earlier one failed."""
    again = type(cause)(
        f"Nothing is written any more, since an earlier write failed: {cause}", path=cause.path
    )
    again.__cause__ = cause
    return again


@contextmanager
def told(path: str, doing: str) -> Iterator[None]:
    """Raise what goes wrong inside as an error of this package."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise storage_error(error, path, doing) from error


def _of_system(error: OSError) -> tuple[type[StorageError], str]:
    why = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return StorageFull, f"{why}. Make room and start the node again"
    return StorageUnusable, f"{why}. Check that it and its folder belong to the node's user"


def _of_sqlite(error: sqlite3.Error) -> tuple[type[StorageError], str]:
    kind = _kind(error)
    if kind == _FULL:
        return StorageFull, "the disk is full. Make room and start the node again"
    if kind == _NOT_ONE:
        return StorageCorrupt, (
            "it is no SQLite database; either another program's file, or its beginning is"
            f" destroyed. In that case: {SET_ASIDE}"
        )
    if kind in (_CORRUPT, _ODD):
        return StorageCorrupt, f"it is damaged ({error}). {SET_ASIDE}"
    if kind in (_NO_WRITING, _NO_OPENING):
        return StorageUnusable, (
            f"{error}. Check that it and its folder belong to the node's user and can be written"
        )
    if kind == _FAILING:
        return StorageUnusable, (
            f"{error}. The disk fails, or a limit on the size of files is reached; see the"
            " system's log, then start the node again"
        )
    if kind == _BUSY:
        return StorageUnusable, f"{error}. Another program is using the file; end that first"
    return StorageError, f"{type(error).__name__}: {error}"


def _kind(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _BY_CODE:
        return _BY_CODE[code & 0xFF]
    text = str(error).lower()
    return next((kind for part, kind in _BY_TEXT.items() if part in text), None)
