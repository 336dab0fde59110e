"""``chordctl``: finds the command, runs it, and ends with an exit code (floor 4)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import ChordError
from . import tls
from .frame import Command, CommandError, ExitCode, Parser

__all__ = ["COMMANDS", "main"]

#: Every command, as ``--help`` lists them.
COMMANDS: tuple[Command, ...] = (tls,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the name of the program; None: those of the process.
    :returns: an :class:`ExitCode`.
    :raises SystemExit: for ``--help``, ``--version`` and a wrong command line.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    try:
        options = _parser().parse_args(arguments)
        code: ExitCode = options.run(options)
        if sys.stdout is not None:  # it may be closed: chordctl ... >&-
            sys.stdout.flush()
    except CommandError as error:
        return _refuse(str(error), error.code)
    except ChordError as error:
        return _refuse(str(error))
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


def _parser() -> Parser:
    parser = Parser(
        prog="chordctl",
        description="Looks after a ring of py2p_twisted.",
        epilog="Exit codes: 0 done; 1 not done, stderr says why; 2 a wrong command line.",
    )
    parser.add_argument("--version", action="version", version=f"py2p_twisted {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.configure(
            commands.add_parser(command.NAME, help=command.HELP, description=command.HELP)
        )
    return parser


def _refuse(reason: str, code: ExitCode = ExitCode.FAILED) -> ExitCode:
    print("chordctl:", " ".join(reason.split()), file=sys.stderr)
    return code
