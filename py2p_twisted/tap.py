"""``twistd chord`` and ``twist chord``: one node of a ring as a daemon (floor 4).

Owns the way a daemon refuses to start: one line on the terminal, exit code 1.  The command line is
:mod:`.options`, the node itself :class:`py2p_twisted.service.ChordService`.  Never opens a socket
or a file, nor starts a thread, before its service is started, because ``twistd`` forks after
:func:`makeService`.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from twisted.application.service import IService, MultiService
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from .base import show_address
from .errors import (
    ChordError,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageInUse,
    StorageMismatch,
)
from .options import LOOPBACK, Options, refuse, storage_for
from .service import ChordService
from .storage.sqlite import SQLiteStorage

__all__ = ["CannotStart", "ChordDaemon", "Options", "makeService"]


class CannotStart(SystemExit, Exception):
    """The node cannot start; the reason is its text, the exit code is 1.

    It is a ``SystemExit``, so that nobody prints a traceback, and an ``Exception``, because only
    those reach the waiting parent of a ``twistd`` that became a daemon (the first 100 bytes of
    them, the name of this class included) and make ``twistd`` remove its pid file.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class ChordDaemon(MultiService):
    """Holds the node, tells where it keeps its data and who can reach it; refuses in one line.

    :ivar _tell_where: logs where its data is, before it starts.
    :ivar _advice: what to log once the node listens.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        node: IService,
        tell_where: Callable[[Logger], None],
        advice: str | None,
        stderr: TextIO | None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._tell_where = tell_where
        self._told = False
        self._advice = advice
        self._stderr = stderr
        node.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Start what needs privileges (``twistd`` only).

        :raises CannotStart: if the port or the data cannot be had.
        """
        self._start(super().privilegedStartService)

    def startService(self) -> None:
        """Start the node.

        :raises CannotStart: if the port or the data cannot be had.
        """
        self._start(super().startService)
        if self._advice is not None:
            self._reactor.callWhenRunning(self._advise, self._advice)

    def _start(self, start: Callable[[], None]) -> None:
        if not self._told:
            self._told = True
            self._tell_where(self._log)
        try:
            start()
        except CannotListenError as error:
            reason = _why_not(error)
            self._give_up(reason, reason)
        except StorageError as error:
            self._give_up(" ".join(str(error).split()), _in_short(error))

    def _advise(self, text: str) -> None:
        self._log.info("{text}", text=text)

    def _give_up(self, reason: str, short: str) -> NoReturn:
        """Say it in the log, on the terminal (sys.stderr is the log by now), and to ``twistd``."""
        self._log.error("{reason}", reason=reason)
        if self._stderr is not None:
            print(f"chord: {reason}", file=self._stderr, flush=True)
        raise CannotStart(short) from None


def _why_not(error: CannotListenError) -> str:
    """Why the port cannot be had; short, since a daemon's parent is told 100 bytes only."""
    cause = error.socketError
    option = getattr(error, "option", "--port")
    if getattr(cause, "errno", None) == errno.EADDRINUSE:
        return f"port {error.port} on {error.interface} is in use: choose another {option}"
    port = str(error.port)
    where = show_address(str(error.interface), int(port)) if port.isdigit() else port
    if getattr(cause, "errno", None) == errno.EADDRNOTAVAIL:
        see = "--interface" if option == "--port" else option
        return f"{error.interface} is no address of this machine: see {see}"
    return f"cannot listen on {where}: {getattr(cause, 'strerror', None) or cause}"


def _in_short(error: StorageError) -> str:
    """Why the data cannot be had, for a daemon's parent, which tells of the log besides."""
    if isinstance(error, StorageInUse):
        return f"its data is in use by {f'process {error.pid}' if error.pid else 'a process'}"
    if isinstance(error, StorageCorrupt):
        return "its data is damaged"
    if isinstance(error, StorageMismatch):
        return "the data is not this node's"
    if isinstance(error, StorageFull):
        return "there is no room for its data"
    return "its data cannot be used"


def _advice(options: Options) -> str | None:
    """What the operator should know about who can reach the node."""
    if options["interface"] is not None:
        return None  # the node itself warns, if it has to
    reach = "--interface 0.0.0.0 (or this machine's LAN address)"
    if not options["tls"]:
        reach += " and, recommended, --tls DIR"
    return f"Only this machine can connect. For other machines: {reach}."


def _tell_where(log: Logger, options: Options, storage: SQLiteStorage | None) -> None:
    """Log where the data is."""
    if storage is not None:
        log.info(
            "Keeps its data in {path}, with --sync {sync}.", path=storage.path, sync=storage.sync
        )
    elif options["memory"]:
        log.info("Keeps everything in memory, and leaves its ring when it stops.")
    else:
        log.info(
            "Keeps everything in memory, and leaves its ring when it stops: a node with --port 0"
            " has no data folder unless --data names one."
        )


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
        storage = storage_for(options)
        node = service_factory(
            reactor,
            options["interface"] or LOOPBACK,
            options["port"],
            k=options["k"],
            prot=options["prot"],
            out_addr=options["out-addr"],
            join=options["join"],
            replicas=options["replicas"],
            tls=options["tls"],
            storage=storage,
            leave_on_stop=bool(options["leave-on-stop"]),
            **({} if options["cache"] is None else {"cache": options["cache"]}),
        )
    except (ValueError, TypeError, OSError, ChordError) as error:
        refuse(error)

    def tell_where(log: Logger) -> None:
        _tell_where(log, options, storage)

    daemon = ChordDaemon(reactor, node, tell_where, _advice(options), sys.__stderr__)
    if options["http"] is not None:
        _serve_http(reactor, node, options["http"]).setServiceParent(daemon)
    return daemon


def _serve_http(reactor: Any, node: Any, endpoint: str) -> IService:
    """The node's ring over HTTP; what that needs is imported only where it is asked for."""
    from .web import WebService

    try:
        return WebService(reactor, node, endpoint)
    except ValueError as error:
        refuse(ValueError(f"--http: {error}"))
