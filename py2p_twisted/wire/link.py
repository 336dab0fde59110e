"""One connection after its handshake: requests, their replies, and how long they took (floor 1).

Every request has a bounded wait, without a timer of its own: :class:`~.links.Links` sweeps all of
them together.  Late, repeated and stray answers are ignored and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import ChordError, OperationTimeout, PeerUnreachable, Unavailable
from ..settings import Settings
from .bodies import Frozen, declined
from .complaints import printable
from .messages import (
    WIRE_VERSION,
    Answer,
    Ask,
    Busy,
    Count,
    Declined,
    Hello,
    Message,
    Page,
    Read,
    ReadMany,
    Reply,
    Request,
    WriteMany,
    WriteOne,
)
from .round_trips import RoundTrips
from .versions import unknown_to, why_unknown

if TYPE_CHECKING:
    from .protocol import MessageProtocol

__all__ = ["Link", "Pending"]

#: The part of its queue that a peer may use when all queues together are long.
_SHARE_WHEN_CROWDED = 64


#: What begins an operation.  What goes on with one is never refused: it would begin again.
_OF_CLIENTS = {Read, ReadMany, WriteOne, WriteMany, Page, Count}


class Pending:
    """A reply that comes later: what a Deferred is, for who answers often.

    It is fired once, with a reply, by whoever made it.
    """

    __slots__ = ("_reply", "_send")

    def __init__(self) -> None:
        self._send: Callable[[Reply], None] | None = None
        self._reply: Reply | None = None

    def fire(self, reply: Reply) -> None:
        """This is the reply."""
        if self._send is not None:
            self._send(reply)
        else:
            self._reply = reply

    def then(self, send: Callable[[Reply], None]) -> None:
        """Whom to tell: at once, if it was fired already."""
        if self._reply is not None:
            send(self._reply)
        else:
            self._send = send


class Link:
    """A connection to one peer.

    :param protocol: carries the messages.
    :param hello: what the peer announced.
    :param version: of the wire, the newest that both sides speak.
    :param dialled: True if this side made the connection.
    :param answer: ``answer(link, request)`` returns the reply or a Deferred of it.
    :param offended: is called when the peer does what it should not; may that be logged?
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        settings: Settings,
        protocol: MessageProtocol,
        hello: Hello,
        *,
        version: int = WIRE_VERSION,
        dialled: bool,
        answer: Callable[[Link, Request], Any],
        offended: Callable[[], bool] = lambda: True,
    ) -> None:
        self.hello = hello
        self.version = version
        self.dialled = dialled
        self.retired = False  # a better connection to the same peer exists
        self.heard_at = clock.seconds()
        self.ignored_answers = 0
        self.pinging = False
        self._clock = clock
        self._settings = settings
        self._protocol = protocol
        self._answer = answer
        self._offended = offended
        self._number = 0
        self._asked: dict[int, tuple[Callable[[Any], None], float, float]] = {}
        self._queue: deque[tuple[Request, Callable[[Any], None], float | None, float]] = deque()
        self._answering = 0
        self._times = RoundTrips(settings)
        self._lost = False
        self._unknown = unknown_to(version)

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        return self.hello.peer

    @property
    def _name(self) -> str:
        return printable(str(self.peer))

    @property
    def idle(self) -> bool:
        """True while no request of this side waits for its answer."""
        return not self._asked and not self._queue

    @property
    def unanswered(self) -> int:
        """How many requests of the peer wait for this side's reply."""
        return self._answering

    @property
    def round_trip(self) -> float | None:
        """Smoothed round-trip time in seconds, None before the first answer."""
        return self._times.smoothed

    def request_timeout(self) -> float:
        """Seconds that a request may take."""
        return self._times.timeout(self._clock.seconds())

    # -- asking

    def ask(self, request: Request, timeout: float | None = None) -> Deferred[Reply]:
        """Send a request, at once or when its turn has come.

        :param timeout: seconds from when it is sent; by default :meth:`request_timeout`.  Before
            that it waits for at most ``Settings.operation_timeout``.
        :returns: fires with the reply, or fails with `OperationTimeout`, `PeerUnreachable`, or
            `Unavailable` if too many wait.  What the peer's wire version does not have is not
            sent: `Declined` here says so.
        """
        deferred: Deferred[Reply] = Deferred(self._cancelled)
        self.request(request, _Fire(deferred), timeout)
        return deferred

    def request(
        self, request: Request, done: Callable[[Any], None], timeout: float | None = None
    ) -> None:
        """As :meth:`ask`, for who asks often: calls `done` with the reply or the `Failure`."""
        settings = self._settings
        if self._lost or self._protocol.closed:
            done(Failure(PeerUnreachable(f"the connection to {self.peer} is gone")))
        elif type(request) in self._unknown:
            done(Declined(why_unknown(request, self.peer, self.version)))
        elif self._has_room() and not self._queue:
            self._send(request, done, timeout)
        elif len(self._queue) < settings.queued_requests:
            until = self._clock.seconds() + settings.operation_timeout
            self._queue.append((request, done, timeout, until))
        else:
            waiting = len(self._queue)
            text = f"{waiting} requests to {self.peer} wait already; slow down"
            done(Failure(Unavailable(text)))

    def _has_room(self) -> bool:
        return len(self._asked) < self._settings.requests_per_connection and not self._protocol.held

    def _send(self, request: Request, done: Callable[[Any], None], timeout: float | None) -> None:
        self._number = number = self._number + 1
        now = self._clock.seconds()
        wait = self._times.timeout(now) if timeout is None else timeout
        self._asked[number] = (done, now, now + wait)
        try:
            self._protocol.send(Ask(number, request))
        except ChordError:
            del self._asked[number]
            done(Failure())

    def _send_queued(self) -> None:
        while self._queue and self._has_room():
            request, done, timeout, _ = self._queue.popleft()
            if not _given_up(done):
                self._send(request, done, timeout)

    def _cancelled(self, deferred: Deferred[Reply]) -> None:
        for number, asked in self._asked.items():
            if isinstance(asked[0], _Fire) and asked[0].deferred is deferred:
                del self._asked[number]
                return

    def sweep(self, now: float) -> None:
        """Fail the requests whose time is over, and send those whose turn has come."""
        late = [number for number, asked in self._asked.items() if asked[2] <= now]
        for number in late:
            asked = self._asked.pop(number, None)
            if asked is not None:
                waited = now - asked[1]
                self._times.missed(number, asked[1])
                text = f"no answer from {self.peer} within {waited:.2g} s"
                asked[0](Failure(OperationTimeout(text)))
        while self._queue and (_given_up(self._queue[0][1]) or self._queue[0][3] <= now):
            done = self._queue.popleft()[1]
            text = f"too many requests to {self.peer} were waiting"
            done(Failure(OperationTimeout(text)))
        self._send_queued()

    # -- what arrives

    def received_answer(self, answer: Answer) -> None:
        """The peer answered a request."""
        asked = self._asked.pop(answer.number, None)
        if asked is None:
            self.ignored_answers += 1
            self._times.late(answer.number, self._clock.seconds())
            # Late ones are not its fault, but each request has one at most.
            if self.ignored_answers > self._number + self._settings.requests_per_connection:
                if self._offended():
                    self.log.warn("{peer} answers what it was not asked: dropped", peer=self._name)
                self._protocol.abort()
            return
        self._times.measure(self._clock.seconds() - asked[1])
        if self._queue:
            self._send_queued()
        asked[0](answer.body)

    def received_ask(self, ask: Ask) -> None:
        """The peer asks."""
        number, protocol, settings = ask.number, self._protocol, self._settings
        queued, most = protocol.queued_bytes, settings.queued_bytes
        if queued > most // _SHARE_WHEN_CROWDED and protocol.crowded:
            most //= _SHARE_WHEN_CROWDED
        if queued > 2 * most:
            if self._offended():
                self.log.warn("{peer} asks and does not read the answers: dropped", peer=self._name)
            protocol.abort()
            return
        if type(ask.body) in self._unknown:
            self._speaks_another_version()
            return
        full = queued > most or self._answering >= settings.requests_per_connection
        if full or (protocol.late and type(ask.body) in _OF_CLIENTS):
            protocol.refused_busy()
            protocol.send(Answer(number, Busy()))
            return
        try:
            reply = self._answer(self, ask.body)
        except ChordError as error:
            self._refuse(error, number)
            return
        except Exception:
            self._decline(Failure(), number)
            return
        if isinstance(reply, Frozen):  # whether it is a Deferred takes ten times as long to tell
            self._reply(number, reply)
        elif type(reply) is Pending:
            self._answering += 1
            reply.then(partial(self._reply_pending, number))
        else:
            self._answering += 1
            reply.addBoth(self._reply_later, number)

    def _speaks_another_version(self) -> None:
        if self._offended():
            self.log.warn(
                "{peer} asks what wire version {version} does not have: dropped",
                peer=self._name,
                version=self.version,
            )
        self._protocol.abort()

    def _reply(self, number: int, reply: Any) -> None:
        try:
            self._protocol.send(Answer(number, reply))
        except ChordError as error:
            self._refuse(error, number)

    def _reply_pending(self, number: int, reply: Reply) -> None:
        self._answering -= 1
        self._reply(number, reply)

    def _reply_later(self, result: Reply | Failure, number: int) -> None:
        self._answering -= 1
        if not isinstance(result, Failure):
            self._reply(number, result)
        elif isinstance(result.value, ChordError):
            self._refuse(result.value, number)
        else:
            self._decline(result, number)

    def _refuse(self, error: ChordError, number: int) -> None:
        """The node cannot do that, and the peer may know why."""
        self._protocol.send(Answer(number, declined(error)))

    def _decline(self, failure: Failure, number: int) -> None:
        if self._offended():
            self.log.failure("could not answer a request of {peer}", failure, peer=self._name)
        self._protocol.send(Answer(number, Declined("the node failed to answer; see its log")))

    # -- the end

    @property
    def closing(self) -> bool:
        """True once this side has begun to close it, or it is gone."""
        return self._protocol.closed

    def send(self, message: Message) -> None:
        """Send a message that is neither request nor reply."""
        self._protocol.send(message)

    def close(self) -> None:
        """Close the connection after what was sent has left."""
        self._protocol.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._protocol.abort()

    @property
    def transport(self) -> Any:
        """The transport, for checks of its certificate."""
        return self._protocol.transport

    def lost(self, message: str) -> None:
        """The connection is gone: fail everything that waits."""
        self._lost = True
        asked, self._asked = self._asked, {}
        queue, self._queue = self._queue, deque()
        for done, _, _ in asked.values():
            done(Failure(PeerUnreachable(message, sent=True)))
        for _, done, _, _ in queue:
            done(Failure(PeerUnreachable(message)))


class _Fire:
    """Fires a Deferred, unless it was cancelled."""

    __slots__ = ("deferred",)

    def __init__(self, deferred: Deferred[Reply]) -> None:
        self.deferred = deferred

    def __call__(self, result: Any) -> None:
        if not self.deferred.called:
            self.deferred.callback(result)  # a Failure makes it fail


def _given_up(done: Callable[[Any], None]) -> bool:
    return isinstance(done, _Fire) and bool(done.deferred.called)
