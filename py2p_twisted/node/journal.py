"""What this node must not forget, on its way to the disk (floor 2).

Owns which changes are not kept yet, and who waits for that: nothing is shown to anybody before it
is on the disk (rule 13).  The changes of one turn of the reactor travel in one batch; what changed
twice meanwhile is written once.  Nobody waits for the disk in the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import NotConnected, StorageCorrupt, StorageError
from ..storage.interface import Batch, Space, Storage
from ..table.acceptor import Acceptor
from ..table.group import Record
from ..table.values import plain
from .core import Core
from .memory import encode_head, encode_meta, encode_state, has_ballot, staged_difference
from .values import Cache, Name, in_memory

__all__ = ["Journal"]


class _Changes:
    """What is to be written of one partition.

    :ivar anew: all of it: what the storage has of it is dropped first.
    :ivar keys: of the records and promises that are other ones now.
    :ivar staged: is the base that is held ready another one?
    """

    __slots__ = ("anew", "keys", "staged")

    def __init__(self) -> None:
        self.anew = False
        self.keys: set[bytes] = set()
        self.staged = False


class _Written:
    """The records of one batch whose values need not stay in memory.

    :param least: bytes of the shortest such value.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._current: list[tuple[Acceptor, bytes, Record]] = []
        self._staged: list[tuple[int, bytes, Record]] = []

    def current(
        self, acceptor: Acceptor | None, key: bytes, record: Record | None
    ) -> Record | None:
        """A record of an acceptor is written: it is returned with its value in memory."""
        if acceptor is None or record is None or record.value is None:
            return record
        if len(record.value) >= self._least:
            before, record = record, in_memory(record)
            acceptor.records.stand_in(key, before, record)
            self._current.append((acceptor, key, record))
        return record

    def staged(self, partition: int, key: bytes, record: Record) -> None:
        """A record of a base is written."""
        value: object = record.value
        if isinstance(value, bytes) and len(value) >= self._least:
            self._staged.append((partition, key, record))

    def let_go(self, core: Core, cache: Cache) -> None:
        """All is on the disk."""
        for acceptor, key, record in self._current:
            stored = cache.stored(acceptor.config.partition, key, record)
            acceptor.records.stand_in(key, record, stored)
        for partition, key, record in self._staged:
            staged = core.staged.get(partition)
            if staged is not None:
                staged.records.stand_in(key, record, cache.stored(partition, key, record))


class Journal:
    """Brings a node's memory to its storage.

    :param broken: hears why nothing is kept any more, once.
    :ivar behind: is anything not kept yet?
    """

    log = Logger()

    def __init__(self, core: Core, storage: Storage, broken: Callable[[Failure], None]) -> None:
        self._core = core
        self._storage = storage
        self._broken = broken
        self.behind = False
        self.stopped = False
        self._changes: dict[int, _Changes] = {}
        self._meta = False
        self._number = 1  # of the batch that is being collected
        self._kept = 0  # the last batch that is on the disk
        self._changed: dict[int, int] = {}  # partition -> the last batch that changes it
        self._waiting: dict[int, list[Callable[[], None]]] = {}
        self._deferreds: set[Deferred[None]] = set()  # fired, or failed, before it ends
        self._call: IDelayedCall | None = None
        self.cache = Cache(core.settings.value_cache, self._read)

    # -- what changed

    def watch(self, acceptor: Acceptor) -> None:
        """Hear of what an acceptor promises and accepts from now on."""
        partition = acceptor.config.partition

        def changed(key: bytes | None) -> None:
            changes = self._of(partition)
            if key is not None:
                changes.keys.add(key)

        acceptor.changed = changed

    def opened(self, acceptor: Acceptor, before: Acceptor | None) -> None:
        """An epoch was opened, and takes the place of that acceptor."""
        self.watch(acceptor)
        changes = self._of(acceptor.config.partition)
        changes.staged = True
        records = acceptor.records
        if before is None:
            changes.anew = True
            changes.keys = set(records)
            return
        before.changed = None
        old = before.records
        changes.keys.update(
            key
            for key, record in records.items()
            if (there := old.get(key)) is not record
            and (there is None or there.ballot != record.ballot)
        )
        changes.keys.update(key for key in old if key not in records)
        changes.keys.update(before.promises)

    def dropped(self, acceptor: Acceptor) -> None:
        """A partition is not kept any more."""
        acceptor.changed = None
        changes = self._of(acceptor.config.partition)
        changes.anew = changes.staged = True
        changes.keys.clear()

    def staged(self, partition: int) -> None:
        """Another base is held ready, or none."""
        self._of(partition).staged = True

    def learned(self, partition: int) -> None:
        """A newer configuration is known."""
        self._of(partition)

    def renamed(self) -> None:
        """What names the node, its ring and its peers is something else now."""
        self._meta = True
        self._soon()

    def _of(self, partition: int) -> _Changes:
        changes = self._changes.get(partition)
        if changes is None:
            changes = self._changes[partition] = _Changes()
            self._changed[partition] = self._number
            self._soon()
        return changes

    def _soon(self) -> None:
        self.behind = True
        if self._call is None and not self.stopped:
            self._call = self._core.clock.callLater(0, self._write)

    # -- writing it

    def _write(self) -> None:
        self._call = None
        if not self._changes and not self._meta:
            return
        batch = Batch()
        written = _Written(self._core.settings.stored_from)
        try:
            for partition, changes in self._changes.items():
                self._put(batch, partition, changes, written)
        except StorageError:
            self._fail(Failure())
            return
        if self._meta:
            for name, content in encode_meta(self._core).items():
                batch.set_meta(name, content)
        self._changes.clear()
        self._meta = False
        number, self._number = self._number, self._number + 1
        self._storage.commit(batch, lambda failure: self._done(number, written, failure))

    def _put(self, batch: Batch, partition: int, changes: _Changes, written: _Written) -> None:
        acceptor = self._core.acceptors.get(partition)
        if changes.anew:
            batch.clear(Space.CURRENT, partition)
        for key in changes.keys:
            record = acceptor.get(key) if acceptor is not None else None
            promise = acceptor.promise(key) if acceptor is not None else None
            if record is None and promise is None:
                batch.drop(Space.CURRENT, partition, key)
            else:
                record = written.current(acceptor, key, record)
                value = None if record is None else record.value
                batch.put(Space.CURRENT, partition, key, encode_head(record, promise), value)
        if changes.staged:
            batch.clear(Space.STAGED, partition)
            for key, head, record in staged_difference(self._core, partition):
                value = None if record is None else plain(record.value)
                batch.put(Space.STAGED, partition, key, head, value)
                if record is not None:
                    written.staged(partition, key, record)
        batch.set_state(partition, encode_state(self._core, partition))

    def _done(self, number: int, written: _Written, failure: Failure | None) -> None:
        if failure is not None:
            self._fail(failure)
            return
        self._kept = number
        written.let_go(self._core, self.cache)
        if number == self._number - 1 and not self._changes and not self._meta:
            self.behind = False
            self._changed.clear()
        for due in [at for at in self._waiting if at <= number]:
            for call in self._waiting.pop(due):
                call()

    @property
    def full(self) -> bool:
        """Is the storage's quota used up?"""
        storage = self._storage
        return storage.quota is not None and storage.used + storage.behind >= storage.quota

    def _fail(self, failure: Failure) -> None:
        if not self.stopped:
            self._end(failure)
            self._broken(failure)

    # -- reading it again

    def _read(self, name: Name) -> bytes:
        """A value that stands in a record; it may have moved with its base meanwhile."""
        partition, key, ballot = name
        try:
            for space in (Space.CURRENT, Space.STAGED):
                kept = self._storage.read(space, partition, key)
                if kept is not None and kept.value is not None and has_ballot(kept.head, ballot):
                    return kept.value
        except StorageError:
            self._fail(Failure())
            raise
        acceptor = self._core.acceptors.get(partition)
        record = acceptor.get(key) if acceptor is not None else None
        error = StorageCorrupt(f"a value of partition {partition} is not on the disk any more")
        if record is not None and record.ballot == ballot:
            self._fail(Failure(error))
        raise error

    # -- waiting for it

    def holds(self, partition: int) -> bool:
        """Is something of this partition not kept yet?"""
        return self._changed.get(partition, 0) > self._kept

    def when_kept(self, call: Callable[[], None], partitions: Iterable[int] | None = None) -> None:
        """Call once all that has changed by now, or changed in these partitions, is kept.

        It is called at once if that is so already, and never if the storage fails.
        """
        if not self.behind:
            call()
            return
        if partitions is None:
            number = self._number if self._changes or self._meta else self._number - 1
        else:
            number = max((self._changed.get(partition, 0) for partition in partitions), default=0)
        if number <= self._kept:
            call()
        elif not self.stopped:
            self._waiting.setdefault(number, []).append(call)

    def kept(self) -> Deferred[None]:
        """Fires as :meth:`when_kept` calls."""
        if not self.behind:
            return succeed(None)
        if self.stopped:
            return fail(NotConnected("this node was stopped"))
        waiting: Deferred[None] = Deferred(self._deferreds.discard)
        self._deferreds.add(waiting)

        def fire() -> None:
            if waiting in self._deferreds:
                self._deferreds.discard(waiting)
                waiting.callback(None)

        self.when_kept(fire)
        return waiting

    def _end(self, failure: Failure) -> None:
        self.stopped = True
        self._waiting.clear()
        while self._deferreds:
            self._deferreds.pop().errback(failure)

    def close(self, *, clean: bool = True) -> Deferred[None]:
        """Keep what there is, and let go of the storage."""
        if self._call is not None:
            self._call.cancel()
            self._write()
        self._end(Failure(NotConnected("this node was stopped")))
        return self._storage.close(clean)
