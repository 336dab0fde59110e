"""``python -m benchmarks.large``: a node that keeps more than its memory; one run, line by line.

One ``twistd chord`` is loaded, read at random, killed and started again; a second one joins, while
the first is used.  Sizes, times and the nodes' resident memory are printed as they are measured.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random

from py2p_twisted import chord

from .processes import Processes, free_ports, memory

__all__: list[str] = []

_BATCH_BYTES = 1_000_000
_MOST_IN_BATCH = 2000
#: Seconds that something may take which is bound to happen.
_PATIENCE = 900.0


def main() -> None:
    """Measure, and leave no process behind."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--bytes", type=int, default=100, metavar="N", help="of each value")
    parser.add_argument("--cache", default="64M", help="of each node (%(default)s)")
    parser.add_argument("--gets", type=int, default=20_000, metavar="N")
    parser.add_argument("--alone", action="store_true", help="no second node")
    chosen = parser.parse_args()
    with Processes() as processes:
        Large(processes, chosen).run()


class Large:
    """One run."""

    def __init__(self, processes: Processes, chosen: argparse.Namespace) -> None:
        self._processes = processes
        self._chosen = chosen
        self._rng = Random(7)
        self._ports = free_ports(2)
        self._pids: dict[str, int] = {}

    def run(self) -> None:
        """All of it."""
        chosen = self._chosen
        tell(f"{chosen.keys:,} keys of 16 bytes, values of {chosen.bytes:,}, cache {chosen.cache}")
        self._start("one")
        with chord.chord_socket("127.0.0.1", 0, timeout=60) as ring:
            ring.connect("127.0.0.1", self._ports[0])
            self._load(ring)
        tell(f"on the disk: {self._disk('one') / 2**20:,.0f} MiB")
        time.sleep(2)
        tell(f"memory after: {memory(self._pids['one']):.0f} MiB")
        self._processes.kill("one")
        began = time.monotonic()
        self._start("one")
        tell(f"killed; back after {time.monotonic() - began:.1f} s, {self._memory()}")
        with chord.chord_socket("127.0.0.1", 0, timeout=60) as ring:
            ring.connect("127.0.0.1", self._ports[0])
            self._use(ring)
            if not chosen.alone:
                self._join(ring)

    def _start(self, name: str, *more: str) -> None:
        """Start a node; it is in its ring, and answers, afterwards."""
        port = self._ports[0 if name == "one" else 1]
        self._pids[name] = self._processes.twistd(
            name,
            [
                *("chord", "--port", str(port), "--data", f"{name}.data"),
                *("--cache", self._chosen.cache, *more),
            ],
        )
        log = self._processes.folder / f"{name}.out"
        until = time.monotonic() + _PATIENCE
        while not any(word in log.read_text() for word in ("Founded ring", "Back in", "Joined")):
            self._processes.check()
            if time.monotonic() > until:
                raise SystemExit(f"{name} does not start:\n{self._processes.output(name)}")
            time.sleep(0.02)

    def _disk(self, name: str) -> int:
        folder = Path(self._processes.folder / f"{name}.data")
        return sum(file.stat().st_size for file in folder.iterdir())

    def _memory(self) -> str:
        return ", ".join(f"{n}: {memory(pid):.0f} MiB" for n, pid in self._pids.items())

    # -- what is measured

    def _key(self, number: int) -> bytes:
        return b"key %012d" % number

    def _batches(self) -> Iterator[Mapping[bytes, bytes]]:
        size = self._chosen.bytes
        each = max(1, min(_MOST_IN_BATCH, _BATCH_BYTES // (size + 16)))
        for first in range(0, self._chosen.keys, each):
            last = min(first + each, self._chosen.keys)
            yield {
                self._key(n): b"%d" % n + self._rng.randbytes(size - 10) for n in range(first, last)
            }

    def _load(self, ring: chord.chord_socket) -> None:
        with self._peaks() as peaks:
            began = time.monotonic()
            for batch in self._batches():
                ring.update(batch)
            took = time.monotonic() - began
        rate = self._chosen.keys / took
        tell(f"loaded in {took:.0f} s: {rate:,.0f} writes/s; at most {peaks()}")

    def _use(self, ring: chord.chord_socket) -> None:
        """Random gets, then random sets, one at a time."""
        keys = [self._key(self._rng.randrange(self._chosen.keys)) for _ in range(self._chosen.gets)]
        with self._peaks() as peaks:
            times = []
            for key in keys:
                began = time.perf_counter()
                ring[key]
                times.append(time.perf_counter() - began)
        tell(f"random gets, one at a time: {quantiles(times)}; at most {peaks()}")
        times = []
        for key in keys[:2000]:
            began = time.perf_counter()
            ring[key] = b"0" * self._chosen.bytes
            times.append(time.perf_counter() - began)
        tell(f"random sets, one at a time: {quantiles(times)}; {self._memory()}")

    def _join(self, ring: chord.chord_socket) -> None:
        """A second node takes part; the first is used all the while."""
        slowest: list[tuple[float, str]] = []
        over = threading.Event()

        def use() -> None:
            rng = Random(8)
            while not over.is_set():
                key = self._key(rng.randrange(self._chosen.keys))
                for what in ("get", "set"):
                    began = time.perf_counter()
                    if what == "get":
                        ring[key]
                    else:
                        ring[key] = b"1" * self._chosen.bytes
                    slowest.append((time.perf_counter() - began, what))
                time.sleep(0.002)

        user = threading.Thread(target=use)
        user.start()
        with self._peaks() as peaks:
            began = time.monotonic()
            self._start("two", "--join", f"127.0.0.1:{self._ports[0]}")
            joined = time.monotonic() - began
            with chord.chord_socket("127.0.0.1", 0, timeout=60) as other:
                other.connect("127.0.0.1", self._ports[1])
                while (
                    self._disk("two") < 0.7 * self._disk("one")
                    and time.monotonic() < began + _PATIENCE
                ):
                    time.sleep(0.2)
            kept = self._settled("two")
            took = kept - began
        over.set()
        user.join()
        tell(f"a second node is in the ring after {joined:.1f} s, and keeps all after {took:.0f} s")
        tell(f"meanwhile {peaks()}; operations: {quantiles([seconds for seconds, _ in slowest])}")
        time.sleep(3)
        tell(f"afterwards {self._memory()}")

    def _settled(self, name: str) -> float:
        """When its file had grown to its end."""
        size, since = 0, time.monotonic()
        while time.monotonic() - since < 5:
            now = self._disk(name)
            if now > size + 100_000:
                size, since = now, time.monotonic()
            time.sleep(0.2)
        return since

    @contextmanager
    def _peaks(self) -> Iterator[object]:
        """Watch the nodes' memory; what it was at most, to be called afterwards."""
        highest: dict[str, float] = {}
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                for name, pid in list(self._pids.items()):
                    highest[name] = max(highest.get(name, 0), memory(pid))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield lambda: ", ".join(f"{name}: {most:.0f} MiB" for name, most in highest.items())
        finally:
            over.set()
            watching.join()


def quantiles(times: list[float]) -> str:
    """Some of them, in milliseconds."""
    ordered = sorted(times)
    middle, late = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return (
        f"p50 {middle * 1e3:.2f} ms, p99 {late * 1e3:.2f} ms, slowest {ordered[-1] * 1e3:.0f} ms"
        f" of {len(ordered):,}"
    )


def tell(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
