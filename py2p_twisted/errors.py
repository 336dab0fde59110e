"""Every exception that this package raises on purpose (floor 0; imports nothing).

All derive from :class:`ChordError`.  Whoever catches one can ask a single question of it:
``error.outcome_unknown`` is true only when a write may have happened although it failed.
"""

from __future__ import annotations

__all__ = [
    "AuthenticationFailed",
    "BadMessage",
    "CannotListen",
    "ChordError",
    "KeyTooLarge",
    "NetworkMismatch",
    "NotConnected",
    "OperationTimeout",
    "Overloaded",
    "PeerUnreachable",
    "RingConflict",
    "RingFull",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "StorageInUse",
    "StorageMismatch",
    "StorageUnusable",
    "Unavailable",
    "ValueTooLarge",
    "WatchTooWide",
    "WouldBlockReactor",
]


class ChordError(Exception):
    """Base of all errors of this package.

    :ivar outcome_unknown: True if a write may have taken effect although this error was raised.
    """

    outcome_unknown: bool = False

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        if outcome_unknown:
            self.outcome_unknown = True


class NetworkMismatch(ChordError, ConnectionError):
    """The peer belongs to another network: other subnet, encryption, wire version or k.

    :ivar ours: what this node announced, as text.
    :ivar theirs: what the peer announced, as text.
    """

    def __init__(self, message: str, *, ours: str = "", theirs: str = "") -> None:
        super().__init__(message)
        self.ours = ours
        self.theirs = theirs


class PeerUnreachable(ChordError, ConnectionError):
    """The peer refused the connection, reset it, or did not answer in time.

    :ivar sent: True if the request may have reached the peer before the connection was lost.
    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class AuthenticationFailed(ChordError, ConnectionError):
    """A certificate is missing, unknown, expired, or names another host."""


class CannotListen(ChordError, OSError):
    """The port cannot be had: it is in use, or the address is not this machine's.

    :ivar errno: the system's number of the reason, None if it gave none.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class NotConnected(ChordError):
    """There is no ring to talk to: neither ``connect()`` nor ``join()`` has succeeded yet."""


class RingFull(ChordError):
    """All ``2**k`` identifiers of the ring are claimed; a larger k is a new ring."""


class RingConflict(ChordError):
    """Two rings met that both hold something, or a ring keeps another number of copies than wanted.

    :ivar for_peer: the same as the peer's user should read it; empty if the text holds for both.
    """

    def __init__(self, message: str, *, for_peer: str = "") -> None:
        super().__init__(message)
        self.for_peer = for_peer


class OperationTimeout(ChordError, TimeoutError):
    """No answer in time.  ``outcome_unknown`` tells whether a write may have happened."""


class Unavailable(ChordError):
    """A quorum of the key's group cannot be reached.

    :ivar reachable: how many members answered.
    :ivar members: how many members the group has.
    """

    def __init__(
        self,
        message: str,
        *,
        reachable: int = 0,
        members: int = 0,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.reachable = reachable
        self.members = members


class Overloaded(Unavailable):
    """More is asked of the key's nodes than they can do.  It was refused early: try again later."""


class KeyTooLarge(ChordError, ValueError):
    """The key is longer than ``Settings.max_key`` bytes."""


class ValueTooLarge(ChordError, ValueError):
    """The value is longer than ``Settings.max_value`` bytes."""


class WatchTooWide(ChordError):
    """More keys are covered by one watch than ``Settings.watched_keys``."""


class StorageError(ChordError):
    """What a node keeps on its disk cannot be used, or kept any more.

    :ivar path: the file that it is about; empty if that is another machine's.
    """

    def __init__(self, message: str, *, path: str = "", outcome_unknown: bool = False) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.path = path


class StorageFull(StorageError):
    """There is no room: a quota of bytes, or a disk, is used up; nothing was written."""


class StorageInUse(StorageError):
    """Another process keeps its data in this file.

    :ivar pid: that process; 0 if it is not known.
    """

    def __init__(self, message: str, *, path: str = "", pid: int = 0) -> None:
        super().__init__(message, path=path)
        self.pid = pid


class StorageCorrupt(StorageError):
    """The file does not hold what was written to it: it is torn or was changed."""


class StorageMismatch(StorageError):
    """The file is sound, and not this node's: another ring's, program's or later version's."""


class StorageUnusable(StorageError):
    """The file or its folder cannot be opened, read or written: its rights, or a failing disk."""


class WouldBlockReactor(ChordError, RuntimeError):
    """A blocking call was made in the reactor's own thread, where it could never return."""


class BadMessage(ChordError):
    """A peer sent bytes that are not a message; its connection is closed."""
