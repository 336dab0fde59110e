"""How often one operation is tried, how long, and what is known when it fails (floor 2).

Owns the judgement on failures: what may be tried again, what leaves the outcome of a write in
doubt, and the error that the user sees in the end.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import (
    ChordError,
    NotConnected,
    OperationTimeout,
    Overloaded,
    StorageFull,
    Unavailable,
)
from ..table.group import Config, Epoch
from ..wire.messages import Busy, Declined, Failed, Full, WrongEpoch
from .core import Core, Phase

__all__ = ["Attempts", "is_busy", "is_doubtful", "unknown_outcome"]

#: Operations of one node that busy nodes refused, and that wait for another try at the same time.
#: Those that come on top fail at once: tries upon tries would keep the nodes busy.
_MOST_REFUSED = 256


class Attempts:
    """The tries of one operation: how long yet, and what went wrong so far.

    :param write: does it write?  Then its outcome may be unknown.
    :param timeout: seconds for all tries together.
    :param began: on the clock, when the first one began; None: just now.
    :param paced: it sends only so much at once; so it waits for busy nodes as for any others.
    :param writes: how many keys it writes.
    :ivar began: on the clock, when the first one began.
    :ivar doubtful: the epoch in which a try was sent whose answer never came, None if no such.
    :ivar done: of many writes so many took effect already; an error says so.
    """

    def __init__(
        self,
        core: Core,
        *,
        write: bool,
        timeout: float | None = None,
        began: float | None = None,
        paced: bool = False,
        writes: int = 1,
    ) -> None:
        self._core = core
        self._write = write
        self._timeout = core.settings.operation_timeout if timeout is None else timeout
        self.began: float = core.clock.seconds() if began is None else began
        self._deadline = self.began + self._timeout
        self._pause = core.settings.retry_min
        self._short: tuple[int, int] | None = None  # members reached, of how many
        self._config: Config | None = None  # of the last try
        self._last = "it was not tried"
        self._paced = paced
        self._busy = False  # was the last try refused because there is too much to do?
        self.doubtful: Epoch | None = None
        self._writes = writes
        self.done = 0

    def begin_anew(self) -> None:
        """Some of many was done: there is as much time again for the rest."""
        self.began = self._core.clock.seconds()
        self._deadline = self.began + self._timeout
        self._pause = self._core.settings.retry_min
        self._short = None

    @property
    def remaining(self) -> float:
        """Seconds that are left, not below zero."""
        now: float = self._core.clock.seconds()
        return max(0.0, self._deadline - now)

    @property
    def patience(self) -> float:
        """Seconds that one try may take: what is left, but never nothing."""
        return max(self.remaining, 0.05)

    def reached(self, members: int, config: Config) -> None:
        """So many members answered a try that failed."""
        few = members < config.quorum
        self._short = (members, len(config.members)) if few else None

    def note(self, problem: Any, config: Config) -> bool:
        """A try in this configuration ended without success; True if another may follow at once.

        :raises StorageFull: if there is no room.
        :raises ChordError: if trying again is of no use.
        """
        self._config = config
        self._busy = is_busy(problem)
        if self._busy:
            self._last = "its nodes are busy"
        elif isinstance(problem, WrongEpoch):
            self._short = None
            self._last = "the key's partition is moving"
            if problem.config is not None:
                self._core.learn(problem.config)
            newest = self._core.directory.get(config.partition)
            return newest is not None and newest.epoch > config.epoch
        elif isinstance(problem, Failure):
            if not problem.check(OperationTimeout, ConnectionError):
                problem.raiseException()
            if is_doubtful(problem) and self.doubtful is None:
                self.doubtful = config.epoch
            if len(config.members) == 1 and problem.check(ConnectionError):
                self._short = (0, 1)
            self._last = problem.getErrorMessage()
        elif isinstance(problem, Failed):
            if problem.sent and self.doubtful is None:
                self.doubtful = config.epoch
            self.reached(problem.reached, config)
            self._last = "no quorum of the group answered"
        elif isinstance(problem, Full):
            raise StorageFull(problem.reason + self._so_far, outcome_unknown=self._unknown)
        elif isinstance(problem, Declined):
            self._last = problem.reason
        else:
            self._last = "its nodes gave no answer that fits"
        return False

    def check_time(self) -> None:
        """Before a try that follows at once.

        :raises Unavailable, OperationTimeout: if the time is over.
        :raises NotConnected: if the node was stopped.
        """
        self._check_stopped()
        if not self.remaining:
            raise self.over()

    def _check_stopped(self) -> None:
        if self._core.phase is Phase.STOPPED:
            raise NotConnected(
                "this node was stopped" + self._so_far, outcome_unknown=self._unknown
            )

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Whatever ends the tries tells if one of them may have had its effect."""
        try:
            yield
        except ChordError as error:
            error.outcome_unknown = error.outcome_unknown or self._unknown
            raise

    async def wait(self) -> None:
        """Pause before the next try, longer each time.

        :raises Overloaded: if it is of no use to go on at nodes that are busy.
        :raises Unavailable, OperationTimeout: if the time is over.
        :raises NotConnected: if the node was stopped.
        """
        self._check_stopped()
        pause = self._core.jittered(self._pause)
        if self.remaining <= pause or (self._busy and self._is_too_much(pause)):
            raise self.over()
        self._pause = min(2 * self._pause, self._core.settings.retry_max)
        self._core.refused += self._busy
        try:
            await self._core.sleep(pause)
        finally:
            self._core.refused -= self._busy

    def _is_too_much(self, pause: float) -> bool:
        """Is another try at busy nodes better left to the user?"""
        core = self._core
        spent = core.clock.seconds() + pause - self.began
        return not self._paced and (
            core.refused >= _MOST_REFUSED or spent > core.settings.busy_patience
        )

    async def within(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do something that helps, but not for longer than the operation may take."""
        helping = Deferred.fromCoroutine(coroutine)
        helping.addTimeout(max(self.remaining, 0.01), self._core.clock, lambda _, __: None)
        await helping

    @property
    def _unknown(self) -> bool:
        return self._write and (self.doubtful is not None or self.done > 0)

    @property
    def _so_far(self) -> str:
        """What an error adds when some of many keys were written."""
        return f" ({self.done} of {self._writes} keys were written)" if self.done else ""

    def _missing(self) -> tuple[int, int] | None:
        """How many of how many members are there, if those are too few."""
        core, config = self._core, self._config
        if config is None:
            return None
        there = sum(p.instance == core.instance or core.keeps(p) for p in config.members)
        return None if there >= config.quorum else (there, len(config.members))

    def over(self) -> ChordError:
        """The error for an operation whose time is over."""
        missing = self._missing()
        if self._busy and missing is None:
            return Overloaded(
                "the nodes that keep this part of the keys have more to do than they can: try"
                f" again later{self._so_far}",
                outcome_unknown=self._unknown,
            )
        short = self._short or missing
        if short is not None:
            reached, members = short
            advice = (
                "Start the others again; only if their data are gone for good: "
                "recover(accept_data_loss=True)"
            )
            return Unavailable(
                f"{reached} of the {members} members that keep this part of the keys could be "
                f"reached in {self._timeout:g} s ({self._last}); {members // 2 + 1} are needed, "
                f"and keys that other members keep are not affected. {advice}"
                f"{self._so_far}",
                reachable=reached,
                members=members,
                outcome_unknown=self._unknown,
            )
        return OperationTimeout(
            f"not done within {self._timeout:g} s: {self._last}{self._so_far}",
            outcome_unknown=self._unknown,
        )


def is_doubtful(outcome: object) -> bool:
    """Was a request sent whose answer never came?  Then a write may have taken effect."""
    if not isinstance(outcome, Failure):
        return False
    error = outcome.value
    return isinstance(error, OperationTimeout) or getattr(error, "sent", False)


def is_busy(outcome: object) -> bool:
    """Was it not done because there is too much to do?"""
    if isinstance(outcome, Failure):
        return isinstance(outcome.value, Overloaded)
    return isinstance(outcome, Busy)


def unknown_outcome() -> OperationTimeout:
    """The error for a write whose first try can no longer be told from no try."""
    return OperationTimeout(
        "the write was sent, no answer came, and since then too much happened to tell whether it "
        "took effect",
        outcome_unknown=True,
    )
