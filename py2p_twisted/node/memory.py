"""What of a node's memory is written down, and how it is read again (floor 2).

A partition has a *state*: its epoch, promises of the epoch's own Paxos, the base that is held
ready, and in which of its spaces the records of both are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Annotated

import msgspec

from ..base import Peer
from ..errors import StorageCorrupt
from ..storage.interface import Head, Loaded
from ..table.acceptor import Acceptor
from ..table.digest import Collected
from ..table.group import Ballot, Config, Epoch, Record, Successor
from .core import USER, Core
from .diskrecords import DiskRecords
from .drafts import Draft
from .heads import decode_head, decoded
from .shelf import Room, Shelf
from .state import Staged
from .stored import StoredRecords

__all__ = ["FORMAT", "encode_meta", "encode_state", "remember_ring", "restore"]

#: What is written changes its form only together with this.
FORMAT = b"2"


class _Epoch(msgspec.Struct, frozen=True, array_like=True):
    config: Config
    purged: Epoch
    wedged: Ballot | None
    vote: tuple[Ballot, Successor] | None
    space: int


class _Base(msgspec.Struct, frozen=True, array_like=True):
    epoch: Epoch
    successor: Successor
    ballot: Ballot
    space: int
    under: int | None  # the base are the records there, with the changes that are in `space`


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
        records = acceptor.records
        assert isinstance(records, StoredRecords)
        kept = _Epoch(
            acceptor.config,
            acceptor.purged,
            acceptor.wedge_ballot,
            acceptor.vote,
            records.room.space,
        )
    if staged is not None and staged.successor is not None:
        base = staged.records
        assert isinstance(base, DiskRecords) and base.room is not None and staged.ballot is not None
        under = base.under.room.space if isinstance(base, Draft) else None
        held = _Base(staged.epoch, staged.successor, staged.ballot, base.room.space, under)
    if newest is None and kept is None and held is None:
        return None
    return _encode(_State(newest, kept, held))


# -- reading


def remember_ring(core: Core, loaded: Loaded) -> None:
    """Know the ring and the peers that were written down, and nothing else.

    :raises StorageCorrupt: if that cannot be read.
    """
    if "node" in loaded.meta:
        meta = decoded(_meta, loaded.meta["node"])
        core.ring_id, core.replicas = meta.ring, meta.replicas
        for address in meta.peers[: core.settings.remembered_peers]:
            core.remember_address(address)


def restore(core: Core, loaded: Loaded, shelf: Shelf) -> bool:
    """Be the node that was written down; False if nothing was.

    :param shelf: for the records, which stay on the disk.
    :raises StorageCorrupt: if that cannot be read.
    """
    if "node" not in loaded.meta:
        return False
    meta = decoded(_meta, loaded.meta["node"])
    core.become(meta.me, loaded.boots)
    remember_ring(core, loaded)
    states = {part: decoded(_state, state) for part, state in loaded.states.items()}
    for state in states.values():
        if state.newest is not None:
            core.directory.learn(state.newest)
    kept = {part: _Partition(shelf, part, state) for part, state in states.items()}
    for (space, partition), heads in groupby(loaded.heads(), key=lambda head: head[:2]):
        if partition not in kept or not kept[partition].read(space, heads):
            shelf.rooms.leave(partition, space)
    for part in kept.values():
        part.restore(core)
    return meta.member or bool(core.acceptors)


class _Partition:
    """One partition, while it is read again."""

    def __init__(self, shelf: Shelf, partition: int, state: _State) -> None:
        self._shelf = shelf
        self._partition = partition
        self._state = state
        self._promises: dict[bytes, Ballot] = {}
        self._counter = 0  # the highest of a ballot in the epoch that is kept
        self._rooms: dict[int, StoredRecords] = {}
        self._changes: list[tuple[bytes, Record | None]] = []
        self._changed: Room | None = None  # where those are
        if state.kept is not None:
            self._enter(state.kept.space)
        if state.held is not None and state.held.under is not None:
            self._enter(state.held.under)
            self._changed = shelf.rooms.enter(partition, state.held.space)
        elif state.held is not None:
            self._enter(state.held.space)

    def _enter(self, space: int) -> None:
        if space not in self._rooms:
            room = self._shelf.rooms.enter(self._partition, space)
            self._rooms[space] = StoredRecords(self._shelf, room, USER)

    def read(self, space: int, heads: Iterator[Head]) -> bool:
        """Take in what is in one of its spaces; False if nobody needs it any more."""
        if space in self._rooms:
            self._count(self._rooms[space], heads)
        elif self._changed is not None and space == self._changed.space:
            self._read_changes(self._changed, heads)
        else:
            return False
        return True

    def _count(self, records: StoredRecords, heads: Iterator[Head]) -> None:
        """Look at all heads once, and keep none."""
        kept = self._state.kept
        epoch = kept.config.epoch if kept is not None else None
        mine = kept is not None and kept.space == records.room.space
        collected = Collected()
        for _, _, key, raw, size in heads:
            head = decode_head(raw)
            if mine and head.promise is not None and head.promise.epoch == epoch:
                self._promises[key] = head.promise
            if head.ballot is None:
                continue
            if head.ballot.epoch == epoch and head.ballot.counter > self._counter:
                self._counter = head.ballot.counter
            collected.add(key, head.ballot)
            records.found(key, Record(head.ballot, None, head.operations, head.forgot), size)
        records.found_all(collected)

    def _read_changes(self, room: Room, heads: Iterator[Head]) -> None:
        for _, _, key, raw, _ in heads:
            self._changes.append((key, self._shelf.look(room, key) if raw else None))

    def restore(self, core: Core) -> None:
        """Keep, and hold ready, what was."""
        kept, held, partition = self._state.kept, self._state.held, self._partition
        if kept is not None:
            acceptor = Acceptor(kept.config, self._rooms[kept.space], purged=kept.purged)
            acceptor.restore(self._promises, kept.wedged, kept.vote, self._counter)
            core.acceptors[partition] = acceptor
            core.hear(acceptor.stamp)
        if held is None:
            return
        base: StoredRecords | Draft
        if held.under is None:
            base = self._rooms[held.space]
        else:
            assert self._changed is not None
            base = self._rooms[held.under].draft()
            base.found(self._changes, self._changed)
        if base.base() != held.successor.base:
            raise StorageCorrupt(f"the base of partition {partition} is not what it was")
        core.staged[partition] = Staged(held.epoch, base, held.successor, held.ballot)
