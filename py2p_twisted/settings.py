"""Every number that can be tuned, in one frozen object (floor 0).

All times are seconds, all sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from .base import network_name, protocol

__all__ = ["DEFAULT_PROTOCOL", "DEFAULT_REPLICAS", "MAX_K", "OFFERED_REPLICAS", "Settings"]

#: The network of everyone who does not choose one.
DEFAULT_PROTOCOL = protocol("chord", "Plaintext")

#: Identifiers have at most this many bits.
MAX_K = 160

#: How many copies of a key a ring may keep; a fourth would survive no more crashes than three do.
OFFERED_REPLICAS = (1, 3, 5)

DEFAULT_REPLICAS = 5


@dataclass(frozen=True)
class Settings:
    """The numbers a node runs by.

    :raises ValueError: for a k outside 1 to 160, a number of replicas that is not offered, or a
        time that must be positive and is not.
    """

    k: int = 6
    prot: protocol = DEFAULT_PROTOCOL
    replicas: int | None = None  # copies of a key; None: the ring's own number
    successors: int = 8  # entries of the successor list (r)

    wire_version: int | None = None  # the newest to speak, as an older program would; None: all

    max_key: int = 4 * 1024
    max_value: int = 1024 * 1024
    max_frame: int = 1280 * 1024
    max_hello: int = 4 * 1024  # a frame before the peer's HELLO
    page_bytes: int = 192 * 1024  # of one page of keys, items, or records on the move
    page_keys: int = 512

    cache: int = 64 * 1024 * 1024  # of what is on the disk, that much is in memory, too
    stored_from: int = 256  # a value this long is read when it is asked for, not with its record

    watched_keys: int = 100_000  # that one watch may cover
    watch_events: int = 10_000  # of one watch that wait to be taken ...
    watch_bytes: int = 4 * 1024 * 1024  # ... and what they may take
    watches: int = 256  # of one peer, and of this node itself

    requests_per_connection: int = 1024
    queued_requests: int = 65_536  # waiting for their turn, of one connection
    queue_patience: float = 0.25  # seconds that an operation may have to wait for its turn
    slow_after: float = 0.25  # a round trip so much longer than the shortest shows a busy peer
    busy_patience: float = 0.5  # seconds for which an operation is tried again at busy nodes
    queued_bytes: int = 8 * 1024 * 1024  # answers that a slow peer has not read yet
    connections: int = 1024
    connections_per_address: int = 64

    handshake_timeout: float = 5.0  # dialling, TLS and HELLO
    stabilize_interval: float = 1.0
    jitter: float = 0.25  # of every interval, as a fraction
    ping_after: float = 1.0  # silence on a link before it is pinged
    suspect_after: float = 3.0  # seconds of silence
    dead_after: float = 8.0  # seconds of silence
    evict_after: float = 30.0  # a dead member of a group is replaced
    request_timeout_min: float = 0.2
    request_timeout_max: float = 2.0
    operation_timeout: float = 10.0
    retry_min: float = 0.02  # first pause before an operation is tried again
    retry_max: float = 0.5
    redial_min: float = 0.5  # first pause before a remembered peer is dialled again
    redial_max: float = 15.0
    leave_timeout: float = 10.0  # of a graceful leave when the service stops
    remembered_peers: int = 64

    verbose: bool = False  # log what only an author wants to read

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or isinstance(self.k, bool) or not 1 <= self.k <= MAX_K:
            raise ValueError(f"k must be a whole number from 1 to {MAX_K}, not {self.k!r}")
        if self.replicas is not None and (
            type(self.replicas) is not int or self.replicas not in OFFERED_REPLICAS
        ):
            offered = ", ".join(map(str, OFFERED_REPLICAS))
            raise ValueError(
                f"replicas must be one of {offered}, or None for the ring's own number, not "
                f"{self.replicas!r}"
            )
        if self.operation_timeout <= 0:
            raise ValueError(f"timeout must be positive, not {self.operation_timeout!r}")
        if self.cache < 0:
            raise ValueError(f"cache must be a number of bytes, not {self.cache!r}")
        if not self.evict_after > 0:
            raise ValueError(f"evict_after must be positive, not {self.evict_after!r}")

    @property
    def network(self) -> str:
        """The name that two nodes must have in common."""
        return network_name(self.prot, self.k)
