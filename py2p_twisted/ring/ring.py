"""The pointers of one member and the rules that change them (floor 0; pure).

The algorithm is Zave's ("How to Make Chord Correct", TSE 2017), not the maintenance of the 2001
paper.  A rule takes the old pointers and what was heard and returns the new pointers; who is asked,
and when, is decided elsewhere.  :class:`RingRules` is a class only so that a test can take one rule
out and see the simulation fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..base import Peer
from .circle import between

__all__ = ["Pointers", "RingRules"]


@dataclass(frozen=True)
class Pointers:
    """What a member knows of its neighbours.

    :ivar me: the member itself.
    :ivar successors: the nodes that follow, nearest first; empty for a node that is alone.
    :ivar predecessor: the node before, or None while nobody notified.
    :ivar depleted: the list lost an entry and was not refilled since; see ``ring/steps.py``.
    """

    me: Peer
    successors: tuple[Peer, ...] = ()
    predecessor: Peer | None = None
    depleted: bool = False

    def __post_init__(self) -> None:
        ids = [self.me.id, *(peer.id for peer in self.successors)]
        if len(set(ids)) != len(ids):
            raise AssertionError(f"an identifier stands twice in a successor list: {ids}")
        inner = zip(ids, ids[1:], ids[2:], strict=False)
        # Neighbouring triples suffice: with distinct ids they force one walk round the circle,
        # and the last entry must not have passed the first.
        if not all(between(a, b, c) for a, b, c in inner) or not all(
            between(ids[0], b, ids[-1]) for b in ids[1:-1]
        ):
            raise AssertionError(f"a successor list is not in circle order: {ids}")

    @property
    def successor(self) -> Peer | None:
        """The first entry of the successor list, None for a node that is alone."""
        return self.successors[0] if self.successors else None

    @property
    def alone(self) -> bool:
        """True while no other member is known."""
        return not self.successors and self.predecessor is None


class RingRules:
    """Zave's rules for lists of up to r entries.

    :param r: the length of a full successor list.
    """

    def __init__(self, r: int) -> None:
        self.r = r

    def adopt(self, me: Peer, first: Peer, rest: Sequence[Peer]) -> tuple[Peer, ...]:
        """``[first] + rest``, cut before my own identifier or the first that is out of order."""
        taken: list[Peer] = []
        for peer in (first, *rest):
            if peer.id == me.id or (taken and not between(taken[-1].id, peer.id, me.id)):
                break
            taken.append(peer)
            if len(taken) == self.r:
                break
        return tuple(taken)

    def may_join_after(self, me: Peer, member: Peer, its_successors: Sequence[Peer]) -> bool:
        """May `me` enter the ring right behind `member`?"""
        if member.id == me.id:
            return False
        return not its_successors or between(member.id, me.id, its_successors[0].id)

    def joined(self, me: Peer, member: Peer, its_successors: Sequence[Peer]) -> Pointers:
        """JOIN: take the list that `member` has now; one atomic step.

        A short list stays short until the first STABILIZE: with `member` at its end it might jump
        over members that no other list jumps over.
        """
        first, *rest = its_successors or (member,)
        return Pointers(me, self.adopt(me, first, rest), member)

    def stabilized(self, old: Pointers, successor: Peer, its_list: Sequence[Peer]) -> Pointers:
        """STABILIZE, first half: the successor answered with its list."""
        return replace(old, successors=self.adopt(old.me, successor, its_list), depleted=False)

    def candidate(self, old: Pointers, its_predecessor: Peer | None) -> Peer | None:
        """The node between me and my successor that the successor named, if there is one."""
        if its_predecessor is None or its_predecessor.id == old.me.id:
            return None
        if old.successor is None or between(old.me.id, its_predecessor.id, old.successor.id):
            return its_predecessor
        return None

    def adopted(self, old: Pointers, candidate: Peer, its_list: Sequence[Peer]) -> Pointers:
        """STABILIZE, second half: the candidate answered with its list."""
        return replace(old, successors=self.adopt(old.me, candidate, its_list), depleted=False)

    def candidate_failed(self, old: Pointers, candidate: Peer) -> Pointers:
        """The candidate did not answer: it is not adopted."""
        return old

    def successor_failed(self, old: Pointers, dead: Peer) -> Pointers:
        """The first entry did not answer: the next one takes its place."""
        if old.successor is None or old.successor.instance != dead.instance:
            return old
        rest = old.successors[1:]
        return replace(old, successors=rest, depleted=bool(rest))

    def predecessor_failed(self, old: Pointers) -> Pointers:
        """A node without successors found its predecessor dead: it is alone."""
        return replace(old, predecessor=None, depleted=False)

    def rectify_needs_ping(self, old: Pointers, notifier: Peer) -> bool:
        """RECTIFY: must the present predecessor be pinged before it gives way to the notifier?"""
        return (
            old.predecessor is not None
            and old.predecessor != notifier
            and not between(old.predecessor.id, notifier.id, old.me.id)
        )

    def rectified(self, old: Pointers, notifier: Peer) -> Pointers:
        """RECTIFY: the notifier becomes the predecessor."""
        return old if notifier.id == old.me.id else replace(old, predecessor=notifier)

    def merged(self, old: Pointers, found: Peer, its_list: Sequence[Peer]) -> Pointers:
        """A node nearer than the successor was found through a remembered peer, and answered.

        The successors become the r nearest of it, its list and the present ones (healing of cuts;
        outside the proof).
        """
        offers = {peer.id: peer for peer in (*old.successors, *its_list, found)}
        offers.pop(old.me.id, None)
        nearest = sorted(offers, key=lambda identifier: (identifier < old.me.id, identifier))
        return replace(old, successors=tuple(offers[i] for i in nearest[: self.r]))
