"""Offering a node's ring over HTTP, as a service of any application (floor 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..wire.endpoints import SniffingFactory, is_loopback
from .endpoint import endpoint_of
from .events import Events, Hub
from .health import Health, Readiness
from .keys import Keys, Places
from .metrics import Metrics
from .observatory import Observatory, Status
from .pages import pages
from .site import ChordSite, Folder

if TYPE_CHECKING:
    from ..service import ChordService

__all__ = ["CannotServe", "WebService"]


#: What somebody is told who speaks plain HTTP where the ring has TLS.
_SAY_HTTPS = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 59\r\n"
    b"Connection: close\r\n\r\n"
    b"This port speaks HTTPS, and asks for a client certificate.\n"
)


class CannotServe(CannotListenError):
    """The endpoint of HTTP cannot be had, as opposed to the port of the node.

    :ivar option: of ``twistd chord``, that chooses another one.
    """

    option = "--http"


class WebService(Service):
    """The page of a ring, probes, metrics, and reading keys: see ``docs/live-ring.rst``.

    :param reactor: clock and connections.
    :param ring: the node whose ring it is; under its TLS, who asks must show a certificate, too.
    :param endpoint: a port, or a Twisted endpoint description; loopback unless it names an
        interface.
    :raises ValueError: for an endpoint that cannot be.
    """

    log = Logger()
    name = "chord-http"

    def __init__(self, reactor: Any, ring: ChordService, endpoint: str) -> None:
        self._reactor = reactor
        self._ring = ring
        self._security = ring.node.security
        self._described = endpoint
        self._endpoint = endpoint_of(reactor, endpoint, encrypted=self._security is not None)
        self._observatory = Observatory(reactor, ring)
        self._hub = Hub(reactor, self._observatory)
        self.site = ChordSite(reactor, self._root())
        self._listening: Deferred[Any] | None = None
        self.port: IListeningPort | None = None  # once it listens

    def _root(self) -> Folder:
        root, first = Folder(), Folder()
        for name, page in pages().items():
            root.putChild(name, page)
        root.putChild(b"healthz", Health(self._ring))
        root.putChild(b"readyz", Readiness(self._ring))
        root.putChild(b"metrics", Metrics(self._ring))
        root.putChild(b"status.json", Status(self._observatory))
        root.putChild(b"events", Events(self._hub))
        root.putChild(b"v1", first)
        first.putChild(b"keys", Keys(self._ring))
        first.putChild(b"places", Places(self._ring))
        return root

    # -- life

    def privilegedStartService(self) -> None:
        """Twisted: listen, while the process may still open low ports.

        :raises CannotServe: if the endpoint cannot be had.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Twisted: listen.

        :raises CannotServe: if the endpoint cannot be had.
        """
        self._listen()
        super().startService()

    def _listen(self) -> None:
        if self._listening is not None:
            return
        factory: IProtocolFactory = self.site
        if self._security is not None:
            from twisted.protocols.tls import TLSMemoryBIOFactory

            creator = self._security.server_creator()
            tls = TLSMemoryBIOFactory(creator, False, self.site, clock=self._reactor)
            factory = SniffingFactory(tls, _SAY_HTTPS)
        problems: list[Failure] = []
        listening = self._listening = self._endpoint.listen(factory)
        listening.addCallbacks(self._listens, problems.append)
        if problems:
            self._listening = None
            error = problems[0].value
            if isinstance(error, CannotListenError):
                raise CannotServe(error.interface, error.port, error.socketError)
            problems[0].raiseException()

    def _listens(self, port: IListeningPort) -> None:
        self.port = port
        where = port.getHost()
        local = isinstance(where, UNIXAddress) or is_loopback(str(getattr(where, "host", "")))
        self.site.loopback = local and not isinstance(where, UNIXAddress)
        if not local and not (self._security is not None and self._security.authenticated):
            self.log.warn(
                "Everyone who reaches {where} over HTTP can look at the ring and read every key.",
                where=self._described,
            )

    def stopService(self) -> Deferred[None]:
        """Twisted: stop listening, and hang up.

        :returns: fires when every connection and delayed call is gone.
        """
        super().stopService()
        self._hub.stop()
        gone: list[Deferred[Any]] = [self.site.close()]
        if self._listening is not None:
            stopped: Deferred[Any] = Deferred()
            self._listening.addCallback(self._stop_listening).chainDeferred(stopped)
            gone.append(stopped)
        return gatherResults(gone).addCallback(lambda _: None)

    def _stop_listening(self, _: object) -> Any:
        port, self.port = self.port, None
        return None if port is None else port.stopListening()
