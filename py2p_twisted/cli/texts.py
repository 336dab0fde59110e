"""Bytes as people, terminals and JSON want them (floor 4; pure).

In JSON a key or value that is UTF-8 stands as text under its name, anything else in base64 under
the name with ``_base64`` behind it; so every text means itself.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["count", "field", "from_base64", "line", "of_field", "seconds", "size", "visible"]


def field(name: str, data: bytes) -> dict[str, str]:
    """A key or value as a member of a JSON object."""
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode("ascii")}


def of_field(name: str, entry: Mapping[str, Any]) -> bytes:
    """What :func:`field` made a member of.

    :raises ValueError: if there is none, or two, or it is not what it should be.
    """
    text, coded = entry.get(name), entry.get(f"{name}_base64")
    if (text is None) == (coded is None):
        raise ValueError(f'it needs either "{name}" or "{name}_base64"')
    if text is not None:
        if not isinstance(text, str):
            raise ValueError(f'"{name}" must be text, not {text!r:.40}')
        return text.encode("utf-8")
    if not isinstance(coded, str):
        raise ValueError(f'"{name}_base64" must be text, not {coded!r:.40}')
    return from_base64(coded)


def from_base64(text: str) -> bytes:
    """Read base64.

    :raises ValueError: if it is none.
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError(f"{text:.40} is not base64") from None


def line(entry: Mapping[str, Any]) -> bytes:
    """One JSON object on a line of its own."""
    return json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"


def visible(data: bytes, *, lines: bool = False) -> str:
    """For a terminal: what could steer it is escaped.

    :param lines: the ends of lines and tabs stay.
    """
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def count(number: int, what: str = "") -> str:
    """A number with its thousands apart; of what, if that is told: ``1 key``, ``2,000 keys``."""
    if not what:
        return f"{number:,}"
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def size(number: float) -> str:
    """So many bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return (
                f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
            )
        number /= 1024
    return f"{number:.1f} TiB"


def seconds(number: float) -> str:
    """A time, in the two largest units, or in one if it is short."""
    if number < 0.001:
        return f"{number * 1e6:.0f} µs"
    if number < 1:
        return f"{number * 1e3:.1f} ms" if number < 0.1 else f"{number * 1e3:.0f} ms"
    if number < 60:
        return f"{number:.1f} s" if number < 10 else f"{number:.0f} s"
    for unit, smaller, length, part in (("min", "s", 60, 1), ("h", "min", 3600, 60)):
        if number < length * (60 if unit == "min" else 24):
            return f"{number // length:.0f} {unit} {number % length // part:.0f} {smaller}"
    return f"{number // 86400:.0f} d {number % 86400 // 3600:.0f} h"
