"""Commands of chordctl in the test's own reactor, against services in the same process."""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from contextlib import redirect_stderr
from typing import Any, NamedTuple

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from py2p_twisted.base import show_address
from py2p_twisted.cli.frame import CommandError, ExitCode
from py2p_twisted.cli.main import code_of, parse
from py2p_twisted.errors import ChordError
from py2p_twisted.service import ChordService

__all__ = ["CliCase", "Ended"]


class Ended(NamedTuple):
    """What became of a command."""

    code: ExitCode
    out: bytes
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it printed, as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def text(self) -> str:
        """What it printed."""
        return self.out.decode("utf-8")


class CliCase(TestCase):
    """Commands, and rings for them."""

    def setUp(self) -> None:
        """No setting of whoever runs the tests."""
        for name in ("CHORD_PEER", "CHORD_TLS", "COLUMNS", "NO_COLOR"):
            if name in os.environ:
                self.addCleanup(os.environ.__setitem__, name, os.environ.pop(name))

    async def node(self, join: list[tuple[str, int]] | None = None, **how: Any) -> ChordService:
        """One more member; the first founds."""
        service = ChordService(reactor, "127.0.0.1", 0, join=join or [], **how)
        service.startService()
        self.addCleanup(service.stopService)
        await service.when_ready()
        return service

    async def ring(self, number: int, **how: Any) -> list[ChordService]:
        """So many members."""
        nodes = [await self.node(**how)]
        for _ in range(number - 1):
            nodes.append(await self.node([nodes[0].out_addr], **how))
        return nodes

    @staticmethod
    def peer(node: ChordService) -> str:
        """Its address, for a command line."""
        return show_address(*node.out_addr)

    def begin(self, options: argparse.Namespace, stdin: int, stdout: int) -> Deferred[ExitCode]:
        """Run a command."""
        return ensureDeferred(options.run.begin(reactor, options, stdin, stdout))

    async def chordctl(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run a command to its end, with files as standard input and output."""
        errors = io.StringIO()
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
            given.write(stdin)
            given.seek(0)
            with redirect_stderr(errors):
                try:
                    options = parse(arguments)
                    code = await self.begin(options, given.fileno(), printed.fileno())
                except (CommandError, ChordError) as error:
                    code = code_of(error)
                    print(error, file=errors)
                except SystemExit as ended:
                    code = ExitCode(ended.code)
            printed.seek(0)
            return Ended(code, printed.read(), errors.getvalue())
