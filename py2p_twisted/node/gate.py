"""Replies wait until what they tell is on the disk (floor 2): rule 13, for what peers are told.

What this node tells itself (its own vote, promise, copy) is waited for where it is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from ..wire.link import Pending
from ..wire.messages import (
    Accept,
    Changed,
    FindSuccessor,
    GetConfig,
    GetConfigs,
    GetState,
    Leaving,
    Notify,
    Ping,
    Prepare,
    Read,
    ReadMany,
    Request,
    Unwatch,
    Watch,
)
from .core import Core

__all__ = ["once_kept"]

#: What tells nothing of the table.
_OF_THE_RING = {
    *(Ping, FindSuccessor, GetState, Notify, Leaving, GetConfigs, GetConfig),
    *(Watch, Unwatch, Changed),
}


def once_kept(core: Core, request: Request, reply: Any) -> Any:
    """The reply to a request, or what fires with it once it may be told."""
    journal = core.journal
    if journal is None or type(request) in _OF_THE_RING:
        return reply
    if isinstance(reply, Deferred):
        return reply.addCallback(lambda told: core.kept().addCallback(lambda _: told))
    if isinstance(reply, Pending) or not journal.behind:
        return reply  # writes count what is kept, and nothing else
    pending = Pending()
    core.when_kept(partial(pending.fire, reply), _touched(core, request))
    return pending


def _touched(core: Core, request: Request) -> Iterable[int] | None:
    """The partitions that a request is about; None: any."""
    if isinstance(request, Accept | Prepare):
        return [part[0] for part in request.parts]
    keys: list[bytes] = []
    if isinstance(request, Read):
        keys = [request.key]
    elif isinstance(request, ReadMany):
        keys = [part[0] for _, part in request.parts if part]
    else:
        return None
    try:
        return [core.partition(key) for key in keys]
    except ValueError:  # it is declined
        return []
