"""Taking partitions over from other nodes (floor 2).

Owns what a next member does in a reconfiguration: it keeps records ready, and opens an epoch once,
with the agreed base only.
"""

from __future__ import annotations

from ..base import Peer
from ..table.group import Successor, base_of
from ..wire.link import Link
from ..wire.messages import Declined, Done, Learn, Open, Opened, Reply, Stage, StagePart
from .core import Core, Phase, Staged

__all__ = ["Takeover"]


class Takeover:
    """Receives partitions, and the news of them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def answer_stage(self, link: Link, request: Stage) -> Reply:
        """A peer copies records here for epochs that may follow."""
        core = self._core
        if core.phase is not Phase.JOINED:
            return Declined(f"this node is {core.phase.value}")
        for part in request.parts:
            refusal = self._stage_part(part, link.peer)
            if refusal is not None:
                return Declined(refusal)
        return Done()

    def _stage_part(self, part: StagePart, giver: Peer) -> str | None:
        core = self._core
        if part.partition >= core.partitions:
            return f"there is no partition {part.partition}"
        try:
            if any(core.partition(key) != part.partition for key, _ in part.records):
                return f"a record does not belong to partition {part.partition}"
        except ValueError as error:
            return str(error)
        known = core.directory.get(part.partition)
        if known is not None and known.epoch > part.epoch:
            return f"partition {part.partition} is in a later epoch"
        if part.fresh:
            core.staged[part.partition] = Staged(part.epoch, giver)
        staged = core.staged.get(part.partition)
        if staged is None or staged.epoch != part.epoch:
            return f"partition {part.partition} was not begun in that epoch"
        staged.base = None
        staged.records.update(part.records)
        for key in part.dropped:
            staged.records.pop(key, None)
        if part.base is not None:
            if base_of(staged.records.items()) != part.base:
                del core.staged[part.partition]
                return f"the records of partition {part.partition} are not the base"
            staged.base = part.base
        return None

    def answer_open(self, request: Open) -> Reply:
        """Epochs were decided: open those whose base is here."""
        return Opened(
            tuple(
                successor.config.partition
                for successor in request.successors
                if self._opened(successor)
            )
        )

    def _opened(self, successor: Successor) -> bool:
        """Open an epoch, once (rule 4), with the agreed base only (rule 8)."""
        core = self._core
        config = successor.config
        known = core.directory.get(config.partition)
        if known is not None and known.epoch >= config.epoch:
            return known == config and config.partition in core.acceptors
        if not core.member or not config.has(core.instance):
            return False
        staged = core.staged.get(config.partition)
        if staged is None or staged.base != successor.base:
            return False
        core.serve(successor, staged.records)
        return True

    @property
    def promised(self) -> bool:
        """Does this node hold bases that a living peer may have decided to open here?"""
        return any(
            staged.base is not None and self._core.alive(staged.giver)
            for staged in self._core.staged.values()
        )

    def answer_learn(self, request: Learn) -> Reply:
        """A peer tells news of the directory."""
        for config in request.configs:
            self._core.learn(config)
        return Done()
