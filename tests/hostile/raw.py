"""The other end of a connection to a node, by hand: blocking sockets on loopback (test support)."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from py2p_twisted.base import Peer
from py2p_twisted.settings import DEFAULT_PROTOCOL
from py2p_twisted.wire.codec import decode, encode
from py2p_twisted.wire.messages import OLDEST_VERSION, WIRE_VERSION, Answer, Ask, Hello

__all__ = ["HOST", "Address", "Raw", "framed", "hello", "source"]

HOST = "127.0.0.1"
Address = tuple[str, int]

#: Seconds that a test waits for what is bound to come.
PATIENCE = 20.0


def framed(*bodies: bytes) -> bytes:
    """Some frames with these contents."""
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def hello(number: int = 1, **changes: Any) -> Hello:
    """What an ordinary leeching node of the default network says."""
    peer = Peer(number.to_bytes(16, "big"), b"\x01", HOST, 9)
    said = Hello(
        *(OLDEST_VERSION, DEFAULT_PROTOCOL.subnet, DEFAULT_PROTOCOL.encryption, 6),
        *(b"", True, False, peer, 0),
        newest=WIRE_VERSION,
    )
    return msgspec.structs.replace(said, **changes)


def source(number: int) -> str:
    """One of the many addresses of loopback; nothing but Linux has them all."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


class Raw:
    """One connection to a node.  Nothing is read or written unless a test says so.

    :param origin: the address to come from.
    """

    def __init__(self, address: Address, origin: str = HOST, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if origin != HOST:
            self.socket.bind((origin, 0))
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(address)
        self._heard = b""
        self._number = 0

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this end."""
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send all of it; False if the node has closed the connection."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def say(self, *messages: Any) -> bool:
        """Send messages."""
        return self.send(framed(*map(encode, messages)))

    def meet(self, said: Hello | None = None) -> Hello:
        """Shake hands; the node's HELLO."""
        self.say(said or hello())
        heard = self.hear()
        assert isinstance(heard, Hello), heard
        return heard

    def hear(self) -> Any:
        """The next message; None once the node has closed the connection."""
        while True:
            if len(self._heard) >= 4:
                end = 4 + int.from_bytes(self._heard[:4], "big")
                if len(self._heard) >= end:
                    body, self._heard = self._heard[4:end], self._heard[end:]
                    return decode(body)
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionError:
                return None
            if not data:
                return None
            self._heard += data

    def hear_all(self) -> Iterator[Any]:
        """Every message until the node closes the connection."""
        while (message := self.hear()) is not None:
            yield message

    def ask(self, request: Any) -> Any:
        """The reply to a request; None if the node closed the connection instead.

        Requests of the node meanwhile are passed over.
        """
        self._number += 1
        self.say(Ask(self._number, request))
        for message in self.hear_all():
            if isinstance(message, Answer) and message.number == self._number:
                return message.body
        return None

    def ended(self, within: float) -> float | None:
        """Seconds until the node ends the connection; None if it does not in time."""
        began = time.monotonic()
        while (left := began + within - time.monotonic()) > 0:
            readable, _, _ = select.select([self.socket], [], [], left)
            if readable:
                with contextlib.suppress(BlockingIOError):
                    try:
                        if not self.socket.recv(1 << 16):
                            return time.monotonic() - began
                    except ConnectionError:
                        return time.monotonic() - began
        return None
