"""Which fault comes next, and whom it hits: seeded choices without a clock (test support; pure).

Owns the limits within which nothing that was acknowledged may be lost: never more than a minority
of a group is killed, frozen or cut off at once, and nobody is killed while a group still names a
dead member.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from .proxy import Pair

__all__ = ["KINDS", "STYLES", "Deck", "Fault", "Limits", "pairs_of"]

KINDS = ("kill", "pause", "leave", "cut")

#: What a cut does.  Off: nothing passes to or from those who are hit.  Refuse: the same, and their
#: connections break.  Deaf: nothing reaches them.  Mute: nothing of theirs reaches anybody.
#: Between: only two nodes do not hear each other.
STYLES = ("off", "refuse", "deaf", "mute", "between")


@dataclass(frozen=True)
class Fault:
    """One fault, before it is known whom it hits.

    :ivar nodes: how many it hits.
    :ivar takes: how many nodes can be spared while it lasts, which is more than it hits if it must
        be alone.
    :ivar seconds: for which it lasts; of a kill and a leave: until the restart.
    :ivar style: of a cut, one of :data:`STYLES`.
    """

    kind: str
    nodes: int
    takes: int
    seconds: float
    style: str = ""


@dataclass(frozen=True)
class Limits:
    """How much of a ring may be hit at once.

    :ivar at_once: nodes that may be killed, frozen or cut off at the same time.
    :ivar kills: how many of them may be killed.
    """

    at_once: int
    kills: int

    @classmethod
    def of(cls, replicas: int) -> Limits:
        """A minority of a group, and never more than two.  One copy bears no kill at all."""
        minority = min(2, replicas // 2)
        return cls(minority or 2, minority)

    def allow(self, fault: Fault, hit: Collection[str], whole: bool) -> bool:
        """May this fault begin now?

        :param hit: the nodes that others hit.
        :param whole: no group names a dead member, and all nodes keep a share.
        """
        if len(hit) + fault.takes > self.at_once:
            return False
        return whole or fault.kind not in ("kill", "leave")


class Deck:
    """Faults in random order, like cards: every kind comes once before any comes again.

    :param kinds: of :data:`KINDS`, those that are wanted.
    :param longest: seconds of the longest pause.
    """

    def __init__(self, rng: Random, limits: Limits, kinds: Iterable[str], longest: float) -> None:
        self._rng = rng
        self._limits = limits
        self._kinds = [kind for kind in KINDS if kind in set(kinds)]
        self._longest = longest
        self._cards: list[Fault] = []
        self._next: Fault | None = None

    def look(self) -> Fault:
        """The next fault; the same until it is taken."""
        if self._next is None:
            if not self._cards:
                self._cards = [fault for kind in self._kinds for fault in self._some(kind)]
                self._rng.shuffle(self._cards)
            self._next = self._cards.pop()
        return self._next

    def take(self, free: Sequence[str]) -> tuple[Fault, list[str]]:
        """Begin it: the fault, and those of the free nodes whom it hits."""
        fault, self._next = self.look(), None
        return fault, self._rng.sample(list(free), fault.nodes)

    def _some(self, kind: str) -> list[Fault]:
        rng, most = self._rng, self._limits.at_once
        if kind == "kill":
            kills = self._limits.kills
            return [Fault(kind, kills, most, rng.uniform(1, 5))] if kills else []
        if kind == "pause":  # one for as long as can be, and as many as can be
            return [
                Fault(kind, 1, 1, self._longest),
                Fault(kind, most, most, rng.uniform(0.1, 0.6) * self._longest),
            ]
        if kind == "leave":  # what has one copy cannot be handed over while others are away
            alone = self._limits.kills == 0
            return [Fault(kind, 1, most if alone else 1, rng.uniform(0, 4))]
        cuts = []
        for nodes in (1, most):
            styles = STYLES if nodes == 2 else STYLES[:-1]
            seconds = rng.uniform(0.15, 1.0) * self._longest
            cuts.append(Fault(kind, nodes, nodes, seconds, rng.choice(styles)))
        return cuts


def pairs_of(
    style: str, hit: Sequence[str], others: Iterable[str], with_hit: Iterable[str] = ()
) -> set[Pair]:
    """Who does not reach whom in a cut.

    :param style: one of :data:`STYLES`.
    :param hit: the nodes that are cut off.
    :param others: the nodes and the clients on the other side.
    :param with_hit: the clients on the side of those who are hit.
    """
    if style == "between":
        return {(one, other) for one in hit for other in hit if one != other}
    inside = [*hit, *with_hit]
    into = {(other, one) for one in inside for other in others}
    out = {(one, other) for other, one in into}
    return {"off": into | out, "refuse": into, "deaf": into, "mute": out}[style]
