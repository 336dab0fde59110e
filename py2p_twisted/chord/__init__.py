"""The dictionary for programs that do not use Twisted: every call blocks (floor 4).

:class:`ChordSocket`, also called ``chord_socket``, is all there is to know.  Importing this starts
nothing; the first socket starts the reactor in a thread of its own, through crochet.
"""

from __future__ import annotations

from ..settings import DEFAULT_PROTOCOL
from .socket import ChordSocket

__all__ = ["ChordSocket", "chord_socket", "default_protocol"]

chord_socket = ChordSocket

#: The network of everyone who does not choose one.
default_protocol = DEFAULT_PROTOCOL
