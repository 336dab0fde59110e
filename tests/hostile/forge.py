"""Messages that no honest node sends, made from the message types themselves (test support)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, get_args

import msgspec
from msgspec import inspect as shapes

from py2p_twisted.base import Peer
from py2p_twisted.errors import BadMessage
from py2p_twisted.node.core import user_key
from py2p_twisted.ring.circle import key_partition
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Epoch
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import Answer, Ask, Hello, Reply, Request

from .raw import framed

__all__ = ["REPLIES", "REQUESTS", "Forger", "bent", "keys_of", "liars", "many", "stretched"]

REQUESTS: tuple[Any, ...] = get_args(Request)
REPLIES: tuple[Any, ...] = get_args(Reply)

#: What no field allows, and what some do.
_WRONG: tuple[Any, ...] = (
    *(None, True, False, 1.5, float("nan"), "text", b"bytes", [], [[]], {}, {"a": 1}),
    *(-(2**63), -1, 0, 2**62 + 1, 2**64 - 1),
    msgspec.msgpack.Ext(1, b""),
)

#: Numbers at the ends of what some field allows.
_ENDS = (0, 1, 2, 5, 63, 64, 1023, 1024, 2**32, 2**53, 2**61, 2**62 - 1, 2**62)


def many(request: Any, number: int, first: int = 1) -> bytes:
    """So many frames that ask the same."""
    return framed(*(encode(Ask(first + place, request)) for place in range(number)))


class Forger:
    """Makes messages that fit their types, and mostly the node that they are for.

    :param said: the HELLO of that node.
    :param peers: others that exist.
    :param config: of a partition, if most messages are to be about it.
    :param keys: of that partition.
    """

    def __init__(
        self,
        said: Hello,
        rng: Random,
        peers: Sequence[Peer] = (),
        config: Config | None = None,
        keys: Sequence[bytes] = (),
    ) -> None:
        self._rng = rng
        self._config = config
        self._peers = (
            *peers,
            said.peer,
            Peer(b"\xff" * 16, b"\x05", "127.0.0.1", 1),
            Peer(bytes(16), b"\xff" * 20, "\x1b[2J\n" * 50, 65535),
            Peer(b"liar" * 4, b"\x3f", "", 0),
        )
        self._keys = [*keys] * 4 + [user_key(b"%d" % number) for number in range(8)]
        self._keys += [b"", b"\xff", b"\x01\x02", bytes(4096 + 32)]

    def body(self, kind: type) -> Any:
        """A request or a reply."""
        return self._make(shapes.type_info(kind))

    def _number(self, low: int | None, high: int) -> int:
        if self._config is not None and self._rng.random() < 0.6:
            return self._config.partition
        ends = [end for end in _ENDS if (low or 0) <= end <= high]
        return self._rng.choice(ends) if self._rng.random() < 0.9 else self._rng.randint(0, high)

    def _make(self, shape: shapes.Type) -> Any:
        rng = self._rng
        match shape:
            case shapes.IntType(ge=low, le=high, lt=below):
                return self._number(low, high if high is not None else (below or 2**63) - 1)
            case shapes.BytesType(min_length=low, max_length=high):
                if high == 4096 + 32:
                    return rng.choice(self._keys)
                return rng.randbytes(rng.choice([low or 0, min(high or 64, 64)]))
            case shapes.StrType(max_length=high):
                return "\U0001f600" * rng.choice([0, 1, min(high or 9, 300)])
            case shapes.BoolType():
                return rng.random() < 0.5
            case shapes.NoneType():
                return None
            case shapes.EnumType(cls=cls):
                return rng.choice(list(cls))
            case shapes.UnionType(types=types):
                return self._make(rng.choice(types))
            case shapes.VarTupleType(item_type=item, min_length=low, max_length=high):
                size = rng.choice([low or 0, 1, 2, min(high or 5, 5)])
                return tuple(self._make(item) for _ in range(size))
            case shapes.TupleType(item_types=items):
                return tuple(map(self._make, items))
            case (
                shapes.NamedTupleType(cls=cls, fields=fields)
                | shapes.StructType(cls=cls, fields=fields)
            ):
                return self._special(cls) or cls(*(self._make(field.type) for field in fields))
        raise TypeError(shape)

    def _special(self, cls: type) -> Any:
        """What fits a node is found by more of its code than what is random."""
        rng = self._rng
        if rng.random() < 0.3:
            return None
        if cls is Peer:
            return rng.choice(self._peers)
        if cls in (Epoch, Config) and self._config is not None and rng.random() < 0.8:
            return self._config if cls is Config else self._config.epoch
        if cls is Epoch:
            return FIRST_EPOCH._replace(number=rng.choice([1, 1, 1, 2, 2**62]))
        if cls is Ballot:
            epoch = FIRST_EPOCH if self._config is None else self._config.epoch
            return Ballot(epoch, rng.choice(_ENDS), rng.randbytes(rng.choice([0, 16])))
        if cls is Config:
            epoch = FIRST_EPOCH._replace(number=rng.choice([1, 2, 2**61, 2**62]))
            members = tuple(rng.choice(self._peers) for _ in range(rng.choice([1, 2, 5])))
            return Config(rng.choice([0, 1, 63, 64, 1023]), epoch, members)
        return None


def stretched(body: Any) -> Iterator[bytes]:
    """One message again and again: each field missing, of the wrong type, beyond its ends."""
    envelope = Ask(7, body) if isinstance(body, REQUESTS) else Answer(7, body)
    value = body if isinstance(body, Hello) else envelope
    plain = msgspec.msgpack.decode(encode(value))
    for path in _places(plain):
        inner = _at(plain, path)
        if isinstance(inner, list):
            for length in range(len(inner)):
                yield msgspec.msgpack.encode(_replaced(plain, path, inner[:length]))
        for wrong in _WRONG:
            yield msgspec.msgpack.encode(_replaced(plain, path, wrong))


def bent(raw: bytes) -> bool:
    """Is it no message?"""
    try:
        decode(raw)
    except BadMessage:
        return True
    return False


def liars() -> Iterator[bytes]:
    """MessagePack that is deep, or announces more than there is."""
    for level in (b"\x91", b"\x81", b"\x92\xc0", b"\x81\xa1x"):
        for depth in (100, 1000, 100_000):
            yield level * depth
            yield b"\x93\x0a\x01\x92\x08" + level * depth  # Learn
            yield b"\x94\x0a\x01\x91\x01" + level * depth  # beyond the last field
    for length in (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x04\x00\x00\x00"):
        for kind in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
            for start in (b"", b"\x93\x0a", b"\x93\x0a\x01\x92\x08", b"\x93\x0b\x01\x92\x78"):
                yield start + kind + length


def keys_of(partition: int, number: int, k: int = 6) -> list[bytes]:
    """So many short keys of one partition."""
    keys: list[bytes] = []
    candidate = 0
    while len(keys) < number:
        key = candidate.to_bytes(3, "big")
        if key_partition(key, k) == partition:
            keys.append(user_key(key))
        candidate += 1
    return keys


def _places(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    yield path
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


def _at(value: Any, path: tuple[int, ...]) -> Any:
    for index in path:
        value = value[index]
    return value


def _replaced(value: Any, path: tuple[int, ...], new: Any) -> Any:
    if not path:
        return new
    copy = list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy
