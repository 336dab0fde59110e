"""What a member answers about the keys that it keeps (floor 2).

Owns the way from a request to the acceptor of its partition.  Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..table.acceptor import Acceptor, NotPromised
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Ballot, Epoch, Record
from ..table.values import Stored, plain
from ..wire.messages import (
    Accept,
    Accepted,
    Count,
    Counted,
    Declined,
    Page,
    Prepare,
    Promised,
    Read,
    ReadMany,
    Reply,
    SomeAccepted,
    SomePromised,
    SomeValues,
    Value,
    Values,
    Version,
    Versioned,
    Want,
    Window,
    WrongEpoch,
)
from .core import USER, Core
from .values import in_memory

__all__ = ["MOST_COUNTER", "Keeper"]


#: About what these take in a message: a ballot, a number, a promise without its value.
_BALLOT_BYTES = 32
_NUMBER_BYTES = 16
_PROMISE_BYTES = 96

#: No honest proposer counts so far.  A ballot that is promised or accepted is told to others, who
#: try the numbers after it: those must have room on the wire, too.
MOST_COUNTER = 1 << 61
_NO_BALLOT = Declined("the counter of a ballot is too high")


class Keeper:
    """Answers requests for keys, of peers and of this node itself."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: what answers which request
        self.handlers: dict[type, Callable[[Any], Reply]] = {
            Read: self.read,
            ReadMany: self.read_many,
            Prepare: self.prepare,
            Accept: self.accept,
            Count: self.count,
            Page: self.page,
        }

    def too_large(self, value: Stored | bytes | None) -> Declined | None:
        """Why no member takes a value of this length; None if each does."""
        if value is not None and len(value) > self._core.settings.max_value:
            return Declined("the value is too large")
        return None

    # -- which acceptor

    def wrong_epoch(self, partition: int, *, wedged: bool = False) -> WrongEpoch:
        """Why a partition is not served in an epoch, and the newest configuration known."""
        config = self._core.directory.get(partition)
        if config is not None and config.has(self._core.instance):
            mine = self._core.acceptors.get(partition)
            wedged = wedged or mine is None or mine.config.epoch < config.epoch
        return WrongEpoch(config, wedged)

    def _acceptor(self, key: bytes) -> Acceptor | Declined | WrongEpoch:
        """The acceptor of a key's partition, or why there is none here."""
        try:
            partition = self._core.partition(key)
        except ValueError as error:
            return Declined(str(error))
        acceptor = self._core.acceptors.get(partition)
        return acceptor if acceptor is not None else self.wrong_epoch(partition)

    def _of(self, partition: int, epoch: Epoch) -> Acceptor | WrongEpoch:
        """The acceptor that serves a partition in this epoch, or why there is none here."""
        acceptor = self._core.acceptors.get(partition)
        if acceptor is None:
            return self.wrong_epoch(partition)
        try:
            acceptor.check(epoch)
        except EpochRefused as refusal:
            return self.wrong_epoch(partition, wedged=refusal.wedged)
        return acceptor

    def _belong(self, partition: int, items: Sequence[tuple[bytes, object]]) -> bool:
        """Is the first of these keys, and so all of them, of that partition?"""
        try:
            return not items or self._core.partition(items[0][0]) == partition
        except ValueError:
            return False

    # -- reading

    def read(self, request: Read) -> Reply:
        """A peer reads a key of this node."""
        acceptor = self._acceptor(request.key)
        if not isinstance(acceptor, Acceptor):
            return acceptor
        try:
            record = acceptor.read(request.epoch, request.key)
        except EpochRefused as refusal:
            return self.wrong_epoch(acceptor.config.partition, wedged=refusal.wedged)
        want = request.want
        if want is Want.BALLOT:
            return Version(None if record is None else record.ballot)
        self._core.reads += 1
        if want is Want.VALUE:
            return Value(None if record is None else plain(record.value))
        if record is None:
            return Versioned(None, None)
        return Versioned(plain(record.value), record.ballot)

    def read_many(self, request: ReadMany) -> Reply:
        """Values or ballots, as many as fit one message; the asker comes again for the rest."""
        room = self._core.settings.page_bytes
        want = request.want
        parts: list[SomeValues | WrongEpoch] = []
        for epoch, keys in request.parts:
            acceptor = self._acceptor(keys[0]) if keys else Declined("a part without keys")
            if isinstance(acceptor, Acceptor):
                try:
                    acceptor.check(epoch)
                except EpochRefused as refusal:
                    partition = acceptor.config.partition
                    acceptor = self.wrong_epoch(partition, wedged=refusal.wedged)
            if isinstance(acceptor, Declined):
                return acceptor
            if isinstance(acceptor, WrongEpoch):
                room -= _refusal_bytes(acceptor)
                parts.append(acceptor if room > 0 else WrongEpoch(None, True))
                continue
            values: list[bytes | None] = []
            ballots: list[Ballot | None] = []
            for key in keys:
                if room <= 0:
                    break
                record = acceptor.get(key)
                if want is not Want.BALLOT:
                    value = None if record is None else plain(record.value)
                    values.append(value)
                    room -= 8 if value is None else len(value) + 8
                if want is not Want.VALUE:
                    ballots.append(None if record is None else record.ballot)
                    room -= _BALLOT_BYTES
            self._core.reads += len(values)
            parts.append(SomeValues(tuple(values), tuple(ballots)))
        return Values(tuple(parts))

    def count(self, request: Count) -> Reply:
        """How many keys each of these partitions has."""
        parts: list[int | WrongEpoch] = []
        room = self._core.settings.page_bytes
        for partition, epoch in request.parts:
            acceptor = self._of(partition, epoch)
            room -= _refusal_bytes(acceptor) if isinstance(acceptor, WrongEpoch) else _NUMBER_BYTES
            if room < 0:
                parts.append(WrongEpoch(None, True))  # too much was asked: come again
            elif isinstance(acceptor, WrongEpoch):
                parts.append(acceptor)
            else:
                parts.append(acceptor.keys)
        return Counted(tuple(parts))

    def page(self, request: Page) -> Reply:
        """Some keys in order, deleted ones too, with their values if asked for."""
        acceptor = self._of(request.partition, request.epoch)
        if isinstance(acceptor, WrongEpoch):
            return acceptor
        keys: list[bytes] = []
        ballots: list[Ballot] = []
        values: list[bytes | None] = []
        alive = bytearray()
        settings = self._core.settings
        room, most = settings.page_bytes, min(request.most, settings.page_keys)
        more = False
        for key, record in acceptor.page(request.epoch, request.after, USER):
            if room <= 0 or len(keys) == most:
                more = True
                break
            keys.append(key)
            ballots.append(record.ballot)
            alive.append(record.value is not None)
            room -= len(key) + _BALLOT_BYTES + 8
            if request.values:
                values.append(plain(record.value))
                room -= len(record.value or b"")
        return Window(tuple(keys), tuple(ballots), tuple(values), bytes(alive), more)

    # -- CASPaxos

    def prepare(self, request: Prepare) -> Reply:
        """PREPARE for some keys, as many as the answers fit one message."""
        core = self._core
        room = core.settings.page_bytes
        parts: list[SomePromised | WrongEpoch] = []
        for partition, epoch, items in request.parts:
            acceptor = self._of(partition, epoch)
            if isinstance(acceptor, WrongEpoch):
                parts.append(acceptor)
                continue
            records: list[Record | None] = []
            refused: list[tuple[int, Ballot]] = []
            if not self._belong(partition, items):
                return Declined(f"a key does not belong to partition {partition}")
            for place, (key, ballot) in enumerate(items):
                if room <= 0:
                    break
                if ballot.counter > MOST_COUNTER:
                    return _NO_BALLOT
                room -= _PROMISE_BYTES
                record: Record | None = None
                try:
                    record = acceptor.prepare(epoch, ballot, key)
                except NotPromised as refusal:
                    refused.append((place, refusal.promised))
                records.append(None if record is None else in_memory(record))
                if record is not None and record.value is not None:
                    room -= len(record.value)
            parts.append(SomePromised(acceptor.purged, tuple(records), tuple(refused)))
        return Promised(tuple(parts))

    def accept(self, request: Accept) -> Reply:
        """ACCEPT for some keys."""
        core = self._core
        parts: list[SomeAccepted | WrongEpoch] = []
        for partition, epoch, items in request.parts:
            acceptor = self._of(partition, epoch)
            if isinstance(acceptor, WrongEpoch):
                parts.append(acceptor)
                continue
            if not self._belong(partition, items):
                return Declined(f"a key does not belong to partition {partition}")
            refused: list[tuple[int, Ballot]] = []
            for place, (key, record) in enumerate(items):
                if (too_large := self.too_large(record.value)) is not None:
                    return too_large
                if record.ballot.counter > MOST_COUNTER:
                    return _NO_BALLOT
                try:
                    acceptor.accept(epoch, key, record)
                except NotPromised as refusal:
                    refused.append((place, refusal.promised))
            core.hear(acceptor.stamp)
            parts.append(SomeAccepted(tuple(refused)) if refused else _ALL_ACCEPTED)
        return Accepted(tuple(parts))


def _refusal_bytes(refusal: WrongEpoch) -> int:
    """About what it takes in a message."""
    members = refusal.config.members if refusal.config is not None else ()
    return 64 + sum(48 + len(peer.host) for peer in members)


_ALL_ACCEPTED = SomeAccepted()
