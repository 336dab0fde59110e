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

__all__ = ["HELP", "NAME", "configure", "links", "shown"]

NAME = "ring"
HELP = "draw the ring: its nodes in the order of the circle, their shares, who is suspected"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add how much of it."""
    parser.add_argument(
        "--links", action="store_true", help="show the round trips between all nodes, too"
    )
    parser.set_defaults(run=in_ring(_ring))


async def _ring(session: Session) -> ExitCode:
    found = await look(session)
    if session.json:
        for node in found.nodes:
            await session.emit(**node.entry())
        return ExitCode.OK
    for line in shown(session.style, found):
        await session.say(line)
    if session.options.links:
        for line in ["", *links(session.style, found.nodes)]:
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


def links(style: Style, nodes: Sequence[Seen]) -> list[str]:
    """The round trips between the nodes: each line is what one of them has measured."""
    table = Table(style, "", *(f">{node.name}" for node in nodes))
    for node in nodes:
        report: Any = node.report
        known = {} if report is None else {link.peer.instance: link for link in report.links}
        away = set() if report is None else {peer.instance for peer, _ in report.missing}
        cells = []
        for other in nodes:
            link = known.get(other.peer.instance)
            if other is node or report is None:
                cell = ""
            elif other.peer.instance in away:
                cell = style.paint(style.sign("✗", "x"), "red")
            elif link is None:
                cell = "-"  # they have nothing to say to each other
            else:
                time = "?" if link.round_trip is None else seconds(link.round_trip / 1e6)
                cell = style.paint(time, "yellow" if link.suspected else "")
            cells.append(cell)
        table.add(style.paint(node.name, "bold"), *cells)
    return table.lines()
