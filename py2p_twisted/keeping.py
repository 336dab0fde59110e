"""Which storage a node has, and whether it is its own (floor 3)."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from .errors import StorageError, StorageMismatch
from .node import Node
from .node.memory import FORMAT, remember_ring
from .storage.interface import Storage

__all__ = ["open_storage"]

log = Logger()


def open_storage(node: Node, reactor: Any, storage: Storage) -> None:
    """Let a node be who its storage says, and keep in it what must not be forgotten.

    :raises StorageError: if it cannot be used, or is that of another network.
    """
    if not storage.durable:
        return  # all that counts is in the node's own memory
    settings = node.core.settings
    expect = {
        "format": FORMAT,
        "k": b"%d" % settings.k,
        "network": settings.prot.subnet.encode(),
    }
    loaded = storage.open(reactor, expect)
    try:
        if not loaded.intact:
            log.warn(
                "What was kept may not be all that this node had promised: {reason}. It comes back "
                "as a new node.",
                reason=loaded.reason.rstrip("."),
            )
            known = loaded
            loaded = storage.reset(expect)
            remember_ring(node.core, known)
        node.keep_in(storage, loaded)
        _check_replicas(node)
    except StorageError:
        storage.close(False).addErrback(lambda _: None)
        raise


def _check_replicas(node: Node) -> None:
    ring, asked = node.core.replicas, node.core.settings.replicas
    if ring and asked and ring != asked:
        raise StorageMismatch(
            f"the ring of this data keeps {ring} copies of every key, and replicas={asked} was "
            "asked for: that cannot be changed; leave it out"
        )
