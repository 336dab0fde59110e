"""The ring over HTTP (floor 4): a page to look at, probes, metrics and reading keys.

Owns what ``--http`` offers, see :class:`~.service.WebService`.  It only reads: nothing here writes
a key, or changes the ring.
"""

from .service import WebService

__all__ = ["WebService"]
