"""The command line of ``twistd chord``, and the daemon's start and refusal, in process."""

from __future__ import annotations

import errno
import os
from io import StringIO
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import protocol
from py2p_twisted.settings import DEFAULT_REPLICAS
from py2p_twisted.tap import CannotStart, ChordDaemon, Options, makeService

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
        self.assertEqual(parse("--tls", "certs")["tls"], os.path.abspath("certs"))

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
            "tls",
        ):
            self.assertIn(f"--{name}=", text)
        self.assertIn(f"the ring's own, {DEFAULT_REPLICAS} in a new one", text)


class FakeNode(Service):
    """Stands in for ``ChordService``: keeps what it was made with; may refuse to listen."""

    def __init__(self, reactor: Any, addr: str, port: int, **rest: Any) -> None:
        self.reactor = reactor
        self.made_with = {"addr": addr, "port": port, **rest}
        self.failure: CannotListenError | None = None
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
            (event["log_level"], event.get("text") or event["reason"])
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
        self.assertEqual(self.logged(), [])
        self.reactor.run()
        return self.logged()

    def test_founds(self) -> None:
        """Without --join the node founds a ring, on loopback."""
        _, node = self.make()
        self.assertIs(node.reactor, self.reactor)
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
            },
        )

    def test_joins(self) -> None:
        """The command line reaches the node."""
        line = (
            "-p 1 -i :: --k 2 --replicas 3 --subnet s --tls /t --out-addr h:3 --join a:1"
            " --join [::1]:2"
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
            },
        )

    def test_makes_without_starting(self) -> None:
        """Making the service starts nothing: ``twistd`` forks afterwards."""
        _, node = self.make()
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

    def test_loopback_is_explained(self) -> None:
        """Without --interface the log says how others could connect, once the reactor runs."""
        ((level, text),) = self.start()
        self.assertIs(level, LogLevel.info)
        self.assertIn("--interface 0.0.0.0", text)
        self.assertIn("--tls DIR", text)
        ((_, text),) = self.start("--tls", "/certs")
        self.assertNotIn("--tls", text)

    def test_open_interface_is_warned_of(self) -> None:
        """An interface that others reach, in plain text, is warned of."""
        for interface in ("0.0.0.0", "::", "192.0.2.1"):
            ((level, text),) = self.start("--interface", interface)
            self.assertIs(level, LogLevel.warn)
            self.assertIn(interface, text)
            self.assertIn("--tls DIR", text)

    def test_no_needless_advice(self) -> None:
        """Who chose loopback, or TLS, is not told about it."""
        self.assertEqual(self.start("--interface", "127.0.0.2"), [])
        self.assertEqual(self.start("--interface", "::1"), [])
        self.assertEqual(self.start("--interface", "0.0.0.0", "--tls", "/certs"), [])


class CannotListenTests(SynchronousTestCase):
    """What happens when the port cannot be had."""

    def refuse(self, error: CannotListenError, start: str) -> tuple[CannotStart, str, list[str]]:
        """Start a daemon whose node cannot listen: what is raised, printed and logged."""
        logged: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            if "reason" in event:
                logged.append(event["reason"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        node = FakeNode(MemoryReactorClock(), "127.0.0.1", 4444)
        node.failure = error
        stderr = StringIO()
        daemon = ChordDaemon(node.reactor, node, ("info", "advice"), stderr)
        raised = self.assertRaises(CannotStart, getattr(daemon, start))
        self.assertEqual(node.reactor.whenRunningHooks, [])
        return raised, stderr.getvalue(), logged

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
            # What a daemon writes to its parent: "1 ", the exception's line; cut at 100 bytes.
            self.assertLess(len(f"1 {CannotStart.__module__}.CannotStart: {raised}"), 100)
            # twistd cleans up for exceptions only.
            self.assertIsInstance(raised, Exception)

    def test_other_reasons(self) -> None:
        """Other reasons are named as the system names them."""
        denied = OSError(errno.EACCES, "Permission denied")
        raised, _, _ = self.refuse(CannotListenError("::1", 80, denied), "startService")
        self.assertEqual(str(raised), "cannot listen on [::1]:80: Permission denied")
        raised, _, _ = self.refuse(CannotListenError("::1", 80, "odd"), "startService")
        self.assertEqual(str(raised), "cannot listen on [::1]:80: odd")
