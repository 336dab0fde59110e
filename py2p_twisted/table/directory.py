"""The newest configuration of each partition that a node has heard of (floor 0; pure).

The directory makes look-ups unnecessary and decides nothing: a member refuses a message of an epoch
that is not its own, and its refusal carries a newer configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..base import Peer
from .group import Config

__all__ = ["Directory"]


class Directory:
    """Configurations by partition, and a local count of their changes.

    The count lets a peer take only the difference since it last asked.
    """

    def __init__(self) -> None:
        self.version = 0
        self._configs: dict[int, Config] = {}
        self._changed: dict[int, int] = {}  # partition -> version; newest last

    def __len__(self) -> int:
        return len(self._configs)

    def __iter__(self) -> Iterator[Config]:
        return iter(list(self._configs.values()))

    def get(self, partition: int) -> Config | None:
        """The newest configuration of a partition, None if none was heard of."""
        return self._configs.get(partition)

    def learn(self, config: Config) -> bool:
        """Take a configuration if it is newer than the known one; True if it was."""
        known = self._configs.get(config.partition)
        if known is not None and known.epoch >= config.epoch:
            return False
        self._configs[config.partition] = config
        self.version += 1
        self._changed.pop(config.partition, None)
        self._changed[config.partition] = self.version
        return True

    def since(self, version: int, most: int) -> tuple[list[Config], int]:
        """The oldest `most` changes after `version`, and the version up to which they reach."""
        if version > self.version:  # the asker knew an earlier memory of this node
            version = 0
        if version == self.version:
            return [], version
        newer = [(at, part) for part, at in self._changed.items() if at > version][:most]
        return [self._configs[part] for _, part in newer], newer[-1][0] if newer else self.version

    def clear(self) -> None:
        """Forget everything: the node is in another ring.  Versions go on."""
        self._configs.clear()
        self._changed.clear()
        self.version += 1

    def members(self) -> Iterable[Peer]:
        """Every node that keeps something, each once."""
        return {
            peer.instance: peer for config in self._configs.values() for peer in config.members
        }.values()
