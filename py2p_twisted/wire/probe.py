"""Who is at an address: asked before anything is known of it (floor 1).

Learns the network of a node that would refuse the HELLO of another one: its k and subnet, its ring,
its address and version.  A probe is one connection of its own, that no node takes for a peer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from ..base import show_address
from ..errors import BadMessage, ChordError, PeerUnreachable
from ..settings import Settings
from .complaints import printable
from .endpoints import Endpoints, looks_like_tls, no_node, plain_text_met_tls, unreachable
from .messages import Hello, Message, Refused, Who
from .outbox import Outbox
from .protocol import MessageProtocol

__all__ = ["probe"]

_NUMBERS = Settings()


def probe(
    clock: Any,
    endpoints: Endpoints,
    security: Any,
    address: tuple[str, int],
    timeout: float = _NUMBERS.handshake_timeout,
) -> Deferred[Hello]:
    """Ask who is at an address.

    :param clock: IReactorTime.
    :param security: this side's TLS; None for plain text.
    :param timeout: seconds for all of it.
    :returns: fires with what the node announces; fails with `PeerUnreachable`, with
        `NetworkMismatch` if one side encrypts and the other does not, or with
        `AuthenticationFailed`.
    """
    return Deferred.fromCoroutine(_Probe(clock, security, address).ask(endpoints, timeout))


class _Probe:
    """One connection, from its first byte to its last."""

    def __init__(self, clock: Any, security: Any, address: tuple[str, int]) -> None:
        self._clock = clock
        self._security = security
        self._host, self._port = address
        self._name = show_address(*address)
        self._heard: Deferred[Hello] = Deferred()
        self._outbox = Outbox(clock)
        self._protocol = MessageProtocol(
            self, self._outbox, _NUMBERS.max_hello, _NUMBERS.max_frame
        )  # fmt: skip

    async def ask(self, endpoints: Endpoints, timeout: float) -> Hello:
        """All of it."""
        protocol = self._protocol

        class Once(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Protocol:
                return protocol

        connecting = endpoints.connect(self._host, self._port, Once())
        waiting: list[Deferred[Any]] = [connecting]
        over = self._clock.callLater(timeout, lambda: waiting[-1].cancel())
        try:
            try:
                await connecting
            except (CancelledError, ConnectingCancelledError):
                raise CancelledError from None
            except Exception:
                raise self._why(Failure()) from None
            waiting.append(self._heard)
            return await self._heard
        except CancelledError:
            if over.active():  # the user's wish
                raise
            if waiting[-1] is connecting:
                raise PeerUnreachable(f"{self._name} did not answer in {timeout:g} s") from None
            raise no_node(self._name, f"said nothing for {timeout:g} s") from None
        finally:
            if over.active():
                over.cancel()
            if protocol.transport is not None:
                protocol.abort()
            self._outbox.stop()

    def _why(self, reason: Failure) -> ChordError:
        if self._security is not None:
            error: ChordError = self._security.explain(reason, self._name)
            return error
        return unreachable(reason, self._name)

    def _end(self, result: Hello | ChordError) -> None:
        if self._heard.called:
            return
        if isinstance(result, Hello):
            self._heard.callback(result)
        else:
            self._heard.errback(result)

    # -- Receiver

    def connected(self) -> None:
        """The connection is made."""
        self._protocol.send(Who())

    def received(self, message: Message) -> None:
        """The answer."""
        if isinstance(message, Hello):
            self._end(message)
        elif isinstance(message, Refused):
            reason = printable(message.reason)
            self._end(PeerUnreachable(f"{self._name} does not tell who it is: {reason}"))
        else:
            self._end(no_node(self._name, "answered something else"))

    def garbled(self, error: BadMessage, first_bytes: bytes) -> None:
        """What arrived is no message."""
        if self._security is None and looks_like_tls(first_bytes):
            self._end(plain_text_met_tls(self._name))
        else:
            self._end(no_node(self._name, "sent what is no message"))

    def disconnected(self, reason: Failure) -> None:
        """The connection is gone."""
        error = self._why(reason)
        if type(error) is PeerUnreachable:
            error = PeerUnreachable(
                f"{self._name} closed the connection when it was asked who it is: it has no room"
                " for one more, or runs a version that cannot be asked"
            )
        self._end(error)
