"""The target ``codec``: bytes are a message that stays what it is, or a BadMessage."""

from __future__ import annotations

import re
from typing import Any

from py2p_twisted.base import Peer
from py2p_twisted.errors import BadMessage
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import Answer, Ask

from ..hostile.forge import REPLIES, REQUESTS, Forger
from ..hostile.raw import hello
from .bending import any_kind, bent_message
from .source import ByteRandom

__all__ = ["codec"]

_SAID = hello(peer=Peer(bytes(16), b"\x05", "10.0.0.1", 4444))
_KINDS: list[Any] = [*REQUESTS, *REPLIES]


def codec(data: bytes) -> str:
    """Decode what these bytes are, or what they make of a good message.

    :returns: the kind of message that it is, or why it is none.
    """
    rng = ByteRandom(data)
    if rng.random() < 0.25:
        raw = rng.rest()
    else:
        kind = any_kind(_KINDS, rng)
        body = Forger(_SAID, rng).body(kind)
        raw = bent_message(Ask(7, body) if kind in REQUESTS else Answer(7, body), rng)
    try:
        message = decode(raw)
    except BadMessage as error:
        _, _, why = str(error).partition(" are no message: ")
        return re.sub(r"\d+", "n", why)
    again = encode(message)
    repeated = decode(again)
    assert repeated == message and type(repeated) is type(message), (message, repeated)
    assert encode(repeated) == again, message
    return type(message.body if isinstance(message, Ask | Answer) else message).__name__
