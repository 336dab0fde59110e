"""The ring as a stream of server-sent events (floor 4; HTML, section 9.2).

Each event is the whole of what the page shows, so that a viewer who reads slowly misses the events
between two, and no memory fills for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from ..wire.endpoints import tune
from .answers import problem
from .observatory import Observatory

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.server import Request

__all__ = ["MOST_VIEWERS", "Events", "Hub"]

#: Streams at once.
MOST_VIEWERS = 32
#: Seconds after which a viewer that does not read is given up.
_PATIENCE = 30.0


@implementer(IPushProducer)
class Viewer:
    """One stream.

    :ivar held: since when, on the clock, it reads more slowly than is written; None: it does not.
    """

    def __init__(self, clock: Any, request: Request) -> None:
        self._clock = clock
        self._request = request
        self.held: float | None = None
        request.registerProducer(self, True)

    def send(self, event: bytes) -> None:
        """Write an event, unless the last ones are still on their way."""
        if self.held is None:
            self._request.write(event)
        elif self._clock.seconds() - self.held > _PATIENCE:
            self.end()

    def end(self) -> None:
        """Hang up."""
        transport: Any = self._request.transport
        transport.abortConnection()

    def pauseProducing(self) -> None:
        """Twisted: the viewer is slow."""
        if self.held is None:
            self.held = self._clock.seconds()

    def resumeProducing(self) -> None:
        """Twisted: it caught up."""
        self.held = None

    def stopProducing(self) -> None:
        """Twisted: it is gone, of which :class:`Hub` hears, too."""


class Hub:
    """All viewers; while there is one, it looks at the ring, and tells them.

    :param clock: IReactorTime.
    """

    log = Logger()

    def __init__(self, clock: Any, observatory: Observatory) -> None:
        self._clock = clock
        self._observatory = observatory
        self._viewers: set[Viewer] = set()
        self._last = b""
        self._looking = False
        self._next: IDelayedCall | None = None

    @property
    def full(self) -> bool:
        """Is there no room for one more?"""
        return len(self._viewers) >= MOST_VIEWERS

    def add(self, request: Request) -> None:
        """Stream to somebody until he hangs up."""
        viewer = Viewer(self._clock, request)

        def gone(_: object) -> None:
            self._viewers.discard(viewer)
            if not self._viewers:
                self.stop()

        request.notifyFinish().addBoth(gone)
        viewer.send(b"retry: 2000\n\n")
        self._viewers.add(viewer)
        if self._next is None and not self._looking:
            self._look()
        elif self._last:
            viewer.send(self._last)

    def stop(self) -> None:
        """Look no more."""
        self._last = b""
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None

    def _look(self) -> None:
        self._next, self._looking = None, True
        looking: Deferred[Any] = self._observatory.look()
        looking.addCallbacks(self._tell, self._failed).addCallback(self._again)

    def _tell(self, seen: dict[str, Any]) -> None:
        self._last = b"event: ring\ndata: " + msgspec.json.encode(seen) + b"\n\n"
        for viewer in list(self._viewers):
            viewer.send(self._last)

    def _failed(self, failure: Failure) -> None:
        self.log.failure("looking at the ring failed", failure)

    def _again(self, _: object) -> None:
        self._looking = False
        if self._viewers:
            self._next = self._clock.callLater(self._observatory.pause, self._look)


class Events(Resource):
    """``/events``: the stream."""

    isLeaf = True

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    def render_GET(self, request: Request) -> bytes | int:
        """Begin, if there is room."""
        if self._hub.full:
            return problem(
                request, 503, f"{MOST_VIEWERS} viewers are watching already", Retry_After="10"
            )
        request.setHeader("Content-Type", "text/event-stream")
        if request.method == b"HEAD":
            return b""
        tune(request.transport)
        self._hub.add(request)
        return NOT_DONE_YET
