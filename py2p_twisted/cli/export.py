"""``chordctl export``: all keys and values, as JSON Lines (floor 4)."""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from datetime import datetime, timezone

from ..errors import ChordError
from .dump import LONGEST_LINE, Reader, Writer, Wrong
from .frame import CommandError, ExitCode
from .session import Session, in_ring, note
from .terminal import Progress
from .texts import count, size, visible

__all__ = ["HELP", "NAME", "configure"]

NAME = "export"
HELP = "write all keys and values to a file, or to standard output, as JSON Lines"

#: Keys that are compared at once.
_BATCH = 512


def configure(parser: argparse.ArgumentParser) -> None:
    """Add where to, and what."""
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="it is there once it is whole (default: -, stdout)"
    )
    parser.add_argument("--prefix", default="", help="only keys that begin with this")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read the file again, compare each key with the ring, and tell what changed meanwhile",
    )
    parser.set_defaults(run=in_ring(_export))


async def _export(session: Session) -> ExitCode:
    options = session.options
    file = None if options.file in (None, "-") else options.file
    if options.verify and file is None:
        raise CommandError("--verify reads the file again: name one", ExitCode.USAGE)
    writer = Writer()
    began = session.reactor.seconds()
    if file is None:
        await _write(session, session.out, writer)
        await session.out.flush()
    else:
        await _write_file(session, file, writer)
    took = session.reactor.seconds() - began
    written = "" if file is None else f" to {file}, {size(os.path.getsize(file))}"
    changed = await _verify(session, file, writer.keys) if options.verify and file else 0
    if session.json and file is not None:
        await session.emit(file=file, keys=writer.keys, seconds=took, changed=changed)
    elif session.to_terminal or file is not None:
        note(f"wrote {count(writer.keys, 'key')}{written} in {took:.1f} s")
    return ExitCode.OK


async def _write_file(session: Session, file: str, writer: Writer) -> None:
    """Write it beside, and put it in its place once it is on the disk."""
    from .streams import Output

    beside = f"{file}.part"
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            out = Output(session.reactor, number)
            await _write(session, out, writer)
            await out.flush()
            os.fsync(number)
        finally:
            os.close(number)
        os.replace(beside, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


async def _write(session: Session, out: object, writer: Writer) -> None:
    from .streams import Output

    assert isinstance(out, Output)
    prefix = os.fsencode(session.options.prefix)
    core = session.service.node.core
    progress = Progress(session.reactor, "Exporting", await session.service.count())
    try:
        head = writer.head(
            ring=core.ring_name,
            subnet=session.hello.subnet,
            k=session.hello.k,
            began=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        await out.write(head)
        async for key, value in session.service.items():
            progress.add()
            if key.startswith(prefix):
                await out.write(writer.item(key, value))
        await out.write(writer.end())
    finally:
        progress.close()


async def _verify(session: Session, file: str, keys: int) -> int:
    """How many of the keys in the file have another value in the ring by now."""
    from .streams import lines_of

    reader = Reader()
    changed = 0
    batch: dict[bytes, bytes] = {}
    progress = Progress(session.reactor, "Verifying", keys)
    try:
        with open(file, "rb") as opened:
            async for text in lines_of(session.reactor, opened.fileno(), LONGEST_LINE):
                item = reader.take(text)
                if item is not None:
                    batch[item[0]] = item[1]
                    progress.add()
                if len(batch) >= _BATCH:
                    changed += await _compare(session, batch)
                    batch = {}
        reader.close()
        changed += await _compare(session, batch)
    except Wrong as error:
        raise CommandError(f"{file} is not what was written: {error}") from None
    except ChordError as error:
        raise CommandError(f"{file} is whole; it could not be compared: {error}") from None
    finally:
        progress.close()
    note(
        f"verified {count(reader.keys, 'key')}: the file is whole, and"
        + (f" {count(changed)} have changed since" if changed else " the ring has the same")
    )
    return changed


async def _compare(session: Session, batch: dict[bytes, bytes]) -> int:
    there = await session.service.get_many(list(batch))
    different = [key for key, value in batch.items() if there.get(key) != value]
    for key in different[:3]:
        note(f"{visible(key)!r} has changed since it was written to the file")
    return len(different)
