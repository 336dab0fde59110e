"""Writes for which there is no room (floor 2).

A node with a quota of bytes says in its HELLO when it is used up.  A proposer refuses a write of a
user that would make a record longer, if any member of the group is full: it asks nobody to accept
it, so nothing is half written.  Deleting is always possible, and so is what the ring itself writes
and moves.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..table.group import Config
from ..table.proposer import Write
from ..wire.messages import Full
from .core import USER, Core

__all__ = ["no_room"]


def no_room(core: Core, config: Config, writes: Sequence[Write]) -> Full | None:
    """Why none of these writes may be proposed; None if they may."""
    full = core.full
    if not full and not core.full_peers:
        return None
    places = [
        peer
        for peer in config.members
        if (full if peer.instance == core.instance else peer.instance in core.full_peers)
    ]
    if not places or not any(_grows(core, config, write) for write in writes):
        return None
    return Full(
        f"{places[0]} has no room for more: its quota of bytes is used up. Delete keys, give it a "
        "larger quota, or let more nodes join; nothing was written"
    )


def _grows(core: Core, config: Config, write: Write) -> bool:
    if write.value is None or not write.key.startswith(USER):
        return False
    acceptor = core.acceptors.get(config.partition)
    record = acceptor.get(write.key) if acceptor is not None else None
    return record is None or len(write.value) > len(record.value or b"")
