"""``chordctl watch``: the changes of keys, as they happen (floor 4)."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from .frame import CommandError, ExitCode, whole_number
from .keys_of import bytes_of
from .session import Session, in_ring, note
from .texts import field, visible

if TYPE_CHECKING:
    from ..events import Event

__all__ = ["HELP", "NAME", "configure"]

NAME = "watch"
HELP = "print the changes of a key, or of all keys with a prefix, as they happen"

#: Seconds after which somebody who sees nothing wants to know why.
_PATIENCE = 3.0
_COLORS = {"add": "green", "change": "yellow", "delete": "red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what to watch."""
    parser.usage = "%(prog)s [options] (KEY | --prefix P)"
    parser.add_argument("more", metavar="KEY", nargs="*", help="the key")
    parser.add_argument("--prefix", help="all keys that begin with this; '' is all keys")
    parser.add_argument("--base64", action="store_true", help="the key is written in base64")
    parser.add_argument(
        "--initial", action="store_true", help="begin with what is there already, as additions"
    )
    parser.add_argument(
        "--limit", metavar="N", type=whole_number(1, 2**62), help="end after so many events"
    )
    parser.set_defaults(run=in_ring(_watch))


async def _watch(session: Session) -> ExitCode:
    options = session.options
    if len(options.more) != (options.prefix is None):
        raise CommandError("say a key, or --prefix", ExitCode.USAGE)
    what: dict[str, Any] = (
        {"key": bytes_of(options, options.more[0])}
        if options.more
        else {"prefix": os.fsencode(options.prefix)}
    )
    number = 0
    watch = session.service.watch(**what, initial=options.initial)
    try:
        late = session.reactor.callLater(
            _PATIENCE, note, "part of the ring does not answer: its changes come once it does"
        )
        try:
            await watch.ready()
        finally:
            if late.active():
                late.cancel()
        if sys.stderr is not None and sys.stderr.isatty():
            note("watching; Ctrl-C ends it")
        async for event in watch:
            await _tell(session, event)
            number += 1
            if number == options.limit:
                break
    finally:
        await watch.aclose()
    return ExitCode.OK


async def _tell(session: Session, event: Event) -> None:
    """One line, at once."""
    if session.json:
        value = {} if event.value is None else field("value", event.value)
        await session.emit(
            event=event.kind,
            **field("key", event.key),
            **value,
            version=str(event.version),
            skipped=event.skipped,
        )
    else:
        kind = session.style.paint(event.kind.ljust(6), _COLORS[event.kind])
        value_shown = "" if event.value is None else f"  {visible(event.value)}"
        missed = "  (other changes before it are not told)" if event.skipped else ""
        await session.say(f"{kind}  {visible(event.key)}{value_shown}{missed}")
    await session.out.flush()
