"""What one node keeps of the table: groups, bases and the directory (floor 2).

Owns how partitions come, stop and go, and sees to it that the journal hears of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from ..base import Peer
from ..errors import OperationTimeout, StorageError
from ..ring.circle import partition_count
from ..settings import Settings
from ..storage.interface import Storage
from ..table.acceptor import Acceptor
from ..table.counters import Counters
from ..table.directory import Directory
from ..table.group import MOST_STAMP, Ballot, Config, Successor
from ..table.records import MemoryRecords, Records
from .diskrecords import DiskRecords
from .drafts import Draft
from .state import USER, Staged

if TYPE_CHECKING:
    from .chronicle import Chronicle
    from .journal import Journal

__all__ = ["Kept"]

#: Seconds that a base is kept for those who still have to open with it.
_RETIRED = 10.0
#: Seconds between two lines about what cannot be.
_COMPLAIN_EVERY = 60.0
#: Bytes that wait for the disk, after which others are not asked for more.
_MOST_BACKLOG = 8 * 1024 * 1024


class Kept:
    """The part of a node's state that outlives the process, if there is a journal."""

    log = Logger()
    # What the rest of the node's state lends.
    clock: Any
    settings: Settings
    instance: bytes
    valid: Callable[..., bool]
    remember: Callable[[Peer], None]
    joined_changed: Callable[[], None]
    chronicle: Chronicle
    group_changed: Callable[[Config], None]

    @property
    def partitions(self) -> int:
        """How many partitions the circle has."""
        return partition_count(self.settings.k)

    def __init__(self) -> None:
        self.journal: Journal | None = None  # Node; None: nothing outlives the process
        self.storage: Storage | None = None  # Node; where the journal writes
        self.opened = 0  # serve(): epochs that began here
        self.directory = Directory()  # learn(), forget()
        self.acceptors: dict[int, Acceptor] = {}  # serve(), learn(), release(), forget()
        self.staged: dict[int, Staged] = {}  # hold(), let_go(), learn(), serve(), forget()
        #: bases of epochs that this node has no part in, and until when it keeps them for others
        self.retired: dict[int, tuple[float, Staged]] = {}  # learn(), Maintenance
        self.stamp = 0  # hear(): the Lamport clock of writes
        self.counters = Counters()  # Rounds: of ballots for keys
        self.ends = Counters()  # Drive: of ballots for the ends of epochs
        self._complain_at = 0.0
        self.discarded_keys = 0  # learn(), Maintenance: not told yet

    # -- what is on the disk

    def holds(self, partition: int) -> bool:
        """Is something of this partition not kept yet, and so not to be shown (rule 13)?"""
        journal = self.journal
        return journal is not None and journal.behind and journal.holds(partition)

    def when_kept(self, call: Callable[[], None], partitions: Iterable[int] | None = None) -> None:
        """Call once what has changed by now is kept; at once if it is.  See :class:`.Journal`."""
        if self.journal is None:
            call()
        else:
            self.journal.when_kept(call, partitions)

    def kept(self) -> Deferred[None]:
        """Fires once what has changed by now is kept.

        :returns: fails with `StorageError` if it cannot be, with `OperationTimeout` if it takes too
            long.
        """
        if self.journal is None or not self.journal.behind:
            return succeed(None)
        seconds = self.settings.operation_timeout

        def late(_: object, __: float) -> None:
            raise OperationTimeout(f"the disk did not take what was written within {seconds:g} s")

        return self.journal.kept().addTimeout(seconds, self.clock, late)

    def nearly_kept(self) -> Deferred[None]:
        """Fires when so much is on the disk that more may be taken in.  Fails as :meth:`kept`."""
        if self.journal is None or self.journal.backlog < _MOST_BACKLOG:
            return succeed(None)
        return self.kept()

    def renamed(self) -> None:
        """The node, its ring, or the peers that it knows are others now."""
        if self.journal is not None:
            self.journal.renamed()

    @property
    def full(self) -> bool:
        """Is this node's quota of bytes used up?"""
        return self.journal is not None and self.journal.full

    # -- the directory

    def learn(self, config: Config) -> bool:
        """Take a configuration if it is news; gives up what it takes from this node."""
        sane = config.partition < self.partitions and config.epoch.plausible()
        if not sane or not self.valid(*config.members):
            if self.clock.seconds() >= self._complain_at:
                self._complain_at = self.clock.seconds() + _COMPLAIN_EVERY
                self.log.warn(
                    "A configuration that cannot be was ignored: {config}.", config=config
                )
            return False
        known = self.directory.get(config.partition)
        if not self.directory.learn(config):
            return False
        if known is not None and config.members[0].instance == self.instance:
            self.chronicle.regrouped(known, config)  # one of its members tells of it
        for peer in config.members:
            self.remember(peer)
        partition = config.partition
        if self.journal is not None:
            self.journal.learned(partition)
        mine = self.acceptors.get(partition)
        if mine is not None and mine.config.epoch < config.epoch:
            self._outdated(mine, config)
        staged = self.staged.get(partition)
        if staged is not None and not config.has(self.instance):
            if staged.epoch.following() <= config.epoch:
                self.let_go(partition)
            if staged.epoch.following() == config.epoch and staged.successor is not None:
                until = self.clock.seconds() + _RETIRED
                self.retired[partition] = (until, staged)
        if config.has(self.instance):
            self.joined_changed()
        self.group_changed(config)
        return True

    def _outdated(self, mine: Acceptor, config: Config) -> None:
        """A newer epoch of a partition is known than the one that is open here.

        The one before it only stops, and is kept with its vote: as long as no quorum is known to
        have opened the next one, the votes tell which base was agreed (see :meth:`release`).
        """
        epoch, partition = mine.config.epoch, config.partition
        if epoch.following() == config.epoch:
            if not mine.wedged:
                mine.wedge(epoch, Ballot(epoch, 0, b""))
            return
        self._drop(partition)
        if config.has(self.instance):  # a beginning for what is to be caught up with
            if partition not in self.staged:
                with suppress(StorageError):  # then there is no beginning
                    self.hold(partition, Staged(epoch, mine.records.live_draft()))
        elif epoch.era_name < config.epoch.era_name:
            self.discarded_keys += mine.keys

    def release(self, config: Config) -> None:
        """An epoch is open at a quorum of its members: the one before is not needed any more."""
        mine = self.acceptors.get(config.partition)
        if mine is not None and mine.config.epoch < config.epoch and not config.has(self.instance):
            self._drop(config.partition)

    def _drop(self, partition: int) -> None:
        acceptor = self.acceptors.pop(partition)
        if self.journal is not None:
            self.journal.dropped(acceptor)

    def hold(self, partition: int, staged: Staged) -> None:
        """Keep records ready for an epoch that this node may open.

        :raises StorageError: if they are in a storage that has failed.
        """
        self._check(staged.records)
        before = self.staged.get(partition)
        if self.journal is not None:
            if staged.successor is not None:
                self.journal.held(partition, staged.records)
            elif before is not None and before.successor is not None:
                self.journal.let_go(partition)
        self.staged[partition] = staged

    def _check(self, records: Records) -> None:
        if self.journal is None and isinstance(records, DiskRecords):
            raise StorageError("these records are in a storage that has failed")

    def let_go(self, partition: int) -> None:
        """Keep nothing ready any more for this partition."""
        staged = self.staged.pop(partition, None)
        if self.journal is not None and staged is not None and staged.successor is not None:
            self.journal.let_go(partition)

    def forget_directory(self) -> None:
        """Know no group any more: the node is in another ring, or in none."""
        known = [config.partition for config in self.directory]
        self.directory.clear()
        if self.journal is not None:
            for partition in known:
                self.journal.learned(partition)

    def forget(self) -> None:
        """Keep nothing of any partition any more."""
        for partition in list(self.staged):
            self.let_go(partition)
        for partition in list(self.acceptors):
            self._drop(partition)
        self.retired.clear()

    def blank(self, partition: int) -> Records:
        """No records of a partition, as a beginning.

        :raises StorageError: if there is no room for them.
        """
        if self.journal is not None:
            return self.journal.blank(partition)
        return MemoryRecords(visible=USER)

    def serve(self, successor: Successor, records: Records) -> None:
        """Open an epoch: this node keeps the partition from now on.

        :raises StorageError: if a record cannot be read; the storage has failed then.
        """
        self._check(records)
        config, purged = successor.config, successor.purged
        self.learn(config)
        staged = self.staged.get(config.partition)
        if staged is not None and staged.epoch < config.epoch:
            self.let_go(config.partition)  # else a base for a later epoch may have been decided
        before = self.acceptors.get(config.partition)
        if before is not None and not before.wedged:  # who still has it in hand is refused
            before.wedge(before.config.epoch, Ballot(before.config.epoch, 0, b""))
        records = self._taken(config.partition, records)
        self.acceptors[config.partition] = acceptor = Acceptor(config, records, purged=purged)
        self.hear(acceptor.stamp)
        self.opened += 1
        if self.journal is not None:
            self.journal.opened(acceptor, before)

    def _taken(self, partition: int, records: Records) -> Records:
        """The records, for an acceptor that may change them."""
        if not isinstance(records, DiskRecords):
            return records.draft()
        taken = records.under if isinstance(records, Draft) else records
        retired = self.retired.get(partition)
        others = [self.staged.get(partition), retired[1] if retired is not None else None]
        for other in others:  # what these hold stays as it is
            if other is not None and other.records is taken:
                other.records = taken.draft()
                if other is self.staged.get(partition) and other.successor is not None:
                    assert self.journal is not None
                    self.journal.held(partition, other.records)
        if isinstance(records, Draft):
            for key, record in list(records.changes.items()):
                if record is None:
                    taken.drop(key)
                else:
                    taken.put(key, record)
        return taken

    def behind(self) -> list[Config]:
        """The configurations that this node is a member of, and has not opened."""
        return [
            config
            for config in self.directory
            if config.has(self.instance)
            and (
                (mine := self.acceptors.get(config.partition)) is None
                or mine.config.epoch < config.epoch
            )
        ]

    # -- clocks of the table

    def hear(self, stamp: int) -> None:
        """A stamp was heard of: what is written later gets a higher one."""
        if stamp > self.stamp:
            self.stamp = min(stamp, MOST_STAMP)
