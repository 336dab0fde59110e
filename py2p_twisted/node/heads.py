"""What is written of one record, beside its value (floor 2).

A *head* is all of a record but the value, and a promise that a PREPARE made for its key.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from ..errors import StorageCorrupt
from ..table.group import Ballot, Record

__all__ = ["HeadOfRecord", "decode_head", "decoded", "encode_head", "has_ballot"]

T = TypeVar("T")


class HeadOfRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A head.

    :ivar ballot: None if there is no record, but a promise.
    """

    ballot: Ballot | None
    operations: bytes
    forgot: int
    promise: Ballot | None


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(HeadOfRecord)


def encode_head(record: Record | None, promise: Ballot | None) -> bytes:
    """A record without its value, and a promise; empty if there is neither."""
    if record is None:
        return b"" if promise is None else _encode(HeadOfRecord(None, b"", 0, promise))
    return _encode(HeadOfRecord(record.ballot, record.operations, record.forgot, promise))


def decode_head(raw: bytes) -> HeadOfRecord:
    """The head that was written.

    :raises StorageCorrupt: if it is none.
    """
    return decoded(_head, raw)


def has_ballot(raw: bytes, ballot: Ballot) -> bool:
    """Is this the head of that version?"""
    return decode_head(raw).ballot == ballot


def decoded(decoder: msgspec.msgpack.Decoder[T], raw: bytes) -> T:
    """What was written.

    :raises StorageCorrupt: if it cannot be read.
    """
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise StorageCorrupt(f"what was written cannot be read: {error}") from error
