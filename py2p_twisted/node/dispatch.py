"""The messages of one bulk operation on their way (floor 2).

Owns how many are under way at once, and the judgement who is slow.  A message of many keys, behind
others of its kind, rightly takes a hundred times what a small one takes, so no message's age says
much.  What counts is silence: a member that owes answers and says nothing for longer than this
many bytes explain, and for longer than twice what the slowest answer of this operation took.
Whoever is called slow wrongly costs some messages, and nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import OperationTimeout
from ..settings import Settings
from ..table.group import Config
from ..wire.link import Link
from ..wire.messages import Want
from .core import Core

__all__ = ["Batch", "Dispatch", "Piece", "batches"]

T = TypeVar("T")

#: Messages under way at once in one bulk operation.
_WINDOW = 16
#: Seconds between two looks for silence.
_STEP = 0.025


class Piece(Generic[T]):
    """Items of one partition that travel together.

    :ivar size: bytes, about.
    :ivar answers: the good ones.
    :ivar problem: the last that went wrong, if anything did.
    :ivar rest: members that were not asked yet.
    :ivar waiting: members that were asked and have not answered.
    :ivar over: nothing more is waited for.
    """

    __slots__ = ("answers", "config", "items", "over", "problem", "rest", "size", "waiting")

    def __init__(self, config: Config, items: list[T], size: int) -> None:
        self.config = config
        self.items = items
        self.size = size
        self.answers: list[Any] = []
        self.problem: Any = None
        self.rest: Sequence[Peer] = ()
        self.waiting = 0
        self.over = False


class Batch(Generic[T]):
    """What one member is asked in one message.

    :ivar want: what its answer is to hold, if it is a read.
    :ivar sent_at: on the clock; None while it waits for its turn.
    """

    __slots__ = ("member", "pieces", "sent_at", "want")

    def __init__(self, member: Peer, want: Want, pieces: list[Piece[T]]) -> None:
        self.member = member
        self.want = want
        self.pieces = pieces
        self.sent_at: float | None = None

    @property
    def size(self) -> int:
        """Bytes, about."""
        return sum(piece.size for piece in self.pieces)


def batches(settings: Settings, asks: Sequence[tuple[Peer, Want, Piece[T]]]) -> Sequence[Batch[T]]:
    """Put what one member is asked together, in messages of bounded size."""
    newest: dict[tuple[bytes, Want], tuple[Batch[T], int, int]] = {}
    made: dict[tuple[bytes, Want], list[Batch[T]]] = {}
    for member, want, piece in asks:
        key = (member.instance, want)
        batch, room, keys = newest.get(key, (None, 0, 0))
        if batch is None or room < piece.size or keys < len(piece.items):
            batch, room, keys = Batch(member, want, []), settings.page_bytes, settings.page_keys
            made.setdefault(key, []).append(batch)
        batch.pieces.append(piece)
        newest[key] = (batch, room - piece.size, keys - len(piece.items))
    return [batch for some in made.values() for batch in some]


class Dispatch(Generic[T]):
    """Sends batches, some at a time, until every piece is over.

    :param pieces: what all of it is about.
    :param ask: sends a batch; results in the reply, or in the `Failure` why there is none.
    :param take: hears a batch and its reply; closes the pieces that need no more.
    :param replace: hears of a batch whose member is slow.  It closes its pieces or asks others for
        them, and returns those of which neither can be done.
    :param patience: how many seconds a member may be silent, given the connection to it, if there
        is one, and the bytes that it was sent and owes the answer to.
    :param slow: instances that are slow already; those that turn out to be are added.
    """

    def __init__(
        self,
        core: Core,
        pieces: Sequence[Piece[T]],
        ask: Callable[[Batch[T]], Coroutine[Any, Any, Any]],
        take: Callable[[Batch[T], Any], None],
        replace: Callable[[Batch[T]], list[Piece[T]]],
        patience: Callable[[Link | None, int], float],
        slow: set[bytes],
    ) -> None:
        self._core = core
        self._pieces = pieces
        self._ask = ask
        self._take = take
        self._replace = replace
        self._patience = patience
        self._slow = slow
        self._open = len(pieces)
        self._queue: deque[Batch[T]] = deque()
        self._flying: dict[Batch[T], None] = {}  # in the order in which they were sent
        self._carried: dict[Batch[T], Deferred[None]] = {}  # not answered yet
        self._slowest = 0.0  # seconds that an answer took
        self._sending = False
        self._stopped = False
        self._timer: IDelayedCall | None = None
        self._look_at = 0.0
        self._ended: Deferred[None] = Deferred(lambda _: None)

    def add(self, some: Sequence[Batch[T]]) -> None:
        """These are to be sent, too."""
        self._queue.extend(some)

    def close(self, piece: Piece[T]) -> None:
        """A piece needs no more."""
        if not piece.over:
            piece.over = True
            self._open -= 1

    async def run(self, seconds: float) -> None:
        """Send everything; returns when every piece is over.

        A piece that is not over when the time is has a problem then.
        """
        try:
            self._look_again(self._core.clock.seconds())
            self._send()
            if self._open:
                self._ended.addTimeout(seconds, self._core.clock, lambda _, __: None)
                await self._ended
        finally:
            self._stop()
        for piece in self._pieces:
            if not piece.over:
                piece.problem = piece.problem or Failure(OperationTimeout("no answer in time"))
                self.close(piece)

    def _stop(self) -> None:
        self._stopped = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for carried in list(self._carried.values()):
            carried.cancel()

    # -- sending

    def _send(self) -> None:
        """Send as many as may be under way."""
        if self._sending:
            return  # an answer came at once: the loop below goes on
        self._sending = True
        try:
            while self._queue and len(self._flying) < _WINDOW and self._open:
                batch = self._queue.popleft()
                if all(piece.over for piece in batch.pieces):
                    continue
                if batch.member.instance in self._slow:
                    batch.pieces = self._replace(batch)
                if batch.pieces:
                    self._begin(batch)
        finally:
            self._sending = False
        if not self._open and not self._ended.called:
            self._ended.callback(None)

    def _begin(self, batch: Batch[T]) -> None:
        batch.sent_at = self._core.clock.seconds()
        self._flying[batch] = None
        carried = Deferred.fromCoroutine(self._carry(batch))
        if not carried.called:
            self._carried[batch] = carried
        carried.addErrback(self._raised)

    async def _carry(self, batch: Batch[T]) -> None:
        reply = await self._ask(batch)
        self._carried.pop(batch, None)
        if not self._stopped:
            self._answered(batch, reply)

    def _raised(self, failure: Failure) -> None:
        if not self._ended.called:  # else nobody waits for it any more
            self._ended.errback(failure)

    def _answered(self, batch: Batch[T], reply: Any) -> None:
        instance = batch.member.instance
        if isinstance(reply, Failure):
            if reply.check(OperationTimeout, ConnectionError):
                self._slow.add(instance)
        elif instance in self._slow:
            self._slow.discard(instance)  # it was only slow
        elif instance != self._core.instance:
            assert batch.sent_at is not None
            self._slowest = max(self._slowest, self._core.clock.seconds() - batch.sent_at)
        self._flying.pop(batch, None)
        self._take(batch, reply)
        self._send()

    # -- who is slow

    def _look_again(self, now: float) -> None:
        self._look_at = now + _STEP
        self._timer = self._core.clock.callLater(_STEP, self._look)

    def _look(self) -> None:
        now: float = self._core.clock.seconds()
        late = now - self._look_at
        self._look_again(now)
        if late > _STEP:
            return  # this node itself was busy: what came meanwhile is not read yet
        slow = self._silent(now) - self._slow
        if slow:
            self._slow |= slow
            for batch in [batch for batch in self._flying if batch.member.instance in slow]:
                if not self._replace(batch):
                    self._flying.pop(batch, None)  # its place is free
            self._send()

    def _silent(self, now: float) -> set[bytes]:
        """The members that owe something and say nothing."""
        core = self._core
        owed: Counter[bytes] = Counter()
        for batch in self._flying:
            owed[batch.member.instance] += batch.size
        silent: set[bytes] = set()
        for batch in self._flying:
            instance = batch.member.instance
            link = core.links.get(instance)
            assert batch.sent_at is not None
            since = batch.sent_at if link is None else max(batch.sent_at, link.heard_at)
            patience = self._patience(link, owed[instance])
            if now - since >= max(patience, 2 * self._slowest) and instance != core.instance:
                silent.add(instance)
        return silent
