"""Nodes as processes of their own, started as a user starts them (test support).

Owns their folder, their logs and their end: whatever becomes of a test, no process outlives it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from .test_plugin import environment

__all__ = ["NodeProcess", "Processes", "eventually", "pause", "processes"]

#: Seconds after which something that is bound to happen is taken for failed.
PATIENCE = 30.0

TWISTD = str(Path(sys.executable).parent / "twistd")


class NodeProcess:
    """One ``twistd -n chord``.

    :param arguments: of ``chord``; the port is a free one, and all is in memory, unless they name a
        folder for its data.
    """

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        if "--data" not in arguments:
            arguments = ("--memory", *arguments)
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [TWISTD, "-n", "--pidfile=", "chord", "--port", "0", *arguments],
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """All that it said so far."""
        return self._log.read_text(errors="replace")

    @property
    def address(self) -> tuple[str, int]:
        """Where it can be dialled; only once it is in a ring."""
        found = re.search(r"(?:Founded|Joined|Back in) ring .*? at (\S+):(\d+)[.,]", self.log)
        assert found is not None, f"{self.name} is in no ring yet"
        return found[1], int(found[2])

    @property
    def in_ring(self) -> bool:
        """Did it found or join a ring, or come back to its own?"""
        return any(self.says(f"{how} ring") for how in ("Founded", "Joined", "Back in"))

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def says(self, *words: str) -> bool:
        """Is there a line in its log with all these words?"""
        return any(all(word in line for word in words) for line in self.log.splitlines())

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill it, whatever it does, and wait for that."""
        self._process.kill()
        self._process.wait(PATIENCE)


class Processes:
    """The processes of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[NodeProcess] = []

    def start(self, *arguments: str) -> NodeProcess:
        """Start one more."""
        process = NodeProcess(self.folder, f"node {len(self.all) + 1}", *arguments)
        self.all.append(process)
        return process

    async def joined(self, *arguments: str, number: int = 1) -> list[NodeProcess]:
        """Start so many at once; all are in the ring when it returns."""
        started = [self.start(*arguments) for _ in range(number)]
        for node in started:
            await eventually(partial(getattr, node, "in_ring"), node.name)
        return started


@contextmanager
def processes(folder: str) -> Iterator[Processes]:
    """Processes that are killed in the end; their logs are printed if something goes wrong."""
    path = Path(folder).absolute()
    path.mkdir()
    started = Processes(path)
    try:
        yield started
    except BaseException:
        for node in started.all:
            print(f"\n----- {node.name}, exit code {node.exit_code}\n{node.log}")
        raise
    finally:
        for node in started.all:
            node.end()


def pause(seconds: float) -> Deferred[None]:
    """Let the reactor run for so long."""
    from twisted.internet import reactor

    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    return over


async def eventually(holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> float:
    """Wait until it holds; how long it took.

    :param holds: may return a Deferred.
    """
    began = time.monotonic()
    while True:
        result = holds()
        if isinstance(result, Deferred):
            result = await result
        if result:
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise AssertionError(f"{what}: it did not come to pass in {seconds} s")
        await pause(0.05)
