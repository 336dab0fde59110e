"""What is asked and told about changes of keys (floor 1; data only)."""

from __future__ import annotations

from typing import Annotated

from ..table.group import Ballot, Config, Epoch, Record
from .bodies import MANY, Frozen, Key, Number, WrongEpoch

#: Keys that one message tells of, over all its parts.
MOST_TOLD = 4096


class WatchPart(Frozen, frozen=True):
    """One partition that is watched.

    :ivar reports: tell records, not only their versions.
    :ivar anew: begin with all that is there.
    """

    partition: Number
    epoch: Epoch
    reports: bool
    anew: bool


class Watch(Frozen, frozen=True, tag=70):
    """Tell me what you accept, by :class:`Changed`; again: go on with it.

    Answered by :class:`Watched`.

    :ivar number: of this watch, among those of its sender.
    :ivar key: a table key.
    :ivar prefix: all keys that begin with it?
    :ivar parts: what is watched from now on, beside what was watched already.
    """

    number: Number
    key: Key
    prefix: bool
    parts: Annotated[tuple[WatchPart, ...], MANY]


class Unwatch(Frozen, frozen=True, tag=71):
    """Tell me no more.  Answered by :class:`Done`."""

    number: Number


class Told(Frozen, frozen=True):
    """What a member has accepted of one partition, in order.

    :ivar anew: something may have been missed: what was told before this does not count.
    :ivar ballots: keys, their versions, and whether there is a value.
    :ivar heads: keys and their records without their values: empty bytes stand for one.
    :ivar records: keys and their records.
    :ivar current: this is all there is, and whatever is accepted will be told.
    :ivar over: the partition is not watched here any more: the epoch is over.
    :ivar config: the newest configuration known, if it is over.
    """

    partition: Number
    epoch: Epoch
    anew: bool
    ballots: tuple[tuple[Key, Ballot, bool], ...]
    heads: tuple[tuple[Key, Record], ...]
    records: tuple[tuple[Key, Record], ...]
    current: bool
    over: bool = False
    config: Config | None = None


class Changed(Frozen, frozen=True, tag=72):
    """What was accepted of what you watch.

    Answered by :class:`Done`, or `Declined` by who does not watch it.
    """

    number: Number
    parts: Annotated[tuple[Told, ...], MANY]

    def __post_init__(self) -> None:
        """Refuse too many keys, here and when it is decoded."""
        items = sum(len(part.ballots) + len(part.heads) + len(part.records) for part in self.parts)
        if items > MOST_TOLD:
            raise ValueError(f"{items} keys in one message; {MOST_TOLD} are allowed")


class Watched(Frozen, frozen=True, tag=170):
    """What became of a :class:`Watch`.

    :ivar new: nothing was watched under this number before.
    :ivar partitions: how many are told of under it now.
    :ivar refused: at which places of the parts an epoch is not served.
    """

    new: bool
    partitions: Number
    refused: tuple[tuple[Number, WrongEpoch], ...] = ()
