"""``twistd chord`` and ``twist chord``: one node of a ring as a daemon (floor 4).

Owns the command line and the way a daemon refuses to start: one line on the terminal, exit code 1.
The node itself is :class:`py2p_twisted.service.ChordService`.  Never opens a socket or starts a
thread before its service is started, because ``twistd`` forks after :func:`makeService`.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from os.path import abspath
from typing import Any, ClassVar, NoReturn, TextIO

from twisted.application.service import IService, MultiService
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from twisted import copyright as twisted_version

from . import __version__
from .base import ENCRYPTIONS, protocol, show_address
from .errors import ChordError
from .service import ChordService
from .settings import DEFAULT_PROTOCOL, DEFAULT_REPLICAS, MAX_K, OFFERED_REPLICAS, Settings

__all__ = ["CannotStart", "ChordDaemon", "Options", "makeService"]

_LOOPBACK = "127.0.0.1"


class CannotStart(SystemExit, Exception):
    """The node cannot start; the reason is its text, the exit code is 1.

    It is a ``SystemExit``, so that nobody prints a traceback, and an ``Exception``, because only
    those reach the waiting parent of a ``twistd`` that became a daemon (the first 100 bytes of
    them, the name of this class included) and make ``twistd`` remove its pid file.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


def _whole_number(option: str, low: int, high: int) -> Callable[[str], int]:
    def coerce(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise usage.UsageError(
            f"{option} must be a whole number from {low} to {high}, not {text!r}"
        )

    return coerce


def _replicas(text: str) -> int:
    for number in OFFERED_REPLICAS:
        if text == str(number):
            return number
    offered = ", ".join(map(str, OFFERED_REPLICAS))
    raise usage.UsageError(f"--replicas must be one of {offered}, not {text!r}")


def _address(option: str) -> Callable[[str], tuple[str, int]]:
    def coerce(text: str) -> tuple[str, int]:
        host, _, port = text.rpartition(":")
        if port.isascii() and port.isdigit() and 1 <= int(port) <= 65535:
            if re.fullmatch(r"[\w.-]+", host):
                return host, int(port)
            if host.startswith("[") and host.endswith("]") and ":" in host and _is_ip(host[1:-1]):
                return host[1:-1], int(port)
        raise usage.UsageError(
            f"{option} must be HOST:PORT with a port from 1 to 65535,"
            f" such as 192.0.2.7:4444 or [2001:db8::7]:4444, not {text!r}"
        )

    return coerce


def _interface(text: str) -> str:
    if text == "localhost":
        return _LOOPBACK
    if _is_ip(text):
        return text
    raise usage.UsageError(
        "--interface must be an IP address of this machine, 0.0.0.0 for all of IPv4"
        f" or :: for all of IPv6, not {text!r}"
    )


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _encryption(text: str) -> str:
    if text in ENCRYPTIONS:
        return text
    raise usage.UsageError(f"--encryption must be {' or '.join(ENCRYPTIONS)}, not {text!r}")


class Options(usage.Options):
    """The command line, checked: after :meth:`parseOptions` every value has its final type.

    Whatever is wrong with it ends the process by one line on stderr and exit code 1, where Twisted
    would print the whole help (``twistd``) or exit with 64 (``twist``).
    """

    synopsis = "[options]"
    longdesc = (
        "Runs one node of a Chord ring, which keeps one dictionary of bytes on all its machines."
        " Without --join it founds a new ring; with --join it becomes a member of an existing one."
        " SIGTERM and SIGINT let it hand its keys over and leave."
    )

    optParameters: ClassVar[Sequence[Sequence[Any]]] = [
        [
            "port",
            "p",
            4444,
            "Listen on this TCP port; 0 takes any free one, which the log names.",
            _whole_number("--port", 0, 65535),
        ],
        [
            "interface",
            "i",
            None,
            "Listen on this IP address of the machine, 0.0.0.0 for all of IPv4, :: for all of"
            f" IPv6. Without it only programs on this machine can connect ({_LOOPBACK}).",
            _interface,
        ],
        [
            "k",
            None,
            Settings.k,
            f"Bits of an identifier, 1 to {MAX_K}: the ring has room for 2**k nodes. All nodes"
            " of a ring use the same.",
            _whole_number("--k", 1, MAX_K),
        ],
        [
            "replicas",
            None,
            None,
            "Copies of every key in the ring that this node founds: 1, 3 (survives one crash) or 5"
            " (two at once). It holds for the whole ring and for ever: with --join, leave it out"
            " or say the ring's number."
            f" [default: the ring's own, {DEFAULT_REPLICAS} in a new one]",
            _replicas,
        ],
        [
            "subnet",
            None,
            DEFAULT_PROTOCOL.subnet,
            "Name of the network, any text: nodes refuse everyone whose subnet differs.",
        ],
        [
            "encryption",
            None,
            None,
            "Plaintext, or SSL to encrypt all connections with TLS; SSL without --tls does not"
            " check who the peers are. [default: SSL with --tls, otherwise"
            f" {DEFAULT_PROTOCOL.encryption}]",
            _encryption,
        ],
        [
            "tls",
            None,
            None,
            "Folder with ca.pem, cert.pem and key.pem: encrypt all connections, and accept only"
            " peers whose certificate this authority signed.",
            abspath,
        ],
        [
            "out-addr",
            None,
            None,
            "HOST:PORT at which other nodes reach this one, if that is not where it listens"
            " (behind a router, in a container).",
            _address("--out-addr"),
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["join"] = []

    def opt_join(self, text: str) -> None:
        """HOST:PORT of a member to join through, IPv6 as [::1]:4444; several may be given."""
        self["join"].append(_address("--join")(text))

    def opt_version(self) -> NoReturn:
        """Print the versions of py2p_twisted and Twisted, and exit."""
        print(f"py2p_twisted {__version__} (Twisted {twisted_version.version})")
        raise SystemExit(0)

    def parseArgs(self, *args: str) -> None:
        """Refuse arguments that belong to no option."""
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}: everything is an --option")

    def postOptions(self) -> None:
        """Bring ``--encryption`` and ``--tls`` together, as ``self["prot"]``."""
        encryption = self["encryption"] or ("SSL" if self["tls"] else DEFAULT_PROTOCOL.encryption)
        if self["tls"] and encryption != "SSL":
            raise usage.UsageError(
                f"--tls encrypts: --encryption must be SSL or left out, not {encryption!r}"
            )
        self["prot"] = protocol(self["subnet"], encryption)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse, and check all that can be checked without listening.

        :raises SystemExit: with one line that says what is wrong and what is expected.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    """End the process before anything started: one line on stderr, exit code 1."""
    reason = " ".join(str(error).split())
    raise SystemExit(f"chord: {reason} (chord --help explains the options)") from None


class ChordDaemon(MultiService):
    """Holds the node, tells who can reach it, and turns a port in use into one line.

    :ivar _advice: what to log once the node listens, as ``(Logger method's name, text)``.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, node: IService, advice: tuple[str, str] | None, stderr: TextIO | None
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._advice = advice
        self._stderr = stderr
        node.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Start what needs privileges (``twistd`` only).

        :raises CannotStart: if the port cannot be had.
        """
        try:
            super().privilegedStartService()
        except CannotListenError as error:
            self._give_up(error)

    def startService(self) -> None:
        """Start the node.

        :raises CannotStart: if the port cannot be had.
        """
        try:
            super().startService()
        except CannotListenError as error:
            self._give_up(error)
        if self._advice is not None:
            self._reactor.callWhenRunning(self._advise, *self._advice)

    def _advise(self, level: str, text: str) -> None:
        getattr(self._log, level)("{text}", text=text)

    def _give_up(self, error: CannotListenError) -> NoReturn:
        """Say it in the log, on the terminal (sys.stderr is the log by now), and to ``twistd``."""
        reason = _why_not(error)
        self._log.error("{reason}", reason=reason)
        if self._stderr is not None:
            print(f"chord: {reason}", file=self._stderr, flush=True)
        raise CannotStart(reason) from None


def _why_not(error: CannotListenError) -> str:
    """Why the port cannot be had; short, since a daemon's parent is told 100 bytes only."""
    cause = error.socketError
    if getattr(cause, "errno", None) == errno.EADDRINUSE:
        return f"port {error.port} on {error.interface} is in use: choose another --port"
    where = show_address(str(error.interface), int(error.port))
    return f"cannot listen on {where}: {getattr(cause, 'strerror', None) or cause}"


def _advice(options: Options) -> tuple[str, str] | None:
    """What the operator should know about who can reach the node."""
    interface = options["interface"]
    if interface is None:
        reach = "--interface 0.0.0.0 (or this machine's LAN address)"
        if not options["tls"]:
            reach += " and, recommended, --tls DIR"
        return "info", f"Only this machine can connect. For other machines: {reach}."
    if options["prot"].encryption == "Plaintext" and not ip_address(interface).is_loopback:
        return "warn", (
            f"Everyone who reaches {show_address(interface, options['port'])} can read and change"
            " the dictionary: nothing is encrypted or authenticated. --tls DIR would do both."
        )
    return None


def makeService(
    options: Options,
    *,
    reactor: Any = None,
    service_factory: Callable[..., IService] = ChordService,
) -> ChordDaemon:
    """Make the service that ``twistd`` or ``twist`` runs; nothing starts yet.

    :param reactor: the clock and the connections of the node; None is the global reactor.
    :param service_factory: makes the node; tests give a fake.
    :raises SystemExit: with one line, if the node refuses a value.
    """
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    try:
        node = service_factory(
            reactor,
            options["interface"] or _LOOPBACK,
            options["port"],
            k=options["k"],
            prot=options["prot"],
            out_addr=options["out-addr"],
            join=options["join"],
            replicas=options["replicas"],
            tls=options["tls"],
        )
    except (ValueError, TypeError, OSError, ChordError) as error:
        _refuse(error)
    return ChordDaemon(reactor, node, _advice(options), sys.__stderr__)
