"""A command that talks to a ring: its options, its connection, and what it prints (floor 4).

Connects as a node that keeps nothing, and learns k, subnet and copies from the node that it asks
first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ..base import ENCRYPTIONS, parse_address, show_address
from .frame import CommandError, ExitCode, in_a_shell

if TYPE_CHECKING:
    from .terminal import Style

__all__ = [
    "Address",
    "Session",
    "address",
    "in_ring",
    "note",
    "peers_of",
    "ring_options",
    "security_of",
    "together",
]

Address = tuple[str, int]

#: Nothing is done in less time than this, connecting included.
_LEAST_SECONDS = 0.05
#: Where ``twistd chord`` listens if it is not told.
_DEFAULT = "127.0.0.1:4444"


def address(text: str) -> Address:
    """A type for an argument: ``HOST:PORT``."""
    found = parse_address(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            "must be HOST:PORT with a port from 1 to 65535, such as 192.0.2.7:4444 or"
            f" [2001:db8::7]:4444, not {text!r}"
        )
    return found


def _addresses(text: str) -> list[Address]:
    return [address(part.strip()) for part in text.split(",")]


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if _LEAST_SECONDS <= number < 1e6:
        return number
    raise argparse.ArgumentTypeError(
        f"must be a number of seconds, at least {_LEAST_SECONDS}, not {text!r}"
    )


def ring_options(parser: argparse.ArgumentParser, *, first: bool = False) -> None:
    """Add the options of commands that talk to a ring; they may stand before the command, too.

    :param first: these stand before the command, and have the defaults.
    """

    def default(value: Any) -> Any:
        return value if first else argparse.SUPPRESS

    group = parser.add_argument_group("the ring")
    group.add_argument(
        "--peer",
        type=_addresses,
        action="extend",
        default=default(None),
        metavar="HOST:PORT",
        help="a node of the ring; several are tried in turn (default: $CHORD_PEER, else"
        f" {_DEFAULT})",
    )
    group.add_argument(
        "--tls",
        metavar="DIR",
        default=default(None),
        help="folder with ca.pem, cert.pem and key.pem, as chordctl tls issue makes it (default:"
        " $CHORD_TLS)",
    )
    group.add_argument(
        "--encryption",
        choices=ENCRYPTIONS,
        default=default(None),
        help="SSL without --tls: for rings that encrypt and do not check who is there",
    )
    group.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        default=default(10.0),
        help="how long one operation, or connecting, may take (default: 10)",
    )
    how = parser.add_argument_group("the output")
    how.add_argument(
        "--json",
        action="store_true",
        default=default(False),
        help="for programs: one JSON object on each line",
    )
    how.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default=default("auto"),
        help="colours (default: on a terminal, unless $NO_COLOR is set)",
    )
    how.add_argument(
        "--verbose", action="store_true", default=default(False), help="log to stderr"
    )  # fmt: skip


def peers_of(options: argparse.Namespace) -> list[Address]:
    """Whom to ask first.

    :raises CommandError: if the environment does not name addresses.
    """
    if options.peer:
        found: list[Address] = options.peer
        return found
    try:
        return _addresses(os.environ.get("CHORD_PEER") or _DEFAULT)
    except argparse.ArgumentTypeError as error:
        raise CommandError(f"CHORD_PEER {error}", ExitCode.USAGE) from None


def tls_folder(options: argparse.Namespace) -> str | None:
    """The folder of certificates that was named, if any."""
    return options.tls or os.environ.get("CHORD_TLS") or None


def security_of(options: argparse.Namespace) -> Any:
    """The TLS that was asked for; None for plain text.

    :raises CommandError: if the folder cannot be used.
    """
    folder = tls_folder(options)
    if options.encryption == "Plaintext" and folder is not None:
        raise CommandError("--tls encrypts: leave --encryption Plaintext out", ExitCode.USAGE)
    if folder is None and options.encryption != "SSL":
        return None
    from ..wire.tls import Security

    try:
        return Security.self_made() if folder is None else Security.from_directory(folder)
    except ValueError as error:
        raise CommandError(str(error)) from None


class in_ring:  # noqa: N801 - it is used like a decorator
    """What to call with the parsed arguments: it connects, runs a command, and disconnects.

    :param command: gets the session.
    :param whom: through which of these it connects, the first that answers; if it names none, the
        command connects by itself.
    """

    def __init__(
        self,
        command: Callable[[Session], Coroutine[Any, Any, ExitCode]],
        whom: Callable[[argparse.Namespace], list[Address]] = peers_of,
    ) -> None:
        self._command = command
        self._whom = whom

    def __call__(self, options: argparse.Namespace) -> ExitCode:
        """Run it in a reactor of its own."""
        from .running import run

        return run(lambda reactor: self.begin(reactor, options))

    async def begin(
        self, reactor: Any, options: argparse.Namespace, stdin: int = 0, stdout: int = 1
    ) -> ExitCode:
        """Run it in this reactor.

        :param stdin: the descriptor to read from.
        :param stdout: the descriptor to write to.
        """
        peers, security = self._whom(options), security_of(options)
        session = Session(reactor, options, security, stdin, stdout)
        try:
            if peers:
                await session.connect(peers)
            code = await self._command(session)
            await session.out.flush()
        finally:
            await session.close()
        return code


class Session:
    """One command's connection to a ring.

    :ivar options: the parsed command line.
    :ivar service: the node that keeps nothing; once connected.
    :ivar hello: what the node that was asked first said of itself.
    :ivar stdin: the descriptor of standard input.
    :ivar out: standard output.
    """

    def __init__(
        self,
        reactor: Any,
        options: argparse.Namespace,
        security: Any,
        stdin: int,
        stdout: int,
    ) -> None:
        from ..wire.endpoints import TwistedEndpoints
        from .streams import Output

        self.reactor = reactor
        self.options = options
        self.security = security
        self.endpoints = TwistedEndpoints(reactor, security)
        self.service: Any = None
        self.hello: Any = None
        self.peer: Address = ("", 0)
        self.stdin = stdin
        self.out = Output(reactor, stdout)
        if options.verbose:
            _log_to_stderr()

    # -- the ring

    async def connect(self, peers: list[Address]) -> None:
        """Connect through the first of these that answers.

        :raises ChordError: the reason of the last one, if none does.
        """
        from ..errors import ChordError

        problems: list[ChordError] = []
        for peer in peers:
            try:
                await self._connect(peer)
                return
            except ChordError as error:
                problems.append(error)
                await self.close()
        raise problems[-1]

    async def probe(self, peer: Address) -> Any:
        """What a node says of itself.

        :raises ChordError: if it does not say it, within the time that is usual or was given.
        """
        from ..settings import Settings
        from ..wire.probe import probe

        patience = min(self.options.timeout, Settings().handshake_timeout)
        return await probe(self.reactor, self.endpoints, self.security, peer, patience)

    async def _connect(self, peer: Address) -> None:
        from twisted.internet.defer import TimeoutError as TimedOut

        from ..base import protocol
        from ..errors import NotConnected, PeerUnreachable
        from ..service import ChordService
        from ..settings import Settings

        began = self.reactor.seconds()
        hello = await self.probe(peer)
        if not hello.ring:
            raise NotConnected(
                f"{show_address(*peer)} is in no ring yet: let it join one, or name another node"
            )
        settings = Settings(
            k=hello.k,
            prot=protocol(hello.subnet, hello.encryption),
            operation_timeout=self.options.timeout,
        )
        self.hello, self.peer = hello, peer
        self.service = ChordService(
            self.reactor, "127.0.0.1", 0, tls=tls_folder(self.options), settings=settings
        )
        self.service.startService()
        left = max(began + self.options.timeout - self.reactor.seconds(), 0.0)
        try:
            await self.service.connect(*peer).addTimeout(left, self.reactor)
        except TimedOut:
            raise PeerUnreachable(
                f"{show_address(*peer)} could not be connected to in {self.options.timeout:g} s"
            ) from None

    async def close(self) -> None:
        """Disconnect."""
        service, self.service = self.service, None
        if service is not None:
            await service.stopService()

    # -- the output

    @property
    def json(self) -> bool:
        """Is it for a program?"""
        return bool(self.options.json)

    @property
    def to_terminal(self) -> bool:
        """Does a person read it, on a terminal?"""
        return not self.json and os.isatty(self.out.number)

    @property
    def style(self) -> Style:
        """What standard output can show."""
        from .terminal import style_for

        return style_for(self.out.number, self.options.color)

    async def emit(self, **entry: Any) -> None:
        """One JSON object."""
        from .texts import line

        await self.out.write(line(entry))

    async def say(self, text: str) -> None:
        """One line for people."""
        await self.out.write(text.encode("utf-8", "backslashreplace") + b"\n")


async def together(deferreds: list[Any]) -> None:
    """Wait until all have fired; if one fails, the others are cancelled and its error is raised."""
    from twisted.internet.defer import FirstError, gatherResults

    try:
        await gatherResults(deferreds, consumeErrors=True)
    except FirstError as first:
        for deferred in deferreds:
            deferred.cancel()
        first.subFailure.raiseException()


def note(text: str) -> None:
    """One line on stderr, beside what the command prints."""
    print("chordctl:", in_a_shell(text), file=sys.stderr)


def _log_to_stderr() -> None:
    from twisted.logger import globalLogBeginner, textFileLogObserver

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
