"""The page of the ring, and what it needs: files of this package, read once (floor 4)."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

from twisted.web.http import CACHED
from twisted.web.resource import Resource
from twisted.web.server import Request

from .answers import sized

__all__ = ["pages"]

#: By path: the file, and its type.
_FILES = {
    b"": ("index.html", "text/html; charset=utf-8"),
    b"ring.js": ("ring.js", "text/javascript; charset=utf-8"),
    b"circle.js": ("circle.js", "text/javascript; charset=utf-8"),
    b"style.css": ("style.css", "text/css; charset=utf-8"),
    b"icon.svg": ("icon.svg", "image/svg+xml"),
}


class Page(Resource):
    """One file."""

    isLeaf = True

    def __init__(self, content: bytes, kind: str) -> None:
        super().__init__()
        self._content = content
        self._kind = kind
        self._etag = b'"' + sha256(content).hexdigest()[:32].encode() + b'"'

    def render_GET(self, request: Request) -> bytes:
        """The file, unless the browser has it."""
        request.setHeader("Cache-Control", "no-cache")
        if request.setETag(self._etag) is CACHED:
            return b""
        return sized(request, self._kind, self._content)


def pages() -> dict[bytes, Page]:
    """The files, by the name under which they are asked for."""
    folder = files(__package__).joinpath("assets")
    return {
        path: Page(folder.joinpath(name).read_bytes(), kind)
        for path, (name, kind) in _FILES.items()
    }
