"""May a peer stay connected?  (floor 2; pure)

Two rings that both hold something are never merged by themselves: a human decides.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..base import show_address
from ..errors import ChordError, PeerUnreachable, RingConflict
from ..settings import OFFERED_REPLICAS
from ..wire.messages import Hello
from .copies import disagreement
from .core import Core

__all__ = ["judge", "yields"]


def judge(core: Core, hello: Hello) -> ChordError | None:
    """Why a peer of the same network may not stay connected; None if it may."""
    if hello.peer.instance == core.instance:
        where = show_address(hello.peer.host, hello.peer.port)
        return PeerUnreachable(f"{where} is this node itself")
    if not core.valid(hello.peer):
        return PeerUnreachable(f"identifier {hello.peer.identifier.hex()} is none of this ring")
    if hello.ring and hello.replicas not in OFFERED_REPLICAS:
        return PeerUnreachable(f"there is no ring that keeps {hello.replicas} copies of a key")
    mine = core.hello()
    if mine.ring and core.is_gone(mine.ring, hello):
        mine = replace(mine, ring=b"", replicas=core.settings.replicas or 0)
    gives_way = yields(mine, hello)
    conflict = disagreement(mine, hello, core.settings.replicas, gives_way=gives_way)
    if conflict is not None:
        return conflict
    if not mine.ring or not hello.ring or mine.ring == hello.ring:
        return None
    if hello.leeching or gives_way or yields(hello, mine):
        return None
    return RingConflict(
        f"{show_address(hello.peer.host, hello.peer.port)} is in another ring, and both rings "
        "are in use: they are not merged by themselves. Export the keys of one (items()), "
        "unjoin(discard=True) its nodes, connect to the other, join(), and import them "
        "(update())"
    )


def yields(one: Hello, other: Hello) -> bool:
    """Does `one` give up its ring for the other's?"""
    return one.fresh and (not other.fresh or one.ring > other.ring)
