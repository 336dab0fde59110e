"""Reading keys over HTTP, and finding out where they live (floor 4).

A key stands percent-encoded in the path, all that follows the prefix: ``/v1/keys/a%20key`` and
``/v1/keys/users/7`` are two.  It is never written to a log.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from twisted.web.http import CACHED
from twisted.web.resource import Resource

from ..base import show_address, to_base_58
from ..errors import ChordError, KeyTooLarge, OperationTimeout
from ..ring.circle import key_identifier, key_partition
from .answers import as_json, later, problem, sized
from .view import id_of

if TYPE_CHECKING:
    from twisted.web.server import Request

    from ..service import ChordService

__all__ = ["Keys", "Places"]

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

#: A value is data, whatever it looks like.
_DATA_ONLY = "default-src 'none'; sandbox; frame-ancestors 'none'"


class _OfKey(Resource):
    """Something about the key that the rest of the path is."""

    isLeaf = True
    takes_path = True

    def __init__(self, ring: ChordService) -> None:
        super().__init__()
        self._ring = ring

    def render_GET(self, request: Request) -> bytes | int:
        """Take the key from the path."""
        prefix = b"".join(b"/" + part for part in request.prepath or ()) + b"/"
        path: bytes = request.path
        if not path.startswith(prefix):
            return problem(request, 404, "a key is missing: it follows after a slash")
        raw = path[len(prefix) :]
        if _BROKEN_ESCAPE.search(raw):
            return problem(request, 400, "a % in the path must be followed by two hex digits")
        key = unquote_to_bytes(raw)
        most = self._ring.settings.max_key
        if len(key) > most:
            return problem(request, 414, f"a key of {len(key)} bytes is over the limit of {most}")
        return later(request, self._answer(request, key))

    async def _answer(self, request: Request, key: bytes) -> bytes:
        raise NotImplementedError


class Keys(_OfKey):
    """``/v1/keys/KEY``: the value, as every other reader of the ring sees it now."""

    async def _answer(self, request: Request, key: bytes) -> bytes:
        try:
            value = await self._ring.get(key)
        except KeyTooLarge as error:
            return problem(request, 414, str(error))
        except OperationTimeout as error:
            return problem(request, 504, str(error), Retry_After="1")
        except ChordError as error:
            return problem(request, 503, str(error), Retry_After="1")
        if value is None:
            return problem(request, 404, "there is no value at this key")
        request.setHeader("Content-Security-Policy", _DATA_ONLY)
        if request.setETag(b'"' + sha256(value).hexdigest()[:32].encode() + b'"') is CACHED:
            return b""
        return sized(request, "application/octet-stream", value)


class Places(_OfKey):
    """``/v1/places/KEY``: which nodes keep a key, whether there is a value or not."""

    async def _answer(self, request: Request, key: bytes) -> bytes:
        core = self._ring.node.core
        k = core.settings.k
        partition = key_partition(key, k)
        config = core.directory.get(partition)
        if config is None:
            return problem(request, 503, "this node knows no ring yet", Retry_After="1")
        identifier = key_identifier(key, k)
        return as_json(
            request,
            {
                "identifier": to_base_58(identifier).decode(),
                "place": identifier / (1 << k),
                "partition": partition,
                "epoch": config.epoch.number,
                "quorum": config.quorum,
                "nodes": [
                    {
                        "id": id_of(peer),
                        "name": to_base_58(peer.id).decode(),
                        "address": show_address(*peer.address),
                        "alive": peer.instance == core.instance or core.alive(peer),
                    }
                    for peer in config.members
                ],
            },
        )
