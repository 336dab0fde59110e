"""What tells whether two members keep the same records, and where they differ (floor 0; pure).

A ballot names one value for ever, so a record's digest is that of its key and its ballot.  Digests
of many records are combined by exclusive or: their order does not matter, and none can be told from
another by time.  Keys fall into buckets of about :data:`PER_BUCKET` records by their checksum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import blake2b
from zlib import crc32

import msgspec

from .group import Ballot, Base, Record

__all__ = [
    "DIGEST_BYTES",
    "EMPTY_BASE",
    "MOST_BUCKETS",
    "PER_BUCKET",
    "Collected",
    "Totals",
    "base_of",
    "bucket_count",
    "bucket_of",
    "combined",
    "differing",
    "digests",
    "keys_in_buckets",
]

DIGEST_BYTES = 16
#: Records in one bucket, about.
PER_BUCKET = 32
#: Their digests fit one message.
MOST_BUCKETS = 1 << 15

EMPTY_BASE = Base(0, bytes(DIGEST_BYTES))
_encode = msgspec.msgpack.Encoder().encode


def _digest(key: bytes, ballot: Ballot) -> int:
    hashed = blake2b(_encode((key, ballot)), digest_size=DIGEST_BYTES).digest()
    return int.from_bytes(hashed, "big")


class Totals:
    """The digests of the buckets of records that change, kept up to date.

    :param records: about how many there are; with four times as many it serves as well.
    :param buckets: how many it has to tell, at least.
    """

    __slots__ = ("_totals", "buckets")

    def __init__(self, records: int, buckets: int = 1) -> None:
        self.buckets = max(bucket_count(4 * records), buckets)
        self._totals = bytearray(self.buckets * DIGEST_BYTES)

    def change(self, key: bytes, old: Ballot | None, new: Ballot | None) -> None:
        """A key's record has another ballot; None stands for no record."""
        change = 0
        if old is not None:
            change = _digest(key, old)
        if new is not None:
            change ^= _digest(key, new)
        self._change(crc32(key), change)

    def _change(self, checksum: int, change: int) -> None:
        at = (checksum & (self.buckets - 1)) * DIGEST_BYTES
        end = at + DIGEST_BYTES
        total = int.from_bytes(self._totals[at:end], "big") ^ change
        self._totals[at:end] = total.to_bytes(DIGEST_BYTES, "big")

    def copy(self) -> Totals:
        """The same, on its own from now on."""
        copy = Totals(0, self.buckets)
        copy._totals[:] = self._totals
        return copy

    def told(self, buckets: int) -> bytes:
        """The digests of so many buckets, concatenated.

        :raises ValueError: if they are more than there are.
        """
        if buckets > self.buckets:
            raise ValueError(f"there are {self.buckets} buckets, not {buckets}")
        totals = bytes(self._totals)
        while len(totals) > buckets * DIGEST_BYTES:  # a bucket's number is the end of a checksum
            half = len(totals) // 2
            one, other = (int.from_bytes(part, "big") for part in (totals[:half], totals[half:]))
            totals = (one ^ other).to_bytes(half, "big")
        return totals


class Collected:
    """The versions of records whose number is not known yet, for their :class:`Totals`."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: list[tuple[int, int]] = []

    def add(self, key: bytes, ballot: Ballot) -> None:
        """There is this one."""
        self._found.append((crc32(key), _digest(key, ballot)))

    def totals(self) -> Totals:
        """Those of all that were added."""
        totals = Totals(len(self._found))
        for checksum, digest in self._found:
            totals._change(checksum, digest)
        return totals


def base_of(records: Iterable[tuple[bytes, Record]]) -> Base:
    """The identity of these records, tombstones included if they are among them."""
    total = count = 0
    for key, record in records:
        total ^= _digest(key, record.ballot)
        count += 1
    return Base(count, total.to_bytes(DIGEST_BYTES, "big"))


def bucket_count(records: int) -> int:
    """How many buckets suit so many records: a power of two."""
    wanted = max(1, records // PER_BUCKET)
    return min(1 << (wanted - 1).bit_length(), MOST_BUCKETS)


def bucket_of(key: bytes, buckets: int) -> int:
    """The bucket of a key."""
    return crc32(key) & (buckets - 1)


def digests(records: Iterable[tuple[bytes, Record]], buckets: int) -> bytes:
    """The digests of all buckets, concatenated."""
    totals = [0] * buckets
    mask = buckets - 1
    for key, record in records:
        totals[crc32(key) & mask] ^= _digest(key, record.ballot)
    return b"".join(total.to_bytes(DIGEST_BYTES, "big") for total in totals)


def combined(digests: bytes) -> bytes:
    """The digest of all records, given those of the buckets."""
    total = 0
    for at in range(0, len(digests), DIGEST_BYTES):
        total ^= int.from_bytes(digests[at : at + DIGEST_BYTES], "big")
    return total.to_bytes(DIGEST_BYTES, "big")


def differing(mine: bytes, theirs: bytes) -> list[int]:
    """The buckets whose digests differ.

    :raises ValueError: if they are not of the same number of buckets.
    """
    if len(mine) != len(theirs):
        raise ValueError(f"{len(theirs)} bytes of digests, not {len(mine)}")
    if mine == theirs:
        return []
    return [
        at // DIGEST_BYTES
        for at in range(0, len(mine), DIGEST_BYTES)
        if mine[at : at + DIGEST_BYTES] != theirs[at : at + DIGEST_BYTES]
    ]


def keys_in_buckets(
    keys: Iterable[bytes], buckets: int, wanted: Collection[int]
) -> dict[int, list[bytes]]:
    """Those of some keys that are in some buckets, by their bucket."""
    found: dict[int, list[bytes]] = {bucket: [] for bucket in wanted}
    mask = buckets - 1
    for key in keys:
        known = found.get(crc32(key) & mask)
        if known is not None:
            known.append(key)
    return found
