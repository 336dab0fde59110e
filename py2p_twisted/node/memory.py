"""What of a node's memory is written down, and how it is read again (floor 2).

A partition has a *state* (its epoch, promises of the epoch's own Paxos, the base that is held
ready), and each key a *head* (all of its record but the value, and a promise).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Annotated, TypeVar

import msgspec

from ..base import Peer
from ..errors import StorageCorrupt
from ..storage.interface import Head, Loaded, Space, Storage
from ..table.acceptor import Acceptor
from ..table.digest import base_of
from ..table.group import Ballot, Config, Epoch, Record, Successor
from ..table.records import MemoryRecords
from .core import USER, Core
from .state import Staged
from .values import Cache

__all__ = [
    "FORMAT",
    "encode_head",
    "encode_meta",
    "encode_state",
    "has_ballot",
    "remember_ring",
    "restore",
    "staged_difference",
]

T = TypeVar("T")

_Found = tuple[bytes, Record | None, Ballot | None]

#: What is written changes its form only together with this.
FORMAT = b"1"
#: The record of the staged ones that tells whether they are all of them.
_HOW = b""
_WHOLE, _DIFFERENCE = b"whole", b"difference"
#: Values that are read at once.
_SOME = 1000


class _Head(msgspec.Struct, frozen=True, array_like=True):
    ballot: Ballot | None
    operations: bytes
    forgot: int
    promise: Ballot | None


class _Epoch(msgspec.Struct, frozen=True, array_like=True):
    config: Config
    purged: Epoch
    wedged: Ballot | None
    vote: tuple[Ballot, Successor] | None


class _Base(msgspec.Struct, frozen=True, array_like=True):
    epoch: Epoch
    successor: Successor
    ballot: Ballot


class _State(msgspec.Struct, frozen=True, array_like=True):
    newest: Config | None
    kept: _Epoch | None
    held: _Base | None


class _Meta(msgspec.Struct, frozen=True, array_like=True):
    me: Peer
    ring: bytes
    replicas: int
    member: bool
    peers: tuple[tuple[str, Annotated[int, msgspec.Meta(ge=0, le=65535)]], ...]


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(_Head)
_state = msgspec.msgpack.Decoder(_State)
_meta = msgspec.msgpack.Decoder(_Meta)


# -- writing


def encode_meta(core: Core) -> dict[str, bytes]:
    """Who the node is, where it belongs, and whom it knows."""
    peers = tuple(core.remembered)
    return {"node": _encode(_Meta(core.me, core.ring_id, core.replicas, core.member, peers))}


def encode_state(core: Core, partition: int) -> bytes | None:
    """What belongs to a partition as a whole; None if that is nothing."""
    newest = core.directory.get(partition)
    acceptor = core.acceptors.get(partition)
    staged = core.staged.get(partition)
    kept = held = None
    if acceptor is not None:
        kept = _Epoch(acceptor.config, acceptor.purged, acceptor.wedge_ballot, acceptor.vote)
    if staged is not None and staged.successor is not None:
        assert staged.ballot is not None
        held = _Base(staged.epoch, staged.successor, staged.ballot)
    if newest is None and kept is None and held is None:
        return None
    return _encode(_State(newest, kept, held))


def encode_head(record: Record | None, promise: Ballot | None) -> bytes:
    """A record without its value, and a promise; empty if there is neither."""
    if record is None:
        return b"" if promise is None else _encode(_Head(None, b"", 0, promise))
    return _encode(_Head(record.ballot, record.operations, record.forgot, promise))


def staged_difference(core: Core, partition: int) -> Iterator[tuple[bytes, bytes, Record | None]]:
    """The base that is held ready: key, head and record.

    Where the epoch before has stopped here, only what differs from its live records; an empty head
    stands for one that is not in the base.
    """
    staged = core.staged.get(partition)
    if staged is None or staged.successor is None:
        return
    acceptor = core.acceptors.get(partition)
    stands = acceptor is not None and acceptor.wedged and acceptor.config.epoch == staged.epoch
    yield _HOW, _DIFFERENCE if stands else _WHOLE, None
    for key, record in staged.records.items():
        there = acceptor.get(key) if stands and acceptor is not None else None
        if there is None or there.ballot != record.ballot:
            yield key, encode_head(record, None), record
    if stands and acceptor is not None:
        for key, _ in acceptor.records.live():
            if key not in staged.records:
                yield key, b"", None


# -- reading


def has_ballot(head: bytes, ballot: Ballot) -> bool:
    """Is this the head of that version?"""
    return _decoded(_head, head).ballot == ballot


def remember_ring(core: Core, loaded: Loaded) -> None:
    """Know the ring and the peers that were written down, and nothing else.

    :raises StorageCorrupt: if that cannot be read.
    """
    if "node" in loaded.meta:
        meta = _decoded(_meta, loaded.meta["node"])
        core.ring_id, core.replicas = meta.ring, meta.replicas
        for address in meta.peers[: core.settings.remembered_peers]:
            core.remember_address(address)


def restore(core: Core, loaded: Loaded, storage: Storage, cache: Cache) -> bool:
    """Be the node that was written down; False if nothing was.

    :param cache: for the values that stay on the disk.
    :raises StorageCorrupt: if that cannot be read.
    """
    if "node" not in loaded.meta:
        return False
    meta = _decoded(_meta, loaded.meta["node"])
    core.become(meta.me)
    core.lives = loaded.boots
    remember_ring(core, loaded)
    states = {part: _decoded(_state, state) for part, state in loaded.states.items()}
    for state in states.values():
        if state.newest is not None:
            core.directory.learn(state.newest)
    reader = _Reader(storage, cache, core.settings.stored_from)
    for (space, partition), heads in groupby(loaded.heads(), key=lambda head: head[:2]):
        if partition not in states:
            raise StorageCorrupt(f"partition {partition} has records and no state")
        state = states[partition]
        if space is Space.CURRENT:
            _restore_epoch(core, partition, state, reader.records(space, partition, heads))
        else:
            if state.kept is not None and partition not in core.acceptors:
                _restore_epoch(core, partition, state, ())
            _restore_base(core, partition, state, heads, reader)
    for partition, state in states.items():
        if state.kept is not None and partition not in core.acceptors:
            _restore_epoch(core, partition, state, ())
        if state.held is not None and partition not in core.staged:
            raise StorageCorrupt(f"the base of partition {partition} is not there")
    return meta.member or bool(core.acceptors)


def _restore_epoch(core: Core, partition: int, state: _State, found: Iterable[_Found]) -> None:
    kept = state.kept
    if kept is None:
        raise StorageCorrupt(f"partition {partition} has records and no epoch")
    records: dict[bytes, Record] = {}
    promises: dict[bytes, Ballot] = {}
    for key, record, promise in found:
        if record is not None:
            records[key] = record
        if promise is not None and promise.epoch == kept.config.epoch:
            promises[key] = promise
    acceptor = Acceptor(kept.config, records.items(), visible=USER, purged=kept.purged)
    epoch = kept.config.epoch
    ballots = [record.ballot for record in records.values()]
    counter = max((b.counter for b in ballots if b.epoch == epoch), default=0)
    acceptor.restore(promises, kept.wedged, kept.vote, counter)
    core.acceptors[partition] = acceptor
    core.hear(acceptor.stamp)


def _restore_base(
    core: Core, partition: int, state: _State, heads: Iterator[Head], reader: _Reader
) -> None:
    held = state.held
    how = next(heads)
    if held is None or how[2] != _HOW:
        raise StorageCorrupt(f"partition {partition} has records of a base that is not known")
    records: dict[bytes, Record] = {}
    if how[3] == _DIFFERENCE:
        records.update(core.acceptors[partition].records.live())
    for key, record, _ in reader.records(Space.STAGED, partition, heads):
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record
    if base_of(records.items()) != held.successor.base:
        raise StorageCorrupt(f"the base of partition {partition} is not what it was")
    base = MemoryRecords(records, visible=USER)
    core.staged[partition] = Staged(held.epoch, base, held.successor, held.ballot)


class _Reader:
    """Makes records of what is on the disk; long values stay there."""

    def __init__(self, storage: Storage, cache: Cache, least: int) -> None:
        self._storage = storage
        self._cache = cache
        self._least = least

    def records(self, space: Space, partition: int, heads: Iterator[Head]) -> Iterator[_Found]:
        """Key, record and promise of each head."""
        while some := list(islice(heads, _SOME)):
            short = [key for _, _, key, _, size in some if size is not None and size < self._least]
            found = self._storage.read_many(space, partition, short)
            for _, _, key, raw, size in some:
                if not raw:
                    yield key, None, None
                    continue
                head = _decoded(_head, raw)
                if head.ballot is None:
                    yield key, None, head.promise
                    continue
                record = Record(head.ballot, None, head.operations, head.forgot)
                if size is not None and size >= self._least:
                    name = (partition, key, head.ballot)
                    record = self._cache.standing(name, record, size)
                elif size is not None:
                    value = found[key].value
                    record = Record(head.ballot, value, head.operations, head.forgot)
                yield key, record, head.promise


def _decoded(decoder: msgspec.msgpack.Decoder[T], raw: bytes) -> T:
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise StorageCorrupt(f"what was written cannot be read: {error}") from error
