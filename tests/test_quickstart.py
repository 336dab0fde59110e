"""The first ten minutes, command by command, as ``docs/quickstart.rst`` shows them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time

from .test_docs import Running, _free_port, blocks, free_ports
from .test_plugin import PATIENCE, TWISTD


class TestQuickstart(Running):
    """Three nodes, a look, a crash, a return, and a program."""

    def setUp(self) -> None:
        """Take the page apart, with ports of our own."""
        super().setUp()
        found = (*blocks("quickstart.rst", "console"), *blocks("quickstart.rst", "python"))
        text = "\x00".join(found).replace("8080", str(_free_port()))
        *console, self.program = free_ports(text).split("\x00")
        commands = [shlex.split(line) for block in console for line in block.splitlines()]
        self.nodes = [words[1:] for words in commands if words[0].endswith("twistd")]
        self.asked = iter([words[1:] for words in commands if words[0].endswith("chordctl")])
        (self.killed,) = [words[-1] for words in commands if words[0] == "pkill"]
        self.peer = f"127.0.0.1:{self.nodes[0][self.nodes[0].index('--port') + 1]}"

    def chordctl(self, *arguments: str, code: int = 0) -> str:
        """Run one command: the next one of the page, unless one is given."""
        words = arguments or next(self.asked)
        peer = () if "--peer" in words else ("--peer", self.peer)
        command = self.begin(sys.executable, "-m", "py2p_twisted.cli", *peer, *words)
        printed, _ = command.communicate()
        self.assertEqual(command.returncode, code, printed)
        return printed

    def until(self, process: subprocess.Popen[str], text: str) -> None:
        """Read the log of a node until there is that text."""
        assert process.stdout is not None
        for line in process.stdout:
            if text in line:
                return
        self.fail(f"it never said {text!r}")

    def all_is_well(self) -> str:
        """Wait for the end of what a change of members sets in motion; the ring as drawn.

        It has to be said twice: who has not heard of a new node yet misses nobody in its groups.
        """
        end = time.monotonic() + PATIENCE
        said = 0
        while said < 2:
            drawn = self.chordctl("ring")
            said = said + 1 if "All is well." in drawn else 0
            self.assertLess(time.monotonic(), end, drawn)
        return drawn

    def test_the_page(self) -> None:
        """From the top to the bottom."""
        first, second, third, again = self.nodes
        with self.daemon(*first, until="Founded ring"):
            victim = self.begin(*TWISTD, *second)
            self.until(victim, "Joined ring")
            with self.daemon(*third, until="Joined ring"):
                self.chordctl()
                self.assertEqual(self.chordctl(), "hello")
                self.chordctl()
                self.assertIn("3 nodes", self.all_is_well())

                self.assertIn(self.killed, " ".join(second))
                victim.kill()
                self.assertEqual(self.chordctl(), "hello")
                self.chordctl()
                self.assertIn("start it again", self.chordctl(code=1))
                with self.daemon(*again, until="Back in ring"):
                    self.all_is_well()
                    printed = self.run_script(self.program).splitlines()
        shown = re.findall(r"print\(.+\) +# ([^:\n]+)", self.program)
        self.assertEqual(printed, shown)
        self.assertIsNone(next(self.asked, None))
