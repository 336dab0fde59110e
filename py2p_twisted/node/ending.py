"""What becomes of the keys of a node that ends without handing them over (floor 2)."""

from __future__ import annotations

from ..base import count_of
from .core import Core

__all__ = ["left_behind"]


def left_behind(core: Core) -> str:
    """How many keys are lost, and how many not, in words; only what applies."""
    if core.journal is not None:
        return f"{count_of(core.keys, 'key')} kept on this node's disk"
    lost = kept = away = 0
    for partition, acceptor in core.acceptors.items():
        config = core.directory.get(partition) or acceptor.config
        others = [peer for peer in config.members if peer.instance != core.instance]
        if not others:
            lost += acceptor.keys
        elif any(map(core.alive, others)):
            kept += acceptor.keys
        else:
            away += acceptor.keys
    fates = (
        (lost, "lost with this process"),
        (kept, "still kept by other nodes"),
        (away, "kept only by nodes that do not answer"),
    )
    return ", ".join(f"{count_of(keys, 'key')} {fate}" for keys, fate in fates if keys)
