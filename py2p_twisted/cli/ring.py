"""``chordctl ring``: the ring as a picture, and its nodes in a table (floor 4)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .frame import ExitCode
from .looking import Look, look
from .session import Session, in_ring
from .terminal import Style, Table, bar
from .texts import count, seconds, size

if TYPE_CHECKING:
    from .looking import Seen

__all__ = ["HELP", "NAME", "configure", "shown"]

NAME = "ring"
HELP = "draw the ring: its nodes in the order of the circle, their shares, who is suspected"


def configure(parser: argparse.ArgumentParser) -> None:
    """Nothing to add."""
    parser.set_defaults(run=in_ring(_ring))


async def _ring(session: Session) -> ExitCode:
    found = await look(session)
    if session.json:
        for node in found.nodes:
            await session.emit(**node.entry())
        return ExitCode.OK
    for line in shown(session.style, found):
        await session.say(line)
    return ExitCode.OK


def shown(style: Style, found: Look) -> list[str]:
    """Picture and table."""
    from .picture import COLORS, Spot, draw

    bad = style.sign("✗", "x")
    few = style.width >= 70 and len(found.nodes) <= 12
    spots = []
    colors = {}
    for number, node in enumerate(found.nodes):
        color = COLORS[number % len(COLORS)]
        if node.report is None:
            color = "red"
        elif node.suspected_by:
            color = "yellow"
        colors[node.name] = color
        mark = bad if node.report is None else style.sign("●", "o")
        names = (f"{node.name} {node.address}", node.name) if few else (node.name,)
        spots.append(Spot(node.place, names, color, mark))
    lines = draw(style, spots, [f"ring {found.name}", *_middle(found)])
    return [*lines, "", *_table(style, found.nodes, colors), "", found.summary()]


def _middle(found: Look) -> list[str]:
    return [count(len(found.nodes), "node"), count(found.keys, "key")]


def _table(style: Style, nodes: Sequence[Seen], colors: dict[str, str]) -> list[str]:
    table = Table(style, "", "node", "address", ">share", "", ">keys", ">size", ">rtt", "state")
    for node in nodes:
        report: Any = node.report
        color = colors[node.name]
        gone = report is None
        table.add(
            style.paint(style.sign("✗", "x") if gone else style.sign("●", "o"), color),
            style.paint(node.name, "bold", color),
            node.address,
            "" if gone else f"{node.share:.0%}",
            "" if gone else bar(style, node.share, 8),
            "" if gone else count(report.keys),
            "" if gone else size(report.size),
            "" if node.round_trip is None else seconds(node.round_trip),
            style.paint(node.state, "" if node.well else "red" if gone else "yellow"),
        )
    return table.lines(drop=("", "size", "rtt", "share", "address"))
