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

from ..errors import NotConnected, StorageError
from ..storage.interface import Batch, Storage
from ..table.acceptor import Acceptor
from ..table.group import Record
from ..table.records import Records
from .core import USER, Core
from .diskrecords import DiskRecords
from .drafts import Draft
from .memory import encode_meta, encode_state
from .shelf import Shelf
from .stored import StoredRecords

__all__ = ["Journal"]


class _Changes:
    """What is to be written of one partition, beside its state.

    :ivar keys: whose records and promises are other ones now, in each set of records.
    """

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: dict[DiskRecords, set[bytes]] = {}

    def add(self, records: DiskRecords, keys: Iterable[bytes]) -> None:
        """The records of these keys changed."""
        self.keys.setdefault(records, set()).update(keys)


#: What one batch brings to the disk.
_Written = list[tuple[DiskRecords, bytes, Record | None]]


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
        settings = core.settings
        self.shelf = Shelf(storage, settings.stored_from, settings.cache)

    # -- what changed

    def begin(self) -> None:
        """The node is who it was: keep what changes from now on."""
        self.shelf.changed = self._changed_record
        self.shelf.failed = self._fail
        for acceptor in self._core.acceptors.values():
            self._watch(acceptor)
        self.tidy()

    def tidy(self) -> None:
        """Clear what nobody uses any more; nobody waits for that."""
        if self.shelf.rooms.left and self._call is None and not self.stopped:
            self._call = self._core.clock.callLater(0, self._write)

    def _changed_record(self, records: DiskRecords, key: bytes) -> None:
        room = records.room
        if room is not None:
            changes = self._of(room.partition)
            keys = changes.keys.get(records)
            if keys is None:
                keys = changes.keys[records] = set()
            keys.add(key)

    def _watch(self, acceptor: Acceptor) -> None:
        """Hear of an acceptor's promises from now on."""
        partition, records = acceptor.config.partition, acceptor.records
        assert isinstance(records, StoredRecords)

        def changed(key: bytes | None) -> None:
            if key is None:
                self._of(partition)
            else:
                self._changed_record(records, key)

        acceptor.changed = changed

    def opened(self, acceptor: Acceptor, before: Acceptor | None) -> None:
        """An epoch was opened, and takes the place of that acceptor."""
        self._watch(acceptor)
        self._of(acceptor.config.partition)
        if before is not None:
            before.changed = None
            records = acceptor.records
            if before.records is records and isinstance(records, StoredRecords):
                for key in before.promises:  # they are over
                    self._changed_record(records, key)

    def dropped(self, acceptor: Acceptor) -> None:
        """A partition is not kept any more."""
        acceptor.changed = None
        self._of(acceptor.config.partition)

    def blank(self, partition: int) -> StoredRecords:
        """No records, and room for some.

        :raises StorageError: if there is none.
        """
        return StoredRecords(self.shelf, self.shelf.rooms.take(partition), USER)

    def held(self, partition: int, records: Records) -> None:
        """A base is held ready: these records.

        :raises StorageError: if there is no room for it.
        """
        if isinstance(records, Draft) and records.room is None:
            records.write(self.shelf.rooms.take(partition))
        self._of(partition)

    def let_go(self, partition: int) -> None:
        """No base is held ready any more."""
        self._of(partition)

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
        rooms = self.shelf.rooms
        if not self._changes and not self._meta and not rooms.left:
            return
        batch = Batch()
        written: _Written = []
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
        left = [rooms.left.popleft() for _ in range(len(rooms.left))]
        for partition, space in left:
            batch.clear(space, partition)
        number, self._number = self._number, self._number + 1
        self._storage.commit(batch, lambda failure: self._done(number, written, left, failure))

    def _put(self, batch: Batch, partition: int, changes: _Changes, written: _Written) -> None:
        acceptor = self._core.acceptors.get(partition)
        for records, keys in changes.keys.items():
            room = records.room
            assert room is not None
            serves = acceptor is not None and acceptor.records is records
            for key in keys:
                promise = acceptor.promise(key) if serves and acceptor is not None else None
                row, record = records.row(key, promise)
                if row is None:
                    batch.drop(room.space, partition, key)
                else:
                    batch.put(room.space, partition, key, *row)
                written.append((records, key, record))
        batch.set_state(partition, encode_state(self._core, partition))

    def _done(
        self,
        number: int,
        written: _Written,
        left: list[tuple[int, int]],
        failure: Failure | None,
    ) -> None:
        if failure is not None:
            self._fail(failure)
            return
        self._kept = number
        for records, key, record in written:
            records.settled(key, record)
        for partition, space in left:
            self.shelf.rooms.cleared(partition, space)
        if number == self._number - 1 and not self._changes and not self._meta:
            self.behind = False
            self._changed.clear()
        for due in [at for at in self._waiting if at <= number]:
            for call in self._waiting.pop(due):
                call()

    @property
    def backlog(self) -> int:
        """Bytes that the storage was given and has not kept yet."""
        return self._storage.behind

    @property
    def full(self) -> bool:
        """Is the storage's quota used up?"""
        storage = self._storage
        return storage.quota is not None and storage.used + storage.behind >= storage.quota

    def _fail(self, failure: Failure) -> None:
        if not self.stopped:
            self._end(failure)
            self._broken(failure)

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
