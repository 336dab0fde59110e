"""What a member answers about the keys that it keeps (floor 2).

Owns the way from a request to the acceptor of its partition.  Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..table.acceptor import Acceptor
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.proposer import Outcome, Write, write_alone
from ..wire.messages import (
    Count,
    Counted,
    Declined,
    Page,
    Read,
    ReadMany,
    Reply,
    Request,
    SomeValues,
    SomeWritten,
    Value,
    Values,
    Window,
    WriteMany,
    WriteOne,
    Written,
    WrittenMany,
    WrongEpoch,
)
from .core import USER, Core

__all__ = ["Keeper"]


#: About what a refusal takes in a message.
_REFUSAL_BYTES = 96


class Keeper:
    """Answers requests for keys, of peers and of this node itself."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: what answers which request
        self.handlers: dict[type, Callable[[Any], Reply]] = {
            Read: self.read,
            WriteOne: self.write,
            ReadMany: self.read_many,
            WriteMany: self.write_many,
            Count: self.count,
            Page: self.page,
        }

    def answer(self, request: Request) -> Reply:
        """A request of this node to itself."""
        return self.handlers[type(request)](request)

    def read(self, request: Read) -> Reply:
        """A peer reads a key of this node."""
        acceptor = self._acceptor(request.key)
        if not isinstance(acceptor, Acceptor):
            return acceptor
        try:
            record = acceptor.read(request.epoch, request.key)
        except EpochRefused as refusal:
            return self._wrong_epoch(acceptor, refusal)
        return Value(None if record is None else record.value)

    def write(self, request: WriteOne) -> Reply:
        """A peer writes a key of this node."""
        write = request.write
        if write.value is not None and len(write.value) > self._core.settings.max_value:
            return Declined("the value is too large")
        acceptor = self._acceptor(write.key)
        if not isinstance(acceptor, Acceptor):
            return acceptor
        try:
            acceptor.check(request.epoch)
            return Written(write_alone(acceptor, self._core.instance, write))
        except EpochRefused as refusal:
            return self._wrong_epoch(acceptor, refusal)

    def _wrong_epoch(self, acceptor: Acceptor, refusal: EpochRefused) -> WrongEpoch:
        return WrongEpoch(self._core.directory.get(acceptor.config.partition), refusal.wedged)

    def _acceptor(self, key: bytes) -> Acceptor | Declined | WrongEpoch:
        """The acceptor of a key's partition, or why there is none here."""
        try:
            partition = self._core.partition(key)
        except ValueError as error:
            return Declined(str(error))
        acceptor = self._core.acceptors.get(partition)
        if acceptor is not None:
            return acceptor
        config = self._core.directory.get(partition)
        mine = config is not None and config.has(self._core.instance)
        return WrongEpoch(None if mine else config, mine)

    def read_many(self, request: ReadMany) -> Reply:
        """Values, as many as fit one message; the asker comes again for the rest."""
        room = self._core.settings.page_bytes
        parts: list[SomeValues | WrongEpoch] = []
        for epoch, keys in request.parts:
            values: list[bytes | None] = []
            refused: WrongEpoch | None = None
            for key in keys:
                if room <= 0:
                    break
                reply = self.read(Read(epoch, key))
                if isinstance(reply, WrongEpoch):
                    refused = reply
                    room -= _REFUSAL_BYTES
                    break
                if not isinstance(reply, Value):
                    return reply
                values.append(reply.value)
                room -= len(reply.value or b"") + 8
            parts.append(
                refused if refused is not None and not values else SomeValues(tuple(values))
            )
        return Values(tuple(parts))

    def write_many(self, request: WriteMany) -> Reply:
        """Writes, part by part."""
        parts: list[SomeWritten | WrongEpoch] = []
        for epoch, writes in request.parts:
            outcomes: list[Outcome] = []
            refused: Reply | None = None
            for write in writes:
                reply = self.write(WriteOne(epoch, write))
                if not isinstance(reply, Written):
                    refused = reply
                    break
                outcomes.append(reply.outcome)
            if isinstance(refused, Declined):
                return refused
            if isinstance(refused, WrongEpoch) and not outcomes:
                parts.append(refused)
            else:
                parts.append(SomeWritten(tuple(outcomes)))
        return WrittenMany(tuple(parts))

    def count(self, request: Count) -> Reply:
        """How many keys each of these partitions has."""
        parts: list[int | WrongEpoch] = []
        room = self._core.settings.page_bytes
        for partition, epoch in request.parts:
            acceptor = self._core.acceptors.get(partition)
            room -= _REFUSAL_BYTES
            if room <= 0:
                parts.append(WrongEpoch(None, True))  # too much was asked: come again
            elif acceptor is None or acceptor.config.epoch != epoch:
                parts.append(WrongEpoch(self._core.directory.get(partition), False))
            elif acceptor.wedged:
                parts.append(WrongEpoch(None, True))
            else:
                parts.append(acceptor.keys)
        return Counted(tuple(parts))

    def page(self, request: Page) -> Reply:
        """Some keys in order, with their values if asked for."""
        core = self._core
        acceptor = core.acceptors.get(request.partition)
        if acceptor is None:
            return WrongEpoch(core.directory.get(request.partition), False)
        keys: list[bytes] = []
        values: list[bytes] = []
        room = core.settings.page_bytes
        most = min(request.most, core.settings.page_keys)
        try:
            for key in acceptor.page(request.epoch, request.after, USER):
                if room <= 0 or len(keys) == most:
                    return Window(tuple(keys), tuple(values), True)
                keys.append(key)
                room -= len(key) + 8
                if request.values:
                    record = acceptor.get(key)
                    value = (record.value if record is not None else None) or b""
                    values.append(value)
                    room -= len(value)
        except EpochRefused as refusal:
            return self._wrong_epoch(acceptor, refusal)
        return Window(tuple(keys), tuple(values), False)

    def write_here(self, write: Write) -> None:
        """Write a key that this node certainly keeps."""
        acceptor = self._core.acceptors[self._core.partition(write.key)]
        write_alone(acceptor, self._core.instance, write)
