"""The search for an order agrees with a real register and with trying every order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from .history import ANY, History, Operation, Outcome
from .register import KINDS, Arguments, Call, State, search

VALUES: tuple[State, ...] = (b"1", b"2")
ARITY = {"get": 0, "delete": 0, "pop": 0, "set": 1, "setdefault": 1, "compare_and_set": 2}

Step = tuple[int, str, int, int, str]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(sorted(KINDS)),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from(["go", "go", "go", "go", "never", "later"]),
    ),
    max_size=40,
)


def chosen_arguments(kind: str, first: int, second: int) -> Arguments:
    """Arguments for a kind; what compare-and-set expects may also be absent."""
    return ((None, *VALUES)[first], VALUES[second])[2 - ARITY[kind] :]


def lived(steps: Sequence[Step]) -> History:
    """A history that a correct register produced: a client begins, takes effect, returns.

    At its effect a client may lose its answer: then the effect never comes, or only later.
    """
    history = History()
    state: State = None
    begun: dict[int, Operation] = {}
    effected: dict[int, object] = {}
    late: list[Operation] = []
    for time, (client, kind, first, second, fate) in enumerate(steps):
        if client in effected:
            begun.pop(client).returned(effected.pop(client), time)
        elif client not in begun:
            arguments = chosen_arguments(kind, first, second)
            begun[client] = history.call(f"c{client}", kind, b"k", arguments, time)
        elif fate == "go":
            operation = begun[client]
            effected[client], state = KINDS[operation.kind].apply(state, operation.arguments)
        else:
            operation = begun.pop(client)
            operation.unknown()
            if fate == "later":
                late.append(operation)
        if late and first == 0:
            operation = late.pop(0)
            _, state = KINDS[operation.kind].apply(state, operation.arguments)
    return history


def by_brute_force(calls: Sequence[Call]) -> bool:
    """Try every order of every choice of the unknown calls."""
    unknown = [call for call in calls if call.end is None]
    known = [call for call in calls if call.end is not None]
    for chosen in range(1 << len(unknown)):
        picked = [call for bit, call in enumerate(unknown) if chosen >> bit & 1]
        if any(explains(order) for order in permutations(known + picked)):
            return True
    return False


def explains(order: Sequence[Call]) -> bool:
    """Does a register give these results in this order, and did no call end before its elders?"""
    state: State = None
    latest_begin = 0
    for call in order:
        latest_begin = max(latest_begin, call.begin)
        if call.end is not None and call.end < latest_begin:
            return False
        result, state = KINDS[call.kind].apply(state, call.arguments)
        if call.result not in (ANY, result):
            return False
    return True


RESULTS = st.sampled_from([None, b"1", b"2", True, False])
Drawn = tuple[str, int, int, str, object]
TINY = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from(["right", "right", "any", "unknown"]),
        RESULTS,
    ),
    max_size=5,
)
PLACES = st.permutations(range(10))


class AgainstModels(SynchronousTestCase):
    """No false alarm, and no violation missed."""

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(STEPS)
    def test_correct_histories_are_accepted(self, steps: Sequence[Step]) -> None:
        """Whatever a register did, with lost answers and late effects, is found linearizable."""
        self.assertEqual(lived(steps).check().text, "linearizable")

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(STEPS, st.integers(0, 99))
    def test_corrupted_histories_are_refused(self, steps: Sequence[Step], which: int) -> None:
        """A read of what was never written is found, and its call is named."""
        history = lived(steps)
        reads = [op for op in history.operations if op.kind in ("get", "pop") and op.end]
        if reads:
            reads[which % len(reads)].result = b"never written"
            verdict = history.check()
            self.assertIs(verdict.outcome, Outcome.VIOLATED)
            marked = [line for line in verdict.text.splitlines() if line.startswith(">")]
            self.assertEqual(len(marked), 1)
            self.assertIn("never written", marked[0])

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(TINY, PLACES)
    def test_agrees_with_brute_force(self, drawn: Sequence[Drawn], places: Sequence[int]) -> None:
        """On arbitrary tiny histories, right or wrong, the verdict is that of trying it all."""
        calls = []
        for number, (kind, first, second, sort, result) in enumerate(drawn):
            begin, end = sorted(places[2 * number : 2 * number + 2])
            arguments = chosen_arguments(kind, first, second)
            if sort == "unknown":
                calls.append(Call(kind, arguments, begin + 1))
                continue
            if kind == "set" and sort == "right":
                result = None
            calls.append(
                Call(kind, arguments, begin + 1, end + 1, ANY if sort == "any" else result)
            )
        found = search(calls, budget=100_000).outcome
        expected = Outcome.LINEARIZABLE if by_brute_force(calls) else Outcome.VIOLATED
        self.assertIs(found, expected)

    def test_agrees_with_brute_force_near_the_truth(self) -> None:
        """The same on histories that a register produced, with one result or order disturbed."""
        verdicts = set()
        for seed in range(300):
            rng = Random(seed)
            steps = [
                (
                    rng.randrange(3),
                    rng.choice(sorted(KINDS)),
                    rng.randrange(3),
                    rng.randrange(2),
                    rng.choice(["go", "go", "never", "later"]),
                )
                for _ in range(14)
            ]
            operations = lived(steps).operations
            answered = [operation for operation in operations if operation.end is not None]
            if answered:
                victim = rng.choice(answered)
                victim.result = rng.choice([None, b"1", b"2", True, False])
            calls = [operation.as_call() for operation in operations][:6]
            expected = Outcome.LINEARIZABLE if by_brute_force(calls) else Outcome.VIOLATED
            self.assertIs(search(calls, budget=100_000).outcome, expected, f"seed {seed}")
            verdicts.add(expected)
        self.assertEqual(len(verdicts), 2, "both verdicts were tried")

    def test_wrong_histories_cost_little(self) -> None:
        """What makes no difference is not tried in every order: wrongs are found soon too."""
        wrong = Call("get", (), 90, 91, b"never written")
        values = [b"%d" % number for number in range(9)]
        writes = [Call("set", (value,), n, 20 + n, None) for n, value in enumerate(values)]
        self.assertIs(search([*writes, wrong], budget=40_000).outcome, Outcome.VIOLATED)
        reads = [Call("get", (), number, 40 + number, None) for number in range(20)]
        self.assertIs(search([*reads, wrong], budget=500).outcome, Outcome.VIOLATED)
        twins = [Call("set", (b"1",), number) for number in range(12)]
        seen = [Call("delete", (), 30 + 2 * n, 31 + 2 * n, True) for n in range(12)]
        self.assertIs(search([*twins, *seen, wrong], budget=2_000).outcome, Outcome.VIOLATED)

    def test_size_of_a_real_run(self) -> None:
        """Ten clients and 600 calls on one key, some unknown, are decided well within budget."""
        rng = Random(1)
        steps = [
            (
                rng.randrange(10),
                rng.choice(["get", "get", "set", "delete", "compare_and_set"]),
                rng.randrange(3),
                rng.randrange(2),
                "go" if rng.random() < 0.98 else "later",
            )
            for _ in range(1800)
        ]
        history = lived(steps)
        self.assertGreater(len(history.operations), 500)
        self.assertEqual(history.check(budget=200_000).text, "linearizable")
