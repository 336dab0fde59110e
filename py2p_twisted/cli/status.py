"""``chordctl status``: the ring in a few lines (floor 4)."""

from __future__ import annotations

import argparse
from datetime import timedelta

from .frame import ExitCode
from .looking import Look, look
from .session import Session, in_ring
from .terminal import Style
from .texts import count, seconds, size

__all__ = ["HELP", "NAME", "configure"]

NAME = "status"
HELP = "tell how the ring is, in a few lines"


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing to add."""
    parser.set_defaults(run=in_ring(_status))


async def _status(session: Session) -> ExitCode:
    found = await look(session)
    told = [node.report for node in found.nodes if node.report is not None]
    versions = sorted({report.version for report in told})
    if session.json:
        await session.emit(
            ring=found.name,
            subnet=session.hello.subnet,
            encryption=session.hello.encryption,
            k=found.k,
            replicas=found.replicas,
            nodes=len(found.nodes),
            unreachable=len(found.nodes) - len(told),
            keys=found.keys,
            copies=sum(report.keys for report in told),
            bytes=sum(report.size for report in told),
            groups=found.partitions,
            below_strength=found.below,
            without_quorum=found.lacking,
            versions=versions,
            status=found.summary(),
        )
        return ExitCode.OK
    for line in _lines(session.style, session, found):
        await session.say(line)
    return ExitCode.OK


def _lines(style: Style, session: Session, found: Look) -> list[str]:
    told = [node.report for node in found.nodes if node.report is not None]
    away = len(found.nodes) - len(told)
    hello = session.hello
    oldest = max((report.uptime for report in told), default=0) / 1000
    rows = [
        ("ring", style.paint(found.name, "bold")),
        ("network", f"{hello.subnet}, k={found.k}, {_encryption(hello.encryption)}"),
        ("nodes", f"{count(len(found.nodes))} of {_room(found.k)}" + _away(style, away)),
        ("versions", ", ".join(sorted({report.version for report in told}))),
        ("keys", f"{count(found.keys)}, {found.replicas} copies wanted of each"),
        ("kept", f"{count(sum(r.keys for r in told))} copies, {size(sum(r.size for r in told))}"),
        ("groups", _groups(style, found)),
        ("up since", seconds(oldest) if oldest < 60 else _long(oldest)),
        ("status", style.paint(found.summary(), "green" if found.well else "yellow")),
    ]
    return [f"{style.paint(name.rjust(8), 'dim')}  {text}" for name, text in rows]


def _encryption(name: str) -> str:
    return "not encrypted" if name == "Plaintext" else "TLS"


def _room(k: int) -> str:
    return count(2**k) if k <= 40 else f"2^{k}"


def _away(style: Style, away: int) -> str:
    return ", " + style.paint(f"{count(away)} not reachable", "red") if away else ""


def _groups(style: Style, found: Look) -> str:
    parts = [count(found.partitions)]
    for which, words, color in (
        ("without_quorum", "without a quorum", "red"),
        ("below", "below strength", "yellow"),
        ("stopped", "on the move", "yellow"),
    ):
        number = found.groups(which)
        if number:
            parts.append(style.paint(f"{count(number)} {words}", color))
    return ", ".join(parts) if parts[1:] else f"{parts[0]}, all at full strength"


def _long(number: float) -> str:
    return seconds(timedelta(seconds=number).total_seconds())
