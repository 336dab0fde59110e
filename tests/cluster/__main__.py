"""Runs rings of real processes under load and faults; see docs/simulation.rst."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import react
from twisted.python.failure import Failure

from .chaos import ChaosRun
from .kill import KillRun
from .nodes import Guard
from .plan import KINDS, Limits
from .restart import RestartRun

#: Seconds for all that a run does besides the time that it was given: it starts, heals and checks.
_BESIDES = {"kill": 420.0, "chaos": 420.0, "restart": 300.0}
#: Processes, where nobody says how many.
_NODES = {"kill": 8, "chaos": 8, "restart": 5}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument(
        "what",
        choices=(*_NODES, "all"),
        help="kill: two of the nodes killed at once, twice; chaos: clients, and every fault;"
        " restart: nodes with data on the disk, killed one by one and all at once",
    )
    parser.add_argument("--seed", type=int, help="of all that is chosen [any]")
    parser.add_argument(
        "--nodes", type=int, metavar="N", help="processes [8; 5 where they keep their data]"
    )
    parser.add_argument(
        "--replicas",
        type=int,
        default=5,
        metavar="N",
        help="copies of a key; 0 leaves it to the daemon, and then nothing is killed [5]",
    )
    parser.add_argument("--seconds", type=float, default=120, help="of chaos [120]")
    parser.add_argument("--clients", type=int, default=8, metavar="N", help="if there are any [8]")
    parser.add_argument(
        "--rate", type=float, default=400, help="operations a second that they try [400]"
    )
    parser.add_argument(
        "--faults", default=",".join(KINDS), help=f"of chaos, some of {','.join(KINDS)} [all]"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs also if all is well")
    chosen = parser.parse_args(arguments)
    chosen.kinds = chosen.faults.split(",")
    if not set(chosen.kinds) <= set(KINDS):
        parser.error(f"--faults takes some of {','.join(KINDS)}, not {chosen.faults}")
    if chosen.replicas not in (0, 1, 3, 5):
        parser.error("--replicas takes 1, 3 or 5, or 0 for the daemon's own number")
    if chosen.nodes is not None:
        spare = 0 if chosen.what == "restart" else 3
        if not max(chosen.replicas + spare, 3) <= chosen.nodes <= 32:
            parser.error(f"--nodes takes {spare} more than --replicas, at least 3, and at most 32")
    chosen.nodes = {what: chosen.nodes or usual for what, usual in _NODES.items()}
    if not 6 <= chosen.clients <= 32 or not 1 <= chosen.rate <= 10_000 or chosen.seconds < 1:
        parser.error("6 to 32 clients, a rate of 1 to 10000, and at least one second")
    kills = chosen.what in ("kill", "all")
    if not Limits.of(chosen.replicas).kills:
        if kills:
            parser.error("what has one copy is lost with its node: kill needs --replicas 5")
        chosen.kinds = [kind for kind in chosen.kinds if kind != "kill"]
    if kills and chosen.replicas < 5:
        parser.error("two of three members are no minority: kill needs --replicas 5")
    if not chosen.kinds:
        parser.error("no kind of fault is left")
    chosen.seed = SystemRandom().getrandbits(32) if chosen.seed is None else chosen.seed
    return chosen


class Session:
    """All runs of one command line.

    :ivar passed: did all of them, so far?
    """

    def __init__(self, chosen: argparse.Namespace, folder: Path, guard: Guard) -> None:
        self.passed = False
        self._chosen = chosen
        self._folder = folder
        self._guard = guard

    async def all(self, reactor: Any) -> None:
        """One after the other.

        :raises SystemExit: if one failed.
        """
        chosen = self._chosen
        names = list(_NODES) if chosen.what == "all" else [chosen.what]
        passed = [await self._one(reactor, name) for name in names]
        if not all(passed):
            raise SystemExit(1)
        self.passed = True

    async def _one(self, reactor: Any, name: str) -> bool:
        chosen = self._chosen
        folder = self._folder / name
        folder.mkdir()
        nodes, replicas = chosen.nodes[name], chosen.replicas or None
        self._tell(name, f"seed {chosen.seed}, {nodes} nodes, replicas {replicas}, {folder}")
        run = self._run_of(name, (reactor, folder, self._guard), nodes, replicas)
        limit = _BESIDES[name] + (chosen.seconds if name == "chaos" else 0.0)
        problems = run.problems
        began = time.monotonic()
        try:
            await _until_stopped(reactor, run.run(), limit)
        except TimeoutError:
            problems.append(f"it was not over after {limit:g} s")
        except CancelledError:
            raise SystemExit(f"{name}: interrupted") from None
        except AssertionError as error:
            problems.append(str(error))
        except Exception:
            problems.append(f"a mistake of this script\n{Failure().getTraceback()}")
        for problem in problems:
            self._tell(name, f"PROBLEM: {problem}")
        verdict = "FAILED" if problems else "passed"
        where = f", seed {chosen.seed}, logs in {folder}" if problems else ""
        self._tell(name, f"{verdict} after {time.monotonic() - began:.0f} s{where}")
        return not problems

    def _run_of(
        self, name: str, where: tuple[Any, Path, Guard], nodes: int, replicas: int | None
    ) -> KillRun | ChaosRun | RestartRun:
        chosen = self._chosen
        rng = Random(f"{name} {chosen.seed}")

        def tell(line: str) -> None:
            self._tell(name, line)

        if name == "kill":
            return KillRun(*where, rng, nodes=nodes, replicas=replicas, tell=tell)
        clients, rate = chosen.clients, chosen.rate
        if name == "restart":
            return RestartRun(
                *(*where, rng),
                nodes=nodes,
                replicas=replicas,
                clients=clients,
                rate=rate,
                tell=tell,
            )
        return ChaosRun(
            *(*where, rng),
            nodes=nodes,
            replicas=replicas,
            clients=clients,
            rate=rate,
            seconds=chosen.seconds,
            kinds=chosen.kinds,
            tell=tell,
        )

    def _tell(self, name: str, line: str) -> None:
        print(f"{name}: {line}", flush=True)


async def _until_stopped(reactor: Any, run: Coroutine[Any, Any, None], limit: float) -> None:
    """Run it for at most so many seconds; if the reactor is stopped meanwhile, it tidies up first.

    :raises TimeoutError, CancelledError: if it had to be ended.
    """
    running = Deferred.fromCoroutine(run)
    tidy: Deferred[None] = Deferred()

    def interrupted() -> Deferred[None]:
        running.cancel()
        return tidy

    trigger = reactor.addSystemEventTrigger("before", "shutdown", interrupted)
    try:
        await running.addTimeout(limit, reactor)
    finally:
        if not tidy.called:
            tidy.callback(None)
        with suppress(ValueError):  # it is under way
            reactor.removeSystemEventTrigger(trigger)


def main() -> None:
    """Run, and leave no process behind; the logs only if something failed."""
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until the reactor has its own
    folder = Path(tempfile.mkdtemp(prefix="cluster-"))
    with Guard() as guard:
        session = Session(chosen, folder, guard)
        try:
            react(lambda reactor: Deferred.fromCoroutine(session.all(reactor)))
        except SystemExit as end:
            raise SystemExit(end.code or (0 if session.passed else 130)) from None
        finally:
            if session.passed and not chosen.keep:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                print(f"the logs are in {folder}")


if __name__ == "__main__":
    main()
