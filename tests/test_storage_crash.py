"""A process that is killed while it commits: what was done is there, and every batch is whole.

``P2P_SEED=n`` repeats one run's changes; when the kill comes is the system's to decide.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py2p_twisted.errors import StorageCorrupt, StorageInUse, StorageMismatch
from py2p_twisted.storage.check import SOUND, check
from py2p_twisted.storage.interface import Batch
from py2p_twisted.storage.sqlite import SQLiteStorage

from .test_storage import CURRENT, STAGED, PumpReactor, StorageCase
from .test_storage_model import Model, recorded

ROOT = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("P2P_SEED", "5"))
#: Kills of one run.
ROUNDS = 3
#: Batches on the way at a time.
IN_FLIGHT = 64

CHILD = """
import sys
from tests.test_storage_crash import commit_for_ever
commit_for_ever(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def changes_of(seed: int, number: int) -> list[tuple[Any, ...]]:
    """What batch `number` of a run changes; it says itself which one it is."""
    rng = random.Random(seed * 1_000_003 + number)
    partition = rng.randrange(4)
    changes: list[tuple[Any, ...]] = []
    for _ in range(rng.randrange(1, 6)):
        space, key = rng.choice((CURRENT, STAGED)), b"key %d" % rng.randrange(40)
        value = rng.choice((None, b"", rng.randbytes(200), rng.randbytes(rng.randrange(20_000))))
        put = ("put", space, partition, key, b"%d" % number, value)
        changes.append(rng.choice((put, put, put, ("drop", space, partition, key))))
    if rng.random() < 0.05:
        changes.append(("clear", STAGED, partition))
    changes.append(("set_state", partition, b"%d" % number))
    changes.append(("set_meta", "number", b"%d" % number))
    return changes


def commit_for_ever(path: str, sync: str, seed: int) -> None:
    """Commit batch after batch, many at a time, and print the number of each that is done."""
    reactor = PumpReactor()
    storage = SQLiteStorage(path, sync)
    loaded = storage.open(reactor)
    first = number = int(loaded.meta.get("number", b"0"))
    finished = first
    os.write(1, b"open\n")

    def done(failure: Any) -> None:
        nonlocal finished
        assert failure is None, failure
        finished += 1
        os.write(1, b"%d\n" % finished)

    while True:
        while number - finished < IN_FLIGHT:
            number += 1
            storage.commit(recorded(changes_of(seed, number)), done)
        reactor.until(lambda before=finished: finished > before)  # type: ignore[misc]


@contextmanager
def child(path: Path, sync: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that commits for ever; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), sync, str(SEED)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class CrashTests(StorageCase):
    def killed(self, sync: str, rng: random.Random) -> int:
        """Let a process commit for a moment, and kill it; the last batch that it saw done."""
        with child(self.path, sync) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"open\n")
            time.sleep(rng.uniform(0.0, 0.4))
            process.send_signal(signal.SIGKILL)
            output, errors = process.communicate()
        self.assertEqual(errors, b"")
        lines = output.split(b"\n")[:-1]  # the last one may be cut short
        return int(lines[-1]) if lines else 0

    def survives(self, sync: str) -> None:
        rng = random.Random(SEED)
        model, number = Model(), 0
        for kill in range(ROUNDS):
            done = self.killed(sync, rng)
            where = f"kill {kill + 1} of sync={sync}; replay with P2P_SEED={SEED}"
            said: list[str] = []
            if kill == ROUNDS - 1:
                self.assertEqual(check(str(self.path), said.append), SOUND, (said, where))
            storage, loaded = self.opened(sync)
            self.assertTrue(loaded.intact, where)
            self.assertEqual(loaded.boots, 2 * kill + 2)
            reached = int(loaded.meta.get("number", b"0"))
            self.assertGreaterEqual(reached, max(done, number), where)
            for later in range(number + 1, reached + 1):
                for name, *arguments in changes_of(SEED, later):
                    getattr(model, name)(*arguments)
            number = reached
            self.compare(storage, loaded, model, where)
            self.crash(storage)
        self.assertGreater(number, 100)  # or it was killed too early to show anything

    def compare(self, storage: SQLiteStorage, loaded: Any, model: Model, where: str) -> None:
        """The file holds what all the batches that reached it come to."""
        self.assertEqual(loaded.states, model.states, where)
        self.assertEqual(storage.used, model.used, where)
        kept = {
            (space, partition, key): storage.read(space, partition, key)
            for space, partition, key, _, _ in loaded.heads()
        }
        self.assertEqual(kept, model.records, where)

    def test_always(self) -> None:
        self.survives("always")

    def test_interval(self) -> None:
        """The end of the process loses nothing here either."""
        self.survives("interval")

    def test_the_lock_ends_with_the_process(self) -> None:
        """While it runs it is named; when it is killed, nobody has to tidy up."""
        with child(self.path, "always") as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"open\n")
            error = self.assertRaises(StorageInUse, self.storage().open, PumpReactor())
            self.assertEqual(error.pid, process.pid)
        _, loaded = self.opened()
        self.assertEqual(loaded.boots, 2)

    def test_the_changes_say_something(self) -> None:
        """The runs contain all kinds of changes."""
        names = {c[0] for number in range(200) for c in changes_of(SEED, number)}
        public = {name for name in vars(Batch) if not name.startswith("_")}
        self.assertEqual(names, public & set(vars(Model)))

    def test_lost_after_a_kill(self) -> None:
        """The file, its log or both are gone: that is said, and nothing begins anew by itself."""
        rng = random.Random(SEED)
        for lost, found in (
            (("node.sqlite",), "refused"),
            (("node.sqlite", "node.sqlite-wal"), "refused"),
            (("node.sqlite-wal",), "doubted or refused"),
        ):
            self.path = self.folder / "_".join(lost) / "node.sqlite"
            self.killed("always", rng)
            kept = {path.name: path.read_bytes() for path in self.path.parent.iterdir()}
            for name in lost:
                self.path.with_name(name).unlink()
            storage = SQLiteStorage(self.path)
            try:
                loaded = storage.open(self.reactor)
            except StorageCorrupt as error:
                self.assertIn("missing or empty", str(error))
                for name in kept.keys() - set(lost) - {"node.sqlite-lock", "node.sqlite-shm"}:
                    self.assertEqual(self.path.with_name(name).read_bytes(), kept[name])
                continue
            self.assertEqual(found, "doubted or refused")
            self.assertFalse(loaded.intact)
            self.assertIn("the newest writes are gone", loaded.reason)
            self.close(storage)

    def test_refused_after_a_kill(self) -> None:
        """Who was refused, and looked into it before, leaves no doubt behind."""
        self.killed("always", random.Random(SEED))
        for _ in range(2):
            storage = SQLiteStorage(self.path)
            self.assertRaises(StorageMismatch, storage.open, self.reactor, {"number": b"other"})
        said: list[str] = []
        self.assertEqual(check(str(self.path), said.append), SOUND, said)
        storage, loaded = self.opened()
        self.assertEqual((loaded.intact, loaded.reason), (True, ""))
        self.close(storage)

    def test_emptied_after_a_proper_end(self) -> None:
        """An empty file, or none, beside a lock file that knows better is refused."""
        for empty in (True, False):
            self.path = self.folder / f"{empty}" / "node.sqlite"
            storage, _ = self.opened()
            self.close(storage)
            if empty:
                self.path.write_bytes(b"")
            else:
                self.path.unlink()
            error = self.assertRaises(StorageCorrupt, SQLiteStorage(self.path).open, self.reactor)
            self.assertIn("remove the whole folder", str(error))
            self.path.with_name("node.sqlite-lock").unlink()
            self.path.unlink(missing_ok=True)
            storage, loaded = self.opened()
            self.assertEqual((loaded.intact, loaded.boots), (True, 1))
            self.close(storage)
