"""The rules of the table: with all of them users see one register, without any of them they do not.

A model of groups, built from the product's own floor 0 (see ``tests/table_model``), runs on random
schedules and on some that are written by hand.  What its users saw is judged by the project's own
checker.  ``P2P_SEEDS=n`` runs 20 n random histories (n is 60 by default), ``P2P_SEED=n`` replays
one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from inspect import getmembers, isclass

from twisted.trial.unittest import SynchronousTestCase

from .simulation.history import Outcome
from .table_model import epochs, mutants, writes
from .table_model.moving import Mover
from .table_model.play import Played, play
from .table_model.script import Script

Trace = Callable[[Script], None]
UNKNOWN = "outcome unknown"

#: Seeds that were red once, or undecided; they stay.
FOUND: tuple[int, ...] = ()

#: How many seeds are tried for a mutant whose recorded ones notice nothing any more.
SEARCHED = 1000

#: What the users of each trace see if all rules are kept.
TRACES: dict[Trace, list[object]] = {
    epochs.stale_members_of_a_stale_config: [None, b"new"],
    epochs.opened_twice: [None, b"new"],
    epochs.late_opening_of_a_holder: [None, b"new"],
    epochs.copy_ahead_over_a_base: [None, b"new"],
    epochs.members_without_a_base: [UNKNOWN, UNKNOWN, b"of D", b"of D"],
    epochs.second_decision: [None, b"new"],
    epochs.silent_because_it_went_on: [None, b"new"],
    epochs.base_replaced_by_a_lower_ballot: [UNKNOWN, UNKNOWN, b"of D", b"of D"],
    epochs.back_without_memory: [None, b"new"],
    epochs.value_of_the_epoch_before: [None, None, b"new"],
    epochs.opened_on_hearsay: [UNKNOWN, UNKNOWN, b"of D", b"of D"],
    epochs.opened_with_anything: [None, b"new"],
    writes.read_of_one_among_many: [None, None, b"old", b"old"],
    writes.ghost: [None] * 6 + [b"4"],
    writes.ghost_of_a_refusal: [None, False, None, b"2"],
    writes.retry_that_was_forgotten: [UNKNOWN, b"done", *[None] * 5, b"4"],
    writes.retry_across_a_purge: [UNKNOWN, b"done", True, None],
    writes.steady_after_an_open_fate: [True, UNKNOWN, True, "failed", b"3"],
    writes.own_promise: [True, True, UNKNOWN, False, b"3"],
    writes.own_acceptor_was_not_open: [UNKNOWN, None, None, b"3"],
    writes.late_first_member: [True, False, b"1"],
    writes.first_ballot_used_up: [True, True, False, True, b"4"],
    writes.first_ballot_of_another: [True, "failed", b"1"],
}

#: Each mutant: the rule that it lacks, and what shows it: seeds or traces.
SHOWN: dict[type[Mover], tuple[int, Sequence[int], Sequence[Trace]]] = {
    mutants.EpochsIgnored: (1, (), (epochs.stale_members_of_a_stale_config,)),
    mutants.WedgeWithoutEffect: (2, (1, 5, 6), ()),
    mutants.OneIsWedged: (2, (15, 20, 60), ()),
    mutants.BaseOfOne: (3, (9, 21, 30), ()),
    mutants.LowestBallots: (3, (9, 14, 30), ()),
    mutants.OpensAgain: (4, (), (epochs.opened_twice,)),
    mutants.VotesIgnored: (5, (), (epochs.second_decision,)),
    mutants.NobodyVotes: (5, (), (epochs.second_decision,)),
    mutants.MembersOnly: (5, (), (epochs.members_without_a_base,)),
    mutants.OneVoteIsVoid: (5, (), (epochs.second_decision,)),
    mutants.SilenceIsNo: (5, (), (epochs.silent_because_it_went_on,)),
    mutants.LowerBallotsReplace: (5, (), (epochs.base_replaced_by_a_lower_ballot,)),
    mutants.OpeningForgets: (5, (), (epochs.late_opening_of_a_holder,)),
    mutants.CopiesReplaceBases: (5, (), (epochs.copy_ahead_over_a_base,)),
    mutants.Amnesia: (6, (), (epochs.back_without_memory,)),
    mutants.FlatBallots: (7, (), (epochs.value_of_the_epoch_before,)),
    mutants.OpensWithAnything: (8, (), (epochs.opened_with_anything,)),
    mutants.OpensWhenItHears: (8, (), (epochs.opened_on_hearsay,)),
    mutants.HighestIsEnough: (8, (), (writes.read_of_one_among_many,)),
    mutants.OneIsEnough: (8, (), (writes.read_of_one_among_many,)),
    mutants.TimeoutMeansFailure: (9, (3, 5, 11), ()),
    mutants.NewIdForRetries: (9, (), (writes.retry_that_was_forgotten,)),
    mutants.GhostsAreFresh: (9, (), (writes.ghost,)),
    mutants.UnknownIsFailure: (9, (), (writes.retry_that_was_forgotten,)),
    mutants.RetriesAreFresh: (9, (), (writes.ghost_of_a_refusal,)),
    mutants.FoundsAgain: (10, (5, 8, 12), ()),
    mutants.TombstonesDroppedAtOnce: (11, (2, 9, 19), ()),
    mutants.PurgesForgotten: (11, (), (writes.retry_across_a_purge,)),
    mutants.PurgesOneTooLow: (11, (), (writes.retry_across_a_purge,)),
    mutants.NeverUnsure: (12, (), (writes.steady_after_an_open_fate,)),
    mutants.OwnAcceptorForgotten: (12, (), (writes.own_acceptor_was_not_open,)),
    mutants.OwnPromiseIsEnough: (12, (), (writes.own_promise,)),
    mutants.EverybodyIsFirst: (12, (), (writes.first_ballot_of_another,)),
}


def seeds() -> list[int]:
    """The seeds of this run."""
    one = os.environ.get("P2P_SEED")
    if one:
        return [int(one)]
    return sorted({*range(20 * int(os.environ.get("P2P_SEEDS", "60"))), *FOUND})


class AllRulesTests(SynchronousTestCase):
    """With all rules on."""

    def test_random_schedules(self) -> None:
        """Every history is linearizable, none undecided; and enough goes on in them."""
        played: list[Played] = []
        for seed in seeds():
            try:
                one = play(seed, strict=True)
                self.assertTrue(one.verdict, one.verdict.text)
            except AssertionError as error:
                raise AssertionError(
                    f"seed {seed} is red: replay with P2P_SEED={seed} trial "
                    f"tests.test_table_rules\n{error}"
                ) from error
            played.append(one)
        operations = sum(one.operations for one in played)
        unknown = sum(one.unknown for one in played)
        epochs = sum(one.epochs for one in played)
        print(
            f"\n{len(played):,} histories, {sum(one.steps for one in played):,} events, "
            f"{operations:,} operations ({unknown:,} of unknown outcome), {epochs:,} epochs"
        )
        if len(played) > 100:
            self.assertGreater(sum(one.returned for one in played), operations / 2)
            self.assertGreater(epochs, 3 * len(played))

    def test_traces(self) -> None:
        """Each schedule that was written by hand ends as it ought to."""
        for trace, expected in TRACES.items():
            script = Script(strict=True)
            trace(script)
            self.assertEqual(script.results(), expected, trace.__name__)
            verdict = script.history.check()
            self.assertTrue(verdict, (trace.__name__, verdict.text))


class MutantTests(SynchronousTestCase):
    """With one rule taken out."""

    def check(self, mutant: type[Mover]) -> None:
        """Every trace that is to show it does, and so does a seed, if there are any.

        A change of the product or of the model may make other schedules of the same seeds; then
        others are looked for, and are to be written down.
        """
        _, found, by_hand = SHOWN[mutant]
        for trace in by_hand:
            script = Script(mutant)
            trace(script)
            verdict = script.history.check()
            self.assertIs(verdict.outcome, Outcome.VIOLATED, (mutant.__name__, trace.__name__))
        if not found or any(self.is_red(seed, mutant) for seed in found):
            return
        others = (seed for seed in range(SEARCHED) if self.is_red(seed, mutant))
        other = next(others, None)
        self.assertIsNotNone(other, f"{mutant.__name__}: no seed of {SEARCHED} noticed")
        print(f"\n{mutant.__name__}: the seeds {found} notice nothing any more, but {other} does")

    @staticmethod
    def is_red(seed: int, mutant: type[Mover]) -> bool:
        """Do its users see what no register would show?"""
        return play(seed, mutant).verdict.outcome is Outcome.VIOLATED

    def test_every_rule_has_one(self) -> None:
        """And every mutant is shown by something."""
        self.assertEqual({rule for rule, _, _ in SHOWN.values()}, set(range(1, 13)))
        written = {one for _, one in getmembers(mutants, isclass) if issubclass(one, Mover)}
        self.assertEqual(set(SHOWN), written - {Mover})
        self.assertTrue(all(found or by_hand for _, found, by_hand in SHOWN.values()))
        for module in (epochs, writes):
            written_by_hand = {getattr(module, name) for name in module.__all__}
            self.assertLessEqual(written_by_hand, set(TRACES))


def _names() -> Iterator[tuple[str, type[Mover]]]:
    for mutant, (rule, _, _) in SHOWN.items():
        words = "".join(f"_{c.lower()}" if c.isupper() else c for c in mutant.__name__)
        yield f"test_rule_{rule:02}{words}", mutant


def _add_mutants() -> None:
    for name, mutant in _names():

        def test(self: MutantTests, mutant: type[Mover] = mutant) -> None:
            self.check(mutant)

        test.__doc__ = mutant.__doc__
        setattr(MutantTests, name, test)


_add_mutants()
