"""``chordctl doctor``: what is wrong with a node, and what to do about it (floor 4)."""

from __future__ import annotations

import argparse
import os
import textwrap

from .. import __version__
from ..base import show_address
from ..errors import AuthenticationFailed, ChordError, NetworkMismatch
from .diagnosis import GOOD, NOTE, PROBLEM, Finding, Here, of_node, of_ring
from .frame import ExitCode, in_a_shell
from .session import Address, Session, address, in_ring, peers_of

__all__ = ["HELP", "NAME", "configure"]

NAME = "doctor"
HELP = "look at a node and its ring, and say what is wrong and what to do about it"

_SIGNS = {GOOD: ("✓", "ok", "green"), NOTE: ("!", "! ", "yellow"), PROBLEM: ("✗", "x ", "red")}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the node."""
    parser.add_argument(
        "node",
        metavar="HOST:PORT",
        type=address,
        nargs="?",
        help="the node (default: the --peer); with another --peer: are both in one ring?",
    )
    parser.set_defaults(run=in_ring(_doctor, whom=lambda _: []))


async def _doctor(session: Session) -> ExitCode:
    options = session.options
    peers = peers_of(options)
    node = options.node or peers[0]
    named = options.peer or os.environ.get("CHORD_PEER")
    other = next((peer for peer in peers if peer != node), None) if named else None
    doctor = _Doctor(session)
    await doctor.look_at(node, other)
    await doctor.verdict()
    return ExitCode.OK if not doctor.problems else ExitCode.FAILED


class _Doctor:
    """One look, step by step: each needs those before it."""

    def __init__(self, session: Session) -> None:
        self.problems = 0
        self._notes = 0
        self._session = session
        self._style = session.style

    async def look_at(self, node: Address, other: Address | None) -> None:
        """All steps, as far as they lead."""
        if await self._who(node) and await self._connect(node):
            await self._ask(node)
            if other is not None:
                await self._same_ring(node, other)

    async def _who(self, node: Address) -> bool:
        """Is a node there, and of which network?"""
        from ..wire.versions import show_versions

        session, name = self._session, show_address(*node)
        if session.security is not None and session.security.authenticated:
            await self._own_certificate()
        try:
            hello = await session.probe(node)
        except ChordError as error:
            await self._tell(*_unreachable(error))
            return False
        session.hello = hello
        await self._tell(Finding(GOOD, "reachable", f"{name} answers"))
        encrypted = "TLS" if session.security is not None else "not encrypted"
        wire = show_versions(hello)
        text = f"subnet {hello.subnet!r}, k={hello.k}, {encrypted}, wire version {wire}"
        await self._tell(Finding(GOOD, "handshake", text))
        if hello.ring:
            return True
        await self._tell(
            Finding(
                PROBLEM,
                "ring",
                "it is in no ring",
                "let it join one, with --join HOST:PORT, or found one, without; its log says what"
                " is in the way",
            )
        )
        return False

    async def _own_certificate(self) -> None:
        end, what = self._session.security.expiry
        left = end.timestamp() - self._session.reactor.seconds()
        if left <= 0:
            await self._tell(
                Finding(
                    PROBLEM,
                    "certificate",
                    f"{what}, with which chordctl comes, has expired",
                    "chordctl tls issue --renew, and copy the folder here",
                )
            )

    async def _connect(self, node: Address) -> bool:
        """Does it let this side read its ring?"""
        try:
            await self._session.connect([node])
        except ChordError as error:
            await self._tell(*_unreachable(error))
            return False
        return True

    async def _ask(self, node: Address) -> None:
        """How is it, and how is its ring?"""
        from ..wire.messages import WIRE_VERSION
        from .looking import Seen, look

        session = self._session
        began = session.reactor.seconds()
        try:
            report = await session.service.report(node)
        except ChordError as error:
            await self._tell(
                Finding(PROBLEM, "report", str(error), "it is overloaded: look at its machine")
            )
            return
        here = Here(session.reactor.seconds(), __version__, WIRE_VERSION)
        k = session.hello.k
        await self._tell(
            *of_node(here, Seen(report.peer, report, "", report.peer.id / 2**k), began)
        )
        ring = await look(session)
        here = Here(session.reactor.seconds(), __version__, WIRE_VERSION)
        await self._tell(*of_ring(here, ring, session.hello.ring))
        await self._read()

    async def _read(self) -> None:
        """Does it serve?"""
        session = self._session
        began = session.reactor.seconds()
        try:
            await session.service.get(b"chordctl doctor")
        except ChordError as error:
            text = in_a_shell(str(error))
            await self._tell(Finding(PROBLEM, "reading", text, "see the groups above"))
            return
        took = (session.reactor.seconds() - began) * 1000
        await self._tell(Finding(GOOD, "reading", f"a key was read in {took:.1f} ms"))

    async def _same_ring(self, node: Address, other: Address) -> None:
        """Is another node in the same ring?"""
        session = self._session
        mine, name = session.hello, show_address(*other)
        try:
            hello = await session.probe(other)
        except ChordError as error:
            await self._tell(*_unreachable(error))
            return
        for what, ours, theirs in (
            ("subnet", mine.subnet, hello.subnet),
            ("k", mine.k, hello.k),
        ):
            if ours != theirs:
                await self._tell(
                    Finding(
                        PROBLEM,
                        "same network",
                        f"{what} is {ours!r} at {show_address(*node)} and {theirs!r} at {name}",
                        f"start one of them with the other's --{what}",
                    )
                )
                return
        if hello.ring == mine.ring:
            await self._tell(Finding(GOOD, "same ring", f"{name} is in it, too"))
            return
        await self._tell(
            Finding(
                PROBLEM,
                "same ring",
                f"{name} is in {'another' if hello.ring else 'no'} ring",
                "two rings never merge by themselves: export one, restart its nodes empty with"
                " --join, and import",
            )
        )

    # -- telling

    async def _tell(self, *findings: Finding) -> None:
        for finding in findings:
            self.problems += finding.level == PROBLEM
            self._notes += finding.level == NOTE
            if self._session.json:
                await self._session.emit(**finding._asdict())
                continue
            fine, plain, color = _SIGNS[finding.level]
            sign = self._style.sign(fine, plain)
            await self._say(sign, f"{finding.what:<12} ", finding.text, "bold", color)
            if finding.remedy:
                await self._say(" " * len(sign), " " * 13, f"→ {finding.remedy}", "", color)
        await self._session.out.flush()

    async def _say(self, sign: str, head: str, text: str, weight: str, color: str) -> None:
        """One finding, or its remedy, over as many lines as it takes on a terminal."""
        style, indent = self._style, len(sign) + 1 + len(head)
        text = text.replace("→", style.sign("→", "->"))
        room = style.width - indent if self._session.to_terminal else 0
        lines = textwrap.wrap(text, room, break_on_hyphens=False) if room >= 20 else [text]
        for number, line in enumerate(lines):
            line = line if weight else style.paint(line, color)
            before = f"{style.paint(sign, weight, color)} {head}" if not number else " " * indent
            await self._session.say(before + line)

    async def verdict(self) -> None:
        """The last line."""
        if self._session.json:
            return
        if self.problems:
            text, color = f"{self.problems} to mend, {self._notes} to know.", "red"
        elif self._notes:
            text, color = f"Nothing is broken; {self._notes} to know.", "yellow"
        else:
            text, color = "All is well.", "green"
        await self._session.say("\n" + self._style.paint(text, "bold", color))


def _unreachable(error: ChordError) -> list[Finding]:
    if isinstance(error, NetworkMismatch):
        remedy = "say --tls DIR if the ring encrypts (--encryption SSL if it has no authority)"
        if "plain text and this node TLS" in str(error):
            remedy = "leave --tls and CHORD_TLS out, or give the node its --tls"
        return [Finding(PROBLEM, "handshake", str(error), remedy)]
    if isinstance(error, AuthenticationFailed):
        remedy = "issue a certificate for that name by the ring's authority: chordctl tls issue"
        return [Finding(PROBLEM, "certificate", str(error), remedy)]
    from ..wire.endpoints import NO_NODE

    if NO_NODE in str(error):
        return [Finding(PROBLEM, "handshake", str(error), _ANOTHER)]
    return [Finding(PROBLEM, "reachable", str(error), _ROAD)]


_ANOTHER = (
    "name the --port of the node, which its log tells; if it is that one, look at the node's"
    " machine"
)
_ROAD = (
    "is the node started, does it listen there (--interface), and does a firewall let"
    " this machine through?"
)
