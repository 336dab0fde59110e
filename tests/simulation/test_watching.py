"""Watches on rings to which everything happens: what they tell was chosen, in order, and is enough.

Twelve seeds have crashes and cuts, eight have disks; ``P2P_SEEDS=60 * n`` runs n times as many,
``P2P_SEED=n`` replays one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from .durable import durable
from .ring_case import seeds
from .scenarios import Report, rough
from .watch_mutants import MUTANTS

#: Seeds that were red once; they stay.
FOUND = {"rough": (121, 430), "durable": (28, 46)}


class TestWatches(SynchronousTestCase):
    """Every seed is green."""

    def run_seeds(self, name: str, most: int, scenario: Callable[[int], Report]) -> None:
        """Run a scenario for each seed."""
        reports = []
        found = () if "P2P_SEED" in os.environ else FOUND[name]
        for seed in (*seeds(most), *found):
            try:
                reports.append(scenario(seed))
            except Exception as error:
                raise AssertionError(
                    f"watches in setting {name!r} are red: replay with P2P_SEED={seed} trial "
                    f"tests.simulation.test_watching\n{type(error).__name__}: {error}"
                ) from error
        print(f"\n{name}: {len(reports)} seeds, {sum(r.told for r in reports):,} events")

    def test_rough(self) -> None:
        """Cuts, pauses, crashes, recoveries."""
        self.run_seeds("rough", 12, lambda seed: rough(seed, watched=True))

    def test_durable(self) -> None:
        """Nodes with disks that are killed and come back."""
        self.run_seeds("durable", 8, lambda seed: durable(seed, watched=True))


class TestMutants(SynchronousTestCase):
    """A rule that is taken out is missed."""

    def test_each(self) -> None:
        """Some of its seeds are red."""
        for mutant in MUTANTS:
            for seed in mutant.seeds:
                try:
                    mutant.run(seed)
                except AssertionError:
                    break
            else:
                self.fail(f"{mutant.name}: no seed noticed that the rule is gone")
