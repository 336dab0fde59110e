"""``chordctl recover``: begin anew from what is left of a ring (floor 4)."""

from __future__ import annotations

import argparse

from .frame import CommandError, ExitCode
from .session import Session, in_ring
from .texts import count

__all__ = ["HELP", "NAME", "configure"]

NAME = "recover"
HELP = "re-form the groups whose members will never come back, from what is left"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the consent."""
    parser.description = (
        f"{HELP[0].upper()}{HELP[1:]}. A member that was away and comes back after it discards what"
        " it had of those groups: run it only when the missing members are gone for good."
    )
    parser.add_argument(
        "--accept-data-loss",
        action="store_true",
        help="do it: what only the missing members kept is lost for ever",
    )
    parser.set_defaults(run=in_ring(_recover))


async def _recover(session: Session) -> ExitCode:
    if not session.options.accept_data_loss:
        raise CommandError(await _what_is_missing(session), ExitCode.USAGE)
    report = await session.service.recover(accept_data_loss=True)
    if session.json:
        names = ("era", "kept", "reformed", "lost", "keys", "superseded")
        await session.emit(**{name: getattr(report, name) for name in names})
    elif not report.reformed and not report.lost:
        await session.say("Nothing to recover: every group has a quorum.")
    else:
        await session.say(f"Recovered in era {report.era}:")
        await session.say(f"  {count(report.kept):>6}  groups go on as they were")
        await session.say(
            f"  {count(report.reformed):>6}  were re-formed, with {count(report.keys)} keys that"
            " may have lost their last write"
        )
        await session.say(f"  {count(report.lost):>6}  begin empty: nobody kept them")
    if report.superseded:
        raise CommandError(
            "another recovery won at the same time: run it again if keys are missing"
        )
    return ExitCode.OK


async def _what_is_missing(session: Session) -> str:
    members = await session.service.reports()
    lacking = max(
        (member.report.groups.without_quorum for member in members if member.report), default=0
    )
    absent = ", ".join(str(member.peer) for member in members if member.report is None)
    if lacking == 0:
        return "nothing was done, nor is it needed: every group that answers has a quorum"
    return (
        f"nothing was done. {count(lacking)} groups have no quorum. Not reachable:"
        f" {absent or 'nobody that is known'}. If these come back, so do their keys; if they never"
        " will, say chordctl recover --accept-data-loss"
    )
