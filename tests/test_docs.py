"""What README and docs say is what the code does: every example runs, every table is compared.

A page that shows port 4444 gets a free one here, so that nothing collides.
"""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from textwrap import dedent
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted import errors
from py2p_twisted.base import Peer
from py2p_twisted.cli.main import _parser
from py2p_twisted.node.core import user_key
from py2p_twisted.node.node import _OF_MEMBERS
from py2p_twisted.ring.circle import key_identifier, partition_of
from py2p_twisted.settings import Settings
from py2p_twisted.table.digest import MOST_BUCKETS
from py2p_twisted.table.group import (
    FIRST_EPOCH,
    Ballot,
    Base,
    Config,
    Epoch,
    Record,
    Successor,
    written,
)
from py2p_twisted.table.proposer import Condition, Outcome, Write
from py2p_twisted.tap import Options
from py2p_twisted.web import site as web_site
from py2p_twisted.web.events import MOST_VIEWERS
from py2p_twisted.web.metrics import COUNTERS, GAUGES, PREFIX
from py2p_twisted.wire import messages
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import (
    Accept,
    Accepted,
    Answer,
    Ask,
    Difference,
    Differing,
    Hello,
    Message,
    Notify,
    Read,
    Reply,
    Request,
    SomeAccepted,
    SomeDigests,
    Source,
    Told,
    Version,
    Versioned,
    Want,
    WatchPart,
    WriteOne,
    Written,
)
from py2p_twisted.wire.reports import EventReport, GroupsReport, LinkReport, StorageReport
from py2p_twisted.wire.versions import SINCE

from .test_plugin import PATIENCE, TWISTD, environment

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

#: What travels inside messages and has no tag.
SHAPES: dict[str, type] = {
    shape.__name__: shape
    for shape in (
        *(Peer, Epoch, Config, Base, Successor, Ballot, Record, Write),
        *(SomeDigests, Differing, Difference),
        *(LinkReport, GroupsReport, StorageReport, EventReport),
        *(WatchPart, Told),
    )
}

ENUMERATIONS = (Want, Source, Condition, Outcome)

#: The member in the worked examples.
MEMBER = bytes(range(16, 32))

_WORDS = {int: "integer", bytes: "bytes", str: "text", bool: "boolean", NoneType: "nil"}


def read(name: str) -> str:
    """A page of the docs, or the README."""
    return ((ROOT if name == "README.rst" else DOCS) / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a page, dedented."""
    found = re.findall(
        rf"^( *)\.\. code-block:: {language}\n(?:\1 +:.*\n)*\n((?:\1 +.*\n|\n)+)", read(name), re.M
    )
    return [dedent(code).strip("\n") + "\n" for _, code in found]


def logical_lines(code: str) -> list[str]:
    """The commands of a console block; those that end in a backslash go on."""
    return code.replace("\\\n", " ").splitlines()


def section(name: str, title: str) -> str:
    """The text of a page from one title to the next of the same kind."""
    parts = re.split(r"^(.+)\n-{3,}\n", read(name), flags=re.M)
    return parts[parts.index(title) + 1]


def free_ports(text: str) -> str:
    """The same with other ports, free now, below those that the system deals out by itself."""
    for port in ("4444", "4445", "4446"):
        if port in text:
            text = re.sub(rf"\b{port}\b", str(_free_port()), text)
    return text


def _free_port() -> int:
    for port in iter(_candidates.__next__, None):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


_candidates = iter(range(20_000 + (threading.get_native_id() * 50) % 10_000, 32_000))


# -- the code


class Running(SynchronousTestCase):
    """Runs what the pages show, in processes and folders of its own."""

    def setUp(self) -> None:
        """Go to an empty folder."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """Start a process, that is killed if the test or its patience ends first."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**environment(), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        guard = threading.Timer(PATIENCE, process.kill)
        guard.start()
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(guard.cancel)
        return process

    def run_script(self, code: str) -> str:
        """Run a script that must succeed and be silent about errors; what it printed."""
        (self.folder / "script.py").write_text(code, encoding="utf-8")
        process = self.begin(sys.executable, "script.py")
        printed, _ = process.communicate()
        self.assertEqual(process.returncode, 0, printed)
        self.assertNotRegex(printed, "Traceback|Unhandled|ResourceWarning")
        return printed

    @contextmanager
    def daemon(self, *arguments: str, until: str) -> Iterator[None]:
        """Run ``twistd`` until the end of a with block; it must stop in peace."""
        process = self.begin(*TWISTD, *arguments)
        assert process.stdout is not None
        log = ""
        while until not in log:
            line = process.stdout.readline()
            self.assertTrue(line, log)
            log += line
        yield
        process.send_signal(signal.SIGTERM)
        log += process.communicate()[0]
        self.assertIn("Server Shut Down.", log)
        self.assertNotRegex(log, "Traceback|Unhandled")

    def run_chordctl(self, port: str, *words: str) -> str:
        """Run ``chordctl``, which asks the node at that port unless it is told another one."""
        peer = () if "--peer" in words else ("--peer", f"127.0.0.1:{port}")
        process = self.begin(sys.executable, "-m", "py2p_twisted.cli", *peer, *words)
        printed, _ = process.communicate()
        self.assertEqual(process.returncode, 0, printed)
        return printed

    def run_application(self, code: str, key: str, until: str) -> None:
        """Run a .tac file until it logs a line, and read a key that it has written."""
        (self.folder / "node.tac").write_text(code, encoding="utf-8")
        (port,) = re.findall(r'"127\.0\.0\.1", (\d+)', code)
        with self.daemon("-ny", "node.tac", until=until):
            printed = self.run_script(_READER.format(port=port, key=key))
            self.assertNotEqual(printed, "None\n")


class TestReadme(Running):
    """The README's promises."""

    def test_the_two_commands(self) -> None:
        """Set up and run, set up and test: each in one line."""
        lines = [line.strip() for line in read("README.rst").splitlines()]
        setup = "python3 -m venv .venv && .venv/bin/pip install"
        self.assertIn(f"{setup} . && .venv/bin/twistd -n chord --port 4444", lines)
        self.assertIn(f"{setup} '.[test]' && .venv/bin/trial tests", lines)

    def test_first_success(self) -> None:
        """Two daemons; what is written through one is read through the other; both again."""
        text = free_ports("\x00".join((*blocks("README.rst", "console"), *self.scripts())))
        founder, joiner, reader, *rest = text.split("\x00")
        opening = rest[-3]
        first = shlex.split(founder.split("&&")[-1])[1:]
        second = shlex.split(joiner)[1:]
        with self.daemon(*first, until="Founded ring"), self.daemon(*second, until="Joined ring"):
            commands = [shlex.split(line)[1:] for line in reader.splitlines()]
            port = first[first.index("--port") + 1]
            printed = [self.run_chordctl(port, *words) for words in commands]
            self.run_script(opening)
        self.assertEqual(printed[:2], ["", "value"])
        self.assertIn("2 nodes", printed[2])
        second = second[: second.index("--join")]
        port = second[second.index("--port") + 1]
        with self.daemon(*second, until="Back in ring"), self.daemon(*first, until="Back in ring"):
            self.assertEqual(
                self.run_script(_READER.format(port=port, key="test key")), "b'value'\n"
            )
        folders = {path.name for path in self.folder.iterdir() if path.is_dir()}
        self.assertEqual(
            folders, {f"chord-{words[words.index('--port') + 1]}.data" for words in (first, second)}
        )
        self.assertIn("``chord-4444.data/``", read("README.rst"))

    def scripts(self) -> list[str]:
        """The opening example, the script, and the application."""
        found = blocks("README.rst", "python")
        self.assertEqual(len(found), 3)
        return found

    def test_script(self) -> None:
        """The way of a script."""
        self.run_script(free_ports(self.scripts()[1]))

    def test_application(self) -> None:
        """The way of a Twisted application."""
        self.run_application(free_ports(self.scripts()[2]), "visits", until="visits: b'1'")


class TestPages(Running):
    """The guides' code."""

    def test_tutorial(self) -> None:
        """One session from top to bottom."""
        printed = self.run_script(free_ports("\n".join(blocks("tutorial.rst", "python"))))
        for said in re.findall(r"print\(error\) +# (?:\.\.\. )?([^;\n]+)", read("tutorial.rst")):
            self.assertIn(said.rstrip(". "), printed)

    def test_twisted(self) -> None:
        """The program, the application, and then the functions, one after the other."""
        text = free_ports("\x00".join(blocks("twisted.rst", "python")))
        program, application, *functions = text.split("\x00")
        self.assertEqual(self.run_script(program), "b'hello'\n")
        self.run_application(application, "last beat", until="beat, 1 keys")
        code = "\n".join(functions)
        names = re.findall(r"^async def (\w+)\(ring\b", code, re.M)
        self.assertGreater(len(names), 8)
        await_all = "".join(f"        await {name}(ring)\n" for name in names)
        self.run_script(_HARNESS.format(functions=code, await_all=await_all))

    def test_recipes(self) -> None:
        """One session; the last block is a program of its own."""
        *session, program = blocks("recipes.rst", "python")
        self.run_script(free_ports("\n".join((*session, "ring.close()\n"))))
        self.assertEqual(self.run_script(free_ports(program)), "b'hello'\n")

    def test_coming_from(self) -> None:
        """What stands on the right, line by line."""
        page = read("coming-from.rst")
        lines = re.findall(r"^    \* - .*\n      - ``(.+)``$", page.partition("From py2p")[2], re.M)
        self.assertGreater(len(lines), 25)
        code = "".join(
            re.sub(r"^sock = .*", r"\g<0>; opened += [sock]", line) + "\n" for line in lines
        )
        self.run_script(free_ports(_OPENING + code + _CLOSING))

    def test_watching(self) -> None:
        """The functions, one after the other."""
        code = "\n".join(blocks("watching.rst", "python"))
        names = re.findall(r"^async def (\w+)\(ring\b", code, re.M)
        self.assertGreater(len(names), 3)
        await_all = "".join(f"        await {name}(ring)\n" for name in names)
        printed = self.run_script(_HARNESS.format(functions=code, await_all=await_all))
        self.assertRegex(printed, r"^add b'config' b'blue' 0\.1\.")

    def test_backup(self) -> None:
        """What is exported comes back by the import."""
        commands = [
            shlex.split(block)[1:] for block in blocks("data.rst", "console") if "backup" in block
        ]
        port = str(_free_port())
        with self.daemon("-n", "chord", "--memory", "--port", port, until="Founded ring"):
            self.run_script(_KEPT.format(port=port, does="sock.update(kept)"))
            for command, does in zip(
                commands, ("sock.clear()", "assert dict(sock) == kept"), strict=True
            ):
                self.run_chordctl(port, *command)
                self.run_script(_KEPT.format(port=port, does=does))

    def test_index(self) -> None:
        """It begins as the README does."""
        self.assertEqual(blocks("index.rst", "python"), blocks("README.rst", "python")[:1])

    def test_headings(self) -> None:
        """A heading is underlined by one character, as far as it goes."""
        for page in ("README.rst", *(path.name for path in DOCS.glob("*.rst"))):
            lines = read(page).splitlines()
            for line, under in itertools.pairwise(lines):
                if re.fullmatch(r"[-=~^]{4,}", under) and line.strip() and line[0] not in " =":
                    self.assertEqual(under, under[0] * len(line), f"{page}: {line}")

    def test_site(self) -> None:
        """What makes the web site is installed before it is called."""
        (block,) = (text for text in blocks("README.rst", "console") if "sphinx" in text)
        self.assertRegex(block, r"install '\.\[test\]'[^|]*\n.* -m sphinx ")

    def test_commands(self) -> None:
        """Every ``twistd chord`` that is shown is understood."""
        pages = ("README.rst", *(path.name for path in DOCS.glob("*.rst")))
        shown = [
            match[1]
            for text in (read("chord.service"), *(c for p in pages for c in blocks(p, "console")))
            for line in logical_lines(text)
            if (match := re.search(r"(?:twistd?\b| run ).* chord (.+)", line))
        ]
        self.assertGreater(len(shown), 10)
        for arguments in shown:
            if "--help" not in arguments:
                Options().parseOptions(shlex.split(arguments))

    def test_chordctl(self) -> None:
        """Every ``chordctl`` that is shown is understood."""
        pages = ("README.rst", *(path.name for path in DOCS.glob("*.rst")))
        shown = [
            line
            for page in pages
            for block in blocks(page, "console")
            for line in logical_lines(block)
            if re.match(r"(?:\S*/)?chordctl ", line)
        ]
        self.assertGreater(len(shown), 15)
        for line in shown:
            words = shlex.split(line, comments=True)[1:]
            ends = [at for at, word in enumerate(words) if word[:1] in "|<>&;"]
            try:
                _parser().parse_args(words[: min(ends, default=len(words))])
            except SystemExit as ended:
                self.assertEqual(ended.code, 0, line)


_READER = """
from py2p_twisted import chord
with chord.chord_socket("127.0.0.1", 0) as sock:
    sock.connect("127.0.0.1", {port})
    print(sock.get("{key}"))
"""

_OPENING = """
from py2p_twisted import chord, base
ring = chord.chord_socket("127.0.0.1", 4444)
ring.join()
opened = [ring]
"""

_CLOSING = """
while opened:
    opened.pop().close()
"""

_KEPT = """
from py2p_twisted import chord
kept = {{b"\\xff\\0": b"", b"": b"\\n", b"k": b"v" * 1000}}
with chord.chord_socket("127.0.0.1", 0) as sock:
    sock.connect("127.0.0.1", {port})
    {does}
"""

_HARNESS = """
from twisted.internet import task
from py2p_twisted.service import ChordService

{functions}

async def main(reactor):
    ring = ChordService(reactor, "127.0.0.1", 0, join=[])
    ring.startService()
    await ring.when_ready()
    try:
{await_all}
    finally:
        await ring.stopService()
    assert not reactor.getDelayedCalls(), reactor.getDelayedCalls()

task.react(main)
"""


# -- the protocol


def shown(kind: Any) -> str:
    """A type as the protocol's page writes it."""
    if kind in (Request, Reply):
        return "a request" if kind == Request else "a reply"
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if parts[1:] == (...,):
            return f"[{shown(parts[0])}, ...]"
        return f"[{', '.join(map(shown, parts))}]"
    if get_origin(kind) is not None or isinstance(kind, UnionType):
        return " or ".join(map(shown, get_args(kind)))
    return _WORDS.get(kind) or str(kind.__name__)


def fields_of(shape: type) -> str:
    """The fields of a message or shape as the protocol's page writes them."""
    hints = get_type_hints(shape)
    names: Any = getattr(shape, "__struct_fields__", None) or getattr(shape, "_fields", ())
    return ", ".join(f"``{name}``: {shown(hints[name])}" for name in names)


def table_rows(text: str) -> list[list[str]]:
    """The rows of all list-tables."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if match := re.match(r"    (\* |  )- (.*)", line):
            if match[1] == "* ":
                rows.append([])
            rows[-1].append(match[2])
        elif rows and re.match(r" {8}\S", line):
            rows[-1][-1] += " " + line.strip()
        elif line.strip() and not line.startswith("    "):
            continue
    return rows


class TestProtocol(SynchronousTestCase):
    """The page about the wire."""

    def test_messages(self) -> None:
        """Every message with its tag and fields, and nothing else."""
        page = {
            row[1].strip("`"): (row[0], row[2])
            for row in table_rows(read("protocol.rst"))
            if row[0].isdigit()
        }
        code = {}
        for name in messages.__all__:
            message = getattr(messages, name)
            tag = getattr(getattr(message, "__struct_config__", None), "tag", None)
            if tag is not None:
                code[name] = (str(tag), fields_of(message) or "none")
        self.assertEqual(page, code)

    def test_versions(self) -> None:
        """Every message that came after the oldest version."""
        page = {
            int(row[0].removeprefix("version ")): set(re.findall(r"``(\w+)``", row[1]))
            for row in table_rows(section("protocol.rst", "Versions"))
            if row[0].startswith("version ")
        }
        code: dict[int, set[str]] = {}
        for kind, since in SINCE.items():
            code.setdefault(since, set()).add(kind.__name__)
        self.assertEqual(page, code)
        text = section("protocol.rst", "Versions")
        self.assertIn(f"Version {messages.OLDEST_VERSION} is the oldest", text)

    def test_who_may_ask(self) -> None:
        """Every request says whether a node that keeps nothing may send it."""
        page = {
            row[1].strip("`"): row[3]
            for row in table_rows(section("protocol.rst", "Requests"))
            if row[0].isdigit()
        }
        of_members = {*_OF_MEMBERS, Notify}  # Notify looks for itself who sends it
        code = {
            kind.__name__: "members" if kind in of_members else "anybody"
            for kind in get_args(Request)
        }
        self.assertEqual(page, code)

    def test_shapes(self) -> None:
        """What stands inside messages."""
        page = {
            row[0].strip("`"): row[1]
            for row in table_rows(section("protocol.rst", "Shapes without a tag"))
            if row[0].startswith("``")
        }
        self.assertEqual(page, {name: fields_of(shape) for name, shape in SHAPES.items()})

    def test_enumerations(self) -> None:
        """Every number and its name."""
        page = {
            row[0].strip("`"): row[1]
            for row in table_rows(section("protocol.rst", "Enumerations"))
            if row[0].startswith("``")
        }
        code = {
            kind.__name__: ", ".join(f"{one.value} ``{one.name}``" for one in kind)
            for kind in ENUMERATIONS
        }
        self.assertEqual(page, code)

    def test_nothing_is_left_out(self) -> None:
        """Whatever is named in a field is explained: a message, a shape, an enumeration."""
        rows = table_rows(read("protocol.rst"))
        fields = [row[2] for row in rows if row[0].isdigit()]
        fields += [row[1] for row in rows if row[0].strip("`") in SHAPES]
        named = {name for text in fields for name in re.findall(r"\b[A-Z]\w+", text)}
        explained = {row[1].strip("`") for row in rows if row[0].isdigit()}
        explained |= {*SHAPES, *(kind.__name__ for kind in ENUMERATIONS)}
        self.assertEqual(named - explained, set())

    def test_tags_tell_messages_apart(self) -> None:
        """No two messages share one."""
        tags = [row[0] for row in table_rows(read("protocol.rst")) if row[0].isdigit()]
        self.assertEqual(len(set(tags)), len(tags))

    def example(self, name: str) -> bytes:
        """The bytes of a worked example."""
        match = re.search(rf":name: example-{name}\n\n((?:    .*\n)+)", read("protocol.rst"))
        assert match is not None
        lines = [re.split(r" {3,}", line)[0] for line in dedent(match[1]).splitlines()]
        return bytes.fromhex(" ".join(lines))

    def check(self, name: str, message: Message) -> None:
        """The example is this message, and this message is the example."""
        raw = self.example(name)
        body = encode(message)
        self.assertEqual(raw.hex(" "), (pack("!I", len(body)) + body).hex(" "))
        self.assertEqual(decode(raw[4:]), message)

    def test_hello(self) -> None:
        """A node without a ring says who it is."""
        peer = Peer(bytes(range(16)), bytes([42]), "127.0.0.1", 4445)
        settings = Settings()
        hello = Hello(
            *(messages.OLDEST_VERSION, *settings.prot, settings.k, b"", True, False, peer),
            newest=messages.WIRE_VERSION,
        )
        self.check("hello", hello)
        self.assertLess(len(self.example("hello")), settings.max_hello)

    def test_read(self) -> None:
        """A get, and what two members answer."""
        key, ballot = user_key(b"test key"), Ballot(FIRST_EPOCH, 1, MEMBER)
        self.check("read", Ask(1, Read(FIRST_EPOCH, key, Want.BOTH)))
        self.check("versioned", Answer(1, Versioned(b"value", ballot)))
        self.check("version", Answer(1, Version(ballot)))
        place = key_identifier(b"test key", 6)
        self.assertEqual((place, partition_of(place, 6)), (62, 62))

    def test_write(self) -> None:
        """A set, what its proposer makes of it, and their answers."""
        before, operation = bytes(range(0xA1, 0xA9)), bytes(range(0xB1, 0xB9))
        write = Write(user_key(b"test key"), b"new", operation)
        self.check("write", Ask(2, WriteOne(FIRST_EPOCH, write)))
        first = Ballot(FIRST_EPOCH, 1, MEMBER)
        old = written(None, first, b"value", before, 0)
        new = written(old, first.next(), write.value, operation, write.after)
        self.check("accept", Ask(7, Accept(((62, FIRST_EPOCH, ((write.key, new),)),))))
        self.check("accepted", Answer(7, Accepted((SomeAccepted(),))))
        self.check("written", Answer(2, Written(Outcome.APPLIED, new.stamp)))

    def test_numbers(self) -> None:
        """The limits that the page names."""
        page = read("protocol.rst")
        self.assertIn(f"{Settings.max_frame:,} bytes", page)
        self.assertEqual(Settings.max_hello, 4096)
        self.assertIn(f"wire version {messages.WIRE_VERSION}.", page)
        self.assertIn(f"``buckets`` 1 to {MOST_BUCKETS:,}", page)
        self.assertIn(f"at most {Settings.max_key + 32:,} bytes", " ".join(page.split()))
        self.assertIn(f"about {Settings.page_bytes // 1024} KiB", page)


# -- the rest


def log_formats() -> set[str]:
    """The text of all that the package logs for operators (info and above), tracebacks aside."""
    found: set[str] = set()
    for path in (ROOT / "py2p_twisted").rglob("*.py"):
        if path.parent.name == "chord":  # a script's own warnings; docstrings of the socket tell
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("info", "warn", "error")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return {text for text in found if len(re.sub(r"\{.*?\}", "", text)) > 10}


def as_pattern(text: str) -> str:
    """A pattern for what a format becomes."""
    return ".+".join(map(re.escape, re.split(r"\{.*?\}", text)))


class TestOperating(SynchronousTestCase):
    """The page for operators."""

    def test_options(self) -> None:
        """Every option stands there, and no other."""
        options = Options()
        flags = {
            name.rstrip("=")
            for name in options.longOpt
            if name.rstrip("=") in options.docs or name.rstrip("=") == "join"
        }
        rows = [row for row in table_rows(section("operating.rst", "Options")) if "``--" in row[0]]
        shown_flags = {flag for row in rows for flag in re.findall(r"--([\w-]+)", row[0])}
        self.assertEqual(shown_flags, flags)

    def test_log(self) -> None:
        """Every line that the log has stands there, and no other."""
        rows = table_rows(section("operating.rst", "The log"))[1:]
        lines = {row[0].strip("`") for row in rows}
        formats = log_formats()
        for text in sorted(formats):
            pattern = as_pattern(text)
            if not any(
                re.fullmatch(pattern, line)
                or (line.endswith("...") and text.startswith(line.rstrip(". ")))
                for line in lines
            ):
                self.fail(f"no line of operating.rst explains {text!r}")
        source = " ".join(formats) + read_source("tap.py")
        for line in sorted(lines):
            if line.endswith("..."):
                self.assertIn(re.split(r" [A-Z]{3,}| \.\.\.|\.\.\.", line)[0].rstrip("."), source)
            elif not any(re.fullmatch(as_pattern(text), line) for text in formats):
                self.fail(f"nothing logs {line!r}")


class TestMonitoring(SynchronousTestCase):
    """The page about probes and metrics."""

    def test_metrics(self) -> None:
        """Every metric is explained, and no other."""
        names = [
            match[1]
            for row in table_rows(read("monitoring.rst").partition("All names begin with")[2])
            if (match := re.fullmatch("``(\\w+)``", row[0]))
        ]
        told = [metric.name for metric in GAUGES] + [f"{metric.name}_total" for metric in COUNTERS]
        self.assertEqual(names, told)
        self.assertIn(f"``{PREFIX}``", read("monitoring.rst"))

    def test_limits(self) -> None:
        """The numbers that hold over HTTP."""
        page = " ".join(read("live-ring.rst").split())
        self.assertIn(f"within {web_site.PATIENCE:.0f} seconds", page)
        self.assertIn(f"{web_site.MOST_CONNECTIONS} connections at once", page)
        self.assertIn(f"At most {MOST_VIEWERS} streams", page)


def read_source(name: str) -> str:
    """The text of a module, its string literals joined as Python joins them."""
    return re.sub(r'"\s+f?"', "", (ROOT / "py2p_twisted" / name).read_text(encoding="utf-8"))


class TestComplete(SynchronousTestCase):
    """Nothing is forgotten."""

    def test_errors(self) -> None:
        """The API has every error, and a guide every one that its readers can meet."""
        self.assertIn(".. automodule:: py2p_twisted.errors\n    :members:\n", read("api.rst"))
        guides = "".join(read(name) for name in ("tutorial.rst", "twisted.rst", "api.rst"))
        met = set(errors.__all__) - {"BadMessage"}  # it is logged, and raised to nobody
        self.assertEqual({name for name in met if not re.search(rf"\b{name}\b", guides)}, set())

    def test_pages(self) -> None:
        """Every page is in a table of contents."""
        listed = set(re.findall(r"^    ([\w-]+)$", read("index.rst"), re.M))
        pages = {path.stem for path in DOCS.glob("*.rst")} - {"index"}
        self.assertEqual(pages - listed, set())

    def test_readme_names_files_that_are_there(self) -> None:
        """Pages, and files beside them."""
        named = re.findall(r"``(?:docs/)?([\w.-]+\.(?:rst|md))``", read("README.rst"))
        self.assertGreater(len(named), 12)
        there = {path.name for path in (*DOCS.iterdir(), *ROOT.iterdir())}
        self.assertEqual(set(named) - there, set())

    def test_settings(self) -> None:
        """The numbers that the guides name are the ones that hold."""
        settings = Settings()
        self.assertIn(f"The default, {settings.k}, makes {2**settings.k}.", read("README.rst"))
        self.assertEqual((settings.max_key, settings.max_value), (4096, 1024 * 1024))
        operating = read("operating.rst")
        self.assertIn(f"{settings.connections_per_address} connections from one address", operating)
        self.assertIn(f"and {settings.connections} in all", operating)
        self.assertIn(f"up to {settings.remembered_peers}", operating)
