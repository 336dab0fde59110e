"""``chordctl bench``: how fast a ring is, from here (floor 4)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .frame import ExitCode, whole_number
from .session import Session, in_ring, note, together
from .terminal import Progress, Table
from .texts import count, seconds

__all__ = ["HELP", "NAME", "configure"]

NAME = "bench"
HELP = "measure operations per second against the ring, with keys of its own that it deletes again"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add how much, and how long."""
    for option, low, high, default, what in (
        ("--seconds", 1, 3600, 3, "how long each part takes"),
        ("--in-flight", 1, 4096, 64, "operations that are under way at the same time"),
        ("--keys", 1, 100_000, 1000, "how many keys it uses"),
        ("--size", 0, 1024 * 1024, 100, "bytes of a value"),
    ):
        parser.add_argument(
            option,
            metavar="N",
            type=whole_number(low, high),
            default=default,
            help=f"{what} (default: %(default)s)",
        )
    parser.set_defaults(run=in_ring(_bench))


@dataclass
class _Part:
    """What one part of the measurement found.

    :ivar times: of the operations, in seconds.
    """

    name: str
    began: float
    times: list[float] = field(default_factory=list)
    ended: float = 0.0

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.times) / max(self.ended - self.began, 1e-9)

    def quantile(self, part: float) -> float:
        """The time that so many of the operations did not exceed."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


async def _bench(session: Session) -> ExitCode:
    options, service = session.options, session.service
    rng = service.node.core.rng
    name = f"chordctl bench {rng.getrandbits(48):012x} "
    keys = [f"{name}{number}".encode() for number in range(options.keys)]
    value = bytes(rng.getrandbits(8) for _ in range(min(options.size, 4096)))
    value = (value * (options.size // max(len(value), 1) + 1))[: options.size]
    parts: list[_Part] = []
    try:
        for what, operation in (
            ("set", lambda key: service.set(key, value)),
            ("get", service.get),
        ):
            parts.append(await _measure(session, what, keys, operation))
    finally:
        await _clean_up(session, keys)
    if session.json:
        for part in parts:
            await session.emit(
                operation=part.name,
                operations=len(part.times),
                per_second=round(part.rate, 1),
                in_flight=options.in_flight,
                value_bytes=options.size,
                seconds={
                    name: round(part.quantile(at), 6)
                    for name, at in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
                },
            )
        return ExitCode.OK
    style = session.style
    table = Table(style, "", ">ops/s", ">p50", ">p90", ">p99", ">max")
    for part in parts:
        times = [seconds(part.quantile(at)) for at in (0.5, 0.9, 0.99, 1.0)]
        table.add(part.name, style.paint(count(round(part.rate)), "bold"), *times)
    for text in table.lines():
        await session.say(text)
    return ExitCode.OK


async def _measure(
    session: Session, what: str, keys: list[bytes], operation: Callable[[bytes], Any]
) -> _Part:
    """Do it again and again, for so long."""
    from twisted.internet.defer import Deferred

    clock = session.reactor.seconds
    progress = Progress(session.reactor, f"Measuring {what}")
    part = _Part(what, clock())
    until = part.began + session.options.seconds
    next_key = 0

    async def one_after_the_other() -> None:
        nonlocal next_key
        while (began := clock()) < until:
            key = keys[next_key % len(keys)]
            next_key += 1
            await operation(key)
            part.times.append(clock() - began)
            progress.add()

    try:
        workers = [
            Deferred.fromCoroutine(one_after_the_other()) for _ in range(session.options.in_flight)
        ]
        await together(workers)
    finally:
        progress.close()
    part.ended = clock()
    return part


async def _clean_up(session: Session, keys: list[bytes]) -> None:
    """Delete what was written, also when it was interrupted or failed."""
    from twisted.internet.defer import DeferredSemaphore

    from ..errors import ChordError

    limit = DeferredSemaphore(256)
    try:
        await together([limit.run(session.service.delete, key) for key in keys])
    except ChordError as error:
        note(f"keys that begin with {keys[0].rpartition(b' ')[0].decode()!r} may be left: {error}")
