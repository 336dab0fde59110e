"""What the parts of a node keep in its :class:`~.core.Core` (floor 2; data only)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from ..table.group import Ballot, Base, Epoch, Successor
from ..table.records import Records

__all__ = [
    "CLAIM",
    "USER",
    "Phase",
    "Remembered",
    "Staged",
    "claim_key",
    "name_in_ballots",
    "user_key",
]

#: How the keys of users begin inside the table.
USER = b"\0"
#: How the reserved records begin that claim identifiers.
CLAIM = b"\1"


def user_key(key: bytes) -> bytes:
    """The table's key of a user's key."""
    return USER + key


def claim_key(identifier: bytes) -> bytes:
    """The table's key of the record that claims an identifier."""
    return CLAIM + identifier


def name_in_ballots(instance: bytes, life: int) -> bytes:
    """A node's name in ballots: in every life another one, so that no ballot is used twice.

    What a life before this one proposed, and to whom, is not known.  In the first life it is the
    instance, which the first ballots of epochs are promised to.
    """
    if life == 1:
        return instance
    return sha256(instance + life.to_bytes(8, "big")).digest()[:16]


class Phase(Enum):
    """What a node is doing."""

    LEECHING = "leeching"
    JOINING = "joining"
    JOINED = "joined"
    LEAVING = "leaving"
    STOPPED = "stopped"


@dataclass
class Staged:
    """Records that this node keeps ready for an epoch that it may open.

    :ivar epoch: in which they were taken; they are for the one after it.
    :ivar successor: once they are exactly its base: what may have been decided.
    :ivar ballot: at which they were asked for.
    """

    epoch: Epoch
    records: Records
    successor: Successor | None = None
    ballot: Ballot | None = None

    @property
    def base(self) -> Base | None:
        """What they are, once they are a base."""
        return self.successor.base if self.successor is not None else None


@dataclass
class Remembered:
    """A peer to look for when the ring may have fallen apart."""

    next_try: float = 0.0
    pause: float = 0.0
