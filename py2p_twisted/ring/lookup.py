"""Finding the successor of an identifier (floor 0; pure).

:func:`route` is what a member answers, :class:`Lookup` is what the asker makes of the answers: an
iterative look-up (Stoica et al., ToN 2003, section IV) that comes closer on the circle with every
answer and goes round nodes that do not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from .circle import between, between_right

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
    preceding = dict(in_list)
    for peer in others:
        if between(here, peer.id, target):
            preceding[peer.id] = peer
    size = max(target, *preceding, here) + 1
    ordered = sorted(preceding, key=lambda identifier: (target - identifier) % size)
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
        self._failed: set[int] = set()
        self._preceding: list[N] = list(start)
        self._owners: tuple[N, ...] = ()
        self._fallback: list[N] = []

    @property
    def ask_next(self) -> N | None:
        """The node to ask for its :func:`route`, None when the look-up is over."""
        if self.requests >= self._limit:
            return None
        for candidates in (self._preceding, () if self._live_owner() else self._fallback):
            for peer in candidates:
                if peer.id not in self._failed:
                    return peer
        return None

    def _live_owner(self) -> N | None:
        return next((peer for peer in self._owners if peer.id not in self._failed), None)

    def failed(self, peer: N) -> None:
        """`peer` did not answer, or is no member."""
        self.requests += 1
        self.timeouts += 1
        self.dead(peer)

    def dead(self, peer: N) -> None:
        """`peer` is known to be gone (an owner that did not answer, say)."""
        self._failed.add(peer.id)
        self._settle()

    def answered(
        self, peer: N, preceding: Sequence[N], owners: Sequence[N], *, local: bool = False
    ) -> None:
        """`peer` told its route.  Whatever does not come closer than it is ignored."""
        if not local:
            self.requests += 1
        closer = [
            other
            for other in preceding
            if between(peer.id, other.id, self.target) and other.id not in self._failed
        ]
        tried = peer.id
        self._fallback = [
            other
            for other in (*self._preceding, *self._fallback)
            if other.id != tried and other.id not in self._failed
        ]
        self._preceding = closer
        self._owners = tuple(owners)
        self.before = peer
        self._settle()

    def _settle(self) -> None:
        waiting = any(peer.id not in self._failed for peer in self._preceding)
        self.owner = None if waiting else self._live_owner()


class Fingers:
    """The finger table: for each i below k, the successor of ``me + 2**i``, as far as known.

    Fingers make look-ups fast and decide nothing.
    """

    def __init__(self, me: int, k: int) -> None:
        self._me = me
        self._k = k
        self._table: dict[int, HasId] = {}
        self._next = 0

    def peers(self) -> list[HasId]:
        """The distinct nodes of the table."""
        return list({peer.id: peer for peer in self._table.values()}.values())

    def wanted(self, successor: HasId | None) -> tuple[int, int] | None:
        """The next finger to look up: ``(index, identifier)``; None when there is none.

        Fingers that the successor covers need no look-up.
        """
        if successor is None:
            self._table.clear()
            return None
        first = next(
            (
                index
                for index in range(self._k)
                if not between_right(self._me, self._start(index), successor.id)
            ),
            None,
        )
        if first is None:
            self._table.clear()
            return None
        for index in [index for index in self._table if index < first]:
            del self._table[index]
        index = self._next if first <= self._next < self._k else first
        return index, self._start(index)

    def found(self, index: int, peer: HasId) -> None:
        """The successor of finger `index` is `peer`; later fingers that it covers are set too."""
        while index < self._k and between_right(self._me, self._start(index), peer.id):
            if peer.id == self._me:
                self._table.pop(index, None)
            else:
                self._table[index] = peer
            index += 1
        self._next = index

    def skip(self, index: int) -> None:
        """The look-up of finger `index` failed; try another one next time."""
        self._next = index + 1

    def forget(self, dead: int) -> None:
        """Drop a node that is gone."""
        for index in [i for i, peer in self._table.items() if peer.id == dead]:
            del self._table[index]

    def _start(self, index: int) -> int:
        return (self._me + (1 << index)) % (1 << self._k)
