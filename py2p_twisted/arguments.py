"""What a service is given, checked (floor 3)."""

from __future__ import annotations

import os
from typing import Any, cast

from .storage.interface import Storage

__all__ = ["Address", "check_address", "check_host", "check_port", "security_of", "storage_of"]

Address = tuple[str, int]


def security_of(folder: str | None, encryption: str) -> Any:
    """What a TLS folder gives, or a certificate that is made now; None for plain text.

    :raises ValueError: if the two do not fit.
    """
    if encryption != "SSL":
        if folder is not None:
            raise ValueError(f"tls= encrypts: the settings must not say {encryption!r}")
        return None
    from .wire.tls import Security

    return Security.self_made() if folder is None else Security.from_directory(folder)


def storage_of(storage: Storage | str | os.PathLike[str] | None) -> Storage | None:
    """A storage, given itself or a path.

    :raises TypeError: for anything else.
    """
    if storage is None or hasattr(storage, "durable"):
        return cast("Storage | None", storage)
    if not isinstance(storage, str | os.PathLike):
        raise TypeError(f"storage must be a path or a Storage, or None, not {storage!r}")
    from .storage.sqlite import SQLiteStorage

    return SQLiteStorage(storage)


def check_host(host: object, what: str) -> str:
    """A host, or what is wrong with it."""
    if not isinstance(host, str) or not host:
        raise TypeError(f"{what} must be a host name or an address as text, not {host!r}")
    return host


def check_port(port: object, what: str, least: int = 1) -> int:
    """A port, or what is wrong with it."""
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"{what} must be a whole number, not {port!r}")
    if not least <= port <= 65535:
        raise ValueError(f"{what} must be from {least} to 65535, not {port}")
    return port


def check_address(address: object, what: str) -> Address:
    """A host and a port, or what is wrong with them."""
    if not isinstance(address, tuple | list) or len(address) != 2:
        raise TypeError(f"{what} must be (host, port), not {address!r}")
    return check_host(address[0], f"the host of {what}"), check_port(
        address[1], f"the port of {what}"
    )
