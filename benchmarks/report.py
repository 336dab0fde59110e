"""The table: what was measured, and how it stands to the aims.  Never measures anything."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import twisted
from py2p_twisted import __version__

from .measure import Samples

__all__ = ["AIMS", "Aim", "Result", "as_json", "table"]

MICRO = 1e6


@dataclass
class Result:
    """What one ring showed.

    :ivar samples: of its rounds, the yardsticks' between them.
    :ivar memory: MiB of the largest idle node above a bare ``twistd -n``.
    :ivar idle: the busiest idle node's share of a core, in percent.
    """

    size: int
    samples: Samples
    memory: float
    idle: float


@dataclass(frozen=True)
class Aim:
    """A figure of a ring, and the bound that it should keep, if any."""

    name: str
    text: str
    least: float | None = None
    most: float | None = None

    def value(self, result: Result) -> float:
        """What the ring showed."""
        samples = result.samples
        figures = {
            "get p50": lambda: samples.ratio("get p50", "echo p50"),
            "get p50 of many": lambda: samples.ratio("get p50", "echoes p50"),
            "echoes p50": lambda: samples.ratio("echoes p50", "echo p50"),
            "set p50": lambda: samples.ratio("set p50", "echo p50"),
            "amp p50": lambda: samples.ratio("AMP get p50", "echo p50"),
            "gets": lambda: samples.ratio("get rate", "AMP get rate"),
            "sets": lambda: samples.ratio("set rate", "AMP set rate"),
            "update": lambda: samples.ratio("update rate", "AMP set rate"),
            "memory": lambda: result.memory,
            "idle": lambda: result.idle,
        }
        return figures[self.name]()

    def verdict(self, value: float) -> str:
        """``ok``, ``below`` (not reached), or nothing without a bound."""
        if self.least is None and self.most is None:
            return ""
        good = (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )
        return "ok" if good else "below"

    @property
    def bound(self) -> str:
        """The bound, for people."""
        if self.least is not None:
            return f">= {self.least:g}"
        return f"<= {self.most:g}" if self.most is not None else ""


AIMS = (
    Aim("get p50", "get p50 / echo p50", most=2.0),
    Aim("get p50 of many", "get p50 / echo p50 of as many servers"),
    Aim("echoes p50", "echo p50 of as many servers / echo p50"),
    Aim("set p50", "set p50 / echo p50"),
    Aim("amp p50", "AMP get p50 / echo p50"),
    Aim("gets", "gets / AMP gets, 64 in flight", least=1.2),
    Aim("sets", "sets / AMP sets, 64 in flight", least=1.0),
    Aim("update", "update / AMP sets, 64 in flight", least=2.0),
    Aim("memory", "MiB of an idle node above bare twistd -n", most=10.0),
    Aim("idle", "% of a core that an idle node takes", most=1.0),
)


def table(results: list[Result], bare: float, first_read: float, rounds: int) -> str:
    """Everything, for people."""
    return "\n".join(_lines(results, bare, first_read, rounds))


def _lines(results: list[Result], bare: float, first_read: float, rounds: int) -> Iterator[str]:
    yield (
        f"py2p_twisted {__version__}, Twisted {twisted.__version__}, "
        f"Python {platform.python_version()}; {os.cpu_count()} CPUs, "
        f"load {os.getloadavg()[0]:.1f}; medians of {rounds} rounds"
    )
    yield ""
    yield f"{'':20}{'one at a time, us':>22}{'64 in flight':>16}{'CPU us per operation':>28}"
    yield f"{'':20}{'p50':>12}{'p99':>10}{'per second':>16}{'client':>14}{'servers':>14}"
    everything = Samples()
    for result in results:
        everything.extend(result.samples)
    for name in ("echo", "AMP get", "AMP set"):
        yield _row(name, everything, name)
    for result in results:
        nodes = f"{result.size} node{'s' if result.size > 1 else ''}"
        for name in ("get", "set", "update"):
            yield _row(f"{nodes}: {name}", result.samples, name)
    yield ""
    heads = [f"{result.size} node{'s' if result.size > 1 else ''}" for result in results]
    yield f"{'':42}{'aim':>10}" + "".join(f"{head:>16}" for head in heads)
    for aim in AIMS:
        cells = []
        for result in results:
            value = aim.value(result)
            cells.append(f"{value:>10.2f} {aim.verdict(value):5}")
        yield f"{aim.text:42}{aim.bound:>10}" + "".join(cells).rstrip()
    yield ""
    yield f"bare twistd -n: {bare:.1f} MiB"
    yield f"two nodes started, first correct read at the second: {first_read:.2f} s"


def _row(label: str, samples: Samples, name: str) -> str:
    alone = f"{'':22}"
    if name != "update":
        p50, p99 = (MICRO * samples.median(f"{name} {what}") for what in ("p50", "p99"))
        alone = f"{p50:>12.0f}{p99:>10.0f}"
    client, nodes = (MICRO * samples.median(f"{name} {what}") for what in ("client", "nodes"))
    rate = samples.median(f"{name} rate")
    return f"{label:20}{alone}{rate:>16,.0f}{client:>14.1f}{nodes:>14.1f}"


def as_json(results: list[Result], bare: float, first_read: float, rounds: int) -> dict[str, Any]:
    """Everything, for programs; times in seconds, memory in MiB."""
    return {
        "version": __version__,
        "rounds": rounds,
        "bare_twistd_memory": bare,
        "first_correct_read": first_read,
        "rings": {
            str(result.size): {
                "measured": result.samples.as_dict(),
                "aims": {
                    aim.name: {
                        "value": aim.value(result),
                        "least": aim.least,
                        "most": aim.most,
                        "verdict": aim.verdict(aim.value(result)),
                    }
                    for aim in AIMS
                },
            }
            for result in results
        },
    }
