"""The processes of one run: started together, looked at through ``/proc``, and never left behind.

Owns every child process.  Never knows what they do.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["CannotRun", "Processes", "cpu_seconds", "free_ports", "memory"]

_ROOT = Path(__file__).resolve().parents[1]
_TWISTD = "from twisted.scripts.twistd import run; run()"
_TICKS = os.sysconf("SC_CLK_TCK")


class CannotRun(Exception):
    """The benchmark cannot go on; its text says why."""


class Processes:
    """A context manager: all processes started in it, and their folder, are gone after it.

    They form a process group with a guard, a shell that waits for the end of a pipe and then kills
    the group.  The pipe ends with this process, even if that is killed.
    """

    def __enter__(self) -> Processes:
        self.folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read line; rm -rf "$0"; kill -KILL 0', str(self.folder)],
            stdin=subprocess.PIPE,
            start_new_session=False,
            preexec_fn=os.setpgrp,
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._killed: list[subprocess.Popen[bytes]] = []
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
        for process in [*self._running.values(), *self._killed]:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, name: str, arguments: Sequence[str]) -> int:
        """Run Python with these arguments; returns the process id.

        What it prints goes to a file that :meth:`complain` quotes.
        """
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        group = self._guard.pid
        with open(self.folder / f"{name}.out", "wb") as output:
            self._running[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: os.setpgid(0, group),
            )
        return self._running[name].pid

    def twistd(self, name: str, arguments: Sequence[str]) -> int:
        """Run ``twistd -n`` with these arguments, as :meth:`start`."""
        return self.start(name, ["-c", _TWISTD, "-n", "--pidfile=", *arguments])

    def stop(self, names: Iterable[str]) -> None:
        """Kill those of these that run, and wait until they are gone."""
        stopping = [self._running.pop(name) for name in list(names) if name in self._running]
        for process in stopping:
            process.kill()
        for process in stopping:
            process.wait()

    def kill(self, name: str) -> None:
        """Kill one as ``kill -9`` does; what is measured meanwhile does not wait for its end."""
        process = self._running.pop(name)
        process.kill()
        self._killed.append(process)

    def freeze(self, name: str) -> None:
        """SIGSTOP: the process answers nothing, and its connections stay."""
        self._running[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT: it goes on."""
        self._running[name].send_signal(signal.SIGCONT)

    def check(self) -> None:
        """Do all still run?

        :raises CannotRun: with the last lines of one that does not.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise CannotRun(f"{name} ended with code {process.returncode}\n{self.output(name)}")

    def running(self, name: str) -> bool:
        """Does it run?  One that ended is forgotten; what it printed stays."""
        if name in self._running and self._running[name].poll() is not None:
            del self._running[name]
        return name in self._running

    def output(self, name: str) -> str:
        """The last lines that a process printed."""
        text = (self.folder / f"{name}.out").read_text(errors="replace")
        return "\n".join(text.splitlines()[-10:])


def free_ports(count: int) -> list[int]:
    """TCP ports on which nobody listens on 127.0.0.1."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes used so far, together; of Twisted's thread."""
    return sum(map(_cpu_seconds, pids))


def _cpu_seconds(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:  # a kernel without it: in steps of 10 ms
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise CannotRun(f"process {pid} is gone")
