"""What one member of a group remembers of one partition (floor 0; pure).

The acceptor of CASPaxos, one register per key, inside the epochs of its group (design, "The
table").  It refuses whatever is not of its own epoch, and everything once it is wedged.  It knows
no clock, no peer and no other partition.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from .group import FIRST_EPOCH, Ballot, Base, Config, Epoch, Record, Successor, base_of

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
    :param base: the records that the epoch begins with.
    :param visible: how the keys begin that users see; the others are not counted.
    :param purged: the newest epoch whose base left tombstones out.
    """

    def __init__(
        self,
        config: Config,
        base: Iterable[tuple[bytes, Record]] = (),
        *,
        visible: bytes = b"",
        purged: Epoch = FIRST_EPOCH,
    ) -> None:
        self.config = config
        self.purged = purged
        self.counter = 0
        self.keys = 0  # live keys that users see
        self.tombstones = 0
        self.changed: set[bytes] | None = None  # since copying ahead began
        self._visible = visible
        self._records: dict[bytes, Record] = {}
        self._promises: dict[bytes, Ballot] = {}
        self._sorted: list[bytes] | None = None
        self._wedged: Ballot | None = None
        self._vote: tuple[Ballot, Successor] | None = None
        for key, record in base:
            self._store(key, record)

    def __len__(self) -> int:
        return len(self._records)

    # -- the registers

    def check(self, epoch: Epoch) -> None:
        """Every message passes here first (rule 1).

        :raises WrongEpoch: if it is not of this epoch, or the epoch is wedged.
        """
        if epoch != self.config.epoch:
            raise WrongEpoch(wedged=False)
        if self._wedged is not None:
            raise WrongEpoch(wedged=True)

    def read(self, epoch: Epoch, key: bytes) -> Record | None:
        """The accepted record of a key.

        :raises WrongEpoch: see :meth:`check`.
        """
        self.check(epoch)
        return self._records.get(key)

    def prepare(self, epoch: Epoch, ballot: Ballot, key: bytes) -> Record | None:
        """Promise to accept nothing below `ballot`; the record accepted so far.

        :raises WrongEpoch: see :meth:`check`.
        :raises NotPromised: if a ballot that is as high was promised or accepted.
        """
        self.check(epoch)
        record = self._records.get(key)
        highest = self._highest(key, record)
        if highest is not None and ballot <= highest:
            raise NotPromised(highest)
        self._promises[key] = ballot
        self.counter = max(self.counter, ballot.counter)
        return record

    def accept(self, epoch: Epoch, key: bytes, record: Record) -> None:
        """Accept a record at its ballot.

        :raises WrongEpoch: see :meth:`check`.
        :raises NotPromised: if a higher ballot was promised or accepted.
        """
        self.check(epoch)
        highest = self._highest(key, self._records.get(key))
        if highest is not None and record.ballot < highest:
            raise NotPromised(highest)
        self._promises.pop(key, None)
        self.counter = max(self.counter, record.ballot.counter)
        self._store(key, record)
        if self.changed is not None:
            self.changed.add(key)

    def _highest(self, key: bytes, record: Record | None) -> Ballot | None:
        promised = self._promises.get(key)  # gone once it, or a higher ballot, was accepted
        if promised is not None:
            return promised
        return record.ballot if record is not None else None

    def _store(self, key: bytes, record: Record) -> None:
        old = self._records.get(key)
        if old is None:
            self._sorted = None
        elif old.value is None:
            self.tombstones -= 1
        elif key.startswith(self._visible):
            self.keys -= 1
        if record.value is None:
            self.tombstones += 1
        elif key.startswith(self._visible):
            self.keys += 1
        self._records[key] = record

    # -- the epoch's own Paxos

    @property
    def wedged(self) -> bool:
        """True once the epoch has stopped; it never starts again."""
        return self._wedged is not None

    @property
    def vote(self) -> Successor | None:
        """What this member accepted as the next epoch."""
        return self._vote[1] if self._vote else None

    def wedge(self, epoch: Epoch, ballot: Ballot) -> Successor | None:
        """WEDGE: stop serving for good and promise `ballot`; the vote given so far.

        :raises WrongEpoch: for another epoch.
        :raises NotPromised: if a higher ballot was promised.
        """
        if epoch != self.config.epoch:
            raise WrongEpoch(wedged=False)
        if self._wedged is not None and ballot < self._wedged:
            raise NotPromised(self._wedged)
        self._wedged = ballot
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

    # -- the records as a whole

    def live_records(self) -> Iterator[tuple[bytes, Record]]:
        """All records but the tombstones: the base of a next epoch (rule 11)."""
        return ((key, rec) for key, rec in self._records.items() if rec.value is not None)

    def successor(self, config: Config) -> Successor:
        """What to decide if `config` is to follow with the records as they are now."""
        purged = config.epoch if self.tombstones else self.purged
        return Successor(config, self.base(), purged)

    def base(self) -> Base:
        """The identity of :meth:`live_records`."""
        return base_of(self.live_records())

    def get(self, key: bytes) -> Record | None:
        """The record of a key, whatever the epoch: for copying, never for serving."""
        return self._records.get(key)

    def page(self, epoch: Epoch, after: bytes | None, prefix: bytes) -> Iterator[bytes]:
        """The live keys after `after` that begin with `prefix`, in order.

        :raises WrongEpoch: see :meth:`check`.
        """
        self.check(epoch)
        if self._sorted is None:
            self._sorted = sorted(self._records)
        keys = self._sorted
        if after is None or after < prefix:
            start = bisect_left(keys, prefix)
        else:
            start = bisect_right(keys, after)
        return self._live(keys, start, prefix)

    def _live(self, keys: list[bytes], start: int, prefix: bytes) -> Iterator[bytes]:
        for index in range(start, len(keys)):
            key = keys[index]
            if not key.startswith(prefix):
                return
            if self._records[key].value is not None:
                yield key
