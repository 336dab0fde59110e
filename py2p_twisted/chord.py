"""The dictionary for programs that do not use Twisted: every call blocks (floor 4).

Owns the way from a user's threads into the reactor's thread, which crochet starts with the first
socket, and the way out of the process: sockets that are still open leave their ring when it ends.
Each operation is one of :class:`py2p_twisted.service.ChordService`; nothing is decided here.
Importing this module starts nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import (
    AsyncGenerator,
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from itertools import chain
from typing import Any, TypeVar, overload

import crochet
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python import threadable
from twisted.python.failure import Failure

from .base import Peer, protocol, show_address, to_base_58
from .errors import (
    CannotListen,
    ChordError,
    NotConnected,
    OperationTimeout,
    WouldBlockReactor,
)
from .node.recovery import RecoveryReport
from .service import ChordService, Text, as_bytes
from .settings import DEFAULT_PROTOCOL

__all__ = ["ChordSocket", "chord_socket", "default_protocol"]

T = TypeVar("T")

#: The network of everyone who does not choose one.
default_protocol = DEFAULT_PROTOCOL

#: Seconds that a caller waits longer than the service should need, before it stops believing it.
_GRACE = 5.0
#: Seconds that joining or leaving may take; both move keys.
_MOVING = 120.0
#: Seconds for all open sockets together to leave their rings when the process ends.
_EXIT_PATIENCE = 2.0
#: Keys, and bytes, that are sent to the reactor's thread at once.
_CHUNK_KEYS, _CHUNK_BYTES = 8192, 8 * 1024 * 1024
#: Threads for looking names up; none can be started any more while the interpreter ends.
_RESOLVERS = 2

_LEVELS = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}
_PACKAGE = __name__.partition(".")[0]
_logger = logging.getLogger(_PACKAGE)

_starting = threading.Lock()
_started_by: int | None = None  # the process whose reactor thread this module started
_open: dict[ChordService, None] = {}  # in the order of opening; reactor thread only


# -- the reactor's thread


def _start_reactor() -> Any:
    """The global reactor, running in a thread of this process.

    :raises ChordError: after a fork: the thread that the parent had started is not here.
    :raises WouldBlockReactor: if somebody else runs the reactor.
    """
    global _started_by
    from twisted.internet import reactor

    with _starting:
        if _started_by == os.getpid():
            return reactor
        if _started_by is not None:
            raise ChordError(
                "this process was forked from one that had opened a chord_socket, whose reactor "
                "thread is not here: fork before the first socket, or start processes with the "
                '"spawn" method of multiprocessing'
            )
        of_crochet = any(
            thread.name == "CrochetReactor" and thread.ident == threadable.ioThread
            for thread in threading.enumerate()
        )
        if getattr(reactor, "running", False) and not of_crochet:
            raise WouldBlockReactor(
                "this process already runs the Twisted reactor: use "
                "py2p_twisted.service.ChordService there, whose operations return Deferreds"
            )
        show_warning = warnings.showwarning
        crochet.setup()
        reactor.callFromThread(_prepare, reactor, show_warning)  # type: ignore[attr-defined]
        _started_by = os.getpid()
        return reactor


def _prepare(reactor: Any, show_warning: Any) -> None:
    """First thing in the reactor's thread."""
    warnings.showwarning = show_warning  # Twisted took it, but the program is not Twisted's
    globalLogPublisher.addObserver(_to_logging)
    logging.getLogger("twisted").addFilter(_is_foreign)
    reactor.getThreadPool().adjustPoolsize(minthreads=_RESOLVERS)
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(_leave_all(reactor))
    )


async def _leave_all(reactor: Any) -> None:
    """The process ends: leave the rings, one socket after the other so that keys find a place."""
    end = reactor.seconds() + _EXIT_PATIENCE
    for service in list(_open):
        leaving = service.stopService()
        hurry = reactor.callLater(max(0.0, end - reactor.seconds()), leaving.cancel)
        await leaving
        if hurry.active():
            hurry.cancel()


class _Outcome:
    """What an operation ended with; crochet logs failures that nobody fetches, but not these."""

    __slots__ = ("result",)

    def __init__(self, result: Any) -> None:
        self.result = result


@crochet.run_in_reactor
def _begin(function: Callable[..., Any], arguments: tuple[Any, ...], pending: set[Any]) -> Any:
    """Call a function that may return a Deferred or a coroutine; keep it while it runs."""
    running = maybeDeferred(function, *arguments)
    pending.add(running)

    def ended(result: Any) -> _Outcome:
        pending.discard(running)
        return _Outcome(result)

    return running.addBoth(ended)


def _block(
    function: Callable[..., Any],
    *arguments: Any,
    patience: float,
    pending: set[Any],
    write: bool = False,
) -> Any:
    """Call a function in the reactor's thread and wait for what it ends with.

    :param patience: seconds after which the operation is cancelled.
    :param pending: holds the operation while it runs.
    :param write: whether the operation may have changed something when nothing is known of it.
    :raises OperationTimeout: if the patience is over.
    :raises NotConnected: if the reactor stopped, or the socket was closed meanwhile.
    """
    if threadable.isInIOThread():
        raise WouldBlockReactor(
            "a blocking call in the reactor's own thread could never return: use "
            "py2p_twisted.service.ChordService there, or twisted.internet.threads.deferToThread"
        )
    try:
        operation = _begin(function, arguments, pending)
        try:
            outcome: Any = operation.wait(patience)
        except crochet.TimeoutError:
            _give_up(operation)
            raise OperationTimeout(
                f"no result within {patience:g} s; the operation was cancelled",
                outcome_unknown=write,
            ) from None
        except BaseException:  # KeyboardInterrupt
            _give_up(operation)
            raise
    except crochet.ReactorStopped:
        raise NotConnected(
            "the reactor has stopped, because the program ends", outcome_unknown=write
        ) from None
    result = outcome.result
    if not isinstance(result, Failure):
        return result
    error = result.value
    if isinstance(error, CancelledError):
        raise NotConnected(
            "the socket was closed during the operation", outcome_unknown=write
        ) from None
    if isinstance(error, ChordError | KeyError):  # how it came about inside is not of interest
        raise error.with_traceback(None) from error.__cause__
    result.raiseException()


def _give_up(operation: crochet.EventualResult[Any]) -> None:
    """Cancel an operation, and see it end."""
    operation.cancel()
    try:
        operation.wait(_GRACE)
    except (crochet.TimeoutError, crochet.ReactorStopped):
        _logger.warning("an operation was cancelled, but did not end")


# -- logging


def _to_logging(event: LogEvent) -> None:
    """A log observer: hand the package's own events to the logger of the same name."""
    namespace = str(event.get("log_namespace", ""))
    level = _LEVELS.get(event.get("log_level", LogLevel.info), logging.INFO)
    if namespace.partition(".")[0] != _PACKAGE:
        return
    logger = logging.getLogger(namespace)
    if logger.isEnabledFor(level):
        failure = event.get("log_failure")
        cause = (failure.type, failure.value, failure.getTracebackObject()) if failure else None
        logger.log(level, "%s", formatEvent(event), exc_info=cause)


def _is_foreign(record: logging.LogRecord) -> bool:
    """A filter for crochet's bridge, which hands everything to the logger "twisted"."""
    event = getattr(record.msg, "event", {})
    return str(event.get("log_namespace", "")).partition(".")[0] != _PACKAGE


def _show_log(debug_level: int) -> None:
    """Let the package's log through, to stderr if the program did not set logging up."""
    wanted = {0: logging.WARNING, 1: logging.INFO}.get(debug_level, logging.DEBUG)
    if _logger.level == logging.NOTSET or (debug_level and wanted < _logger.level):
        _logger.setLevel(wanted)
    if debug_level and not _logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(lambda _: not logging.getLogger().handlers)  # set up after all
        _logger.addHandler(handler)


# -- the socket


class ChordSocket(MutableMapping[bytes, bytes]):
    """A node of a ring, and with it the ring's dictionary.  All methods can be called from any
    thread but the reactor's, and block until they are done.

    Keys and values are bytes-like, or ``str`` which stands for its UTF-8 bytes; what comes back is
    ``bytes``.  Operations raise `OperationTimeout`, `Unavailable` or `NotConnected` of
    :mod:`py2p_twisted.errors`; ``error.outcome_unknown`` tells if a write may have happened.

    :param addr: the interface to listen on; ``'0.0.0.0'`` and ``'::'`` announce the LAN address.
    :param port: the port to listen on; 0 picks a free one, which `out_addr` tells.
    :param k: bits of an identifier: up to ``2**k`` nodes can store.
    :param prot: the network: nodes of another one are refused.
    :param out_addr: ``(host, port)`` that others dial, if it is not where the node listens.
    :param debug_level: what the logger ``py2p_twisted`` lets through: 0 warnings, 1 the story of
        the ring too, 2 everything.
    :param replicas: copies of a key; None or 1 in this version.
    :param tls: a folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; implies encryption SSL.
    :param timeout: seconds that an operation may take.
    :raises CannotListen: if the port cannot be had.
    :raises WouldBlockReactor: in a Twisted application, which uses `ChordService`.
    :raises ValueError, TypeError: for a parameter that cannot be.
    """

    def __init__(
        self,
        addr: str,
        port: int,
        k: int = 6,
        prot: protocol = default_protocol,
        out_addr: tuple[str, int] | None = None,
        debug_level: int = 0,
        *,
        replicas: int | None = None,
        tls: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        reactor = _start_reactor()
        _show_log(debug_level)
        self._pid = os.getpid()
        self._closed = False
        self._pending: set[Deferred[Any]] = set()

        def listen() -> ChordService:
            service = ChordService(
                reactor, addr, port, k, prot, out_addr, replicas=replicas, tls=tls, timeout=timeout
            )
            service.privilegedStartService()
            service.startService()
            _open[service] = None
            return service

        try:
            self._service = _block(listen, patience=_GRACE, pending=self._pending)
        except CannotListenError as error:
            cause = error.socketError
            where = show_address(str(error.interface), int(error.port))
            raise CannotListen(
                f"cannot listen on {where}: {getattr(cause, 'strerror', None) or cause}",
                errno=getattr(cause, "errno", None),
            ) from None

    def _wait(
        self, function: Callable[..., Any], *arguments: Any, steps: int = 1, write: bool = False
    ) -> Any:
        """Call a function of the service; each of its steps keeps to the socket's timeout."""
        self._check_open()
        patience = steps * self._service.settings.operation_timeout + _GRACE
        return _block(
            function, *arguments, patience=patience, pending=self._pending, write=write
        )  # fmt: skip

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise ChordError(
                "this socket belongs to the process that this one was forked from: "
                "open one of its own in each process"
            )
        if self._closed:
            raise NotConnected("this socket is closed")

    # -- in and out

    def connect(self, host: str, port: int) -> None:
        """Connect to a node; its ring can be read and written from then on.

        :raises PeerUnreachable, NetworkMismatch, AuthenticationFailed: if it cannot be talked to.
        :raises RingConflict: if both are in rings that are in use.
        """
        self._wait(self._service.connect, host, port, steps=3)

    def join(self) -> None:
        """Store a share: enter the connected ring, or found one if there is none.

        :raises RingFull: if ``2**k`` nodes store already.
        """
        self._move(self._service.join)

    def unjoin(self, discard: bool = False) -> None:
        """Hand this node's share over and stop storing; the socket stays connected.

        :param discard: give up what no other node takes over.
        :raises Unavailable: if nobody takes over and `discard` is false.
        """
        self._move(lambda: self._service.unjoin(discard=discard))

    def recover(self, accept_data_loss: bool = False) -> RecoveryReport:
        """Re-form what dead nodes kept, which will never come back, from what is left.

        :param accept_data_loss: must be True: the keys of dead nodes are gone for good.
        :raises ValueError: if it is not.
        """
        report: RecoveryReport = self._move(
            lambda: self._service.recover(accept_data_loss=accept_data_loss)
        )
        return report

    def _move(self, function: Callable[..., Any]) -> Any:
        self._check_open()
        return _block(function, patience=_MOVING, pending=self._pending, write=True)

    def close(self) -> None:
        """Leave the ring, within about 10 s, and close everything.  Again: nothing happens."""
        if self._closed or self._pid != os.getpid():
            return
        patience = self._service.settings.leave_timeout + 2 * _GRACE
        pending = self._pending

        async def stop() -> None:
            try:
                await self._service.stopService()
            finally:
                _open.pop(self._service, None)
                for operation in list(pending):
                    operation.cancel()

        try:
            self._closed = True
            _block(stop, patience=patience, pending=set())
        except WouldBlockReactor:
            self._closed = False
            raise
        except NotConnected:
            return  # the program ends, and sees to it

    def __enter__(self) -> ChordSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- one key

    def __getitem__(self, key: Text) -> bytes:
        value: bytes | None = self._wait(self._service.get, as_bytes(key))
        if value is None:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: Text) -> bytes | None: ...
    @overload
    def get(self, key: Text, default: T) -> bytes | T: ...
    def get(self, key: Text, default: Any = None) -> Any:
        """The value at a key, or the default."""
        value: bytes | None = self._wait(self._service.get, as_bytes(key))
        return default if value is None else value

    def __contains__(self, key: object) -> bool:
        return bool(self._wait(self._service.contains, as_bytes(key)))  # type: ignore[arg-type]

    def set(self, key: Text, value: Text) -> None:
        """Write a value: ``sock[key] = value``."""
        self._wait(self._service.set, as_bytes(key), as_bytes(value, "a value"), write=True)

    __setitem__ = set

    def __delitem__(self, key: Text) -> None:
        if not self._wait(self._service.delete, as_bytes(key), write=True):
            raise KeyError(key)

    def compare_and_set(self, key: Text, expected: Text | None, value: Text) -> bool:
        """Write only if the present value is the expected one (None: only if there is none).

        :returns: whether it was written.
        """
        old = None if expected is None else as_bytes(expected, "a value")
        new = as_bytes(value, "a value")
        return bool(
            self._wait(self._service.compare_and_set, as_bytes(key), old, new, write=True)
        )  # fmt: skip

    def setdefault(self, key: Text, default: Text | None = None) -> bytes:  # type: ignore[override]
        """The value at a key; writes the default first if there is none.

        :raises TypeError: if there is none and no default is given: None cannot be stored.
        """
        if default is None and (there := self.get(key)) is not None:
            return there
        new = as_bytes(default, "a value")  # type: ignore[arg-type]
        value: bytes = self._wait(
            self._service.setdefault, as_bytes(key), new, steps=3, write=True
        )  # fmt: skip
        return value

    @overload
    def pop(self, key: Text) -> bytes: ...
    @overload
    def pop(self, key: Text, default: T) -> bytes | T: ...
    def pop(self, key: Text, *default: Any) -> Any:
        """Delete a key and return its value, or the default; without one raises `KeyError`."""
        if len(default) > 1:
            raise TypeError(f"pop() takes a key and one default, not {len(default)}")
        value = self._wait(self._service.pop, as_bytes(key), None, steps=3, write=True)
        if value is not None:
            return value
        if not default:
            raise KeyError(key)
        return default[0]

    def popitem(self) -> tuple[bytes, bytes]:
        """Delete some key and return it with its value.

        :raises KeyError: if there is none.
        """
        item: tuple[bytes, bytes] = self._wait(self._service.popitem, steps=4, write=True)
        return item

    # -- many keys

    def get_many(self, keys: Iterable[Text]) -> dict[bytes, bytes]:
        """The values at these keys, without those that have none; few messages for many keys."""
        found: dict[bytes, bytes] = {}
        for chunk in _chunks((as_bytes(key), b"") for key in keys):
            found.update(self._wait(self._service.get_many, list(chunk), steps=12))
        return found

    def update(self, other: Any = (), /, **kwargs: Text) -> None:
        """Write many keys: a mapping, or pairs, and keywords.  Those of one owner travel together.

        What was written before an error stays written.
        """
        if isinstance(other, Mapping):
            other = other.items()
        elif hasattr(other, "keys"):
            other = ((key, other[key]) for key in other.keys())  # noqa: SIM118
        pairs = chain(other, kwargs.items())
        for chunk in _chunks((as_bytes(k), as_bytes(v, "a value")) for k, v in pairs):
            self._wait(self._service.update, chunk, steps=12, write=True)

    def clear(self) -> None:
        """Delete every key that is there now."""
        pages = len(self) // self._service.settings.page_keys
        self._wait(self._service.clear, steps=4 + 2 * pages, write=True)

    def __len__(self) -> int:
        return int(self._wait(self._service.count))

    def __iter__(self) -> Iterator[bytes]:
        return self._stream(self._service.keys, len)

    def keys(self) -> KeysView[bytes]:
        """The keys; iterating fetches them page by page, each that stays exactly once."""
        return KeysView(self)

    def values(self) -> ValuesView[bytes]:
        """The values, as :meth:`items`."""
        return _Values(self)

    def items(self) -> ItemsView[bytes, bytes]:
        """Keys and values; iterating fetches them together, page by page."""
        return _Items(self)

    def _stream(
        self, start: Callable[[], Any], size_of: Callable[[Any], int]
    ) -> Iterator[Any]:  # fmt: skip
        """What an asynchronous iterator of the service gives, a page at a time."""
        settings = self._service.settings
        source: AsyncGenerator[Any, None] = start()

        async def page() -> tuple[list[Any], bool]:
            taken, room = [], settings.page_bytes
            async for item in source:
                taken.append(item)
                room -= size_of(item)
                if room <= 0 or len(taken) >= settings.page_keys:
                    return taken, True
            return taken, False

        more = True
        try:
            while more:
                taken, more = self._wait(page, steps=4)
                yield from taken
        finally:
            if more and self._pid == os.getpid():
                _close_later(source)

    # -- what it looks like

    @property
    def id_10(self) -> int:
        """This node's place on the circle."""
        return self._service.node.core.me.id

    @property
    def id(self) -> bytes:
        """This node's place on the circle, in base 58."""
        return to_base_58(self.id_10)

    @property
    def k(self) -> int:
        """Bits of an identifier."""
        return self._service.settings.k

    @property
    def limit(self) -> int:
        """How many nodes can store."""
        return 1 << self.k

    @property
    def protocol(self) -> protocol:
        """The network."""
        return self._service.settings.prot

    @property
    def out_addr(self) -> tuple[str, int]:
        """The address that others dial."""
        return self._service.out_addr

    @property
    def routing_table(self) -> dict[bytes, Peer]:
        """The connected nodes that store, by their identifier in base 58."""
        return {to_base_58(peer.id): peer for peer, member in self._peers() if member}

    @property
    def awaiting_ids(self) -> list[Peer]:
        """The connected nodes that do not store (yet)."""
        return [peer for peer, member in self._peers() if not member]

    def _peers(self) -> list[tuple[Peer, bool]]:
        if self._closed:
            return []
        links = self._wait(self._service.links)
        return [(link.peer, not link.hello.leeching) for link in links]

    @property
    def next(self) -> Peer | None:
        """The node that follows on the circle, None without one."""
        pointers = self._service.node.core.pointers
        return None if pointers is None else pointers.successor

    @property
    def prev(self) -> Peer | None:
        """The node before on the circle, None without one."""
        pointers = self._service.node.core.pointers
        return None if pointers is None else pointers.predecessor

    @property
    def leeching(self) -> bool:
        """True while this node stores nothing."""
        return self._service.leeching

    @property
    def status(self) -> str:
        """``"Nominal"``, or what is wrong."""
        if self._closed:
            return "Closed"
        return str(self._wait(lambda: self._service.status))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "leeching" if self.leeching else "joined"
        where = show_address(*self.out_addr)
        return f"<ChordSocket {self.id.decode()} at {where}, k={self.k}, {state}>"

    # A socket is one node, not the dictionary that it shows: equal only to itself.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


chord_socket = ChordSocket


class _Values(ValuesView[bytes]):
    """Values in pages, where the general view would make a request for each."""

    _mapping: ChordSocket

    def __iter__(self) -> Iterator[bytes]:
        return (value for _, value in _Items(self._mapping))

    def __contains__(self, value: object) -> bool:
        return any(value == there for there in self)


class _Items(ItemsView[bytes, bytes]):
    """Items in pages."""

    _mapping: ChordSocket

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        sock = self._mapping
        return sock._stream(sock._service.items, lambda item: len(item[0]) + len(item[1]))


def _chunks(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[dict[bytes, bytes]]:
    """Pairs in dictionaries of bounded size."""
    chunk: dict[bytes, bytes] = {}
    room = _CHUNK_BYTES
    for key, value in pairs:
        chunk[key] = value
        room -= len(key) + len(value)
        if room <= 0 or len(chunk) == _CHUNK_KEYS:
            yield chunk
            chunk, room = {}, _CHUNK_BYTES
    if chunk:
        yield chunk


def _close_later(source: AsyncGenerator[Any, None]) -> None:
    """End an iteration that was abandoned; garbage is collected in any thread, so do not wait."""
    from twisted.internet import reactor

    reactor.callFromThread(maybeDeferred, _close, source)  # type: ignore[attr-defined]


async def _close(source: AsyncGenerator[Any, None]) -> None:
    await source.aclose()
