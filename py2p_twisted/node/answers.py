"""What the users of single keys wait for (floor 2).

Owns the time of the first tries: a settled operation costs no timer of its own, one serves all.
What is tried again keeps to its :class:`~.attempts.Attempts`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ..errors import OperationTimeout
from .core import Core

__all__ = ["Answer", "Answers"]

#: Seconds that a first try may last longer than its time.
_SLACK = 0.02


class Answer(Deferred[Any]):
    """A result that a user waits for; a first try that is enough fires it directly."""

    again: Deferred[Any] | None = None

    @property
    def over(self) -> bool:
        """Does the first try not matter any more?"""
        return self.called or self.again is not None

    def end(self, result: Any) -> None:
        """Fire it, unless it was cancelled."""
        if not self.called:
            self.callback(result)


class Answers:
    """The first tries of this node that are under way."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: dict[Answer, tuple[float, Callable[[Failure], None]]] = {}
        self._timer: IDelayedCall | None = None
        self._look_at = 0.0
        self._stopped = False

    def cancel(self, answer: Any) -> None:
        """The canceller of every answer."""
        self._waiting.pop(answer, None)
        if answer.again is not None:
            answer.again.cancel()

    def fire(self, answer: Answer, result: Any) -> None:
        """The first try was enough."""
        self._waiting.pop(answer, None)
        answer.callback(result)

    def go_on(self, answer: Answer, coroutine: Coroutine[Any, Any, Any]) -> None:
        """The first try was not enough: the answer fires with what this results in."""
        self._waiting.pop(answer, None)
        answer.again = Deferred.fromCoroutine(coroutine)
        answer.again.addBoth(answer.end)

    def watch(self, answer: Answer, until: float, late: Callable[[Failure], None]) -> None:
        """A first try is under way.

        :param until: on the clock, when its time is over.
        :param late: hears then of a failure, unless the answer is over.
        """
        if answer.over:
            return
        if self._stopped:
            late(Failure(OperationTimeout("the node was stopped")))
            return
        self._waiting[answer] = (until, late)
        if self._timer is None or until + _SLACK < self._look_at:
            self._look_again(until)

    def _look_again(self, at: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        clock = self._core.clock
        self._look_at = at + _SLACK
        self._timer = clock.callLater(max(self._look_at - clock.seconds(), 0.0), self._look)

    def _look(self) -> None:
        self._timer = None
        now: float = self._core.clock.seconds()
        self._end([answer for answer, (until, _) in self._waiting.items() if until <= now])
        if self._waiting and self._timer is None:
            self._look_again(min(until for until, _ in self._waiting.values()))

    def _end(self, answers: list[Answer]) -> None:
        for answer in answers:
            waiting = self._waiting.pop(answer, None)
            if waiting is not None:
                waiting[1](Failure(OperationTimeout("no answer in time")))

    def stop(self) -> None:
        """What is under way ends now, and what comes later at once."""
        self._stopped = True
        self._end(list(self._waiting))
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
