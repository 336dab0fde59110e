"""The tables: what was measured, and how it stands to the aims.  Never measures anything."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import twisted
from py2p_twisted import __version__

from .aims import GROUPS, ONE_COPY, Aim
from .faults import Fault
from .measure import Samples

__all__ = ["Figures", "Result", "as_json", "ring_name", "table"]

MICRO = 1e6


@dataclass
class Result:
    """What one ring showed.

    :ivar members: of each group.
    :ivar samples: of its rounds, the yardsticks' between them.
    :ivar memory: MiB of the largest idle node above a bare ``twistd -n``.
    :ivar idle: the busiest idle node's share of a core, in percent.
    :ivar request_timeout: the shortest, in seconds.
    :ivar faults: by what was done to a node; none if the groups do not survive one.
    """

    nodes: int
    replicas: int
    members: int
    samples: Samples
    memory: float
    idle: float
    request_timeout: float
    faults: dict[str, Fault] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return ring_name(self.nodes, self.replicas)

    @property
    def aims(self) -> Sequence[Aim]:
        """What it should reach."""
        return ONE_COPY if self.members == 1 else GROUPS


def ring_name(nodes: int, replicas: int) -> str:
    """What a ring is called in the tables."""
    return f"{nodes} node{'s' if nodes > 1 else ''}, N={replicas}"


@dataclass
class Figures:
    """What one run showed.

    :ivar bare: MiB of a bare ``twistd -n``.
    :ivar first_read: seconds from the start of two nodes to the first correct read.
    """

    results: list[Result]
    bare: float
    first_read: float
    rounds: int


def table(figures: Figures) -> str:
    """Everything, for people."""
    return "\n".join(_lines(figures))


def _lines(figures: Figures) -> Iterator[str]:
    yield (
        f"py2p_twisted {__version__}, Twisted {twisted.__version__}, "
        f"Python {platform.python_version()}; {os.cpu_count()} CPUs, "
        f"load {os.getloadavg()[0]:.1f}; medians of {figures.rounds} rounds"
    )
    yield ""
    yield f"{'':24}{'one at a time, us':>22}{'64 in flight':>16}{'CPU us per operation':>28}"
    yield f"{'':24}{'p50':>12}{'p99':>10}{'per second':>16}{'client':>14}{'servers':>14}"
    everything = Samples()
    for result in figures.results:
        everything.extend(result.samples)
    for name in ("echo", "AMP get", "AMP set"):
        yield _row(name, everything, name)
    for result in figures.results:
        for name in ("get", "set", "get_many", "update"):
            yield _row(f"{result.name}: {name}", result.samples, name)
    for title, aims in (("one copy", ONE_COPY), ("groups", GROUPS)):
        yield from _verdicts(title, aims, [each for each in figures.results if each.aims is aims])
    yield ""
    yield f"bare twistd -n: {figures.bare:.1f} MiB"
    yield f"two nodes started, first correct read at the second: {figures.first_read:.2f} s"


def _row(label: str, samples: Samples, name: str) -> str:
    alone = f"{'':22}"
    if name not in ("update", "get_many"):
        p50, p99 = (MICRO * samples.median(f"{name} {what}") for what in ("p50", "p99"))
        alone = f"{p50:>12.0f}{p99:>10.0f}"
    client, nodes = (MICRO * samples.median(f"{name} {what}") for what in ("client", "nodes"))
    rate = samples.median(f"{name} rate")
    return f"{label:24}{alone}{rate:>16,.0f}{client:>14.1f}{nodes:>14.1f}"


def _verdicts(title: str, aims: Sequence[Aim], results: Sequence[Result]) -> Iterator[str]:
    if not results:
        return
    yield ""
    yield f"{title:46}{'aim':>14}" + "".join(f"{result.name:>18}" for result in results)
    for aim in aims:
        cells = []
        for result in results:
            value = aim.value(result)
            shown = "-" if value is None else f"{value:.2f}" if value < 1000 else f"{value:.0f}"
            cells.append(f"{shown:>12} {aim.verdict(value):5}")
        yield (f"{aim.text:46}{aim.bound:>14}" + "".join(cells)).rstrip()


def as_json(figures: Figures) -> dict[str, Any]:
    """Everything, for programs; times in seconds, memory in MiB."""
    return {
        "version": __version__,
        "rounds": figures.rounds,
        "bare_twistd_memory": figures.bare,
        "first_correct_read": figures.first_read,
        "rings": [_ring_as_json(result) for result in figures.results],
    }


def _ring_as_json(result: Result) -> dict[str, Any]:
    return {
        "nodes": result.nodes,
        "replicas": result.replicas,
        "members": result.members,
        "measured": result.samples.as_dict(),
        "faults": {
            name: {
                "slowest": fault.slowest,
                "p99": fault.p99(),
                "p99_before": fault.p99(since=False),
                "operations": len(fault.after),
                "failed": fault.failed,
            }
            for name, fault in result.faults.items()
        },
        "aims": {
            aim.name: {
                "value": aim.value(result),
                "least": aim.least,
                "most": aim.most,
                "better": aim.better,
                "verdict": aim.verdict(aim.value(result)),
            }
            for aim in result.aims
        },
    }
