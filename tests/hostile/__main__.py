"""Attacks a real node from outside while a client works on it; see SECURITY.md."""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from ..certificates import Authority
from .attacks import ATTACKS, TLS_ATTACKS, Attack
from .victim import Measured, Victim

#: Milliseconds that no operation of the client may take, but for waiting for a processor.
LONGEST_STALL = 100.0


def complaints(attack: Attack, measured: Measured) -> list[str]:
    """What the attack did that it must not do."""
    found = []
    if measured.stalls and measured.stalls[-1] > LONGEST_STALL:
        found.append(f"an operation of the client took {measured.stalls[-1]:.0f} ms")
    if measured.grown > attack.memory:
        found.append(f"the node grew by {measured.grown:.0f} MiB; {attack.memory} are allowed")
    if len(measured.lines) < attack.least:
        found.append("the node logged nothing about it")
    if len(measured.lines) > attack.lines:
        found.append(f"the node logged {len(measured.lines)} lines; {attack.lines} are allowed")
    found += [f"the node logged: {line[:300]}" for line in measured.strange[:5]]
    return found


def attempt(victim: Victim, attack: Attack) -> bool:
    """One attack; was everything as it should be?"""
    victim.begin()
    began = time.monotonic()
    try:
        note = attack.run(victim)
        took = time.monotonic() - began
        measured = victim.end()
    except Exception:
        print(f"{attack.name}: FAILED\n{traceback.format_exc()}", flush=True)
        return False
    wrong = complaints(attack, measured)
    longest, raw = measured.stalls[-1], measured.times[-1]
    print(
        f"{attack.name}: {'FAILED' if wrong else 'held'}: {note} ({took:.1f} s, node "
        f"{measured.rss:.0f} MiB, +{measured.grown:.0f}; client's slowest of "
        f"{len(measured.times)}: {longest:.0f} ms, with waiting for a processor {raw:.0f} ms; "
        f"{len(measured.lines)} lines logged)",
        flush=True,
    )
    for problem in wrong:
        print(f"    {problem}", flush=True)
    return not wrong


def main() -> int:
    """Run them one after the other; 0 if all of them held."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("only", nargs="*", help="a word of the names of those to run [all]")
    only = parser.parse_args().only
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    tls = Authority().directory(str(folder / "certificate"))
    held = failed = 0
    for name, attacks, certificate in (("plain", ATTACKS, ""), ("tls", TLS_ATTACKS, tls)):
        chosen = [a for a in attacks if not only or any(word in a.name for word in only)]
        if not chosen:
            continue
        (folder / name).mkdir()
        with Victim(folder / name, tls=certificate) as victim:
            for attack in chosen:
                if attempt(victim, attack):
                    held += 1
                else:
                    failed += 1
                if victim.node.exit_code is not None:
                    break
    print(f"{held} held, {failed} failed")
    if failed or not held:
        print(f"the nodes' logs are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
