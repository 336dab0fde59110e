"""Where to listen for HTTP, as an operator writes it (floor 4; opens nothing).

An endpoint is a Twisted endpoint description, or only a port.  Twisted's own default is all
interfaces; here it is loopback, unless one is named.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

__all__ = ["endpoint_of", "on_loopback"]

#: Kinds that have an interface: at which place it may stand without its name, and loopback.
_INTERFACES = {
    "tcp": (1, "127.0.0.1"),
    "tcp6": (2, r"\:\:1"),
    "ssl": (4, "127.0.0.1"),
}

_EXPECTED = (
    "expected a port such as 8080, which only this machine reaches, or an endpoint such as "
    "tcp:8080:interface=0.0.0.0 or unix:/run/chord.sock"
)


def on_loopback(text: str) -> str:
    """The Twisted description of an endpoint, on loopback unless it names an interface.

    :raises ValueError: for a port that cannot be one.
    """
    description = f"tcp:{text}" if text.isascii() and text.isdigit() else text
    kind, *fields = re.split(r"(?<!\\):", description)
    if kind not in _INTERFACES:
        return description
    named = {field.partition("=")[0]: field.partition("=")[2] for field in fields if "=" in field}
    in_order = [field for field in fields if "=" not in field]
    port = named.get("port", in_order[0] if in_order else "")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{text!r} has no port from 0 to 65535: {_EXPECTED}")
    place, loopback = _INTERFACES[kind]
    if "interface" in named or len(in_order) > place:
        return description
    return f"{description}:interface={loopback}"


def endpoint_of(reactor: Any, text: str, *, encrypted: bool) -> IStreamServerEndpoint:
    """The endpoint that a text describes.

    :param encrypted: the ring has TLS, which the endpoint will be put under.
    :raises ValueError: it describes none, or brings a certificate where the ring has its own.
    """
    description = on_loopback(text)
    if encrypted and description.startswith("ssl:"):
        raise ValueError(
            f"{text!r} brings a certificate of its own, and the ring's is used: say tcp: instead"
        )
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{text!r} is no endpoint ({error}): {_EXPECTED}") from error
    return endpoint
