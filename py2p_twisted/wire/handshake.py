"""The first messages of a connection: who is there, and is it one of us (floor 1).

The dialling side says HELLO first; the other answers HELLO, or REFUSED with its reason, so that
both can tell their user what differs.  When a dialling node has received HELLO, it is connected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import errors
from ..base import show_address
from ..errors import BadMessage, ChordError, NetworkMismatch, PeerUnreachable
from .endpoints import looks_like_tls, plain_text_met_tls
from .link import Link
from .messages import WIRE_VERSION, Answer, Ask, Hello, Message, Refused
from .protocol import MessageProtocol

if TYPE_CHECKING:
    from .links import Links

__all__ = ["Connection", "describe", "mismatch"]

_REFUSALS = {
    name: getattr(errors, name)
    for name in ("AuthenticationFailed", "NetworkMismatch", "PeerUnreachable", "RingConflict")
}


def describe(hello: Hello) -> str:
    """The network that a HELLO announces, for people."""
    return (
        f"subnet {hello.subnet!r}, encryption {hello.encryption!r}, k={hello.k}, "
        f"wire version {hello.version}"
    )


def mismatch(ours: Hello, theirs: Hello, address: str) -> NetworkMismatch | None:
    """What keeps two nodes apart, None if nothing does."""
    fields = {
        "subnet": (ours.subnet, theirs.subnet),
        "encryption": (ours.encryption, theirs.encryption),
        "k": (ours.k, theirs.k),
        "wire version": (ours.version, theirs.version),
    }
    differ = [
        f"{name} is {mine!r} here and {their!r} there"
        for name, (mine, their) in fields.items()
        if mine != their
    ]
    if not differ:
        return None
    return NetworkMismatch(
        f"{address} belongs to another network: {'; '.join(differ)}",
        ours=describe(ours),
        theirs=describe(theirs),
    )


class Connection:
    """One connection from its first byte to its last: the handshake, then a :class:`Link`.

    :param links: all connections of the node.
    :param dialled: the address that this side dialled, None if it was dialled.
    """

    log = Logger()

    def __init__(self, links: Links, dialled: tuple[str, int] | None) -> None:
        settings = links.settings
        self.protocol = MessageProtocol(self, links.outbox, settings.max_hello)
        self.link: Link | None = None
        self.error: ChordError | None = None  # why it ends, if this side or the peer said so
        self._links = links
        self._dialled = dialled
        self._said = Hello(WIRE_VERSION, "", "", 1, b"", True, True, links.nobody)
        self._timer: IDelayedCall | None = None

    @property
    def dialled_address(self) -> tuple[str, int] | None:
        """The address that this side dialled, None if it was dialled."""
        return self._dialled

    @property
    def address(self) -> str:
        """The other end, for people."""
        if self._dialled is not None:
            return show_address(*self._dialled)
        peer = self.protocol.transport.getPeer()
        return show_address(peer.host, peer.port)

    # -- Receiver

    def connected(self) -> None:
        """The connection is made: the dialling side speaks first."""
        clock, settings = self._links.clock, self._links.settings
        self._timer = clock.callLater(settings.handshake_timeout, self._too_slow)
        if self._dialled is not None:
            self._said = self._links.hello()
            self.protocol.send(self._said)

    def received(self, message: Message) -> None:
        """A message arrived: most are answers and requests on a connection that is open."""
        link = self.link
        if link is None:
            self._handshake(message)
            return
        link.heard_at = self._links.clock.seconds()
        kind = type(message)
        if kind is Answer:
            link.received_answer(message)
        elif kind is Ask:
            link.received_ask(message)
        elif kind is Hello:
            self._hello_again(link, message)
        else:
            self._refused(message)

    def garbled(self, error: BadMessage, first_bytes: bytes) -> None:
        """What arrived is no message: close, and say why if the peer may listen."""
        links = self._links
        links.bad_messages += 1
        if self.link is None and looks_like_tls(first_bytes):
            self._refuse(plain_text_met_tls(self.address))
            return
        self.log.warn(
            "{address} sent what is no message: {error}", address=self.address, error=str(error)
        )
        self.error = PeerUnreachable(f"{self.address} sent what is no message: {error}")
        self.protocol.abort()

    def disconnected(self, reason: Failure) -> None:
        """The connection is gone."""
        self._stop_timer()
        if self.error is None:
            self.error = self._links.explain(reason, self.address, opened=self.link is not None)
        self._links.closed(self, self.error)

    # -- the handshake

    def _too_slow(self) -> None:
        self._timer = None
        seconds = self._links.settings.handshake_timeout
        self.error = PeerUnreachable(f"{self.address} said nothing for {seconds:g} s")
        self.protocol.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _handshake(self, message: Message) -> None:
        if isinstance(message, Refused):
            self._refused(message)
            return
        if not isinstance(message, Hello):
            self._refuse(PeerUnreachable(f"{self.address} did not begin with HELLO"))
            return
        links = self._links
        if self._dialled is None:
            self._said = links.hello()
        error = mismatch(self._said, message, self.address) or links.judge(
            message, self.protocol.transport
        )
        if error is not None:
            self._refuse(error, tell=True)
            return
        self._stop_timer()
        if self._dialled is None:
            self.protocol.send(self._said)
        self.protocol.MAX_LENGTH = links.settings.max_frame
        self.link = Link(
            links.clock,
            links.settings,
            self.protocol,
            message,
            dialled=self._dialled is not None,
            answer=links.answer,
        )
        links.opened(self, self.link)

    def _hello_again(self, link: Link, hello: Hello) -> None:
        links = self._links
        if hello.peer.instance != link.peer.instance:
            self._refuse(PeerUnreachable(f"{self.address} changed its instance"), tell=True)
            return
        error = links.judge(hello, self.protocol.transport)
        if error is not None:
            self._refuse(error, tell=True)
            return
        link.hello = hello
        links.changed(link)

    def refuse(self, error: ChordError) -> None:
        """Close the connection and tell the peer why."""
        self._refuse(error, tell=True)

    def _refuse(self, error: ChordError, *, tell: bool = True) -> None:
        self.error = error
        if tell:
            kind = type(error).__name__
            said = self._said if self._said.subnet else self._links.hello()
            self.protocol.send(Refused(kind, str(error)[:1024], describe(said)[:1024]))
        self.protocol.close()

    def _refused(self, message: Message) -> None:
        if not isinstance(message, Refused):
            self._refuse(PeerUnreachable(f"{self.address} did not begin with HELLO"))
            return
        text = f"{self.address} refused this node: {message.reason}"
        if message.kind == "NetworkMismatch":
            ours = self._said if self._said.subnet else self._links.hello()
            self.error = NetworkMismatch(text, ours=describe(ours), theirs=message.ours)
        else:
            self.error = _REFUSALS.get(message.kind, PeerUnreachable)(text)
        self.protocol.abort()
