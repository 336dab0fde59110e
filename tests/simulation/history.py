"""Who called what when, and what came of it; and the judgement on it (test support; pure).

Owns the record of one run.  Imports nothing of the product.  The order of calls and returns is the
order in which they are recorded; the times are only for the reader.  :mod:`.register` decides.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .register import ANY, KINDS, Arguments, Call, Outcome, search

__all__ = ["ANY", "History", "Operation", "Outcome", "Verdict"]

#: How many placements are tried for one key before it counts as undecided.
BUDGET = 1_000_000

_CONTEXT = 8  # operations of each sort that an excerpt shows


@dataclass(frozen=True)
class Verdict:
    """The judgement on a history.  True in a condition only if it is certainly fine.

    :ivar key: the first key with a violation, or else the first undecided one.
    :ivar text: for the reader, with an excerpt if something is wrong.
    """

    outcome: Outcome
    key: bytes | None = None
    text: str = "linearizable"

    def __bool__(self) -> bool:
        """Fine?  Undecided is not."""
        return self.outcome is Outcome.LINEARIZABLE


class Operation:
    """One call of one client; tell it what came of it, once.

    One that is never told counts as unknown: it may take effect at any later time, or never.
    """

    def __init__(
        self, history: History, client: str, kind: str, key: bytes, arguments: Arguments
    ) -> None:
        self.client = client
        self.kind = kind
        self.key = key
        self.arguments = arguments
        self.begin = history.tick()
        self.end: int | None = None
        self.called_at = history.now
        self.returned_at: float | None = None
        self.result: object = ANY
        self.fate = "no answer"
        self._history = history

    def returned(self, result: object, now: float) -> None:
        """It succeeded.  Give :data:`ANY` for a result that was not seen."""
        self._settle("returned")
        self._history.advance(now)
        self.end, self.returned_at, self.result = self._history.tick(), now, result

    def unknown(self) -> None:
        """It failed, and may yet have taken effect or do so later."""
        self._settle("outcome unknown")

    def failed(self) -> None:
        """It failed and certainly has no effect: it is left out of the judgement."""
        self._settle("failed")

    def as_call(self) -> Call:
        """What the search needs to know of it."""
        return Call(self.kind, self.arguments, self.begin, self.end, self.result)

    def _settle(self, fate: str) -> None:
        if self.fate != "no answer":
            raise ValueError(f"{self} was settled before")
        self.fate = fate

    def __str__(self) -> str:
        until = f"{self.returned_at:10.4f}" if self.returned_at is not None else " " * 10
        what = f"{self.kind}({', '.join(map(_shown, self.arguments))})"
        if self.fate != "returned":
            what += f"  {self.fate}"
        elif self.result is not ANY:
            what += f" -> {self.result if isinstance(self.result, bool) else _shown(self.result)}"
        return f"{self.called_at:10.4f} {until}  {self.client}: {what}"


class History:
    """What all clients did, to all keys.

    :ivar now: the time of the last thing recorded.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.operations: list[Operation] = []
        self._ticks = 0

    def call(
        self, client: str, kind: str, key: bytes, arguments: Arguments, now: float
    ) -> Operation:
        """A client calls.

        :param kind: a name in :data:`.register.KINDS`.
        :param arguments: of the operation: ``()``, ``(value,)`` or ``(expected, value)``.
        :raises ValueError: if time went backwards.
        :raises KeyError: for a kind that is not known.
        """
        KINDS[kind]
        self.advance(now)
        operation = Operation(self, client, kind, key, arguments)
        self.operations.append(operation)
        return operation

    def check(self, budget: int = BUDGET) -> Verdict:
        """Judge it, key by key.

        :param budget: placements to try for each key; more count as undecided.
        """
        by_key: dict[bytes, list[Operation]] = {}
        for operation in self.operations:
            if operation.fate != "failed":
                by_key.setdefault(operation.key, []).append(operation)
        worst = Verdict(Outcome.LINEARIZABLE)
        for key, operations in by_key.items():
            outcome = search(_calls(operations), budget=budget).outcome
            if outcome is Outcome.VIOLATED:
                return Verdict(outcome, key, _explain(key, operations, budget))
            if outcome is Outcome.UNDECIDED and worst:
                text = (
                    f"key {key!r}: undecided after {budget} placements of {len(operations)} calls"
                )
                worst = Verdict(outcome, key, text)
        return worst

    def advance(self, now: float) -> None:
        """It is now so late.

        :raises ValueError: if time went backwards.
        """
        if now < self.now:
            raise ValueError(f"it was {self.now!r} already, it cannot be {now!r}")
        self.now = now

    def tick(self) -> int:
        """The next number in the order of beginnings and ends."""
        self._ticks += 1
        return self._ticks


def _calls(operations: Iterable[Operation]) -> list[Call]:
    return [operation.as_call() for operation in operations]


def _until(operations: Iterable[Operation], tick: int) -> list[Call]:
    """The calls as they stood at that tick: what had not returned was under way."""
    calls = []
    for operation in operations:
        if operation.begin <= tick:
            call = operation.as_call()
            under_way = call.end is not None and call.end > tick
            calls.append(Call(call.kind, call.arguments, call.begin) if under_way else call)
    return calls


def _explain(key: bytes, operations: Sequence[Operation], budget: int) -> str:
    """Show the first return that no order explains, and what is around it."""
    returned = sorted(
        (operation for operation in operations if operation.end is not None),
        key=lambda operation: operation.end or 0,
    )

    def violated(operation: Operation) -> bool:
        calls = _until(operations, operation.end or 0)
        return search(calls, budget=budget).outcome is Outcome.VIOLATED

    # What is wrong up to some return stays wrong up to every later one.
    culprit = returned[min(bisect_left(returned, True, key=violated), len(returned) - 1)]
    assert culprit.end is not None, "it returned"
    others = [operation for operation in operations if operation is not culprit]
    before = search(_until(others, culprit.end), budget=budget, every=True)
    lines = [f"key {key!r}: not linearizable; no order explains the call marked >"]
    for operation in _around(culprit, operations):
        lines.append(f"{'>' if operation is culprit else ' '} {operation}")
    if before.outcome is Outcome.LINEARIZABLE:
        values = ", ".join(sorted(map(_shown, before.finals)))
        lines.append(f"  when it returned the value could only be: {values}")
    return "\n".join(lines)


def _around(culprit: Operation, operations: Iterable[Operation]) -> list[Operation]:
    """The calls that a reader needs beside it, in the order of their beginning."""
    end = culprit.end or 0
    started = [operation for operation in operations if operation.begin < end]
    over = [op for op in started if op.end is not None and op.end < culprit.begin]
    during = [op for op in started if op.end is not None and op.end > culprit.begin]
    open_ended = [op for op in started if op.end is None and op.kind != "get"]
    over.sort(key=lambda operation: operation.end or 0)
    shown = [*over[-_CONTEXT:], *during[-_CONTEXT:], *open_ended[-_CONTEXT:], culprit]
    return sorted(
        {operation.begin: operation for operation in shown}.values(),
        key=lambda operation: operation.begin,
    )


def _shown(value: object) -> str:
    """A value, short: None is absent."""
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:36]}...{text[-1]}"
