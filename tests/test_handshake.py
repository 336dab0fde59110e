"""How a connection begins: who is let in, and that both sides learn why one is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import capturedLogs, formatEvent

from py2p_twisted.base import protocol
from py2p_twisted.errors import (
    AuthenticationFailed,
    ChordError,
    NetworkMismatch,
    PeerUnreachable,
    RingConflict,
)
from py2p_twisted.settings import Settings
from py2p_twisted.table.group import FIRST_EPOCH
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.endpoints import NO_NODE, TLS_REFUSAL
from py2p_twisted.wire.messages import (
    OLDEST_VERSION,
    WIRE_VERSION,
    Answer,
    Ask,
    Busy,
    Done,
    Hello,
    Ping,
    Read,
    Refused,
    Value,
)

from .fakes import FakeNode, WireCase, framed, make_peer

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(200)


class HandshakeCase(WireCase):
    @contextmanager
    def told(self, *words: str) -> Iterator[None]:
        """What happens in this block is told to the user of a node that was dialled."""
        with capturedLogs() as events:
            yield
        texts = [formatEvent(event) for event in events if "was refused" in formatEvent(event)]
        self.assertEqual(len(texts), 1, texts)
        for word in words:
            self.assertIn(word, texts[0])

    def hello_of(self, node: FakeNode, number: int = 9) -> Hello:
        """A HELLO of another node of the same network."""
        return msgspec.structs.replace(node.said, peer=make_peer(number))


class SuccessTests(HandshakeCase):
    def test_both_sides_know_each_other(self) -> None:
        a, b = self.node(1), self.node(2)
        there, here = self.connected(a, b)
        self.assertEqual((there.hello, here.hello), (b.said, a.said))
        self.assertEqual((there.peer, here.peer), (b.peer, a.peer))
        self.assertEqual((there.dialled, here.dialled), (True, False))
        self.assertEqual((a.events, b.events), ([("up", 2)], [("up", 1)]))

    def test_the_dialling_side_speaks_first(self) -> None:
        node = self.node(1)
        client = self.raw_client(node)
        self.assertEqual(client.heard(), [])
        client.say(self.hello_of(node))
        self.run_for(0.1)
        self.assertEqual(client.heard(), [node.said])

    def test_connected_means_that_hello_was_received(self) -> None:
        node, server = self.node(1), self.raw_server()
        dialling = node.links.dial("10.0.0.9", 4444)
        self.run_for(0.1)
        self.assertEqual(server.made[0].heard(), [node.said])
        self.assertNoResult(dialling)
        server.made[0].say(self.hello_of(node))
        self.run_for(0.1)
        self.assertEqual(self.successResultOf(dialling).peer, make_peer(9))

    def test_hello_and_requests_in_one_chunk(self) -> None:
        """A long frame may follow at once: the limit of the handshake is over with HELLO."""
        node = self.node(1)
        ask = Ask(1, Read(FIRST_EPOCH, bytes(4096)))
        client = self.raw_client(node, framed(self.hello_of(node), ask, Ask(2, Ping())))
        expected = [node.said, Answer(1, Value(bytes(4096))), Answer(2, Done())]
        self.assertEqual(client.heard(), expected)

    def test_hello_again(self) -> None:
        a, b = self.node(1), self.node(2)
        _, here = self.connected(a, b)
        a.announce(ring=b"other", leeching=True)
        a.links.announce()
        self.run_for(0.1)
        self.assertEqual(here.hello, a.said)
        self.assertEqual(b.events, [("up", 1), ("changed", 1)])

    def test_what_changes_while_dialling_is_told(self) -> None:
        """A HELLO that is under way when the node changes is followed by a new one."""
        a, b = self.node(1), self.node(2)
        dialling = self.dial(a, b)
        self.clock.run_while(lambda: not b.events, 1.0)
        a.announce(ring=b"other")
        a.links.announce()
        self.run_for(0.1)
        self.successResultOf(dialling)
        link = b.links.get(a.peer.instance)
        assert link is not None
        self.assertEqual(link.hello.ring, b"other")

    def test_handshake_leaves_no_timer(self) -> None:
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        self.run_for(6)
        self.assertEqual(a.events, [("up", 2)])


class MismatchTests(HandshakeCase):
    def check(self, ours: Settings, theirs: Settings, difference: str, mirrored: str) -> None:
        """Both sides are told the difference within 2 s, each from its own point of view."""
        a, b = self.node(1, ours), self.node(2, theirs)
        with self.told("another network", mirrored):
            dialling = self.dial(a, b)
            self.run_for(2)
        error = self.refused_with(NetworkMismatch, dialling)
        self.assertEqual(str(error), f"10.0.0.2:4444 belongs to another network: {difference}")
        for said, settings in ((error.ours, ours), (error.theirs, theirs)):
            self.assertIn(repr(settings.prot.subnet), said)
            self.assertIn(repr(settings.prot.encryption), said)
            self.assertIn(f"k={settings.k}", said)
        self.assertEqual(a.events + b.events, [])
        self.assertEqual(a.host.transports, {})

    def test_subnet(self) -> None:
        self.check(
            Settings(prot=protocol("mine", "Plaintext")),
            Settings(prot=protocol("yours", "Plaintext")),
            "subnet is 'mine' here and 'yours' there",
            "subnet is 'yours' here and 'mine' there",
        )

    def test_encryption(self) -> None:
        self.check(
            Settings(prot=protocol("chord", "SSL")),
            Settings(),
            "encryption is 'SSL' here and 'Plaintext' there",
            "encryption is 'Plaintext' here and 'SSL' there",
        )

    def test_k(self) -> None:
        self.check(Settings(k=7), Settings(), "k is 7 here and 6 there", "k is 6 here and 7 there")

    def test_several(self) -> None:
        self.check(
            Settings(k=2, prot=protocol("\U0001f600" * 256, "SSL")),
            Settings(k=3, prot=protocol("\U0001f601" * 256, "Plaintext")),
            f"subnet is '{chr(0x1F600) * 256}' here and '{chr(0x1F601) * 256}' there; "
            "encryption is 'SSL' here and 'Plaintext' there; k is 2 here and 3 there",
            "k is 3 here and 2 there",
        )

    def test_wire_version(self) -> None:
        a, b = self.node(1), self.node(2)
        ours, theirs = f"{OLDEST_VERSION} to {WIRE_VERSION}", f"{WIRE_VERSION + 1}"
        b.announce(version=WIRE_VERSION + 1, newest=0)
        with self.told(f"wire version is {theirs} here and {ours} there"):
            dialling = self.dial(a, b)
            self.run_for(2)
        error = self.refused_with(NetworkMismatch, dialling)
        self.assertIn(f"wire version is {ours} here and {theirs} there", str(error))
        self.assertIn(f"wire version {ours}", error.ours)
        self.assertIn(f"wire version {theirs}", error.theirs)

    def test_a_peer_that_does_not_refuse_by_itself(self) -> None:
        """The dialling side compares too, and tells the other."""
        node, server = self.node(1), self.raw_server()
        dialling = node.links.dial("10.0.0.9", 4444)
        self.run_for(0.1)
        server.made[0].say(msgspec.structs.replace(self.hello_of(node), k=9))
        self.run_for(0.1)
        self.assertIn("k is 6 here and 9 there", str(self.refused_with(NetworkMismatch, dialling)))
        _, refused = server.made[0].heard()
        self.assertIsInstance(refused, Refused)
        self.assertEqual(refused.kind, "NetworkMismatch")
        self.assertEqual(refused.reason, "k is 9 here and 6 there")
        self.assertIn("k=6", refused.ours)


class RefusalTests(HandshakeCase):
    def test_ring_conflict_reaches_both(self) -> None:
        a, b = self.node(1), self.node(2)
        b.refusal = RingConflict("two rings; export() and import()")
        with self.told("two rings; export() and import()"):
            dialling = self.dial(a, b)
            self.run_for(1)
        error = self.refused_with(RingConflict, dialling)
        self.assertIn("10.0.0.2:4444 refused this node: two rings; export()", str(error))

    def test_ring_conflict_that_the_dialling_side_finds(self) -> None:
        a, b = self.node(1), self.node(2)
        a.refusal = RingConflict("two rings")
        dialling = self.dial(a, b)
        self.run_for(1)
        self.refused_with(RingConflict, dialling)
        self.assertEqual(b.events, [("up", 1), ("down", 1)])
        self.assertEqual([type(error) for error in b.errors], [RingConflict])
        self.assertEqual(a.events, [])

    def test_conflict_later(self) -> None:
        """A node that joins another ring is told by its peers, and both links end."""
        a, b = self.node(1), self.node(2)
        self.connected(a, b)
        b.refusal = RingConflict("two rings")
        a.links.announce()
        self.run_for(1)
        self.assertEqual([type(error) for error in a.errors + b.errors], [RingConflict] * 2)

    def test_hang_up(self) -> None:
        a, b = self.node(1), self.node(2)
        link, _ = self.connected(a, b)
        a.links.hang_up(link, RingConflict("two rings"))
        self.run_for(1)
        self.assertEqual([type(error) for error in a.errors + b.errors], [RingConflict] * 2)
        self.assertIn("10.0.0.1", str(b.errors[0]))

    def test_hanging_up_on_a_peer_that_does_not_read(self) -> None:
        """It is cut when it was silent for long enough, and the reason is still the first one."""
        node = self.node(1)
        node.reply = lambda request: Value(bytes(200_000))
        client = self.raw_client(node, framed(self.hello_of(node)))
        client.transport.pauseProducing()
        client.say(Ask(1, Ping()))
        self.run_for(0.1)
        link = node.links.get(make_peer(9).instance)
        assert link is not None
        node.links.hang_up(link, RingConflict("two rings"))
        self.run_for(7)
        self.assertEqual(node.errors, [])
        self.run_for(2)
        self.assertEqual([type(error) for error in node.errors], [RingConflict])

    def test_every_kind_of_refusal(self) -> None:
        """Errors that a peer may name arrive as what they are, all others as PeerUnreachable."""
        kinds: list[tuple[str, type[ChordError]]] = [
            ("AuthenticationFailed", AuthenticationFailed),
            ("RingConflict", RingConflict),
            ("PeerUnreachable", PeerUnreachable),
            ("KeyError", PeerUnreachable),
            ("__class__", PeerUnreachable),
            ("", PeerUnreachable),
        ]
        node = self.node(1)
        for number, (kind, expected) in enumerate(kinds, 20):
            self.raw_server(framed(Refused(kind, "because")), number)
            dialling = node.links.dial(f"10.0.0.{number}", 4444)
            self.run_for(0.1)
            error = self.refused_with(expected, dialling)
            self.assertIn("refused this node: because", str(error))

    def test_self(self) -> None:
        node = self.node(1)
        dialling = self.dial(node, node)
        self.run_for(1)
        self.assertIn("this node itself", str(self.refused_with(PeerUnreachable, dialling)))
        self.assertEqual(node.events, [])
        self.assertEqual(node.host.transports, {})

    def test_changed_instance(self) -> None:
        node = self.node(1)
        client = self.raw_client(node, framed(self.hello_of(node)))
        client.say(self.hello_of(node, 8))
        self.run_for(0.1)
        self.assertEqual(node.events, [("up", 9), ("down", 9)])
        self.assertIsInstance(client.heard()[-1], Refused)
        self.assertIs(client.lost, ConnectionDone)


class StrangerTests(HandshakeCase):
    def test_a_peer_that_says_nothing(self) -> None:
        node, server = self.node(1), self.raw_server()
        dialling = node.links.dial("10.0.0.9", 4444)
        self.run_for(4.9)
        self.assertNoResult(dialling)
        self.run_for(0.2)
        error = self.refused_with(PeerUnreachable, dialling)
        self.assertEqual(str(error), f"10.0.0.9:4444 said nothing for 5 s: {NO_NODE}")
        self.assertIs(server.made[0].lost, ConnectionLost)

    def test_a_client_that_says_nothing(self) -> None:
        node = self.node(1)
        with self.told("said nothing for 5 s"):
            client = self.raw_client(node)
            self.run_for(4.8)
            self.assertIsNone(client.lost)
            self.run_for(0.2)
        self.assertIs(client.lost, ConnectionLost)

    def test_a_client_that_trickles(self) -> None:
        """One byte a second does not keep a connection open."""
        node = self.node(1)
        client = self.raw_client(node)
        for byte in framed(self.hello_of(node))[:5]:
            client.transport.write(bytes([byte]))
            self.run_for(1)
        self.assertIs(client.lost, ConnectionLost)

    def test_garbage(self) -> None:
        node = self.node(1)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1\xc1", b"\0\0\0\0", b"\xff" * 64):
            before = node.links.bad_messages
            with self.told("what is no message"):
                client = self.raw_client(node, garbage)
            self.assertIs(client.lost, ConnectionLost)
            self.assertEqual(client.data, b"")
            self.assertEqual(node.links.bad_messages, before + 1)
        self.assertEqual(node.host.transports, {})

    def test_garbage_from_whom_we_dialled(self) -> None:
        node = self.node(1)
        self.raw_server(b"220 mail.example ESMTP\r\n")
        dialling = node.links.dial("10.0.0.9", 4444)
        self.run_for(1)
        error = self.refused_with(PeerUnreachable, dialling)
        self.assertIn("10.0.0.9:4444 sent what is no message", str(error))
        self.assertIn(NO_NODE, str(error))

    def test_garbage_later(self) -> None:
        """The connection ends and what waited on it fails; the sender is told nothing."""
        node = self.node(1)
        client = self.raw_client(node, framed(self.hello_of(node)))
        asking = node.links.ask(make_peer(9), Ping())
        client.transport.write(b"\0\0\0\1\xc1")
        self.run_for(0.1)
        self.assertTrue(self.refused_with(PeerUnreachable, asking).sent)
        self.assertEqual(node.links.bad_messages, 1)
        self.assertEqual(node.events, [("up", 9), ("down", 9)])
        self.assertIs(client.lost, ConnectionLost)

    def test_a_frame_of_4_gib_before_hello(self) -> None:
        node = self.node(1)
        with self.told("4294967295 bytes is announced; 4096 are allowed"):
            client = self.raw_client(node, b"\xff\xff\xff\xff" + bytes(60_000))
        self.assertIs(client.lost, ConnectionLost)

    def test_a_long_frame_before_hello(self) -> None:
        node = self.node(1)
        message = Ask(1, Read(FIRST_EPOCH, bytes(4084)))
        self.assertEqual(len(encode(message)), 4097)
        with self.told("4097 bytes is announced; 4096 are allowed"):
            self.raw_client(node, framed(message))

    def test_a_long_frame_after_hello(self) -> None:
        node = self.node(1)
        client = self.raw_client(node, framed(self.hello_of(node)) + b"\x00\x14\x00\x01")
        self.assertIs(client.lost, ConnectionLost)
        self.assertIn("1310721 bytes is announced; 1310720 are", str(node.errors[0]))

    def test_tls_to_a_plain_text_node(self) -> None:
        node = self.node(1)
        with self.told("speaks TLS and this node plain text"):
            client = self.raw_client(node, CLIENT_HELLO)
        self.assertIs(client.lost, ConnectionDone)
        [refused] = client.heard()
        self.assertIsInstance(refused, Refused)
        self.assertEqual(refused.kind, "NetworkMismatch")

    def test_a_plain_text_node_dials_tls(self) -> None:
        node = self.node(1)
        self.raw_server(TLS_REFUSAL)
        dialling = node.links.dial("10.0.0.9", 4444)
        self.run_for(1)
        error = self.refused_with(NetworkMismatch, dialling)
        self.assertIn("10.0.0.9:4444 speaks TLS and this node plain text", str(error))

    def test_a_request_before_hello(self) -> None:
        node = self.node(1)
        for message in (Ask(1, Ping()), Answer(1, Busy())):
            client = self.raw_client(node, framed(message))
            [refused] = client.heard()
            self.assertIsInstance(refused, Refused)
            self.assertIn("did not begin with HELLO", refused.reason)
            self.assertIs(client.lost, ConnectionDone)
        self.assertEqual(node.asked, [])

    def test_a_refused_peer_that_does_not_read(self) -> None:
        """The connection ends without it."""
        node = self.node(1)
        with self.told("k is 6 here and 9 there"):
            client = self.raw_client(node)
            client.transport.pauseProducing()
            client.say(msgspec.structs.replace(self.hello_of(node), k=9))
            self.run_for(0.1)
        self.assertEqual(node.host.transports, {})

    def test_closed_without_a_word(self) -> None:
        node, server = self.node(1), self.raw_server()
        dialling = node.links.dial("10.0.0.9", 4444)
        self.run_for(0.1)
        server.made[0].transport.loseConnection()
        self.run_for(0.1)
        error = self.refused_with(PeerUnreachable, dialling)
        self.assertEqual(str(error), "10.0.0.9:4444 closed the connection")
