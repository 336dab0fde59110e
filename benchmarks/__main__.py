"""``python -m benchmarks``: one run, and its tables."""

from __future__ import annotations

import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from .plan import plan
from .processes import CannotRun, Processes
from .run import Run, profile


def main() -> None:
    """Run, and leave no process behind."""
    chosen = plan()

    async def run(reactor: Any) -> None:
        try:
            if chosen.profile:
                print(await profile(reactor, processes, chosen))
            else:
                print(await Run(reactor, processes, chosen).all())
        except CannotRun as error:
            raise SystemExit(str(error)) from None

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until the reactor has its own
    with Processes() as processes:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
