"""What may be wrong with a node and its ring, each with its remedy (floor 4).

Each check looks at what the probe and the members told, and yields findings; none of them asks
anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..base import count_of, show_address
from .texts import count, seconds, size

if TYPE_CHECKING:
    from .looking import Look, Seen

__all__ = ["GOOD", "NOTE", "PROBLEM", "Finding", "of_node", "of_ring"]

GOOD, NOTE, PROBLEM = "good", "note", "problem"

#: Seconds by which clocks may differ: TLS looks at dates, people compare logs.
_CLOCK_NOTE, _CLOCK_PROBLEM = 2.0, 300.0
#: Seconds before its end from which a certificate is to be renewed.
_CERTIFICATE = 14 * 86400.0
#: The part of a quota from which there is little room.
_LITTLE_ROOM = 0.9


class Finding(NamedTuple):
    """One thing that was looked at.

    :ivar level: good, note or problem.
    :ivar what: was looked at, in a word or two.
    :ivar text: what was found.
    :ivar remedy: what to do; empty if nothing.
    """

    level: str
    what: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Here:
    """What this side knows.

    :ivar now: its wall clock.
    :ivar version: of the package.
    :ivar wire: the wire version.
    """

    now: float
    version: str
    wire: int


def of_node(here: Here, node: Seen, began: float) -> Iterator[Finding]:
    """Of the node that was named.

    :param began: this side's clock when its report was asked for.
    """
    report = node.report
    if report.leeching:
        yield Finding(
            NOTE,
            "member",
            f"it keeps nothing: it is {report.phase}",
            "clients are served by members; let it join if it is to be one",
        )
    else:
        text = (
            f"it is {node.name} on the circle, and has been up for {seconds(report.uptime / 1000)}"
        )
        yield Finding(GOOD, "member", text)
    yield from _clock(node, (began + here.now) / 2)
    if report.status != "Nominal" and not report.status.startswith("Not reachable"):
        yield Finding(
            NOTE, "status", report.status, "docs/operating.rst explains what it says, and its log"
        )
    if report.version != here.version:
        yield Finding(
            NOTE,
            "version",
            f"it runs {report.version}, chordctl is {here.version}",
            "upgrade the older one when it suits you",
        )


def _clock(node: Seen, now: float) -> Iterator[Finding]:
    off = node.report.clock / 1000 - now
    if abs(off) < _CLOCK_NOTE:
        yield Finding(
            GOOD, "clock", f"it agrees with this machine's, within {seconds(_CLOCK_NOTE)}"
        )
        return
    which = "ahead of" if off > 0 else "behind"
    yield Finding(
        PROBLEM if abs(off) >= _CLOCK_PROBLEM else NOTE,
        "clock",
        f"{node.address} is {seconds(abs(off))} {which} this machine",
        "let NTP keep both; certificates are refused by a clock that is wrong by days",
    )


def of_ring(here: Here, ring: Look, expect: bytes) -> Iterator[Finding]:
    """Of the ring that the node is in.

    :param expect: the id of that ring.
    """
    yield from _members(ring)
    yield from _one_ring(ring, expect)
    yield from _neighbours(ring)
    yield from _sight(ring)
    yield from _groups(ring)
    yield from _copies(ring)
    yield from _certificates(here, ring)
    for node in ring.nodes:
        if node.report is not None:
            yield from _storage(node)
            if abs(node.report.clock / 1000 - here.now) >= _CLOCK_PROBLEM:
                yield from _clock(node, here.now)
    yield from _versions(ring)


def _members(ring: Look) -> Iterator[Finding]:
    silent = [node for node in ring.nodes if node.report is None]
    away = [node for node in silent if not node.linked]
    for node in silent:
        if node.linked:
            yield Finding(
                NOTE,
                "members",
                f"{node.name} at {node.address} tells nothing of itself: {node.problem}",
                "upgrade it, or look at its machine if it is busy",
            )
    for node in away:
        yield Finding(
            PROBLEM,
            "members",
            f"{node.name} at {node.address} does not answer: {node.problem}",
            "start it again, or let this machine reach it; it is replaced when it stays away",
        )
    if not silent:
        number = len(ring.nodes)
        text = f"all {count(number)} answer" if number > 1 else "it is the only one"
        yield Finding(GOOD, "members", text)


def _one_ring(ring: Look, expect: bytes) -> Iterator[Finding]:
    others = [node for node in ring.nodes if node.report and node.report.ring != expect]
    for node in others:
        yield Finding(
            PROBLEM,
            "one ring",
            f"{node.address} is in another ring",
            "two rings never merge by themselves: export the smaller one, restart its nodes empty"
            " with --join, and import",
        )
    if not others:
        yield Finding(GOOD, "one ring", "nobody is in another one")


def _is_member(node: Seen) -> bool:
    return node.linked if node.report is None else not node.report.leeching


def _neighbours(ring: Look) -> Iterator[Finding]:
    """Does each member know the one that follows it?"""
    members = [node for node in ring.nodes if _is_member(node)]
    wrong = []
    for place, node in enumerate(members):
        if node.report is None:
            continue
        after = members[(place + 1) % len(members)]
        first = node.report.successors[0].instance if node.report.successors else None
        wanted = None if after is node else after.peer.instance
        if first != wanted:
            wrong.append(node)
    for node in wrong:
        there = node.report.successors
        told = show_address(*there[0].address) if there else "nobody"
        yield Finding(
            NOTE,
            "circle",
            f"{node.address} takes {told} for its successor",
            "nothing, if a node has just come or gone: the ring mends itself within seconds; else"
            " look at the network between them, the ring may be cut in two",
        )
    if not wrong:
        yield Finding(GOOD, "circle", "each member knows the next one")


def _sight(ring: Look) -> Iterator[Finding]:
    for node in ring.nodes:
        if node.suspected_by and node.report is not None:
            yield Finding(
                PROBLEM,
                "links",
                f"{node.address} answers here, and not {', '.join(node.suspected_by)}",
                "let every member dial every other one: look at firewalls and --out-addr",
            )


def _groups(ring: Look) -> Iterator[Finding]:
    lacking, below, all_of_them = ring.lacking, ring.below, count(ring.partitions)
    if lacking:
        yield Finding(
            PROBLEM,
            "groups",
            f"{count(lacking)} of {all_of_them} have no quorum: nobody can use their keys",
            "bring members that are away back; if they never come back, chordctl recover",
        )
    elif below:
        yield Finding(
            PROBLEM,
            "groups",
            f"{count(below)} of {all_of_them} are below strength: they survive fewer crashes",
            "wait half a minute, until members that are gone are replaced; else start new ones",
        )
    else:
        yield Finding(GOOD, "groups", f"all {all_of_them} are at full strength")


def _copies(ring: Look) -> Iterator[Finding]:
    there = sum(map(_is_member, ring.nodes))
    if there < ring.replicas:
        yield Finding(
            NOTE,
            "copies",
            f"{count_of(there, 'member')} for {ring.replicas} copies of each key",
            f"start {ring.replicas - there} more for the safety that the ring was founded for",
        )
    else:
        yield Finding(GOOD, "copies", f"{ring.replicas} of each key")
    if len(ring.nodes) >= 2**ring.k:
        yield Finding(
            NOTE,
            "room",
            f"all {count(2**ring.k)} identifiers are taken: nobody can join any more",
            "a larger k is a new ring: export, found it, import",
        )


def _certificates(here: Here, ring: Look) -> Iterator[Finding]:
    ends = {node.address: node.report.expires for node in ring.nodes if node.report}
    left = {address: end - here.now for address, end in ends.items() if end is not None}
    for address, time in left.items():
        if time >= _CERTIFICATE:
            continue
        over = time <= 0
        yield Finding(
            PROBLEM if over else NOTE,
            "certificate",
            f"that of {address} {'has expired' if over else f'expires in {seconds(time)}'}",
            "chordctl tls issue --renew, and copy the folder to the node, which takes it up by"
            " itself",
        )
    if left and min(left.values()) >= _CERTIFICATE:
        text = f"those of {count_of(len(left), 'node')} are valid for {seconds(min(left.values()))}"
        yield Finding(GOOD, "certificate", f"{text} at least" if len(left) > 1 else text)


def _storage(node: Seen) -> Iterator[Finding]:
    storage: Any = node.report.storage
    if storage is None or storage.quota is None:
        return
    part = (storage.used + storage.behind) / storage.quota
    if part >= _LITTLE_ROOM:
        yield Finding(
            PROBLEM if part >= 1 else NOTE,
            "quota",
            f"{node.address} keeps {size(storage.used)} of the {size(storage.quota)} that it may",
            "delete keys, give it a larger --quota, or start more nodes",
        )


def _versions(ring: Look) -> Iterator[Finding]:
    versions = sorted({node.report.version for node in ring.nodes if node.report})
    if len(versions) > 1:
        yield Finding(
            NOTE,
            "versions",
            f"members run {' and '.join(versions)}",
            "finish the upgrade: a ring of two versions works, and is not meant to last",
        )
