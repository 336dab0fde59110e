"""Standard input and output beside a reactor (floor 4).

A pipe whose other end is slow must not stop the reactor, or the node would seem dead to its peers:
reading and writing wait until the descriptor is ready.  Files are read and written directly.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from .frame import CommandError

__all__ = ["Output", "lines_of", "read_all"]

#: Bytes that are collected before they are written.
_ENOUGH = 64 * 1024
#: A pipe that can be written to takes as many at least.
_PIECE = select.PIPE_BUF
_READ = 256 * 1024


@implementer(IReadDescriptor, IWriteDescriptor)
class _Ready:
    """Waits, once, for a descriptor to be ready."""

    def __init__(self, reactor: Any, number: int, *, reading: bool) -> None:
        self._reactor = reactor
        self._number = number
        self.waiting: Deferred[None] = Deferred(lambda _: self._stop())
        if reading:
            self._stop = lambda: reactor.removeReader(self)
            reactor.addReader(self)
        else:
            self._stop = lambda: reactor.removeWriter(self)
            reactor.addWriter(self)

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "standard input and output"

    def doRead(self) -> None:
        self._stop()
        self.waiting.callback(None)

    doWrite = doRead

    def connectionLost(self, reason: Failure) -> None:
        self._stop()
        if not self.waiting.called:
            self.waiting.callback(None)  # reading or writing tells what is wrong


async def _ready(reactor: Any, number: int, *, reading: bool) -> None:
    """Returns once a descriptor can be read, or written to; at once if it always can."""
    kind = os.fstat(number).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(number)):
        return
    try:
        waiting = _Ready(reactor, number, reading=reading).waiting
    except PermissionError:  # epoll knows no such thing: it never waits
        return
    await waiting


class Output:
    """Standard output, or a file.

    :ivar number: the descriptor.
    """

    def __init__(self, reactor: Any, number: int) -> None:
        self._reactor = reactor
        self.number = number
        self._parts: list[bytes] = []
        self._size = 0

    async def write(self, data: bytes) -> None:
        """Write, together with what comes soon; see :meth:`flush`.

        :raises OSError: if it cannot be.
        """
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _ENOUGH:
            await self.flush()

    async def flush(self) -> None:
        """All is written when this returns."""
        data = memoryview(b"".join(self._parts))
        self._parts.clear()
        self._size = 0
        while data:
            await _ready(self._reactor, self.number, reading=False)
            written = os.write(self.number, data[:_PIECE])
            data = data[written:]


async def read_all(reactor: Any, number: int, most: int, what: str) -> bytes:
    """All that a descriptor has.

    :raises CommandError: if that is more than `most` bytes.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        await _ready(reactor, number, reading=True)
        data = os.read(number, _READ)
        if not data:
            return b"".join(parts)
        parts.append(data)
        size += len(data)
        if size > most:
            raise CommandError(f"{what} is over the limit of {most} bytes")


async def lines_of(reactor: Any, number: int, longest: int) -> AsyncIterator[bytes]:
    """Line by line, with their ends; the last one may have none.

    :raises CommandError: if one is longer than that.
    """
    rest = b""
    while True:
        await _ready(reactor, number, reading=True)
        data = os.read(number, _READ)
        if not data:
            if rest:
                yield rest
            return
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line + b"\n"
        if len(rest) > longest:
            raise CommandError(f"a line of more than {longest} bytes is none of an export")
