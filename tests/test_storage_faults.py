"""Faults of the disk, files that are not what they were, and the offline check of them."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path
from time import sleep
from typing import Any

from twisted.python.failure import Failure

from py2p_twisted.errors import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageInUse,
    StorageMismatch,
    StorageUnusable,
)
from py2p_twisted.storage import lock, opening, schema, writer
from py2p_twisted.storage.__main__ import main
from py2p_twisted.storage.check import DAMAGED, SOUND, UNKNOWN, check
from py2p_twisted.storage.faults import storage_error
from py2p_twisted.storage.interface import Batch
from py2p_twisted.storage.rows import read_heads

from .test_storage import CURRENT, STAGED, StorageCase, as_nobody, batch_of

ROOT = Path(__file__).resolve().parents[1]

#: Commits values until that fails, where no file may grow beyond 200,000 bytes.
GROWS = """
import resource, sys
from tests.test_storage import PumpReactor, batch_of
from py2p_twisted.storage.sqlite import SQLiteStorage
reactor, storage = PumpReactor(), SQLiteStorage(sys.argv[1])
storage.open(reactor)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
told = []
for number in range(20):
    storage.commit(batch_of(b"%d" % number, value=b"v" * 30_000), told.append)
    reactor.until(lambda: len(told) > number)
    if told[-1] is not None:
        print(number, type(told[-1].value).__name__, told[-1].value)
        break
ended = []
storage.close().addBoth(ended.append)
reactor.until(lambda: ended)
print(type(ended[0].value).__name__)
"""


class FailingTests(StorageCase):
    """The disk fails while all is open."""

    def fails(self, at: str, error: Exception, kind: type[StorageError]) -> StorageError:
        """Three commits of which the second fails; the first is there, and nothing else."""
        make, gate = self.gated()
        storage, _ = self.opened(make=make)
        self.assertIsNone(self.commit(storage, batch_of(b"before")))
        used = storage.used
        gate.fail(at, error)
        failure = self.commit(storage, batch_of(b"during"))
        assert isinstance(failure, Failure)
        self.assertIsInstance(failure.value, kind)
        gate.at = ""
        later = self.commit(storage, batch_of(b"after"))
        assert isinstance(later, Failure)
        self.assertIsInstance(later.value, kind)
        self.assertIn("an earlier write failed", str(later.value))
        self.assertIs(later.value.outcome_unknown, False)
        self.assertIs(storage.broken, failure.value)
        self.assertEqual((storage.used, storage.behind), (used, 0))
        self.assertEqual(self.found(storage, [b"before", b"during", b"after"]), {b"before"})
        told: list[Any] = []
        storage.close().addBoth(told.append)
        self.reactor.until(lambda: told)
        self.assertIs(told[0].value, failure.value)
        again, loaded = self.opened()
        self.assertEqual([h[2] for h in loaded.heads()], [b"before"])
        self.assertIsNone(self.commit(again, batch_of(b"well again")))
        return failure.value

    def test_a_failing_commit(self) -> None:
        error = self.fails("COMMIT", sqlite3.OperationalError("disk I/O error"), StorageUnusable)
        self.assertIs(error.outcome_unknown, True)
        self.assertIn("The disk fails", str(error))

    def test_no_room(self) -> None:
        full = sqlite3.OperationalError("database or disk is full")
        error = self.fails("INSERT INTO record", full, StorageFull)
        self.assertIs(error.outcome_unknown, False)
        self.assertIn(f"{self.path} cannot be written: the disk is full. Make room", str(error))

    def test_something_unforeseen(self) -> None:
        """Even a mistake in the code is told to those who wait, and does not hang them."""
        error = self.fails("INSERT INTO record", KeyError("oops"), StorageError)
        self.assertIn("KeyError: 'oops'", str(error))

    def test_those_who_wait_fail_too(self) -> None:
        """One whose transaction failed, and one that was not tried."""
        self.patch(writer, "_MOST_COMMITS", 1)
        make, gate = self.gated()
        storage, _ = self.opened(make=make)
        gate.close("COMMIT")
        told: list[Any] = []
        storage.commit(batch_of(b"a"), told.append)
        self.assertTrue(gate.reached.wait(20))
        for key in (b"b", b"c"):
            storage.commit(batch_of(key), told.append)
        gate.error = sqlite3.OperationalError("disk I/O error")
        gate.at = "COMMIT"
        gate.open.set()  # the first is written; the others meet the error
        self.reactor.until(lambda: len(told) == 3)
        self.assertIsNone(told[0])
        self.assertEqual([type(t.value) for t in told[1:]], [StorageUnusable] * 2)
        self.assertEqual([t.value.outcome_unknown for t in told[1:]], [True, False])
        self.commit(storage, Batch())  # which comes after whatever the thread still had to tell
        self.assertEqual((len(told), storage.behind), (3, 0))
        self.assertEqual(gate.statements.count("COMMIT"), 3)  # one of them by opening

    def test_a_full_file_of_sqlite(self) -> None:
        """SQLite's own refusal, not a made one."""

        def small(path: str, **options: Any) -> sqlite3.Connection:
            connection = sqlite3.connect(path, **options)
            connection.execute("PRAGMA max_page_count = 30")
            return connection

        storage, _ = self.opened(make=small)
        self.assertIsNone(self.commit(storage, batch_of(b"fits")))
        failure = self.commit(storage, batch_of(b"large", value=b"v" * 200_000))
        assert failure is not None
        self.assertIsInstance(failure.value, StorageFull)
        self.assertEqual(self.found(storage, [b"fits", b"large"]), {b"fits"})

    def test_a_limit_of_the_system(self) -> None:
        """In a process whose files may not grow; what it was told is there is there."""
        process = subprocess.run(
            [sys.executable, "-c", GROWS, str(self.path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((process.stderr, process.returncode), ("", 0))
        first, last = process.stdout.splitlines()
        number, kind, text = first.split(" ", 2)
        self.assertEqual((kind, last), ("StorageUnusable", "StorageUnusable"))
        self.assertIn("a limit on the size of files", text)
        self.assertGreater(int(number), 1)
        storage, loaded = self.opened()
        kept = [head[2] for head in loaded.heads()]
        self.assertEqual(kept, [b"%d" % n for n in range(int(number))])
        self.assertEqual(len(self.found(storage, kept)), int(number))

    def test_emptying_the_log_fails(self) -> None:
        """What was done stays done, and nothing more is written."""
        self.patch(writer, "_PAGES", 1)
        make, gate = self.gated()
        storage, _ = self.opened(make=make)
        gate.fail("PRAGMA wal_checkpoint", sqlite3.OperationalError("database or disk is full"))
        self.assertIsNone(self.commit(storage, batch_of(b"a")))
        self.reactor.until(lambda: storage.broken)
        self.assertIsInstance(storage.broken, StorageFull)
        failure = self.commit(storage, batch_of(b"b"))
        assert failure is not None
        self.assertIsInstance(failure.value, StorageFull)

    def close_all(self) -> None:
        """Nobody closes well what broke."""
        for storage in self.storages:
            ended: list[Any] = []
            storage.close().addBoth(ended.append)
            self.reactor.until(lambda ended=ended: ended)  # type: ignore[misc]

    def test_errors_of_the_system(self) -> None:
        """Each says what and where; the texts stand for codes that Python 3.10 hides."""
        for error, kind in (
            (OSError(errno.ENOSPC, "No space left on device"), StorageFull),
            (OSError(errno.EROFS, "Read-only file system"), StorageUnusable),
            (sqlite3.OperationalError("attempt to write a readonly database"), StorageUnusable),
            (sqlite3.OperationalError("unable to open database file"), StorageUnusable),
            (sqlite3.OperationalError("database is locked"), StorageUnusable),
            (sqlite3.DatabaseError("database disk image is malformed"), StorageCorrupt),
            (sqlite3.DatabaseError("file is not a database"), StorageCorrupt),
            (sqlite3.OperationalError("no such table: record"), StorageCorrupt),
            (sqlite3.OperationalError("never heard of"), StorageError),
        ):
            made = storage_error(error, "/data", "opened")
            self.assertIs(type(made), kind, error)
            self.assertTrue(str(made).startswith("/data cannot be opened: "), made)
            self.assertIs(made.__cause__, error)


class GoneTests(StorageCase):
    """The file under a running node is not the one any more that the next start will find."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(writer, "LOOK_SECONDS", 0.05)

    def gone(self, take_away: Callable[[], object], *words: str, idle: bool = True) -> None:
        """It is noticed, whether something is written or not, and nothing is written after that."""
        storage, _ = self.opened()
        self.assertIsNone(self.commit(storage, batch_of(b"before")))
        sleep(0.06)
        self.assertIsNone(storage.broken)
        take_away()
        if not idle:
            sleep(0.06)
            failure = self.commit(storage, batch_of(b"after"))
            assert isinstance(failure, Failure)
            failure.trap(StorageUnusable)
        self.reactor.until(lambda: storage.broken)
        self.assertIsInstance(storage.broken, StorageUnusable)
        for word in (str(self.path), *words):
            self.assertIn(word, str(storage.broken))
        failing = storage.close()
        self.reactor.until(lambda: failing.called)
        self.failureResultOf(failing, StorageUnusable)

    def test_deleted_folder(self) -> None:
        def delete() -> None:
            shutil.rmtree(self.folder)

        self.gone(delete, "is not there any more", "was deleted")
        self.gone(delete, "is not there any more", "was deleted", idle=False)

    def test_moved_file(self) -> None:
        moved = self.folder / "elsewhere"
        self.gone(lambda: self.path.rename(moved), "is not there any more", "moved")

    def test_another_file(self) -> None:
        def restore() -> None:
            copy = self.folder / "copy"
            shutil.copy(self.path, copy)
            copy.rename(self.path)

        self.gone(restore, "is another file by now")


class RefusedTests(StorageCase):
    """What cannot be opened at all."""

    def refused(self, kind: type[StorageError], *words: str) -> None:
        """Opening fails with this, leaves the file as it is, and keeps no lock."""
        effective = os.access in os.supports_effective_ids
        readable = os.access(self.path, os.R_OK, effective_ids=effective)
        before = self.path.read_bytes() if readable else None
        for _ in range(2):
            error = self.assertRaises(kind, self.storage().open, self.reactor)
            for word in words:
                self.assertIn(word, str(error))
        if before is not None:
            self.assertEqual(self.path.read_bytes(), before)

    def made(self) -> None:
        """A file as a node leaves it."""
        storage, _ = self.opened()
        self.commit(storage, batch_of(b"key"))
        self.close(storage)

    def live_in_public(self) -> None:
        """In a folder that another user can reach."""
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "node.sqlite"

    def altered(self, *statements: str) -> None:
        with sqlite3.connect(self.path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def test_a_read_only_folder(self) -> None:
        self.live_in_public()
        self.folder.chmod(0o500)
        with as_nobody(self.folder):
            self.refused(StorageUnusable, "Permission denied", str(self.path))

    def test_a_folder_in_a_read_only_one(self) -> None:
        self.live_in_public()
        self.folder.chmod(0o500)
        with as_nobody(self.folder):
            storage = self.storage()
            storage.path = str(self.folder / "new" / "node.sqlite")
            error = self.assertRaises(StorageUnusable, storage.open, self.reactor)
        self.assertIn(f"{self.folder / 'new'} cannot be made: Permission denied", str(error))

    def test_a_read_only_file(self) -> None:
        self.live_in_public()
        self.made()
        self.path.chmod(0o400)
        with as_nobody(self.folder):
            self.refused(StorageUnusable, "readonly database", "belong to the node's user")

    def test_a_file_of_somebody_else(self) -> None:
        self.live_in_public()
        self.made()
        self.path.chmod(0)
        with as_nobody(self.folder):
            self.refused(StorageUnusable, "Permission denied")

    def test_a_folder_that_is_a_file(self) -> None:
        self.made()
        storage = self.storage()
        storage.path = str(self.path / "node.sqlite")
        self.assertRaises(StorageUnusable, storage.open, self.reactor)

    def test_no_room_to_begin(self) -> None:
        make, gate = self.gated()
        gate.fail("CREATE TABLE", sqlite3.OperationalError("database or disk is full"))
        storage = self.storage(make=make)
        self.assertRaises(StorageFull, storage.open, self.reactor)
        gate.at = ""
        self.assertEqual(storage.open(self.reactor).boots, 1)

    def test_no_database(self) -> None:
        self.path.write_bytes(b"Dear diary, " * 1000)
        self.refused(StorageCorrupt, "no SQLite database")

    def test_another_application(self) -> None:
        self.altered("CREATE TABLE addresses (name)")
        self.refused(StorageMismatch, "another application's database")

    def test_a_later_version(self) -> None:
        self.made()
        self.altered("PRAGMA user_version = 2")
        self.refused(StorageMismatch, "schema version 2", "knows 1 only")

    def test_tables_are_missing(self) -> None:
        self.made()
        self.altered("DROP TABLE state")
        self.refused(StorageCorrupt, "no such table")

    def test_half_a_file(self) -> None:
        self.made()
        os.truncate(self.path, self.path.stat().st_size // 2)
        self.refused(StorageCorrupt, "Move it away")

    def test_rows_are_missing(self) -> None:
        """As if a page had lost them: the triggers do not count it."""
        storage, _ = self.opened()
        batch = Batch()
        batch.set_state(1, b"promise")
        batch.set_meta("name", b"content")
        self.commit(storage, batch)
        self.close(storage)
        for kind, table in ((1, "state"), (2, "meta")):
            self.altered(f"CREATE TABLE kept AS SELECT * FROM {table}")
            self.altered(f"DROP TRIGGER {table}_delete", f"DELETE FROM {table}")
            self.refused(StorageCorrupt, f"0 rows of {table} are left of 1")
            self.altered(
                f"UPDATE tally SET number = 0, bytes = 0, crcs = 0 WHERE kind = {kind}",
                f"INSERT INTO {table} SELECT * FROM kept",
                "DROP TABLE kept",
            )
        self.assertEqual(self.opened()[1].states, {1: b"promise"})

    def test_how_it_was_used_is_damaged(self) -> None:
        self.made()
        self.altered("UPDATE life SET content = replace(content, ': 1', ': 7')")
        self.refused(StorageCorrupt, "how it was used last")


class DamageTests(StorageCase):
    """Bytes change on the disk: an error, or what was written; never anything else."""

    def filled(self) -> dict[tuple[int, int, bytes], tuple[bytes, bytes | None]]:
        """A file of some pages, closed."""
        rng = random.Random(7)
        records = {}
        batch = Batch()
        for number in range(60):
            place = (rng.choice((CURRENT, STAGED)), number % 3, b"key %d" % number)
            value = rng.choice([None, b"", rng.randbytes(100), rng.randbytes(9000)])
            records[place] = (rng.randbytes(40), value)
            batch.put(*place, *records[place])
        batch.set_state(0, b"state" * 20)
        batch.set_meta("instance", b"i" * 16)
        storage, _ = self.opened()
        self.commit(storage, batch)
        self.close(storage)
        return records

    def read_all(self) -> tuple[Any, ...]:
        """All that the file tells, or a typed error."""
        storage = self.storage()
        loaded = storage.open(self.reactor)
        try:
            heads = list(loaded.heads())
            found = {
                (space, at, key): storage.read(space, at, key) for space, at, key, _, _ in heads
            }
            return loaded.meta, loaded.states, heads, found, loaded.intact
        finally:
            self.close(storage)

    def test_flipped_bytes(self) -> None:
        """Somewhere in the file, one at a time."""
        records = self.filled()
        whole = self.path.read_bytes()
        right = self.read_all()
        self.assertEqual(right[3], records)
        rng = random.Random(11)
        caught = 0
        for _ in range(100):
            changed = bytearray(whole)
            at = rng.randrange(len(whole))
            changed[at] ^= 1 << rng.randrange(8)
            self.path.write_bytes(changed)
            Path(f"{self.path}-lock").write_bytes(b"")
            try:
                self.assertEqual(self.read_all(), right, f"byte {at}")
            except StorageError:
                caught += 1
            for ending in ("-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
        self.assertGreater(caught, 50)

    def changed(self, where: str, content: str) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute(f"UPDATE record SET {content} WHERE {where}")
        connection.close()

    def test_each_part_of_a_record(self) -> None:
        """SQLite finds nothing wrong with these."""
        for content, of_head in (
            ("value = x'00'", False),
            ("value = NULL", False),
            ("value = value || x'00'", False),
            ("value = 7", False),
            ("head = x'00'", True),
            ("head = 7", True),
            ("key = x'00'", True),
            ("partition = 5", True),
            ("space = 1", True),
            ("space = 2", True),
            ("space = -1", True),
            ("size = NULL", True),
            ("size = 4", True),
            ("crc = crc + 1", True),
            ("value_crc = 0", True),
            ("value_crc = -1", True),
        ):
            storage, _ = self.opened()
            self.commit(storage, batch_of(b"k", b"other"))
            self.close(storage)
            self.changed("key = x'6b'", content)
            storage, loaded = self.opened()
            if of_head:
                self.assertRaises(StorageCorrupt, list, loaded.heads())
                if content.startswith(("head", "crc", "size")):  # it is still found
                    self.assertRaises(StorageCorrupt, storage.read, CURRENT, 0, b"k")
            else:
                self.assertEqual(len(list(loaded.heads())), 2, content)
                error = self.assertRaises(StorageCorrupt, storage.read, CURRENT, 0, b"k")
                self.assertIn("the record of key b'k' in partition 0", str(error))
                self.assertRaises(StorageCorrupt, storage.look, CURRENT, 0, b"k", 100)
                self.assertRaises(StorageCorrupt, storage.scan, CURRENT, 0, b"", 9, 100)
            self.assertEqual(storage.read(CURRENT, 0, b"other"), (b"head other", b"value"))
            storage = self.reset_and_close(storage)

    def reset_and_close(self, storage: Any) -> Any:
        storage.reset()
        self.close(storage)
        return storage

    def test_records_in_the_wrong_order(self) -> None:
        """They would not be found by their keys.

        Only a damaged page holds such; these come from a table that keeps no order.
        """

        class Unordered(sqlite3.Connection):
            def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
                unordered = statement.replace("ORDER BY space, partition, key", "ORDER BY rowid")
                return super().execute(unordered, *arguments)

        storage, _ = self.opened()
        self.commit(storage, batch_of(b"a", b"b", b"c"))
        self.close(storage)
        with sqlite3.connect(self.path) as connection:
            connection.execute("CREATE TABLE other AS SELECT * FROM record ORDER BY key DESC")
            connection.execute("DROP TABLE record")
            connection.execute("ALTER TABLE other RENAME TO record")
        connection.close()
        connection = sqlite3.connect(self.path, factory=Unordered)
        self.addCleanup(connection.close)
        error = self.assertRaises(StorageCorrupt, list, read_heads(connection, "file"))
        self.assertIn("the record of key b'b'", str(error))

    def test_lost_records(self) -> None:
        self.filled()
        with sqlite3.connect(self.path) as connection:
            connection.execute("DROP TRIGGER record_delete")
            connection.execute("DELETE FROM record WHERE key = x'6b65792031'")
        connection.close()
        _, loaded = self.opened()
        error = self.assertRaises(StorageCorrupt, list, loaded.heads())
        self.assertIn("59 records are left of 60", str(error))

    def test_begun_anew(self) -> None:
        """A damaged file is set aside, and a new one begins; the old one is not lost."""
        self.filled()
        os.truncate(self.path, 9000)
        broken = self.path.read_bytes()
        storage = self.storage()
        self.assertRaises(StorageCorrupt, storage.open, self.reactor)
        loaded = storage.reset({"instance": b"new"})
        self.assertEqual((loaded.boots, loaded.intact), (1, True))
        self.assertEqual((loaded.meta, list(loaded.heads())), ({"instance": b"new"}, []))
        self.assertEqual(Path(f"{self.path}.aside").read_bytes(), broken)
        self.assertIsNone(self.commit(storage, batch_of(b"a")))
        self.assertRaises(RuntimeError, storage.reset)
        self.close(storage)
        self.assertEqual(storage.open(self.reactor).meta, {"instance": b"new"})


class CopyTests(StorageCase):
    """Files that may have forgotten promises."""

    def setUp(self) -> None:
        super().setUp()
        self.backup = self.folder / "backup"
        storage, _ = self.opened()
        self.commit(storage, batch_of(b"a"))
        self.close(storage)
        shutil.copytree(self.folder, self.backup)

    def doubted(self, *words: str) -> None:
        """It is opened with a doubt, which stays until it is begun anew."""
        for _ in range(2):
            storage, loaded = self.opened()
            self.assertFalse(loaded.intact)
            for word in words:
                self.assertIn(word, loaded.reason)
            self.assertEqual([h[2] for h in loaded.heads()], [b"a"])
            self.close(storage)
        storage, _ = self.opened()
        loaded = storage.reset()
        self.assertEqual((loaded.intact, loaded.reason, loaded.boots), (True, "", 1))
        self.close(storage)
        storage, loaded = self.opened()
        self.assertTrue(loaded.intact)
        self.close(storage)

    def test_a_file_where_it_was(self) -> None:
        """Also under another name, and in a folder that was moved."""
        moved = self.folder / "moved"
        moved.mkdir()
        for name in ("node.sqlite", "node.sqlite-lock"):
            (self.folder / name).rename(moved / name)
        self.path = moved / "node.sqlite"
        self.assertEqual(self.opened()[1].reason, "")

    def test_a_copy(self) -> None:
        """Of the whole folder, somewhere else."""
        self.path = self.backup / "node.sqlite"
        self.doubted("this file is a copy")

    def test_put_back(self) -> None:
        """In place of the other one, lock file and all; the system may use the inode again."""
        for name in ("node.sqlite", "node.sqlite-lock"):
            (self.folder / name).unlink()
            shutil.copy2(self.backup / name, self.folder / name)
        self.doubted("this file is a copy")

    def test_the_same_inode(self) -> None:
        """It alone does not make it the same file."""
        self.patch(opening, "fingerprint", lambda path: (lock.fingerprint(path)[0], 1))
        self.doubted("this file is a copy")

    def test_a_generation_that_is_not_known(self) -> None:
        self.patch(opening, "fingerprint", lambda path: (lock.fingerprint(path)[0], None))
        self.assertEqual(self.opened()[1].reason, "")

    def test_a_copy_where_no_generation_is_known(self) -> None:
        """The inode alone tells then."""
        self.patch(opening, "fingerprint", lambda path: (lock.fingerprint(path)[0], None))
        self.path = self.backup / "node.sqlite"
        self.doubted("this file is a copy")

    def test_written_over(self) -> None:
        """An old content in the same file is told by the lock file."""
        storage, _ = self.opened()
        self.close(storage)
        self.path.write_bytes((self.backup / "node.sqlite").read_bytes())
        self.doubted("earlier state of itself", "opened 1 times", "knows of 2")

    def lived(self, clean: bool) -> bytes:
        """Use the file once more; what it was meanwhile, as ``sqlite3 .backup`` takes it."""
        storage, loaded = self.opened()
        self.assertEqual(loaded.reason, "")
        backup = self.folder / "snap"
        source, target = sqlite3.connect(self.path), sqlite3.connect(backup)
        with closing(source), closing(target):
            source.backup(target)
        self.commit(storage, batch_of(b"later"))
        self.close(storage, clean)
        return backup.read_bytes()

    def test_written_over_by_the_same_life(self) -> None:
        """A backup of the running node, put back after this node was stopped."""
        self.path.write_bytes(self.lived(clean=True))
        self.doubted("earlier state of itself", "was stopped properly")

    def test_written_over_and_refused(self) -> None:
        """Who looked at it, and was refused, does not wipe out what is known of it."""
        self.path.write_bytes(self.lived(clean=True))
        for _ in range(2):
            self.patch(opening, "check_schema", lambda *_: 1 / 0)
            self.assertRaises(ZeroDivisionError, self.storage().open, self.reactor)
        self.patch(opening, "check_schema", schema.check_schema)
        self.doubted("earlier state of itself", "was stopped properly")

    def test_ends_that_leave_no_doubt(self) -> None:
        """Properly, improperly, and where the lock file or the file did not hear of it."""
        noting = Path(f"{self.path}-lock")
        for clean in (True, False, True):
            self.lived(clean)
        storage, _ = self.opened()
        running = noting.read_bytes()
        self.close(storage)
        noting.write_bytes(running)  # the machine stopped between the two
        self.lived(clean=True)
        ended = noting.read_bytes()
        self.lived(clean=False)
        noting.write_bytes(ended)  # it stopped when the file knew of the opening, the lock did not
        make, gate = self.gated()
        storage, loaded = self.opened(make=make)
        self.assertEqual(loaded.reason, "")
        gate.fail("INSERT OR REPLACE INTO life", sqlite3.OperationalError("disk I/O error"))
        told: list[Any] = []
        storage.close().addBoth(told.append)  # a proper end that cannot be written
        self.reactor.until(lambda: told)
        told[0].trap(StorageUnusable)
        self.lived(clean=True)

    def test_what_was_set_aside(self) -> None:
        """It cannot come back unnoticed, even if the new one never began."""
        storage, _ = self.opened()
        self.patch(opening, "begin_file", lambda _: 1 / 0)
        self.assertRaises(ZeroDivisionError, storage.reset)
        Path(f"{self.path}.aside").rename(self.path)
        _, loaded = self.opened()
        self.assertIn("earlier state of itself", loaded.reason)

    def test_an_opening_that_failed(self) -> None:
        """The lock file does not count it, or the file would seem to be an old one."""
        make, gate = self.gated()
        gate.fail("COMMIT", sqlite3.OperationalError("disk I/O error"))
        self.assertRaises(StorageUnusable, self.storage(make=make).open, self.reactor)
        _, loaded = self.opened()
        self.assertEqual((loaded.boots, loaded.reason), (2, ""))

    def test_a_lost_lock_file(self) -> None:
        Path(f"{self.path}-lock").unlink()
        self.assertEqual(self.opened()[1].reason, "")

    def test_the_machine_stopped(self) -> None:
        """Only what was written with sync=interval, and not closed, may miss something."""
        for sync, crashed, before, after, doubted in (
            ("interval", True, "this", "other", True),
            ("interval", True, "this", None, True),
            ("interval", True, None, None, True),
            ("interval", True, "this", "this", False),
            ("interval", False, "this", "other", False),
            ("always", True, "this", "other", False),
        ):
            self.patch(opening, "machine", lambda name=before: name)
            storage, loaded = self.opened(sync)
            self.assertEqual(loaded.reason, "")
            self.commit(storage, batch_of(b"a"))
            (self.crash if crashed else self.close)(storage)
            self.patch(opening, "machine", lambda name=after: name)
            if doubted:
                self.doubted("the machine stopped")
            else:
                storage, loaded = self.opened()
                self.assertEqual(loaded.reason, "", (sync, crashed, after))
                self.close(storage)

    def test_what_the_system_tells(self) -> None:
        """Whatever it is, it is the same when it is asked again."""
        self.assertEqual(lock.machine(), lock.machine())
        self.assertEqual(lock.fingerprint(str(self.path)), lock.fingerprint(str(self.path)))
        self.patch(lock, "_BOOT_ID", str(self.folder / "none"))
        self.assertIsNone(lock.machine())


class CheckTests(StorageCase):
    def check(self, result: int, *words: str, path: Path | None = None) -> str:
        """Check; the exit code, and what is said."""
        lines: list[str] = []
        self.assertEqual(check(str(path or self.path), lines.append), result, lines)
        said = "\n".join(lines)
        for word in words:
            self.assertIn(word, said)
        return said

    def filled(self) -> None:
        storage, _ = self.opened()
        batch = batch_of(b"a", b"b")
        batch.put(STAGED, 0, b"c", b"head", None)
        batch.set_state(3, b"state")
        batch.set_meta("instance", b"i")
        self.commit(storage, batch)
        self.close(storage)

    def test_a_sound_file(self) -> None:
        self.filled()
        before = self.path.read_bytes()
        said = self.check(
            SOUND,
            "schema 1, opened 1 times, written with sync=always, ended properly",
            "structure: whole",
            "records: 3 in 2 sets; 1 without a value; 29 bytes; 0 damaged",
            "of the node: 1 entries (instance)",
            "partitions with a state: 1; 5 bytes",
            f"{self.path} is sound",
        )
        self.assertEqual(self.check(SOUND, path=self.folder), said)
        self.assertEqual(self.path.read_bytes(), before)

    def test_odd_names(self) -> None:
        """SQLite would take some of these for parts of an address."""
        self.filled()
        odd = self.folder / "50% #1 ?mode=rwc&x"
        odd.mkdir()
        self.path.rename(odd / "node.sqlite")
        self.check(SOUND, "3 in 2 sets", path=odd)

    def test_what_a_crash_leaves(self) -> None:
        """The log is looked into too; and a copy of a file in use can be checked."""
        storage, _ = self.opened()
        self.commit(storage, batch_of(b"a"))
        copy = self.folder / "copy"
        copy.mkdir()
        for path in self.folder.glob("node.sqlite*"):
            shutil.copy(path, copy)
        self.check(SOUND, "ended without closing", "records: 1 in 1 sets", path=copy)

    def test_damage(self) -> None:
        self.filled()
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE record SET value = x'' WHERE key = x'61'")
        connection.close()
        self.check(
            DAMAGED,
            "record of key b'a' in partition 0: it is not what was written",
            "3 in 2 sets; 1 without a value; 29 bytes; 1 damaged",
            "is DAMAGED. Move it away",
        )
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE state SET content = x''")
            connection.execute("UPDATE record SET head = x'' WHERE key = x'61'")
        connection.close()
        self.check(DAMAGED, "the record of key b'a' in partition 0", "the state of partition 3")

    def test_a_broken_structure(self) -> None:
        storage, _ = self.opened()
        self.commit(storage, batch_of(*(b"%d" % n for n in range(500)), value=b"v" * 300))
        self.close(storage)
        with self.path.open("r+b") as file:
            for page in (20, 25):
                file.seek(page * 4096)
                file.write(os.urandom(2000))
        self.check(DAMAGED, "malformed", "is DAMAGED")

    def test_what_cannot_be_checked(self) -> None:
        self.check(UNKNOWN, "is not there")
        storage, _ = self.opened()
        self.check(UNKNOWN, "is in use by process")
        self.close(storage)
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA user_version = 9")
        connection.close()
        self.check(UNKNOWN, "schema version 9")

    def test_no_database(self) -> None:
        self.path.write_bytes(b"x" * 5000)
        self.check(DAMAGED, "no SQLite database")
        self.path.write_bytes(b"")
        self.check(SOUND, "is empty")

    def test_the_command(self) -> None:
        """In a process of its own; and what it says to a wrong command line."""
        self.filled()

        def run(*arguments: str) -> tuple[int, str, str]:
            done = subprocess.run(
                [sys.executable, "-m", "py2p_twisted.storage", *arguments],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            return done.returncode, done.stdout, done.stderr

        code, output, errors = run("check", str(self.folder))
        self.assertEqual((code, errors), (0, ""))
        self.assertIn("is sound", output)
        os.truncate(self.path, 9000)
        code, output, errors = run("check", str(self.path))
        self.assertEqual((code, errors), (1, ""))
        self.assertIn("Move it away", output)
        code, output, errors = run("chekc", str(self.path))
        self.assertEqual((code, output), (2, ""))
        self.assertIn("usage: python -m py2p_twisted.storage", errors)

    def test_the_output(self) -> None:
        output = StringIO()
        self.patch(sys, "stdout", output)
        self.assertEqual(main(["check", str(self.path)]), UNKNOWN)
        self.assertEqual(output.getvalue(), f"{self.path} is not there\n")


class LockTests(StorageCase):
    def lock(self) -> lock.LockFile:
        made = lock.LockFile(str(self.path))
        self.addCleanup(made.release)
        return made

    def test_who_is_in(self) -> None:
        first = self.lock()
        first.acquire()
        self.assertEqual(first.boots(), 0)
        error = self.assertRaises(StorageInUse, self.lock().acquire)
        self.assertEqual(error.pid, 0)
        self.assertIn("in use by another process", str(error))
        first.note(10)
        self.assertEqual(self.assertRaises(StorageInUse, self.lock().acquire).pid, os.getpid())
        first.release()
        second = self.lock()
        second.acquire()
        self.assertEqual(second.boots(), 10)

    def test_torn_content(self) -> None:
        for content in (b"", b"{", b"[1]", b'{"boots": "x"}', b"\xff"):
            Path(f"{self.path}-lock").write_bytes(content)
            some = self.lock()
            some.acquire()
            self.assertEqual(some.boots(), 0, content)
            some.note(3)
            self.assertEqual(some.boots(), 3)
            some.release()

    def test_no_locks(self) -> None:
        def flock(*_: Any) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        self.patch(lock.fcntl, "flock", flock)
        error = self.assertRaises(StorageUnusable, self.lock().acquire)
        self.assertIn("file system that has locks", str(error))
