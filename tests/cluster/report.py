"""What a run tells its reader: figures in few lines (test support; pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

__all__ = ["Sample", "chaos_lines", "latencies", "longest_gap", "percentile"]


@dataclass(frozen=True)
class Sample:
    """One operation that succeeded.

    :ivar at: when it returned, in seconds of the run.
    :ivar took: seconds.
    :ivar under_fault: did it begin or return after the first fault?
    """

    at: float
    took: float
    under_fault: bool


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that is not below that share of them.

    :param values: at least one, in any order.
    :param share: from 0 to 1.
    """
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def latencies(samples: Iterable[Sample]) -> str:
    """p50, p99 and the maximum in milliseconds."""
    took = [sample.took for sample in samples]
    if not took:
        return "none"
    p50, p99 = percentile(took, 0.5) * 1e3, percentile(took, 0.99) * 1e3
    return f"p50 {p50:.1f} ms, p99 {p99:.0f} ms, max {max(took) * 1e3:.0f} ms ({len(took)})"


def longest_gap(samples: Iterable[Sample], end: float) -> float:
    """The longest time in which nothing succeeded anywhere."""
    times = sorted(sample.at for sample in samples)
    return max(after - before for before, after in zip([0.0, *times], [*times, end], strict=True))


def chaos_lines(
    samples: Sequence[Sample],
    fate: Mapping[str, int],
    errors: Mapping[str, int],
    done: Mapping[str, int],
    seconds: float,
) -> list[str]:
    """The figures of a run under faults.

    :param fate: how many operations had which fate.
    :param errors: how many failed with what.
    :param done: how often the nemesis did what.
    :param seconds: for which the workers worked.
    """
    total = sum(fate.values())
    faults = [sample for sample in samples if sample.under_fault]
    calm = [sample for sample in samples if not sample.under_fault]
    what = ", ".join(f"{count} {name}" for name, count in sorted(done.items())) or "nothing"
    lines = [
        f"nemesis: {what}",
        f"operations: {total} in {seconds:.0f} s ({total / seconds:.0f} a second): "
        + ", ".join(f"{count} {name}" for name, count in sorted(fate.items())),
        f"latency of those that succeeded under faults: {latencies(faults)}",
        f"latency of those before the first fault: {latencies(calm)}",
        f"longest time without any success: {longest_gap(samples, seconds):.1f} s",
    ]
    if errors:
        lines.append(
            "errors: " + ", ".join(f"{count} {name}" for name, count in sorted(errors.items()))
        )
    return lines
