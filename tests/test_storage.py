"""The storage in its ordinary life: what is committed is there, in this life and the next."""

from __future__ import annotations

import os
import queue
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.errors import StorageError, StorageInUse, StorageMismatch
from py2p_twisted.storage import writer
from py2p_twisted.storage.interface import Batch, Kept, Loaded, Seen, Storage
from py2p_twisted.storage.memory import MemoryStorage
from py2p_twisted.storage.sqlite import SQLiteStorage

CURRENT, STAGED = 0, 1
#: Seconds after which something that is bound to happen is taken for failed.
PATIENCE = 20.0


class PumpReactor(Clock):
    """A reactor that runs what other threads give it only while a test waits for something."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.Queue()

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def until(self, holds: Callable[[], object]) -> None:
        """Run what comes until this holds."""
        while not holds():
            function, arguments = self._calls.get(timeout=PATIENCE)
            function(*arguments)


class Gate:
    """Holds the writer at a statement, or fails there; see :meth:`StorageCase.gated`."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.reached = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.at = ""
        self.error: Exception | None = None

    def close(self, at: str) -> None:
        """Hold whoever executes this from now on."""
        self.at = at
        self.open.clear()

    def fail(self, at: str, error: Exception) -> None:
        """Raise at this statement from now on."""
        self.at, self.error = at, error

    def pass_by(self, statement: str) -> None:
        self.statements.append(statement)
        if self.at and statement.startswith(self.at):
            if self.error is not None:
                raise self.error
            self.reached.set()
            assert self.open.wait(PATIENCE), "nobody opened the gate"


class StorageCase(SynchronousTestCase):
    """Files in a folder of the test's own, and storages that are closed in the end."""

    def setUp(self) -> None:
        self.reactor = PumpReactor()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.path = self.folder / "node.sqlite"
        self.storages: list[SQLiteStorage] = []
        self.addCleanup(self.close_all)

    def storage(self, *arguments: Any, **options: Any) -> SQLiteStorage:
        """A storage on the test's file."""
        made = SQLiteStorage(self.path, *arguments, **options)
        self.storages.append(made)
        return made

    def opened(self, *arguments: Any, **options: Any) -> tuple[SQLiteStorage, Loaded]:
        """A storage, and what it found."""
        storage = self.storage(*arguments, **options)
        return storage, storage.open(self.reactor)

    def found(self, storage: Storage, keys: Iterable[bytes]) -> set[bytes]:
        """Those of some keys that have a record in partition 0."""
        return {key for key in keys if storage.read(CURRENT, 0, key) is not None}

    def commit(self, storage: Storage, batch: Batch) -> Failure | None:
        """Commit and wait; what `done` was told."""
        told: list[Failure | None] = []
        storage.commit(batch, told.append)
        self.reactor.until(lambda: told)
        return told[0]

    def close(self, storage: Storage, clean: bool = True) -> None:
        """Close and wait."""
        told: list[Any] = []
        storage.close(clean).addBoth(told.append)
        self.reactor.until(lambda: told)
        self.assertEqual(told, [None])

    def crash(self, storage: SQLiteStorage) -> None:
        """End without noting it: what a new process finds is what ``kill -9`` leaves."""
        self.close(storage, clean=False)

    def close_all(self) -> None:
        for storage in self.storages:
            ended: list[Any] = []
            storage.close().addBoth(ended.append)
            self.reactor.until(lambda ended=ended: ended)  # type: ignore[misc]
        names = [thread.name for thread in threading.enumerate()]
        self.assertNotIn("py2p_twisted storage", names)

    def gated(self) -> tuple[Callable[..., sqlite3.Connection], Gate]:
        """What makes connections for a storage, and the gate that their statements pass."""
        gate = Gate()

        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
                gate.pass_by(statement)
                return super().execute(statement, *arguments)

        def make(path: str, **options: Any) -> sqlite3.Connection:
            return sqlite3.connect(path, factory=Connection, **options)

        self.addCleanup(gate.open.set)
        return make, gate


def batch_of(*keys: bytes, partition: int = 0, value: bytes | None = b"value") -> Batch:
    """Records with these keys."""
    batch = Batch()
    for key in keys:
        batch.put(CURRENT, partition, key, b"head " + key, value)
    return batch


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Whom the system refuses what the modes of files forbid; the folder is his."""
    if os.geteuid():
        yield
        return
    os.chown(folder, 65534, 65534)
    for path in folder.iterdir():
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class LifeTests(StorageCase):
    def test_a_new_file(self) -> None:
        storage, loaded = self.opened()
        self.assertEqual((loaded.meta, loaded.states, list(loaded.heads())), ({}, {}, []))
        self.assertEqual((loaded.boots, loaded.intact, loaded.reason), (1, True, ""))
        self.assertEqual((storage.used, storage.behind, storage.broken), (0, 0, None))
        self.assertTrue(storage.durable)

    def test_all_of_it_is_there_again(self) -> None:
        storage, _ = self.opened()
        batch = Batch()
        batch.put(CURRENT, 1, b"key", b"head", b"value" * 10_000)
        batch.put(CURRENT, 1, b"", b"", b"")
        batch.put(CURRENT, 1, b"gone", b"tombstone", None)
        batch.put(STAGED, 1, b"key", b"other", b"one")
        batch.put(CURRENT, 0, b"key", b"first", b"two")
        batch.set_state(1, b"state")
        batch.set_state(0, b"")
        batch.set_meta("instance", bytes(range(256)))
        self.assertIsNone(self.commit(storage, batch))
        used = storage.used
        self.close(storage)
        storage, loaded = self.opened()
        self.assertEqual(loaded.meta, {"instance": bytes(range(256))})
        self.assertEqual(loaded.states, {0: b"", 1: b"state"})
        heads = [
            (CURRENT, 0, b"key", b"first", 3),
            (CURRENT, 1, b"", b"", 0),
            (CURRENT, 1, b"gone", b"tombstone", None),
            (CURRENT, 1, b"key", b"head", 50_000),
            (STAGED, 1, b"key", b"other", 3),
        ]
        self.assertEqual(list(loaded.heads()), heads)
        self.assertEqual(sum(len(h[2]) + len(h[3]) + (h[4] or 0) for h in heads), storage.used)
        self.assertEqual(storage.used, used)
        self.assertEqual(storage.read(CURRENT, 1, b"key"), Kept(b"head", b"value" * 10_000))
        self.assertEqual(storage.read(CURRENT, 1, b"gone"), Kept(b"tombstone", None))
        self.assertEqual(storage.read(CURRENT, 1, b""), Kept(b"", b""))
        self.assertIsNone(storage.read(STAGED, 1, b"gone"))
        self.assertIsNone(storage.read(CURRENT, 1, b"none"))
        seen = [Seen(b"gone", b"tombstone", None, None), Seen(b"key", b"head", 50_000, None)]
        self.assertEqual(storage.scan(CURRENT, 1, b"g", 9, 100), seen)
        self.assertEqual(storage.look(CURRENT, 1, b"key", 100), seen[1])

    def test_every_opening_is_counted(self) -> None:
        for boots in (1, 2, 3):
            storage, loaded = self.opened()
            self.assertEqual(loaded.boots, boots)
            if boots == 2:
                self.crash(storage)
            else:
                self.close(storage)

    def test_the_count_is_on_the_disk_before_it_is_told(self) -> None:
        make, gate = self.gated()
        storage = self.storage(make=make)
        storage.open(self.reactor)
        commit = gate.statements.index("COMMIT")
        self.assertIn("PRAGMA synchronous = FULL", gate.statements[:commit])
        with sqlite3.connect(self.path) as other:
            ((content,),) = other.execute("SELECT content FROM life")
        other.close()
        self.assertIn('"boots": 1', content)

    def test_later_batches_win_and_drop_and_clear(self) -> None:
        storage, _ = self.opened()
        self.commit(storage, batch_of(b"a", b"b", b"c"))
        self.commit(storage, batch_of(b"a", partition=7))
        batch = batch_of(b"a", value=b"new")
        batch.drop(CURRENT, 0, b"b")
        batch.clear(CURRENT, 7)
        batch.put(CURRENT, 7, b"z", b"", None)
        self.commit(storage, batch)
        self.close(storage)
        _, loaded = self.opened()
        self.assertEqual([(h[1], h[2]) for h in loaded.heads()], [(0, b"a"), (0, b"c"), (7, b"z")])

    def test_many_rows(self) -> None:
        """More than go into one statement, of all sizes of statements."""
        keys = [b"%d" % number for number in range(64 + 3 * 8 + 5)]
        storage, _ = self.opened()
        self.commit(storage, batch_of(*keys, b"long", value=b"v" * 100))
        self.commit(storage, batch_of(*keys[:70], value=b"v" * 20_000))
        batch = Batch()
        for key in keys[1:]:
            batch.drop(CURRENT, 0, key)
        self.commit(storage, batch)
        self.assertEqual(self.found(storage, keys), {keys[0]})
        self.assertEqual(storage.used, len(b"0head 0") + 20_000 + len(b"longhead long") + 100)

    def test_a_batch_can_be_used_again_at_once(self) -> None:
        storage, _ = self.opened()
        batch = batch_of(b"one")
        done: list[Any] = []
        storage.commit(batch, done.append)
        self.assertFalse(batch)
        batch.put(CURRENT, 0, b"two", b"", None)
        self.reactor.until(lambda: done)
        self.assertIsNone(storage.read(CURRENT, 0, b"two"))

    def test_an_empty_batch_is_done_in_its_turn(self) -> None:
        storage, _ = self.opened()
        order: list[int] = []
        storage.commit(batch_of(b"a"), lambda _: order.append(1))
        storage.commit(Batch(), lambda _: order.append(2))
        self.reactor.until(lambda: len(order) == 2)
        self.assertEqual(order, [1, 2])

    def test_a_folder_or_a_file(self) -> None:
        """A folder that is there, a new one, and a file by its name."""
        for path, file in (
            (self.folder, self.path),
            (self.folder / "deep" / "chord.data", self.folder / "deep" / "chord.data/node.sqlite"),
            (self.folder / "own.sqlite", self.folder / "own.sqlite"),
        ):
            storage = SQLiteStorage(path)
            self.storages.append(storage)
            storage.open(self.reactor)
            self.assertEqual(storage.path, str(file))
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        for made in (self.folder / "deep", self.folder / "deep" / "chord.data"):
            self.assertEqual(stat.S_IMODE(made.stat().st_mode), 0o700)

    def test_what_it_is_used_for_is_checked(self) -> None:
        """What is expected is kept, and must be the same ever after."""
        storage = self.storage()
        loaded = storage.open(self.reactor, {"k": b"6", "ring": b"\xff\x00"})
        self.assertEqual(loaded.meta, {"k": b"6", "ring": b"\xff\x00"})
        self.close(storage)
        self.assertEqual(storage.open(self.reactor, {"k": b"6", "subnet": b"x"}).boots, 2)
        self.close(storage)
        error = self.assertRaises(
            StorageMismatch, storage.open, self.reactor, {"k": b"7", "ring": b"\xfe\x00"}
        )
        self.assertIn("k is '6' there and '7' here, ring is ff00 there and fe00 here", str(error))
        self.assertEqual(error.path, str(self.path))
        self.assertIn("It holds no keys: if that node never was in a ring", str(error))
        loaded = storage.open(self.reactor)
        self.assertEqual(loaded.boots, 3)  # a refusal is no opening
        self.assertEqual(loaded.meta, {"k": b"6", "ring": b"\xff\x00", "subnet": b"x"})

    def test_what_holds_something_is_not_to_be_deleted(self) -> None:
        """Only of a file without records and states is said that it may be."""
        one, another = Batch(), Batch()
        one.set_state(3, b"state")
        another.set_state(3, None)
        another.put(CURRENT, 3, b"key", b"head", None)
        storage = self.storage()
        for batch in (one, another):
            storage.open(self.reactor, {"k": b"6"})
            self.assertIsNone(self.commit(storage, batch))
            self.close(storage)
            error = self.assertRaises(StorageMismatch, storage.open, self.reactor, {"k": b"7"})
            self.assertIn("Start the node as it was", str(error))
            self.assertNotIn("delete", str(error))

    def test_a_second_one_is_refused(self) -> None:
        storage, _ = self.opened()
        error = self.assertRaises(StorageInUse, self.storage().open, self.reactor)
        self.assertEqual(error.pid, os.getpid())
        self.assertIn(f"{self.path} is in use by process {os.getpid()}", str(error))
        self.assertIsNone(self.commit(storage, batch_of(b"undisturbed")))

    def test_closing(self) -> None:
        """Twice, before it was opened, and with much on the way."""
        storage = self.storage()
        self.successResultOf(storage.close())
        storage.open(self.reactor)
        done: list[Any] = []
        for number in range(300):
            storage.commit(batch_of(b"%d" % number), done.append)
        ended = [storage.close(), storage.close()]
        self.assertRaises(RuntimeError, storage.commit, batch_of(b"late"), done.append)
        self.reactor.until(lambda: ended[0].called and ended[1].called)
        self.assertEqual(done, [None] * 300)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertRaises(StorageError, storage.read, CURRENT, 0, b"0")
        self.successResultOf(storage.close())
        self.assertEqual(sorted(os.listdir(self.folder)), ["node.sqlite", "node.sqlite-lock"])
        _, loaded = self.opened()
        self.assertEqual(len(list(loaded.heads())), 300)

    def test_opened_again_by_who_waits_for_the_end(self) -> None:
        storage, _ = self.opened()
        again = storage.close().addCallback(lambda _: storage.open(self.reactor))
        self.reactor.until(lambda: again.called)
        self.assertEqual(self.successResultOf(again).boots, 2)
        self.assertIsNone(self.commit(storage, batch_of(b"a")))

    def test_what_follows_a_commit_may_fail(self) -> None:
        storage, _ = self.opened()
        storage.commit(batch_of(b"a"), lambda _: 1 / 0)
        self.assertIsNone(self.commit(storage, batch_of(b"b")))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_how_it_may_be_written(self) -> None:
        self.assertRaises(ValueError, SQLiteStorage, self.path, "sometimes")
        self.assertEqual(SQLiteStorage(self.path, "interval", 7).quota, 7)


class WriterTests(StorageCase):
    """The thread: nobody waits for it, and it does much at once."""

    def test_nothing_is_shown_before_it_is_on_the_disk(self) -> None:
        make, gate = self.gated()
        storage, _ = self.opened(make=make)
        self.commit(storage, batch_of(b"key", value=b"old"))
        gate.close("COMMIT")
        done: list[Any] = []
        storage.commit(batch_of(b"key", value=b"newer"), done.append)
        self.assertTrue(gate.reached.wait(PATIENCE))
        self.assertEqual(storage.read(CURRENT, 0, b"key"), Kept(b"head key", b"old"))
        self.assertEqual((done, storage.behind), ([], len(b"keyhead keynewer")))
        self.assertEqual(storage.used, len(b"keyhead keyold"))
        gate.open.set()
        self.reactor.until(lambda: done)
        self.assertEqual(storage.read(CURRENT, 0, b"key"), Kept(b"head key", b"newer"))
        self.assertEqual((storage.behind, storage.used), (0, len(b"keyhead keynewer")))

    def test_what_waits_is_written_together(self) -> None:
        make, gate = self.gated()
        storage, _ = self.opened(make=make)
        gate.close("COMMIT")
        order: list[int] = []
        storage.commit(batch_of(b"first"), lambda _: order.append(-1))
        self.assertTrue(gate.reached.wait(PATIENCE))
        begun = gate.statements.count("BEGIN IMMEDIATE")
        for number in range(500):
            storage.commit(batch_of(b"%d" % number), lambda _, n=number: order.append(n))
        self.assertGreater(storage.behind, 5000)
        gate.open.set()
        self.reactor.until(lambda: len(order) == 501)
        self.assertEqual(order, list(range(-1, 500)))
        self.assertEqual(gate.statements.count("BEGIN IMMEDIATE") - begun, 1)
        self.assertEqual(len(storage.scan(CURRENT, 0, b"", 1000, 100)), 501)

    def test_transactions_are_bounded(self) -> None:
        """Much that waits is not written in one go."""
        self.patch(writer, "_MOST_JOINED", 1000)
        make, gate = self.gated()
        storage, _ = self.opened(make=make)
        done: list[Any] = []
        begun = gate.statements.count("BEGIN IMMEDIATE")
        for number in range(20):
            storage.commit(batch_of(b"%d" % number, value=b"v" * 600), done.append)
        self.reactor.until(lambda: len(done) == 20)
        self.assertGreaterEqual(gate.statements.count("BEGIN IMMEDIATE") - begun, 10)

    def test_always(self) -> None:
        make, gate = self.gated()
        storage, _ = self.opened("always", make=make)
        for key in (b"a", b"b"):
            self.commit(storage, batch_of(key))
        asked = [text for text in gate.statements if text.startswith("PRAGMA synchronous")]
        self.assertEqual(asked, ["PRAGMA synchronous = FULL"])

    def test_interval(self) -> None:
        """A commit does not wait for the disk; soon after, without another one, all is there."""
        self.patch(writer, "SYNC_SECONDS", 0.2)
        make, gate = self.gated()
        storage, _ = self.opened("interval", make=make)
        self.commit(storage, batch_of(b"a"))
        begun = gate.statements.index("PRAGMA synchronous = NORMAL")
        self.assertNotIn("PRAGMA synchronous = FULL", gate.statements[begun:])
        gate.close("BEGIN IMMEDIATE")
        self.assertTrue(gate.reached.wait(PATIENCE))
        self.assertEqual(gate.statements[-2:], ["PRAGMA synchronous = FULL", "BEGIN IMMEDIATE"])
        gate.open.set()

    def test_interval_under_load(self) -> None:
        """The commit that finds the time gone waits for the disk, with all before it."""
        self.patch(writer, "SYNC_SECONDS", 0.0)
        make, gate = self.gated()
        storage, _ = self.opened("interval", make=make)
        self.commit(storage, batch_of(b"a"))
        self.assertEqual(gate.statements.count("PRAGMA synchronous = NORMAL"), 0)

    def test_the_log_is_emptied_meanwhile(self) -> None:
        self.patch(writer, "_PAGES", 50)
        storage, _ = self.opened()
        for _ in range(20):
            self.commit(storage, batch_of(b"key", value=os.urandom(200_000)))
        self.assertLess(Path(f"{self.path}-wal").stat().st_size, 1_200_000)

    def test_closing_is_bounded(self) -> None:
        make, gate = self.gated()
        storage, _ = self.opened(make=make, close_timeout=5.0)
        gate.close("COMMIT")
        done: list[Any] = []
        storage.commit(batch_of(b"a"), done.append)
        self.assertTrue(gate.reached.wait(PATIENCE))
        ended = storage.close()
        self.reactor.advance(4.9)
        self.assertNoResult(ended)
        self.reactor.advance(0.2)
        error = self.failureResultOf(ended, StorageError).value
        self.assertIn("within 5 s of closing", str(error))
        # It still has the file, until the disk answers.
        self.assertRaises(StorageInUse, self.storage().open, self.reactor)
        gate.open.set()
        self.reactor.until(lambda: done)


class MemoryTests(SynchronousTestCase):
    def test_it_keeps_nothing(self) -> None:
        storage: Storage = MemoryStorage()
        self.assertFalse(storage.durable)
        for loaded in (storage.open(Clock(), {"k": b"6"}), storage.reset({"k": b"6"})):
            self.assertEqual((loaded.meta, loaded.states), ({"k": b"6"}, {}))
            self.assertEqual((loaded.boots, loaded.intact, list(loaded.heads())), (1, True, []))
        done: list[Any] = []
        batch = batch_of(b"a")
        storage.commit(batch, done.append)
        self.assertEqual((done, bool(batch)), ([None], False))
        self.assertIsNone(storage.read(CURRENT, 0, b"a"))
        self.assertIsNone(storage.look(CURRENT, 0, b"a", 9))
        self.assertEqual(storage.scan(CURRENT, 0, b"", 9, 9), [])
        self.assertEqual((storage.used, storage.behind, storage.broken), (0, 0, None))
        self.successResultOf(storage.close())

    def test_both_are_storages(self) -> None:
        """A type checker sees the methods; this sees their arguments."""
        from inspect import signature

        for name in ("open", "reset", "commit", "read", "look", "scan", "close"):
            wanted = list(signature(getattr(Storage, name)).parameters)
            for kind in (MemoryStorage, SQLiteStorage):
                self.assertEqual(list(signature(getattr(kind, name)).parameters), wanted, name)
