"""What the members beyond the quorum get a little later (floor 2).

A write is done when a quorum has it.  The other members get it, too, a moment later and many
writes in one message, so that every member is ready to be of the next quorum.  What is lost
here costs a slower read at most, and the background check brings it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from ..base import Peer
from ..table.group import Config, Epoch, Record
from ..wire.messages import Accept
from .core import Core

__all__ = ["Stragglers"]

#: Seconds until what was collected is sent: less than after which the next quorum is asked
#: (:mod:`.hedge`), so that it has it.
_DELAY = 0.015


class _Backlog:
    """What one member is to get."""

    __slots__ = ("parts", "peer", "size")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.size = 0
        self.parts: dict[tuple[int, Epoch], dict[bytes, Record]] = {}


class Stragglers:
    """Sends accepted records on."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._backlogs: dict[bytes, _Backlog] = {}
        self._timer: IDelayedCall | None = None

    def send(self, peers: Sequence[Peer], config: Config, key: bytes, record: Record) -> None:
        """These members are to accept this record, at its ballot, before long."""
        size = 128 + len(key) + len(record.value or b"")
        part = (config.partition, config.epoch)
        for peer in peers:
            backlog = self._backlogs.get(peer.instance)
            if backlog is None:
                backlog = self._backlogs[peer.instance] = _Backlog(peer)
            backlog.parts.setdefault(part, {})[key] = record  # the newest of a key is enough
            backlog.size += size
            if backlog.size >= self._core.settings.page_bytes:
                del self._backlogs[peer.instance]
                self._flush(backlog)
        if self._timer is None and self._backlogs:
            self._timer = self._core.clock.callLater(_DELAY, self._all)

    def _all(self) -> None:
        self._timer = None
        backlogs, self._backlogs = self._backlogs, {}
        for backlog in backlogs.values():
            self._flush(backlog)

    def _flush(self, backlog: _Backlog) -> None:
        link = self._core.links.get(backlog.peer.instance)
        if link is None or not self._core.usable(backlog.peer):
            return  # it is away; when it comes back the check finds what it missed
        parts = tuple(
            (partition, epoch, tuple(records.items()))
            for (partition, epoch), records in backlog.parts.items()
        )
        link.request(Accept(parts), _ignore)

    def stop(self) -> None:
        """Nothing is sent any more."""
        self._backlogs.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _ignore(_: Any) -> None:
    """Nobody waits for it."""
