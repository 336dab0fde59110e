"""Every message that two nodes exchange, one frozen struct each (floor 1; data only).

A connection opens with a :class:`Hello` in both directions, or ends with a :class:`Refused`.  Then
each side sends an :class:`Ask` and gets an :class:`Answer` with the same number.  A Hello sent
again replaces the first: the node joined, left, or gave its ring up.  Who knows nothing of a node
says :class:`Who`, and hears its Hello.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..base import Peer
from .bodies import (
    Accept,
    Accepted,
    Busy,
    Configs,
    Count,
    Counted,
    Declined,
    Done,
    Failed,
    FindSuccessor,
    Frozen,
    Full,
    GetConfig,
    GetConfigs,
    GetState,
    Learn,
    Leaving,
    Notify,
    Number,
    Page,
    Ping,
    Prepare,
    Promised,
    Read,
    ReadMany,
    Reason,
    RouteTo,
    Settle,
    SomeAccepted,
    SomePromised,
    SomeValues,
    SomeWritten,
    State,
    Value,
    Values,
    Version,
    Versioned,
    Want,
    Window,
    WriteMany,
    WriteOne,
    Written,
    WrittenMany,
    WrongEpoch,
)
from .moves import (
    Choose,
    Chosen,
    Difference,
    Differences,
    Differing,
    Digests,
    Fetch,
    GetDifference,
    GetDigests,
    Open,
    Opened,
    Outbid,
    Prefetch,
    Ready,
    Recover,
    Recovered,
    SomeDigests,
    Source,
    Stopped,
    Survey,
    Surveyed,
    TakeEra,
    TookEra,
    Wedge,
    Wedged,
)
from .reports import GetReport, Leave, Report, Who
from .watches import Changed, Told, Unwatch, Watch, Watched, WatchPart

__all__ = [
    "OLDEST_VERSION",
    "WIRE_VERSION",
    "Accept",
    "Accepted",
    "Answer",
    "Ask",
    "Busy",
    "Changed",
    "Choose",
    "Chosen",
    "Configs",
    "Count",
    "Counted",
    "Declined",
    "Difference",
    "Differences",
    "Differing",
    "Digests",
    "Done",
    "Failed",
    "Fetch",
    "FindSuccessor",
    "Full",
    "GetConfig",
    "GetConfigs",
    "GetDifference",
    "GetDigests",
    "GetReport",
    "GetState",
    "Hello",
    "Learn",
    "Leave",
    "Leaving",
    "Message",
    "Notify",
    "Open",
    "Opened",
    "Outbid",
    "Page",
    "Ping",
    "Prefetch",
    "Prepare",
    "Promised",
    "Read",
    "ReadMany",
    "Ready",
    "Recover",
    "Recovered",
    "Refused",
    "Reply",
    "Report",
    "Request",
    "RouteTo",
    "Settle",
    "SomeAccepted",
    "SomeDigests",
    "SomePromised",
    "SomeValues",
    "SomeWritten",
    "Source",
    "State",
    "Stopped",
    "Survey",
    "Surveyed",
    "TakeEra",
    "Told",
    "TookEra",
    "Unwatch",
    "Value",
    "Values",
    "Version",
    "Versioned",
    "Want",
    "Watch",
    "WatchPart",
    "Watched",
    "Wedge",
    "Wedged",
    "Who",
    "Window",
    "WriteMany",
    "WriteOne",
    "Written",
    "WrittenMany",
    "WrongEpoch",
]

#: The oldest wire version that this program speaks, and the newest; see :mod:`.versions`.
OLDEST_VERSION, WIRE_VERSION = 2, 3

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
    | Settle
    | ReadMany
    | WriteMany
    | Prepare
    | Accept
    | Count
    | Page
    | GetDigests
    | GetDifference
    | Prefetch
    | Wedge
    | Fetch
    | Choose
    | Open
    | TakeEra
    | Survey
    | Recover
    | GetReport
    | Leave
    | Watch
    | Unwatch
    | Changed
)

Reply = (
    Done
    | Declined
    | Busy
    | Full
    | RouteTo
    | State
    | Configs
    | Value
    | Versioned
    | Version
    | WrongEpoch
    | Written
    | Failed
    | Values
    | WrittenMany
    | Promised
    | Accepted
    | Counted
    | Window
    | Digests
    | Differences
    | Wedged
    | Ready
    | Chosen
    | Opened
    | TookEra
    | Surveyed
    | Recovered
    | Report
    | Watched
)

# -- the envelopes


class Hello(Frozen, frozen=True, tag=0):
    """Who I am, first in both directions.

    :ivar version: of the wire protocol, the oldest that I speak: nodes of version 2 talk to those
        only that say 2 here.
    :ivar subnet: of ``base.protocol``.
    :ivar encryption: of ``base.protocol``.
    :ivar k: bits of an identifier.
    :ivar ring: the ring's id, empty while I know none.
    :ivar leeching: I keep no data.
    :ivar fresh: I am alone in a ring that holds nothing, and would give it up.
    :ivar peer: my instance, identifier and address.
    :ivar replicas: how many copies of a key my ring keeps; while I know none, how many my user
        asked for, 0 if that is left to the ring.
    :ivar full: my quota of bytes is used up.
    :ivar newest: version of the wire protocol that I speak; 0: only the oldest.
    """

    version: Number
    subnet: Annotated[str, msgspec.Meta(max_length=256)]
    encryption: Annotated[str, msgspec.Meta(max_length=32)]
    k: Annotated[int, msgspec.Meta(ge=1, le=160)]
    ring: Annotated[bytes, msgspec.Meta(max_length=16)]
    leeching: bool
    fresh: bool
    peer: Peer
    replicas: Annotated[int, msgspec.Meta(ge=0, le=5)] = 0
    full: bool = False
    newest: Number = 0


class Refused(Frozen, frozen=True, tag=255):
    """I will not talk to you, and why; the connection is closed after it."""

    kind: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Reason
    ours: Reason = ""


class Ask(Frozen, frozen=True, tag=10):
    """A request and the number that its answer will carry."""

    number: Number
    body: Request


class Answer(Frozen, frozen=True, tag=11):
    """The reply to the request of that number."""

    number: Number
    body: Reply


Message = Hello | Refused | Who | Ask | Answer
