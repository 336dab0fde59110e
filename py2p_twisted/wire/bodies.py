"""What requests ask and replies tell, one frozen struct each (floor 1; data only)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..base import Peer
from ..table.group import Base, Config, Epoch, Record, Successor
from ..table.proposer import Outcome, Write

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Identifier = Annotated[bytes, msgspec.Meta(min_length=1, max_length=20)]
Key = Annotated[bytes, msgspec.Meta(max_length=4096 + 32)]
Instance = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Reason = Annotated[str, msgspec.Meta(max_length=1024)]
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


class Busy(Frozen, frozen=True, tag=103):
    """Not now: the node has as much to do as it can bear.  Nothing was done; try again."""


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
    """These configurations are news.  Answered by :class:`Done`."""

    configs: tuple[Config, ...]


class Configs(Frozen, frozen=True, tag=106):
    """Configurations, and the version of the sender's directory that they reach."""

    configs: tuple[Config, ...]
    version: Number


class Read(Frozen, frozen=True, tag=20):
    """The value at a key.  Answered by :class:`Value`."""

    epoch: Epoch
    key: Key


class Value(Frozen, frozen=True, tag=120):
    """A value; None: nothing is there."""

    value: bytes | None


class WrongEpoch(Frozen, frozen=True, tag=121):
    """Not done: the request's epoch is not the group's, or has stopped.

    :ivar config: the newest configuration that the sender knows, if any.
    :ivar wedged: the epoch has stopped and the next one is on its way; ask again soon.
    """

    config: Config | None
    wedged: bool


class WriteOne(Frozen, frozen=True, tag=21):
    """Write one key.  Answered by :class:`Written`."""

    epoch: Epoch
    write: Write


class Written(Frozen, frozen=True, tag=122):
    """What became of a write."""

    outcome: Outcome


class ReadMany(Frozen, frozen=True, tag=22):
    """Values at keys of partitions that one node keeps.  Answered by :class:`Values`."""

    parts: tuple[tuple[Epoch, tuple[Key, ...]], ...]


class SomeValues(Frozen, frozen=True, tag=133):
    """The values of one part, in the order of its keys."""

    values: tuple[bytes | None, ...]


class Values(Frozen, frozen=True, tag=123):
    """For each part its values, or why there are none."""

    parts: tuple[SomeValues | WrongEpoch, ...]


class WriteMany(Frozen, frozen=True, tag=23):
    """Writes of partitions that one node keeps.  Answered by :class:`WrittenMany`."""

    parts: tuple[tuple[Epoch, tuple[Write, ...]], ...]


class SomeWritten(Frozen, frozen=True, tag=134):
    """What became of the writes of one part, in their order."""

    outcomes: tuple[Outcome, ...]


class WrittenMany(Frozen, frozen=True, tag=124):
    """For each part what became of its writes, or why nothing did."""

    parts: tuple[SomeWritten | WrongEpoch, ...]


class Count(Frozen, frozen=True, tag=24):
    """How many keys have these partitions?  Answered by :class:`Counted`."""

    parts: tuple[tuple[Number, Epoch], ...]


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
    """Some keys, with their values if asked for; `more` tells whether others follow."""

    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    more: bool


class StagePart(Frozen, frozen=True):
    """Records of one partition on their way to a next member."""

    partition: Number
    epoch: Epoch  # in which they were taken
    fresh: bool  # forget what was staged before
    records: tuple[tuple[Key, Record], ...]
    dropped: tuple[Key, ...] = ()
    base: Base | None = None  # with the last part: what is staged now


class Stage(Frozen, frozen=True, tag=30):
    """Keep these records ready.  Answered by :class:`Done`, or :class:`Declined`."""

    parts: tuple[StagePart, ...]


class Open(Frozen, frozen=True, tag=31):
    """These epochs begin.  Answered by :class:`Opened`."""

    successors: tuple[Successor, ...]


class Opened(Frozen, frozen=True, tag=130):
    """The partitions of these epochs that are open; for the others the base is missing."""

    partitions: tuple[Number, ...]


class TakeEra(Frozen, frozen=True, tag=32):
    """Begin a new era in every partition that you keep.  Answered by :class:`TookEra`."""

    era: Number
    era_random: Number


class TookEra(Frozen, frozen=True, tag=131):
    """The configurations in the new era."""

    configs: tuple[Config, ...]


class Recover(Frozen, frozen=True, tag=33):
    """Recover the ring, giving up what is not reachable.  Answered by :class:`Recovered`."""


class Recovered(Frozen, frozen=True, tag=135):
    """What the recovery did; see ``py2p_twisted.node.recovery.RecoveryReport``."""

    era: Number
    kept: Number
    lost: Number
    superseded: bool
