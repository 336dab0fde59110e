"""How long look-ups are, next to the figures of the Chord paper.

Thousands of nodes in one process, without clock or messages: the product's
:class:`~py2p_twisted.ring.lookup.Lookup`, :func:`~py2p_twisted.ring.lookup.route` and
:class:`~py2p_twisted.ring.lookup.Fingers` decide every hop; this module only lays out an ideal
ring, lets nodes die, and counts.  Never routes by itself.

The paper is Stoica, Morris, Liben-Nowell, Karger, Kaashoek, Dabek, Balakrishnan: "Chord: a
scalable peer-to-peer lookup protocol for Internet applications", IEEE/ACM Transactions on
Networking 11(1), 2003.  A path is counted as there: the members that answered, the asker itself not
included, up to the *predecessor* of the key, who names the owner.  Visiting the owner is one more.

``python -m tests.figures.lookups`` prints both tables; ``P2P_SEED`` chooses another seed.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2
from random import Random
from statistics import fmean

from py2p_twisted.ring.lookup import Fingers, Lookup, route

__all__ = ["PAPER_TABLE_2", "Outcome", "Ring", "Sample", "SimNode", "figure_10", "table_2"]

#: Identifiers have this many bits: enough that thousands of random ones differ.
K = 32
#: The most requests of one look-up, as a node allows them for a list of r: 2k + 2r.
SLACK = 2

#: Failed fraction: (mean path, mean timeouts), of Table II.
PAPER_TABLE_2 = {
    0.0: (3.84, 0.0),
    0.1: (4.03, 0.60),
    0.2: (4.22, 1.17),
    0.3: (4.44, 2.02),
    0.4: (4.69, 3.23),
    0.5: (5.09, 5.10),
}
TABLE_2_NODES = 1000
TABLE_2_LIST = 20


class SimNode:
    """One node: its place, and whether it answers."""

    __slots__ = ("alive", "id", "place")

    def __init__(self, identifier: int, place: int) -> None:
        self.id = identifier
        self.place = place
        self.alive = True


@dataclass(frozen=True)
class Outcome:
    """What became of one look-up.

    :ivar path: members that answered; the last one is the predecessor of the key.
    :ivar timeouts: dead nodes that were asked on the way to that member.
    :ivar all_timeouts: those of the last step too, the dead owners included.
    :ivar owner: the node that was found.
    """

    path: int
    timeouts: int
    all_timeouts: int
    owner: SimNode | None


class Ring:
    """An ideal ring of nodes with random identifiers.

    Lists and fingers are exact when the ring is made, and stay as they are when nodes die: nobody
    stabilizes.

    :param r: the length of the successor lists.
    """

    def __init__(self, n: int, r: int, rng: Random) -> None:
        self.ids = sorted(rng.sample(range(1 << K), n))
        self.nodes = [SimNode(identifier, place) for place, identifier in enumerate(self.ids)]
        self.r = min(r, n - 1)
        self._limit = SLACK * (K + r)
        self._known: dict[int, tuple[list[SimNode], list[SimNode]]] = {}

    def kill(self, fraction: float, rng: Random) -> None:
        """Every node dies with this probability."""
        for node in self.nodes:
            node.alive = rng.random() >= fraction

    def live(self) -> list[SimNode]:
        """The nodes that answer."""
        return [node for node in self.nodes if node.alive]

    def successor(self, identifier: int) -> SimNode:
        """The first node at or after an identifier, dead or alive."""
        return self.nodes[bisect_left(self.ids, identifier) % len(self.nodes)]

    def live_successor(self, identifier: int) -> SimNode:
        """The node that should be found."""
        node = self.successor(identifier)
        while not node.alive:
            node = self.nodes[(node.place + 1) % len(self.nodes)]
        return node

    def find_successor(self, start: SimNode, target: int) -> Outcome:
        """One look-up, as a member makes it that wants to be sure that the owner lives."""
        lookup: Lookup[SimNode] = Lookup(target, [], self._limit)
        lookup.answered(start, *self._route(start, target), local=True)
        path = timeouts = dead_owners = 0
        while True:
            while (peer := lookup.ask_next) is not None:
                if peer.alive:
                    path, timeouts = path + 1, lookup.timeouts
                    lookup.answered(peer, *self._route(peer, target))
                else:
                    lookup.failed(peer)
            owner = lookup.owner
            if owner is None or owner.alive:
                return Outcome(path, timeouts, lookup.timeouts + dead_owners, owner)
            dead_owners += 1
            lookup.dead(owner)

    def _route(self, node: SimNode, target: int) -> tuple[tuple[SimNode, ...], tuple[SimNode, ...]]:
        known = self._known.get(node.place)
        if known is None:
            known = self._known[node.place] = (self._list(node), self._fingers(node))
        return route(node, *known, target)

    def _list(self, node: SimNode) -> list[SimNode]:
        n = len(self.nodes)
        return [self.nodes[(node.place + step) % n] for step in range(1, self.r + 1)]

    def _fingers(self, node: SimNode) -> list[SimNode]:
        """One whole round of fix_fingers in which every answer is right."""
        fingers: Fingers[SimNode] = Fingers(node.id, K)
        successor = self.nodes[(node.place + 1) % len(self.nodes)]
        last = -1
        while (wanted := fingers.wanted(successor)) is not None and wanted[0] > last:
            last, identifier = wanted
            fingers.found(last, self.successor(identifier))
        return fingers.peers()


@dataclass(frozen=True)
class Sample:
    """Many look-ups under one condition."""

    outcomes: Sequence[Outcome]
    wrong: int

    @property
    def path(self) -> float:
        """The mean path."""
        return fmean(outcome.path for outcome in self.outcomes)

    @property
    def timeouts(self) -> float:
        """The mean number of dead nodes on the way to the predecessor."""
        return fmean(outcome.timeouts for outcome in self.outcomes)

    @property
    def all_timeouts(self) -> float:
        """The mean number of dead nodes until a live owner was found."""
        return fmean(outcome.all_timeouts for outcome in self.outcomes)

    def path_percentiles(self) -> tuple[int, int]:
        """The first and the 99th percentile of the path."""
        return _percentiles([outcome.path for outcome in self.outcomes])

    def timeouts_percentiles(self) -> tuple[int, int]:
        """The first and the 99th percentile of the timeouts on the way."""
        return _percentiles([outcome.timeouts for outcome in self.outcomes])


def _percentiles(values: list[int]) -> tuple[int, int]:
    ordered = sorted(values)
    return ordered[len(ordered) // 100], ordered[len(ordered) * 99 // 100]


def measure(n: int, r: int, failed: float, rings: int, lookups: int, seed: str) -> Sample:
    """Look random identifiers up from random live nodes: `lookups` in each of `rings` rings."""
    rng = Random(seed)
    outcomes = []
    wrong = 0
    for _ in range(rings):
        ring = Ring(n, r, rng)
        if failed:
            ring.kill(failed, rng)
        live = ring.live()
        for _ in range(lookups):
            target = rng.randrange(1 << K)
            outcome = ring.find_successor(rng.choice(live), target)
            outcomes.append(outcome)
            wrong += outcome.owner is not ring.live_successor(target)
    return Sample(outcomes, wrong)


def figure_10(lookups: int, seed: int, r: int = 1) -> Iterator[tuple[int, Sample]]:
    """``(N, sample)`` for N = 2**3 .. 2**14.

    Small rings differ much from each other, so the look-ups are spread over several of them.
    """
    for exponent in range(3, 15):
        n = 1 << exponent
        rings = max(1, min(lookups // 50, (1 << 12) // n))
        yield n, measure(n, r, 0.0, rings, lookups // rings, f"figure 10 {n} {r} {seed}")


def table_2(rings: int, lookups: int, seed: int) -> Iterator[tuple[float, Sample]]:
    """``(failed fraction, sample)`` for a ring of 1,000 nodes with lists of 20."""
    for failed in PAPER_TABLE_2:
        name = f"table 2 {failed} {seed}"
        yield failed, measure(TABLE_2_NODES, TABLE_2_LIST, failed, rings, lookups, name)


def print_figure_10(lookups: int, seed: int) -> None:
    """Print the path lengths for lists of one (the paper's) and of eight (the product's)."""
    print(f"Path length by number of nodes; {lookups:,} look-ups per cell, seed {seed}\n")
    print("    N   paper  r = 1  p1  p99   r = 8  p1  p99  wrong")
    columns = zip(figure_10(lookups, seed), figure_10(lookups, seed, r=8), strict=True)
    for (n, one), (_, eight) in columns:
        cells = [
            f"{sample.path:6.2f}  {sample.path_percentiles()[0]:2}  "
            f"{sample.path_percentiles()[1]:3}"
            for sample in (one, eight)
        ]
        wrong = one.wrong + eight.wrong
        print(f"{n:5}  {log2(n) / 2:6.2f} {cells[0]}  {cells[1]}  {wrong:5}", flush=True)


def print_table_2(rings: int, lookups: int, seed: int) -> None:
    """Print path and timeouts by the fraction of nodes that died."""
    print(
        f"\nPath and timeouts after failures; N = {TABLE_2_NODES:,}, r = {TABLE_2_LIST}; "
        f"{rings} rings, {lookups:,} look-ups in each, seed {seed}\n"
    )
    print("failed  paper's path  path  p1  p99  paper's timeouts  timeouts  p1  p99   all  wrong")
    for failed, sample in table_2(rings, lookups, seed):
        path, timeouts = PAPER_TABLE_2[failed]
        low, high = sample.path_percentiles()
        few, many = sample.timeouts_percentiles()
        print(
            f"{failed:6.1f}  {path:12.2f}  {sample.path:4.2f}  {low:2}  {high:3}"
            f"  {timeouts:16.2f}  {sample.timeouts:8.2f}  {few:2}  {many:3}"
            f"  {sample.all_timeouts:4.2f}  {sample.wrong:5}",
            flush=True,
        )


def main() -> None:
    """Print both tables."""
    seed = int(os.environ.get("P2P_SEED", "1"))
    print_figure_10(20_000, seed)
    print_table_2(5, 10_000, seed)


if __name__ == "__main__":
    main()
