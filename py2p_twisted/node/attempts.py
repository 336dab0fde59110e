"""How often one operation is tried, how long, and what is known when it fails (floor 2).

Owns the judgement on failures: what may be tried again, what leaves the outcome of a write in
doubt, and the error that the user sees in the end.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import ChordError, NotConnected, OperationTimeout, Unavailable
from ..table.group import Epoch
from ..table.proposer import Write
from ..wire.messages import Declined, Reply, WrongEpoch
from .core import Core, Phase

__all__ = ["Attempts", "is_doubtful", "unknown_outcome", "with_doubt"]


class Attempts:
    """The tries of one operation: how long yet, and what went wrong so far.

    :param write: does it write?  Then its outcome may be unknown.
    :param timeout: seconds for all tries together.
    :ivar doubtful: the epoch in which a try was sent whose answer never came, None if no such.
    """

    def __init__(self, core: Core, *, write: bool, timeout: float | None = None) -> None:
        self._core = core
        self._write = write
        self._timeout = core.settings.operation_timeout if timeout is None else timeout
        self._deadline: float = core.clock.seconds() + self._timeout
        self._pause = core.settings.retry_min
        self._unreachable = False
        self._last = "it was not tried"
        self.doubtful: Epoch | None = None

    @property
    def remaining(self) -> float:
        """Seconds that are left, not below zero."""
        now: float = self._core.clock.seconds()
        return max(0.0, self._deadline - now)

    def note(self, outcome: Reply | Failure, epoch: Epoch) -> bool:
        """A try ended without success; True if another one may follow at once.

        :raises ChordError: if trying again is of no use.
        """
        self._unreachable = False
        if isinstance(outcome, WrongEpoch):
            if outcome.config is not None and self._core.learn(outcome.config):
                return True
            self._last = "the key's partition is moving"
            return False
        if isinstance(outcome, Failure):
            if not outcome.check(OperationTimeout, ConnectionError):
                outcome.raiseException()
            if is_doubtful(outcome) and self.doubtful is None:
                self.doubtful = epoch
            self._unreachable = outcome.check(ConnectionError) is not None
            self._last = outcome.getErrorMessage()
            return False
        self._last = outcome.reason if isinstance(outcome, Declined) else "the node is busy"
        return False

    async def wait(self) -> None:
        """Pause before the next try, longer each time.

        :raises Unavailable, OperationTimeout: if the time is over.
        :raises NotConnected: if the node was stopped.
        """
        if self._core.phase is Phase.STOPPED:
            raise NotConnected("this node was stopped", outcome_unknown=self._unknown)
        pause = self._core.jittered(self._pause)
        if self.remaining <= pause:
            raise self.over()
        self._pause = min(2 * self._pause, self._core.settings.retry_max)
        await self._core.sleep(pause)

    async def within(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do something that helps, but not for longer than the operation may take."""
        helping = Deferred.fromCoroutine(coroutine)
        helping.addTimeout(max(self.remaining, 0.01), self._core.clock, lambda _, __: None)
        await helping

    @property
    def _unknown(self) -> bool:
        return self._write and self.doubtful is not None

    def over(self) -> ChordError:
        """The error for an operation whose time is over."""
        if self._unreachable:
            return Unavailable(
                f"0 of the 1 members that keep this part of the keys could be reached in "
                f"{self._timeout:g} s ({self._last}); other keys are not affected. If that node "
                "will never come back: recover(accept_data_loss=True)",
                reachable=0,
                members=1,
                outcome_unknown=self._unknown,
            )
        return OperationTimeout(
            f"not done within {self._timeout:g} s: {self._last}", outcome_unknown=self._unknown
        )


def is_doubtful(outcome: object) -> bool:
    """Was a request sent whose answer never came?  Then a write may have taken effect."""
    if not isinstance(outcome, Failure):
        return False
    error = outcome.value
    return isinstance(error, OperationTimeout) or getattr(error, "sent", False)


def with_doubt(write: Write, doubtful: Epoch | None) -> Write:
    """The same write, marked as a retry if an earlier try is in doubt."""
    if doubtful is None:
        return write
    return Write(write.key, write.value, write.operation, write.condition, write.expected, doubtful)


def unknown_outcome() -> OperationTimeout:
    """The error for a write whose first try can no longer be told from no try."""
    return OperationTimeout(
        "the write was sent, no answer came, and since then too much happened to tell whether it "
        "took effect",
        outcome_unknown=True,
    )
