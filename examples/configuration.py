"""A configuration in the dictionary, watched by many: each change is everywhere within moments.

Two programs that use it, and somebody who changes it::

    python examples/configuration.py --port 4444
    python examples/configuration.py --port 4445 --join 127.0.0.1:4444
    python examples/configuration.py --join 127.0.0.1:4444 --set level=debug --set rate=50

Who changes it checks it first, and so does everybody who takes it up, for others can write the key
too: a program goes on with the last configuration that was good.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from twisted.internet import task
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from py2p_twisted.service import ChordService

log = Logger("configuration")

KEY = "configuration"


class Settings(msgspec.Struct, frozen=True):
    """Yours.

    A field that a program does not know is ignored, one that is missing has its default: so old and
    new programs can share one configuration.
    """

    level: Literal["debug", "info", "warn"] = "info"
    rate: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10


class Configuration:
    """The settings that are in force.

    :param changed: called with each that comes into force; must not raise.
    """

    def __init__(self, ring: ChordService, changed: Callable[[Settings], None]) -> None:
        self._ring = ring
        self._changed = changed
        self.current = Settings()

    async def follow(self) -> None:
        """Take up what is there, and all that comes; ends when the service stops."""
        async for event in self._ring.watch(KEY, initial=True):
            try:
                settings = Settings() if event.value is None else parse(event.value)
            except ValueError as error:
                log.error("{version} is not taken up: {error}", version=event.version, error=error)
                continue
            if settings != self.current:  # an event may come twice, and a change may change nothing
                self.current = settings
                self._changed(settings)


def parse(text: bytes) -> Settings:
    """Read and check.

    :raises ValueError: says where what is wrong.
    """
    return msgspec.json.decode(text, type=Settings)


async def change(ring: ChordService, changes: Mapping[str, str]) -> Settings:
    """Set some fields, and leave what others set at the same moment as it is.

    :raises ValueError: it would not be a valid configuration; nothing was written.
    """
    if unknown := changes.keys() - set(Settings.__struct_fields__):
        raise ValueError(f"there is no {', '.join(unknown)}")
    while True:
        old = await ring.get(KEY)
        fields = {} if old is None else msgspec.json.decode(old)
        fields.update(changes)
        # Text from a command line may stand for a number; fields of newer programs stay.
        settings = msgspec.convert(fields, Settings, strict=False)
        new = msgspec.json.encode({**fields, **msgspec.to_builtins(settings)})
        if await ring.compare_and_set(KEY, old, new):
            return settings


async def main(reactor: Any, *arguments: str) -> None:
    """One program that uses the configuration, until it is stopped; or one change of it."""
    parser = argparse.ArgumentParser(description="a configuration that many programs watch")
    parser.add_argument("--port", type=int, default=0, help="the port of this node of the ring")
    parser.add_argument("--join", metavar="HOST:PORT", help="a member of the ring; else found one")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", help="change it, and end")
    options = parser.parse_args(arguments)
    if options.set and not options.join:
        parser.error("--set needs --join")
    host, _, port = (options.join or "").rpartition(":")
    peers = [(host, int(port))] if options.join else []

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    ring = ChordService(reactor, "127.0.0.1", options.port, join=None if options.set else peers)
    reactor.addSystemEventTrigger("before", "shutdown", ring.stopService)
    ring.startService()
    if options.set:
        await ring.connect(*peers[0])  # it reads and writes, and keeps nothing
        changes = {name: value for name, _, value in (one.partition("=") for one in options.set)}
        try:
            log.info("now {settings}", settings=await change(ring, changes))
        except ValueError as error:
            sys.exit(f"nothing was changed: {error}")
        return
    await ring.when_ready()
    configuration = Configuration(
        ring, lambda settings: log.info("runs with {settings}", settings=settings)
    )
    log.info("begins with {settings}", settings=configuration.current)
    await configuration.follow()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
