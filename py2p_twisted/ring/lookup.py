"""Finding the successor of an identifier (floor 0; pure).

:func:`route` is what a member answers, :class:`Lookup` is what the asker makes of the answers: an
iterative look-up (Stoica et al., ToN 2003, section IV) that comes closer on the circle with every
answer and goes round nodes that do not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from .circle import between, between_right, distance

__all__ = ["Fingers", "Lookup", "route"]


class HasId(Protocol):
    """Anything with a place on the circle."""

    @property
    def id(self) -> int:
        """The identifier."""


N = TypeVar("N", bound=HasId)


def route(
    me: N, successors: Sequence[N], others: Iterable[N], target: int, most: int = 16
) -> tuple[tuple[N, ...], tuple[N, ...]]:
    """What the member `me` knows about the way to `target`.

    :param successors: its successor list.
    :param others: its fingers.
    :returns: ``(preceding, owners)``: nodes strictly between me and the target, nearest to the
        target first (empty if my successor is the answer), and the entries of my list at or after
        the target, which are the answer once every preceding one failed.
    """
    here = me.id
    if not successors:
        return (), (me,)
    if between_right(here, target, successors[0].id):
        return (), tuple(successors)
    in_list = {peer.id: peer for peer in successors if between(here, peer.id, target)}
    preceding = {peer.id: peer for peer in others if between(here, peer.id, target)}
    preceding.update(in_list)
    # Counter-clockwise from the target: below it downwards, then from the top of the circle.
    ordered = sorted(
        preceding, key=lambda identifier: (identifier < target, identifier), reverse=True
    )
    # All of the list's are needed: its owners are the answer only once every one of them failed.
    kept = [*ordered[:most], *(i for i in ordered[most:] if i in in_list)]
    owners = tuple(peer for peer in successors if peer.id not in in_list)
    return tuple(preceding[identifier] for identifier in kept), owners


class Lookup(Generic[N]):
    """One look-up.  Ask :attr:`ask_next` until it is None, then read :attr:`owner`.

    :param target: the identifier whose successor is wanted.
    :param start: the nodes to begin with.
    :param limit: the most requests to make.
    """

    def __init__(self, target: int, start: Iterable[N], limit: int) -> None:
        self.target = target
        self.requests = 0
        self.timeouts = 0
        #: the first node that should follow the target, once :attr:`ask_next` is None
        self.owner: N | None = None
        #: the member that named the owner: the owner is its successor
        self.before: N | None = None
        self._limit = limit
        self._gone: set[int] = set()
        self._tried: set[int] = set()  # they answered, or are gone: not asked again
        self._preceding = list(start)
        self._fallback: list[N] = []  # named earlier, further from the target
        self._owners: list[N] = []

    @property
    def ask_next(self) -> N | None:
        """The node to ask for its :func:`route`, None when the look-up is over."""
        if self.requests >= self._limit:
            return None
        if self._preceding:
            return self._preceding[0]
        if self.owner is not None:
            return None
        return next((peer for peer in self._fallback if peer.id not in self._tried), None)

    def failed(self, peer: N) -> None:
        """`peer` did not answer, or is no member."""
        self.requests += 1
        self.timeouts += 1
        self.dead(peer)

    def dead(self, peer: N) -> None:
        """`peer` is known to be gone (an owner that did not answer, say)."""
        self._gone.add(peer.id)
        self._tried.add(peer.id)
        self._settle()

    def answered(
        self, peer: N, preceding: Sequence[N], owners: Sequence[N], *, local: bool = False
    ) -> None:
        """`peer` told its route.  Whatever does not come closer than it is ignored.

        :param local: `peer` is the asker itself: no request was made.
        """
        if not local:
            self.requests += 1
        self._tried.add(peer.id)
        self._fallback = [*self._preceding, *self._fallback]
        self._preceding = [o for o in preceding if between(peer.id, o.id, self.target)]
        self._owners = [o for o in owners if between_right(peer.id, self.target, o.id)]
        self.before = peer
        self._settle()

    def _settle(self) -> None:
        self._preceding = [peer for peer in self._preceding if peer.id not in self._tried]
        self._owners = [peer for peer in self._owners if peer.id not in self._gone]
        self.owner = self._owners[0] if self._owners and not self._preceding else None


class Fingers(Generic[N]):
    """The finger table: for each i below k, the successor of ``me + 2**i``, as far as known.

    Fingers make look-ups fast and decide nothing.
    """

    def __init__(self, me: int, k: int) -> None:
        self._me = me
        self._k = k
        self._table: dict[int, N] = {}
        self._next = 0

    def peers(self) -> list[N]:
        """The distinct nodes of the table."""
        return list({peer.id: peer for peer in self._table.values()}.values())

    def wanted(self, successor: N | None) -> tuple[int, int] | None:
        """The next finger to look up: ``(index, identifier)``; None when there is none.

        Fingers that the successor covers need no look-up.
        """
        first = self._reach(successor) if successor is not None else self._k
        for index in [index for index in self._table if index < first]:
            del self._table[index]
        if first == self._k:
            return None
        index = self._next if first <= self._next < self._k else first
        return index, (self._me + (1 << index)) % (1 << self._k)

    def found(self, index: int, peer: N) -> None:
        """The successor of finger `index` is `peer`; later fingers that it covers are set too."""
        reach = self._reach(peer)
        if reach <= index:
            self.skip(index)  # a wrong answer: it lies before the finger
            return
        for covered in range(index, reach):
            if peer.id == self._me:
                self._table.pop(covered, None)
            else:
                self._table[covered] = peer
        self._next = reach

    def skip(self, index: int) -> None:
        """The look-up of finger `index` failed; try another one next time."""
        self._next = index + 1

    def forget(self, dead: int) -> None:
        """Drop a node that is gone."""
        for index in [i for i, peer in self._table.items() if peer.id == dead]:
            del self._table[index]

    def _reach(self, peer: N) -> int:
        """How many of the first fingers do not lie beyond `peer`."""
        steps = distance(self._me, peer.id, self._k)
        return steps.bit_length() if steps else self._k
