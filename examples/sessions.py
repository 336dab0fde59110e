"""Web sessions in the dictionary: log in at one server, be known at all of them.

Two servers on one machine; each brings its own node of the ring::

    PASSWORD=secret python examples/sessions.py --port 4444 --web 8080
    PASSWORD=secret python examples/sessions.py --port 4445 --web 8081 --join 127.0.0.1:4444

The dictionary has no expiry.  So each session says until when it is valid; one that is over counts
as gone at once, and the next sweep deletes it.  The servers' clocks should agree within seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import html
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

log = Logger("sessions")


class Sessions:
    """Who is logged in.

    :param lifetime: seconds after which somebody who does nothing is logged out.
    """

    PREFIX = b"session:"

    def __init__(
        self,
        ring: ChordService,
        lifetime: float = 1800.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ring = ring
        self._lifetime = lifetime
        self._now = now

    async def begin(self, user: str) -> str:
        """Log somebody in; the token is for a cookie, and for nobody else."""
        token = secrets.token_urlsafe(32)
        await self._ring.set(self._key(token), self._until_later(user))
        return token

    async def user(self, token: str) -> str | None:
        """Whose session this is; None if it is over, or never was."""
        key = self._key(token)
        kept = await self._ring.get(key)
        if kept is None or self._left(kept) <= 0:
            return None
        user: str = json.loads(kept)["user"]
        if self._left(kept) < self._lifetime / 2:
            # Not at every request, for a write costs more than a read.  And not with set(): that
            # would bring a session back whose user logs out at the same moment at another server.
            await self._ring.compare_and_set(key, kept, self._until_later(user))
        return user

    async def end(self, token: str) -> None:
        """Log somebody out, at all servers."""
        await self._ring.delete(self._key(token))

    async def sweep(self) -> int:
        """Delete what is over; how many.  All servers may do this at the same time."""
        swept = 0
        async for key, kept in self._ring.items():
            if key.startswith(self.PREFIX) and self._left(kept) <= 0:
                # Only if nobody renewed it since it was read.
                swept += await self._ring.compare_and_set(key, kept, None)
        return swept

    def _key(self, token: str) -> bytes:
        """The dictionary holds no tokens, only their hashes: who reads it can log in as nobody."""
        return self.PREFIX + hashlib.sha256(token.encode()).hexdigest().encode()

    def _until_later(self, user: str) -> bytes:
        return json.dumps({"user": user, "until": self._now() + self._lifetime}).encode()

    def _left(self, kept: bytes) -> float:
        return float(json.loads(kept)["until"]) - self._now()


def knows(user: str, password: str) -> bool:
    """Yours: this one lets in everybody who knows the one password."""
    return bool(user) and hmac.compare_digest(password.encode(), os.environb[b"PASSWORD"])


class Page(Resource):
    """One page: a greeting for those who are logged in, a form for all others."""

    isLeaf = True

    def __init__(self, sessions: Sessions) -> None:
        super().__init__()
        self._sessions = sessions

    def render(self, request: Request) -> int:
        """Twisted: answer later, unless the browser goes away meanwhile."""
        answer = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answer.cancel())
        answer.addErrback(lambda failure: failure.trap(CancelledError) and None)
        answer.addErrback(request.processingFailed)  # a bug: log it, and answer with 500
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        try:
            body = await self._act(request)
        except ChordError as error:  # too few members of the ring answer, say
            log.warn("no answer from the ring: {error}", error=error)
            request.setResponseCode(503)
            request.setHeader("Retry-After", "2")
            body = "Please try again in a moment."
        request.write(f"<!doctype html><title>Sessions</title>{body}\n".encode())
        request.finish()

    async def _act(self, request: Request) -> str:
        token = (request.getCookie(b"session") or b"").decode("latin-1")
        action = (request.method, request.path)
        if action == (b"POST", b"/login"):
            name, password = (_field(request, field) for field in (b"user", b"password"))
            if not knows(name, password):
                request.setResponseCode(403)
                return "Wrong name or password."
            # Always a new token: one that was there before may be known to somebody else.
            self._cookie(request, await self._sessions.begin(name))
            return _back(request)
        if action == (b"POST", b"/logout"):
            await self._sessions.end(token)
            self._cookie(request, "")
            return _back(request)
        user = await self._sessions.user(token) if token else None
        if user is None:
            return (
                '<form method="post" action="/login"><input name="user" aria-label="Name">'
                '<input name="password" type="password" aria-label="Password">'
                "<button>Log in</button></form>"
            )
        return (
            f'Hello {html.escape(user)}. <form method="post" action="/logout">'
            "<button>Log out</button></form>"
        )

    def _cookie(self, request: Request, token: str) -> None:
        """Not for scripts, and not sent along by other sites' forms."""
        secure = request.isSecure()
        request.addCookie("session", token, path="/", httpOnly=True, sameSite="lax", secure=secure)


def _field(request: Request, name: bytes) -> str:
    values: list[bytes] = (request.args or {}).get(name, [b""])
    return values[0].decode("utf-8", "replace")


def _back(request: Request) -> str:
    request.redirect(b"/")
    return ""


async def main(reactor: Any, *arguments: str) -> None:
    """One server, until it is stopped."""
    parser = argparse.ArgumentParser(description="web sessions that all servers know")
    parser.add_argument("--port", type=int, default=0, help="the port of this node of the ring")
    parser.add_argument("--join", metavar="HOST:PORT", help="a member of the ring; else found one")
    parser.add_argument("--web", type=int, default=8080, help="the port for browsers")
    parser.add_argument("--lifetime", type=float, default=1800.0, help="seconds of a session")
    options = parser.parse_args(arguments)
    if not os.environ.get("PASSWORD"):
        parser.error("say in the environment which PASSWORD lets in")
    host, _, port = (options.join or "").rpartition(":")

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    server = MultiService()
    reactor.addSystemEventTrigger("before", "shutdown", server.stopService)
    ring = ChordService(
        reactor, "127.0.0.1", options.port, join=[(host, int(port))] if options.join else []
    )
    ring.setServiceParent(server)
    sessions = Sessions(ring, options.lifetime)

    async def sweep() -> None:
        try:
            log.info("{swept} sessions were over", swept=await sessions.sweep())
        except ChordError as error:  # a TimerService ends with the first exception
            log.warn("not swept: {error}", error=error)

    server.startService()
    await ring.when_ready()
    web = reactor.listenTCP(options.web, Site(Page(sessions)), interface="127.0.0.1")
    TimerService(options.lifetime, lambda: Deferred.fromCoroutine(sweep())).setServiceParent(server)
    log.info("ready: http://127.0.0.1:{port}/", port=web.getHost().port)
    await Deferred()  # until it is stopped


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
