"""The nodes of a run: each a ``twistd`` process, killed, frozen and started again (test support).

Owns the processes: whatever becomes of the run, none outlives it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from random import SystemRandom
from types import TracebackType

from ..processes import NodeProcess, eventually

__all__ = ["HOST", "Address", "ClusterNode", "Guard", "Life", "quiet_ports"]

HOST = "127.0.0.1"
Address = tuple[str, int]

#: Seconds within which a node that was started is in the ring.
_JOINED_WITHIN = 60.0
#: Seconds within which a node that was told to leave has ended.
_LEFT_WITHIN = 45.0


class Life(NodeProcess):
    """One process of a node."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid


class Guard:
    """A context manager: no process that it watches outlives it, even if this process is killed.

    A shell reads their ids from a pipe; should the pipe end by itself, it kills them.
    """

    def __enter__(self) -> Guard:
        self._lives: list[Life] = []
        script = 'while read -r pid; do pids="$pids $pid"; done; kill -KILL $pids'
        self._shell = subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def watch(self, life: Life) -> None:
        """One more."""
        self._lives.append(life)
        assert self._shell.stdin is not None
        self._shell.stdin.write(b"%d\n" % life.pid)
        self._shell.stdin.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for life in self._lives:
            life.end()
        # Their ids may be other processes' soon: the shell must not kill those.
        self._shell.kill()
        self._shell.communicate()


class ClusterNode:
    """One place in the ring: at most one process at a time, always at the same port.

    :param options: what every node's command line has.
    :param announced: the port that others dial: its own, or its proxy's.
    :param durable: does it keep its data when its process ends?
    :ivar address: what others dial.
    """

    def __init__(
        self,
        folder: Path,
        guard: Guard,
        options: list[str],
        name: str,
        port: int,
        announced: int,
        *,
        durable: bool = False,
    ) -> None:
        self.name = name
        self.data = folder / f"{name}.data" if durable else None
        self.port = port
        self.address: Address = (HOST, announced)
        self.lives: list[Life] = []
        self.wanted = False  # it is to run: nobody killed it or told it to leave
        self._folder = folder
        self._guard = guard
        self._options = options

    @property
    def life(self) -> Life:
        """The present process, or the last one."""
        return self.lives[-1]

    def start(self, through: Iterable[Address]) -> None:
        """Start its process.

        :param through: members to join through; none: it founds, or comes back to its ring.
        """
        arguments = ["--port", str(self.port), *self._options]
        if self.data is not None:
            arguments += ["--data", str(self.data)]
        if self.address[1] != self.port:
            arguments += ["--out-addr", f"{HOST}:{self.address[1]}"]
        for host, port in through:
            arguments += ["--join", f"{host}:{port}"]
        name = f"{self.name} life {len(self.lives) + 1}"
        self.lives.append(Life(self._folder, name, *arguments))
        self._guard.watch(self.life)
        self.wanted = True

    async def joined(self) -> None:
        """Wait until the present process is in the ring.

        :raises AssertionError: if it ends, or that takes too long.
        """

        def look() -> bool:
            assert self.life.exit_code is None, f"{self.life.name} ended by itself"
            return self.life.in_ring

        await eventually(look, f"{self.life.name} in the ring", _JOINED_WITHIN)

    def kill(self) -> None:
        """SIGKILL; :meth:`end` reaps it."""
        self.wanted = False
        self.life.send(signal.SIGKILL)

    def end(self) -> None:
        """Whatever it does, it is gone afterwards."""
        self.wanted = False
        if self.lives:
            self.life.end()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.life.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.life.send(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM; :meth:`ended` waits for what comes of it."""
        self.wanted = False
        self.life.send(signal.SIGTERM)

    async def ended(self) -> None:
        """Wait until the present process has ended.

        :raises AssertionError: if it goes on.
        """
        await eventually(
            lambda: self.life.exit_code is not None, f"the end of {self.life.name}", _LEFT_WITHIN
        )

    async def leave(self) -> bool:
        """SIGTERM, and wait for its end; did it hand over all that it kept?

        :raises AssertionError: if it goes on.
        """
        self.terminate()
        await self.ended()
        return self.life.says("Left ring") and not self.life.says("without handing over")


def quiet_ports(count: int) -> list[int]:
    """Free TCP ports that no outgoing connection is given, so that they stay free.

    A node is started again at its old port, seconds after it was killed.
    """
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(path.read_text().split()[0]) if path.exists() else 32768
    ports: list[int] = []
    for port in SystemRandom().sample(range(max(1024, lowest - 16384), lowest), 1024):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError(f"fewer than {count} ports are free below {lowest}")
