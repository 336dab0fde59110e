"""The HTTP server: what is where, who may ask, and how much (floor 4).

Every bound and every refusal that holds for all paths is here: only GET and HEAD, no bodies, no
web page of another site, on loopback no other name than this machine's; a whole request in
:data:`PATIENCE` seconds, and so many connections.
"""

from __future__ import annotations

from io import BytesIO
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.resource import IResource, Resource, getChildForRequest
from twisted.web.server import NOT_DONE_YET, Request, Site

from .answers import HEADERS, PROBLEM, NotFound, header, problem, problem_body

__all__ = ["MOST_CONNECTIONS", "PATIENCE", "ChordSite", "Folder"]

#: Seconds from the start of a connection, or from the last answer, to the end of a request.
PATIENCE = 30.0
#: Connections at once, those that look at the page included.
MOST_CONNECTIONS = 64
#: Bytes of a body that are read, and thrown away, before the connection is closed.
MOST_BODY = 64 * 1024
#: Headers of one request.
MOST_HEADERS = 64


class ChordChannel(HTTPChannel):
    """One connection.

    :ivar held: the client reads more slowly than it is answered.
    """

    maxHeaders = MOST_HEADERS
    held = False
    _done: Request | None = None  # answered, and not read yet: what comes behind it waits
    site: ChordSite
    transport: Any

    def connectionMade(self) -> None:
        """Close it at once if there are too many."""
        super().connectionMade()
        self.site.channels.add(self)
        if len(self.site.channels) > MOST_CONNECTIONS:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is no more."""
        super().connectionLost(reason)
        self.site.closed(self)

    def pauseProducing(self) -> None:
        """Twisted: much is written that the client has not read."""
        self.held = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Twisted: it was."""
        self.held = False
        super().resumeProducing()
        done, self._done = self._done, None
        if done is not None:
            self.requestDone(done)

    def requestDone(self, request: Request) -> None:
        """An answer is written; the next request waits until the client has read it.

        No more is read from the client meanwhile, and it has :data:`PATIENCE` seconds.
        """
        if self.held and self.persistent:
            self._done = request
            self._networkProducer.pauseProducing()
            self.setTimeout(PATIENCE)
        else:
            super().requestDone(request)

    def resetTimeout(self) -> None:
        """A byte now and then wins no time: the whole request has to be there."""

    def lineLengthExceeded(self, line: bytes) -> None:
        """Twisted would close without a word: say which limit it is, if it is still the first line.

        No answer to an earlier request may be under way, which this one would stand in.
        """
        if not self.requests:
            self.transport.write(_too_long())
        self.loseConnection()

    def timeoutConnection(self) -> None:
        """Twisted would log it, wait, and log again."""
        self.transport.abortConnection()


class ChordRequest(Request):
    """One request: judged before its resource sees it."""

    channel: ChordChannel
    transport: Any
    _body = 0

    def gotLength(self, length: int | None) -> None:
        """No request has a body that anybody reads."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Throw it away, and the connection too if it does not end."""
        self._body += len(data)
        if self._body > MOST_BODY:
            self.transport.abortConnection()

    def process(self) -> None:
        """Refuse it, or find its resource and render that."""
        if self.channel.held:
            # Asks and does not read: each answer would wait in memory behind the one before.
            self.channel.transport.abortConnection()
            return
        site = self.site = self.channel.site
        for name, value in HEADERS.items():
            self.setHeader(name, value)
        self.setHeader("Date", datetimeToString())
        try:
            refused = refusal(self, loopback=site.loopback)
            if refused is not None:
                self.write(refused)
                self.finish()
                return
            self.prepath = []
            self.postpath = [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]
            self.render(site.getResourceFor(self))
        except Exception:
            self.processingFailed(Failure())

    def render(self, resource: Any) -> None:
        """Let a resource answer; Twisted's own would log a line for each HEAD."""
        body = resource.render(self)
        if body is not NOT_DONE_YET:
            self.write(body)
            self.finish()


def _too_long() -> bytes:
    """The answer to a request whose first line is over the limit: there is no request yet."""
    body = problem_body(414, f"the address is over the limit of {HTTPChannel.MAX_LENGTH} bytes")
    headers = {
        **HEADERS,
        "Date": datetimeToString().decode(),
        "Connection": "close",
        "Content-Type": PROBLEM,
        "Content-Length": str(len(body)),
    }
    lines = ["HTTP/1.1 414 Request-URI Too Long", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def refusal(request: Request, *, loopback: bool) -> bytes | None:
    """The answer to a request that may not be made; None if it may."""
    if request.method not in (b"GET", b"HEAD"):
        return problem(
            request, 405, "only GET and HEAD: nothing is changed here", Allow="GET, HEAD"
        )
    host = header(request, b"host")
    if loopback and host is not None and not is_this_machine(host):
        return problem(
            request,
            403,
            "this page is for this machine only: ask for it as localhost or 127.0.0.1, or name an "
            "interface (--http tcp:PORT:interface=ADDRESS) to let others in",
        )
    fetched = header(request, b"sec-fetch-site")
    if fetched in ("cross-site", "same-site") and header(request, b"sec-fetch-mode") != "navigate":
        return problem(request, 403, "a page of another site asked for this")
    return None


def is_this_machine(host: str) -> bool:
    """Does a Host header name this machine?  Another name may be a stranger's that leads here."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class ChordSite(Site):
    """The server of all that is under some resource.

    :ivar channels: the connections now.
    :ivar loopback: only this machine reaches it, so that only its names are asked for.
    """

    protocol = ChordChannel  # type: ignore[assignment]  # HTTP/1.1 only
    requestFactory = ChordRequest
    noisy = False

    def __init__(self, reactor: Any, root: IResource) -> None:
        super().__init__(root, timeout=PATIENCE, reactor=reactor)
        self.channels: set[ChordChannel] = set()
        self.loopback = True
        self._emptied: Deferred[None] | None = None

    def close(self) -> Deferred[None]:
        """Hang up everywhere; fires when the last connection is gone."""
        for channel in list(self.channels):
            channel.transport.abortConnection()
        emptied = self._emptied = Deferred()
        self._tell_emptied()
        return emptied

    def closed(self, channel: ChordChannel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        self._tell_emptied()

    def _tell_emptied(self) -> None:
        if self._emptied is not None and not self.channels and not self._emptied.called:
            self._emptied.callback(None)

    def startFactory(self) -> None:
        """No log of requests is kept, and so no clock for it."""

    def stopFactory(self) -> None:
        """See :meth:`startFactory`."""

    def log(self, request: Any) -> None:
        """See :meth:`startFactory`."""

    def acceptableProtocols(self) -> list[bytes]:
        """Under TLS: HTTP/1.1 only, even where Twisted could speak HTTP/2."""
        return [b"http/1.1"]

    def getResourceFor(self, request: Request) -> Any:
        """The resource of a path; nothing is below most of them."""
        found = getChildForRequest(self.resource, request)
        if request.postpath and not getattr(found, "takes_path", False):
            return NotFound()
        return found


class Folder(Resource):
    """Resources by name."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """A name that nobody has."""
        return NotFound()

    def render_GET(self, request: Request) -> bytes:
        """The folder itself, without a slash: as with one."""
        return NotFound().render_GET(request)
