"""chordctl as a process, against a ring of processes: what only shows there.

Exit codes, one line instead of a traceback, pipes, terminals, Ctrl-C; each started as a user does.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .processes import NodeProcess
from .test_plugin import environment

PATIENCE = 30.0


class TestProcess(SynchronousTestCase):
    """All checks share one ring of three."""

    def test_against_a_ring(self) -> None:
        """Start it, check, end it."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.nodes = [NodeProcess(folder, "node 1")]
        self.addCleanup(self.nodes[0].end)
        self.wait_for(self.nodes[0])
        host, port = self.nodes[0].address
        self.peer = f"{host}:{port}"
        for number in (2, 3):
            node = NodeProcess(folder, f"node {number}", "--join", self.peer)
            self.addCleanup(node.end)
            self.nodes.append(node)
        for node in self.nodes:
            self.wait_for(node)
        self.check_there_and_back()
        self.check_a_look()
        self.check_terminal()
        self.check_interrupted()
        self.check_reader_that_goes_away()

    @staticmethod
    def wait_for(node: NodeProcess) -> None:
        """Until it is in the ring."""
        until = time.monotonic() + PATIENCE
        while not node.in_ring:
            if time.monotonic() > until or node.exit_code is not None:
                raise AssertionError(node.log)
            time.sleep(0.02)

    def command(self, *arguments: str) -> list[str]:
        """What a user types."""
        return [sys.executable, "-m", "py2p_twisted.cli", *arguments]

    def run_it(
        self, *arguments: str, stdin: bytes = b"", peer: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            env={**environment(), "CHORD_PEER": peer or self.peer},
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def check_there_and_back(self) -> None:
        """Binary values through pipes; codes for all that can happen."""
        value = bytes(range(256))
        self.assertEqual(self.run_it("set", "key", stdin=value).returncode, 0)
        done = self.run_it("get", "key")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, value, b""))
        done = self.run_it("get", "--json", "absent")
        self.assertEqual((done.returncode, done.stderr), (3, b""))
        self.assertEqual(json.loads(done.stdout), {"key": "absent", "found": False})
        for arguments, code in (
            (("get", "absent"), 3),
            (("get",), 2),
            (("cas", "key", "--delete"), 2),
            (("get", "k" * 5000), 1),
            (("import", "no such file"), 1),
        ):
            done = self.run_it(*arguments)
            self.assertEqual((done.returncode, done.stdout), (code, b""))
            self.assertRegex(done.stderr, rb"\Achordctl[^\n]*\n\Z")
        done = self.run_it("status", peer="127.0.0.1:1")
        self.assertEqual((done.returncode, done.stdout), (4, b""))
        self.assertRegex(done.stderr, rb"\Achordctl: 127.0.0.1:1 refused [^\n]*\n\Z")

    def check_a_look(self) -> None:
        """The picture without colours in a pipe; the doctor is content."""
        done = self.run_it("ring")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertNotIn(b"\x1b", done.stdout)
        for node in self.nodes:
            self.assertIn(f"{node.address[0]}:{node.address[1]}", done.stdout.decode())
        done = self.run_it("doctor", "--json")
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual({f["what"] for f in findings if f["level"] != "good"}, {"copies"})
        self.assertEqual(done.returncode, 0)

    def check_terminal(self) -> None:
        """Colours, a bar that is taken away, and no key that steers the terminal."""
        self.run_it("set", "evil\x1b[2J", "va\x1b[2Jlue")
        for arguments, there in (
            (("keys", "--prefix", "evil"), rb"evil\x1b[2J"),
            (("get", "evil\x1b[2J"), rb"va\x1b[2Jlue"),
        ):
            text, _ = self.on_terminal(*arguments)
            self.assertIn(there, text)
            self.assertNotIn(b"\x1b[2J", text)
        text, code = self.on_terminal("ring")
        self.assertIn(b"\x1b[1;36m", text)
        self.assertEqual(code, 0)
        text, code = self.on_terminal("bench", "--seconds", "1", "--keys", "10")
        self.assertIn(b"Measuring set", text)
        self.assertIn(b"\r\x1b[K", text)
        self.assertEqual(code, 0)

    def on_terminal(self, *arguments: str) -> tuple[bytes, int]:
        """Run it on a terminal of its own: what it shows, and its code."""
        main, other = pty.openpty()
        process = subprocess.Popen(
            self.command(*arguments),
            env={**environment(), "CHORD_PEER": self.peer, "TERM": "xterm", "LANG": "C.UTF-8"},
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)
        text = b""
        try:
            while data := os.read(main, 65536):
                text += data
        except OSError:  # Linux: the other end is closed
            pass
        finally:
            os.close(main)
            code = process.wait(PATIENCE)
        return text, code

    def check_interrupted(self) -> None:
        """Ctrl-C ends a watch, SIGTERM an import that waits, each with its code and no word."""
        for arguments, number, code in (
            (("watch", "--prefix", "", "--initial"), signal.SIGINT, 130),
            (("import",), signal.SIGTERM, 143),
        ):
            self.run_it("set", "there", "value")
            process = subprocess.Popen(
                self.command(*arguments),
                env={**environment(), "CHORD_PEER": self.peer},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            if arguments[0] == "watch":
                line = process.stdout.readline()
                self.assertTrue(line)
            else:
                self.until_it_catches(process.pid, number)
            process.send_signal(number)
            _, errors = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, errors), (code, b""))

    def until_it_catches(self, pid: int, number: signal.Signals) -> None:
        """Wait until a process would not simply die of a signal any more."""
        status = Path(f"/proc/{pid}/status")
        if not status.exists():  # no Linux: it should be up by then
            time.sleep(2)
            return
        end = time.monotonic() + PATIENCE
        while not int(re.findall(r"^SigCgt:\s+(\w+)$", status.read_text(), re.M)[0], 16) & (
            1 << number - 1
        ):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def check_reader_that_goes_away(self) -> None:
        """``chordctl keys | head -1``."""
        lines = b"".join(b'{"key": "many/%d", "value": ""}\n' % number for number in range(20_000))
        self.assertEqual(self.run_it("import", "--loose", stdin=lines).returncode, 0)
        process = subprocess.Popen(
            self.command("keys"),
            env={**environment(), "CHORD_PEER": self.peer},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        self.assertTrue(process.stdout.readline())
        process.stdout.close()
        self.assertEqual(process.wait(PATIENCE), 141)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()
