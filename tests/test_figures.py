"""The figures of the Chord paper, with fewer look-ups than ``python -m tests.figures.lookups``."""

from __future__ import annotations

import os
from math import log2

from twisted.trial.unittest import SynchronousTestCase

from .figures.lookups import PAPER_TABLE_2, figure_10, table_2

SEED = int(os.environ.get("P2P_SEED", "1"))
REPLAY = f"replay with P2P_SEED={SEED}"


class FiguresTests(SynchronousTestCase):
    def test_path_length_grows_with_half_the_logarithm(self) -> None:
        """Figure 10: about half log2 N hops to the predecessor, a little less in our count."""
        sizes = []
        for n, sample in figure_10(1_000, SEED):
            sizes.append(n)
            self.assertEqual(sample.wrong, 0, f"N={n}; {REPLAY}")
            self.assertLess(abs(sample.path - (log2(n) / 2 - 0.12)), 0.25, f"N={n}; {REPLAY}")
        self.assertEqual(sizes, [2**exponent for exponent in range(3, 15)])

    def test_path_length_after_failures(self) -> None:
        """Table II: within 5 % of the paper's means, and never a wrong owner."""
        for failed, sample in table_2(5, 800, SEED):
            path, timeouts = PAPER_TABLE_2[failed]
            where = f"{failed:.0%} failed; {REPLAY}"
            self.assertEqual(sample.wrong, 0, where)
            self.assertLess(abs(sample.path / path - 1), 0.05, where)
            self.assertLess(abs(sample.timeouts - timeouts), 0.2 + 0.1 * timeouts, where)
