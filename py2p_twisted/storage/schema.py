"""The tables, and the checksums that guard what is in them (floor 1; SQL and arithmetic only).

``record`` is clustered by its key and has the value last: going through the heads reads no page
that holds nothing but a part of a long value.  ``tally`` counts what the other tables hold, by
triggers, in the same transaction; a row that is lost on the disk is noticed by it.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any
from zlib import crc32

from ..errors import StorageCorrupt, StorageMismatch
from .faults import SET_ASIDE

__all__ = [
    "APPLICATION",
    "VERSION",
    "Life",
    "begin_file",
    "check_schema",
    "is_empty",
    "meta_sum",
    "put_life",
    "read_life",
    "record_sum",
    "state_sum",
    "tally",
    "value_sum",
]

#: "py2p": in the file's header, so that ``file`` and others can tell whose it is.
APPLICATION = int.from_bytes(b"py2p", "big")
VERSION = 1

_TABLES = """
CREATE TABLE record (
    space INTEGER NOT NULL, partition INTEGER NOT NULL, key BLOB NOT NULL,
    crc INTEGER NOT NULL, value_crc INTEGER NOT NULL, size INTEGER,
    head BLOB NOT NULL, value BLOB,
    PRIMARY KEY (space, partition, key)
) WITHOUT ROWID;
CREATE TABLE state (partition INTEGER PRIMARY KEY, crc INTEGER NOT NULL, content BLOB NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, crc INTEGER NOT NULL, content BLOB NOT NULL)
WITHOUT ROWID;
CREATE TABLE life (one INTEGER PRIMARY KEY, crc INTEGER NOT NULL, content TEXT NOT NULL);
CREATE TABLE tally (
    kind INTEGER PRIMARY KEY, number INTEGER NOT NULL, bytes INTEGER NOT NULL, crcs INTEGER NOT NULL
);
"""
_KINDS = {
    "record": "length({row}.key) + length({row}.head) + ifnull({row}.size, 0)",
    "state": "length({row}.content)",
    "meta": "length({row}.content)",
}


def _triggers(kind: int, table: str, size: str) -> str:
    def counted(event: str, number: str, *rows: tuple[str, str]) -> str:
        sizes = " ".join(f"{sign} ({size.format(row=row)})" for sign, row in rows)
        crcs = " ".join(f"{sign} {row}.crc" for sign, row in rows)
        return (
            f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN UPDATE tally SET"
            f" number = number {number}, bytes = bytes {sizes}, crcs = crcs {crcs}"
            f" WHERE kind = {kind}; END;"
        )

    return "\n".join(
        (
            counted("insert", "+ 1", ("+", "new")),
            counted("delete", "- 1", ("-", "old")),
            counted("update", "+ 0", ("+", "new"), ("-", "old")),
            f"INSERT INTO tally VALUES ({kind}, 0, 0, 0);",
        )
    )


_FRAME = Struct(">qIqI")


def value_sum(value: bytes | None) -> int:
    """The checksum of a value; what tells none from an empty one is its size."""
    return 0 if value is None else crc32(value)


def record_sum(
    space: int, partition: int, key: bytes, size: int | None, value_crc: int, head: bytes
) -> int:
    """The checksum of a record, its value included by way of that one's own checksum.

    The space is added at the end.
    """
    framed = _FRAME.pack(partition, len(key), -1 if size is None else size, value_crc)
    return crc32(head, crc32(key, crc32(framed))) + space


def state_sum(partition: int, content: bytes) -> int:
    """The checksum of a partition's state."""
    return crc32(content, crc32(b"state %d" % partition))


def meta_sum(name: str, content: bytes) -> int:
    """The checksum of what is kept under a name."""
    return crc32(content, crc32(b"meta %d %s" % (len(name), name.encode())))


@dataclass(frozen=True)
class Life:
    """How the file was used last.

    :ivar boots: how often it was opened.
    :ivar clean: did the last use end properly?
    :ivar sync: how it was written.
    :ivar machine: what the system called its run; None if it does not tell.
    :ivar inode: of this file.
    :ivar generation: tells it from an earlier file with that inode; None if unknown.
    :ivar doubt: why it may have forgotten what it promised; stays until the file is begun anew.
    """

    boots: int
    clean: bool
    sync: str
    machine: str | None
    inode: int
    generation: int | None
    doubt: str = ""


def begin_file(connection: sqlite3.Connection) -> None:
    """Make the tables, inside a transaction."""
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    script = _TABLES + "\n".join(
        _triggers(kind, table, size) for kind, (table, size) in enumerate(_KINDS.items())
    )
    statement = ""
    for line in script.splitlines():  # executescript() would end the transaction
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def is_empty(connection: sqlite3.Connection) -> bool:
    """Is there nothing at all in the file?"""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not application and not tables


def check_schema(connection: sqlite3.Connection, path: str) -> None:
    """Is it a file of this package, and of a version that this one knows?

    :raises StorageMismatch: if not.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise StorageMismatch(
            f"{path} is another application's database (application id {application:#x}), not a"
            " node's. Name another file or folder",
            path=path,
        )
    if version != VERSION:
        raise StorageMismatch(
            f"{path} has schema version {version}, and this version of py2p_twisted knows"
            f" {VERSION} only. Use the version that wrote it, or one after that",
            path=path,
        )


def tally(connection: sqlite3.Connection, table: str) -> tuple[int, int, int]:
    """The number of rows that a table must have, their bytes, and the sum of their checksums."""
    kind = list(_KINDS).index(table)
    row = connection.execute(
        "SELECT number, bytes, crcs FROM tally WHERE kind = ?", (kind,)
    ).fetchone()
    return row if row is not None else (-1, 0, 0)


def put_life(connection: sqlite3.Connection, life: Life) -> None:
    """Note how the file is used, inside a transaction."""
    content = json.dumps(asdict(life))
    connection.execute(
        "INSERT OR REPLACE INTO life VALUES (1, ?, ?)", (crc32(content.encode()), content)
    )


def read_life(connection: sqlite3.Connection, path: str) -> Life:
    """How the file was used last.

    :raises StorageCorrupt: if that is not what was written.
    """
    row: Any = connection.execute("SELECT crc, content FROM life").fetchone()
    try:
        if row is not None and crc32(row[1].encode()) == row[0]:
            return Life(**json.loads(row[1]))
    except (AttributeError, TypeError, ValueError):
        pass  # not even of the shape that was written: the same as a wrong checksum
    raise StorageCorrupt(
        f"{path} is damaged: how it was used last cannot be read. {SET_ASIDE}", path=path
    )
