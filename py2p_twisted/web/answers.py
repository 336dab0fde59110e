"""How an answer looks: headers for all, text, JSON, and problems as JSON (floor 4; RFC 9457)."""

from __future__ import annotations

from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

__all__ = [
    "HEADERS",
    "PROBLEM",
    "NotFound",
    "as_json",
    "as_text",
    "header",
    "later",
    "problem",
    "problem_body",
    "sized",
]

#: The content type of a problem.
PROBLEM = "application/problem+json"
#: What every answer says: only what comes from here runs, nobody frames it, nothing is guessed.
HEADERS = {
    "Server": "py2p_twisted",
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def header(request: Request, name: bytes) -> str | None:
    """A header of a request; whatever bytes it has, it can be looked at."""
    value = request.getHeader(name)
    return None if value is None else value.decode("latin-1")


def sized(request: Request, kind: str, body: bytes) -> bytes:
    """An answer of a content type; returned by a resource, it is sent."""
    request.setHeader("Content-Type", kind)
    request.setHeader("Content-Length", str(len(body)))
    return body


def as_json(request: Request, body: object, kind: str = "application/json") -> bytes:
    """An answer in JSON."""
    return sized(request, kind, msgspec.json.encode(body) + b"\n")


def as_text(request: Request, status: int, text: str) -> bytes:
    """An answer in a line, for people and probes."""
    request.setResponseCode(status)
    return sized(request, "text/plain; charset=utf-8", text.encode() + b"\n")


def problem(request: Request, status: int, detail: str, **headers: str) -> bytes:
    """What went wrong.

    :param headers: more of them, with ``_`` for ``-``.
    """
    request.setResponseCode(status)
    for name, value in headers.items():
        request.setHeader(name.replace("_", "-"), value)
    return sized(request, PROBLEM, problem_body(status, detail))


def problem_body(status: int, detail: str) -> bytes:
    """What went wrong, in JSON."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return msgspec.json.encode(body) + b"\n"


def later(request: Request, answer: Coroutine[Deferred[Any], Any, bytes]) -> int:
    """Send an answer when it is there; whoever hangs up before waits for it no longer."""
    waiting = Deferred.fromCoroutine(answer)
    lost = False

    def hung_up(_: Failure) -> None:
        nonlocal lost
        lost = True
        waiting.cancel()

    def ended(result: bytes | Failure) -> None:
        if lost:
            if isinstance(result, Failure):
                result.trap(CancelledError)
        elif isinstance(result, Failure):
            request.processingFailed(result)
        else:
            request.write(result)
            request.finish()

    request.notifyFinish().addErrback(hung_up)
    waiting.addBoth(ended)
    return NOT_DONE_YET


class NotFound(Resource):
    """Whatever is not there."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """Say so."""
        return problem(request, 404, "there is nothing here; the page of the ring is at /")
