"""``twistd chord`` and ``twist chord`` as real processes in an empty folder, off the wheel.

Where this interpreter has no ``py2p_twisted`` installed, PYTHONPATH leads them to the checkout.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]
TWISTD = [str(Path(sys.executable).parent / "twistd")]
TWIST = [sys.executable, "-m", "twisted"]

#: Seconds after which a process is taken for hanging.
PATIENCE = 30.0

#: What tap logs once the reactor runs, on loopback.
RUNNING = "Only this machine can connect."


@cache
def environment() -> dict[str, str]:
    """What a user's shell would have, PYTHONPATH only if there is no installed package to try."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as empty:
        tried = subprocess.run(
            [sys.executable, "-c", "import py2p_twisted"],
            cwd=empty,
            env=plain,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
        )
    return plain if tried.returncode == 0 else {**plain, "PYTHONPATH": str(ROOT)}


class PluginTests(SynchronousTestCase):
    """The command, as a user types it."""

    def setUp(self) -> None:
        """Go to an empty folder of our own."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """Start a process; it is killed if the test or its patience ends before it does."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.addCleanup(guard.cancel)
        return process

    def run_all(self, *commands: list[str]) -> Iterator[tuple[int, str, str]]:
        """Run processes side by side: the exit code, stdout and stderr of each."""
        for process in [self.begin(*command) for command in commands]:
            stdout, stderr = process.communicate()
            yield process.returncode, stdout, stderr

    def eventually(self, holds: str, path: Path) -> str:
        """Wait until a file contains a text; return the whole of it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if path.exists() and holds in (text := path.read_text()):
                return text
            time.sleep(0.02)
        self.fail(f"{holds!r} did not appear in {path.name}")

    @contextmanager
    def taken_port(self) -> Iterator[str]:
        """A port on loopback that somebody else listens on."""
        with socket.create_server(("127.0.0.1", 0)) as somebody:
            yield str(somebody.getsockname()[1])

    def test_listed(self) -> None:
        """Both commands know ``chord``."""
        for code, stdout, _ in self.run_all([*TWISTD, "--help"], [*TWIST, "--help"]):
            self.assertEqual(code, 0)
            self.assertRegex(stdout, r"\n    chord +\w")

    def test_help_and_version(self) -> None:
        """``--help`` explains every option, ``--version`` tells ours."""
        helped, version = self.run_all([*TWISTD, "chord", "--help"], [*TWIST, "chord", "--version"])
        self.assertEqual((helped[0], helped[2]), (0, ""))
        names = "port", "interface", "join", "k", "replicas", "subnet", "encryption", "out-addr"
        for name in (*names, "tls"):
            self.assertRegex(helped[1], rf"--{name}= +\w")
        self.assertEqual((version[0], version[2]), (0, ""))
        self.assertRegex(version[1], r"^py2p_twisted \d+\.\d+")

    def test_wrong_value(self) -> None:
        """One line on stderr and exit code 1, with both commands, for what each of them checks."""
        wrong = ["chord", "--port", "http"]
        unknown = ["chord", "--prot", "4444"]
        for code, stdout, stderr in self.run_all(
            [*TWISTD, "-n", *wrong], [*TWISTD, *unknown], [*TWIST, *wrong], [*TWIST, *unknown]
        ):
            self.assertEqual((code, stdout), (1, ""))
            self.assertRegex(stderr, r"\Achord: [^\n]*--p[^\n]*\n\Z")

    def test_no_certificates(self) -> None:
        """A folder without certificates is found out before the daemon forks, in one line too."""
        ((code, stdout, stderr),) = self.run_all([*TWISTD, "chord", "--tls", "nowhere"])
        self.assertEqual((code, stdout), (1, ""))
        self.assertRegex(stderr, r"\Achord: [^\n]*ca\.pem[^\n]*\n\Z")

    def test_port_in_use(self) -> None:
        """``twistd -n`` and ``twist``: one line on stderr, no traceback, exit code 1."""
        with self.taken_port() as port:
            node = ["chord", "--port", port]
            foreground, twist = self.run_all([*TWISTD, "-n", *node], [*TWIST, *node])
        expected = f"chord: port {port} on 127.0.0.1 is in use: choose another --port\n"
        self.assertEqual((foreground[0], foreground[2]), (1, expected))
        self.assertIn(f"port {port} on 127.0.0.1 is in use", foreground[1])
        self.assertNotIn("Traceback", foreground[1])
        self.assertEqual((twist[0], twist[2]), (1, expected))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_daemon_port_in_use(self) -> None:
        """The parent of a daemon says it and exits with 1; the log says it without traceback."""
        with self.taken_port() as port:
            ((code, stdout, stderr),) = self.run_all([*TWISTD, "chord", "--port", port])
        expected = f"port {port} on 127.0.0.1 is in use: choose another --port"
        self.assertEqual((code, stdout), (1, ""))
        self.assertIn(expected, stderr.splitlines()[0])
        log = self.eventually(expected, self.folder / "twistd.log")
        self.assertNotIn("Traceback", log)

    def stop(self, process: subprocess.Popen[str], number: signal.Signals) -> list[str]:
        """Send a signal once the node runs; return all it printed."""
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if RUNNING in line:
                process.send_signal(number)
        _, stderr = process.communicate()
        # Twisted leaves cleanly, then dies by the signal, so that shells and supervisors know.
        self.assertEqual((process.returncode, stderr), (-number, ""), lines)
        return lines

    def test_starts_and_stops(self) -> None:
        """In the foreground: it runs, and leaves in good order on SIGTERM and SIGINT."""
        node = ["chord", "--port", "0"]
        twistd = self.begin(*TWISTD, "-n", *node)
        twist = self.begin(*TWIST, "--log-format=text", *node)
        lines = self.stop(twistd, signal.SIGTERM)
        self.assertIn("Server Shut Down.", lines[-1])
        self.assertNotIn("Traceback", "".join(lines))
        lines = self.stop(twist, signal.SIGINT)
        self.assertIn("Main loop terminated.", lines[-1])
        self.assertNotIn("Traceback", "".join(lines))
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_daemon_starts_and_stops(self) -> None:
        """As a daemon: the command returns 0, and SIGTERM ends it in good order."""
        ((code, stdout, stderr),) = self.run_all([*TWISTD, "chord", "--port", "0"])
        self.assertEqual((code, stdout, stderr), (0, "", ""))
        pid = int((self.folder / "twistd.pid").read_text())
        try:
            self.eventually(RUNNING, self.folder / "twistd.log")
        finally:
            os.kill(pid, signal.SIGTERM)
        log = self.eventually("Server Shut Down.", self.folder / "twistd.log")
        self.assertNotIn("Traceback", log)
        self.assertFalse((self.folder / "twistd.pid").exists())
