"""The first messages of a connection: who is there, and is it one of us (floor 1).

The dialling side says HELLO first; the other answers HELLO, or REFUSED with its reason, so that
both can tell their user what differs.  When a dialling node has received HELLO, it is connected.
Who does not know what to say asks WHO instead, and hears HELLO: see ``probe.py``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from .. import errors
from ..base import show_address
from ..errors import BadMessage, ChordError, NetworkMismatch, PeerUnreachable, RingConflict
from .bodies import MOST_REASON
from .endpoints import looks_like_tls, no_node, plain_text_met_tls
from .link import Link
from .messages import Answer, Ask, Hello, Message, Refused, Who
from .protocol import MessageProtocol
from .versions import common_version, show_versions, versions_of

if TYPE_CHECKING:
    from .links import Links

__all__ = ["Connection", "describe", "differences"]

_REFUSALS = {
    name: getattr(errors, name)
    for name in ("AuthenticationFailed", "PeerUnreachable", "RingConflict")
}


def describe(hello: Hello) -> str:
    """The network that a HELLO announces, for people."""
    return (
        f"subnet {hello.subnet!r}, encryption {hello.encryption!r}, k={hello.k}, "
        f"wire version {show_versions(hello)}"
    )


def differences(ours: Hello, theirs: Hello) -> str:
    """What keeps two nodes apart, for people at ours; empty if nothing does."""
    fields = {
        "subnet": (ours.subnet, theirs.subnet),
        "encryption": (ours.encryption, theirs.encryption),
        "k": (ours.k, theirs.k),
    }
    found = [
        f"{name} is {mine!r} here and {their!r} there"
        for name, (mine, their) in fields.items()
        if mine != their
    ]
    if common_version(ours, theirs) is None:
        mine, their = show_versions(ours), show_versions(theirs)
        found.append(f"wire version is {mine} here and {their} there")
    return "; ".join(found)


class Connection:
    """One connection from its first byte to its last: the handshake, then a :class:`Link`.

    :param links: all connections of the node.
    :param dialled: the address that this side dialled, None if it was dialled.
    """

    log = Logger()

    def __init__(self, links: Links, dialled: tuple[str, int] | None) -> None:
        settings = links.settings
        self.protocol = MessageProtocol(self, links.outbox, settings.max_hello, settings.max_frame)
        self.link: Link | None = None
        self.error: ChordError | None = None  # why it ends, if this side or the peer said so
        self.told = False  # the other end asked who is there, and knows it now
        self._links = links
        self._dialled = dialled
        self._said: Hello | None = None
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

    @property
    def host(self) -> str:
        """Where the other end is; what it announces may be another address."""
        if self._dialled is not None:
            return self._dialled[0]
        return str(self.protocol.transport.getPeer().host)

    # -- Receiver

    def connected(self) -> None:
        """The connection is made: the dialling side speaks first."""
        clock, settings = self._links.clock, self._links.settings
        self._timer = clock.callLater(settings.handshake_timeout, self._too_slow)
        if self._dialled is not None:
            self.protocol.send(self._our_hello())

    def received(self, message: Message) -> None:
        """A message arrived: most are answers and requests on a connection that is open."""
        link = self.link
        if link is None:
            self._handshake(message)
            return
        link.heard_at = self.protocol.arrived_at
        if isinstance(message, Answer):
            link.received_answer(message)
        elif isinstance(message, Ask):
            link.received_ask(message)
        elif isinstance(message, Hello):
            self._hello_again(link, message)
        elif isinstance(message, Refused):
            self._refused(message)
        else:
            self.refuse(PeerUnreachable(f"{self.address} asks who this is, and knows it"))

    def garbled(self, error: BadMessage, first_bytes: bytes) -> None:
        """What arrived is no message: close, and say why if the peer may listen."""
        links = self._links
        links.bad_messages += 1
        if self.link is None and looks_like_tls(first_bytes):
            self.refuse(plain_text_met_tls(self.address))
            return
        refusal = self._silent_or_strange(f"sent what is no message: {error}")
        if self.link is not None:
            links.complain(self.host, refusal)
        self.give_up(refusal)

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
        self.give_up(self._silent_or_strange(f"said nothing for {seconds:g} s"))

    def _silent_or_strange(self, what: str) -> PeerUnreachable:
        if self._dialled is not None and self.link is None:
            return no_node(self.address, what)
        return PeerUnreachable(f"{self.address} {what}")

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _handshake(self, message: Message) -> None:
        links = self._links
        if isinstance(message, Refused):
            self._refused(message)
            return
        if isinstance(message, Who) and self._dialled is None:
            self.told = True
            self.protocol.send(self._our_hello())
            self.protocol.close()
            return
        if not isinstance(message, Hello):
            self.refuse(PeerUnreachable(f"{self.address} did not begin with HELLO"))
            return
        ours = self._our_hello()
        if differ := differences(ours, message):
            error = self._mismatch(differ, ours, describe(message))
            self._refuse(error, differences(message, ours))
            return
        unwanted = links.judge(message, self.protocol.transport)
        if unwanted is not None:
            self.refuse(unwanted)
            return
        self._stop_timer()
        if self._dialled is None:
            self.protocol.send(ours)
        self.protocol.MAX_LENGTH = links.settings.max_frame
        self.link = Link(
            links.clock,
            links.settings,
            self.protocol,
            message,
            version=common_version(ours, message) or ours.version,
            dialled=self._dialled is not None,
            answer=links.answer,
            offended=partial(links.complaints.offended, self.host),
        )
        if self._dialled is not None and (changed := links.hello()) != ours:
            self.protocol.send(changed)  # announced to the others while this one was dialled
        links.opened(self, self.link)

    def _our_hello(self) -> Hello:
        """What this side announced, or is about to."""
        if self._said is None:
            self._said = self._links.hello()
        return self._said

    def _hello_again(self, link: Link, hello: Hello) -> None:
        links = self._links
        if hello.peer.instance != link.peer.instance:
            self.refuse(PeerUnreachable(f"{self.address} changed its instance"))
            return
        if versions_of(hello) != versions_of(link.hello):
            self.refuse(PeerUnreachable(f"{self.address} changed its wire version"))
            return
        error = links.judge(hello, self.protocol.transport)
        if error is not None:
            self.refuse(error)
            return
        link.hello = hello
        links.changed(link)

    # -- the end

    def refuse(self, error: ChordError) -> None:
        """Close the connection and tell the peer why."""
        for_peer = error.for_peer if isinstance(error, RingConflict) else ""
        self._refuse(error, for_peer or str(error))

    def _refuse(self, error: ChordError, reason: str) -> None:
        self.error = self.error or error
        ours = describe(self._our_hello())
        self.protocol.send(Refused(type(error).__name__, reason[:MOST_REASON], ours[:MOST_REASON]))
        self.protocol.close()

    def give_up(self, error: ChordError) -> None:
        """Close the connection at once, for this reason unless there was one before."""
        self.error = self.error or error
        self.protocol.abort()

    def _refused(self, message: Refused) -> None:
        if message.kind == "NetworkMismatch":
            self.give_up(self._mismatch(message.reason, self._our_hello(), message.ours))
        else:
            kind = _REFUSALS.get(message.kind, PeerUnreachable)
            self.give_up(kind(f"{self.address} refused this node: {message.reason}"))

    def _mismatch(self, differ: str, ours: Hello, theirs: str) -> NetworkMismatch:
        text = f"{self.address} belongs to another network: {differ}"
        return NetworkMismatch(text, ours=describe(ours), theirs=theirs)
