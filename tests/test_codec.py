"""The codec: what was encoded is decoded again, and everything else is a BadMessage."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, get_args

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as shapes
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.errors import BadMessage
from py2p_twisted.table.group import FIRST_EPOCH, Config
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import (
    Answer,
    Ask,
    Configs,
    Done,
    Hello,
    Learn,
    Message,
    Notify,
    Ping,
    Read,
    ReadMany,
    Refused,
    Reply,
    Request,
    Value,
)

from .fakes import config, instances_of, make_peer, record

REQUESTS: tuple[Any, ...] = get_args(Request)
REPLIES: tuple[Any, ...] = get_args(Reply)


def envelope(body: Any) -> Message:
    """The message that a request or a reply travels in."""
    return Ask(7, body) if isinstance(body, REQUESTS) else Answer(7, body)


def simplest(type_: Any) -> Any:
    """One instance of a type, everything in it as small as it may be but no tuple empty."""
    return _simplest(shapes.type_info(type_))


def _simplest(shape: Any) -> Any:
    match shape:
        case shapes.IntType(ge=low):
            return low or 0
        case shapes.BytesType(min_length=low):
            return b"x" * (low or 1)
        case shapes.StrType():
            return "x"
        case shapes.BoolType():
            return False
        case shapes.EnumType(cls=cls):
            return next(iter(cls))
        case shapes.UnionType(types=types):
            return _simplest(next(one for one in types if not isinstance(one, shapes.NoneType)))
        case shapes.VarTupleType(item_type=item):
            return (_simplest(item),)
        case shapes.TupleType(item_types=items):
            return tuple(map(_simplest, items))
        case (
            shapes.NamedTupleType(cls=cls, fields=fields)
            | shapes.StructType(cls=cls, fields=fields)
        ):
            return cls(*(_simplest(field.type) for field in fields))
    raise TypeError(shape)


#: A value of every type that MessagePack has.
SCALARS: tuple[Any, ...] = (None, False, 3, 1.5, "text", b"bytes", [[]], {})

#: One message of every kind.
ONE_OF_EACH: list[Message] = [
    simplest(Hello),
    simplest(Refused),
    *(envelope(simplest(kind)) for kind in (*REQUESTS, *REPLIES)),
]


def plain(message: Any) -> Any:
    """A message as the lists and scalars that it is on the wire."""
    return msgspec.msgpack.decode(encode(message))


def pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def places(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The path of everything in nested lists."""
    yield path
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def at(value: Any, path: tuple[int, ...]) -> Any:
    for index in path:
        value = value[index]
    return value


def replaced(value: Any, path: tuple[int, ...], new: Any) -> Any:
    """Nested lists with another value at one place."""
    if not path:
        return new
    copy = list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


class RoundTripTests(SynchronousTestCase):
    @settings(max_examples=400, deadline=None)
    @given(instances_of(Message))
    def test_decode_reverses_encode(self, message: Message) -> None:
        again = decode(encode(message))
        self.assertEqual(again, message)
        self.assertIs(type(again), type(message))
        self.assertEqual(encode(again), encode(message))

    def test_every_kind(self) -> None:
        """Hypothesis may miss one."""
        for message in ONE_OF_EACH:
            again = decode(encode(message))
            self.assertEqual(again, message)
            if isinstance(message, Ask | Answer) and isinstance(again, Ask | Answer):
                self.assertIs(type(again.body), type(message.body))

    def test_every_kind_of_body(self) -> None:
        for kind in (*REQUESTS, *REPLIES):
            with self.subTest(kind.__name__):
                self.round_trip(kind)

    @staticmethod
    def round_trip(kind: type) -> None:
        @settings(max_examples=8, deadline=None, database=None)
        @given(instances_of(kind))
        def same_again(body: Any) -> None:
            message = envelope(body)
            assert decode(encode(message)) == message

        same_again()

    def test_tags_differ(self) -> None:
        for kinds in (REQUESTS, REPLIES, get_args(Message)):
            tags = [kind.__struct_config__.tag for kind in kinds]
            self.assertEqual(len(set(tags)), len(tags))

    def test_types_survive(self) -> None:
        """Named tuples, enumerations and None do not come back as lists, numbers and empty."""
        read = decode(encode(Ask(1, Read(FIRST_EPOCH, b"key"))))
        assert isinstance(read, Ask) and isinstance(read.body, Read)
        self.assertIs(type(read.body.epoch), type(FIRST_EPOCH))
        for value in (None, b"", b"\0"):
            answer = decode(encode(Answer(1, Value(value))))
            assert isinstance(answer, Answer) and isinstance(answer.body, Value)
            self.assertEqual(answer.body.value, value)

    def test_a_megabyte(self) -> None:
        message = Answer(2**62, Value(bytes(range(256)) * 4096))
        self.assertEqual(decode(encode(message)), message)


class BadMessageTests(SynchronousTestCase):
    def assert_bad(self, raw: bytes) -> None:
        error = self.assertRaises(BadMessage, decode, raw)
        self.assertIn(f"{len(raw)} bytes are no message", str(error))

    def assert_bad_or_message(self, raw: bytes) -> None:
        try:
            message = decode(raw)
        except BadMessage:
            return
        self.assertIsInstance(message, Message)
        encode(message)

    def test_truncated(self) -> None:
        """A message that ends early is none, wherever it ends."""
        for message in ONE_OF_EACH:
            raw = encode(message)
            for length in range(len(raw)):
                self.assert_bad(raw[:length])

    def test_trailing(self) -> None:
        for message in ONE_OF_EACH:
            self.assert_bad(encode(message) + b"\xc0")

    def test_fields_missing(self) -> None:
        """Without its last fields it is bad, unless they have defaults."""
        for message in ONE_OF_EACH:
            value = plain(message)
            for path in places(value):
                inner = at(value, path)
                if not isinstance(inner, list):
                    continue
                for length in range(len(inner)):
                    self.assert_bad_or_message(pack(replaced(value, path, inner[:length])))
            self.assert_bad(pack(value[:1]))
            self.assert_bad(pack([]))

    def test_required_fields_missing(self) -> None:
        for kind in (*REQUESTS, *REPLIES):
            fields = msgspec.structs.fields(kind)
            required = sum(field.required for field in fields)
            value = plain(envelope(simplest(kind)))
            for length in range(required):
                body = value[-1][: 1 + length]
                self.assert_bad(pack([*value[:-1], body]))

    def test_wrong_types(self) -> None:
        """Another type anywhere: no message, unless the type is one that the place allows."""
        wrong: list[Any] = [
            None,
            True,
            1.5,
            "text",
            b"bytes",
            [],
            {},
            -1,
            msgspec.msgpack.Ext(1, b""),
        ]
        for message in ONE_OF_EACH:
            value = plain(message)
            for path in places(value):
                for new in wrong:
                    raw = pack(replaced(value, path, new))
                    try:
                        again = plain(decode(raw))
                    except BadMessage:
                        continue
                    # It was a value of the right type, and nothing was converted on the way.
                    self.assertEqual(at(again, path), new, (message, path))
                    self.assertIs(type(at(again, path)), type(new), (message, path))

    def test_wrong_types_are_refused_where_there_is_no_choice(self) -> None:
        hello = plain(simplest(Hello))
        for index, right in enumerate(hello):
            for new in SCALARS:
                if type(new) is type(right):
                    continue
                self.assert_bad(pack(replaced(hello, (index,), new)))

    def test_extremes(self) -> None:
        """Numbers at and beyond the ends of their range, texts and tuples at their limits."""
        numbers = (-(2**63), -1, 0, 1, 2**31, 2**32, 2**62, 2**62 + 1, 2**63, 2**64 - 1)
        for message in ONE_OF_EACH:
            value = plain(message)
            for path in places(value):
                old = at(value, path)
                if type(old) is int:
                    for number in numbers:
                        self.assert_bad_or_message(pack(replaced(value, path, number)))
                elif isinstance(old, bytes):
                    for size in (0, 1, 8, 15, 16, 17, 20, 21, 4128, 4129):
                        self.assert_bad_or_message(pack(replaced(value, path, bytes(size))))

    def test_limits(self) -> None:
        peer, key = make_peer(1), bytes(4096 + 32)
        just_right: list[Message] = [
            Ask(2**62, Ping()),
            Ask(0, Read(FIRST_EPOCH, key)),
            Ask(0, Read(FIRST_EPOCH._replace(number=2**62), b"")),
            Refused("x" * 64, "x" * 1024, "\U0001f600" * 1024),
            Answer(0, Configs((config(1023, 1, 1, 2, 3, 4, 5),), 0)),
            Hello(1, "s" * 256, "e" * 32, 160, bytes(16), False, False, peer),
        ]
        too_much: list[Message] = [
            Ask(2**62 + 1, Ping()),
            Ask(-1, Ping()),
            Ask(0, Read(FIRST_EPOCH, key + b"x")),
            Ask(0, Read(FIRST_EPOCH._replace(number=2**62 + 1), b"")),
            Refused("x" * 65, ""),
            Refused("", "x" * 1025),
            Refused("", "", "x" * 1025),
            Answer(0, Configs((config(1024),), 0)),
            Answer(0, Configs((Config(1, FIRST_EPOCH, ()),), 0)),
            Answer(0, Configs((config(1, 1, 1, 2, 3, 4, 5, 6),), 0)),
            Hello(1, "s" * 257, "", 1, b"", False, False, peer),
            Hello(1, "", "e" * 33, 1, b"", False, False, peer),
            Hello(1, "", "", 0, b"", False, False, peer),
            Hello(1, "", "", 161, b"", False, False, peer),
            Hello(1, "", "", 1, bytes(17), False, False, peer),
        ]
        for message in just_right:
            self.assertEqual(decode(encode(message)), message)
        for message in too_much:
            self.assert_bad(encode(message))

    def test_no_kind(self) -> None:
        for tag in (None, -1, 9, 10**6, "Hello", b"\0", 1.0, [0]):
            self.assert_bad(pack([tag, 1, [1]]))
            self.assert_bad(pack([10, 1, [tag]]))

    def test_request_for_reply(self) -> None:
        """An answer holds no request, an ask no reply, and neither an envelope."""
        for kind in REPLIES:
            self.assert_bad(pack([10, 1, plain(simplest(kind))]))
        for kind in REQUESTS:
            self.assert_bad(pack([11, 1, plain(simplest(kind))]))
        self.assert_bad(pack([10, 1, plain(Ask(1, Ping()))]))
        self.assert_bad(encode(Done()))

    def test_random_bytes(self) -> None:
        rng = Random(4)
        for _ in range(3000):
            self.assert_bad_or_message(rng.randbytes(rng.randrange(64)))

    @settings(max_examples=200, deadline=None)
    @given(instances_of(Message), st.data())
    def test_one_byte_changed(self, message: Message, data: Any) -> None:
        raw = bytearray(encode(message))
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] = data.draw(st.integers(0, 255))
        self.assert_bad_or_message(bytes(raw))

    def test_deep_nesting(self) -> None:
        """10,000 arrays or maps in each other, as a body, a field, and beyond the last field."""
        for level in (b"\x91", b"\x81", b"\x92\xc0", b"\x81\xa1x"):
            deep = level * 10_000 + b"\xc0"
            for start in (b"", b"\x93\x0a\x01", b"\x93\x0a\x01\x92\x08", b"\x94\x0a\x01\x91\x01"):
                self.assert_bad(start + deep)

    def test_lying_lengths(self) -> None:
        """A length that the frame cannot hold costs no memory: nothing is reserved for it."""
        lengths = (
            b"\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff",
            b"\x04\x00\x00\x00",
            b"\x00\xff\xff\xff",
        )
        for length in lengths:
            for kind in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
                liar = kind + length
                self.assert_bad(liar)
                self.assert_bad(b"\x93\x0a" + liar)
                self.assert_bad(b"\x93\x0a\x01\x92\x08" + liar)  # Learn
                self.assert_bad(b"\x93\x0a\x01\x92\x16" + liar)  # ReadMany
                self.assert_bad(b"\x93\x0b\x01\x92\x78" + liar)  # Value
                self.assert_bad(b"\x94\x0a\x01\x91\x01" + liar)  # beyond the last field

    def test_the_liars_are_aimed_right(self) -> None:
        self.assertTrue(encode(Ask(1, Learn((config(),)))).startswith(b"\x93\x0a\x01\x92\x08\x91"))
        self.assertTrue(encode(Ask(1, ReadMany(()))).startswith(b"\x93\x0a\x01\x92\x16\x90"))
        self.assertTrue(encode(Answer(1, Value(b""))).startswith(b"\x93\x0b\x01\x92\x78\xc4"))

    def test_later_fields_are_passed_over(self) -> None:
        """A later version may add a field behind the others."""
        self.assertEqual(decode(pack([10, 1, [*plain(Ping()), "new"], "newer"])), Ask(1, Ping()))

    def test_scalars(self) -> None:
        for value in (*SCALARS, [], b""):
            self.assert_bad(pack(value))
        self.assert_bad(b"")

    def test_a_record_in_full(self) -> None:
        """What is nested deepest is checked too."""
        good = plain(simplest(Config))
        self.assertEqual(msgspec.convert(good, Config), simplest(Config))
        whole = pack([10, 1, [30, [[0, [0, 0, 1], True, [[b"key", plain(record(1))]]]]]])
        self.assertIsInstance(decode(whole), Ask)
        for spoilt in ([[[0, 0], 1, b""], b"v"], [[[0, 0, 1], -1, b""], b"v"], [[], b"v"]):
            raw = pack([10, 1, [30, [[0, [0, 0, 1], True, [[b"key", spoilt]]]]]])
            self.assert_bad(raw)

    def test_peers_are_peers(self) -> None:
        good = plain(make_peer(1))
        self.assertEqual(decode(pack([10, 1, [4, good]])), Ask(1, Notify(make_peer(1))))
        for index, right in enumerate(good):
            for wrong in SCALARS:
                if type(wrong) is not type(right):
                    self.assert_bad(pack([10, 1, [4, replaced(good, (index,), wrong)]]))
            self.assert_bad(pack([10, 1, [4, good[:index]]]))
