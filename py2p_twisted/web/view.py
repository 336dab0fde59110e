"""The ring as the page draws it: what reports of its members come to (floor 4; pure).

What is told here is what the page shows and ``/status.json`` answers: names, numbers and places,
never a key or a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..base import Peer, show_address, to_base_58
from ..table.group import Config

if TYPE_CHECKING:
    from ..reporting import Member
    from ..wire.reports import Report

__all__ = ["MOST_WEAK", "Rates", "groups_of", "id_of", "node_of"]

#: Slices of groups below strength that are told.
MOST_WEAK = 64


class Rates(NamedTuple):
    """Operations per second of one node; None while they were counted only once."""

    reads: float | None = None
    writes: float | None = None


def id_of(peer: Peer) -> str:
    """The name of a node within one view: short, since each is told of many times."""
    return peer.instance[:8].hex()


def node_of(
    member: Member, k: int, copies: int, rates: Rates, round_trip: int | None, *, alive: bool
) -> dict[str, Any]:
    """One member, with its place on the circle as a fraction of it.

    :param copies: how many copies of keys all members have.
    :param alive: whether it is there, though it may tell nothing.
    :param round_trip: in microseconds, to the node that looks; None: it is that node, say.
    """
    peer = member.peer
    node: dict[str, Any] = {
        "id": id_of(peer),
        "name": to_base_58(peer.id).decode(),
        "place": peer.id / (1 << k),
        "address": show_address(*peer.address),
        "alive": alive,
        "problem": member.problem,
        "round_trip": round_trip,
    }
    report = member.report
    if report is not None:
        node.update(_told_by(report, copies, rates))
    return node


def _told_by(report: Report, copies: int, rates: Rates) -> dict[str, Any]:
    groups = report.groups
    storage = report.storage
    return {
        "phase": report.phase,
        "status": report.status,
        "version": report.version,
        "uptime": report.uptime // 1000,
        "copies": report.keys,
        "keys": groups.keys,
        "share": report.keys / copies if copies else None,
        "bytes": report.size,
        "quota": storage.quota if storage is not None else None,
        "reads": rates.reads,
        "writes": rates.writes,
        "connections": report.connections,
        "groups": groups.kept,
        "below": groups.below,
        "without_quorum": groups.without_quorum,
        "predecessor": None if report.predecessor is None else id_of(report.predecessor),
        "successors": [id_of(peer) for peer in report.successors],
        "fingers": [id_of(peer) for peer in report.fingers],
        "missing": [id_of(peer) for peer, _ in report.missing],
    }


def groups_of(
    configs: Iterable[Config], alive: Mapping[bytes, bool], replicas: int, partitions: int
) -> dict[str, Any]:
    """The groups of all partitions, and those that are below strength.

    :param configs: the newest that is known of each partition.
    :param alive: by instance, whether a member is there.
    """
    living = sum(alive.values())
    room = min(replicas, max(living, 1))
    room -= room % 2 == 0 and room > 2  # groups are odd, but for two nodes
    known = below = lost = 0
    weak: list[dict[str, Any]] = []
    for config in sorted(configs, key=lambda config: config.partition):
        known += 1
        there = sum(alive.get(peer.instance, False) for peer in config.members)
        if there >= max(room, len(config.members)):
            continue
        below += 1
        lost += there < config.quorum
        _extend(weak, config, there, partitions)
    return {
        "partitions": partitions,
        "known": known,
        "below": below,
        "without_quorum": lost,
        "weak": weak[:MOST_WEAK],
    }


def _extend(weak: list[dict[str, Any]], config: Config, there: int, partitions: int) -> None:
    """One more group below strength; side by side and alike, they are told as one slice."""
    last = weak[-1] if weak else None
    start, end = config.partition / partitions, (config.partition + 1) / partitions
    like = {
        "living": there,
        "quorum": config.quorum,
        "members": [id_of(peer) for peer in config.members],
    }
    if last is not None and last["to"] == start and all(last[name] == like[name] for name in like):
        last["to"] = end
        last["groups"] += 1
    else:
        weak.append({"from": start, "to": end, "groups": 1, **like})
