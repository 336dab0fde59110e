"""One connection as Twisted sees it: bytes in, messages out, and back (floor 1).

Owns framing and decoding; :class:`~.outbox.Outbox` says when to write.  Never knows what a message
means.
"""

from __future__ import annotations

from struct import Struct
from typing import Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import BadMessage, ValueTooLarge
from .codec import decode, encode
from .endpoints import tune
from .messages import Message
from .outbox import Outbox

__all__ = ["MessageProtocol", "Receiver"]

_length = Struct("!I")

#: What keeping one message costs besides its bytes: two objects and their places in a list.
_MESSAGE_OVERHEAD = 100


class Receiver(Interface):
    """Who gets what one connection receives."""

    def connected(self) -> None:
        """The connection is made; nothing was received yet."""

    def received(self, message: Message) -> None:
        """A message arrived."""

    def garbled(self, error: BadMessage, first_bytes: bytes) -> None:
        """What arrived is no message; nothing more is received, and the connection ends."""

    def disconnected(self, reason: Failure) -> None:
        """The connection is gone."""


@implementer(IPushProducer)
class MessageProtocol(Int32StringReceiver):
    """Messages over a byte stream: a four-byte length, then MessagePack.

    :param receiver: gets what arrives.
    :param outbox: the node's.
    :param max_length: bytes of the longest frame that is accepted; may be changed at any time.
    :param max_sent: bytes of the longest frame that peers accept.
    :ivar queued_bytes: what was sent, and the peer has not taken yet, costs this many bytes.
    :ivar arrived_at: on the clock, when the last bytes came.
    :ivar held: True while the peer reads more slowly than this side writes.
    :ivar late: what is dealt with now has waited too long for its turn.
    :ivar closed: True once this side has begun to close, or the connection is gone.
    """

    transport: Any  # an ITCPTransport that is an IConsumer too
    #: Frames at least this long are collected without copying what came before.
    collect_from = 16 * 1024
    #: Pieces of a long frame that are shorter are copied together: each has a cost of its own.
    small_piece = 4 * 1024

    def __init__(
        self, receiver: Receiver, outbox: Outbox, max_length: int, max_sent: int = 1 << 31
    ) -> None:
        self.MAX_LENGTH = max_length
        self.queued_bytes = 0
        self._max_sent = max_sent
        self._receiver = receiver
        self._outbox = outbox
        self._out: list[bytes] = []
        self.held = False
        self._left = False  # something was left to the transport, which may not have sent it yet
        self.closed = False
        self._chunks: list[bytes | bytearray] = []
        self._missing = 0
        self._in_transport = 0  # bytes that the transport took and could not send
        self._seconds = outbox.clock.seconds
        self._turn_ends = 0.0
        self.arrived_at = 0.0
        self.late = False  # what is dealt with now has waited for too long

    def connectionMade(self) -> None:
        """Twisted: the connection is made."""
        tune(self.transport)
        self.transport.registerProducer(self, True)
        self._receiver.connected()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes arrived."""
        self._outbox.enter()
        self.arrived_at = self._seconds()
        self.late = False
        try:
            if self._is_one_frame(data):
                self._take_frame(data[4:])
                return
            if self._missing and not self.closed:
                data = self._collect(data)
            if data and not self.closed:
                self._take_turn(data)
        finally:
            self._outbox.leave()

    def _is_one_frame(self, data: bytes) -> bool:
        """Is it what most of what arrives is: one whole frame, and nothing before or after it?"""
        size = len(data) - 4
        if not 0 <= size <= self.MAX_LENGTH or _length.unpack_from(data)[0] != size:
            return False
        return not (self._unprocessed or self._missing or self.closed)

    def _take_turn(self, data: bytes) -> None:
        """Deal with what arrived, for so long that others have their turn, too."""
        was_paused = self.paused
        self._turn_ends = self._seconds() + self._outbox.share
        super().dataReceived(data)
        if was_paused or self.closed:
            return
        if self.paused and self._more_to_do():
            self.transport.pauseProducing()
            self._outbox.go_on_later(self)
        else:
            self.paused = False
            self._expect_long_frame()

    def _more_to_do(self) -> bool:
        """Is there more than the beginning of a frame?"""
        pending = self._unprocessed
        if len(pending) < 4:
            return False
        length: int = _length.unpack_from(pending)[0]
        return len(pending) >= 4 + length or length > self.MAX_LENGTH

    def go_on(self) -> None:
        """Deal with what was left of the last turn."""
        self.paused = False
        if self.closed:
            return
        self.late = self._seconds() - self.arrived_at > self._outbox.most_wait
        self._outbox.enter()
        try:
            self._take_turn(b"")
        finally:
            self._outbox.leave()
        if not self.paused and not self.closed:
            self.transport.resumeProducing()

    def _collect(self, data: bytes) -> bytes:
        last = self._chunks[-1]
        if len(data) >= self.small_piece:
            self._chunks.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._chunks.append(bytearray(data))
        self._missing -= len(data)
        if self._missing > 0:
            return b""
        whole = b"".join(self._chunks)
        self._chunks.clear()
        self._missing = 0
        return whole

    def _expect_long_frame(self) -> None:
        # Int32StringReceiver joins its buffer with every chunk, which is quadratic for long frames.
        pending = self._unprocessed
        if len(pending) < 4 or self.closed:
            return
        wanted = 4 + _length.unpack_from(pending)[0]
        if wanted >= self.collect_from:
            self._chunks.append(pending)
            self._missing = wanted - len(pending)
            self._unprocessed = b""

    def stringReceived(self, string: bytes) -> None:
        """Twisted: a whole frame arrived."""
        if self.closed:
            return
        self._take_frame(string)
        if self._seconds() > self._turn_ends:
            self.paused = True  # Twisted: the loop that calls this one ends

    def _take_frame(self, frame: bytes) -> None:
        try:
            message = decode(frame)
        except BadMessage as error:
            self._garbled(error, frame[:4])
        else:
            self._receiver.received(message)

    def lengthLimitExceeded(self, length: int) -> None:
        """Twisted: a frame was announced that is too long."""
        error = BadMessage(f"a frame of {length} bytes is announced; {self.MAX_LENGTH} are allowed")
        self._garbled(error, _length.pack(length))

    def _garbled(self, error: BadMessage, first_bytes: bytes) -> None:
        if not self.closed:
            self._receiver.garbled(error, first_bytes)
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the connection is gone."""
        self._forget()
        self._receiver.disconnected(reason)

    # -- sending

    def send(self, message: Message) -> int:
        """Send a message at the end of this turn; returns its size in bytes.

        :raises ValueTooLarge: if the peer would refuse it; nothing is sent.
        """
        body = encode(message)
        size = len(body)
        if size > self._max_sent:
            raise ValueTooLarge(f"a message of {size} bytes is over the limit of {self._max_sent}")
        if self.closed:
            return size
        if not self._out:
            self._outbox.add(self)
        self._out += (_length.pack(size), body)
        self.queued_bytes += size + _MESSAGE_OVERHEAD
        self._outbox.queued_bytes += size + _MESSAGE_OVERHEAD
        return size

    def _count(self, size: int) -> None:
        self.queued_bytes += size
        self._outbox.queued_bytes += size

    def flush(self) -> None:
        """Write what was sent, unless the transport asked to wait.

        A message that is alone goes to the kernel at once: one request at a time would otherwise
        wait for the next turn of both reactors.
        """
        if not self._out or self.held:
            return
        transport = self.transport
        alone = len(self._out) == 2  # its length and its body
        data = self._take()
        if alone and isinstance(transport, TCPConnection):
            self._left = self._left and transport in transport.reactor.getWriters()
            if not self._left:  # nothing is before it
                sent = transport.writeSomeData(data)
                if sent == len(data):
                    return
                if isinstance(sent, int):
                    data = data[sent:]
            self._left = True
            transport.write(data)
            transport.doWrite()  # an error comes again when the reactor calls it
        else:
            self._left = True
            transport.write(data)
        if self.held:  # the transport asked to wait
            self._in_transport = len(data)
            self._count(len(data))

    def _take(self) -> bytes:
        data = b"".join(self._out)
        self._out.clear()
        self._count(self._in_transport - self.queued_bytes)
        return data

    @property
    def crowded(self) -> bool:
        """Is so much queued for all peers of this node that each has to do with little?"""
        return self._outbox.crowded

    def refused_busy(self) -> None:
        """A request is refused because there is too much to do."""
        self._outbox.busy += 1

    def pauseProducing(self) -> None:
        """Twisted: the transport's buffer is full."""
        self.held = True

    def resumeProducing(self) -> None:
        """Twisted: the transport's buffer has room again."""
        self.held = False
        self._count(-self._in_transport)
        self._in_transport = 0
        self.flush()

    def stopProducing(self) -> None:
        """Twisted: the transport is gone."""
        self.held = True

    # -- closing

    def close(self) -> None:
        """Close after what was sent has left; nothing more is received."""
        if not self.closed:
            if self._out:
                self.transport.write(self._take())
            self._forget()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        self._forget()
        self.transport.abortConnection()

    def _forget(self) -> None:
        self.closed = True
        self._count(-self.queued_bytes)
        self._in_transport = 0
        self._out.clear()
        self._chunks.clear()
