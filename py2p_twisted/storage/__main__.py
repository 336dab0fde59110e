"""``python -m py2p_twisted.storage check FILE``: is a node's data file what was written to it?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .check import check

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m py2p_twisted.storage",
        description="Examines the data of a node that is not running. Changes nothing.",
        epilog="Exit code: 0 it is sound, 1 it is damaged, 2 it could not be examined.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    checking = commands.add_parser("check", help="read all of it, and tell what is wrong")
    checking.add_argument("file", metavar="FILE", help="the data file, or the folder it is in")
    return check(parser.parse_args(arguments).file, lambda line: print(line, flush=True))


if __name__ == "__main__":
    sys.exit(main())
