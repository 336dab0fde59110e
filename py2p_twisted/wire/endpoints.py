"""How a node reaches the network: dialling, listening, and the address that it announces (floor 1).

Owns the choice between TCP and TLS, between IPv4, IPv6 and names, and the socket options.  Never
reads a message, never decides who may connect, and imports no TLS library unless it is given a
:class:`~py2p_twisted.wire.tls.Security`.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
)
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from ..errors import NetworkMismatch, PeerUnreachable

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import (
        IAddress,
        IListeningPort,
        IProtocol,
        IProtocolFactory,
        IStreamClientEndpoint,
        IStreamServerEndpoint,
    )
    from twisted.python.failure import Failure

    from .tls import Security

__all__ = [
    "NO_NODE",
    "TLS_REFUSAL",
    "Endpoints",
    "SniffingFactory",
    "TwistedEndpoints",
    "announced_host",
    "is_loopback",
    "lan_address",
    "looks_like_tls",
    "no_node",
    "plain_text_met_tls",
    "tune",
    "unreachable",
]

#: A fatal TLS alert "protocol version" (RFC 8446, section 6), in the clear: what a TLS node says to
#: a plain-text peer, which recognises it with :func:`looks_like_tls`.
TLS_REFUSAL = b"\x15\x03\x03\x00\x02\x02\x46"

#: What listens where no message comes from.
NO_NODE = (
    "something listens there that does not speak this protocol (a node's --http port, or another"
    " program?), or a node that hangs"
)

#: After this many milliseconds without an acknowledgement the kernel gives a connection up.
USER_TIMEOUT_MS = 10_000

#: Connections that the kernel holds ready: when there are more it lets new ones wait for a second
#: or more, those of honest peers too.
BACKLOG = 1024

#: The records that a peer may begin with: an alert, or its ClientHello.
_TLS_RECORDS = (0x15, 0x16)


class Endpoints(Interface):
    """The network as a node sees it; a test or the simulator stands in for it."""

    def connect(self, host: str, port: int, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Dial; fires with the protocol as soon as bytes can be sent to the other host.

        Under TLS that is *before* the handshake: its failure arrives in ``connectionLost``.
        Cancel the Deferred to give up.

        :returns: fails with one of ``twisted.internet.error`` (see :func:`unreachable`).
        """
        ...

    def listen(
        self, interface: str, port: int, factory: IProtocolFactory
    ) -> Deferred[IListeningPort]:
        """Accept connections on an interface; port 0 picks a free one.

        :returns: fails with ``twisted.internet.error.CannotListenError``.
        """
        ...


class TwistedEndpoints:
    """:class:`Endpoints` on a reactor: TCP, or TLS when there is a security object.

    :param reactor: clock and connections.
    :param security: who may talk to whom; None for plain text.
    :param timeout: seconds that dialling may take.
    """

    def __init__(
        self, reactor: Any, security: Security | None = None, timeout: float = 5.0
    ) -> None:
        self._reactor = reactor
        self._security = security
        self._timeout = timeout

    def connect(self, host: str, port: int, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`Endpoints.connect`.  An address is dialled without a thread, a name is not."""
        endpoint: IStreamClientEndpoint
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(self._reactor, host, port, self._timeout)
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(self._reactor, host, port, self._timeout)
        else:
            endpoint = HostnameEndpoint(self._reactor, host, port, self._timeout)
        if self._security is not None:
            from twisted.internet.endpoints import wrapClientTLS

            creator = self._security.client_creator(host)
            endpoint = wrapClientTLS(creator, endpoint, clock=self._reactor)
        return endpoint.connect(factory)

    def listen(
        self, interface: str, port: int, factory: IProtocolFactory
    ) -> Deferred[IListeningPort]:
        """See :meth:`Endpoints.listen`.  Under TLS plain-text peers are told why they are cut."""
        endpoint: IStreamServerEndpoint
        if isIPv6Address(interface):
            endpoint = TCP6ServerEndpoint(self._reactor, port, BACKLOG, interface)
        else:
            endpoint = TCP4ServerEndpoint(self._reactor, port, BACKLOG, interface)
        if self._security is not None:
            from twisted.protocols.tls import TLSMemoryBIOFactory

            creator = self._security.server_creator()
            factory = SniffingFactory(
                TLSMemoryBIOFactory(creator, False, factory, clock=self._reactor), TLS_REFUSAL
            )
        listening: Deferred[IListeningPort] = endpoint.listen(factory)
        return listening


class _SniffingProtocol(ProtocolWrapper):
    """In front of TLS on the listening side: answers a peer whose first byte is not TLS's.

    OpenSSL drops such a peer without a byte, and the peer could not tell why.
    """

    _sniffed = False

    def dataReceived(self, data: bytes) -> None:
        is_tls = self._sniffed or data[0] in _TLS_RECORDS
        self._sniffed = True
        if not is_tls:
            assert isinstance(self.factory, SniffingFactory)
            self.write(self.factory.refusal)
        self.wrappedProtocol.dataReceived(data)  # it finds the words for our own side
        if not is_tls:
            self.loseConnection()


class SniffingFactory(WrappingFactory[_SniffingProtocol]):
    """In front of a TLS factory: says something to peers that do not speak TLS.

    :param refusal: what they are told, in the clear, before they are hung up on.
    """

    protocol = _SniffingProtocol
    noisy = False

    def __init__(self, tls: IProtocolFactory, refusal: bytes) -> None:
        super().__init__(tls)
        self.refusal = refusal

    def logPrefix(self) -> str:
        """Twisted: how the log calls the listening port."""
        return str(self.wrappedFactory.logPrefix())

    def buildProtocol(self, addr: IAddress | None) -> _SniffingProtocol | None:  # type: ignore[override]
        """Twisted: a connection came; None closes it."""
        tls = self.wrappedFactory.buildProtocol(addr)
        if tls.wrappedProtocol is None:  # the innermost factory refuses; Twisted's would crash
            return None
        return self.protocol(self, tls)


def looks_like_tls(first_bytes: bytes) -> bool:
    """Tell whether a peer's first bytes are a TLS handshake or alert record (two bytes decide)."""
    return len(first_bytes) >= 2 and first_bytes[0] in _TLS_RECORDS and first_bytes[1] == 3


def plain_text_met_tls(address: str) -> NetworkMismatch:
    """What a plain-text node reports of a peer whose first bytes :func:`looks_like_tls`."""
    return NetworkMismatch(
        f"{address} speaks TLS and this node plain text: give both the same encryption",
        ours="plain text",
        theirs="TLS",
    )


def no_node(address: str, what: str) -> PeerUnreachable:
    """What is reported of an address where somebody listens, who is no node as far as one sees.

    :param what: it did, as a verb.
    """
    return PeerUnreachable(f"{address} {what}: {NO_NODE}")


def unreachable(reason: Failure, address: str) -> PeerUnreachable:
    """Say in one line why a connection could not be made or was lost."""
    for kinds, why in _CAUSES:
        if isinstance(reason.value, kinds):
            return PeerUnreachable(f"{address} {why}")
    return PeerUnreachable(f"{address} cannot be reached: {reason.getErrorMessage()}")


_CAUSES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((error.ConnectionRefusedError,), "refused the connection: no node listens there"),
    ((error.TimeoutError, error.TCPTimedOutError), "did not answer in time"),
    ((error.DNSLookupError,), "cannot be found: its name is unknown"),
    ((error.NoRouteError,), "cannot be reached: there is no route to it"),
    ((error.ConnectionClosed, error.ConnectionAborted), "closed the connection"),
)


def tune(transport: object) -> None:
    """Set the socket options of a node's connection, as far as the transport has them.

    Small messages leave at once (TCP_NODELAY), and a dead path is noticed by the kernel
    (keepalive; TCP_USER_TIMEOUT of 10 s where the platform knows it).
    """
    for option in ("setTcpNoDelay", "setTcpKeepAlive"):
        setter = getattr(transport, option, None)
        if setter is not None:
            setter(True)
    user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
    handle = getattr(transport, "socket", None)
    if user_timeout is not None and isinstance(handle, socket.socket):
        handle.setsockopt(socket.IPPROTO_TCP, user_timeout, USER_TIMEOUT_MS)


def announced_host(interface: str) -> str:
    """The host that a node announces that listens on this interface; a wildcard is no host."""
    return lan_address(interface or "0.0.0.0") if interface in ("", "0.0.0.0", "::") else interface


def is_loopback(interface: str) -> bool:
    """Whether only this machine reaches who listens there; of names that is known of one."""
    try:
        return interface == "localhost" or ip_address(interface).is_loopback
    except ValueError:
        return False


def lan_address(family_of: str) -> str:
    """The address of the interface with the default route; loopback when there is no network.

    No packet is sent: connecting a datagram socket only chooses a route.  The destinations are
    the documentation addresses of RFC 5737 and RFC 3849.

    :param family_of: ``"0.0.0.0"`` for an IPv4 address, ``"::"`` for an IPv6 one.
    """
    if ":" in family_of:
        family, elsewhere, loopback = socket.AF_INET6, "2001:db8::1", "::1"
    else:
        family, elsewhere, loopback = socket.AF_INET, "192.0.2.1", "127.0.0.1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return loopback
