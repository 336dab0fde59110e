"""Writes and reads rows: a batch into a transaction, records out of it (floor 1; no threads).

SQLite lets go of Python's lock in every step, and a busy reactor may keep it for a while.  So many
rows go into one statement.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from struct import error as struct_error
from typing import Any

from ..errors import StorageCorrupt
from .faults import SET_ASIDE
from .interface import SPACES, Batch, Head, Kept, Seen
from .schema import meta_sum, record_sum, state_sum, tally, value_sum

__all__ = [
    "apply",
    "damaged",
    "look_at",
    "read_heads",
    "read_meta",
    "read_record",
    "read_states",
    "scan",
]

#: Rows of one statement; few sizes, so that their prepared forms are found again.
_CHUNKS = (64, 8, 1)
#: A value from here on goes alone: SQLite copies what it is given.
_LONG = 16 * 1024
_FETCHED = 256
#: What a damaged row raises that has a number where bytes should be, or the like.
_OF_WRONG_TYPE = (TypeError, AttributeError, ValueError, LookupError, struct_error)

_PUT_RECORD = (
    "INSERT INTO record (space, partition, key, crc, value_crc, size, head, value) VALUES {}"
    " ON CONFLICT (space, partition, key) DO UPDATE SET crc = excluded.crc,"
    " value_crc = excluded.value_crc, size = excluded.size, head = excluded.head,"
    " value = excluded.value"
)
_PUT_STATE = (
    "INSERT INTO state (partition, crc, content) VALUES {}"
    " ON CONFLICT (partition) DO UPDATE SET crc = excluded.crc, content = excluded.content"
)
_PUT_META = (
    "INSERT INTO meta (name, crc, content) VALUES {}"
    " ON CONFLICT (name) DO UPDATE SET crc = excluded.crc, content = excluded.content"
)
_CLEAR = "DELETE FROM record WHERE space = ? AND partition = ?"


def apply(connection: sqlite3.Connection, batch: Batch) -> None:
    """Make a batch's changes, inside a transaction."""
    connection.executemany(_CLEAR, batch.cleared())
    _apply_records(connection, batch)
    put, gone = _split(batch.states.items(), state_sum)
    _insert(connection, _PUT_STATE, put)
    connection.executemany("DELETE FROM state WHERE partition = ?", gone)
    put, gone = _split(batch.meta.items(), meta_sum)
    _insert(connection, _PUT_META, put)
    connection.executemany("DELETE FROM meta WHERE name = ?", gone)


def _apply_records(connection: sqlite3.Connection, batch: Batch) -> None:
    short: list[tuple[Any, ...]] = []
    for (space, partition), changes in batch.changed():
        dropped = []
        for key, change in changes.items():
            if change is None:
                dropped.append(key)
                continue
            head, value = change
            value_crc, size = value_sum(value), None if value is None else len(value)
            crc = record_sum(space, partition, key, size, value_crc, head)
            row = (space, partition, key, crc, value_crc, size, head, value)
            if len(head) + (size or 0) < _LONG:
                short.append(row)
            else:
                _insert(connection, _PUT_RECORD, [row])
        for keys in _chunks(dropped):
            connection.execute(
                f"{_CLEAR} AND key IN ({', '.join('?' * len(keys))})",
                (space, partition, *keys),
            )
    _insert(connection, _PUT_RECORD, short)


def _split(
    items: Iterable[tuple[Any, bytes | None]], checksum: Callable[[Any, bytes], int]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any]]]:
    put, gone = [], []
    for name, content in items:
        if content is None:
            gone.append((name,))
        else:
            put.append((name, checksum(name, content), content))
    return put, gone


def _insert(
    connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    for chunk in _chunks(rows):
        text = _for_rows(statement, len(chunk), len(chunk[0]))
        connection.execute(text, [field for row in chunk for field in row])


@lru_cache(maxsize=32)
def _for_rows(statement: str, rows: int, columns: int) -> str:
    return statement.format(", ".join([f"({', '.join('?' * columns)})"] * rows))


def _chunks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def damaged(path: str, what: str) -> StorageCorrupt:
    """The error for something that is not as it was written."""
    return StorageCorrupt(f"{path} is damaged: {what}. {SET_ASIDE}", path=path)


def read_record(
    connection: sqlite3.Connection, path: str, space: int, partition: int, key: bytes
) -> Kept | None:
    """One record.

    :raises StorageCorrupt: if it is not what was written.
    """
    row = connection.execute(
        "SELECT crc, value_crc, size, head, value FROM record"
        " WHERE space = ? AND partition = ? AND key = ?",
        (space, partition, key),
    ).fetchone()
    if row is None:
        return None
    crc, value_crc, size, head, value = row
    try:
        sound = (
            size == (None if value is None else len(value))
            and value_crc == value_sum(value)
            and crc == record_sum(space, partition, key, size, value_crc, head)
        )
    except _OF_WRONG_TYPE:
        sound = False
    if not sound:
        raise damaged(path, f"the record of key {key!r} in partition {partition} is another one")
    return Kept(head, value)


_SEEN = (
    "SELECT key, crc, value_crc, size, head, CASE WHEN size <= ? THEN value END FROM record"
    " WHERE space = ? AND partition = ? AND "
)


def look_at(
    connection: sqlite3.Connection, path: str, space: int, partition: int, key: bytes, most: int
) -> Seen | None:
    """One record, without a value of more than `most` bytes.

    :raises StorageCorrupt: if it is not what was written.
    """
    row = connection.execute(_SEEN + "key = ?", (most, space, partition, key)).fetchone()
    return None if row is None else _seen(path, space, partition, row, most)


def scan(
    connection: sqlite3.Connection,
    path: str,
    space: int,
    partition: int,
    start: bytes,
    number: int,
    most: int,
) -> list[Seen]:
    """So many records in the order of their keys, from a key on.  Raises like :func:`look_at`."""
    rows = connection.execute(
        _SEEN + "key >= ? ORDER BY key LIMIT ?", (most, space, partition, start, number)
    )
    return [_seen(path, space, partition, row, most) for row in rows.fetchall()]


def _seen(path: str, space: int, partition: int, row: tuple[Any, ...], most: int) -> Seen:
    key, crc, value_crc, size, head, value = row
    try:
        sound = crc == record_sum(space, partition, key, size, value_crc, head)
        if size is None or size <= most:
            sound = sound and value_crc == value_sum(value)
            sound = sound and size == (None if value is None else len(value))
    except _OF_WRONG_TYPE:
        sound = False
    if not sound:
        raise damaged(path, f"the record of key {key!r} in partition {partition} is another one")
    return Seen(key, head, size, value)


def read_heads(connection: sqlite3.Connection, path: str) -> Iterator[Head]:
    """All records without their values, as of the connection's transaction.

    :raises StorageCorrupt: as soon as one is not what was written; at the end if one is missing.
    """
    expected = tally(connection, "record")
    number = size_of_all = crcs = 0
    last: tuple[int, int, bytes] | None = None
    rows = connection.execute(
        "SELECT space, partition, key, crc, value_crc, size, head FROM record"
        " ORDER BY space, partition, key"
    )
    rows.arraysize = _FETCHED
    while some := rows.fetchmany():
        for space, partition, key, crc, value_crc, size, head in some:
            try:
                sound = crc == record_sum(space, partition, key, size, value_crc, head)
                sound = sound and (last is None or last < (space, partition, key))
                last = (space, partition, key)
                sound = sound and 0 <= space < SPACES
                found = (space, partition, key, head, size)
                size_of_all += len(key) + len(head) + (size or 0)
            except _OF_WRONG_TYPE:
                sound = False
            if not sound:
                raise damaged(path, f"the record of key {key!r} in partition {partition}")
            crcs += crc
            yield found
        number += len(some)
    if (number, size_of_all, crcs) != expected:
        raise damaged(path, f"{number} records are left of {expected[0]}, or they are other ones")


def read_states(connection: sqlite3.Connection, path: str) -> dict[int, bytes]:
    """The partitions' states.  Raises like :func:`read_heads`."""
    return _read_all(connection, path, "state", "partition", state_sum)


def read_meta(connection: sqlite3.Connection, path: str) -> dict[str, bytes]:
    """What is kept under names.  Raises like :func:`read_heads`."""
    return _read_all(connection, path, "meta", "name", meta_sum)


def _read_all(
    connection: sqlite3.Connection,
    path: str,
    table: str,
    name: str,
    checksum: Callable[[Any, bytes], int],
) -> dict[Any, bytes]:
    found: dict[Any, bytes] = {}
    size = crcs = 0
    for key, crc, content in connection.execute(f"SELECT {name}, crc, content FROM {table}"):
        try:
            sound = crc == checksum(key, content)
        except _OF_WRONG_TYPE:
            sound = False
        if not sound:
            raise damaged(path, f"the {table} of {name} {key!r}")
        found[key] = content
        size += len(content)
        crcs += crc
    expected = tally(connection, table)
    if (len(found), size, crcs) != expected:
        raise damaged(path, f"{len(found)} rows of {table} are left of {expected[0]}")
    return found
