"""Examines a data file that no node is using (floor 1; changes nothing).

Reads every page: SQLite's own examination of its structure, then the checksum of every record,
value, state and name, and whether any is missing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from ..errors import ChordError, StorageCorrupt, StorageError, StorageUnusable
from .faults import SET_ASIDE, storage_error, told
from .lock import LockFile
from .opening import locate
from .rows import read_heads, read_meta, read_record, read_states
from .schema import VERSION, check_schema, is_empty, read_life

__all__ = ["DAMAGED", "SOUND", "UNKNOWN", "check"]

#: What :func:`check` returns, and the command exits with.
SOUND, DAMAGED, UNKNOWN = 0, 1, 2
#: Complaints of one kind that are printed.
_MOST_TOLD = 20


def check(path: str, say: Callable[[str], Any]) -> int:
    """Examine the file, or the one in the folder, and tell what is found line by line.

    :return: :data:`SOUND`, :data:`DAMAGED`, or :data:`UNKNOWN` if it could not be examined.
    """
    file = locate(path)
    lock = LockFile(file)
    try:
        if not os.path.isfile(file):
            raise StorageUnusable(f"{file} is not there", path=file)
        lock.acquire(create=False)
        try:
            with closing(_connect(file)) as connection:
                return _examine(connection, file, say)
        finally:
            lock.release()
    except StorageCorrupt as error:
        say(str(error))
        return DAMAGED
    except ChordError as error:
        say(str(error))
        return UNKNOWN


def _connect(file: str) -> sqlite3.Connection:
    quoted = file.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    with told(file, "opened"):
        return sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, isolation_level=None)


def _examine(connection: sqlite3.Connection, file: str, say: Callable[[str], Any]) -> int:
    with told(file, "read"):
        connection.execute("BEGIN")
        if is_empty(connection):
            say(f"{file} is empty: no node has used it yet")
            return SOUND
        check_schema(connection, file)
    complaints = 0
    for part in (_life, _structure, _records, _meta, _states):
        for sound, line in _guarded(part(connection, file), file):
            complaints += not sound
            say(line)
    if complaints:
        say(f"{file} is DAMAGED. {SET_ASIDE}")
        return DAMAGED
    say(f"{file} is sound")
    return SOUND


def _guarded(lines: Iterator[tuple[bool, str]], file: str) -> Iterator[tuple[bool, str]]:
    """The lines of one part of the examination, and what ended it early as the last of them."""
    try:
        yield from lines
    except (StorageError, sqlite3.Error, OSError) as error:
        found = storage_error(error, file, "read")
        if not isinstance(found, StorageCorrupt):
            raise found from error
        yield False, str(found).replace(f" {SET_ASIDE}", "")


def _life(connection: sqlite3.Connection, file: str) -> Iterator[tuple[bool, str]]:
    life = read_life(connection, file)
    end = "ended properly" if life.clean else "ended without closing, or is a copy of a running one"
    yield (
        True,
        f"schema {VERSION}, opened {life.boots} times, written with sync={life.sync}, {end}",
    )
    if life.doubt:
        yield True, f"may have forgotten promises: {life.doubt}"


def _structure(connection: sqlite3.Connection, file: str) -> Iterator[tuple[bool, str]]:
    found = [
        line
        for (text,) in connection.execute(f"PRAGMA integrity_check({_MOST_TOLD})")
        for line in text.splitlines()
    ]
    if found == ["ok"]:
        yield True, "structure: whole"
    else:
        yield from ((False, f"structure: {line}") for line in found)


def _records(connection: sqlite3.Connection, file: str) -> Iterator[tuple[bool, str]]:
    number = empty = size = wrong = 0
    places: set[tuple[int, int]] = set()
    values = _Values(connection, file)
    for space, partition, key, head, length in read_heads(connection, file):
        number += 1
        places.add((space, partition))
        empty += length is None
        size += len(key) + len(head) + (length or 0)
        complaint = values.complaint(space, partition, key)
        if complaint:
            wrong += 1
            if wrong <= _MOST_TOLD:
                yield False, complaint
    if wrong > _MOST_TOLD:
        yield False, f"and {wrong - _MOST_TOLD} more records like these"
    yield (
        not wrong,
        f"records: {number} in {len(places)} sets; {empty} without a value; {size} bytes; "
        f"{wrong} damaged",
    )


class _Values:
    """Reads records one by one, to compare them with their checksums."""

    def __init__(self, connection: sqlite3.Connection, file: str) -> None:
        self._connection = connection
        self._file = file

    def complaint(self, space: int, partition: int, key: bytes) -> str:
        """What is wrong with a record; empty if nothing is."""
        where = f"record of key {key!r} in partition {partition}"
        try:
            kept = read_record(self._connection, self._file, space, partition, key)
        except StorageCorrupt:
            return f"{where}: it is not what was written"
        except sqlite3.Error as error:
            return f"{where}: {error}"
        return "" if kept is not None else f"{where}: it cannot be found by its key"


def _meta(connection: sqlite3.Connection, file: str) -> Iterator[tuple[bool, str]]:
    names = sorted(read_meta(connection, file))
    yield True, f"of the node: {len(names)} entries" + (f" ({', '.join(names)})" if names else "")


def _states(connection: sqlite3.Connection, file: str) -> Iterator[tuple[bool, str]]:
    states = read_states(connection, file)
    size = sum(map(len, states.values()))
    yield True, f"partitions with a state: {len(states)}; {size} bytes"
