"""Messages that are bent: as the lists that they are on the wire, with something else in them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import Message

__all__ = ["any_kind", "bent_message"]

#: What no place of any message, or only some, may hold.
_STRANGE: tuple[Any, ...] = (
    *(None, True, 1.5, float("nan"), "text", b"", b"bytes", bytes(16), [], [[]], {}, {"a": 1}),
    *(-(2**63), -1, 0, 1, 2, 2**31, 2**53, 2**61, 2**62, 2**62 + 1, 2**63, 2**64 - 1),
    msgspec.msgpack.Ext(1, b""),
)


def any_kind(kinds: Sequence[Any], rng: Random) -> Any:
    """One of these messages, by its tag: so bytes mean the same when there are more messages."""
    by_tag = sorted((kind.__struct_config__.tag, kind.__name__, kind) for kind in kinds)
    place = bisect_left(by_tag, (rng.getrandbits(8),))
    return by_tag[place % len(by_tag)][2]


def bent_message(message: Message, rng: Random) -> bytes:
    """The bytes of a message in which up to three places differ."""
    value = msgspec.msgpack.decode(encode(message))
    for _ in range(rng.choice([0, 1, 1, 2, 3])):
        value = _bend(value, rng)
    raw = msgspec.msgpack.encode(value)
    if rng.random() < 0.9:
        return raw
    cut = rng.randint(0, len(raw))
    return raw[:cut] + rng.randbytes(rng.choice([0, 1, 4])) + raw[cut:][rng.choice([0, 1]) :]


def _bend(value: Any, rng: Random) -> Any:
    """Go down to some place, and put something else there."""
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randint(0, len(value) - 1)
        return [*value[:place], _bend(value[place], rng), *value[place + 1 :]]
    kind = rng.choice(["strange", "strange", "shorter", "longer", "twice", "number"])
    if kind == "shorter" and isinstance(value, list | bytes | str):
        return value[: rng.randint(0, len(value))]
    if kind == "longer" and isinstance(value, list):
        return [*value, rng.choice(_STRANGE)]
    if kind == "twice" and isinstance(value, list | bytes | str):
        return value * rng.choice([2, 3, 17, 1025])
    if kind == "number" and isinstance(value, int):
        return value ^ (1 << rng.randint(0, 62))
    return rng.choice(_STRANGE)
