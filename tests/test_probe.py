"""Asking who is at an address, without knowing what it would want to hear."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, formatEvent

from py2p_twisted.base import protocol
from py2p_twisted.errors import NetworkMismatch, PeerUnreachable
from py2p_twisted.settings import Settings
from py2p_twisted.wire.endpoints import NO_NODE, TLS_REFUSAL
from py2p_twisted.wire.messages import Answer, Done, Hello, Refused, Who
from py2p_twisted.wire.probe import probe

from .fakes import PORT, WireCase, framed


class ProbeTests(WireCase):
    """A prober of no network, and whom it asks."""

    def probe(self, number: int) -> Deferred[Hello]:
        """Ask who is at 10.0.0.number."""
        host = self.raw_host()
        return probe(host.clock, host, None, (f"10.0.0.{number}", PORT))

    def refused(self, probing: Deferred[Any], kind: type, *words: str) -> None:
        """It fails like this, and leaves nothing behind."""
        text = str(self.refused_with(kind, probing))
        for word in words:
            self.assertIn(word, text)
        self.run_for(1)
        self.assertEqual(self.raw_host().clock.getDelayedCalls(), [])

    def test_any_network(self) -> None:
        """What a node announces is told to who does not know its k and subnet; nobody is a peer."""
        node = self.node(1, Settings(k=11, prot=protocol("another", "Plaintext")))
        with capturedLogs() as events:
            probing = self.probe(1)
            self.run_for(1)
        self.assertEqual(self.successResultOf(probing), node.said)
        self.assertEqual((node.events, list(node.links)), ([], []))
        self.assertEqual([formatEvent(event) for event in events], [])
        self.assertEqual(self.raw_host().transports, {})
        self.assertEqual(self.raw_host().clock.getDelayedCalls(), [])

    def test_first_only(self) -> None:
        """A peer that is known need not ask; one that does is refused."""
        node = self.node(1)
        client = self.raw_client(node, framed(node.said.__class__(*self.other(node)), Who()))
        self.run_for(0.1)
        hello, refused = client.heard()
        self.assertEqual(hello, node.said)
        self.assertIsInstance(refused, Refused)

    def other(self, node: Any) -> tuple[Any, ...]:
        """The fields of a HELLO of another node."""
        said = node.said
        names = said.__struct_fields__
        fields = {name: getattr(said, name) for name in names}
        fields["peer"] = type(said.peer)(b"o" * 16, b"\1", "10.0.0.9", 1)
        return tuple(fields.values())

    def test_dialled_side_may_not_ask(self) -> None:
        """Who was dialled knows from HELLO who dialled."""
        node, server = self.node(1), self.raw_server(framed(Who()))
        dialling = node.links.dial("10.0.0.9", PORT)
        self.run_for(0.1)
        self.refused_with(PeerUnreachable, dialling)
        self.assertIsInstance(server.made[0].heard()[-1], Refused)

    def test_nobody(self) -> None:
        """Nobody listens."""
        self.network.host("10.0.0.2")
        probing = self.probe(2)
        self.run_for(6)
        self.refused(probing, PeerUnreachable, "10.0.0.2:4444")

    def test_silence(self) -> None:
        """Somebody listens and says nothing."""
        host = self.network.host("10.0.0.2")
        self.successResultOf(host.listen("", PORT, self.raw_server(number=3)))
        probing = self.probe(2)
        self.run_for(4.9)
        self.assertNoResult(probing)
        self.run_for(0.2)
        self.refused(probing, PeerUnreachable, "said nothing for 5 s", NO_NODE)

    def test_others(self) -> None:
        """A TLS node, another program, one that refuses, and one that answers something else."""
        for number, (first, kind, words) in enumerate(
            (
                (TLS_REFUSAL, NetworkMismatch, "speaks TLS"),
                (b"HTTP/1.1 400 Bad Request\r\n\r\n", PeerUnreachable, NO_NODE),
                (framed(Refused("PeerUnreachable", "no\x1b[2J")), PeerUnreachable, "no?[2J"),
                (framed(Answer(1, Done())), PeerUnreachable, NO_NODE),
            ),
            20,
        ):
            self.raw_server(first, number)
            probing = self.probe(number)
            self.run_for(0.5)
            self.refused(probing, kind, words)

    def test_hung_up(self) -> None:
        """The other side closes."""
        server = self.raw_server(number=4)
        probing = self.probe(4)
        self.run_for(0.1)
        server.made[0].transport.loseConnection()
        self.run_for(0.1)
        self.refused(probing, PeerUnreachable, "closed the connection")

    def test_cancelled(self) -> None:
        """Whoever asks may give up, while dialling and while waiting."""
        self.raw_server(number=4)
        for seconds in (0.0, 0.1):
            probing = self.probe(4)
            if seconds:
                self.run_for(seconds)
            probing.cancel()
            self.refused(probing, CancelledError)
