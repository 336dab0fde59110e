"""All connections of one node (floor 1): one per peer, dialled when needed and watched for silence.

Owns the listening port, the connections and the failure detector.  Never knows what a request
means: :class:`Observer` does.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from typing import Protocol as Interface

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..base import Peer, show_address
from ..errors import ChordError, PeerUnreachable
from ..settings import Settings
from .endpoints import Endpoints, unreachable
from .handshake import Connection
from .link import Link
from .messages import Hello, Ping, Reply, Request
from .protocol import Outbox

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

    def __init__(self, links: Links, dialled: tuple[str, int] | None = None) -> None:
        self._links = links
        self._dialled = dialled
        self.connection: Connection | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Twisted: a connection is made; None refuses it."""
        if self._dialled is None and not self._links.has_room(addr):
            return None
        self.connection = Connection(self._links, self._dialled)
        self._links.made(self.connection, None if self._dialled else addr)
        return self.connection.protocol


class Links:
    """The connections of one node.

    :param clock: IReactorTime.
    :param endpoints: how to dial and listen.
    :param observer: the node.
    :param security: checks certificates against announced hosts; None for plain text.
    """

    log = Logger()
    #: Seconds between two looks at the deadlines of requests, while there are any.
    sweep_interval = 0.05
    #: Seconds between two looks for silent peers.
    watch_interval = 0.5

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
        self.nobody = Peer(bytes(16), b"\0", "", 0)
        self.bad_messages = 0
        self._endpoints = endpoints
        self._observer = observer
        self._security = security
        self._by_instance: dict[bytes, Link] = {}
        self._connections: dict[Connection, str] = {}
        self._addresses: Counter[str] = Counter()
        self._dialling: dict[tuple[str, int], list[Deferred[Link]]] = {}
        self._dials: dict[tuple[str, int], Deferred[Any]] = {}
        self._connecting: dict[Connection, tuple[str, int]] = {}
        self._unreachable: dict[tuple[str, int], float] = {}
        self._port: IListeningPort | None = None
        self._sweeping: IDelayedCall | None = None
        self._watching: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None
        self.hello = observer.hello
        self.answer = observer.answer
        self.changed = observer.link_changed

    # -- life

    def listen(self, interface: str, port: int) -> Deferred[int]:
        """Accept connections; fires with the port."""

        def listening(listening_port: IListeningPort) -> int:
            self._port = listening_port
            self._watching = self.clock.callLater(self.watch_interval, self._watch)
            address = listening_port.getHost()
            assert isinstance(address, IPv4Address | IPv6Address)
            return address.port

        return self._endpoints.listen(interface, port, _Factory(self)).addCallback(listening)

    def stop(self) -> Deferred[None]:
        """Close the port and every connection; fires when all are gone."""
        if self._stopping is not None:
            return self._stopping
        self._stopping = Deferred()
        for call in (self._sweeping, self._watching):
            if call is not None and call.active():
                call.cancel()
        for dial in list(self._dials.values()):
            dial.cancel()
        closed = succeed(None)
        if self._port is not None:
            closed = Deferred()
            maybe = self._port.stopListening()
            if isinstance(maybe, Deferred):
                maybe.addBoth(lambda _: closed.callback(None))
            else:
                closed.callback(None)
        for connection in list(self._connections):
            connection.protocol.close()
        self._patience = self.clock.callLater(1.0, self._abort_all)
        closed.addCallback(lambda _: self._check_stopped(port_closed=True))
        return self._stopping

    _patience: IDelayedCall | None = None
    _port_closed = False

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.protocol.abort()

    def _check_stopped(self, *, port_closed: bool = False) -> None:
        self._port_closed = self._port_closed or port_closed
        if self._stopping is None or self._stopping.called or not self._port_closed:
            return
        if not self._connections:
            if self._patience is not None and self._patience.active():
                self._patience.cancel()
            self._stopping.callback(None)

    # -- asking

    def __iter__(self) -> Any:
        return iter(list(self._by_instance.values()))

    def get(self, instance: bytes) -> Link | None:
        """The connection to an instance, if there is one."""
        return self._by_instance.get(instance)

    def ask(self, peer: Peer, request: Request, timeout: float | None = None) -> Deferred[Reply]:
        """Ask a peer, dialling it if there is no connection.

        :param timeout: seconds for the answer; by default what the connection's speed suggests.
        :returns: fires with the reply, or fails with `OperationTimeout` or `PeerUnreachable`, or
            with what kept the connection from being made.
        """
        link = self._by_instance.get(peer.instance)
        if link is not None:
            deferred = link.ask(request, timeout)
            if self._sweeping is None:
                self._sweep_soon()
            return deferred
        until = self._unreachable.get(peer.address)
        if until is not None and self.clock.seconds() < until:
            return _failed(PeerUnreachable(f"{peer} could not be reached just now"))

        def connected(link: Link) -> Deferred[Reply]:
            if link.peer.instance != peer.instance:
                raise PeerUnreachable(f"another instance answers at the address of {peer}")
            self._sweep_soon()
            return link.ask(request, timeout)

        return self.dial(peer.host, peer.port).addCallback(connected)

    def failed_lately(self, peer: Peer) -> bool:
        """Is there no connection to it, because the last try to make one failed?"""
        return peer.instance not in self._by_instance and peer.address in self._unreachable

    def dial(self, host: str, port: int) -> Deferred[Link]:
        """Connect to an address; fires once the peer said HELLO.

        :returns: fails with a `ConnectionError` of :mod:`py2p_twisted.errors` or `RingConflict`.
        """
        address = (host, port)
        for link in self._by_instance.values():
            if link.peer.address == address and not link.retired:
                return succeed(link)
        waiter: Deferred[Link] = Deferred()
        if self._stopping is not None:
            waiter.errback(PeerUnreachable("this node is stopping"))
            return waiter
        waiting = self._dialling.setdefault(address, [])
        waiting.append(waiter)
        if len(waiting) > 1:
            return waiter
        factory = _Factory(self, address)
        dial = self._dials[address] = self._endpoints.connect(host, port, factory)
        patience = self.clock.callLater(self.settings.handshake_timeout, dial.cancel)

        def ended(result: Any) -> None:
            if patience.active():
                patience.cancel()
            self._dials.pop(address, None)
            if isinstance(result, Failure):
                self._dialled(address, unreachable(result, show_address(host, port)))

        dial.addBoth(ended)
        return waiter

    def _dialled(self, address: tuple[str, int], result: Link | ChordError) -> None:
        now = self.clock.seconds()
        if isinstance(result, Link):
            self._unreachable.pop(address, None)
        else:
            if len(self._unreachable) > self.settings.connections:
                self._unreachable.clear()
            self._unreachable[address] = now + self.settings.retry_max
        for waiter in self._dialling.pop(address, []):
            if isinstance(result, Link):
                waiter.callback(result)
            else:
                waiter.errback(result)

    # -- what connections report

    def has_room(self, address: IAddress | None) -> bool:
        """May one more connection from this address be accepted?"""
        host = getattr(address, "host", "")
        room = (
            self._stopping is None
            and len(self._connections) < self.settings.connections
            and self._addresses[host] < self.settings.connections_per_address
        )
        if not room:
            self.log.debug("a connection from {host} was not accepted: too many", host=host)
        return room

    def made(self, connection: Connection, accepted_from: IAddress | None) -> None:
        """A connection exists (its handshake is still to come)."""
        host = "" if accepted_from is None else str(getattr(accepted_from, "host", ""))
        self._connections[connection] = host
        self._addresses[host] += accepted_from is not None

    def judge(self, hello: Hello, transport: Any) -> ChordError | None:
        """May this peer stay?  Checks its certificate's name if it stores, then asks the node."""
        if self._security is not None and not hello.leeching:
            try:
                self._security.verify_host(transport, hello.peer.host)
            except ChordError as error:
                return error
        return self._observer.judge(hello)

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
        keep = link
        if old is not None and not self._newer_stays(old, link):
            keep = old
            link.retired = True
        elif old is not None:
            old.retired = True
        self._by_instance[instance] = keep
        if keep is link and old is None:
            self._observer.link_up(link)
        elif keep is link:
            self.changed(link)
        dialled = connection.dialled_address
        if dialled is not None:
            self._dialled(dialled, keep)

    def _newer_stays(self, old: Link, new: Link) -> bool:
        if old.dialled == new.dialled:
            return True  # the peer, or this node, had given the old one up
        mine, theirs = self.hello().peer.instance, new.peer.instance
        return new.dialled == (mine < theirs)  # the one dialled by the lower instance

    def closed(self, connection: Connection, error: ChordError) -> None:
        """A connection is gone."""
        host = self._connections.pop(connection, "")
        if connection.dialled_address is None:
            self._addresses[host] -= 1
            if self._addresses[host] <= 0:
                del self._addresses[host]
        link = connection.link
        if link is None:
            if connection.dialled_address is not None:
                self._dialled(connection.dialled_address, error)
            else:
                self.log.info("a connection was not made: {error}", error=str(error))
        else:
            link.lost(str(error))
            if self._by_instance.get(link.peer.instance) is link:
                del self._by_instance[link.peer.instance]
                self._observer.link_down(link, error)
        self._check_stopped()

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

    # -- time

    def _sweep_soon(self) -> None:
        if self._sweeping is None and self._stopping is None:
            self._sweeping = self.clock.callLater(self.sweep_interval, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self.clock.seconds()
        busy = False
        for connection in list(self._connections):
            link = connection.link
            if link is not None and not link.idle:
                link.sweep(now)
                busy = busy or not link.idle
        if busy:
            self._sweep_soon()

    def _watch(self) -> None:
        """Ping the silent, give up the dead, close what was replaced."""
        now = self.clock.seconds()
        late = now - self._watched_at - 2 * self.watch_interval if self._watched_at else 0.0
        self._watched_at = now
        self._watching = self.clock.callLater(self.watch_interval, self._watch)
        for connection in list(self._connections):
            link = connection.link
            if link is None:
                continue
            if late > 0:
                link.heard_at += late  # this node was away itself: the peers are not to blame
            silent = now - link.heard_at
            if silent >= self.settings.dead_after:
                connection.error = PeerUnreachable(f"{link.peer} was silent for {silent:.1f} s")
                link.abort()
            elif link.retired and link.idle and not link.unanswered and silent > 2:
                link.close()
            elif silent >= self.settings.ping_after and not link.pinging and not link.retired:
                self._ping(link)

    _watched_at = 0.0

    def _ping(self, link: Link) -> None:
        link.pinging = True

        def ended(_: Any) -> None:
            link.pinging = False

        link.ask(Ping(), self.settings.request_timeout_max).addBoth(ended)
        self._sweep_soon()


def _failed(error: ChordError) -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    deferred.errback(error)
    return deferred
