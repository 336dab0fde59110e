"""Every message that two nodes exchange, one frozen struct each (floor 1; data only).

A connection opens with a :class:`Hello` in both directions, or ends with a :class:`Refused`.  Then
each side sends an :class:`Ask` and gets an :class:`Answer` with the same number.  A Hello sent
again replaces the first: the node joined, left, or gave its ring up.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..base import Peer
from .bodies import (
    Busy,
    Configs,
    Count,
    Counted,
    Declined,
    Done,
    FindSuccessor,
    Frozen,
    GetConfig,
    GetConfigs,
    GetState,
    Learn,
    Leaving,
    Notify,
    Number,
    Open,
    Opened,
    Page,
    Ping,
    Read,
    ReadMany,
    Reason,
    Recover,
    Recovered,
    RouteTo,
    SomeValues,
    SomeWritten,
    Stage,
    StagePart,
    State,
    TakeEra,
    TookEra,
    Value,
    Values,
    Window,
    WriteMany,
    WriteOne,
    Written,
    WrittenMany,
    WrongEpoch,
)

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


class Hello(Frozen, frozen=True, tag=0):
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


Message = Hello | Refused | Ask | Answer
