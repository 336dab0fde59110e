"""Nodes with one rule taken out, which the simulation must notice (test support).

The mutants of the ring are subclasses of the product's own rules, handed to the nodes where the
product would hand its own.  A mutant that no seed notices means that the tests are too weak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from py2p_twisted.base import Peer
from py2p_twisted.ring.ring import Pointers, RingRules
from py2p_twisted.ring.steps import Steps

from .scenarios import proven

__all__ = ["MUTANTS", "Mutant"]


class ShortJoinList(RingRules):
    """A joiner takes only the first successor, as in the paper of 2001."""

    def joined(self, me: Peer, member: Peer, its_successors: Sequence[Peer]) -> Pointers:
        return super().joined(me, member, its_successors[:1])


class AdoptUnasked(RingRules):
    """A successor is adopted although it did not answer."""

    def candidate_failed(self, old: Pointers, candidate: Peer) -> Pointers:
        rest = old.successors[: self.r - 1]
        return replace(old, successors=self.adopt(old.me, candidate, rest))


class LateReplies(Steps):
    """A step that was given up is applied all the same when its reply comes."""

    def is_current(self, token: int) -> bool:
        return True


@dataclass(frozen=True)
class Mutant:
    """One rule taken out, and where to look for the difference."""

    name: str
    run: Callable[[int], object]
    seeds: Iterable[int]


MUTANTS = (
    Mutant("short_join_list", lambda seed: proven(seed, ShortJoinList), range(10)),
    Mutant("adopt_unasked", lambda seed: proven(seed, AdoptUnasked), range(5)),
    Mutant(
        "late_reply_applied",
        lambda seed: proven(seed, make_steps=LateReplies, steps=30),
        (20, 13, *range(100)),  # the first two notice it now; about one in thirteen does
    ),
)
