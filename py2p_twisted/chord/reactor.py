"""The reactor's thread, and the way into it from the threads of a user (floor 4).

Owns what crochet runs: starts it with the first socket, never at import, and closes the sockets
that are still open when the process ends.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.python import threadable
from twisted.python.failure import Failure

from ..errors import ChordError, NotConnected, OperationTimeout, WouldBlockReactor
from ..service import ChordService
from .logs import bridge

if TYPE_CHECKING:
    # At run time only where it is used: it makes a thread, without starting it, and that cannot be
    # started any more (Python 3.13) when the process has forked meanwhile.
    import crochet

__all__ = ["GRACE", "block", "close_later", "open_services", "run_later", "start_reactor"]

#: Seconds that a caller waits longer than the service should need, before it stops believing it.
GRACE = 5.0
#: Seconds for all open sockets together to close, when the process ends.
_EXIT_PATIENCE = 2.0
#: Threads for looking names up; none can be started any more while the interpreter ends.
_RESOLVERS = 2

_log = Logger()
_starting = threading.Lock()
_started_by: int | None = None  # the process whose reactor thread this module started
_reactor: Any = None
_begin: Any = None  # calls _call() in the reactor's thread; set once, because making it takes long
#: The services of this process, in the order of their opening.  For the reactor's thread only.
open_services: dict[ChordService, None] = {}


# -- the reactor's thread


def start_reactor() -> Any:
    """The global reactor, running in a thread of this process.

    :raises ChordError: after a fork: the thread that the parent had started is not here.
    :raises WouldBlockReactor: if somebody else runs the reactor.
    """
    global _begin, _reactor, _started_by
    try:
        import crochet
    except IndexError:  # it looks for the main thread
        raise ChordError(
            "this process was forked in a thread of its parent, not the main one: fork in the main "
            'thread, or start processes with the "spawn" method of multiprocessing'
        ) from None
    from twisted.internet import reactor

    with _starting:
        if _started_by == os.getpid():
            return _reactor
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
        _reactor, _started_by = reactor, os.getpid()
        _begin = crochet.run_in_reactor(_call)
        _reactor.callFromThread(_prepare, _reactor, show_warning)
        return _reactor


def _prepare(reactor: Any, show_warning: Any) -> None:
    """First thing in the reactor's thread."""
    warnings.showwarning = show_warning  # Twisted took it, but the program is not Twisted's
    bridge()
    reactor.getThreadPool().adjustPoolsize(minthreads=_RESOLVERS)
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(_leave_all(reactor))
    )


async def _leave_all(reactor: Any) -> None:
    """The process ends: close one socket after the other, so that keys find a place."""
    end = reactor.seconds() + _EXIT_PATIENCE
    waiting = list(open_services)
    while waiting and reactor.seconds() < end:
        await _leave(reactor, waiting.pop(0), end)
    await DeferredList([Deferred.fromCoroutine(_leave(reactor, one, end)) for one in waiting])


async def _leave(reactor: Any, service: ChordService, end: float) -> None:
    leaving = service.stopService()
    hurry = reactor.callLater(max(0.0, end - reactor.seconds()), leaving.cancel)
    try:
        await leaving
    except CancelledError:
        _log.debug("The process ends before all connections are closed.")
    except Exception:
        _log.failure("A socket did not close")
    if hurry.active():
        hurry.cancel()


class _Outcome:
    """What an operation ended with; crochet logs failures that nobody fetches, but not these."""

    __slots__ = ("result",)

    def __init__(self, result: Any) -> None:
        self.result = result


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], pending: set[Any]) -> Any:
    """Call a function that may return a Deferred or a coroutine; keep it while it runs."""
    running = maybeDeferred(function, *arguments)
    pending.add(running)

    def ended(result: Any) -> _Outcome:
        pending.discard(running)
        return _Outcome(result)

    return running.addBoth(ended)


def block(
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
    import crochet

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
    import crochet

    operation.cancel()
    try:
        operation.wait(GRACE)
    except crochet.TimeoutError:
        _log.warn("An operation was cancelled, but did not end within {grace} s.", grace=GRACE)
    except crochet.ReactorStopped:
        _log.debug("An operation ended with the reactor.")


def run_later(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in the reactor's thread, soon, and do not wait for it."""
    if _started_by == os.getpid() and _reactor.running:
        _reactor.callFromThread(function, *arguments)


def close_later(source: AsyncGenerator[Any, None]) -> None:
    """End an iteration that was abandoned; garbage is collected in any thread, so do not wait."""
    if _started_by == os.getpid() and _reactor.running:
        _reactor.callFromThread(maybeDeferred, _close, source)


async def _close(source: AsyncGenerator[Any, None]) -> None:
    await source.aclose()
