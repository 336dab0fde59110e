"""What every command of ``chordctl`` shares: its shape, its exit codes, how it refuses (floor 4).

A command is a module that :data:`.main.COMMANDS` names.  It has ``NAME``, ``HELP`` (one line) and
``configure(parser)``, which adds its arguments and says with ``parser.set_defaults(run=...)`` what
to call with the parsed arguments; that returns an :class:`ExitCode`.  Importing a command is cheap:
what is heavy (Twisted, TLS) is imported when it runs.

Whatever a user can cause is one line on stderr and an exit code, never a traceback: raise
:class:`CommandError`, or let a ``ChordError`` or an ``OSError`` through.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NoReturn
from typing import Protocol as Interface

__all__ = ["Command", "CommandError", "ExitCode", "Parser", "in_a_shell", "whole_number"]


class ExitCode(IntEnum):
    """How ``chordctl`` ends."""

    #: It is done.
    OK = 0
    #: It could not be done; stderr says why.
    FAILED = 1
    #: The command line is wrong; nothing was tried.
    USAGE = 2
    #: The answer is no: nothing is at that key, or its value is not the expected one.
    NO = 3
    #: No node of a ring could be talked to.
    UNREACHABLE = 4
    #: Nobody knows whether it was done: look before you do it again.
    UNKNOWN = 5
    #: Ctrl-C.
    INTERRUPTED = 130
    #: Who read the output went away.
    BROKEN_PIPE = 141
    #: SIGTERM.
    TERMINATED = 143


class CommandError(Exception):
    """A command cannot do what it was asked; the reason is its text, for people.

    :ivar code: the exit code.
    """

    def __init__(self, reason: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(reason)
        self.code = code


#: What errors of the package advise, and what does the same in a shell.
_IN_A_SHELL = {
    "recover(accept_data_loss=True)": "chordctl recover --accept-data-loss",
    "; unjoin(discard=True) gives up what it keeps": "",
}


def in_a_shell(text: str) -> str:
    """An error's text, in one line, with the advice that helps in a shell."""
    text = " ".join(text.split())
    for call, command in _IN_A_SHELL.items():
        text = text.replace(call, command)
    return text


class Command(Interface):
    """A module that is a command."""

    NAME: str
    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, and ``run`` as a default."""
        ...


class Parser(argparse.ArgumentParser):
    """Refuses in one line, and takes no abbreviations: the next version could make them unclear."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **how})

    def error(self, message: str) -> NoReturn:
        """Argparse: the command line is wrong.

        :raises SystemExit: always.
        """
        reason = " ".join(message.split())
        self.exit(ExitCode.USAGE, f"{self.prog}: {reason} ({self.prog} --help explains it)\n")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A type for an argument: a whole number within limits."""

    def convert(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text[:20]) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {low} to {high}, not {text!r}"
        )

    return convert
