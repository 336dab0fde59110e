"""Where the time goes: the client and one node under cProfile, while many operations are in flight.

``python -m benchmarks.profiles FILE ...`` is a ``twistd`` that profiles itself from SIGUSR1 to
SIGUSR2, and then writes the statistics to the file.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from cProfile import Profile
from io import StringIO
from pathlib import Path
from pstats import Stats
from typing import Any

from twisted.internet.task import deferLater

from .measure import Bench, Operation, Samples, in_flight
from .processes import CannotRun, Processes

__all__ = ["profiled", "profiles"]

_LINES = 15
#: Seconds that a node may take to write its statistics.
_PATIENCE = 10.0


def profiled(processes: Processes) -> Callable[[str, Sequence[str]], int]:
    """Starts nodes as :meth:`Processes.twistd` does, but such as can be profiled."""

    def start(name: str, arguments: Sequence[str]) -> int:
        module = ["-m", "benchmarks.profiles", str(_file(processes, name))]
        return processes.start(name, [*module, "-n", "--pidfile=", *arguments])

    return start


def _file(processes: Processes, name: str) -> Path:
    return processes.folder / f"{name}.profile"


async def profiles(
    reactor: Any,
    processes: Processes,
    node: tuple[str, int],
    operations: Mapping[str, Operation],
    count: int,
    prefix: str,
) -> str:
    """Run each operation so often, 64 in flight; returns the top lines of client and node.

    :param node: name and process id of the node that is looked at.
    :param prefix: the statistics go to ``PREFIX.client-get`` and so on, for :mod:`pstats`.
    """
    name, pid = node
    file = _file(processes, name)
    texts = []
    for kind, operation in operations.items():
        bench = Bench(reactor, Samples(), [pid])
        await in_flight(bench, kind, operation, count // 10)  # warms up
        profile = Profile()
        os.kill(pid, signal.SIGUSR1)
        profile.enable()
        try:
            await in_flight(bench, kind, operation, count)
        finally:
            profile.disable()
        os.kill(pid, signal.SIGUSR2)
        end = reactor.seconds() + _PATIENCE
        while not file.exists():
            processes.check()
            if reactor.seconds() > end:
                raise CannotRun(f"{name} did not write its profile")
            await deferLater(reactor, 0.05)
        profile.dump_stats(f"{prefix}.client-{kind}")
        Path(f"{prefix}.node-{kind}").write_bytes(file.read_bytes())
        file.unlink()
        texts += [_top(f"{prefix}.{where}-{kind}") for where in ("client", "node")]
    return "\n".join(texts)


def _top(path: str) -> str:
    """The lines with the most time of their own."""
    out = StringIO()
    Stats(path, stream=out).sort_stats("tottime").print_stats(_LINES)
    lines = out.getvalue().splitlines()
    head = next(at for at, line in enumerate(lines) if line.lstrip().startswith("ncalls"))
    return "\n".join([f"{path}: {lines[2].strip()}", *map(_shorter, lines[head:])])


def _shorter(line: str) -> str:
    """The last two parts of a path are enough."""
    figures, slash, path = line.partition("/")
    return figures + "/".join(path.split("/")[-2:]) if slash else line


def _node(path: str) -> None:
    """Be a ``twistd`` that profiles itself when told so."""
    profile = Profile()

    def begin(*_: object) -> None:
        profile.enable()

    def end(*_: object) -> None:
        profile.disable()
        profile.dump_stats(f"{path}.part")
        profile.clear()
        os.replace(f"{path}.part", path)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    _node(sys.argv.pop(1))
