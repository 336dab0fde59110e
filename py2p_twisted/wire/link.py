"""One connection after its handshake: requests, their replies, and how long they took (floor 1).

Every request has a bounded wait, without a timer of its own: :class:`~.links.Links` sweeps all of
them together.  Late, repeated and stray answers are ignored and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import ChordError, OperationTimeout, Overloaded, PeerUnreachable
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
from .waiting import Asking, Fire, Pending, given_up
from .window import Window

if TYPE_CHECKING:
    from .protocol import MessageProtocol

__all__ = ["Link", "Pending"]

#: The part of its queue that a peer may use when all queues together are long.
_SHARE_WHEN_CROWDED = 64


#: What begins an operation.  What goes on with one is never refused: it would begin again; nor does
#: it wait for its turn behind what begins one.
_OF_CLIENTS = {Read, ReadMany, WriteOne, WriteMany, Page, Count}
#: Those of many keys take long, and so does what is sent after them.
_LONG = {ReadMany, WriteMany, Page}
#: For so many seconds after one of these, round trips tell nothing about the load.
_LONG_FOR = 1.0


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
        self._window = Window(settings)
        self._long_until = 0.0  # see _LONG
        self._at_work_on = inf  # when the oldest was sent that was answered since the last sweep
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
            `Overloaded` if too many wait.  What the peer's wire version does not have is not
            sent: `Declined` here says so.
        """
        deferred = Asking(self._cancelled)
        self.request(request, Fire(deferred), timeout)
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
        elif (self._has_room() and not self._queue) or self._goes_on(request):
            self._send(request, done, timeout)
        elif self._may_wait(request):
            until = self._clock.seconds() + settings.operation_timeout
            self._queue.append((request, done, timeout, until))
        else:
            done(Failure(Overloaded(f"{len(self._queue)} requests to {self.peer} wait already")))

    def _has_room(self) -> bool:
        return len(self._asked) < self._window.size and not self._protocol.held

    def _goes_on(self, request: Request) -> bool:
        """May it be sent though the peer is busy?"""
        return (
            type(request) not in _OF_CLIENTS
            and len(self._asked) < self._settings.requests_per_connection
            and not self._protocol.held
        )

    def _may_wait(self, request: Request) -> bool:
        """Would its turn come soon enough?"""
        queued, settings = len(self._queue), self._settings
        if type(request) in _OF_CLIENTS and (
            self._window.wait(queued, self._times.smoothed) > settings.queue_patience
        ):
            return False
        return queued < settings.queued_requests

    def _send(self, request: Request, done: Callable[[Any], None], timeout: float | None) -> None:
        self._number = number = self._number + 1
        now = self._clock.seconds()
        wait = self._times.timeout(now) if timeout is None else timeout
        if not self._asked:
            self._at_work_on = inf
        self._asked[number] = (done, now, now + wait)
        if type(request) in _LONG:
            self._long_until = now + _LONG_FOR
        if type(done) is Fire:
            done.deferred.number = number
        try:
            self._protocol.send(Ask(number, request))
        except ChordError:
            del self._asked[number]
            done(Failure())

    def _send_queued(self) -> None:
        while self._queue and self._has_room():
            request, done, timeout, _ = self._queue.popleft()
            if not given_up(done):
                self._send(request, done, timeout)

    def _cancelled(self, deferred: Any) -> None:
        self._asked.pop(deferred.number, None)

    def sweep(self, now: float) -> None:
        """Fail the requests whose time is over, and send those whose turn has come.

        A peer that answers what it was asked earlier is not silent but busy: it has the longest
        time of all for what comes next.
        """
        longest = now - self._settings.request_timeout_max
        at_work_on, self._at_work_on = self._at_work_on, inf
        late = [
            number
            for number, (_, sent_at, until) in self._asked.items()
            if until <= now and (sent_at < at_work_on or sent_at <= longest)
        ]
        for number in late:
            asked = self._asked.pop(number, None)
            if asked is not None:
                waited = now - asked[1]
                self._times.missed(number, asked[1])
                self._window.busy(number, self._number, len(late) + len(self._asked))
                text = f"no answer from {self.peer} within {waited:.2g} s"
                asked[0](Failure(OperationTimeout(text)))
        while self._queue and (given_up(self._queue[0][1]) or self._queue[0][3] <= now):
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
        sent_at, now = asked[1], self._clock.seconds()
        self._times.measure(now - sent_at)
        if sent_at < self._at_work_on:
            self._at_work_on = sent_at
        under_way = 1 + len(self._asked)
        slow = self._window.is_slow(now - sent_at) and now > self._long_until
        if slow or type(answer.body) is Busy:
            self._window.busy(answer.number, self._number, under_way)
        else:
            self._window.answered(under_way)
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
