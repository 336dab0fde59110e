"""Metrics in Prometheus' formats (floor 4); needs prometheus-client, an extra of this package.

Owns what is told of one node under which name.  Only this node is looked at, so that scraping costs
its ring nothing.  ``docs/operating.rst`` explains each metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.web.resource import Resource

from ..base import show_address
from .answers import header, later, problem, sized

if TYPE_CHECKING:
    from twisted.web.server import Request

    from ..service import ChordService
    from ..wire.reports import Report

__all__ = ["COUNTERS", "GAUGES", "PREFIX", "Metric", "Metrics"]

PREFIX = "py2p_twisted_"

_OPEN_METRICS = "application/openmetrics-text"

#: What a metric is now: pairs of its labels' values and its own.
Values = Iterable[tuple[tuple[str, ...], float]]


class Metric(NamedTuple):
    """One metric.

    :ivar name: without :data:`PREFIX`, and without the ``_total`` of counters.
    :ivar help: what it is.
    :ivar values: what it is now, from a report.
    :ivar labels: their names.
    """

    name: str
    help: str
    values: Callable[[Report], Values]
    labels: tuple[str, ...] = ()


def _one(read: Callable[[Report], float | None]) -> Callable[[Report], Values]:
    """A metric without labels; nothing is told while it is None."""

    def values(report: Report) -> Iterator[tuple[tuple[str, ...], float]]:
        value = read(report)
        if value is not None:
            yield (), float(value)

    return values


def _counted(name: str) -> Callable[[Report], Values]:
    return _one(lambda report: dict(report.counters).get(name))


def _round_trips(report: Report) -> Values:
    return [
        ((show_address(*link.peer.address),), link.round_trip / 1e6)
        for link in report.links
        if not link.leeching and link.round_trip is not None
    ]


def _stored(read: Callable[[Any], float | None]) -> Callable[[Report], Values]:
    return _one(lambda report: None if report.storage is None else read(report.storage))


GAUGES = (
    Metric(
        "info",
        "Always 1; its labels tell the version and the ring.",
        lambda report: [((report.version, str(report.k), str(report.replicas)), 1.0)],
        ("version", "k", "replicas"),
    ),
    Metric(
        "joined",
        "1 while the node is a member of its ring, else 0.",
        _one(lambda report: report.phase == "joined"),
    ),
    Metric("keys", "Keys that the node keeps.", _one(lambda report: report.keys)),
    Metric("values_bytes", "Bytes of all values kept.", _one(lambda report: report.size)),
    Metric("groups", "Groups that the node is in.", _one(lambda report: report.groups.kept)),
    Metric(
        "groups_proposing",
        "Groups of which the node is the first living member.",
        _one(lambda report: report.groups.proposes),
    ),
    Metric(
        "groups_below_strength",
        "Groups with fewer living members than there could be.",
        _one(lambda report: report.groups.below),
    ),
    Metric(
        "groups_without_quorum",
        "Groups with too few living members to be used.",
        _one(lambda report: report.groups.without_quorum),
    ),
    Metric(
        "groups_behind",
        "Groups still to be compared with members that came back.",
        _one(lambda report: report.groups.behind),
    ),
    Metric(
        "groups_stopped",
        "Groups on their way to their next epoch.",
        _one(lambda report: report.groups.stopped),
    ),
    Metric(
        "members_missing",
        "Members of groups that do not answer.",
        _one(lambda report: len(report.missing)),
    ),
    Metric("connections", "Open connections.", _one(lambda report: report.connections)),
    Metric(
        "round_trip_seconds",
        "Smoothed time in which a member answers.",
        _round_trips,
        ("peer",),
    ),
    Metric("storage_used_bytes", "Bytes kept on the disk.", _stored(lambda disk: disk.used)),
    Metric("storage_quota_bytes", "Bytes that may be kept.", _stored(lambda disk: disk.quota)),
    Metric(
        "storage_behind_bytes",
        "Bytes on their way to the disk.",
        _stored(lambda disk: disk.behind),
    ),
    Metric(
        "certificate_expiry_timestamp_seconds",
        "When the certificate ends to be valid, in seconds since 1970.",
        _one(lambda report: report.expires),
    ),
    Metric(
        "uptime_seconds", "Seconds since the node began.", _one(lambda report: report.uptime / 1000)
    ),
)

COUNTERS = (
    Metric("reads", "Values read here, for others too.", _counted("reads")),
    Metric("writes", "Writes that this node carried through groups.", _counted("writes")),
    Metric(
        "requests",
        "Requests of peers, by kind.",
        lambda report: [((kind,), float(count)) for kind, count in report.asked],
        ("kind",),
    ),
    Metric("busy", "Requests refused because there was too much to do.", _counted("busy")),
    Metric("malformed_messages", "Messages that were none.", _counted("malformed")),
    Metric("refused_peers", "Peers that were refused.", _counted("offences")),
    Metric(
        "found_differences",
        "Records that a check found another member to have and this one not.",
        _counted("found_differences"),
    ),
    Metric("copied_records", "Records copied from other members.", _counted("pulled_records")),
    Metric("opened_epochs", "Epochs of groups that began here.", _counted("opened_epochs")),
)


class Metrics(Resource):
    """``/metrics``: this node, for Prometheus."""

    isLeaf = True

    def __init__(self, ring: ChordService) -> None:
        super().__init__()
        self._ring = ring
        self._registry: Any = None

    def render_GET(self, request: Request) -> bytes | int:
        """All metrics, as they are now."""
        try:
            import prometheus_client
            from prometheus_client.exposition import choose_encoder
        except ImportError:
            return problem(
                request,
                501,
                "metrics need prometheus-client: pip install 'py2p_twisted[metrics]'",
            )
        if self._registry is None:
            # A registry of our own: nothing that an application counts in its process shows here.
            self._registry = prometheus_client.CollectorRegistry()
            prometheus_client.ProcessCollector(registry=self._registry)

        async def tell() -> bytes:
            report = await self._ring.report()
            # Which of the two is all that counts: the chooser trips over a version such as 1.x.
            accepted = header(request, b"accept") or ""
            encode, kind = choose_encoder(_OPEN_METRICS if _OPEN_METRICS in accepted else "")
            return sized(request, kind, encode(_Both(self._registry, report)))

        return later(request, tell())


class _Both:
    """A registry, as far as an encoder reads it: the process, and one report of the node."""

    def __init__(self, process: Any, report: Report) -> None:
        self._process = process
        self._report = report

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for family, metrics in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for metric in metrics:
                told = family(PREFIX + metric.name, metric.help, labels=metric.labels)
                for labels, value in metric.values(self._report):
                    told.add_metric(labels, value)
                yield told
        yield from self._process.collect()
