"""``chordctl import``: write what an export holds (floor 4)."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import AsyncIterator, Iterator

from ..errors import ChordError
from .dump import LONGEST_LINE, Reader, Wrong
from .frame import CommandError, ExitCode
from .session import Session, in_ring, note
from .terminal import Progress
from .texts import count, visible

__all__ = ["HELP", "NAME", "configure"]

NAME = "import"
HELP = "write the keys and values of an export into the ring, over what is there"

#: Keys, and bytes, that are written at once.
_BATCH_KEYS, _BATCH_BYTES = 512, 512 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Add where from."""
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="it is checked before anything is written (default: -, standard input, which cannot"
        " be)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="read everything back that was written"
    )
    parser.add_argument(
        "--loose",
        action="store_true",
        help="take lines with keys and values of any origin: no first and last line is needed",
    )
    parser.set_defaults(run=in_ring(_import))


async def _import(session: Session) -> ExitCode:
    options = session.options
    name = "standard input" if options.file in (None, "-") else options.file
    if options.file is None and os.isatty(session.stdin):
        raise CommandError("name the file, or pipe it in", ExitCode.USAGE)
    began = session.reactor.seconds()
    opened = None if name == "standard input" else open(options.file, "rb")  # noqa: SIM115
    try:
        number = session.stdin if opened is None else opened.fileno()
        total = None
        if stat.S_ISREG(os.fstat(number).st_mode):
            total = await _check(session, number, name)
        loader = _Loader(session, name, total)
        await loader.load(number)
    finally:
        if opened is not None:
            opened.close()
    took = session.reactor.seconds() - began
    if session.json:
        wrong = {"different": loader.different} if options.verify else {}
        await session.emit(keys=loader.written, seconds=took, **wrong)
    else:
        verified = ", and read them back" if options.verify else ""
        note(f"wrote {count(loader.written, 'key')}{verified} in {took:.1f} s")
    return ExitCode.FAILED if loader.different else ExitCode.OK


async def _check(session: Session, number: int, name: str) -> int:
    """Read all of a file before anything is written: how many keys it has."""
    from .streams import lines_of

    start = os.lseek(number, 0, os.SEEK_CUR)
    reader = Reader(loose=session.options.loose)
    progress = Progress(session.reactor, "Checking")
    try:
        async for text in lines_of(session.reactor, number, LONGEST_LINE):
            if reader.take(text) is not None:
                progress.add()
        reader.close()
    except Wrong as error:
        raise CommandError(f"{name}: {error}. Nothing was written") from None
    finally:
        progress.close()
    os.lseek(number, start, os.SEEK_SET)
    return reader.keys


class _Loader:
    """Writes batch after batch."""

    def __init__(self, session: Session, name: str, total: int | None) -> None:
        self.written = 0
        self.different = 0
        self._session = session
        self._name = name
        self._progress = Progress(session.reactor, "Importing", total)
        self._reader = Reader(loose=session.options.loose)

    async def load(self, number: int) -> None:
        """Write all that can be read."""
        service = self._session.service
        try:
            async for batch in self._batches(number):
                await service.update(batch)
                self.written += len(batch)
                if self._session.options.verify:
                    await self._compare(batch)
                self._progress.add(len(batch))
        except Wrong as error:
            raise CommandError(f"{self._name}: {error}. {self._so_far()}") from None
        except ChordError as error:
            code = ExitCode.UNKNOWN if error.outcome_unknown else ExitCode.FAILED
            raise CommandError(f"{error}. {self._so_far()}", code) from None
        finally:
            self._progress.close()

    def _so_far(self) -> str:
        return (
            f"{count(self.written, 'key')} were written before, and some more may be; import again"
            " once that is mended: what is there is written over"
        )

    async def _batches(self, number: int) -> AsyncIterator[dict[bytes, bytes]]:
        from .streams import lines_of

        batch: dict[bytes, bytes] = {}
        size = 0
        async for text in lines_of(self._session.reactor, number, LONGEST_LINE):
            item = self._reader.take(text)
            if item is None:
                continue
            batch[item[0]] = item[1]
            size += len(item[0]) + len(item[1])
            if len(batch) >= _BATCH_KEYS or size >= _BATCH_BYTES:
                yield batch
                batch, size = {}, 0
        self._reader.close()
        if batch:
            yield batch

    async def _compare(self, batch: dict[bytes, bytes]) -> None:
        there = await self._session.service.get_many(list(batch))
        for key in self._different(batch, there):
            self.different += 1
            if self.different <= 3:
                note(f"{visible(key)!r} is not what was written: somebody else writes, too")

    @staticmethod
    def _different(batch: dict[bytes, bytes], there: dict[bytes, bytes]) -> Iterator[bytes]:
        return (key for key, value in batch.items() if there.get(key) != value)
