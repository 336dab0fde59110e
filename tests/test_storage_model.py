"""Batches come to what a dict would hold, however they are cut and joined."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.storage.interface import SPACES, Batch, Seen
from py2p_twisted.storage.opening import transaction
from py2p_twisted.storage.rows import (
    apply,
    look_at,
    read_heads,
    read_meta,
    read_record,
    read_states,
    scan,
)
from py2p_twisted.storage.schema import begin_file, tally

PLACES = st.sampled_from((0, 1, SPACES - 1))
PARTITIONS = st.integers(0, 1)
KEYS = st.sampled_from([b"", b"a", b"b", b"\xff"])
HEADS = st.binary(max_size=3)
VALUES = st.none() | st.binary(max_size=4)

CHANGES = st.one_of(
    st.tuples(st.just("put"), PLACES, PARTITIONS, KEYS, HEADS, VALUES),
    st.tuples(st.just("drop"), PLACES, PARTITIONS, KEYS),
    st.tuples(st.just("clear"), PLACES, PARTITIONS),
    st.tuples(st.just("set_state"), PARTITIONS, VALUES),
    st.tuples(st.just("set_meta"), st.sampled_from(["", "a", "ä"]), VALUES),
)


class Model:
    """What is kept, as plain dicts, changed one after the other."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int, bytes], tuple[bytes, bytes | None]] = {}
        self.states: dict[int, bytes] = {}
        self.meta: dict[str, bytes] = {}

    def put(self, space: int, at: int, key: bytes, head: bytes, value: bytes | None) -> None:
        self.records[space, at, key] = (head, value)

    def drop(self, space: int, at: int, key: bytes) -> None:
        self.records.pop((space, at, key), None)

    def clear(self, space: int, at: int) -> None:
        self.records = {place: r for place, r in self.records.items() if place[:2] != (space, at)}

    def set_state(self, at: int, state: bytes | None) -> None:
        self._set(self.states, at, state)

    def set_meta(self, name: str, content: bytes | None) -> None:
        self._set(self.meta, name, content)

    def _set(self, kept: dict[Any, bytes], name: Any, content: bytes | None) -> None:
        kept.pop(name, None)
        if content is not None:
            kept[name] = content

    def seen(self, place: tuple[int, int, bytes], most: int) -> Seen:
        """What is seen of a record."""
        head, value = self.records[place]
        size = None if value is None else len(value)
        return Seen(place[2], head, size, value if size is None or size <= most else None)

    @property
    def used(self) -> int:
        return sum(len(p[2]) + len(h) + len(v or b"") for p, (h, v) in self.records.items())


def recorded(changes: Sequence[tuple[Any, ...]]) -> Batch:
    """A batch of these changes."""
    batch = Batch()
    for name, *arguments in changes:
        getattr(batch, name)(*arguments)
    return batch


def size_of(batch: Batch) -> int:
    """Its size, counted from what it comes to."""
    size = 0
    for _, changes in batch.changed():
        for key, change in changes.items():
            size += len(key) + (0 if change is None else len(change[0]) + len(change[1] or b""))
    return size + sum(len(x or b"") for x in (*batch.states.values(), *batch.meta.values()))


class BatchTests(SynchronousTestCase):
    def check(self, connection: sqlite3.Connection, model: Model) -> None:
        """The file holds what the model does, in order, and counts it right."""
        heads = list(read_heads(connection, "file"))
        self.assertEqual(
            heads,
            [
                (*place, head, None if value is None else len(value))
                for place, (head, value) in sorted(model.records.items())
            ],
        )
        for place, record in model.records.items():
            self.assertEqual(read_record(connection, "file", *place), record)
        for most in (-1, 2, 100):
            for place in model.records:
                seen = look_at(connection, "file", *place, most)
                self.assertEqual(seen, model.seen(place, most))
            for space, at, key in [*model.records, (0, 0, b""), (1, 1, b"aa")]:
                places = sorted(p for p in model.records if p[:2] == (space, at) and p[2] >= key)
                for number in (1, 2, 100):
                    found = scan(connection, "file", space, at, key, number, most)
                    self.assertEqual(found, [model.seen(p, most) for p in places[:number]])
        self.assertIsNone(look_at(connection, "file", 7, 0, b"a", 9))
        self.assertEqual(read_states(connection, "file"), model.states)
        self.assertEqual(read_meta(connection, "file"), model.meta)
        self.assertEqual(tally(connection, "record")[1], model.used)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.lists(st.lists(CHANGES, max_size=6), max_size=4), max_size=4))
    def test_model(self, groups: list[list[list[tuple[Any, ...]]]]) -> None:
        """Batches of changes, joined in groups, each group one transaction."""
        model = Model()
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            with transaction(connection):
                begin_file(connection)
            for group in groups:
                joined = Batch()
                for changes in group:
                    batch = recorded(changes)
                    self.assertEqual(batch.size, size_of(batch))
                    self.assertEqual(bool(batch), bool(changes))
                    self.assertLessEqual(len(batch), 2 * len(changes))
                    joined.join(batch)
                    for name, *arguments in changes:
                        getattr(model, name)(*arguments)
                self.assertEqual(joined.size, size_of(joined))
                with transaction(connection):
                    apply(connection, joined)
                self.check(connection, model)

    def test_taken(self) -> None:
        batch = recorded([("put", 0, 0, b"k", b"h", b"v"), ("set_meta", "n", b"c")])
        taken = batch.take()
        self.assertEqual((bool(batch), batch.size, len(batch)), (False, 0, 0))
        self.assertEqual((bool(taken), taken.size, len(taken)), (True, 4, 2))
