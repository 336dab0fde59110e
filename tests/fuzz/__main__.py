"""Looks for inputs that make a target fail, and keeps those that lead further than others."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from random import Random

from .corpus import keep, kept, worth_keeping
from .targets import TARGETS

#: Bytes of the longest input.
_MOST_BYTES = 1024
#: Seconds that one input may take on a busy machine, and the MiB that the fuzzer may.
_PATIENCE, _MOST_MIB = 600, 1024


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="how long to look [60]")
    parser.add_argument("--work", type=Path, default=Path("_fuzz"), help="a folder for the inputs")
    parser.add_argument("--name", help="is ignored; names the process for others")
    parser.add_argument("--keep", action="store_true", help="choose anew which inputs are kept")
    parser.add_argument("--play", type=Path, nargs="*", help="only play these files")
    return parser.parse_args()


def play(target: str, files: Sequence[Path]) -> int:
    """Show what becomes of some inputs."""
    for file in files:
        print(file, flush=True)
        TARGETS[target](file.read_bytes())
    return 0


def look(target: str, seconds: int, work: Path) -> int:
    """Fuzz for so long, starting again after each failure; how many there were."""
    inputs, failures = work / target, work / f"{target}-failures"
    for folder in (inputs, failures):
        folder.mkdir(parents=True, exist_ok=True)
    rng = Random(1)
    begin = [rng.randbytes(rng.choice([10, 50, 200, 800])) for _ in range(100)]
    for data in [*begin, *kept(target)]:
        (inputs / sha256(data).hexdigest()[:40]).write_bytes(data)
    until = time.monotonic() + seconds
    found = 0
    while (left := int(until - time.monotonic())) > 0:
        options = [
            f"-max_total_time={left}",
            f"-max_len={_MOST_BYTES}",
            "-len_control=0",
            f"-timeout={_PATIENCE}",
            f"-rss_limit_mb={_MOST_MIB}",
            f"-artifact_prefix={failures}/",
            "-print_final_stats=1",
            str(inputs),
        ]
        command = [sys.executable, "-m", "tests.fuzz.guided", target, *options]
        if subprocess.run(command, check=False).returncode:
            found += 1
    print(f"{found} failures; their inputs are in {failures}" if found else "nothing failed")
    return found


def main() -> int:
    """Do what was asked for; 0 if nothing failed."""
    asked = arguments()
    if asked.play:
        return play(asked.target, asked.play)
    if not asked.keep:
        return 1 if look(asked.target, asked.seconds, asked.work) else 0
    found = [file.read_bytes() for file in (asked.work / asked.target).iterdir()]
    chosen = worth_keeping(TARGETS[asked.target], [*kept(asked.target), *found])
    keep(asked.target, chosen)
    print(f"{len(chosen)} of {len(found)} inputs are kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
