"""What one member of a group remembers of one partition (floor 0; pure).

The acceptor of CASPaxos, one register per key, inside the epochs of its group (design, "The
table").  It refuses whatever is not of its own epoch, and everything once it is wedged.  It knows
no clock, no peer and no other partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from .group import FIRST_EPOCH, Ballot, Config, Epoch, Record, Successor
from .records import MemoryRecords, Records

__all__ = ["Acceptor", "NotPromised", "WrongEpoch"]


class WrongEpoch(Exception):
    """The message is of another epoch, or this one is wedged.

    :ivar wedged: the epoch was right, but it has stopped; a next one is on its way.
    """

    def __init__(self, *, wedged: bool) -> None:
        super().__init__("wedged" if wedged else "another epoch")
        self.wedged = wedged


class NotPromised(Exception):
    """A higher ballot was promised.

    :ivar promised: that ballot.
    """

    def __init__(self, promised: Ballot) -> None:
        super().__init__(f"promised {promised}")
        self.promised = promised


class Acceptor:
    """One partition in one epoch.

    :param config: the group and its epoch.
    :param base: the records that the epoch begins with; they are the acceptor's from now on.
    :param visible: if `base` is a mere list: how the keys begin that users see.
    :param purged: the newest epoch whose base left tombstones out.
    :ivar records: all of them, tombstones too; only the acceptor changes them.
    :ivar changed: hears of what changes beside the records: the key whose promise it is, or None
        for what belongs to the epoch; for who keeps it all on a disk.
    :ivar accepted: hears of every record that is accepted; for who watches.
    """

    changed: Callable[[bytes | None], None] | None = None
    accepted: Callable[[bytes, Record], None] | None = None

    def __init__(
        self,
        config: Config,
        base: Records | Iterable[tuple[bytes, Record]] = (),
        *,
        visible: bytes = b"",
        purged: Epoch = FIRST_EPOCH,
    ) -> None:
        self.config = config
        self.purged = purged
        self.counter = 0
        if not isinstance(base, Records):
            base = MemoryRecords(dict(base), visible=visible)
        self.records = base
        self.get = base.get  # whatever the epoch: for copying, never for serving
        self._promises: dict[bytes, Ballot] = {}
        self._first = config.first_ballot
        self._wedged: Ballot | None = None
        self._vote: tuple[Ballot, Successor] | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def keys(self) -> int:
        """How many live keys users see."""
        return self.records.users

    @property
    def tombstones(self) -> int:
        """How many records are tombstones."""
        return self.records.tombstones

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return self.records.size

    @property
    def stamp(self) -> int:
        """The stamp of the newest write here."""
        return self.records.stamp

    def digests(self, buckets: int = 0) -> bytes:
        """See :meth:`.Records.digests`."""
        return self.records.digests(buckets)

    # -- the registers

    def check(self, epoch: Epoch) -> None:
        """Every message passes here first (rule 1).

        :raises WrongEpoch: if it is not of this epoch, or the epoch is wedged.
        """
        if epoch != self.config.epoch:
            raise WrongEpoch(wedged=False)
        if self._wedged is not None:
            raise WrongEpoch(wedged=True)

    def promised(self, key: bytes) -> Ballot:
        """The lowest ballot that would be accepted for a key."""
        promised = self._promises.get(key)  # gone once it, or a higher ballot, was accepted
        if promised is not None:
            return promised
        record = self.get(key)
        if record is not None and record.ballot.epoch == self.config.epoch:
            return record.ballot.next()
        return self._first

    def steady(self, key: bytes, instance: bytes) -> Ballot | None:
        """The ballot at which this instance may ACCEPT without PREPARE, if this member knows one.

        It was promised here; whoever uses it has to know that a quorum promised it, too: because
        a quorum acknowledged the ballot before it, or because it is the first of the epoch (rule
        12).
        """
        ballot = self.promised(key)
        return ballot if ballot.instance == instance and key not in self._promises else None

    def read(self, epoch: Epoch, key: bytes) -> Record | None:
        """The accepted record of a key.

        :raises WrongEpoch: see :meth:`check`.
        """
        self.check(epoch)
        return self.get(key)

    def prepare(self, epoch: Epoch, ballot: Ballot, key: bytes) -> Record | None:
        """Promise to accept nothing below `ballot`; the record accepted so far.

        :raises WrongEpoch: see :meth:`check`.
        :raises NotPromised: if a ballot that is as high was promised or accepted.
        """
        self.check(epoch)
        promised = self.promised(key)
        if ballot <= promised:
            raise NotPromised(promised)
        self._promises[key] = ballot
        self.counter = max(self.counter, ballot.counter)
        if self.changed is not None:
            self.changed(key)
        return self.get(key)

    def accept(self, epoch: Epoch, key: bytes, record: Record) -> None:
        """Accept a record at its ballot, and promise the ballot after it in the same step.

        :raises WrongEpoch: see :meth:`check`.
        :raises NotPromised: if a higher ballot was promised or accepted.
        """
        self.check(epoch)
        ballot = record.ballot
        old = self.get(key)
        if old is not None and old.ballot == ballot:
            return  # it was sent twice
        promised = self.promised(key)
        if ballot < promised:
            raise NotPromised(promised)
        if self._promises:
            self._promises.pop(key, None)
        self.accept_steady(key, record)

    def accept_steady(self, key: bytes, record: Record) -> None:
        """Accept a record at the ballot that :meth:`steady` told just now."""
        counter = record.ballot.counter
        if counter > self.counter:
            self.counter = counter
        self._store(key, record)

    def _store(self, key: bytes, record: Record) -> None:
        self.records.put(key, record)
        if self.accepted is not None:
            self.accepted(key, record)

    # -- the epoch's own Paxos

    @property
    def wedged(self) -> bool:
        """True once the epoch has stopped; it never starts again."""
        return self._wedged is not None

    @property
    def vote(self) -> tuple[Ballot, Successor] | None:
        """What this member accepted as the next epoch, and at which ballot."""
        return self._vote

    @property
    def wedge_ballot(self) -> Ballot | None:
        """The ballot that was promised when the epoch stopped, None while it serves."""
        return self._wedged

    def wedge(self, epoch: Epoch, ballot: Ballot) -> tuple[Ballot, Successor] | None:
        """WEDGE: stop serving for good and promise `ballot`; the vote given so far.

        :raises WrongEpoch: for another epoch.
        :raises NotPromised: if a higher ballot was promised.
        """
        if epoch != self.config.epoch:
            raise WrongEpoch(wedged=False)
        if self._wedged is not None and ballot < self._wedged:
            raise NotPromised(self._wedged)
        self._wedged = ballot
        if self.changed is not None:
            self.changed(None)
        return self.vote

    def choose(self, epoch: Epoch, ballot: Ballot, successor: Successor) -> None:
        """ACCEPT of the epoch's Paxos: vote for the next members and their base.

        :raises WrongEpoch: for another epoch.
        :raises NotPromised: if the epoch is not wedged or a higher ballot was promised.
        """
        if epoch != self.config.epoch:
            raise WrongEpoch(wedged=False)
        if self._wedged is None or ballot < self._wedged:
            raise NotPromised(self._wedged or Ballot(epoch, 0, b""))
        self._wedged = ballot
        self._vote = (ballot, successor)
        if self.changed is not None:
            self.changed(None)

    # -- what outlives the process

    def promise(self, key: bytes) -> Ballot | None:
        """The promise for a key that a PREPARE made and no ACCEPT followed."""
        return self._promises.get(key)

    @property
    def promises(self) -> Mapping[bytes, Ballot]:
        """All of :meth:`promise`."""
        return MappingProxyType(self._promises)

    def restore(
        self,
        promises: Mapping[bytes, Ballot],
        wedged: Ballot | None,
        vote: tuple[Ballot, Successor] | None,
        counter: int,
    ) -> None:
        """Go on as the acceptor that had these; its records are the base already (rule 6).

        :param counter: the highest of its records' ballots in this epoch.
        """
        self._promises.update(promises)
        self._wedged, self._vote = wedged, vote
        self.counter = max([counter, *(ballot.counter for ballot in promises.values())])

    # -- the records as a whole

    def page(
        self, epoch: Epoch, after: bytes | None, prefix: bytes
    ) -> Iterator[tuple[bytes, Record]]:
        """The records after the key `after` that begin with `prefix`, in order, tombstones too.

        :raises WrongEpoch: see :meth:`check`.
        """
        self.check(epoch)
        return self.records.after(after, prefix)
