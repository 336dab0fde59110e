"""The command line of ``twistd chord``, and the daemon's start and refusal, in process."""

from __future__ import annotations

import errno
import os
from io import StringIO
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import protocol
from py2p_twisted.errors import (
    StorageCorrupt,
    StorageFull,
    StorageInUse,
    StorageMismatch,
    StorageUnusable,
)
from py2p_twisted.service import ChordService
from py2p_twisted.settings import DEFAULT_REPLICAS
from py2p_twisted.tap import CannotStart, ChordDaemon, Options, makeService
from py2p_twisted.web import WebService
from py2p_twisted.web.service import CannotServe

GOOD: list[tuple[list[str], dict[str, Any]]] = [
    (
        [],
        {
            "port": 4444,
            "interface": None,
            "k": 6,
            "prot": protocol("chord", "Plaintext"),
            "out-addr": None,
            "join": [],
            "tls": None,
            "replicas": None,
            "data": None,
            "memory": 0,
            "sync": None,
            "leave-on-stop": 0,
            "http": None,
        },
    ),
    (["--port", "0"], {"port": 0}),
    (["-p", "65535", "-i", "::"], {"port": 65535, "interface": "::"}),
    (["--interface=0.0.0.0"], {"interface": "0.0.0.0"}),
    (["--interface", "localhost"], {"interface": "127.0.0.1"}),
    (["--join", "127.0.0.1:4444"], {"join": [("127.0.0.1", 4444)]}),
    (
        ["--join", "[::1]:4444", "--join", "node-1.example:1"],
        {"join": [("::1", 4444), ("node-1.example", 1)]},
    ),
    (["--k", "1"], {"k": 1}),
    (["--k", "160"], {"k": 160}),
    (["--replicas", "1"], {"replicas": 1}),
    (["--replicas=3", "--join", "a:1"], {"replicas": 3, "join": [("a", 1)]}),
    (["--replicas", "5"], {"replicas": 5}),
    (["--subnet", "søk"], {"prot": protocol("søk", "Plaintext")}),
    (["--encryption", "SSL"], {"prot": protocol("chord", "SSL"), "tls": None}),
    (["--tls", "/certs"], {"prot": protocol("chord", "SSL"), "tls": "/certs"}),
    (["--tls", "/certs", "--encryption", "SSL"], {"prot": protocol("chord", "SSL")}),
    (["--out-addr", "35.24.77.21:44565"], {"out-addr": ("35.24.77.21", 44565)}),
    (["--out-addr", "[2001:db8::7]:1"], {"out-addr": ("2001:db8::7", 1)}),
    (["--data", "/data", "--sync", "interval"], {"data": "/data", "sync": "interval"}),
    (["--sync=always"], {"data": None, "sync": "always"}),
    (["--port", "0", "--data", "/data", "--sync", "always"], {"data": "/data"}),
    (["--memory"], {"memory": 1, "data": None}),
    (["--quota", "5000000"], {"quota": 5_000_000}),
    (["--quota", "2G"], {"quota": 2 << 30}),
    (["--cache", "32M"], {"cache": 32 << 20}),
    (["--memory", "--leave-on-stop"], {"memory": 1, "leave-on-stop": 1}),
    (["--http", "8080"], {"http": "8080"}),
]

#: Arguments, and what the one line must name: the culprit and what is expected.
BAD: list[tuple[list[str], list[str]]] = [
    (["--port", "65536"], ["--port", "0 to 65535", "'65536'"]),
    (["--port", "-1"], ["--port", "'-1'"]),
    (["--port", "http"], ["--port", "whole number", "'http'"]),
    (["--port", "٤"], ["--port", "'٤'"]),
    (["--port", "4\n4"], ["--port", r"'4\n4'"]),
    (["--port", ""], ["--port", "''"]),
    (["--port"], ["--port", "requires argument"]),
    (["--interface", "example.org"], ["--interface", "IP address", "'example.org'"]),
    (["--interface", ""], ["--interface", "''"]),
    (["--join", "127.0.0.1"], ["--join", "HOST:PORT", "'127.0.0.1'"]),
    (["--join", ":4444"], ["--join", "':4444'"]),
    (["--join", "host:0"], ["--join", "1 to 65535"]),
    (["--join", "host:65536"], ["--join", "1 to 65535"]),
    (["--join", "::1:4444"], ["--join", "[2001:db8::7]:4444", "'::1:4444'"]),
    (["--join", "[::1]"], ["--join", "'[::1]'"]),
    (["--join", "[localhost]:4444"], ["--join", "'[localhost]:4444'"]),
    (["--join", "[127.0.0.1]:4444"], ["--join", "'[127.0.0.1]:4444'"]),
    (["--join", "http://host:4444"], ["--join", "HOST:PORT"]),
    (["--join", "a:1", "--join", "b"], ["--join", "'b'"]),
    (["--k", "0"], ["--k", "1 to 160", "'0'"]),
    (["--k", "161"], ["--k", "1 to 160"]),
    *(
        (["--replicas", text], ["--replicas", "one of 1, 3, 5", repr(text)])
        for text in ("0", "2", "4", "7", "-1", "x", "", "03", "٣", "3.0", "1, 3, 5")
    ),
    (["--encryption", "ssl"], ["--encryption", "Plaintext or SSL", "'ssl'"]),
    (["--tls", "certs", "--encryption", "Plaintext"], ["--tls", "--encryption", "SSL"]),
    (["--out-addr", "4444"], ["--out-addr", "HOST:PORT", "'4444'"]),
    (["--data", ""], ["--data", "folder", "--memory"]),
    (["--data", "d", "--memory"], ["--memory", "leave it or --data out"]),
    (["--memory", "--sync", "always"], ["--memory", "leave it or --sync out"]),
    (["--quota", "lots"], ["--quota", "500M", "'lots'"]),
    (["--quota", "0"], ["--quota", "bytes", "at least 1", "'0'"]),
    (["--memory", "--quota", "1M"], ["--memory", "leave it or --quota out"]),
    (["--cache", "much"], ["--cache", "500M", "'much'"]),
    (["--memory", "--cache", "1M"], ["--memory", "leave it or --cache out"]),
    (["--port", "0", "--cache", "1M"], ["--port 0", "--data", "--cache"]),
    (["--port", "0", "--quota", "1M"], ["--port 0", "--data", "--quota"]),
    (["--sync", "never"], ["--sync", "always or interval", "'never'"]),
    (["--port", "0", "--sync", "always"], ["--port 0", "--data", "--sync"]),
    (["--memory=yes"], ["memory"]),
    (["--prot", "4444"], ["--prot", "not recognized", "--help"]),
    (["stray"], ["'stray'", "--option"]),
]


def parse(*arguments: str) -> Options:
    """Parse arguments as ``twistd`` would."""
    options = Options()
    options.parseOptions(list(arguments))
    return options


class OptionsTests(SynchronousTestCase):
    """:class:`Options`."""

    def test_good(self) -> None:
        """Every value arrives with its final type."""
        for arguments, expected in GOOD:
            options = parse(*arguments)
            for name, value in expected.items():
                self.assertEqual(options[name], value, (arguments, name))

    def test_bad(self) -> None:
        """Every mistake ends the process with one line that names it and what is expected."""
        for arguments, words in BAD:
            # A SystemExit whose code is a text prints it on stderr, and the exit code is 1.
            line = self.assertRaises(SystemExit, parse, *arguments).code
            self.assertIsInstance(line, str, arguments)
            self.assertEqual(len(line.splitlines()), 1, line)
            for word in words:
                self.assertIn(word, line, arguments)

    def test_relative_folder(self) -> None:
        """A folder is meant from where the command was typed; a daemon may change its own."""
        for name in ("tls", "data"):
            self.assertEqual(parse(f"--{name}", "certs")[name], os.path.abspath("certs"))

    def test_joins_are_not_shared(self) -> None:
        """Two command lines do not share a list of addresses."""
        parse("--join", "a:1")
        self.assertEqual(parse()["join"], [])

    def test_every_option_is_explained(self) -> None:
        """--help has a sentence for each option."""
        options = Options()
        for name in options.longOpt:
            self.assertTrue(options.docs[name.rstrip("=")], name)
        text = " ".join(str(options).split())
        for name in (
            *("port", "interface", "join", "k", "replicas", "subnet", "encryption", "out-addr"),
            *("tls", "data", "sync"),
        ):
            self.assertIn(f"--{name}=", text)
        for name in ("memory", "leave-on-stop"):
            self.assertIn(f"--{name} ", text)
        self.assertIn(f"the ring's own, {DEFAULT_REPLICAS} in a new one", text)


class FakeNode(Service):
    """Stands in for ``ChordService``: keeps what it was made with; may refuse to listen."""

    def __init__(self, reactor: Any, addr: str, port: int, **rest: Any) -> None:
        self.reactor = reactor
        self.made_with = {"addr": addr, "port": port, **rest}
        self.failure: Exception | None = None
        self.privileged = False

    def privilegedStartService(self) -> None:
        """Listen, as ``twistd`` asks for it."""
        if self.failure is not None:
            raise self.failure
        self.privileged = True

    def startService(self) -> None:
        """Listen."""
        if self.failure is not None:
            raise self.failure
        super().startService()


class DaemonTests(SynchronousTestCase):
    """:func:`makeService` and :class:`ChordDaemon`."""

    def setUp(self) -> None:
        """Collect what is logged."""
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def logged(self) -> list[tuple[Any, str]]:
        """Level and text of what tap logged."""
        return [
            (event["log_level"], formatEvent(event))
            for event in self.events
            if event["log_namespace"].startswith("py2p_twisted.tap")
        ]

    def make(self, *arguments: str) -> tuple[ChordDaemon, FakeNode]:
        """Make a daemon around a fake node, with a reactor of its own."""
        self.reactor = MemoryReactorClock()
        self.events.clear()
        daemon = makeService(parse(*arguments), reactor=self.reactor, service_factory=FakeNode)
        (node,) = daemon.services
        return daemon, node

    def start(self, *arguments: str) -> list[tuple[Any, str]]:
        """Start a daemon and run the reactor for a moment; returns what was logged."""
        daemon, node = self.make(*arguments)
        daemon.startService()
        self.assertTrue(node.running)
        ((level, where),) = self.logged()
        self.assertIs(level, LogLevel.info)
        self.assertRegex(where, r"\AKeeps .+\.\Z")
        self.reactor.run()
        return self.logged()[1:]

    def test_founds(self) -> None:
        """Without --join the node founds a ring, on loopback."""
        _, node = self.make()
        self.assertIs(node.reactor, self.reactor)
        storage = node.made_with.pop("storage")
        self.assertEqual(storage.path, os.path.realpath("chord-4444.data/node.sqlite"))
        self.assertEqual(
            node.made_with,
            {
                "addr": "127.0.0.1",
                "port": 4444,
                "k": 6,
                "prot": protocol("chord", "Plaintext"),
                "out_addr": None,
                "join": [],
                "replicas": None,
                "tls": None,
                "leave_on_stop": False,
            },
        )

    def test_joins(self) -> None:
        """The command line reaches the node."""
        line = (
            "-p 1 -i :: --k 2 --replicas 3 --subnet s --tls /t --out-addr h:3 --join a:1"
            " --join [::1]:2 --memory --leave-on-stop"
        )
        _, node = self.make(*line.split())
        self.assertEqual(
            node.made_with,
            {
                "addr": "::",
                "port": 1,
                "k": 2,
                "prot": protocol("s", "SSL"),
                "out_addr": ("h", 3),
                "join": [("a", 1), ("::1", 2)],
                "replicas": 3,
                "tls": "/t",
                "storage": None,
                "leave_on_stop": True,
            },
        )

    def test_where_the_data_is(self) -> None:
        """--data names the folder; --memory, and --port 0 alone, keep none; the log says which."""
        memory = "Keeps everything in memory, and leaves its ring when it stops"
        for line, path, sync, said in (
            ("--data /d", "/d/node.sqlite", "always", "Keeps its data in {}, with --sync always."),
            (
                *("--sync interval", os.path.abspath("chord-4444.data/node.sqlite"), "interval"),
                "Keeps its data in {}, with --sync interval.",
            ),
            ("--port 0 --data /d", "/d/node.sqlite", "always", "Keeps its data in {}, "),
            ("--memory", None, None, f"{memory}."),
            ("--port 0", None, None, f"{memory}: a node with --port 0 has no data folder"),
        ):
            daemon, node = self.make(*line.split())
            storage = node.made_with["storage"]
            if path is None:
                self.assertIsNone(storage)
            else:
                self.assertEqual((storage.path, storage.sync), (os.path.realpath(path), sync))
            daemon.privilegedStartService()
            daemon.startService()
            ((_, text),) = self.logged()
            self.assertIn(said.format(path and os.path.realpath(path)), text)

    def test_working_directory(self) -> None:
        """The default is where ``twistd`` is told to go, not where the command was typed."""
        elsewhere = os.path.realpath(self.mktemp())
        os.mkdir(elsewhere)
        for parent, expected in (
            ({"rundir": elsewhere, "chroot": None}, elsewhere),
            ({"rundir": ".", "chroot": None}, os.getcwd()),
            ({"rundir": ".", "chroot": elsewhere}, "/"),
            ({}, os.getcwd()),
        ):
            options = parse("--port", "5555")
            options.parent = parent
            daemon = makeService(options, reactor=MemoryReactorClock(), service_factory=FakeNode)
            (node,) = daemon.services
            where = os.path.join(os.path.realpath(expected), "chord-5555.data", "node.sqlite")
            self.assertEqual(node.made_with["storage"].path, where)

    def test_makes_without_starting(self) -> None:
        """Making the service starts and opens nothing: ``twistd`` forks afterwards."""
        folder = os.path.abspath(self.mktemp())
        _, node = self.make("--data", folder)
        self.assertFalse(os.path.exists(folder))
        self.assertFalse(node.running)
        self.assertEqual(self.reactor.whenRunningHooks, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stops(self) -> None:
        """Stopping the daemon stops the node and waits for it."""
        daemon, node = self.make()
        daemon.startService()
        self.successResultOf(daemon.stopService())
        self.assertFalse(node.running)

    def test_node_refuses_a_value(self) -> None:
        """What only the node can judge is one line too."""

        def refuse(*_: Any, **__: Any) -> FakeNode:
            raise ValueError("key.pem is\nno key")

        with self.assertRaises(SystemExit) as caught:
            makeService(parse(), reactor=MemoryReactorClock(), service_factory=refuse)
        self.assertIn("key.pem is no key", str(caught.exception.code))

    def test_http(self) -> None:
        """With --http there is a second service, on loopback; a wrong endpoint is one line."""
        reactor = MemoryReactorClock()
        daemon = makeService(parse("--memory", "--http", "8080"), reactor=reactor)
        node, web = daemon
        self.assertIsInstance(node, ChordService)
        self.assertIsInstance(web, WebService)
        self.assertEqual(reactor.tcpServers, [])
        for text in ("no:80", "http", "99999", "ssl:80:privateKey=/nowhere"):
            with self.assertRaises(SystemExit) as caught:
                makeService(parse("--memory", "--http", text), reactor=reactor)
            self.assertIn(f"chord: --http: {text!r}", str(caught.exception.code))

    def test_loopback_is_explained(self) -> None:
        """Without --interface the log says how others could connect, once the reactor runs."""
        ((level, text),) = self.start()
        self.assertIs(level, LogLevel.info)
        self.assertIn("--interface 0.0.0.0", text)
        self.assertIn("--tls DIR", text)
        ((_, text),) = self.start("--tls", "/certs")
        self.assertNotIn("--tls", text)

    def test_no_needless_advice(self) -> None:
        """Who chose an interface knows what it does; the node itself warns where it must."""
        self.assertEqual(self.start("--interface", "127.0.0.2"), [])
        self.assertEqual(self.start("--interface", "::1"), [])
        self.assertEqual(self.start("--interface", "0.0.0.0"), [])


class CannotStartTests(SynchronousTestCase):
    """What happens when the port or the data cannot be had."""

    def refuse(self, error: Exception, start: str) -> tuple[CannotStart, str, list[str]]:
        """Start a daemon whose node cannot start: what is raised, printed and logged."""
        logged: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            if "reason" in event:
                logged.append(event["reason"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        node = FakeNode(MemoryReactorClock(), "127.0.0.1", 4444)
        node.failure = error
        stderr = StringIO()
        daemon = ChordDaemon(node.reactor, node, lambda log: None, "advice", stderr)
        raised = self.assertRaises(CannotStart, getattr(daemon, start))
        self.assertEqual(node.reactor.whenRunningHooks, [])
        return raised, stderr.getvalue(), logged

    def fits(self, raised: CannotStart) -> None:
        """What a daemon writes to its parent is cut at 100 bytes: "1 ", the exception's line."""
        self.assertLess(len(f"1 {CannotStart.__module__}.CannotStart: {raised}"), 100)

    def test_port_in_use(self) -> None:
        """One line on stderr and in the log; exit code 1; its beginning tells all."""
        in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        for start in ("startService", "privilegedStartService"):
            raised, printed, logged = self.refuse(
                CannotListenError("127.0.0.1", 4444, in_use), start
            )
            expected = "port 4444 on 127.0.0.1 is in use: choose another --port"
            self.assertEqual(raised.code, 1)
            self.assertEqual(printed, f"chord: {expected}\n")
            self.assertEqual(logged, [expected])
            self.fits(raised)
            # twistd cleans up for exceptions only.
            self.assertIsInstance(raised, Exception)

    def test_http_in_use(self) -> None:
        """It is told which of the two ports is in use."""
        in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        raised, _, _ = self.refuse(CannotServe("127.0.0.1", 8080, in_use), "startService")
        self.assertEqual(str(raised), "port 8080 on 127.0.0.1 is in use: choose another --http")
        denied = OSError(errno.EACCES, "Permission denied")
        raised, _, _ = self.refuse(CannotServe(None, "/run/x.sock", denied), "startService")
        self.assertEqual(str(raised), "cannot listen on /run/x.sock: Permission denied")

    def test_other_reasons(self) -> None:
        """Other reasons are named as the system names them."""
        denied = OSError(errno.EACCES, "Permission denied")
        raised, _, _ = self.refuse(CannotListenError("::1", 80, denied), "startService")
        self.assertEqual(str(raised), "cannot listen on [::1]:80: Permission denied")
        raised, _, _ = self.refuse(CannotListenError("::1", 80, "odd"), "startService")
        self.assertEqual(str(raised), "cannot listen on [::1]:80: odd")
        foreign = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        for error, option in (
            (CannotListenError("192.0.2.1", 4444, foreign), "--interface"),
            (CannotServe("192.0.2.1", 4444, foreign), "--http"),
        ):
            raised, _, _ = self.refuse(error, "startService")
            expected = f"192.0.2.1 is no address of this machine: see {option}"
            self.assertEqual(str(raised), expected)
            self.fits(raised)

    def test_data(self) -> None:
        """All of it in the log and on stderr, in one line; for the parent of a daemon, less."""
        path = f"/{'very/' * 30}long/node.sqlite"
        for error, short in (
            (
                StorageInUse(f"{path} is in use", path=path, pid=7),
                "its data is in use by process 7",
            ),
            (StorageInUse(f"{path} is in use", path=path), "its data is in use by a process"),
            (StorageCorrupt(f"{path} is damaged\nbadly", path=path), "its data is damaged"),
            (StorageMismatch(f"{path} is of ring x", path=path), "the data is not this node's"),
            (StorageFull(f"{path}: full", path=path), "there is no room for its data"),
            (StorageUnusable(f"{path}: denied", path=path), "its data cannot be used"),
        ):
            for start in ("startService", "privilegedStartService"):
                raised, printed, logged = self.refuse(error, start)
                self.assertEqual((str(raised), raised.code), (short, 1))
                self.fits(raised)
                line = str(error).replace("\n", " ")
                self.assertEqual((printed, logged), (f"chord: {line}\n", [line]))
