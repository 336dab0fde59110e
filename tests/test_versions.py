"""Wire versions: what came when, and that nodes of two of them understand each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
from msgspec import inspect as shapes
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import Peer
from py2p_twisted.errors import NetworkMismatch
from py2p_twisted.settings import Settings
from py2p_twisted.table.group import Ballot, Base, Epoch
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import (
    OLDEST_VERSION,
    WIRE_VERSION,
    Ask,
    Declined,
    Done,
    GetReport,
    Hello,
    Message,
    Ping,
    Reply,
    Request,
)
from py2p_twisted.wire.versions import (
    SINCE,
    common_version,
    show_versions,
    unknown_to,
    versions_of,
)

from .fakes import FakeNode, WireCase, make_peer
from .simulation.ring_case import RingCase
from .test_codec import simplest

#: All messages that version 2 had: nothing may be taken away from it as long as it is spoken.
_VERSION_2 = """
    Hello Refused Ask Answer
    Ping FindSuccessor GetState Notify Leaving GetConfigs GetConfig Learn Read WriteOne Settle
    ReadMany WriteMany Prepare Accept Count Page GetDigests GetDifference Prefetch Wedge Fetch
    Choose Open TakeEra Survey Recover
    Done Declined Busy Full RouteTo State Configs Value Versioned Version WrongEpoch Written Failed
    Values WrittenMany Promised Accepted Counted Window Digests Differences Wedged Ready Chosen
    Opened TookEra Surveyed Recovered
"""
VERSION_2 = set(_VERSION_2.split())

#: A HELLO that a node of version 2 said, without its frame.
HELLO_OF_VERSION_2 = bytes.fromhex(
    "9b 00 02 a5 63 68 6f 72 64 a9 50 6c 61 69 6e 74 65 78 74 06 c4 00 c3 c2"
    "94 c4 10 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f c4 01 2a"
    "a9 31 32 37 2e 30 2e 30 2e 31 cd 11 5d 00 c2"
)


def kinds() -> list[Any]:
    """Every message, envelopes and what is in them."""
    return [*get_args(Message), *get_args(Request), *get_args(Reply)]


def structs(shape: Any, seen: dict[type, shapes.StructType]) -> dict[type, shapes.StructType]:
    """Every struct that is a part of something."""
    match shape:
        case shapes.StructType(cls=cls) if cls not in seen:
            seen[cls] = shape
            for field in shape.fields:
                structs(field.type, seen)
        case shapes.NamedTupleType(fields=fields):
            for field in fields:
                structs(field.type, seen)
        case shapes.UnionType(types=types):
            for one in types:
                structs(one, seen)
        case shapes.VarTupleType(item_type=item):
            structs(item, seen)
        case shapes.TupleType(item_types=items):
            for one in items:
                structs(one, seen)
    return seen


def said(oldest: int, newest: int = 0) -> Hello:
    return Hello(oldest, "s", "Plaintext", 6, b"", True, False, make_peer(1), newest=newest)


class TableTests(SynchronousTestCase):
    def test_it_is_complete(self) -> None:
        """Every message is of version 2, or it is known with which version it came."""
        names = {kind.__name__ for kind in kinds()}
        self.assertEqual(names - VERSION_2, {kind.__name__ for kind in SINCE})
        self.assertEqual(VERSION_2 - names, set())

    def test_its_numbers(self) -> None:
        for kind, since in SINCE.items():
            self.assertIn(kind, kinds())
            self.assertTrue(OLDEST_VERSION < since <= WIRE_VERSION, kind)
        self.assertEqual(unknown_to(WIRE_VERSION), frozenset())
        self.assertEqual(unknown_to(OLDEST_VERSION), frozenset(SINCE))

    def test_tags_are_never_used_again(self) -> None:
        """Asks and answers are apart; within each, a tag names one message for ever."""
        for union in (Request, Reply, Message):
            tags = [kind.__struct_config__.tag for kind in get_args(union)]
            self.assertEqual(len(set(tags)), len(tags))


class FieldTests(SynchronousTestCase):
    """How a message can grow."""

    def every_struct(self) -> Iterator[tuple[type, shapes.StructType]]:
        found: dict[type, shapes.StructType] = {}
        for kind in kinds():
            structs(shapes.type_info(kind), found)
        self.assertIn(Peer, found)
        self.assertGreater(len(found), len(kinds()))
        yield from found.items()

    def test_later_fields_are_passed_over(self) -> None:
        """By every struct that travels, those without a tag as well."""
        for kind, _ in self.every_struct():
            value = simplest(kind)
            plain = msgspec.msgpack.decode(encode(value))
            for more in ([0], ["text", [1, {}], None]):
                raw = msgspec.msgpack.encode([*plain, *more])
                self.assertEqual(msgspec.msgpack.decode(raw, type=kind), value)

    def test_earlier_senders_left_them_out(self) -> None:
        """The last fields may be missing if they have defaults, and no others."""
        for kind, shape in self.every_struct():
            plain = msgspec.msgpack.decode(encode(simplest(kind)))
            tagged = len(plain) - len(shape.fields)
            required = tagged + sum(field.required for field in shape.fields)
            for length in range(len(plain)):
                raw = msgspec.msgpack.encode(plain[:length])
                if length >= required:
                    msgspec.msgpack.decode(raw, type=kind)
                else:
                    with self.assertRaises(msgspec.MsgspecError):
                        msgspec.msgpack.decode(raw, type=kind)

    def test_named_tuples_cannot_grow(self) -> None:
        """Whoever wants more of these makes another message."""
        for kind in (Epoch, Ballot, Base):
            size = len(kind._fields)
            with self.assertRaises(msgspec.MsgspecError):
                msgspec.msgpack.decode(msgspec.msgpack.encode([0] * (size + 1)), type=kind)


class CommonTests(SynchronousTestCase):
    def test_the_newest_that_both_speak(self) -> None:
        for one, other, common in (
            (said(2), said(2), 2),
            (said(2), said(2, 3), 2),
            (said(2, 3), said(2, 3), 3),
            (said(2, 4), said(3, 5), 4),
            (said(2, 3), said(3, 9), 3),
            (said(2), said(3, 4), None),
            (said(2, 3), said(4), None),
        ):
            self.assertEqual(common_version(one, other), common, (one, other))
            self.assertEqual(common_version(other, one), common, (one, other))

    def test_what_cannot_be(self) -> None:
        """A newest below the oldest is as none."""
        self.assertEqual(versions_of(said(3, 2)), (3, 3))

    def test_for_people(self) -> None:
        self.assertEqual([show_versions(said(2)), show_versions(said(2, 4))], ["2", "2 to 4"])

    def test_version_2_is_understood(self) -> None:
        """Its HELLO says less, and its nodes look at nothing but what theirs said."""
        hello = msgspec.msgpack.decode(HELLO_OF_VERSION_2, type=Hello)
        self.assertEqual(versions_of(hello), (2, 2))
        mine = said(OLDEST_VERSION, WIRE_VERSION)
        self.assertEqual(msgspec.msgpack.decode(encode(mine))[1], hello.version)
        self.assertEqual(common_version(mine, hello), 2)


class HandshakeTests(WireCase):
    """The older side's version is spoken, whoever dials."""

    old = Settings(wire_version=2)

    def test_two_versions(self) -> None:
        for dials_old in (True, False):
            number = 10 if dials_old else 20
            old, new = self.node(number, self.old), self.node(number + 1)
            there, here = self.connected(old, new) if dials_old else self.connected(new, old)
            self.assertEqual((there.version, here.version), (2, 2))
            self.assertEqual(self.successResultOf(self.asked(new, old, Ping())), Done())
        one, other = self.node(1), self.node(2)
        self.assertEqual({link.version for link in self.connected(one, other)}, {WIRE_VERSION})

    def asked(self, node: FakeNode, other: FakeNode, request: Any) -> Any:
        asking = node.links.ask(other.peer, request)
        self.run_for(0.1)
        return asking

    def test_what_the_peer_does_not_know_is_not_sent(self) -> None:
        """The asker is told so at once, as if the peer had declined; the connection goes on."""
        old, new = self.node(1, self.old), self.node(2)
        self.connected(new, old)
        reply = self.successResultOf(new.links.ask(old.peer, GetReport()))
        self.assertEqual(
            reply,
            Declined(
                f"{old.peer} speaks wire version 2 and knows no GetReport, which came with "
                "version 3: upgrade it"
            ),
        )
        self.run_for(0.1)
        self.assertEqual(old.asked, [])
        self.assertEqual(self.successResultOf(self.asked(new, old, Ping())), Done())
        self.assertEqual(new.events + old.events, [("up", 1), ("up", 2)])

    def test_what_the_peer_cannot_know_is_not_answered(self) -> None:
        """Who says that it speaks version 2 and asks what came later is cut off."""
        node = self.node(1)
        client = self.raw_client(node)
        client.say(msgspec.structs.replace(node.said, peer=make_peer(9), newest=0))
        client.say(Ask(1, Ping()), Ask(2, GetReport()), Ask(3, GetReport()))
        self.run_for(0.1)
        self.assertEqual(node.asked, [])
        self.assertIsNotNone(client.lost)
        self.assertEqual(node.links.complaints.count, 1)

    def test_nothing_in_common(self) -> None:
        """Both sides are told what both speak."""
        one, other = self.node(1), self.node(2)
        other.announce(version=4, newest=6)
        dialling = self.dial(one, other)
        self.run_for(1)
        error = self.refused_with(NetworkMismatch, dialling)
        self.assertIn("wire version is 2 to 3 here and 4 to 6 there", str(error))
        self.assertIn("wire version 2 to 3", error.ours)
        self.assertIn("wire version 4 to 6", error.theirs)

    def test_it_stays_what_it_is(self) -> None:
        """A connection does not change its version under way."""
        one, other = self.node(1), self.node(2)
        self.connected(one, other)
        one.announce(newest=0)
        one.links.announce()
        self.run_for(1)
        self.assertIn("changed its wire version", str(one.errors[0]))


class SettingTests(RingCase):
    def test_no_more_than_there_is(self) -> None:
        """A node asked to speak what it does not know speaks what it knows."""
        for asked, newest in ((None, WIRE_VERSION), (2, 2), (WIRE_VERSION + 1, WIRE_VERSION)):
            with self.world(1, wire_version=asked) as world:
                hello = world.add().service.node.hello()
                self.assertEqual((hello.version, hello.newest), (OLDEST_VERSION, newest))
