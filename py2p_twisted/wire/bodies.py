"""What requests ask and replies tell, one frozen struct each (floor 1; data only)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, Any

import msgspec

from ..base import Peer
from ..table.group import Ballot, Config, Epoch, Record
from ..table.proposer import Outcome, Write

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Identifier = Annotated[bytes, msgspec.Meta(min_length=1, max_length=20)]
Key = Annotated[bytes, msgspec.Meta(max_length=4096 + 32)]
Instance = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
#: Characters of a reason.
MOST_REASON = 1024
Reason = Annotated[str, msgspec.Meta(max_length=MOST_REASON)]
#: Parts of one message, one for each partition at most.
MANY = msgspec.Meta(max_length=1024)
#: Keys of one message, over all its parts; honest nodes put some 1200 into one.
MOST_ITEMS = 4096
#: Writes of one message; honest nodes put 512 into one.
MOST_WRITES = 1024
Peers = Annotated[tuple[Peer, ...], msgspec.Meta(max_length=64)]


class Frozen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all messages are: immutable, and arrays on the wire."""


class Ping(Frozen, frozen=True, tag=1):
    """Are you there, and a member if `member`?  Answered by :class:`Done`, or `Declined`."""

    member: bool = False


class Done(Frozen, frozen=True, tag=101):
    """Yes; it is done."""


class Declined(Frozen, frozen=True, tag=102):
    """No, for a reason that its sender may tell its user."""

    reason: Reason


def declined(error: BaseException) -> Declined:
    """No, for the reason that an error tells, as much of it as fits."""
    return Declined(str(error)[:MOST_REASON])


class Busy(Frozen, frozen=True, tag=103):
    """Not now: the node has as much to do as it can bear.  Nothing was done; try again."""


class Full(Frozen, frozen=True, tag=107):
    """No: there is no room for what would be written.  Nothing was done."""

    reason: Reason


class FindSuccessor(Frozen, frozen=True, tag=2):
    """Which way to this identifier?  Answered by :class:`RouteTo` at once."""

    target: Identifier


class RouteTo(Frozen, frozen=True, tag=104):
    """The way that a member knows; see :func:`py2p_twisted.ring.lookup.route`."""

    preceding: Peers
    owners: Peers


class GetState(Frozen, frozen=True, tag=3):
    """Your pointers, and your directory's changes after `since`; may wait for a step to end."""

    since: Number
    instance: Instance | None = None  # that `since` belongs to


class State(Frozen, frozen=True, tag=105):
    """A member's pointers, and the difference of its directory."""

    predecessor: Peer | None
    successors: Peers
    configs: tuple[Config, ...]
    version: Number


class Notify(Frozen, frozen=True, tag=4):
    """I think that I am your predecessor."""

    peer: Peer


class Leaving(Frozen, frozen=True, tag=5):
    """I am no member any more."""

    peer: Peer


class GetConfigs(Frozen, frozen=True, tag=6):
    """The directory's changes after `since`.  Answered by :class:`Configs`."""

    since: Number


class GetConfig(Frozen, frozen=True, tag=7):
    """The newest configuration of one partition.  Answered by :class:`Configs`."""

    partition: Number


class Learn(Frozen, frozen=True, tag=8):
    """A quorum of their members has opened these configurations.  Answered by :class:`Done`."""

    configs: Annotated[tuple[Config, ...], MANY]


class Configs(Frozen, frozen=True, tag=106):
    """Configurations, and the version of the sender's directory that they reach."""

    configs: tuple[Config, ...]
    version: Number


class Want(IntEnum):
    """What an answer to a read is to hold."""

    VALUE = 0
    BOTH = 1  # value and ballot
    BALLOT = 2


class Read(Frozen, frozen=True, tag=20):
    """The record at a key.  Answered by :class:`Value`, :class:`Versioned` or :class:`Version`."""

    epoch: Epoch
    key: Key
    want: Want = Want.VALUE


class Value(Frozen, frozen=True, tag=120):
    """A value; None: nothing is there."""

    value: bytes | None


class Versioned(Frozen, frozen=True, tag=136):
    """A value and its version; no ballot: no record at all."""

    value: bytes | None
    ballot: Ballot | None


class Version(Frozen, frozen=True, tag=137):
    """The version of a key; None: no record at all."""

    ballot: Ballot | None


class WrongEpoch(Frozen, frozen=True, tag=121):
    """Not done: the request's epoch is not the group's, or has stopped.

    :ivar config: the newest configuration that the sender knows, if any.
    :ivar wedged: the epoch has stopped and the next one is on its way; ask again soon.
    """

    config: Config | None
    wedged: bool


class WriteOne(Frozen, frozen=True, tag=21):
    """Have one key written, as the proposer of its group.  Answered by :class:`Written`."""

    epoch: Epoch
    write: Write


class Written(Frozen, frozen=True, tag=122):
    """What became of a write, and the proposer's clock."""

    outcome: Outcome
    stamp: Number


class Settle(Frozen, frozen=True, tag=26):
    """What is the value of this key, whatever goes on?  Answered by :class:`Value`."""

    epoch: Epoch
    key: Key


class Failed(Frozen, frozen=True, tag=138):
    """The proposer could not reach a quorum of the group.

    :ivar reached: members that answered.
    :ivar sent: something was sent to members: the write may still take effect.
    """

    reached: Number
    sent: bool


def _limit(parts: Iterable[tuple[Any, ...]], most: int = MOST_ITEMS) -> None:
    """What one message asks for is done in one turn of the reactor: it must not be too much.

    :raises ValueError: if the last fields of the parts hold too many items together.
    """
    items = sum([len(part[-1]) for part in parts])
    if items > most:
        raise ValueError(f"{items} keys in one message; {most} are allowed")


class ReadMany(Frozen, frozen=True, tag=22):
    """Records at keys of partitions that one node keeps.  Answered by :class:`Values`."""

    parts: Annotated[tuple[tuple[Epoch, tuple[Key, ...]], ...], MANY]
    want: Want = Want.VALUE

    def __post_init__(self) -> None:
        """Refuse too many keys, here and when it is decoded."""
        _limit(self.parts)


class SomeValues(Frozen, frozen=True, tag=133):
    """The values, and the ballots, of one part, in the order of its keys, as was asked for."""

    values: tuple[bytes | None, ...]
    ballots: tuple[Ballot | None, ...] = ()


class Values(Frozen, frozen=True, tag=123):
    """For each part its values, or why there are none."""

    parts: tuple[SomeValues | WrongEpoch, ...]


class WriteMany(Frozen, frozen=True, tag=23):
    """Have keys of partitions written, as their proposer.  Answered by :class:`WrittenMany`."""

    parts: Annotated[tuple[tuple[Epoch, tuple[Write, ...]], ...], MANY]

    def __post_init__(self) -> None:
        """Refuse too many keys, here and when it is decoded."""
        _limit(self.parts, MOST_WRITES)


class SomeWritten(Frozen, frozen=True, tag=134):
    """What became of the writes of one part, in their order."""

    outcomes: tuple[Outcome, ...]


class WrittenMany(Frozen, frozen=True, tag=124):
    """For each part what became of its writes, or why nothing is known; the proposer's clock."""

    parts: tuple[SomeWritten | WrongEpoch | Failed, ...]
    stamp: Number


class Prepare(Frozen, frozen=True, tag=27):
    """PREPARE: promise these ballots, partition by partition.  Answered by :class:`Promised`."""

    parts: Annotated[tuple[tuple[Number, Epoch, tuple[tuple[Key, Ballot], ...]], ...], MANY]

    def __post_init__(self) -> None:
        """Refuse too many keys, here and when it is decoded."""
        _limit(self.parts)


class SomePromised(Frozen, frozen=True, tag=139):
    """The answers of one part, in the order of its keys, as many as fit.

    :ivar purged: the newest epoch whose base left tombstones out.
    :ivar records: what was accepted so far.
    :ivar refused: at which places a higher ballot was promised, and which.
    """

    purged: Epoch
    records: tuple[Record | None, ...]
    refused: tuple[tuple[Number, Ballot], ...]


class Promised(Frozen, frozen=True, tag=140):
    """For each part its promises, or why there are none."""

    parts: tuple[SomePromised | WrongEpoch, ...]


class Accept(Frozen, frozen=True, tag=28):
    """ACCEPT: take over these records of some partitions.  Answered by :class:`Accepted`."""

    parts: Annotated[tuple[tuple[Number, Epoch, tuple[tuple[Key, Record], ...]], ...], MANY]

    def __post_init__(self) -> None:
        """Refuse too many keys, here and when it is decoded."""
        _limit(self.parts)


class SomeAccepted(Frozen, frozen=True, tag=141):
    """One part was accepted, but for these places, where a higher ballot was promised."""

    refused: tuple[tuple[Number, Ballot], ...] = ()


class Accepted(Frozen, frozen=True, tag=142):
    """For each part what was accepted."""

    parts: tuple[SomeAccepted | WrongEpoch, ...]


class Count(Frozen, frozen=True, tag=24):
    """How many keys have these partitions?  Answered by :class:`Counted`."""

    parts: Annotated[tuple[tuple[Number, Epoch], ...], MANY]


class Counted(Frozen, frozen=True, tag=125):
    """For each partition its number of keys, or why there is none."""

    parts: tuple[Number | WrongEpoch, ...]


class Page(Frozen, frozen=True, tag=25):
    """The keys of a partition after one key, in order.  Answered by :class:`Window`."""

    partition: Number
    epoch: Epoch
    after: Key | None
    values: bool  # with their values?
    most: Annotated[int, msgspec.Meta(ge=1, le=4096)]


class Window(Frozen, frozen=True, tag=126):
    """Some keys with their ballots, deleted ones too; `more` tells whether others follow.

    :ivar values: in the order of the keys, if asked for; None: deleted.
    """

    keys: tuple[bytes, ...]
    ballots: tuple[Ballot, ...]
    values: tuple[bytes | None, ...]
    alive: bytes  # for each key 1 or 0: has it a value?
    more: bool
