"""Keys of whose last write this proposer is not sure (floor 2).

Rule 12: the ballot after a write may be used without PREPARE only if a quorum acknowledged that
write, and the own acceptor has it.  What is noted here takes a full round.
"""

from __future__ import annotations

from ..errors import StorageError
from ..table.group import Epoch
from .core import Core
from .mail import Job

__all__ = ["Doubts"]

#: Keys that are noted, before those of other epochs are forgotten.
_MOST = 65_536


class Doubts:
    """Notes the keys that need a full round."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._keys: dict[bytes, Epoch] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def written(self, job: Job) -> None:
        """A quorum acknowledged the write.

        A member that was not open yet would use a ballot again that it has used already.
        """
        key, config = job.key, job.config
        acceptor = self._core.acceptors.get(config.partition)
        try:
            record = acceptor.get(key) if acceptor is not None else None
        except StorageError:
            record = None
        if record is not None and record.ballot == job.proposal.ballot:
            self._keys.pop(key, None)
        elif config.has(self._core.instance):
            self.add(key, config.epoch)

    def add(self, key: bytes, epoch: Epoch) -> None:
        """An ACCEPT was sent, and who has it is not known."""
        if len(self._keys) >= _MOST:
            current = {config.epoch for config in self._core.directory}
            self._keys = {key: epoch for key, epoch in self._keys.items() if epoch in current}
        self._keys[key] = epoch
