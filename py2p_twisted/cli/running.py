"""The reactor of one command: from the first call to the exit code (floor 4).

Owns the signals.  Ctrl-C and SIGTERM cancel what the command is doing and let it close its
connections; the second one ends the process at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from .frame import ExitCode

__all__ = ["run"]

_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


def run(main: Callable[[Any], Coroutine[Any, Any, ExitCode]]) -> ExitCode:
    """Run a coroutine in the reactor, once in the life of the process.

    :param main: gets the reactor.
    :returns: what it returns, or the code of the signal that ended it.
    :raises Exception: what it raises.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    ended: list[ExitCode | Failure] = []
    caught: list[signal.Signals] = []
    task: list[Deferred[ExitCode]] = []

    def begin() -> None:
        task.append(Deferred.fromCoroutine(main(reactor)))
        task[0].addBoth(end)

    def end(result: ExitCode | Failure) -> None:
        ended.append(result)
        reactor.stop()

    def interrupt() -> None:
        if task and not ended:
            task[0].cancel()

    def on_signal(number: int, _: Any) -> None:
        if caught:
            os._exit(_CODES[caught[0]])
        caught.append(signal.Signals(number))
        reactor.callFromThread(interrupt)

    reactor.callWhenRunning(begin)
    for number in _CODES:
        signal.signal(number, on_signal)
    reactor.run(installSignalHandlers=False)
    result = ended[0]
    if caught and (not isinstance(result, Failure) or result.check(CancelledError)):
        return _CODES[caught[0]]
    if isinstance(result, Failure):
        result.raiseException()
    return result
