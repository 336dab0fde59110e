"""The circle of identifiers: every comparison and conversion of them (floor 0; pure).

An identifier is an integer in ``[0, 2**k)``, read clockwise.  No other module compares
identifiers on its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256, sha384

__all__ = [
    "between",
    "between_right",
    "distance",
    "from_bytes",
    "key_identifier",
    "key_partition",
    "node_identifier",
    "partition_count",
    "partition_of",
    "partition_start",
    "to_bytes",
    "widest_gap_middles",
]


def between(a: int, b: int, c: int) -> bool:
    """Is b met strictly between a and c, walking clockwise?  With a = c: any b but a."""
    return a < b < c if a < c else (b > a or b < c)


def between_right(a: int, b: int, c: int) -> bool:
    """Is b in ``(a, c]``, walking clockwise?  With a = c: always (the whole circle)."""
    return b == c or between(a, b, c)


def distance(a: int, b: int, k: int) -> int:
    """Steps clockwise from a to b, in ``[0, 2**k)``."""
    return (b - a) % (1 << k)


def to_bytes(identifier: int, k: int) -> bytes:
    """An identifier as it travels: big-endian, as many whole bytes as k bits need."""
    return identifier.to_bytes((k + 7) // 8, "big")


def from_bytes(raw: bytes, k: int) -> int:
    """Read what :func:`to_bytes` wrote.

    :raises ValueError: if the length is not k's or the number is outside the circle.
    """
    identifier = int.from_bytes(raw, "big")
    if len(raw) != (k + 7) // 8 or identifier >> k:
        raise ValueError(f"{raw.hex() or 'nothing'} is no identifier of {k} bits")
    return identifier


def _first_bits(digest: bytes, k: int) -> int:
    return int.from_bytes(digest, "big") >> (len(digest) * 8 - k)


def key_identifier(key: bytes, k: int) -> int:
    """The place of a key: the first k bits of its SHA-256."""
    return _first_bits(sha256(key).digest(), k)


def node_identifier(host: str, port: int, network: str, k: int, salt: int = 0) -> int:
    """The place that a node asks for first: k bits of SHA-384 of address, network and salt."""
    text = f"{salt}\0{network}\0{port}\0{host}"
    return _first_bits(sha384(text.encode()).digest(), k)


def partition_count(k: int) -> int:
    """How many equal slices the circle has (Q): ``2**min(k, 10)``."""
    return 1 << min(k, 10)


def partition_of(identifier: int, k: int) -> int:
    """The slice that an identifier lies in."""
    return identifier >> max(k - 10, 0)


def key_partition(key: bytes, k: int) -> int:
    """The slice of a key's place: :func:`partition_of` its :func:`key_identifier`, in one go."""
    digest = sha256(key).digest()
    return (digest[0] << 8 | digest[1]) >> (16 - k if k < 10 else 6)


def partition_start(partition: int, k: int) -> int:
    """The first identifier of a slice."""
    return partition << max(k - 10, 0)


def widest_gap_middles(taken: Iterable[int], k: int) -> list[int]:
    """Free identifiers that halve a widest gap between taken ones; empty when none is free."""
    ordered = sorted(set(taken))
    if not ordered:
        return [0]
    size = 1 << k
    following = [*ordered[1:], ordered[0] + size]
    gaps = [(after - before, before) for before, after in zip(ordered, following, strict=True)]
    widest = max(gap for gap, _ in gaps)
    if widest < 2:
        return []
    return [(before + widest // 2) % size for gap, before in gaps if gap == widest]
