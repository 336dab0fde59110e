"""What is asked and told when partitions move between nodes (floor 1; data only)."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec

from ..table.digest import MOST_BUCKETS
from ..table.group import Ballot, Config, Epoch, Record, Successor
from .bodies import MANY, Frozen, Key, Number, Peers, Reason, WrongEpoch

# -- the same records at several members


class Source(IntEnum):
    """Which of a member's records are meant."""

    EPOCH = 0  # those of its acceptor in that epoch
    STAGED = 1  # those that it holds ready for the epoch after that one


Buckets = Annotated[int, msgspec.Meta(ge=1, le=MOST_BUCKETS)]


class GetDigests(Frozen, frozen=True, tag=40):
    """The digests of these partitions.  Answered by :class:`Digests`."""

    parts: Annotated[tuple[tuple[Number, Epoch, Source], ...], MANY]


class SomeDigests(Frozen, frozen=True):
    """The digests of one partition, bucket by bucket, as many as the sender likes."""

    digests: bytes
    purged: Epoch


class Digests(Frozen, frozen=True, tag=143):
    """For each part its digests; None: those records are not here.  As many parts as fit."""

    parts: tuple[SomeDigests | None, ...]


class Differing(Frozen, frozen=True):
    """Some buckets of one partition, and what the asker has in them."""

    partition: Number
    epoch: Epoch
    source: Source
    buckets: Buckets  # in all
    wanted: tuple[Number, ...]
    have: tuple[tuple[Key, Ballot], ...]


class GetDifference(Frozen, frozen=True, tag=41):
    """What differs in these buckets.  Answered by :class:`Differences`."""

    parts: Annotated[tuple[Differing, ...], MANY]


class Difference(Frozen, frozen=True):
    """What differs in some buckets of one partition.

    :ivar records: those that the asker has not, or in another version.
    :ivar dropped: the keys that only the asker has.
    :ivar more: there are more records than fit; ask again.
    """

    records: tuple[tuple[Key, Record], ...]
    dropped: tuple[Key, ...]
    more: bool


class Differences(Frozen, frozen=True, tag=144):
    """For each part what differs; None: those records are not here.  As many parts as fit."""

    parts: tuple[Difference | None, ...]


# -- the next epoch


class Prefetch(Frozen, frozen=True, tag=42):
    """Copy these partitions of this epoch from me, ahead.  Answered by :class:`Done`."""

    parts: Annotated[tuple[tuple[Number, Epoch], ...], MANY]


class Wedge(Frozen, frozen=True, tag=43):
    """WEDGE: stop serving these epochs.  Answered by :class:`Wedged`."""

    parts: Annotated[tuple[tuple[Number, Ballot], ...], MANY]


class Stopped(Frozen, frozen=True, tag=145):
    """One epoch has stopped at this member.

    :ivar vote: what it voted for as the next epoch, and at which ballot.
    :ivar digests: of its frozen records, bucket by bucket.
    """

    vote: tuple[Ballot, Successor] | None
    digests: bytes


class Outbid(Frozen, frozen=True, tag=147):
    """A higher ballot was promised for this epoch's end."""

    ballot: Ballot


class Wedged(Frozen, frozen=True, tag=146):
    """For each part that it has stopped, the ballot that stands against it, or why it is wrong."""

    parts: tuple[Stopped | Outbid | WrongEpoch, ...]


class Fetch(Frozen, frozen=True, tag=44):
    """Hold these bases ready: fetch from me what you lack.  Answered by :class:`Ready`."""

    parts: Annotated[tuple[tuple[Ballot, Successor], ...], MANY]


class Ready(Frozen, frozen=True, tag=148):
    """The partitions whose base is held; for the others, and for them all, the reason if any."""

    partitions: tuple[Number, ...]
    reason: Reason = ""


class Choose(Frozen, frozen=True, tag=45):
    """ACCEPT of the epochs' Paxos: vote for what follows.  Answered by :class:`Chosen`."""

    parts: Annotated[tuple[tuple[Ballot, Successor], ...], MANY]


class Chosen(Frozen, frozen=True, tag=149):
    """The partitions whose next epoch was voted for."""

    partitions: tuple[Number, ...]


class Open(Frozen, frozen=True, tag=31):
    """These epochs begin.  Answered by :class:`Opened`."""

    successors: Annotated[tuple[Successor, ...], MANY]


class Opened(Frozen, frozen=True, tag=130):
    """The partitions of these epochs that are open; for the others the base is missing."""

    partitions: tuple[Number, ...]


# -- a new era


class TakeEra(Frozen, frozen=True, tag=32):
    """Begin a new era in these partitions: fetch what the others have, then open them.

    Answered by :class:`TookEra`.

    :ivar parts: the new configuration, and from whom to fetch.
    """

    parts: Annotated[tuple[tuple[Config, Peers], ...], MANY]


class TookEra(Frozen, frozen=True, tag=131):
    """The configurations in the new era, and how many keys each has."""

    configs: tuple[tuple[Config, Number], ...]


class Survey(Frozen, frozen=True, tag=34):
    """What do you keep?  Answered by :class:`Surveyed`.

    :ivar first: the partition to begin with, with as many as fit; None, as nodes of version 2 ask:
        all of them.
    """

    first: Number | None = None


class Surveyed(Frozen, frozen=True, tag=150):
    """The configurations of the partitions that are kept here; true: its epoch has stopped.

    :ivar more: there are others behind the last of these; ask again.
    """

    parts: tuple[tuple[Config, bool], ...]
    more: bool = False


class Recover(Frozen, frozen=True, tag=33):
    """Recover the ring, giving up what is not reachable.  Answered by :class:`Recovered`."""


class Recovered(Frozen, frozen=True, tag=135):
    """What the recovery did; see ``py2p_twisted.node.recovery.RecoveryReport``."""

    era: Number
    kept: Number
    reformed: Number
    lost: Number
    keys: Number
    superseded: bool
