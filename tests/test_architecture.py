"""Keeps the floors of the house: imports only point down, and the lower floors stay pure.

Every rule is a function from the parsed source of a module to complaints, so that each can be shown
to fail on a bad source as well as run over the real ones.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "py2p_twisted"

#: The floor of each module and folder directly in the package.
FLOORS = {
    "": 0,
    "errors": 0,
    "settings": 0,
    "base": 0,
    "events": 0,
    "ring": 0,
    "table": 0,
    "wire": 1,
    "storage": 1,
    "node": 2,
    "service": 3,
    "arguments": 3,
    "keeping": 3,
    "dictionary": 3,
    "watch": 3,
    "joiner": 3,
    "reporting": 3,
    "chord": 4,
    "options": 4,
    "tap": 4,
    "cli": 4,
    "web": 4,
}

#: Folders that must not know each other.
STRANGERS = (
    *({"ring", "table"}, {"wire", "storage"}, {"chord", "cli"}, {"tap", "cli"}),
    *({"web", "chord"}, {"web", "cli"}, {"web", "options"}),
)

#: What floor 0 does not import: Twisted, clocks, chance, input and output, other threads.
IMPURE = {
    *("twisted", "zope", "crochet", "OpenSSL", "service_identity"),
    *("time", "datetime", "sched", "random", "secrets", "uuid"),
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "sqlite3", "dbm"),
    *("socket", "ssl", "select", "selectors", "asyncio", "http", "urllib", "socketserver"),
    *("signal", "subprocess", "threading", "multiprocessing", "concurrent", "_thread", "queue"),
    *("sys", "logging", "warnings", "importlib"),
}
IMPURE_BUILTINS = {"open", "print", "input", "__import__", "exec", "eval"}

#: Formats that run what they read.
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}

#: What storage/ knows of the package: keys, heads and values are opaque to it.
STORAGE_KNOWS = {"storage", "errors"}

MAY_BLOCK = {"chord"}
MAY_KEEP_FILES = {"storage"}
MAY_REACH_FOR_THE_REACTOR = {"tap", "cli", "chord"}
LONGEST_MODULE = 400
LONGEST_FUNCTION = 80

Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """One parsed module.

    :ivar name: dotted, within the package; empty for the package itself.
    :ivar folder: whether it is an ``__init__.py``.
    """

    name: str
    tree: ast.Module
    lines: int
    folder: bool = False

    @property
    def part(self) -> str:
        """The module or folder directly in the package that this belongs to."""
        return self.name.partition(".")[0]

    def imports(self) -> Iterator[tuple[str, bool]]:
        """Every name that is imported, made absolute; and whether inside a function."""
        inside = {
            id(node)
            for function in self.functions()
            for node in ast.walk(function)
            if node is not function
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, id(node) in inside
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield f"{self._origin(node)}.{alias.name}", id(node) in inside

    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """All functions and methods, nested ones too."""
        return [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = [PACKAGE, *self.name.split(".")] if self.name else [PACKAGE]
        up = node.level - 1 if self.folder else node.level
        return ".".join([*here[: len(here) - up], *([node.module] if node.module else [])])


def parse(name: str, source: str, *, folder: bool = False) -> Module:
    """Make a module from its source."""
    return Module(name, ast.parse(source, name), len(source.splitlines()), folder)


def read_package() -> list[Module]:
    """All modules of the package."""
    modules = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        names = list(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        folder = names[-1] == "__init__"
        name = ".".join(names[:-1] if folder else names)
        modules.append(parse(name, path.read_text("utf-8"), folder=folder))
    return modules


def has_a_floor(module: Module) -> Iterator[str]:
    """Every module stands on a floor that the design names."""
    if module.part not in FLOORS:
        yield f"{module.part} stands on no floor"


def imports_point_down(module: Module) -> Iterator[str]:
    """A module imports from its own floor and those below it."""
    for part in imported_parts(module):
        if FLOORS[part] > FLOORS.get(module.part, -1):
            yield f"imports {part} from a higher floor"


def strangers(module: Module) -> Iterator[str]:
    """Folders side by side do not import each other."""
    for part in imported_parts(module):
        if part != module.part and any({part, module.part} <= pair for pair in STRANGERS):
            yield f"imports its neighbour {part}"


def imported_parts(module: Module) -> list[str]:
    """The parts of the package that a module imports; names of the package itself count as it."""
    parts = set()
    for name, _ in module.imports():
        top, _, rest = name.partition(".")
        if top == PACKAGE:
            part = rest.partition(".")[0]
            parts.add(part if part in FLOORS else "")
    return sorted(parts)


def storage_is_opaque(module: Module) -> Iterator[str]:
    """What a node keeps means nothing to its storage."""
    if module.part == "storage":
        for part in imported_parts(module):
            if part not in STORAGE_KNOWS:
                yield f"imports {part or 'the package'}, which storage does not know"


def sqlite_stays_in_storage(module: Module) -> Iterator[str]:
    """Only the storage knows that there is a database."""
    for name, _ in module.imports():
        if name.partition(".")[0] == "sqlite3" and module.part not in MAY_KEEP_FILES:
            yield "imports sqlite3"


def pure_floor(module: Module) -> Iterator[str]:
    """Floor 0 does no input or output, reads no clock and draws no random number."""
    if FLOORS.get(module.part) != 0:
        return
    for name, _ in module.imports():
        if name.partition(".")[0] in IMPURE:
            yield f"imports {name} on floor 0"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS:
            yield f"uses {node.id} on floor 0"


def crochet_stays_in_chord(module: Module) -> Iterator[str]:
    """Only the blocking face knows crochet."""
    for name, _ in module.imports():
        if name.partition(".")[0] == "crochet" and module.part not in MAY_BLOCK:
            yield "imports crochet"


def no_global_reactor(module: Module) -> Iterator[str]:
    """The global reactor is reached for only by faces, and only inside a function."""
    for name, in_function in module.imports():
        if f"{name}.".startswith("twisted.internet.reactor."):
            if module.part not in MAY_REACH_FOR_THE_REACTOR:
                yield "imports the global reactor"
            elif not in_function:
                yield "installs a reactor when it is imported"


def no_pickle(module: Module) -> Iterator[str]:
    """Nothing that is read can run."""
    for name, _ in module.imports():
        if name.partition(".")[0] in PICKLES:
            yield f"imports {name}"


def no_long_module(module: Module) -> Iterator[str]:
    """A module is read at one sitting."""
    if module.lines > LONGEST_MODULE:
        yield f"has {module.lines} lines, more than {LONGEST_MODULE}"


def no_long_function(module: Module) -> Iterator[str]:
    """A function fits on a screen or two."""
    for function in module.functions():
        lines = (function.end_lineno or 0) - function.lineno + 1
        if lines > LONGEST_FUNCTION:
            yield f"{function.name} has {lines} lines, more than {LONGEST_FUNCTION}"


#: Each rule with sources that break it and sources that keep it, as (module, source).
RULES: list[
    tuple[Callable[[Module], Iterator[str]], list[tuple[str, str]], list[tuple[str, str]]]
] = [
    (
        has_a_floor,
        [("attic", ""), ("attic.box", "")],
        [("base", ""), ("ring.circle", "")],
    ),
    (
        imports_point_down,
        [
            ("ring.ring", "from ..wire import codec"),
            ("ring.ring", "from .. import wire"),
            ("ring.ring", "def f():\n    from ..wire.codec import encode"),
            ("node.node", "import py2p_twisted.service"),
            ("errors", "from .service import ChordService"),
            ("wire.links", "from py2p_twisted import node"),
            ("service", "from .chord import chord_socket"),
        ],
        [
            ("ring.ring", "from .circle import between\nfrom ..base import Peer"),
            ("node.node", "from ..wire import codec\nimport service"),
            ("tap", "from . import __version__\nfrom .service import ChordService"),
        ],
    ),
    (
        strangers,
        [
            ("ring.ring", "from ..table import group"),
            ("table.group", "from ..ring.circle import between"),
            ("wire.links", "from .. import storage"),
            ("storage.memory", "import py2p_twisted.wire.messages"),
            ("cli.get", "from ..chord import chord_socket"),
            ("tap", "from .cli.frame import CommandError"),
            ("web.site", "from ..cli import main"),
        ],
        [("ring.ring", "from . import table"), ("node.node", "from .. import ring, table")],
    ),
    (
        storage_is_opaque,
        [
            ("storage.interface", "from ..base import Peer"),
            ("storage.sqlite", "def f():\n    from ..table.group import Record"),
            ("storage.memory", "from .. import __version__"),
        ],
        [
            ("storage.sqlite", "from ..errors import StorageFull\nfrom .interface import Batch"),
            ("storage.sqlite", "import sqlite3\nfrom twisted.internet import defer"),
            ("node.keeper", "from ..storage.interface import Batch\nfrom ..base import Peer"),
        ],
    ),
    (
        sqlite_stays_in_storage,
        [("node.keeper", "import sqlite3"), ("tap", "def f():\n    from sqlite3 import connect")],
        [("storage.sqlite", "import sqlite3"), ("node.node", "from ..storage import sqlite")],
    ),
    (
        pure_floor,
        [
            ("ring.ring", "from twisted.internet import defer"),
            ("table.acceptor", "import time"),
            ("base", "from os import urandom"),
            ("settings", "def f():\n    import random"),
            ("table.group", "data = open('x').read()"),
            ("ring.ring", "def f():\n    print(1)"),
        ],
        [
            ("ring.ring", "from hashlib import sha256\nfrom .time import x"),
            ("wire.links", "import time, random\nprint(open)"),
        ],
    ),
    (
        crochet_stays_in_chord,
        [("service", "import crochet"), ("cli", "def f():\n    from crochet import setup")],
        [("chord", "import crochet"), ("service", "from .crochet import x")],
    ),
    (
        no_global_reactor,
        [
            ("service", "def f():\n    from twisted.internet import reactor"),
            ("tap", "from twisted.internet import reactor"),
            ("tap", "class A:\n    from twisted.internet import reactor"),
            ("wire.links", "import twisted.internet.reactor as r"),
            ("cli", "from twisted.internet.reactor import callLater"),
        ],
        [
            ("tap", "def f():\n    from twisted.internet import reactor"),
            ("chord", "class A:\n    async def f(self):\n        import twisted.internet.reactor"),
            ("service", "from twisted.internet import reactors, error"),
        ],
    ),
    (
        no_pickle,
        [("storage.sqlite", "import pickle"), ("wire.codec", "from marshal import loads")],
        [("wire.codec", "import msgspec\npickle = 1")],
    ),
    (
        no_long_module,
        [("base", "\n" * (LONGEST_MODULE + 1))],
        [("base", "\n" * LONGEST_MODULE)],
    ),
    (
        no_long_function,
        [
            ("base", "def f():\n" + "    x\n" * LONGEST_FUNCTION),
            ("base", "class A:\n  async def f(s):\n" + "    x\n" * LONGEST_FUNCTION),
        ],
        [("base", "def f():\n" + "    x\n" * (LONGEST_FUNCTION - 1) + "x\n" * 9)],
    ),
]


class RulesTests(SynchronousTestCase):
    """The rules themselves: each can fail, and lets good sources pass."""

    def test_bad_sources_are_found(self) -> None:
        """Every rule complains about each of its bad sources."""
        for rule, bad, _ in RULES:
            for name, source in bad:
                self.assertTrue(list(rule(parse(name, source))), (rule.__name__, name, source))

    def test_good_sources_pass(self) -> None:
        """No rule complains about its good sources."""
        for rule, _, good in RULES:
            for name, source in good:
                self.assertEqual(list(rule(parse(name, source))), [], (rule.__name__, source))

    def test_relative_imports_of_a_folder(self) -> None:
        """In an ``__init__.py`` one dot is the folder itself."""
        module = parse("ring", "from .. import table\nfrom .circle import x", folder=True)
        self.assertEqual(
            [name for name, _ in module.imports()],
            [f"{PACKAGE}.table", f"{PACKAGE}.ring.circle.x"],
        )
        self.assertEqual(len(list(strangers(module))), 1)


class ArchitectureTests(SynchronousTestCase):
    """The house as it stands."""

    def check(self, rule: Callable[[Module], Iterator[str]]) -> None:
        """Hold one rule against every module of the package."""
        modules = read_package()
        self.assertGreater(len(modules), 5)
        complaints = [
            f"{PACKAGE}.{module.name}: {complaint}"
            for module in modules
            for complaint in rule(module)
        ]
        self.assertEqual(complaints, [])

    def test_floors(self) -> None:
        """Every module has a floor."""
        self.check(has_a_floor)

    def test_imports_point_down(self) -> None:
        """Imports only point down."""
        self.check(imports_point_down)

    def test_strangers(self) -> None:
        """Ring and table, wire and storage, the command line and other faces: strangers."""
        self.check(strangers)

    def test_storage(self) -> None:
        """The storage knows nothing of what it keeps."""
        self.check(storage_is_opaque)

    def test_sqlite(self) -> None:
        """Only ``storage/`` imports sqlite3."""
        self.check(sqlite_stays_in_storage)

    def test_pure_floor(self) -> None:
        """Floor 0 is pure."""
        self.check(pure_floor)

    def test_crochet(self) -> None:
        """Only ``chord.py`` imports crochet."""
        self.check(crochet_stays_in_chord)

    def test_reactor(self) -> None:
        """Nobody installs a reactor by being imported."""
        self.check(no_global_reactor)

    def test_pickle(self) -> None:
        """Nobody reads pickles."""
        self.check(no_pickle)

    def test_long_modules(self) -> None:
        """Modules stay short."""
        self.check(no_long_module)

    def test_long_functions(self) -> None:
        """Functions stay short."""
        self.check(no_long_function)

    def test_plugin_folder_is_no_package(self) -> None:
        """An ``__init__.py`` there would hide Twisted's own plugins, or Twisted."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py*")), [])


STARTS_NOTHING = ("service", "chord", "cli", "web", "storage.sqlite", "storage.__main__")

#: Imports a module, then tells what it started: threads, and whether there is a reactor.
PROBE = """
import sys, threading, {module}
print([thread.name for thread in threading.enumerate()], "twisted.internet.reactor" in sys.modules)
"""


class ImportTests(SynchronousTestCase):
    """Importing starts nothing."""

    def probe(self, module: str) -> str:
        """Import a module of the checkout in a fresh process."""
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(
                [sys.executable, "-c", PROBE.format(module=module)],
                cwd=empty,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        self.assertEqual(done.stderr, "")
        return done.stdout.strip()

    def test_importing_starts_nothing(self) -> None:
        """No thread, no reactor."""
        for module in (PACKAGE, *(f"{PACKAGE}.{name}" for name in STARTS_NOTHING)):
            self.assertEqual(self.probe(module), "['MainThread'] False", module)

    def test_the_probe_sees(self) -> None:
        """A module that does install a reactor is noticed."""
        self.assertEqual(self.probe("twisted.internet.reactor"), "['MainThread'] True")
