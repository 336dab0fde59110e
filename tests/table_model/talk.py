"""What the nodes of the model ask and answer each other (test support; data only)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from py2p_twisted.table.group import Ballot, Config, Epoch, Record, Successor
from py2p_twisted.table.proposer import Outcome

__all__ = [
    "Accepted",
    "Ask",
    "Failed",
    "Held",
    "Missing",
    "Promised",
    "Records",
    "Refused",
    "Settled",
    "Stopped",
    "Task",
    "Written",
    "Wrong",
]

T = TypeVar("T")


class Ask(NamedTuple):
    """A round of questions to some instances.

    :ivar more: others are asked, too, in the round that is under way.
    """

    kind: str
    args: tuple[Any, ...]
    to: Sequence[bytes]
    more: bool = False


#: What a node does: it yields a round of questions, or None to wait for one more answer, and gets
#: ``(instance, answer)``, or None when time is up.
Task: TypeAlias = Generator[Ask | None, Any, T]


class Held(NamedTuple):
    """The record that a member has accepted."""

    record: Record | None


class Promised(NamedTuple):
    """PREPARE was promised."""

    record: Record | None
    purged: Epoch
    stamp: int


class Accepted(NamedTuple):
    """ACCEPT was obeyed."""

    stamp: int


class Refused(NamedTuple):
    """A higher ballot stands against it."""

    ballot: Ballot


class Wrong(NamedTuple):
    """The epoch is another one, or has stopped; the newest configuration that is known."""

    config: Config | None


class Written(NamedTuple):
    """What became of a write, and the proposer's clock."""

    outcome: Outcome
    stamp: int


class Settled(NamedTuple):
    """What the record of a key certainly was."""

    record: Record | None


class Failed(NamedTuple):
    """A proposer could not reach a quorum; was anything sent?"""

    sent: bool


class Stopped(NamedTuple):
    """The epoch has stopped at a member: its vote, and the digests of its frozen records."""

    vote: tuple[Ballot, Successor] | None
    digests: bytes


class Records(NamedTuple):
    """A copy of records, and the newest epoch whose base left tombstones out."""

    records: dict[bytes, Record]
    purged: Epoch


class Missing(NamedTuple):
    """These records are not here; the newest configuration that is known."""

    config: Config | None
