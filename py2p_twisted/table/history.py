"""What a record tells of the writes before it (floor 0; pure).

A record remembers the ids and stamps of its last four writes.  Who has seen an earlier record of
the key can tell from them whether anything was changed since, and whether there was something in
between.
"""

from __future__ import annotations

from typing import NamedTuple

from .group import OPERATION_ID_BYTES, Record

__all__ = ["ABSENT", "History", "Seen", "compare", "history_of"]

_ENTRY_BYTES = OPERATION_ID_BYTES + 8


class History(NamedTuple):
    """The writes that one record remembers.

    :ivar entries: id and stamp of each, the newest last.
    :ivar applied: those that changed something.
    :ivar forgot: the stamp of the newest write that it does not remember, 0 if none.
    """

    entries: tuple[bytes, ...]
    applied: tuple[bytes, ...]
    forgot: int


def history_of(record: Record) -> History:
    """What a record remembers."""
    raw = record.operations
    entries = tuple(raw[at : at + _ENTRY_BYTES] for at in range(0, len(raw), _ENTRY_BYTES))
    applied = tuple(entry for entry in entries if not entry[OPERATION_ID_BYTES] & 0x80)
    return History(entries, applied, record.forgot)


class Seen(NamedTuple):
    """What somebody has seen of a key.

    :ivar write: id and stamp of the write that made it so; empty: there was none; None: not known.
    :ivar alive: was there a value?
    """

    write: bytes | None
    alive: bool


#: There was no record.
ABSENT = Seen(b"", False)


def compare(seen: Seen, history: History | None) -> tuple[bytes | None, bool, bool]:
    """What a later record means for somebody who has seen an earlier one.

    :param history: of that record; None: not known.
    :returns: the write that made it so (None: not known); was anything written since; may there
        have been other writes in between?
    """
    if history is None or seen.write is None:
        return (history.applied[-1] if history and history.applied else None), True, True
    applied, forgot = history.applied, history.forgot
    newest = applied[-1] if applied else None
    if not seen.write:
        return newest, bool(applied or forgot), bool(forgot) or len(applied) > 1
    if newest == seen.write:
        return newest, False, False
    if seen.write in applied:
        return newest, True, applied[-2] != seen.write
    stamp = int.from_bytes(seen.write[OPERATION_ID_BYTES:], "big")
    if newest is None:
        # Four refusals in a row: what was seen is what they left alone, if nothing else is gone.
        unchanged = forgot == stamp
        return (seen.write if unchanged else None), not unchanged, not unchanged
    # If less was forgotten, its tombstone was dropped meanwhile, and the record began anew.
    return newest, True, forgot != stamp or len(applied) > 1
