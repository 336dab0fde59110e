"""Every message that two nodes exchange, one frozen struct each (floor 1; data only).

A connection opens with a :class:`Hello` in both directions, or ends with a :class:`Refused`.  Then
each side sends an :class:`Ask` and gets an :class:`Answer` with the same number.  A Hello sent
again replaces the first: the node joined, left, or gave its ring up.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..base import Peer
from ..table.group import Base, Config, Epoch, Record, Successor
from ..table.proposer import Outcome, Write

__all__ = [
    "WIRE_VERSION",
    "Answer",
    "Ask",
    "Busy",
    "Configs",
    "Count",
    "Counted",
    "Declined",
    "Done",
    "FindSuccessor",
    "GetConfig",
    "GetConfigs",
    "GetState",
    "Hello",
    "Learn",
    "Leaving",
    "Message",
    "Notify",
    "Open",
    "Opened",
    "Page",
    "Ping",
    "Read",
    "ReadMany",
    "Recover",
    "Recovered",
    "Refused",
    "Reply",
    "Request",
    "RouteTo",
    "SomeValues",
    "SomeWritten",
    "Stage",
    "StagePart",
    "State",
    "TakeEra",
    "TookEra",
    "Value",
    "Values",
    "Window",
    "WriteMany",
    "WriteOne",
    "Written",
    "WrittenMany",
    "WrongEpoch",
]

#: Both sides must speak the same.
WIRE_VERSION = 1

Number = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Identifier = Annotated[bytes, msgspec.Meta(min_length=1, max_length=20)]
Key = Annotated[bytes, msgspec.Meta(max_length=4096 + 32)]
Instance = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Reason = Annotated[str, msgspec.Meta(max_length=1024)]
Peers = Annotated[tuple[Peer, ...], msgspec.Meta(max_length=64)]


class _Frozen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all messages are: immutable, and arrays on the wire."""


# -- requests, and the replies to them


class Ping(_Frozen, frozen=True, tag=1):
    """Are you there, and a member if `member`?  Answered by :class:`Done`, or `Declined`."""

    member: bool = False


class Done(_Frozen, frozen=True, tag=101):
    """Yes; it is done."""


class Declined(_Frozen, frozen=True, tag=102):
    """No, for a reason that its sender may tell its user."""

    reason: Reason


class Busy(_Frozen, frozen=True, tag=103):
    """Not now: the node has as much to do as it can bear.  Nothing was done; try again."""


class FindSuccessor(_Frozen, frozen=True, tag=2):
    """Which way to this identifier?  Answered by :class:`RouteTo` at once."""

    target: Identifier


class RouteTo(_Frozen, frozen=True, tag=104):
    """The way that a member knows; see :func:`py2p_twisted.ring.lookup.route`."""

    preceding: Peers
    owners: Peers


class GetState(_Frozen, frozen=True, tag=3):
    """Your pointers, and your directory's changes after `since`; may wait for a step to end."""

    since: Number
    instance: Instance | None = None  # that `since` belongs to


class State(_Frozen, frozen=True, tag=105):
    """A member's pointers, and the difference of its directory."""

    predecessor: Peer | None
    successors: Peers
    configs: tuple[Config, ...]
    version: Number


class Notify(_Frozen, frozen=True, tag=4):
    """I think that I am your predecessor."""

    peer: Peer


class Leaving(_Frozen, frozen=True, tag=5):
    """I am no member any more."""

    peer: Peer


class GetConfigs(_Frozen, frozen=True, tag=6):
    """The directory's changes after `since`.  Answered by :class:`Configs`."""

    since: Number


class GetConfig(_Frozen, frozen=True, tag=7):
    """The newest configuration of one partition.  Answered by :class:`Configs`."""

    partition: Number


class Learn(_Frozen, frozen=True, tag=8):
    """These configurations are news.  Answered by :class:`Done`."""

    configs: tuple[Config, ...]


class Configs(_Frozen, frozen=True, tag=106):
    """Configurations, and the version of the sender's directory that they reach."""

    configs: tuple[Config, ...]
    version: Number


class Read(_Frozen, frozen=True, tag=20):
    """The value at a key.  Answered by :class:`Value`."""

    epoch: Epoch
    key: Key


class Value(_Frozen, frozen=True, tag=120):
    """A value; None: nothing is there."""

    value: bytes | None


class WrongEpoch(_Frozen, frozen=True, tag=121):
    """Not done: the request's epoch is not the group's, or has stopped.

    :ivar config: the newest configuration that the sender knows, if any.
    :ivar wedged: the epoch has stopped and the next one is on its way; ask again soon.
    """

    config: Config | None
    wedged: bool


class WriteOne(_Frozen, frozen=True, tag=21):
    """Write one key.  Answered by :class:`Written`."""

    epoch: Epoch
    write: Write


class Written(_Frozen, frozen=True, tag=122):
    """What became of a write."""

    outcome: Outcome


class ReadMany(_Frozen, frozen=True, tag=22):
    """Values at keys of partitions that one node keeps.  Answered by :class:`Values`."""

    parts: tuple[tuple[Epoch, tuple[Key, ...]], ...]


class SomeValues(_Frozen, frozen=True, tag=133):
    """The values of one part, in the order of its keys."""

    values: tuple[bytes | None, ...]


class Values(_Frozen, frozen=True, tag=123):
    """For each part its values, or why there are none."""

    parts: tuple[SomeValues | WrongEpoch, ...]


class WriteMany(_Frozen, frozen=True, tag=23):
    """Writes of partitions that one node keeps.  Answered by :class:`WrittenMany`."""

    parts: tuple[tuple[Epoch, tuple[Write, ...]], ...]


class SomeWritten(_Frozen, frozen=True, tag=134):
    """What became of the writes of one part, in their order."""

    outcomes: tuple[Outcome, ...]


class WrittenMany(_Frozen, frozen=True, tag=124):
    """For each part what became of its writes, or why nothing did."""

    parts: tuple[SomeWritten | WrongEpoch, ...]


class Count(_Frozen, frozen=True, tag=24):
    """How many keys have these partitions?  Answered by :class:`Counted`."""

    parts: tuple[tuple[Number, Epoch], ...]


class Counted(_Frozen, frozen=True, tag=125):
    """For each partition its number of keys, or why there is none."""

    parts: tuple[Number | WrongEpoch, ...]


class Page(_Frozen, frozen=True, tag=25):
    """The keys of a partition after one key, in order.  Answered by :class:`Window`."""

    partition: Number
    epoch: Epoch
    after: Key | None
    values: bool  # with their values?
    most: Annotated[int, msgspec.Meta(ge=1, le=4096)]


class Window(_Frozen, frozen=True, tag=126):
    """Some keys, with their values if asked for; `more` tells whether others follow."""

    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    more: bool


class StagePart(_Frozen, frozen=True):
    """Records of one partition on their way to a next member."""

    partition: Number
    epoch: Epoch  # in which they were taken
    fresh: bool  # forget what was staged before
    records: tuple[tuple[Key, Record], ...]
    dropped: tuple[Key, ...] = ()
    base: Base | None = None  # with the last part: what is staged now


class Stage(_Frozen, frozen=True, tag=30):
    """Keep these records ready.  Answered by :class:`Done`, or :class:`Declined`."""

    parts: tuple[StagePart, ...]


class Open(_Frozen, frozen=True, tag=31):
    """These epochs begin.  Answered by :class:`Opened`."""

    successors: tuple[Successor, ...]


class Opened(_Frozen, frozen=True, tag=130):
    """The partitions of these epochs that are open; for the others the base is missing."""

    partitions: tuple[Number, ...]


class TakeEra(_Frozen, frozen=True, tag=32):
    """Begin a new era in every partition that you keep.  Answered by :class:`TookEra`."""

    era: Number
    era_random: Number


class TookEra(_Frozen, frozen=True, tag=131):
    """The configurations in the new era."""

    configs: tuple[Config, ...]


class Recover(_Frozen, frozen=True, tag=33):
    """Recover the ring, giving up what is not reachable.  Answered by :class:`Recovered`."""


class Recovered(_Frozen, frozen=True, tag=135):
    """What the recovery did; see ``py2p_twisted.node.recovery.RecoveryReport``."""

    era: Number
    kept: Number
    lost: Number
    superseded: bool


Request = (
    Ping
    | FindSuccessor
    | GetState
    | Notify
    | Leaving
    | GetConfigs
    | GetConfig
    | Learn
    | Read
    | WriteOne
    | ReadMany
    | WriteMany
    | Count
    | Page
    | Stage
    | Open
    | TakeEra
    | Recover
)

Reply = (
    Done
    | Declined
    | Busy
    | RouteTo
    | State
    | Configs
    | Value
    | WrongEpoch
    | Written
    | Values
    | WrittenMany
    | Counted
    | Window
    | Opened
    | TookEra
    | Recovered
)

# -- the envelopes


class Hello(_Frozen, frozen=True, tag=0):
    """Who I am, first in both directions.

    :ivar version: of the wire protocol.
    :ivar subnet: of ``base.protocol``.
    :ivar encryption: of ``base.protocol``.
    :ivar k: bits of an identifier.
    :ivar ring: the ring's id, empty while I know none.
    :ivar leeching: I keep no data.
    :ivar fresh: I am alone in a ring that holds nothing, and would give it up.
    :ivar peer: my instance, identifier and address.
    """

    version: Number
    subnet: Annotated[str, msgspec.Meta(max_length=256)]
    encryption: Annotated[str, msgspec.Meta(max_length=32)]
    k: Annotated[int, msgspec.Meta(ge=1, le=160)]
    ring: Annotated[bytes, msgspec.Meta(max_length=16)]
    leeching: bool
    fresh: bool
    peer: Peer


class Refused(_Frozen, frozen=True, tag=255):
    """I will not talk to you, and why; the connection is closed after it."""

    kind: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Reason
    ours: Reason = ""


class Ask(_Frozen, frozen=True, tag=10):
    """A request and the number that its answer will carry."""

    number: Number
    body: Request


class Answer(_Frozen, frozen=True, tag=11):
    """The reply to the request of that number."""

    number: Number
    body: Reply


Message = Hello | Refused | Ask | Answer
