"""Whom a bulk operation asks for its pieces, and whom else when somebody is slow (floor 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.python.failure import Failure

from ..base import Peer
from ..errors import OperationTimeout, PeerUnreachable
from ..table.proposer import Write
from ..wire.link import Link
from ..wire.messages import (
    ReadMany,
    SomeValues,
    SomeWritten,
    Values,
    Want,
    WriteMany,
    WrittenMany,
    WrongEpoch,
)
from .attempts import Attempts
from .core import Core
from .dispatch import Batch, Dispatch, Piece, batches
from .operations import Operations
from .proposals import Proposals

__all__ = ["Proposers", "Readers"]

#: A member that is read from may be silent for so many seconds, or round trips if that is more.
_READ_PATIENCE = 0.1
_ROUND_TRIPS = 4
#: And as long again as a busy one, which does several times as much, takes for what it was sent.
#: A write is carried out by all members of a group.
_READ_BYTES_PER_SECOND = 1_000_000
_WRITE_BYTES_PER_SECOND = 250_000


class Readers:
    """Asks a quorum of each piece's group: one member for the values, all for the versions.

    When one of them is slow, or of no use, another member of the group is asked in its place.  A
    piece is over as soon as a quorum has answered, whoever that is.

    :param slow: instances that were slow already, asked last; added to.
    """

    def __init__(
        self, core: Core, operations: Operations, attempts: Attempts, slow: set[bytes]
    ) -> None:
        self._core = core
        self._operations = operations
        self._attempts = attempts
        self._slow = slow
        self._dispatch: Dispatch[bytes]

    async def ask(self, pieces: Sequence[Piece[bytes]]) -> None:
        """Fill in the answers of all pieces, a quorum of each, or the problem why there is none."""
        core = self._core
        self._dispatch = Dispatch(
            core, pieces, self._send, self._take, self._replace, self._patience, self._slow
        )
        asks: list[tuple[Peer, Want, Piece[bytes]]] = []
        for piece in pieces:
            quorum = piece.config.quorum
            members = self._members(piece)
            piece.rest = members[quorum:]
            piece.waiting = quorum
            want = Want.VALUE if quorum == 1 else Want.BOTH
            for member in members[:quorum]:
                asks.append((member, want, piece))
                want = Want.BALLOT
        self._dispatch.add(batches(core.settings, asks))
        await self._dispatch.run(self._attempts.patience)

    def _members(self, piece: Piece[bytes]) -> Sequence[Peer]:
        """In the order in which they are asked: the own copy costs no message."""
        core, slow = self._core, self._slow
        members = core.preferred(piece.config)
        if slow or piece.config.has(core.instance):
            mine = core.instance
            return sorted(
                members, key=lambda peer: (peer.instance != mine, peer.instance in slow)
            )  # fmt: skip
        return members

    def _patience(self, link: Link | None, owed: int) -> float:
        usual = (link.round_trip if link is not None else None) or 0.0
        return max(_READ_PATIENCE, _ROUND_TRIPS * usual) + owed / _READ_BYTES_PER_SECOND

    async def _send(self, batch: Batch[bytes]) -> Any:
        parts = tuple((piece.config.epoch, tuple(piece.items)) for piece in batch.pieces)
        request = ReadMany(parts, batch.want)
        return await self._operations.ask_member(batch.member, request, self._attempts)

    def _take(self, batch: Batch[bytes], reply: Any) -> None:
        good = isinstance(reply, Values) and len(reply.parts) == len(batch.pieces)
        missing: list[Piece[bytes]] = []
        for place, piece in enumerate(batch.pieces):
            if piece.over:
                continue
            answer = reply.parts[place] if good else reply
            piece.waiting -= 1
            if isinstance(answer, SomeValues):
                piece.answers.append(answer)
                if len(piece.answers) == piece.config.quorum:
                    self._dispatch.close(piece)
                continue
            if not isinstance(piece.problem, WrongEpoch):
                piece.problem = answer
            if _moved(piece, answer) or not (piece.rest or piece.waiting):
                self._dispatch.close(piece)
            elif piece.rest:
                missing.append(piece)
        self._ask_next(missing)

    def _replace(self, batch: Batch[bytes]) -> list[Piece[bytes]]:
        pieces = [piece for piece in batch.pieces if not piece.over]
        others = [piece for piece in pieces if piece.rest]
        left = [piece for piece in pieces if not piece.rest]
        if batch.sent_at is None:
            for piece in others:
                piece.waiting -= 1  # this member is not asked at all
        self._ask_next(others)
        return left

    def _ask_next(self, pieces: Sequence[Piece[bytes]]) -> None:
        """Ask one more member for each of these."""
        asks: list[tuple[Peer, Want, Piece[bytes]]] = []
        for piece in pieces:
            member, piece.rest = piece.rest[0], piece.rest[1:]
            piece.waiting += 1
            told = any(answer.values for answer in piece.answers)
            asks.append((member, Want.BALLOT if told else Want.BOTH, piece))
        self._dispatch.add(batches(self._core.settings, asks))


class Proposers:
    """Asks the proposer of each piece's group to write it.

    When it is silent, the writes are in doubt, as after any other time-out: they are to be tried
    again, under their operation ids, by another proposer.

    :param silent: proposers that this node stands in for; added to.
    """

    def __init__(
        self,
        core: Core,
        operations: Operations,
        proposals: Proposals,
        attempts: Attempts,
        silent: set[bytes],
    ) -> None:
        self._core = core
        self._operations = operations
        self._proposals = proposals
        self._attempts = attempts
        self._silent = silent
        self._dispatch: Dispatch[Write]

    async def ask(self, pieces: Sequence[Piece[Write]]) -> bool:
        """Fill in the answer of each piece, or the problem why there is none.

        :returns: True if a proposer turned out to be silent just now.
        """
        core = self._core
        before = len(self._silent)
        slow: set[bytes] = set()
        self._dispatch = Dispatch(
            core, pieces, self._send, self._take, self._replace, self._patience, slow
        )
        asks: list[tuple[Peer, Want, Piece[Write]]] = []
        for piece in pieces:
            proposer = core.preferred(piece.config)[0]
            if proposer.instance in self._silent:
                proposer = core.me
            asks.append((proposer, Want.VALUE, piece))
        self._dispatch.add(batches(core.settings, asks))
        await self._dispatch.run(self._attempts.patience)
        for proposer, _, piece in asks:
            failed = isinstance(piece.problem, Failure) and _may_replace(piece)
            if failed and proposer.instance != core.instance:
                self._silent.add(proposer.instance)
        return len(self._silent) > before

    def _patience(self, link: Link | None, owed: int) -> float:
        """A request timeout at least: calling one slow wrongly costs more than with a read."""
        settings = self._core.settings
        if link is None:
            return settings.request_timeout_max  # it is being dialled: nothing was sent yet
        usual = link.round_trip or 0.0
        least = max(settings.request_timeout_min, _ROUND_TRIPS * usual)
        return least + owed / _WRITE_BYTES_PER_SECOND

    async def _send(self, batch: Batch[Write]) -> Any:
        core = self._core
        if batch.member.instance == core.instance:
            mine = [(piece.config, piece.items) for piece in batch.pieces]
            return await self._operations.here(
                lambda done: self._proposals.write_many(mine, done), self._attempts
            )
        parts = tuple((piece.config.epoch, tuple(piece.items)) for piece in batch.pieces)
        return await self._operations.ask_member(batch.member, WriteMany(parts), self._attempts)

    def _take(self, batch: Batch[Write], reply: Any) -> None:
        good = isinstance(reply, WrittenMany) and len(reply.parts) == len(batch.pieces)
        if good:
            self._core.hear(reply.stamp)
        for place, piece in enumerate(batch.pieces):
            if piece.over:
                continue
            answer = reply.parts[place] if good else reply
            if isinstance(answer, SomeWritten) and len(answer.outcomes) == len(piece.items):
                piece.answers.append(answer)
            else:
                piece.problem = answer
            self._dispatch.close(piece)

    def _replace(self, batch: Batch[Write]) -> list[Piece[Write]]:
        problem: Failure
        if batch.sent_at is None:
            problem = Failure(PeerUnreachable(f"{batch.member} is silent"))
        else:
            problem = Failure(OperationTimeout(f"no answer from {batch.member} in time"))
        for piece in batch.pieces:
            if not piece.over and _may_replace(piece):
                piece.problem = problem
                self._dispatch.close(piece)
        return [piece for piece in batch.pieces if not piece.over]


def _moved(piece: Piece[bytes], answer: Any) -> bool:
    """Is there a newer configuration, to be asked instead?"""
    return (
        isinstance(answer, WrongEpoch)
        and answer.config is not None
        and answer.config.epoch > piece.config.epoch
    )


def _may_replace(piece: Piece[Write]) -> bool:
    """Has its proposer anybody who could stand in for it?"""
    return len(piece.config.members) > 1
