"""``twistd chord`` and ``twist chord`` as real processes in an empty folder, off the wheel.

Where this interpreter has no ``py2p_twisted`` installed, PYTHONPATH leads them to the checkout.
"""

from __future__ import annotations

import os
import re
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


class PluginCase(SynchronousTestCase):
    """Processes in a folder of their own."""

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

    def stop(
        self,
        process: subprocess.Popen[str],
        number: signal.Signals = signal.SIGTERM,
        until: str = RUNNING,
    ) -> list[str]:
        """Send a signal once it says that; return all it printed."""
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until in line:
                process.send_signal(number)
        _, stderr = process.communicate()
        # Twisted leaves cleanly, then dies by the signal, so that shells and supervisors know.
        self.assertEqual((process.returncode, stderr), (-number, ""), lines)
        return lines

    def end_daemon(self, pidfile: Path) -> None:
        """SIGTERM for a daemon, once it runs; it ends in good order."""
        pid = int(pidfile.read_text())
        try:
            self.eventually(RUNNING, self.folder / "twistd.log")
        finally:
            os.kill(pid, signal.SIGTERM)
        log = self.eventually("Server Shut Down.", self.folder / "twistd.log")
        self.assertNotIn("Traceback", log)
        self.assertFalse(pidfile.exists())


class PluginTests(PluginCase):
    """The command, as a user types it."""

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
        for name in (*names, "tls", "data", "sync"):
            self.assertRegex(helped[1], rf"--{name}= +\w")
        for name in ("memory", "leave-on-stop"):
            self.assertRegex(helped[1], rf"--{name} +\w")
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
            node = ["chord", "--memory", "--port", port]
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
            node = ["chord", "--memory", "--port", port]
            ((code, stdout, stderr),) = self.run_all([*TWISTD, *node])
        expected = f"port {port} on 127.0.0.1 is in use: choose another --port"
        self.assertEqual((code, stdout), (1, ""))
        self.assertIn(expected, stderr.splitlines()[0])
        log = self.eventually(expected, self.folder / "twistd.log")
        self.assertNotIn("Traceback", log)

    def test_starts_and_stops(self) -> None:
        """In the foreground: it runs, and leaves in good order on SIGTERM and SIGINT."""
        node = ["chord", "--memory", "--port", "0"]
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
        ((code, stdout, stderr),) = self.run_all([*TWISTD, "chord", "--memory", "--port", "0"])
        self.assertEqual((code, stdout, stderr), (0, "", ""))
        self.end_daemon(self.folder / "twistd.pid")


class DataTests(PluginCase):
    """What a node keeps on the disk, and where."""

    def setUp(self) -> None:
        """A port that nobody else has."""
        super().setUp()
        with self.taken_port() as port:
            self.node = ["chord", "--port", port]
            self.data = self.folder / f"chord-{port}.data"

    def said(self, lines: list[str], *expected: str) -> None:
        """The log has these in this order, and tells of no accident."""
        text = "".join(lines)
        self.assertNotRegex(text, "Traceback|Unhandled")
        at = [text.find(words) for words in expected]
        self.assertTrue(-1 not in at and at == sorted(at), f"{expected} at {at} in\n{text}")

    def test_comes_back(self) -> None:
        """By default its data is in the working directory; stopping is not leaving."""
        path = f"{os.path.realpath(self.data)}/node.sqlite"
        keeps = f"Keeps its data in {path}, with --sync always."
        for came in ("Founded ring", "Back in ring"):
            lines = self.stop(self.begin(*TWISTD, "-n", *self.node))
            self.said(lines, keeps, came, "Stopping: this node keeps its place", "Server Shut Down")
        lines = self.stop(self.begin(*TWIST, "--log-format=text", *self.node), signal.SIGINT)
        self.said(lines, keeps, "Back in ring", "keeps its place", "Main loop terminated.")
        lines = self.stop(self.begin(*TWISTD, "-n", *self.node, "--memory"))
        self.said(lines, "Keeps everything in memory", "Founded ring", "Left ring")
        self.assertEqual(list(self.folder.iterdir()), [self.data])
        self.assertEqual(self.data.stat().st_mode & 0o777, 0o700)

    def test_leaves(self) -> None:
        """--leave-on-stop leaves: a node that is started again joins, as any other."""
        node = [*TWISTD, "-n", "--pidfile=", *self.node]
        keeper = self.begin(*TWISTD, "-n", "--pidfile=", "chord", "--port", "0", "--memory")
        assert keeper.stdout is not None
        log = ""
        while (found := re.search(r"Founded ring .* at (\S+)\.\n", log)) is None:
            line = keeper.stdout.readline()
            self.assertTrue(line, log)
            log += line
        leaver = self.begin(*node, "--leave-on-stop", "--join", found[1])
        self.said(self.stop(leaver, until="Joined ring"), "Joined ring", "Left ring")
        again = self.stop(self.begin(*node), until="Joined ring")  # it knows whom to ask
        self.assertNotIn("Back in ring", "".join(again))

    def test_refused(self) -> None:
        """Data in use, of another network or no data at all: one line on stderr, exit code 1."""
        running = self.begin(*TWISTD, "-n", *self.node, "--sync", "interval")
        assert running.stdout is not None
        lines = []
        while not lines or RUNNING not in lines[-1]:
            lines.append(running.stdout.readline())
            self.assertTrue(lines[-1], lines)
        self.said(lines, "with --sync interval.", "Founded ring")
        foreground = [*TWISTD, "-n", "--pidfile=", *self.node]
        elsewhere = ["chord", "--port", "0", "--data", str(self.data)]
        another = [*TWISTD, "-n", "--pidfile=", *elsewhere]
        daemon = [*TWISTD, "--pidfile=", *elsewhere]
        in_use = f"is in use by process {running.pid}"
        for number, (code, stdout, stderr) in enumerate(
            self.run_all(another, [*TWIST, *elsewhere], daemon)
        ):
            self.assertEqual(code, 1)
            self.assertNotIn("Traceback", stdout)
            if number < 2:
                self.assertRegex(stderr, rf"\Achord: \S+/node\.sqlite {in_use}\. [^\n]*\n\Z")
            else:
                self.assertIn(f"its data {in_use}", stderr.splitlines()[0])
                log = (self.folder / "twistd.log").read_text()
                self.assertIn(in_use, log)
                self.assertNotIn("Traceback", log)
        running.terminate()
        running.communicate()
        odd = self.folder / "odd.sqlite"
        odd.write_bytes(b"no database " * 1000)
        wrong = ([*another, "--k", "7"], [*another, "--subnet", "other"])
        broken = [*another[:-1], str(odd)]
        expected = ("k is '6' there and '7' here", "network is", "no SQLite database")
        for command, words in zip((*wrong, broken), expected, strict=True):
            ((code, _, stderr),) = self.run_all(
                command
            )  # side by side one would lock the other out
            self.assertEqual(code, 1)
            self.assertRegex(stderr, rf"\Achord: [^\n]*{words}[^\n]*\n\Z")
        self.said(self.stop(self.begin(*foreground)), "Back in ring")  # nothing happened to it

    def test_daemon(self) -> None:
        """With --rundir the data is there; what is named on the command line is meant from here."""
        rundir = self.folder / "run"
        rundir.mkdir()
        for more, data in (
            ([], rundir / self.data.name),
            (["--data", "mine"], self.folder / "mine"),
        ):
            (self.folder / "twistd.log").unlink(missing_ok=True)
            command = [*TWISTD, "--rundir", "run", *self.node, *more]
            ((code, stdout, stderr),) = self.run_all(command)
            self.assertEqual((code, stdout, stderr), (0, "", ""))
            self.end_daemon(self.folder / "twistd.pid")
            self.assertTrue((data / "node.sqlite").is_file())
