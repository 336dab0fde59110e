"""Is there an order of these calls that a single register explains? (test support; pure)

Owns what each operation means and the search for an order: Wing and Gong's, with the memory of
visited configurations that Lowe added ("Testing for linearizability", 2017).  Knows one register
only; whoever has many keys asks once for each.  Imports nothing of the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

__all__ = ["ANY", "KINDS", "Call", "Kind", "Outcome", "Search", "State", "search"]

#: What a register holds: None is "absent".
State = bytes | None
Arguments = tuple[State, ...]


class Outcome(Enum):
    """What a search found out."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "violated"
    UNDECIDED = "undecided"


class _Any(Enum):
    ANY = "anything"


#: The result of a call whose result nobody saw.
ANY = _Any.ANY


@dataclass(frozen=True)
class Kind:
    """One kind of operation.

    :ivar apply: value before and arguments, to result and value after.
    :ivar idle: do these arguments and this result prove that it changed nothing?
    """

    apply: Callable[[State, Arguments], tuple[object, State]]
    idle: Callable[[Arguments, object], bool]


def _compare_and_set(state: State, arguments: Arguments) -> tuple[object, State]:
    expected, value = arguments
    return (True, value) if state == expected else (False, state)


def _setdefault(state: State, arguments: Arguments) -> tuple[object, State]:
    value = arguments[0] if state is None else state
    return value, value


#: Every kind of operation, by the name that a history calls it.  delete tells whether something
#: was there, compare_and_set whether it was done, setdefault what is there now.
KINDS: dict[str, Kind] = {
    "get": Kind(lambda state, _: (state, state), lambda _, result: True),
    "set": Kind(lambda _, arguments: (None, arguments[0]), lambda _, result: False),
    "delete": Kind(lambda state, _: (state is not None, None), lambda _, result: result is False),
    "pop": Kind(lambda state, _: (state, None), lambda _, result: result is None),
    "setdefault": Kind(_setdefault, lambda arguments, result: result != arguments[0]),
    "compare_and_set": Kind(_compare_and_set, lambda _, result: result is False),
}


@dataclass(frozen=True)
class Call:
    """One call as the search sees it.

    :ivar begin: its place in the order of all beginnings and ends.
    :ivar end: the same, or None if it is not known to have ended: it may then take effect at any
        time after its beginning, or never.
    :ivar result: what it returned, or :data:`ANY`.
    """

    kind: str
    arguments: Arguments
    begin: int
    end: int | None = None
    result: object = ANY

    @property
    def idle(self) -> bool:
        """Is it certain that it changed nothing?"""
        return self.result is not ANY and KINDS[self.kind].idle(self.arguments, self.result)


@dataclass(frozen=True)
class Search:
    """What came out, and the values that the register may hold at the end.

    :ivar finals: all of them if the search was asked for every one; else at most one.
    """

    outcome: Outcome
    finals: frozenset[State]


def search(
    calls: Iterable[Call], initial: State = None, *, budget: int, every: bool = False
) -> Search:
    """Look for an order in which a register gives exactly these results.

    :param budget: how many placements may be tried before it is given up as undecided.
    :param every: go on after the first such order, to learn every value that is possible at the
        end.
    """
    return _Searching(calls).run(initial, budget, every)


class _Searching:
    """One search.  A configuration is (which calls are placed, as bits; the value then)."""

    def __init__(self, calls: Iterable[Call]) -> None:
        ordered = sorted(calls, key=lambda call: call.begin)
        self.known = [call for call in ordered if call.end is not None]
        self.ends = [inf if call.end is None else call.end for call in self.known]
        self.idle = [call.idle for call in self.known]
        # A read of which nobody saw the result says nothing.
        self.unknown = [call for call in ordered if call.end is None and call.kind != "get"]
        self.twins = _previous_twins(self.unknown)
        self.tried = 0

    def run(self, initial: State, budget: int, every: bool) -> Search:
        count = len(self.known)
        all_known = (1 << count) - 1
        finals: dict[State, None] = {}
        seen = {(0, initial)}
        stack: list[tuple[int, State, int]] = [(0, initial, 0)]
        while stack:
            placed, state, low = stack.pop()
            if placed & all_known == all_known:
                finals[state] = None
                if not every:
                    break
            while low < count and placed >> low & 1:
                low += 1
            for bit, after in self._next(placed, state, low):
                configuration = (placed | bit, after)
                if configuration not in seen:
                    seen.add(configuration)
                    stack.append((*configuration, low))
            if self.tried > budget:
                return Search(Outcome.UNDECIDED, frozenset())
        outcome = Outcome.LINEARIZABLE if finals else Outcome.VIOLATED
        return Search(outcome, frozenset(finals))

    def _next(self, placed: int, state: State, low: int) -> list[tuple[int, State]]:
        """Every way on from a configuration, the most promising last."""
        window, horizon = self._window(placed, low)
        ways: list[tuple[int, State]] = []
        for number in window:
            call = self.known[number]
            self.tried += 1
            result, after = KINDS[call.kind].apply(state, call.arguments)
            if call.result is ANY or call.result == result:
                if self.idle[number]:
                    return [(1 << number, after)]  # it may as well come now: it changes nothing
                ways.append((1 << number, after))
        return self._next_unknown(placed, state, horizon) + ways

    def _window(self, placed: int, low: int) -> tuple[list[int], float]:
        """Which known calls may come next, the soonest to end last; and the soonest end.

        Those that began before any call that is not placed yet ended.
        """
        window: list[int] = []
        horizon = inf
        for number in range(low, len(self.known)):
            if self.known[number].begin > horizon:
                break
            if not placed >> number & 1:
                window.append(number)
                horizon = min(horizon, self.ends[number])
        window.sort(key=lambda number: -self.ends[number])
        return window, horizon

    def _next_unknown(self, placed: int, state: State, horizon: float) -> list[tuple[int, State]]:
        ways: list[tuple[int, State]] = []
        for number, call in enumerate(self.unknown, start=len(self.known)):
            if call.begin > horizon:
                break
            twin = self.twins[number - len(self.known)]
            if placed >> number & 1 or (
                twin is not None and not placed >> twin + len(self.known) & 1
            ):
                continue
            self.tried += 1
            _, after = KINDS[call.kind].apply(state, call.arguments)
            if after != state:  # or it may as well never have happened
                ways.append((1 << number, after))
        return ways


def _previous_twins(calls: Sequence[Call]) -> list[int | None]:
    """For each call the last one before it that does the same: that one may as well go first."""
    last: dict[Any, int] = {}
    twins: list[int | None] = []
    for number, call in enumerate(calls):
        twins.append(last.get((call.kind, call.arguments)))
        last[call.kind, call.arguments] = number
    return twins
