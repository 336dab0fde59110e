"""``chordctl leave``: ask a member to leave its ring (floor 4)."""

from __future__ import annotations

import argparse

from ..base import show_address
from .frame import CommandError, ExitCode, in_a_shell
from .session import Session, address, in_ring

__all__ = ["HELP", "NAME", "configure"]

NAME = "leave"
HELP = "ask a member to hand its keys over and leave the ring"

#: Seconds beyond the member's own patience.
_LONGER = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the member."""
    parser.add_argument(
        "member",
        metavar="HOST:PORT",
        type=address,
        help="the member; it stays connected, keeps nothing, and can be stopped then",
    )
    parser.set_defaults(run=in_ring(_leave, whom=lambda options: [options.member]))


async def _leave(session: Session) -> ExitCode:
    from ..wire.messages import Declined, Done, Leave

    name = show_address(*session.options.member)
    node = session.service.node
    link = await node.links.dial(*session.options.member)
    patience = node.core.settings.leave_timeout + _LONGER
    reply = await link.ask(Leave(), patience)
    if isinstance(reply, Declined):
        raise CommandError(f"{name} does not leave: {in_a_shell(reply.reason)}")
    if not isinstance(reply, Done):
        raise CommandError(f"{name} is busy, and did not begin to leave: try again")
    if session.json:
        await session.emit(left=name)
    else:
        await session.say(f"{name} handed its keys over and left the ring. It can be stopped now.")
    return ExitCode.OK
