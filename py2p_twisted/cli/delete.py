"""``chordctl del``: delete keys (floor 4)."""

from __future__ import annotations

import argparse

from .frame import ExitCode
from .keys_of import bytes_of
from .session import Session, in_ring, note
from .texts import field, visible

__all__ = ["HELP", "NAME", "configure"]

NAME = "del"
HELP = "delete keys"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the keys."""
    parser.usage = "%(prog)s [options] KEY..."
    parser.add_argument("key", metavar="KEY", help="the keys")
    # With a default it is not named among what is missing.
    parser.add_argument("more", nargs="*", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--base64", action="store_true", help="the keys are written in base64")
    parser.set_defaults(run=in_ring(_delete))


async def _delete(session: Session) -> ExitCode:
    options = session.options
    code = ExitCode.OK
    for key in [bytes_of(options, text) for text in (options.key, *options.more)]:
        there = await session.service.delete(key)
        if session.json:
            await session.emit(**field("key", key), deleted=there)
        elif not there:
            note(f"nothing was at {visible(key)!r}")
        elif session.to_terminal:
            await session.say(f"Deleted {visible(key)!r}.")
        if not there:
            code = ExitCode.NO
    return code
