"""What a node tells of itself (floor 2): a pure reading of what its parts know.

Owns nothing but what it added up just now.  A report costs about half a millisecond: whoever asks
for one again and again costs no more than who reads many keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..base import Peer
from ..table.group import Config
from ..wire.reports import MOST_LINKS, EventReport, GroupsReport, LinkReport, Report, StorageReport
from .core import Core, Phase

if TYPE_CHECKING:
    from .sync import Sync

__all__ = ["Reporter", "status_of"]

_MOST_MISSING = 64
_MOST_FINGERS = 160
_MOST_STATUS = 1024
_MOST_SUCCESSORS = 64


#: More groups than these are not added up again within so many seconds.
_MANY, _FRESH = 128, 0.25


class _Sums(NamedTuple):
    """What all groups have to be looked at for."""

    groups: GroupsReport
    keys: int
    size: int
    missing: tuple[tuple[Peer, int], ...]
    status: str


class Reporter:
    """Makes the reports of one node.

    :param security: its TLS; None for plain text.
    :param status: tells how it is, in words; see :func:`status_of`.
    """

    def __init__(self, core: Core, sync: Sync, security: Any, status: Callable[[], str]) -> None:
        self._core = core
        self._sync = sync
        self._security = security
        self._status = status
        self._sums: _Sums | None = None
        self._until = 0.0

    def make(self, status: str = "") -> Report:
        """The report of this moment.

        :param status: in words, by who knows more of it.
        """
        core = self._core
        now: float = core.clock.seconds()
        sums = self._sums
        if sums is None or len(core.acceptors) <= _MANY or not 0 <= self._until - now <= _FRESH:
            sums = self._sums = _Sums(
                _groups(core),
                core.keys,
                sum(acceptor.size for acceptor in core.acceptors.values()),
                tuple(_missing(core, now))[:_MOST_MISSING],
                self._status(),
            )
            self._until = now + _FRESH
        return _make(core, self._sync, self._security, sums, status or sums.status)


def _make(core: Core, sync: Sync, security: Any, sums: _Sums, status: str) -> Report:
    now: float = core.clock.seconds()
    pointers = core.pointers
    links = sorted(core.links, key=lambda link: link.hello.leeching)
    authenticated = security is not None and security.authenticated
    return Report(
        __version__,
        core.wire_version,
        core.me,
        core.ring_id,
        core.settings.k,
        core.replicas,
        core.phase.value,
        _milliseconds(now - core.began),
        _milliseconds(now),
        sums.keys,
        sums.size,
        sums.groups,
        pointers.predecessor if pointers is not None else None,
        pointers.successors[:_MOST_SUCCESSORS] if pointers is not None else (),
        tuple(core.fingers.peers()[:_MOST_FINGERS]),
        sums.missing,
        tuple(
            LinkReport(
                link.peer,
                link.hello.leeching,
                now - link.heard_at >= core.settings.suspect_after,
                _milliseconds(now - link.heard_at),
                None if link.round_trip is None else int(link.round_trip * 1e6),
            )
            for link in links[:MOST_LINKS]
        ),
        len(links),
        tuple((kind.__name__, count) for kind, count in core.asked.items() if count),
        tuple(_counters(core, sync)),
        _storage(core),
        int(security.expiry[0].timestamp()) if authenticated else None,
        status[:_MOST_STATUS],
        tuple(
            EventReport(event.number, _milliseconds(now - event.at), event.kind, event.text)
            for event in core.chronicle.latest()
        ),
    )


def _milliseconds(seconds: float) -> int:
    return max(0, int(seconds * 1000))


def _groups(core: Core) -> GroupsReport:
    living = {link.peer.instance for link in core.links if core.keeps(link.peer)}
    living.add(core.instance)
    known = {peer.instance for peer in core.directory.members()}
    if core.pointers is not None:  # who has just joined is in no group yet
        known.update(peer.instance for peer in core.pointers.successors)
    nodes = len(known & living)
    room = min(core.replicas, max(nodes, 1))
    room -= room % 2 == 0 and room > 2  # groups are odd, but for two nodes
    proposes = stopped = below = without_quorum = keys = 0
    for partition, acceptor in core.acceptors.items():
        config = core.directory.get(partition) or acceptor.config
        there = [peer.instance for peer in config.members if peer.instance in living]
        if there and there[0] == core.instance:
            proposes += 1
            keys += acceptor.keys
        stopped += acceptor.wedged
        below += len(there) < max(room, len(config.members))
        without_quorum += len(there) < _needed(core, config, there)
    return GroupsReport(
        len(core.acceptors), proposes, stopped, below, without_quorum, keys, core.catching_up
    )


def _needed(core: Core, config: Config, there: list[bytes]) -> int:
    """As :meth:`Core.needed`, which looks at all connections."""
    return config.quorum if len(there) >= config.quorum else core.needed(config)


def _missing(core: Core, now: float) -> Iterable[tuple[Peer, int]]:
    if not core.silent_since:
        return
    for peer in core.directory.members():
        since = core.silent_since.get(peer.instance)
        if since is not None:
            yield peer, _milliseconds(now - since)


def _counters(core: Core, sync: Sync) -> Iterable[tuple[str, int]]:
    links = core.links
    yield "reads", core.reads
    yield "writes", core.writes
    yield "busy", links.outbox.busy
    yield "malformed", links.bad_messages
    yield "offences", links.complaints.count
    yield "found_differences", core.found_differences
    yield "pulled_records", sync.pulled
    yield "opened_epochs", core.opened


def _storage(core: Core) -> StorageReport | None:
    storage = core.storage
    if storage is None:
        return None
    sync = getattr(storage, "sync", "")
    return StorageReport(storage.durable, sync, storage.used, storage.quota, storage.behind)


def status_of(core: Core) -> str:
    """``"Nominal"``, or what is wrong, in a sentence."""
    if core.phase is Phase.STOPPED:
        return "Stopped"
    if core.pointers is None and not any(core.ring_links()):
        return "Not connected to a ring: connect() to a member, or join() to found one"
    if core.storage_problem:
        return f"Keeps nothing any more: {core.storage_problem}"
    if core.phase is Phase.LEAVING:
        return "Leaving the ring"
    links = core.links
    lost = [
        peer
        for peer in core.directory.members()
        if (links.failed_lately(peer) or links.get(peer.instance) or core.replaced(peer))
        and not core.alive(peer)
        and peer.instance != core.instance
    ]
    if lost:
        return "Not reachable: " + ", ".join(str(peer) for peer in lost)
    return "Nominal"
