"""The figures of a ring that are judged, and the bounds that they should keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .faults import Fault
    from .report import Result

__all__ = ["GROUPS", "ONE_COPY", "Aim"]


@dataclass(frozen=True)
class Aim:
    """A figure of a ring, and the bound that it should keep, if any.

    :ivar name: for programs.
    :ivar text: for people.
    :ivar figure: what the ring showed, None if it was not measured.
    :ivar better: what to aim at beyond the bound.
    """

    name: str
    text: str
    figure: Callable[[Result], float | None]
    least: float | None = None
    most: float | None = None
    better: float | None = None

    def value(self, result: Result) -> float | None:
        """What the ring showed, None if it was not measured."""
        return self.figure(result)

    def verdict(self, value: float | None) -> str:
        """``good``, ``ok``, ``below`` (not reached), or nothing without a bound."""
        if value is None or (self.least is None and self.most is None):
            return ""
        kept = (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )
        if kept and self.better is not None and value >= self.better:
            return "good"
        return "ok" if kept else "below"

    @property
    def bound(self) -> str:
        """The bound, for people."""
        better = "" if self.better is None else f" ({self.better:g})"
        if self.least is not None:
            return f">= {self.least:g}{better}"
        return f"<= {self.most:g}" if self.most is not None else ""


def _ratio(mine: str, theirs: str) -> Callable[[Result], float]:
    return lambda result: result.samples.ratio(mine, theirs)


def _fault(name: str, figure: Callable[[Fault, Result], float]) -> Callable[[Result], float | None]:
    def value(result: Result) -> float | None:
        fault = result.faults.get(name)
        return None if fault is None else figure(fault, result)

    return value


def _alone(most_get: float, most_set: float | None) -> tuple[Aim, ...]:
    """One at a time."""
    echoes, quorum = "echoes p50", "quorum p50"
    return (
        Aim("get p50", "get p50 / echo p50", _ratio("get p50", "echo p50"), most=most_get),
        Aim("get p50 of many", "get p50 / echo p50 of as many servers", _ratio("get p50", echoes)),
        Aim("get p50 of a quorum", "get p50 / echo p50 of a quorum", _ratio("get p50", quorum)),
        Aim("set p50", "set p50 / echo p50", _ratio("set p50", "echo p50"), most=most_set),
        Aim("set p50 of a relay", "set p50 / relay p50", _ratio("set p50", "relay p50")),
        Aim("echoes p50", "echo p50 of as many servers / echo p50", _ratio(echoes, "echo p50")),
        Aim("quorum p50", "echo p50 of a quorum / echo p50", _ratio(quorum, "echo p50")),
        Aim("relay p50", "relay p50 / echo p50", _ratio("relay p50", "echo p50")),
        Aim("amp p50", "AMP get p50 / echo p50", _ratio("AMP get p50", "echo p50")),
    )


def _aims_of_fault(name: str) -> tuple[Aim, ...]:
    """How single operations went when something was done to a node."""
    return (
        Aim(
            f"{name} slowest",
            f"one node {name}: slowest operation, ms",
            _fault(name, lambda fault, _: 1e3 * fault.slowest),
        ),
        Aim(
            f"{name} request timeouts",
            "    in shortest request timeouts",
            _fault(name, lambda fault, result: fault.slowest / result.request_timeout),
            most=2.0,
        ),
        Aim(f"{name} p99", "    p99, ms", _fault(name, lambda fault, _: 1e3 * fault.p99())),
        Aim(
            f"{name} p99 before",
            "    p99 of the second before, ms",
            _fault(name, lambda fault, _: 1e3 * fault.p99(since=False)),
        ),
        Aim(
            f"{name} failed",
            "    failed operations",
            _fault(name, lambda fault, _: fault.failed),
            most=0,
        ),
    )


_GETS = "gets / AMP gets, 64 in flight"
_SETS = "sets / AMP sets, 64 in flight"
_UPDATE = "update / AMP sets, 64 in flight"
_GET_MANY = "get_many / AMP gets, 64 in flight"

_IDLE = (
    Aim(
        "memory",
        "MiB of an idle node above bare twistd -n",
        lambda result: result.memory,
        most=10.0,
    ),
    Aim("idle", "% of a core that an idle node takes", lambda result: result.idle, most=1.0),
)

#: Rings that keep one copy of a key.
ONE_COPY = (
    *_alone(most_get=2.0, most_set=None),
    Aim("gets", _GETS, _ratio("get rate", "AMP get rate"), least=1.2),
    Aim("sets", _SETS, _ratio("set rate", "AMP set rate"), least=1.0),
    Aim("update", _UPDATE, _ratio("update rate", "AMP set rate"), least=2.0),
    Aim("get_many", _GET_MANY, _ratio("get_many rate", "AMP get rate")),
    *_IDLE,
)

#: Rings that keep several.  The bounds of what is in flight are those of five copies; fewer copies
#: must keep them all the more.
GROUPS = (
    *_alone(most_get=4.0, most_set=7.0),
    Aim("gets", _GETS, _ratio("get rate", "AMP get rate"), least=0.6, better=0.9),
    Aim("sets", _SETS, _ratio("set rate", "AMP set rate"), least=0.3, better=0.45),
    Aim("update", _UPDATE, _ratio("update rate", "AMP set rate"), least=1.0),
    Aim("get_many", _GET_MANY, _ratio("get_many rate", "AMP get rate"), least=1.0),
    *_IDLE,
    *_aims_of_fault("killed"),
    *_aims_of_fault("frozen"),
)
