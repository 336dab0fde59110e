"""``chordctl set``: write a value (floor 4)."""

from __future__ import annotations

import argparse

from .frame import CommandError, ExitCode
from .keys_of import key_argument, key_of, value_of
from .session import Session, in_ring
from .texts import field, size, visible

__all__ = ["HELP", "NAME", "configure"]

NAME = "set"
HELP = "write a value, from the command line, a file or standard input"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the key, and where the value comes from."""
    parser.usage = "%(prog)s [options] KEY [VALUE | --file FILE]"
    key_argument(parser)
    parser.add_argument(
        "more",
        metavar="VALUE",
        nargs="*",
        default=[],
        help="the value (default: standard input, every byte)",
    )
    parser.add_argument(
        "--file", metavar="FILE", help="take every byte of a file; - is standard input"
    )
    parser.set_defaults(run=in_ring(_set))


async def _set(session: Session) -> ExitCode:
    options = session.options
    key = key_of(options)
    if len(options.more) > 1:
        raise CommandError("say one value: quote it if it has spaces", ExitCode.USAGE)
    value = await value_of(session, (options.more or [None])[0], options.file)
    await session.service.set(key, value)
    if session.json:
        await session.emit(**field("key", key), done=True, bytes=len(value))
    elif session.to_terminal:
        await session.say(f"Wrote {size(len(value))} at {visible(key)!r}.")
    return ExitCode.OK
