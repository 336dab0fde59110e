"""Who ought to keep a partition (floor 0; pure).

The ring proposes: the first live successors of the partition's start, as many as the ring has
replicas, an odd number of them.  Only the group's own agreement makes them members.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ..base import Peer

__all__ = ["desired"]


def desired(
    live: Sequence[Peer],
    present: Sequence[Peer],
    replicas: int,
    distance: Callable[[Peer], int],
    *,
    dead: Collection[bytes] = (),
    gone: Collection[bytes] = (),
) -> tuple[Peer, ...]:
    """The members that a partition ought to have; `present` itself if nothing is to change.

    A member that is silent, but neither dead nor gone, keeps its place: it may only be slow.  A
    dead one is replaced, or dropped if an odd number of at least three is left.

    :param live: the first live successors of the partition's start, in circle order, without
        those that leave.
    :param present: the members now.
    :param replicas: the ring's number.
    :param distance: from the partition's start to a peer, clockwise.
    :param dead: instances that were silent for so long that they are to be replaced.
    :param gone: instances that will certainly not come back: they left, or their memory is gone.
    """
    alive = {peer.instance for peer in live}
    silent = [
        peer
        for peer in present
        if peer.instance not in alive and peer.instance not in dead and peer.instance not in gone
    ]
    candidates = sorted([*live, *silent], key=distance)
    lost = [peer for peer in present if peer.instance in dead and peer.instance not in gone]
    size = min(replicas, len(candidates))
    if size == 2 and replicas > 2 and (len(present) > 2 or silent) and lost:
        return tuple(present)  # two of three are as good as two of two
    if size % 2 == 0 and size > 2:
        size -= 1
    if size == 0 or (lost and size < min(3, len(present))):
        return tuple(present)
    wanted = tuple(candidates[:size])
    return tuple(present) if wanted == tuple(present) else wanted
