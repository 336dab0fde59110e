"""``chordctl``: finds the command, runs it, and ends with an exit code (floor 4)."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import (
    AuthenticationFailed,
    ChordError,
    NetworkMismatch,
    NotConnected,
    PeerUnreachable,
)
from . import (
    bench,
    cas,
    delete,
    doctor,
    export,
    get,
    keys,
    leave,
    load,
    recover,
    ring,
    set,
    status,
    tls,
    watch,
)
from .frame import Command, CommandError, ExitCode, Parser, in_a_shell
from .session import ring_options

__all__ = ["COMMANDS", "code_of", "main", "parse"]

_UNREACHABLE = (NetworkMismatch, PeerUnreachable, AuthenticationFailed, NotConnected)

#: Every command, as ``--help`` lists them.
COMMANDS: tuple[Command, ...] = (
    *(get, set, delete, cas, keys, watch),
    *(status, ring, doctor),
    *(export, load, bench),
    *(leave, recover),
    tls,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the name of the program; None: those of the process.
    :returns: an :class:`ExitCode`.
    :raises SystemExit: for ``--help``, ``--version`` and a wrong command line.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    try:
        options = parse(arguments)
        code: ExitCode = options.run(options)
        if sys.stdout is not None:  # it may be closed: chordctl ... >&-
            sys.stdout.flush()
    except (CommandError, ChordError) as error:
        return _refuse(str(error), code_of(error))
    except BrokenPipeError:
        # Python would flush once more when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except OSError as error:
        reason = error.strerror or str(error)
        return _refuse(f"{error.filename}: {reason}" if error.filename else reason)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Argparse takes no option between arguments of which some may be missing: a command that has such
    arguments keeps the rest in ``more``.

    :raises CommandError: if what is asked for cannot be had together.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if not getattr(options, "objects", True) and (options.json or "--json" in rest):
        raise CommandError("tls writes files, and no objects: leave --json out", ExitCode.USAGE)
    if rest and hasattr(options, "more") and not any(text.startswith("-") for text in rest):
        options.more += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> Parser:
    parser = Parser(
        prog="chordctl",
        description="Reads, writes and looks after a ring of py2p_twisted.",
        epilog="Exit codes: 0 done; 1 not done, stderr says why; 2 a wrong command line; 3 the"
        " answer is no (nothing is at that key, or not what was expected); 4 no node of a ring was"
        " reached; 5 nobody knows whether it was done.",
    )
    parser.add_argument("--version", action="version", version=f"py2p_twisted {__version__}")
    ring_options(parser, first=True)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for command in COMMANDS:
        one = commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        command.configure(one)
        if command is not tls:
            ring_options(one)
    return parser


def code_of(error: CommandError | ChordError) -> ExitCode:
    """How a command ends that fails with this."""
    if isinstance(error, CommandError):
        return error.code
    if error.outcome_unknown:
        return ExitCode.UNKNOWN
    return ExitCode.UNREACHABLE if isinstance(error, _UNREACHABLE) else ExitCode.FAILED


def _refuse(reason: str, code: ExitCode = ExitCode.FAILED) -> ExitCode:
    print("chordctl:", in_a_shell(reason), file=sys.stderr)
    return code
