"""Messages to bytes and back (floor 1; pure).

The codec is :mod:`msgspec`'s MessagePack with the union of all messages: what does not fit the
types is refused while it is decoded.
"""

from __future__ import annotations

import msgspec

from ..errors import BadMessage
from ..table.values import Stored
from .messages import Message

__all__ = ["decode", "encode"]


def _load(value: object) -> bytes:
    """A value that is on the disk travels like any other."""
    if isinstance(value, Stored):
        return value.load()
    raise NotImplementedError(f"{type(value)} is no part of a message")


_encoder = msgspec.msgpack.Encoder(enc_hook=_load)
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

#: One message as bytes, without its frame.
encode = _encoder.encode


def decode(raw: bytes) -> Message:
    """The message that these bytes are.

    :raises BadMessage: if they are none.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, OverflowError, ValueError) as error:
        raise BadMessage(f"{len(raw)} bytes are no message: {error}") from error
