"""``chordctl cas``: compare and set (floor 4)."""

from __future__ import annotations

import argparse

from .frame import CommandError, ExitCode
from .keys_of import bytes_of, key_argument, key_of, value_of
from .session import Session, in_ring
from .texts import field, visible

__all__ = ["HELP", "NAME", "configure"]

NAME = "cas"
HELP = "write a value only if the present one is the expected one"

_USAGE = "%(prog)s [options] KEY (EXPECTED | --absent) (VALUE | --file FILE | --delete)"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the key, what is expected there, and what is to be there."""
    parser.usage = _USAGE
    key_argument(parser)
    parser.add_argument(
        "more",
        metavar="EXPECTED VALUE",
        nargs="*",
        help="what must be there now, and what is to be there",
    )
    parser.add_argument("--absent", action="store_true", help="nothing must be there now")
    parser.add_argument("--delete", action="store_true", help="nothing is to be there")
    parser.add_argument(
        "--file", metavar="FILE", help="what is to be there is in a file; - is standard input"
    )
    parser.set_defaults(run=in_ring(_cas))


async def _cas(session: Session) -> ExitCode:
    options = session.options
    texts = list(options.more)
    wanted = (not options.absent) + (not options.delete and options.file is None)
    if len(texts) != wanted or (options.delete and options.file is not None):
        raise CommandError(
            "say what is expected, or --absent, and then the new value, --file or --delete",
            ExitCode.USAGE,
        )
    key = key_of(options)
    expected = None if options.absent else bytes_of(options, texts.pop(0))
    value = None
    if not options.delete:
        value = await value_of(session, texts[0] if texts else None, options.file)
    done = await session.service.compare_and_set(key, expected, value)
    if session.json:
        await session.emit(**field("key", key), done=done)
    elif not done:
        what = "something is" if expected is None else "another value is, or none,"
        raise CommandError(f"{what} at {visible(key)!r}: nothing was changed", ExitCode.NO)
    elif session.to_terminal:
        await session.say(f"{'Deleted' if value is None else 'Wrote'} {visible(key)!r}.")
    return ExitCode.OK if done else ExitCode.NO
