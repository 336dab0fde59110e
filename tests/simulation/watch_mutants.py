"""Watches with one rule taken out, which the simulation must notice (test support)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from py2p_twisted.table.group import Ballot
from py2p_twisted.table.witness import Witness

from .durable import durable
from .scenarios import Report, rough
from .world import SimNode

__all__ = ["MUTANTS", "WatchMutant"]


class OneWord(Witness):
    """What one member accepted is told."""

    def _is_chosen(self, candidate: Any) -> bool:
        return candidate.by != 0


class NoBeginningAnew(Witness):
    """What the members of a next epoch have at its beginning is not looked at."""

    def tell(self, member: bytes, key: bytes, ballot: Ballot, now: float, **what: Any) -> None:
        if self._began and not self.covered:
            return
        super().tell(member, key, ballot, now, **what)


class AnyOrder(Witness):
    """A version that is chosen is told, whatever was told before it."""

    def tell(self, member: bytes, key: bytes, ballot: Ballot, now: float, **what: Any) -> None:
        known = self._keys.get(key)
        if known is not None:
            known.ballot = None
        super().tell(member, key, ballot, now, **what)


class NothingIsOpen(Witness):
    """What only some of the first quorum told at the beginning counts as new."""

    def _close_if_known(self, key: bytes) -> None:
        self._close(key)


@dataclass(frozen=True)
class WatchMutant:
    """One rule taken out, and where to look for the difference."""

    name: str
    witness: type[Witness]
    seeds: Iterable[int]
    scenario: Callable[..., Report] = rough

    def run(self, seed: int) -> Report:
        """One run without the rule."""

        def spoil(node: SimNode) -> None:
            node.service.node.core.make_witness = self.witness

        return self.scenario(seed, watched=True, spoil=spoil)


MUTANTS = (
    WatchMutant("one_word_is_enough", OneWord, (0, 1, 2, 6)),
    WatchMutant("no_beginning_anew", NoBeginningAnew, (0, 4, 8, 11)),
    WatchMutant("any_order", AnyOrder, (2, 5, 6, 8, 11)),
    WatchMutant("nothing_is_open", NothingIsOpen, (28, 53), durable),
)
