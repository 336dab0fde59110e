"""Simulated time: a heap of calls, run one by one (test support; imports nothing of the product).

Owns what time it is and what runs next.  The order is fixed: by time, then by the order in which
the calls were made.  Never sleeps, never reads a real clock, never swallows an exception: what a
call raises reaches whoever steps the clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

__all__ = ["HostClock", "SimCall", "SimClock", "TimeStandsStill"]

_CALLED = -1
_CANCELLED = -2
_WORTH_SWEEPING = 256


class TimeStandsStill(Exception):
    """So many calls ran at one instant that the simulation must be turning in a circle."""


@implementer(IDelayedCall)
class SimCall:
    """A call to come; what :meth:`SimClock.callLater` returns."""

    __slots__ = ("_clock", "args", "function", "kwargs", "owner", "sequence", "when")

    def __init__(
        self,
        clock: SimClock,
        owner: HostClock | None,
        function: Callable[..., Any],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        self._clock = clock
        self.owner = owner
        self.function: Callable[..., Any] | None = function
        self.args = args
        self.kwargs = kwargs
        self.when = 0.0
        self.sequence = 0  # that of its entry in the heap; negative once it ran or was cancelled

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return f"<SimCall {name} at {self.when:.6f}>"

    def getTime(self) -> float:
        """The simulated second at which it is due."""
        return self.when

    def active(self) -> bool:
        """Is it still to come?"""
        return self.sequence >= 0

    def cancel(self) -> None:
        """Take it back.

        :raises AlreadyCalled: if it ran.
        :raises AlreadyCancelled: if it was taken back before.
        """
        self._still_to_come()
        self.finish(_CANCELLED)
        self._clock._left_stale_entry()

    def reset(self, secondsFromNow: float) -> None:
        """Make it due that many seconds from now; raises like :meth:`cancel`."""
        self._still_to_come()
        self._clock._move(self, self._clock.seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        """Make it due that many seconds later (or earlier); raises like :meth:`cancel`."""
        self._still_to_come()
        self._clock._move(self, max(self._clock.seconds(), self.when + secondsLater))

    def finish(self, state: int) -> None:
        """Enter a final state and let go of everything that it held."""
        self.sequence = state
        self.function = None
        self.args = ()
        self.kwargs = {}

    def _still_to_come(self) -> None:
        if self.sequence == _CALLED:
            raise AlreadyCalled()
        if self.sequence == _CANCELLED:
            raise AlreadyCancelled()


_Entry = tuple[float, int, SimCall]


@implementer(IReactorTime)
class SimClock:
    """The one clock of a simulation.  Time moves only in :meth:`step` and its relatives.

    :param calls_at_one_instant: more than so many without any time passing are an error.
    :ivar turn: how many calls have been run; two things that happen in one call see one number.
    """

    def __init__(self, calls_at_one_instant: int = 100_000) -> None:
        self.turn = 0
        self._calls_at_one_instant = calls_at_one_instant
        self._now = 0.0
        self._sequence = 0
        self._heap: list[_Entry] = []
        self._held: list[_Entry] = []  # of paused hosts
        self._stale = 0  # entries in the heap or held whose call was cancelled or moved
        self._turn_at_instant = 0

    def seconds(self) -> float:
        """Simulated seconds since the beginning."""
        return self._now

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> SimCall:
        """Run ``callable`` after ``delay`` simulated seconds.

        :raises ValueError: if the delay is negative or not a number.
        """
        return self.schedule(None, delay, callable, args, kwargs)

    def getDelayedCalls(self) -> Sequence[SimCall]:
        """All calls to come, the next first; without those of killed hosts."""
        entries = sorted([*self._heap, *self._held])
        return [
            call
            for _, sequence, call in entries
            if call.sequence == sequence and not (call.owner and call.owner.killed)
        ]

    def schedule(
        self,
        owner: HostClock | None,
        delay: float,
        function: Callable[..., Any],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> SimCall:
        """``callLater`` on behalf of a host."""
        call = SimCall(self, owner, function, args, kwargs)
        self._put(call, self._now + delay)
        return call

    def step(self) -> bool:
        """Run the next call.  False if there is none; then time did not move."""
        if self._next() is None:
            return False
        self._run_next()
        return True

    def run_until(self, time: float) -> None:
        """Run everything that is due up to ``time`` (inclusive); afterwards it is ``time``."""
        while (when := self._next()) is not None and when <= time:
            self._run_next()
        self._now = max(self._now, time)

    def run_while(self, predicate: Callable[[], bool], limit: float) -> bool:
        """Step as long as ``predicate()`` holds, for at most ``limit`` simulated seconds.

        :returns: True if the predicate turned false, False if the time was up.
        """
        deadline = self._now + limit
        while predicate():
            when = self._next()
            if when is None or when > deadline:
                self._now = max(self._now, deadline)
                return False
            self._run_next()
        return True

    def release(self, owner: HostClock) -> None:
        """Put back, in their old order, the calls that were held for a paused host."""
        held, self._held = self._held, []
        for entry in held:
            if entry[2].sequence != entry[1]:
                self._stale -= 1
            elif entry[2].owner is owner:
                heapq.heappush(self._heap, entry)
            else:
                self._held.append(entry)

    def _put(self, call: SimCall, when: float) -> None:
        if not self._now <= when < float("inf"):
            raise ValueError(f"a call cannot be due at {when!r} when it is {self._now!r}")
        self._sequence += 1
        call.when = when
        call.sequence = self._sequence
        heapq.heappush(self._heap, (when, call.sequence, call))

    def _move(self, call: SimCall, when: float) -> None:
        self._put(call, when)
        self._left_stale_entry()

    def _left_stale_entry(self) -> None:
        self._stale += 1
        if self._stale > _WORTH_SWEEPING and self._stale * 2 > len(self._heap) + len(self._held):
            self._heap = [entry for entry in self._heap if entry[2].sequence == entry[1]]
            self._held = [entry for entry in self._held if entry[2].sequence == entry[1]]
            heapq.heapify(self._heap)
            self._stale = 0

    def _next(self) -> float | None:
        """When the next call is due that may run; sorts out those on top that may not."""
        while self._heap:
            entry = self._heap[0]
            when, sequence, call = entry
            owner = call.owner
            if call.sequence != sequence:
                self._stale -= 1
            elif owner is None or owner.running:
                return when
            elif not owner.killed:
                self._held.append(entry)
            heapq.heappop(self._heap)
        return None

    def _run_next(self) -> None:
        """Run the call on top of the heap, which :meth:`_next` found fit."""
        when, _, call = heapq.heappop(self._heap)
        if when > self._now:
            self._now = when
            self._turn_at_instant = self.turn
        self.turn += 1
        if self.turn - self._turn_at_instant > self._calls_at_one_instant:
            raise TimeStandsStill(f"{self._calls_at_one_instant} calls, then {call!r}")
        function, args, kwargs = call.function, call.args, call.kwargs
        assert function is not None, "a call in the heap is still to come"
        call.finish(_CALLED)
        function(*args, **kwargs)


@implementer(IReactorTime)
class HostClock:
    """The reactor clock of one simulated host: the same time, but its calls can be stopped.

    :ivar running: False while paused, and for ever once killed.
    :ivar killed: True once killed.
    """

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self.running = True
        self.killed = False

    def seconds(self) -> float:
        """Simulated seconds since the beginning; they pass for a paused host too."""
        return self._clock.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> SimCall:
        """Run ``callable`` after ``delay`` simulated seconds, if this host runs by then."""
        return self._clock.schedule(self, delay, callable, args, kwargs)

    def getDelayedCalls(self) -> Sequence[SimCall]:
        """The calls of this host that are to come, the next first; none once it is killed."""
        return [call for call in self._clock.getDelayedCalls() if call.owner is self]

    def pause(self) -> None:
        """Hold all calls from now on, as SIGSTOP would."""
        self.running = False

    def resume(self) -> None:
        """Run what came due meanwhile, at once and in its order; the rest in its time."""
        if not self.killed and not self.running:
            self.running = True
            self._clock.release(self)

    def kill(self) -> None:
        """Never run any call again."""
        self.running = False
        self.killed = True
