"""What a network is called and how its members are written down (floor 0; does no input or output).

Owns :class:`protocol` (the name of a network), the base 58 alphabet, and :class:`Peer` (the name of
a member).  Never touches a socket.
"""

from __future__ import annotations

import re
from hashlib import sha256
from ipaddress import ip_address
from typing import Annotated, NamedTuple

import msgspec

__all__ = [
    "ENCRYPTIONS",
    "Peer",
    "from_base_58",
    "network_name",
    "protocol",
    "to_base_58",
]

#: The encryptions that :class:`protocol` knows.
ENCRYPTIONS = ("Plaintext", "SSL")

_ALPHABET = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGIT = {character: value for value, character in enumerate(_ALPHABET)}


def to_base_58(number: int) -> bytes:
    """Write a number that is not negative in base 58, without leading zeros (zero is ``b"1"``).

    :raises ValueError: for a negative number.
    """
    if number < 0:
        raise ValueError(f"base 58 has no sign: {number}")
    digits = bytearray()
    while True:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
        if not number:
            return bytes(reversed(digits))


def from_base_58(text: bytes | str) -> int:
    """Read a number that :func:`to_base_58` wrote.

    :raises ValueError: for an empty text or a character outside the alphabet.
    """
    raw = text.encode("utf-8") if isinstance(text, str) else bytes(text)
    if not raw:
        raise ValueError("an empty text is no base 58 number")
    number = 0
    for character in raw:
        digit = _DIGIT.get(character)
        if digit is None:
            raise ValueError(f"{text!r} is not base 58: unexpected character {chr(character)!r}")
        number = number * 58 + digit
    return number


class _Protocol(NamedTuple):
    subnet: str
    encryption: str


class protocol(_Protocol):  # noqa: N801 - py2p's documented name
    """The name of a network: nodes connect only to nodes whose protocol is equal.

    :param subnet: any text; programs that should not meet choose different ones.
    :param encryption: ``"Plaintext"`` or ``"SSL"``.
    :raises ValueError: for an unknown encryption.
    """

    __slots__ = ()

    def __new__(cls, subnet: str, encryption: str) -> protocol:
        """Check the encryption; the class tells the rest."""
        if encryption not in ENCRYPTIONS:
            expected = " or ".join(repr(name) for name in ENCRYPTIONS)
            raise ValueError(f"unknown encryption {encryption!r}: expected {expected}")
        return super().__new__(cls, str(subnet), encryption)

    @property
    def id(self) -> str:
        """The protocol's identity as base 58 text: a hash over both fields."""
        digest = sha256(f"{self.encryption}\0{self.subnet}".encode())
        return to_base_58(int.from_bytes(digest.digest(), "big")).decode("ascii")


def network_name(prot: protocol, k: int) -> str:
    """What two nodes must have in common to talk: the protocol's id and k."""
    return prot.id + to_base_58(k).decode("ascii")


class Peer(msgspec.Struct, frozen=True, array_like=True):
    """One node, as others know it.

    :ivar instance: 16 random bytes that name one memory of the node.
    :ivar identifier: its place on the circle, big-endian bytes (:func:`ring.circle.to_bytes`).
    :ivar host: the host that others dial.
    :ivar port: the port that others dial.
    """

    instance: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    identifier: Annotated[bytes, msgspec.Meta(min_length=1, max_length=20)]
    host: Annotated[str, msgspec.Meta(max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]

    @property
    def id(self) -> int:
        """The place on the circle as an integer."""
        return int.from_bytes(self.identifier, "big")

    @property
    def address(self) -> tuple[str, int]:
        """``(host, port)``."""
        return (self.host, self.port)

    def __str__(self) -> str:
        return f"{to_base_58(self.id).decode()} at {show_address(self.host, self.port)}"


def count_of(number: int, what: str) -> str:
    """So many of something, for people: ``1 key``, ``2 keys``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def parse_address(text: str) -> tuple[str, int] | None:
    """Read ``HOST:PORT``, IPv6 hosts in brackets; None if it is no such thing."""
    host, _, port = text.rpartition(":")
    if port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535:
        if re.fullmatch(r"[\w.-]+", host):
            return host, int(port)
        if host.startswith("[") and host.endswith("]") and ":" in host and is_ip(host[1:-1]):
            return host[1:-1], int(port)
    return None


def is_ip(text: str) -> bool:
    """Is this an IPv4 or IPv6 address?"""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def show_address(host: str, port: int) -> str:
    """Write an address for people: ``host:port``, IPv6 hosts in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
