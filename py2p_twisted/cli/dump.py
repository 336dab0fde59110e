"""The format of an export: JSON Lines (floor 4; pure).

The first line says what it is, the last one how many keys there are and the SHA-256 of all bytes
before it; so a file that was cut short is noticed.  Between them stands one line for each key.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from .texts import field, line, of_field

__all__ = ["LONGEST_LINE", "Reader", "Writer", "Wrong"]

_VERSION = 1
_HEAD = "chordctl_export"
#: A value of 1 MiB in JSON, at most six bytes for each of its bytes, and its key.
LONGEST_LINE = 8 * 1024 * 1024


class Wrong(ValueError):
    """It is no export, or not all of one; for people."""


class Writer:
    """Makes the lines of an export, one after the other.

    :ivar keys: how many there are so far.
    """

    def __init__(self) -> None:
        self.keys = 0
        self._digest = sha256()

    def head(self, **about: Any) -> bytes:
        """The first line."""
        return self._take(line({_HEAD: _VERSION, **about}))

    def item(self, key: bytes, value: bytes) -> bytes:
        """The line of one key."""
        self.keys += 1
        return self._take(line({**field("key", key), **field("value", value)}))

    def end(self) -> bytes:
        """The last line."""
        return line({"keys": self.keys, "sha256": self._digest.hexdigest()})

    def _take(self, text: bytes) -> bytes:
        self._digest.update(text)
        return text


class Reader:
    """Takes the lines of an export, one after the other.

    :param loose: it need not have a first and a last line: somebody made it by hand.
    :ivar keys: how many there were so far.
    :ivar number: of the last line, from 1.
    """

    def __init__(self, *, loose: bool = False) -> None:
        self.keys = 0
        self.number = 0
        self._loose = loose
        self._digest = sha256()
        self._ended = False

    def take(self, text: bytes) -> tuple[bytes, bytes] | None:
        """One line: a key and its value, or None if it is another kind of line.

        :raises Wrong: if it cannot be where it is.
        """
        self.number += 1
        if not text.strip():
            self._digest.update(text)
            return None
        if self._ended:
            raise Wrong(f"line {self.number}: something follows the last line of the export")
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            cut = "" if text.endswith(b"\n") else ": the file was cut short"
            raise Wrong(f"line {self.number}: it is no JSON{cut}") from None
        if not isinstance(entry, dict):
            raise Wrong(f"line {self.number}: it is no JSON object")
        if "sha256" in entry and "key" not in entry and "key_base64" not in entry:
            self._end(entry)
            return None
        if self.number == 1 and not self._loose:
            self._head(entry)
            self._digest.update(text)
            return None
        self._digest.update(text)
        if _HEAD in entry:
            return None
        self.keys += 1
        try:
            return of_field("key", entry), of_field("value", entry)
        except ValueError as error:
            raise Wrong(f"line {self.number}: {error}") from None

    def close(self) -> None:
        """There are no more lines.

        :raises Wrong: if the last one is missing.
        """
        if not self._ended and not self._loose:
            raise Wrong(
                f"its last line is missing after line {self.number}: it was cut short"
                if self.number
                else "it is empty"
            )

    def _head(self, entry: dict[str, Any]) -> None:
        version = entry.get(_HEAD)
        if version is None:
            raise Wrong(
                "its first line is not that of an export; --loose takes lines with keys and values"
                " of any origin"
            )
        if version != _VERSION:
            raise Wrong(f"it has format {version!r}, and this chordctl knows format {_VERSION}")

    def _end(self, entry: dict[str, Any]) -> None:
        self._ended = True
        if self._loose:
            return
        if entry.get("keys") != self.keys:
            raise Wrong(f"it ends with {entry.get('keys')!r} keys, and has {self.keys}")
        if entry["sha256"] != self._digest.hexdigest():
            raise Wrong("its SHA-256 is another one: it was changed or damaged")
