"""What a correct ring looks like, judged on a plain picture of it (test support; pure).

The properties are those of Pamela Zave, "Reasoning about identifier spaces: how to make Chord
correct" (IEEE TSE 2017).  Imports nothing of the product, ``between`` included, so that a mistake
there cannot hide itself here.  Every function returns readable violations, none meaning good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

__all__ = [
    "MemberView",
    "RingSnapshot",
    "at_least_one_ring",
    "at_most_one_ring",
    "connected_appendages",
    "ideal",
    "no_duplicates",
    "one_live_successor",
    "ordered_ring",
    "ordered_successor_lists",
    "principals",
]


@dataclass(frozen=True)
class MemberView:
    """What one live member believes.  A node that is alone has no successors, no predecessor."""

    id: int
    successors: tuple[int, ...]
    predecessor: int | None

    @property
    def extended(self) -> tuple[int, ...]:
        """Its own identifier and its successor list (Zave's ESL)."""
        return (self.id, *self.successors)


@dataclass(frozen=True)
class RingSnapshot:
    """All live members at one moment, by identifier."""

    members: Mapping[int, MemberView]

    def best_successor(self, identifier: int) -> int | None:
        """A member's first live entry; itself if it knows of nobody or nobody else is left.

        None if it has entries, all of them dead, while others live.
        """
        successors = self.members[identifier].successors
        live = next((entry for entry in successors if entry in self.members), None)
        if live is None and (not successors or len(self.members) == 1):
            return identifier
        return live

    def rings(self) -> list[list[int]]:
        """The cycles of best successors, each from its lowest identifier on."""
        found: list[list[int]] = []
        walked: dict[int, int] = {}  # member: the walk that came by first
        for start in sorted(self.members):
            path: list[int] = []
            here: int | None = start
            while here is not None and here not in walked:
                walked[here] = start
                path.append(here)
                here = self.best_successor(here)
            if here is not None and walked[here] == start:
                cycle = path[path.index(here) :]
                lowest = cycle.index(min(cycle))
                found.append(cycle[lowest:] + cycle[:lowest])
        return found


def _strictly_between(x: int, y: int, z: int) -> bool:
    """Going clockwise from x, is y met before z?  From x to x is once around."""
    if x < z:
        return x < y < z
    return y > x or y < z


def _in_circle_order(identifiers: tuple[int, ...]) -> bool:
    """Are all different and met in this order within one turn from the first?"""
    first = identifiers[0]
    turns = [(identifier < first, identifier) for identifier in identifiers]
    return all(earlier < later for earlier, later in pairwise(turns))


def no_duplicates(snapshot: RingSnapshot) -> list[str]:
    """No identifier stands twice in a member's ``[id] + successors``."""
    return [
        f"{member.id} has a duplicate in its successor list {member.successors}"
        for member in snapshot.members.values()
        if len(set(member.extended)) != len(member.extended)
    ]


def ordered_successor_lists(snapshot: RingSnapshot) -> list[str]:
    """``between(x, y, z)`` for all x, y, z that follow each other in ``[id] + successors``."""
    found = []
    for member in snapshot.members.values():
        if _in_circle_order(member.extended):
            continue  # then so is every three of them
        wrong = [three for three in combinations(member.extended, 3) if _out_of_order(three)]
        if wrong:
            found.append(
                f"{member.id} has an unordered successor list {member.successors}: "
                f"{wrong[0][1]} is not between {wrong[0][0]} and {wrong[0][2]}"
            )
    return found


def _out_of_order(three: tuple[int, int, int]) -> bool:
    return not _strictly_between(*three)


def one_live_successor(snapshot: RingSnapshot) -> list[str]:
    """Every member has a live entry in its successor list, unless it is the only member."""
    if len(snapshot.members) == 1:
        return []
    return [
        f"{member.id} has no live successor in {member.successors}"
        for member in snapshot.members.values()
        if not any(entry in snapshot.members for entry in member.successors)
    ]


def at_least_one_ring(snapshot: RingSnapshot) -> list[str]:
    """Following best successors, some member comes back to itself.  Nobody: nothing to ask."""
    if snapshot.members and not snapshot.rings():
        return [f"there is no ring among {sorted(snapshot.members)}"]
    return []


def at_most_one_ring(snapshot: RingSnapshot) -> list[str]:
    """All members that lie on a ring lie on the same one."""
    rings = snapshot.rings()
    return [f"there are {len(rings)} rings: {rings}"] if len(rings) > 1 else []


def ordered_ring(snapshot: RingSnapshot) -> list[str]:
    """No ring member lies between another one and its best successor."""
    on_ring = sorted(member for ring in snapshot.rings() for member in ring)
    found = []
    for member in on_ring:
        best = snapshot.best_successor(member)
        assert best is not None, "a ring member has a best successor"
        skipped = [
            other
            for other in on_ring
            if other not in (member, best) and _strictly_between(member, other, best)
        ]
        if skipped:
            found.append(f"{member} skips {skipped} on the ring: its best successor is {best}")
    return found


def connected_appendages(snapshot: RingSnapshot) -> list[str]:
    """Every member that lies on no ring comes to one by following best successors."""
    arrived = {member for ring in snapshot.rings() for member in ring}
    found = []
    for start in sorted(snapshot.members):
        path: list[int] = []
        here: int | None = start
        while here is not None and here not in arrived:
            path.append(here)
            here = snapshot.best_successor(here)
        if here is None:
            found.append(f"{start} does not reach a ring: {' -> '.join(map(str, path))} -> nobody")
        else:
            arrived.update(path)
    return found


def principals(snapshot: RingSnapshot) -> set[int]:
    """The members that no member's ``[id] + successors`` skips.

    The proof needs at least r + 1 of them at all times.
    """
    pairs = {pair for member in snapshot.members.values() for pair in pairwise(member.extended)}
    return {
        member
        for member in snapshot.members
        if not any(_strictly_between(x, member, y) for x, y in pairs)
    }


def ideal(snapshot: RingSnapshot, r: int) -> list[str]:
    """Every pointer is exact: the predecessor, and the next ``min(r, n - 1)`` members in order."""
    order = sorted(snapshot.members)
    n = len(order)
    found = []
    for place, identifier in enumerate(order):
        member = snapshot.members[identifier]
        successors = tuple(order[(place + step) % n] for step in range(1, min(r, n - 1) + 1))
        predecessor = order[place - 1] if n > 1 else None
        if member.successors != successors:
            found.append(f"{identifier} has successors {member.successors}, not {successors}")
        if member.predecessor != predecessor:
            found.append(f"{identifier} has predecessor {member.predecessor}, not {predecessor}")
    return found
