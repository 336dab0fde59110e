"""All connections of one node (floor 1): one per peer, dialled when needed and watched for silence.

Owns the listening port and the connections.  Never knows what a request means: :class:`Observer`
does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn
from typing import Protocol as Interface

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import ChordError, PeerUnreachable
from ..settings import Settings
from .complaints import Complaints
from .dialler import Address, Dialler
from .endpoints import Endpoints, unreachable
from .handshake import Connection
from .link import Link
from .messages import Hello, Reply, Request
from .outbox import Outbox
from .watch import Watch

__all__ = ["Links", "Observer"]


class Observer(Interface):
    """The node, as its connections see it."""

    def hello(self) -> Hello:
        """What this node announces now."""

    def judge(self, hello: Hello) -> ChordError | None:
        """May this peer, of the same network, stay connected?  None, or the reason why not."""

    def answer(self, link: Link, request: Request) -> Any:
        """The reply to a request, or a Deferred of it."""

    def link_up(self, link: Link) -> None:
        """A peer is connected."""

    def link_changed(self, link: Link) -> None:
        """A peer announced itself anew."""

    def link_down(self, link: Link, error: ChordError) -> None:
        """The last connection to a peer is gone."""


class _Factory(Factory):
    """Makes the protocol of each connection that is accepted, or of the one that is dialled."""

    noisy = False

    def __init__(self, links: Links, dialled: Address | None = None) -> None:
        self._links = links
        self._dialled = dialled

    def logPrefix(self) -> str:
        """Twisted: how the log calls the listening port."""
        return "Chord"

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Twisted: a connection is made; None refuses it."""
        host = "" if self._dialled is not None else str(getattr(addr, "host", ""))
        if self._dialled is None and not self._links.has_room(host):
            return None
        connection = Connection(self._links, self._dialled)
        self._links.made(connection, host)
        return connection.protocol


class Links:
    """The connections of one node.

    :param clock: IReactorTime.
    :param endpoints: how to dial and listen.
    :param observer: the node.
    :param security: checks certificates against announced hosts; None for plain text.
    """

    log = Logger()
    #: Seconds that a connection has for sending what is left when the node stops.
    stop_patience = 1.0

    def __init__(
        self,
        clock: Any,
        settings: Settings,
        endpoints: Endpoints,
        observer: Observer,
        security: Any = None,
    ) -> None:
        self.clock = clock
        self.settings = settings
        self.outbox = Outbox(clock)
        self.complaints = Complaints(clock, self.log)
        self.bad_messages = 0
        self.changes = 0  # of who is connected
        self.hello = observer.hello
        self.answer = observer.answer
        self.changed = observer.link_changed
        self._endpoints = endpoints
        self._observer = observer
        self._security = security
        self._by_instance: dict[bytes, Link] = {}
        self._connections: dict[Connection, str] = {}  # and the host it was accepted from
        self._accepted: Counter[str] = Counter()  # by host
        self._dialler = Dialler(clock, settings, endpoints, lambda address: _Factory(self, address))
        self._watch = Watch(clock, settings, lambda: list(self._connections))
        self._port: IListeningPort | None = None
        self._port_closed = False
        self._patience: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None

    # -- life

    def listen(self, interface: str, port: int) -> Deferred[int]:
        """Accept connections; fires with the port.

        :returns: fails with ``twisted.internet.error.CannotListenError``.
        """

        def listening(listening_port: IListeningPort) -> int:
            self._port = listening_port
            self._watch.start()
            address = listening_port.getHost()
            assert isinstance(address, IPv4Address | IPv6Address)
            return address.port

        return self._endpoints.listen(interface, port, _Factory(self)).addCallback(listening)

    def stop(self) -> Deferred[None]:
        """Close the port and every connection; fires when all are gone, and every delayed call."""
        if self._stopping is not None:
            return self._stopping
        self._stopping = Deferred()
        self._watch.stop()
        self._dialler.stop()
        for connection in list(self._connections):
            connection.protocol.close()
        self._patience = self.clock.callLater(self.stop_patience, self._abort_all)
        closed = None if self._port is None else self._port.stopListening()
        (closed if isinstance(closed, Deferred) else succeed(None)).addCallbacks(
            self._port_is_closed, self._port_is_closed
        )
        return self._stopping

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.protocol.abort()

    def _port_is_closed(self, result: Any) -> None:
        if isinstance(result, Failure):
            self.log.failure("the port could not be closed", result)
        self._port_closed = True
        self._check_stopped()

    def _check_stopped(self) -> None:
        stopping = self._stopping
        if stopping is None or stopping.called or not self._port_closed or self._connections:
            return
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self.outbox.stop()
        stopping.callback(None)

    # -- asking

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._by_instance.values()))

    def get(self, instance: bytes) -> Link | None:
        """The connection to an instance, if there is one."""
        return self._by_instance.get(instance)

    def ask(self, peer: Peer, request: Request, timeout: float | None = None) -> Deferred[Reply]:
        """Ask a peer, dialling it if there is no connection.

        :param timeout: seconds for the answer; by default what the connection's speed suggests.
            Dialling may take as long again, or ``Settings.request_timeout_max`` if that is more.
        :returns: fires with the reply, or fails with `OperationTimeout` or `PeerUnreachable`, or
            with what kept the connection from being made.
        """
        link = self._by_instance.get(peer.instance)
        if link is not None:
            self._watch.expect()
            return link.ask(request, timeout)
        if peer.address == self.hello().peer.address:
            return fail(PeerUnreachable(f"this node has the address of {peer} now"))
        if self._dialler.failed_just_now(peer.address):
            return fail(PeerUnreachable(f"{peer} could not be reached just now"))

        def connected(link: Link) -> Deferred[Reply]:
            if link.peer.instance != peer.instance:
                raise PeerUnreachable(f"another instance answers at the address of {peer}")
            self._watch.expect()
            return link.ask(request, timeout)

        def too_slow(_: Any, seconds: float) -> NoReturn:
            raise PeerUnreachable(f"{peer} was not connected within {seconds:g} s")

        patience = max(timeout or 0.0, self.settings.request_timeout_max)
        dialling = self.dial(peer.host, peer.port)
        dialling.addTimeout(patience, self.clock, too_slow)  # the attempt goes on for others
        return dialling.addCallback(connected)

    def request(
        self,
        peer: Peer,
        request: Request,
        done: Callable[[Any], None],
        timeout: float | None = None,
    ) -> None:
        """As :meth:`ask`, for who asks often: calls `done` with the reply or the `Failure`."""
        link = self._by_instance.get(peer.instance)
        if link is not None:
            self._watch.expect()
            link.request(request, done, timeout)
        else:
            self.ask(peer, request, timeout).addBoth(done)

    def failed_lately(self, peer: Peer) -> bool:
        """Is there no connection to it, because the last try to make one failed?"""
        return peer.instance not in self._by_instance and self._dialler.failed(peer.address)

    def dial(self, host: str, port: int) -> Deferred[Link]:
        """Connect to an address; fires once the peer said HELLO.

        :returns: fails with a `ConnectionError` of :mod:`py2p_twisted.errors` or `RingConflict`.
        """
        address = (host, port)
        for connection in self._connections:
            link = connection.link
            if link is None or link.retired or link.closing:
                continue
            if address in (link.peer.address, connection.dialled_address):
                return succeed(link)
        return self._dialler.dial(address)

    # -- what connections report

    def has_room(self, host: str) -> bool:
        """May one more connection from this host be accepted?"""
        settings, count = self.settings, len(self._connections)
        if self._stopping is not None:
            return False
        if count >= settings.connections:
            self.complain(host, PeerUnreachable(f"{host} would be connection {count + 1} in all"))
            return False
        of_host = self._accepted.get(host, 0)
        if of_host >= settings.connections_per_address:
            self.complain(host, PeerUnreachable(f"{host} has {of_host} connections already"))
            return False
        return True

    def made(self, connection: Connection, host: str) -> None:
        """A connection exists (its handshake is still to come).

        :param host: where it was accepted from, empty if it was dialled.
        """
        self._connections[connection] = host
        if host:
            self._accepted[host] += 1

    def judge(self, hello: Hello, transport: Any) -> ChordError | None:
        """May this peer stay?  Checks its certificate's name if it stores, then asks the node."""
        if self._security is not None and not hello.leeching:
            try:
                self._security.verify_host(transport, hello.peer.host)
            except ChordError as error:
                return error
        return self._observer.judge(hello)

    def check_own_name(self) -> None:
        """May this node store?

        :raises AuthenticationFailed: if its certificate does not name the host that it announces.
        """
        if self._security is not None:
            self._security.verify_own(self.hello().peer.host)

    def explain(self, reason: Failure, address: str, *, opened: bool) -> ChordError:
        """Why a connection ended that nobody refused."""
        if self._security is not None:
            error: ChordError = self._security.explain(reason, address)
            return error
        if opened:
            return PeerUnreachable(f"the connection to {address} was lost")
        return unreachable(reason, address)

    def opened(self, connection: Connection, link: Link) -> None:
        """A handshake succeeded: keep one connection per peer."""
        instance = link.peer.instance
        old = self._by_instance.get(instance)
        self.changes += 1
        keep = link
        if old is not None:
            keep = link if self._newer_stays(old, link) else old
            old.retired = link.retired = True
            keep.retired = False
        self._by_instance[instance] = keep
        if old is None:
            self._observer.link_up(link)
        elif keep is link:
            self.changed(link)
        if connection.dialled_address is not None:
            self._dialler.ended(connection.dialled_address, keep)

    def _newer_stays(self, old: Link, new: Link) -> bool:
        if old.closing or old.dialled == new.dialled:
            return True  # the peer, or this node, had given the old one up
        mine, theirs = self.hello().peer.instance, new.peer.instance
        return new.dialled == (mine < theirs)  # the one dialled by the lower instance

    def closed(self, connection: Connection, error: ChordError) -> None:
        """A connection is gone."""
        host = self._connections.pop(connection, "")
        if host:
            self._accepted[host] -= 1
            if not self._accepted[host]:
                del self._accepted[host]
        link = connection.link
        if link is not None:
            self._lost(link, error)
        elif connection.dialled_address is not None:
            self._dialler.ended(connection.dialled_address, error)
        elif not connection.told:
            self.complain(host, error)
        self._check_stopped()

    def complain(self, host: str, error: ChordError) -> None:
        """Count that a peer was refused, and log it if that was not said often enough.

        :param host: where the connection comes from, not what the peer says of itself.
        """
        self.complaints.refused(host, error)

    def _lost(self, link: Link, error: ChordError) -> None:
        self.changes += 1
        link.lost(str(error))
        instance = link.peer.instance
        if self._by_instance.get(instance) is not link:
            return
        spare = self._spare(instance)
        if spare is not None:
            spare.retired = False
            self._by_instance[instance] = spare
            self.changed(spare)
        else:
            del self._by_instance[instance]
            if self.clock.seconds() - link.heard_at >= self.settings.dead_after:
                self._dialler.avoid(link.peer.address, self.settings.request_timeout_max)
            self._observer.link_down(link, error)

    def _spare(self, instance: bytes) -> Link | None:
        """Another connection to the same peer that is not closed yet."""
        for connection in self._connections:
            link = connection.link
            if link is not None and link.peer.instance == instance and not link.closing:
                return link
        return None

    def announce(self) -> None:
        """Tell every peer who this node is now."""
        hello = self.hello()
        for connection in list(self._connections):
            if connection.link is not None:
                connection.link.send(hello)

    def hang_up(self, link: Link, error: ChordError) -> None:
        """Close a connection and tell the peer why."""
        for connection in list(self._connections):
            if connection.link is link:
                connection.refuse(error)
