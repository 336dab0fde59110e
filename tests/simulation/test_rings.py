"""Seeded rings of whole nodes: inside the proof's assumptions, and outside them.

``P2P_SEEDS=n`` runs n seeds of each setting (60 by default), ``P2P_SEED=n`` replays one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from . import mutants
from .scenarios import Report, proven, rough

#: Seeds that were red once; they stay.
FOUND = {"rough": (8, 10, 13, 16, 48, 65, 128, 137, 147, 722, 833, 1878, 4632, 5844), "proven": ()}


def seeds(found: tuple[int, ...]) -> list[int]:
    """The seeds of this run."""
    one = os.environ.get("P2P_SEED")
    if one:
        return [int(one)]
    return sorted({*range(int(os.environ.get("P2P_SEEDS", "60"))), *found})


class TestRings(SynchronousTestCase):
    """Every seed is green."""

    def run_seeds(self, name: str, scenario: Callable[[int], Report]) -> None:
        """Run a scenario for each seed; the first that is red says so, and how to replay it."""
        reports = []
        for seed in seeds(FOUND[name]):
            try:
                reports.append(scenario(seed))
            except Exception as error:
                raise AssertionError(
                    f"setting {name!r} is red: replay with P2P_SEED={seed} "
                    f"trial tests.simulation.test_rings\n{type(error).__name__}: {error}"
                ) from error
        print(
            f"\n{name}: {len(reports)} seeds, {sum(r.events for r in reports):,} events, "
            f"{sum(r.virtual for r in reports):,.0f} virtual seconds, "
            f"{sum(r.operations for r in reports):,} operations "
            f"({sum(r.unknown for r in reports):,} of unknown outcome), "
            f"slowest to settle {max(r.settled for r in reports):.1f} s"
        )

    def test_inside_the_proof(self) -> None:
        """All invariants after every event, and ideal in the end."""
        self.run_seeds("proven", proven)

    def test_outside_the_proof(self) -> None:
        """Cuts, pauses, crashes: no wrong read, and one ideal ring that serves in the end."""
        self.run_seeds("rough", rough)


class TestMutants(SynchronousTestCase):
    """A rule that is taken out is missed."""

    def check(self, mutant: mutants.Mutant) -> None:
        """Some seed among the mutant's is red."""
        for seed in mutant.seeds:
            try:
                mutant.run(seed)
            except AssertionError:
                return
        self.fail(f"{mutant.name}: no seed of {mutant.seeds} noticed that the rule is gone")


def _add_mutants() -> None:
    for mutant in mutants.MUTANTS:

        def test(self: TestMutants, mutant: mutants.Mutant = mutant) -> None:
            self.check(mutant)

        test.__doc__ = mutant.__doc__ or mutant.name
        setattr(TestMutants, f"test_{mutant.name}", test)


_add_mutants()
