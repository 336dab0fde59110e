"""``chordctl get``: the value at a key (floor 4)."""

from __future__ import annotations

import argparse

from .frame import CommandError, ExitCode
from .keys_of import key_argument, key_of
from .session import Session, in_ring
from .texts import field, visible

__all__ = ["HELP", "NAME", "configure"]

NAME = "get"
HELP = "print the value at a key"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the key."""
    key_argument(parser)
    parser.set_defaults(run=in_ring(_get))


async def _get(session: Session) -> ExitCode:
    key = key_of(session.options)
    value = await session.service.get(key)
    if session.json:
        found = {} if value is None else field("value", value)
        await session.emit(**field("key", key), found=value is not None, **found)
        return ExitCode.NO if value is None else ExitCode.OK
    if value is None:
        raise CommandError(f"nothing is at {visible(key)!r}", ExitCode.NO)
    if session.to_terminal:
        text = visible(value, lines=True)
        await session.say(text.removesuffix("\n"))
    else:
        await session.out.write(value)
    return ExitCode.OK
