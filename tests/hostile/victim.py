"""The node under attack, and what is measured meanwhile (test support)."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from py2p_twisted.node.core import user_key
from py2p_twisted.table.group import FIRST_EPOCH
from py2p_twisted.table.proposer import Write
from py2p_twisted.wire.messages import WriteOne, Written

from ..processes import NodeProcess
from ..test_plugin import ROOT, environment
from .raw import PATIENCE, Address, Raw, hello

__all__ = ["Measured", "Victim", "wait_until"]

#: What a node that is attacked may say; everything else is a complaint of its own.
ALLOWED = re.compile(
    r"starting up\.|reactor class|Chord starting on|Founded ring|Only this machine can connect"
    r"|Keeps everything in memory|is alone in its ring|A peer was refused"
    r"|is refused again and again|Many hosts are refused|: dropped$|Neighbour (lost|left)"
)


def wait_until(holds: object, what: str, seconds: float = PATIENCE) -> None:
    """Look again and again until it holds.

    :raises AssertionError: if it does not in time.
    """
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


@dataclass
class Measured:
    """What happened to the node and its client during one attack.

    :ivar rss: resident memory of the node in MiB, the highest.
    :ivar grown: how much of that was not there before.
    :ivar times: of the client's operations in milliseconds, in ascending order.
    :ivar stalls: the same, without what the machine made them wait for a processor.
    :ivar lines: what the node logged.
    """

    rss: float = 0.0
    grown: float = 0.0
    times: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def strange(self) -> list[str]:
        """The lines that should not be there."""
        return [line for line in self.lines if not ALLOWED.search(line)]


class Victim:
    """A real node and, beside the attack, a client of it; a context manager.

    :param client: is there to be one?
    :param tls: the folder with the certificate of both, empty for plain text.
    """

    def __init__(self, folder: Path, *, client: bool = True, tls: str = "") -> None:
        self._folder = folder
        self._tls = tls
        self._with_client = client
        self._attacks = 0
        self._client: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Victim:
        tls = ["--tls", self._tls] if self._tls else []
        self.node = NodeProcess(self._folder, "victim", *tls)
        try:
            wait_until(lambda: self.node.in_ring, "the node founds its ring")
            self.address: Address = self.node.address
            if not self._tls:
                self._meet()
            if self._with_client:
                self._begin_client()
        except BaseException as error:
            print(self.node.log)
            self.__exit__(type(error), error, None)
            raise
        return self

    def _meet(self) -> None:
        with Raw(self.address) as raw:
            self.said = raw.meet(hello(999))
            # A node without a key would give its ring up for that of anybody who has one.
            kept = Write(user_key(b"kept"), b"x", b"operator")
            assert isinstance(raw.ask(WriteOne(FIRST_EPOCH, kept)), Written)

    def _begin_client(self) -> None:
        self._output = self._folder / "client.txt"
        arguments = [*map(str, (*self.address, self.pid)), self._tls]
        with self._output.open("wb") as output:
            self._client = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.bystander", *arguments],
                cwd=ROOT,
                env={**environment(), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(lambda: len(self._operations()) > 20, "the client works")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None:
            assert self._client.stdin is not None
            self._client.stdin.close()
            try:
                self._client.wait(5)
            except subprocess.TimeoutExpired:
                self._client.kill()
                self._client.wait()
        self.node.end()

    def connect(self, origin: str = "", receive_buffer: int = 0) -> Raw:
        """A connection to it, from this attack's own address if no other is given."""
        return Raw(self.address, origin or f"127.0.0.{self._attacks + 1}", receive_buffer)

    # -- measuring

    @property
    def pid(self) -> int:
        """Of the node."""
        return self.node._process.pid

    def _status(self, name: str) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) / 1024

    @property
    def rss(self) -> float:
        """Resident memory of the node in MiB, now."""
        return self._status("VmRSS")

    @property
    def descriptors(self) -> int:
        """How many files and sockets the node has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def _operations(self) -> list[tuple[float, float, float]]:
        lines = self._output.read_text().splitlines()
        assert all(re.fullmatch(r"[\d. -]+", line) for line in lines[:-1]), "\n".join(lines[-40:])
        rows = [line.split() for line in lines if line.count(" ") == 2]
        return [(float(began), float(took), float(late)) for began, took, late in rows[:-1]]

    def begin(self) -> None:
        """An attack begins: it comes from another address than those before."""
        self._attacks += 1
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # forget the highest
        self._before = self.rss
        self._lines = len(self.node.log.splitlines())
        self._began = time.monotonic()

    def end(self) -> Measured:
        """It is over, and the client and the node still work.

        :raises AssertionError: if one does not.
        """
        assert self.node.exit_code is None, self.node.log[-3000:]
        if self._client is not None:
            count = len(self._operations())
            wait_until(lambda: len(self._operations()) > count + 5, "the client goes on")
        rss = self._status("VmHWM")
        measured = Measured(rss, rss - self._before)
        measured.lines = self.node.log.splitlines()[self._lines :]
        if self._client is not None:
            during = [
                (took, took - waited)
                for began, took, waited in self._operations()
                if began + took / 1000 > self._began
            ]
            measured.times, measured.stalls = (sorted(some) for some in zip(*during, strict=True))
        return measured
