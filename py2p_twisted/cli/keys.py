"""``chordctl keys``: all keys, as they come (floor 4)."""

from __future__ import annotations

import argparse
import os

from .frame import ExitCode, whole_number
from .session import Session, in_ring
from .texts import field, visible

__all__ = ["HELP", "NAME", "configure"]

NAME = "keys"
HELP = "print all keys, or those that begin with a prefix, in no particular order"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add which keys, and how they are printed."""
    parser.add_argument("--prefix", default="", help="only keys that begin with this")
    parser.add_argument(
        "--limit", metavar="N", type=whole_number(1, 2**62), help="stop after so many"
    )
    parser.add_argument("--count", action="store_true", help="print only how many there are")
    parser.add_argument(
        "-0", "--null", action="store_true", help="end each key with a zero byte, not a new line"
    )
    parser.set_defaults(run=in_ring(_keys))


async def _keys(session: Session) -> ExitCode:
    options = session.options
    prefix = os.fsencode(options.prefix)
    if options.count and not prefix and options.limit is None:
        number = await session.service.count()
    else:
        number = await _print(session, prefix)
    if options.count:
        if session.json:
            await session.emit(keys=number)
        else:
            await session.say(str(number))
    return ExitCode.OK


async def _print(session: Session, prefix: bytes) -> int:
    """How many there are; prints them unless only that is asked for."""
    options = session.options
    end = b"\0" if options.null else b"\n"
    to_terminal = session.to_terminal
    number = 0
    async for key in session.service.keys():
        if not key.startswith(prefix):
            continue
        number += 1
        if options.count:
            pass
        elif session.json:
            await session.emit(**field("key", key))
        elif to_terminal:
            await session.say(visible(key))
        else:
            await session.out.write(key + end)
        if number == options.limit:
            break
    return number
