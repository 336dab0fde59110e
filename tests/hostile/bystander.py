"""A well-behaved client of a node, as a process of its own: ``python -m tests.hostile.bystander``.

Writes and reads one key after the other until its input ends, and prints a line for each
operation: when it began, how long it took in milliseconds, and for how much of that the machine
let the node or this process wait for a processor: that is not the attack's doing.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import stdio
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater, react
from twisted.python.failure import Failure

from py2p_twisted.service import ChordService

#: Seconds between two operations.
PAUSE = 0.004


class _UntilInputEnds(Protocol):
    over = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True


def waited(*processes: str) -> float:
    """Milliseconds that these processes were ready and not running, as far as that is known."""
    total = 0
    for process in processes:
        try:
            total += int(Path(f"/proc/{process}/schedstat").read_text().split()[1])
        except OSError:
            return 0.0
    return total / 1e6


async def work(reactor: Any, host: str, port: int, node: str, tls: str) -> None:
    """Read what was written, until the input ends.

    :raises AssertionError: if something else was read.
    """
    service = ChordService(reactor, "127.0.0.1", 0, tls=tls or None)
    service.startService()
    await service.connect(host, port)
    until = _UntilInputEnds()
    stdio.StandardIO(until)
    number, written = 0, b""
    while not until.over:
        await deferLater(reactor, PAUSE, lambda: None)
        idle, began = waited(node, "self"), time.monotonic()
        key = b"bystander %d" % (number // 2 % 64)
        if number % 2:
            found = await service.get(key)
            assert found == written, (key, found, written)
        else:
            written = b"%d" % number
            await service.set(key, written)
        number += 1
        took = 1000 * (time.monotonic() - began)
        print(f"{began:.4f} {took:.2f} {waited(node, 'self') - idle:.2f}", flush=True)
    await service.stopService()


def main() -> None:
    """Run until standard input ends."""
    host, port, node, tls = sys.argv[1:]
    react(lambda reactor: Deferred.fromCoroutine(work(reactor, host, int(port), node, tls)))


if __name__ == "__main__":
    main()
