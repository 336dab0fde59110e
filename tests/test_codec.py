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

from py2p_twisted.base import Peer
from py2p_twisted.errors import BadMessage
from py2p_twisted.settings import Settings
from py2p_twisted.table.digest import MOST_BUCKETS
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Epoch
from py2p_twisted.table.proposer import Condition, Outcome, Write
from py2p_twisted.wire.bodies import MOST_ITEMS, MOST_WRITES
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import (
    Accept,
    Answer,
    Ask,
    Configs,
    Differences,
    Differing,
    Done,
    GetDifference,
    GetDigests,
    Hello,
    Learn,
    Message,
    Notify,
    Page,
    Ping,
    Prepare,
    Read,
    ReadMany,
    Ready,
    Refused,
    Reply,
    Request,
    Source,
    TakeEra,
    TookEra,
    Value,
    Want,
    WriteMany,
    WriteOne,
    Written,
    WrittenMany,
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


#: Numbers at the ends of what MessagePack, and what some field, allows.
NUMBERS = st.sampled_from(
    [edge + step for edge in (0, 2**16, 2**32, 2**53, 2**62, 2**63) for step in (-1, 0, 1)]
    + [-(2**63), 2**64 - 1]
)

#: Whatever MessagePack can say.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=3) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=20,
)


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
        read = decode(encode(Ask(1, Read(FIRST_EPOCH, b"key", Want.BALLOT))))
        assert isinstance(read, Ask) and isinstance(read.body, Read)
        self.assertIs(type(read.body.epoch), type(FIRST_EPOCH))
        self.assertIs(read.body.want, Want.BALLOT)
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

    @staticmethod
    def differing(buckets: int) -> Differing:
        """A question about none of so many buckets."""
        return Differing(0, FIRST_EPOCH, Source.EPOCH, buckets, (), ())

    def test_limits(self) -> None:
        peer, key = make_peer(1), bytes(4096 + 32)
        just_right: list[Message] = [
            Ask(2**62, Ping()),
            Ask(0, Read(FIRST_EPOCH, key)),
            Ask(0, Read(FIRST_EPOCH._replace(number=2**62), b"")),
            Refused("x" * 64, "x" * 1024, "\U0001f600" * 1024),
            Answer(0, Configs((config(1023, 1, 1, 2, 3, 4, 5),), 0)),
            Hello(1, "s" * 256, "e" * 32, 160, bytes(16), False, False, peer, 5),
            Ask(0, GetDifference((self.differing(MOST_BUCKETS), self.differing(1)))),
            Ask(0, Page(0, FIRST_EPOCH, None, True, 4096)),
            Ask(0, WriteOne(FIRST_EPOCH, Write(key, None, bytes(8), after=2**53))),
            Ask(0, Accept(((0, FIRST_EPOCH, ((key, record(2**62)),)),))),
            Ask(0, TakeEra(((config(), (peer,) * 64),))),
            Answer(0, Ready((), "x" * 1024)),
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
            Hello(1, "s" * 257, "", 1, b"", False, False, peer, 5),
            Hello(1, "", "e" * 33, 1, b"", False, False, peer, 5),
            Hello(1, "", "", 0, b"", False, False, peer, 5),
            Hello(1, "", "", 161, b"", False, False, peer, 5),
            Hello(1, "", "", 1, bytes(17), False, False, peer, 5),
            Hello(1, "", "", 1, b"", False, False, peer, 6),
            Hello(1, "", "", 1, b"", False, False, peer, -1),
            Ask(0, GetDifference((self.differing(MOST_BUCKETS + 1),))),
            Ask(0, GetDifference((self.differing(0),))),
            Ask(0, Page(0, FIRST_EPOCH, None, True, 4097)),
            Ask(0, Page(0, FIRST_EPOCH, None, True, 0)),
            Ask(0, WriteOne(FIRST_EPOCH, Write(key, None, bytes(8), after=2**53 + 1))),
            Ask(0, WriteOne(FIRST_EPOCH, Write(key, None, bytes(7)))),
            Ask(0, WriteOne(FIRST_EPOCH, Write(key, None, bytes(9)))),
            Ask(0, WriteOne(FIRST_EPOCH, Write(key + b"x", None, bytes(8)))),
            Ask(0, Accept(((0, FIRST_EPOCH, ((key + b"x", record(1)),)),))),
            Ask(0, Accept(((0, FIRST_EPOCH, ((key, record(2**62 + 1)),)),))),
            Ask(0, TakeEra(((config(), (peer,) * 65),))),
            Answer(0, Ready((), "x" * 1025)),
        ]
        for message in just_right:
            self.assertEqual(decode(encode(message)), message)
        for message in too_much:
            self.assert_bad(encode(message))

    def test_keys_of_one_message(self) -> None:
        """Over all its parts together: what one message asks for is done in one go."""
        ballot, write = Ballot(FIRST_EPOCH, 1, b""), Write(b"k", None, bytes(8))
        for kind, most, part, item in (
            (ReadMany, MOST_ITEMS, (FIRST_EPOCH,), b"k"),
            (WriteMany, MOST_WRITES, (FIRST_EPOCH,), write),
            (Prepare, MOST_ITEMS, (0, FIRST_EPOCH), (b"k", ballot)),
            (Accept, MOST_ITEMS, (0, FIRST_EPOCH), (b"k", record(1))),
        ):
            half = (*part, (item,) * (most // 2))
            message = Ask(1, kind((half, half)))
            self.assertEqual(decode(encode(message)), message)
            self.assertRaises(ValueError, kind, (half, half, (*part, (item,))))
            value = plain(message)
            value[2][1].append(plain((*part, (item,))))
            self.assert_bad(pack(value))

    def test_what_is_not_cut_into_pages_fits_a_frame(self) -> None:
        """All partitions of a node, each kept alone, the longest identifiers and hosts."""
        peer = Peer(bytes(16), bytes(20), "h" * 255, 65535)
        alone = Config(1023, Epoch(2**31, 2**62, 2**60), (peer,))
        message = Answer(2**62, TookEra(((alone, 2**62),) * 1024))
        self.assertLess(len(encode(message)), Settings().max_frame)

    def test_enumerations(self) -> None:
        """Their numbers, and no other."""
        for kind, body, path in (
            (Want, Read, (3,)),
            (Want, ReadMany, (2,)),
            (Source, GetDigests, (1, 0, 2)),
            (Source, GetDifference, (1, 0, 2)),
            (Condition, WriteOne, (2, 3)),
            (Outcome, Written, (1,)),
            (Outcome, WrittenMany, (1, 0, 1, 0)),
        ):
            value, numbers = plain(envelope(simplest(body))), set(map(int, kind))
            for number in range(-1, 9):
                raw = pack(replaced(value, (2, *path), number))
                if number in numbers:
                    self.assertEqual(at(plain(decode(raw)), (2, *path)), number)
                else:
                    self.assert_bad(raw)

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

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, raw: bytes) -> None:
        self.assert_bad_or_message(raw)

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from([10, 11]), NUMBERS, ANYTHING)
    def test_any_body(self, envelope: int, number: int, body: Any) -> None:
        """MessagePack of whatever shape, where a request or a reply should be."""
        self.assert_bad_or_message(pack([envelope, number, body]))

    @settings(max_examples=150, deadline=None)
    @given(instances_of(Message), st.data())
    def test_any_place(self, message: Message, data: Any) -> None:
        """A good message with something else at one place, or with a part of it missing."""
        value = plain(message)
        path = data.draw(st.sampled_from(list(places(value))))
        inner = at(value, path)
        others = NUMBERS | ANYTHING
        if isinstance(inner, list):
            others |= st.integers(0, len(inner)).map(lambda length: inner[:length])
        new = data.draw(others)
        self.assert_bad_or_message(pack(replaced(value, path, new)))

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
                self.assert_bad(b"\x93\x0a\x01\x93\x16" + liar)  # ReadMany
                self.assert_bad(b"\x93\x0a\x01\x92\x1c" + liar)  # Accept
                self.assert_bad(b"\x93\x0a\x01\x92\x1c\x91\x93\0\x93\0\0\x01" + liar)  # a part
                self.assert_bad(b"\x93\x0b\x01\x92\x78" + liar)  # Value
                self.assert_bad(b"\x93\x0b\x01\x92\xcc\x90" + liar)  # Differences
                self.assert_bad(b"\x94\x0a\x01\x91\x01" + liar)  # beyond the last field

    def test_the_liars_are_aimed_right(self) -> None:
        """Each of them stands where a message has an array or bytes."""
        accept = Ask(1, Accept(((0, FIRST_EPOCH, ()),)))
        for message, start in (
            (Ask(1, Learn((config(),))), b"\x93\x0a\x01\x92\x08\x91"),
            (Ask(1, ReadMany(())), b"\x93\x0a\x01\x93\x16\x90"),
            (accept, b"\x93\x0a\x01\x92\x1c\x91"),
            (accept, b"\x93\x0a\x01\x92\x1c\x91\x93\0\x93\0\0\x01\x90"),
            (Answer(1, Value(b"")), b"\x93\x0b\x01\x92\x78\xc4"),
            (Answer(1, Differences(())), b"\x93\x0b\x01\x92\xcc\x90\x90"),
        ):
            self.assertTrue(encode(message).startswith(start), message)

    def test_later_fields_are_passed_over(self) -> None:
        """A later version may add a field behind the others."""
        self.assertEqual(decode(pack([10, 1, [*plain(Ping()), "new"], "newer"])), Ask(1, Ping()))

    def test_earlier_senders_left_fields_out(self) -> None:
        """The last fields of some messages have defaults."""
        self.assertEqual(decode(pack([10, 1, [1]])), Ask(1, Ping(member=False)))
        read = decode(pack([10, 1, [20, [0, 0, 1], b"key"]]))
        self.assertEqual(read, Ask(1, Read(FIRST_EPOCH, b"key", Want.VALUE)))
        write = decode(pack([10, 1, [21, [0, 0, 1], [b"key", b"v", bytes(8)]]]))
        self.assertEqual(write, Ask(1, WriteOne(FIRST_EPOCH, Write(b"key", b"v", bytes(8)))))

    def test_scalars(self) -> None:
        for value in (*SCALARS, [], b""):
            self.assert_bad(pack(value))
        self.assert_bad(b"")

    def test_a_record_in_full(self) -> None:
        """What is nested deepest is checked too."""
        good = plain(simplest(Config))
        self.assertEqual(msgspec.convert(good, Config), simplest(Config))
        ballot, entry = [[0, 0, 1], 1, b"i"], bytes(16)
        spoilt: list[Any] = [
            [],
            [ballot],
            [[], b"v"],
            [[[0, 0], 1, b"i"], b"v"],
            [[[0, 0, 1], -1, b"i"], b"v"],
            [ballot, "v"],
            [ballot, b"v", "entries"],
            [ballot, b"v", entry, -1],
            [ballot, b"v", entry, None],
        ]
        for wrap in (
            lambda kept: [10, 1, [28, [[0, [0, 0, 1], [[b"key", kept]]]]]],  # Accept
            lambda kept: [11, 1, [144, [[[[b"key", kept]], [], False]]]],  # Differences
            lambda kept: [11, 1, [140, [[139, [0, 0, 1], [kept], []]]]],  # Promised
        ):
            for kept in (plain(record(1)), [ballot, None], [ballot, b"v", entry, 2**62]):
                self.assertIsInstance(decode(pack(wrap(kept))), Ask | Answer)
            for kept in spoilt:
                self.assert_bad(pack(wrap(kept)))

    def test_peers_are_peers(self) -> None:
        good = plain(make_peer(1))
        self.assertEqual(decode(pack([10, 1, [4, good]])), Ask(1, Notify(make_peer(1))))
        for index, right in enumerate(good):
            for wrong in SCALARS:
                if type(wrong) is not type(right):
                    self.assert_bad(pack([10, 1, [4, replaced(good, (index,), wrong)]]))
            self.assert_bad(pack([10, 1, [4, good[:index]]]))
