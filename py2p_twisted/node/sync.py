"""The same records at two members: one exchange of digests for all who copy (floor 2).

Owns both sides of it.  Serves copying ahead, the bases of next epochs, catching up, and the check
that runs in the background.  Who may serve what it got is not decided here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ..base import Peer
from ..table.digest import (
    DIGEST_BYTES,
    MOST_BUCKETS,
    PER_BUCKET,
    combined,
)
from ..table.group import Epoch, Record
from ..table.records import Records
from ..wire.messages import (
    Declined,
    Difference,
    Differences,
    Differing,
    Digests,
    GetDifference,
    GetDigests,
    SomeDigests,
    Source,
)
from .core import Core
from .pulls import RECORD_BYTES, Copy, Mode, Pull, Target, Want
from .values import in_memory

__all__ = ["Copy", "Mode", "Sync", "Target", "Want"]

#: Seconds that a peer may take for one answer.
_PATIENCE = 5.0
#: Partitions in one question.
_MOST_PARTS = 256
#: About what an empty part takes in a message.
_PART_BYTES = 16
#: Records of a partition at which one does not look together with those of another.
_MANY = 2000


class Sync:
    """Tells peers what is kept here, and pulls what they keep."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.pulled = 0  # records that came from peers

    # -- what others pull

    def _records(
        self, partition: int, epoch: Epoch, source: Source
    ) -> tuple[Records, Epoch] | None:
        """The records that are meant, and what was purged, if they are here."""
        core = self._core
        if source is Source.EPOCH:
            acceptor = core.acceptors.get(partition)
            if acceptor is None or acceptor.config.epoch != epoch:
                return None
            return acceptor.records, acceptor.purged
        staged = core.staged.get(partition)
        if staged is None or staged.successor is None or staged.epoch != epoch:
            staged = core.retired[partition][1] if partition in core.retired else None
        if staged is None or staged.successor is None or staged.epoch != epoch:
            return None
        return staged.records, staged.successor.purged

    def answer_digests(self, request: GetDigests) -> Digests | Declined:
        """A peer compares; as many parts as fit one message are answered."""
        if not self._core.member:  # it cannot tell what it had
            return Declined("not a member of the ring")
        room = self._core.settings.page_bytes
        parts: list[SomeDigests | None] = []
        for partition, epoch, source in request.parts:
            if room <= 0:
                break
            found = self._records(partition, epoch, source)
            if found is None:
                parts.append(None)
                room -= _PART_BYTES
                continue
            told = found[0].digests()
            parts.append(SomeDigests(told, found[1]))
            room -= len(told) + 4 * _PART_BYTES
        return Digests(tuple(parts))

    def answer_difference(self, request: GetDifference) -> Differences:
        """A peer takes what differs; as many parts as fit one message are answered."""
        room = self._core.settings.page_bytes
        parts: list[Difference | None] = []
        asked: set[tuple[int, Source]] = set()
        for part in request.parts:
            if room <= 0:
                break
            found = self._records(part.partition, part.epoch, part.source)
            again = (part.partition, part.source) in asked  # each part looks at all records
            asked.add((part.partition, part.source))
            if found is None or again or part.buckets & (part.buckets - 1):
                parts.append(None)
                room -= _PART_BYTES
                continue
            difference, size = self._difference(found[0], part, room)
            if parts and difference.more and not difference.records:
                break  # nothing more fits
            parts.append(difference)
            room -= size
        return Differences(tuple(parts))

    def _difference(self, records: Records, part: Differing, room: int) -> tuple[Difference, int]:
        """What differs, as much as fits (the first record always), and its size."""
        mine = records.keys_in(part.buckets, set(part.wanted))
        have = dict(part.have)
        there = dict.fromkeys(key for keys in mine.values() for key in keys)
        dropped = tuple(key for key in have if key not in there)
        size = _PART_BYTES + sum(map(len, dropped))
        told: list[tuple[bytes, Record]] = []
        first = room == self._core.settings.page_bytes
        more = False
        for key in there:
            record = records.get(key)
            if record is None or have.get(key) == record.ballot:
                continue
            takes = len(key) + len(record.value or b"") + RECORD_BYTES
            full = size + takes > room and (told or not first)
            if full or len(told) == self._core.settings.page_keys:
                more = True
                break
            told.append((key, in_memory(record)))
            size += takes
        return Difference(tuple(told), dropped, more), size

    # -- pulling

    async def pull(self, peer: Peer, wants: Iterable[Want], mode: Mode) -> list[Want]:
        """Make targets what a peer has; those that were done.

        The others are missing there, or the peer did not answer, or it answered what cannot be.
        What was put into their targets stays there.

        :raises ChordError: if this node's storage fails, or takes too long.
        """
        done: list[Want] = []
        pulls: deque[Pull] = deque()
        waiting = deque(await self._heard_digests(peer, list(wants)))
        while pulls or waiting:
            while waiting and len(self._some(pulls)) == len(pulls) < _MOST_PARTS:
                pull = Pull(self._core, waiting.popleft(), mode)
                if self._core.journal is not None and len(pull.want.target.records) > _MANY:
                    await self._core.sleep(0)  # others have waited for that look
                if pull.chunk:
                    pulls.append(pull)
                else:
                    done.append(pull.want)
            if not pulls:
                break
            asked = self._some(pulls)
            request = GetDifference(tuple(pull.question() for pull in asked))
            reply = await self._core.try_ask(peer, request, Differences, _PATIENCE)
            if reply is None or not 0 < len(reply.parts) <= len(asked):
                break
            await self._core.nearly_kept()
            for pull, difference in zip(asked, reply.parts, strict=False):
                pulls.popleft()
                if difference is None:
                    pull.want.missing = True
                    continue
                self.pulled += len(difference.records)
                problem = pull.heard(difference)
                if problem is not None:
                    self._core.debug("{peer}: {problem}", peer=peer, problem=problem)
                elif pull.chunk:
                    pulls.append(pull)
                else:
                    done.append(pull.want)
        return done

    def _some(self, pulls: Iterable[Pull]) -> list[Pull]:
        """The first ones, as many as suit one message."""
        some: list[Pull] = []
        records = size = 0
        settings = self._core.settings
        for pull in pulls:
            records += len(pull.chunk) * PER_BUCKET
            size += pull.size
            if some and (records > 8 * settings.page_keys or size > settings.page_bytes):
                break
            some.append(pull)
        return some[:_MOST_PARTS]

    async def _heard_digests(self, peer: Peer, wants: list[Want]) -> list[Want]:
        """Ask for the digests that are not known; the wants that the peer can fulfil."""
        waiting = [want for want in wants if want.theirs is None]
        while waiting:
            asked = waiting[:_MOST_PARTS]
            request = GetDigests(tuple((want.partition, want.epoch, want.source) for want in asked))
            reply = await self._core.try_ask(peer, request, Digests, _PATIENCE)
            if reply is None or not 0 < len(reply.parts) <= len(asked):
                break
            for want, part in zip(asked, reply.parts, strict=False):
                if part is None:
                    want.missing = True
                else:
                    want.theirs, want.purged = part.digests, part.purged
            waiting = waiting[len(reply.parts) :]
        heard = []
        for want in wants:
            if want.theirs is None:
                continue
            if not _plausible(want.theirs):
                size = len(want.theirs)
                self._core.debug("{peer}: {size} bytes are no digests", peer=peer, size=size)
            elif want.base is not None and combined(want.theirs) != want.base.digest:
                want.missing = True
            else:
                heard.append(want)
        return heard


def _plausible(told: bytes) -> bool:
    buckets, rest = divmod(len(told), DIGEST_BYTES)
    return not rest and 0 < buckets <= MOST_BUCKETS and not buckets & (buckets - 1)
