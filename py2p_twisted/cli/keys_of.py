"""Keys and values of a command: from its line, a file, standard input, or base64 (floor 4)."""

from __future__ import annotations

import argparse
import os

from .frame import CommandError, ExitCode
from .session import Session
from .texts import from_base64

__all__ = ["bytes_of", "key_argument", "key_of", "value_of"]

#: The longest value that is read; the ring's own limit is lower.
_MOST = 16 * 1024 * 1024


def key_argument(parser: argparse.ArgumentParser) -> None:
    """Add the key, and how it is written."""
    parser.add_argument("key", metavar="KEY", help="any text; text stands for its UTF-8 bytes")
    parser.add_argument(
        "--base64",
        action="store_true",
        help="keys and values on the command line are written in base64",
    )


def bytes_of(options: argparse.Namespace, text: str) -> bytes:
    """What stands on the command line.

    :raises CommandError: if it is to be base64, and is not.
    """
    if not options.base64:
        return os.fsencode(text)
    try:
        return from_base64(text)
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None


def key_of(options: argparse.Namespace) -> bytes:
    """The key."""
    return bytes_of(options, options.key)


async def value_of(session: Session, text: str | None, file: str | None) -> bytes:
    """A value from the command line, a file, or standard input.

    :raises CommandError: if it is not there.
    """
    from .streams import read_all

    if text is not None and file is not None:
        raise CommandError("say the value or --file, not both", ExitCode.USAGE)
    if text is not None:
        return bytes_of(session.options, text)
    if file is not None and file != "-":
        with open(file, "rb") as opened:
            return await read_all(session.reactor, opened.fileno(), _MOST, file)
    if file is None and os.isatty(session.stdin):
        raise CommandError(
            "say the value, name a --file, or pipe it in (--file - reads what you type)",
            ExitCode.USAGE,
        )
    return await read_all(session.reactor, session.stdin, _MOST, "standard input")
