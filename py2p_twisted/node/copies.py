"""May two nodes with these numbers of copies be of one ring?  (floor 2; pure)

A ring keeps the same number of copies of every key on all of its nodes, for ever.  Its founder
chose it; whoever asks for another one is refused, and both users are told.
"""

from __future__ import annotations

from ..base import Peer, show_address
from ..errors import RingConflict
from ..wire.messages import Hello

__all__ = ["disagreement"]


def disagreement(
    ours: Hello, theirs: Hello, asked: int | None, *, gives_way: bool
) -> RingConflict | None:
    """Why the numbers of two nodes keep them apart, None if they do not.

    :param asked: what this node's user asked for, None if that is left to the ring.
    :param gives_way: will this node give its own ring up for the peer's?
    """
    if ours.ring and ours.ring == theirs.ring:
        if ours.replicas != theirs.replicas:
            return _one_ring_two_numbers(ours, theirs)
    elif theirs.ring and (gives_way or not ours.ring):
        if asked is not None and asked != theirs.replicas:
            return RingConflict(
                _wanted_here(_name(theirs.peer), theirs.replicas, asked),
                for_peer=_wanted_there("there", theirs.replicas, asked),
            )
    elif ours.ring and not theirs.ring and theirs.replicas not in (0, ours.replicas):
        return RingConflict(
            _wanted_there(f"at {_name(theirs.peer)}", ours.replicas, theirs.replicas),
            for_peer=_wanted_here("it", ours.replicas, theirs.replicas),
        )
    return None


def _name(peer: Peer) -> str:
    return show_address(peer.host, peer.port)


def _copies(number: int) -> str:
    return f"{number} {'copy' if number == 1 else 'copies'} of every key"


def _wanted_here(ring: str, number: int, asked: int) -> str:
    """For the user who asked; `ring` is the node whose ring it is."""
    return (
        f"{ring} is in a ring that keeps {_copies(number)}, and replicas={asked} was asked for "
        f"here: leave replicas= out, or ask for {number}"
    )


def _wanted_there(where: str, number: int, asked: int) -> str:
    """For the user whose ring it is."""
    return (
        f"replicas={asked} was asked for {where}, and the ring here keeps {_copies(number)}: "
        f"leave replicas= out there, or ask for {number}"
    )


def _one_ring_two_numbers(ours: Hello, theirs: Hello) -> RingConflict:
    return RingConflict(
        f"{_name(theirs.peer)} keeps {_copies(theirs.replicas)} in the ring in which "
        f"{_name(ours.peer)} keeps {_copies(ours.replicas)}: one of the two is broken"
    )
