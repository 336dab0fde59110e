"""Install the package under every other Python that it promises, and run real tests there.

The promise is the list of classifiers in ``setup.cfg``.  Interpreters are looked for on PATH and
among pyenv's versions; what is missing is told, and noted in the file that is named on the command
line, because nobody reads the middle of a log.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import suppress
from pathlib import Path
from shutil import which

CHECKOUT = Path(__file__).resolve().parents[1]

#: What differs between Pythons: the standard library, C extensions, processes, threads, TLS.  The
#: rules of ring and table are pure, and many seeds of them run under one Python already.
TESTS = [
    f"tests.test_{name}"
    for name in (
        *("acceptor", "codec", "proposer", "ring", "links", "operations", "service", "tls"),
        *("storage", "storage_crash", "watch", "tap", "plugin", "chord", "chord_process"),
        *("cli", "cli_process", "cli_tls", "web", "web_service", "docs", "examples"),
    )
]

#: What an interpreter must have for the package to work with it.
NEEDED = "import ensurepip, sqlite3, ssl, sys; print('%d.%d' % sys.version_info[:2])"

#: Seconds after which a command is taken for hanging.
PATIENCE = 900.0


def promised() -> list[str]:
    """The versions that the package says it runs on, oldest first."""
    setup = ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    lines = setup["metadata"]["classifiers"].splitlines()
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in lines]
    return [match[1] for match in found if match is not None]


def candidates(version: str) -> Iterator[str]:
    """Where an interpreter of this version may be, the likeliest first."""
    found = which(f"python{version}")
    if found is not None:
        yield found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = (root / "versions").glob(f"{version}.*/bin/python")
    yield from map(str, sorted(installed, key=lambda path: _patch(path.parents[1]), reverse=True))


def _patch(folder: Path) -> int:
    """The last number of ``3.12.1``; anything else, such as ``3.14.0rc2``, comes last."""
    last = folder.name.rpartition(".")[2]
    return int(last) if last.isdigit() else -1


def interpreter(version: str) -> str | None:
    """One that starts and has what is needed; pyenv's shims are there without an interpreter."""
    for path in candidates(version):
        tried = subprocess.run(
            [path, "-c", NEEDED], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if tried.returncode == 0 and tried.stdout.strip() == version:
            return path
    return None


def passes(python: str, folder: Path) -> bool:
    """Install into an environment of its own, and run the checkout's tests with what is there."""
    binaries = folder / "venv" / "bin"
    commands = (
        [python, "-m", "venv", str(folder / "venv")],
        [str(binaries / "pip"), "install", "--quiet", f"{CHECKOUT}[test]"],
        [str(binaries / "python"), "-m", "pip", "check"],
        [str(binaries / "trial"), "--reporter=text", f"--temp-directory={folder}/t", *TESTS],
    )
    log = folder / "log"
    for command in commands:
        print("$", *command, flush=True)
        code: int | None = None
        with log.open("w") as output, suppress(subprocess.TimeoutExpired):
            code = subprocess.run(
                command,
                cwd=CHECKOUT,  # see tests/__init__.py
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
                check=False,
            ).returncode
        lines = log.read_text(errors="replace").splitlines()
        if code != 0:
            print(*lines, f"exit code {code}" if code else f"not done in {PATIENCE} s", sep="\n")
            return False
    # trial closes with its count: without one, no test ran.
    print(*lines[-3:], sep="\n", flush=True)
    return bool(re.match(r"PASSED \(.*successes=", lines[-1]))


def main(note: Path) -> None:
    """Try all that are there."""
    os.environ.pop("PYTHONPATH", None)
    running = "{}.{}".format(*sys.version_info[:2])
    failed, missing = [], []
    for version in promised():
        if version == running:
            print(f"Python {version}: runs everything else", flush=True)
            continue
        python = interpreter(version)
        if python is None:
            missing.append(version)
            continue
        print(f"Python {version}: {python}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            if not passes(python, Path(folder)):
                failed.append(version)
    complaint = f"NOT TRIED, for no interpreter was found: Python {', '.join(missing)}"
    note.write_text(f"{complaint}\n" if missing else "")
    print(note.read_text(), end="")
    if failed:
        sys.exit(f"FAILED under Python {', '.join(failed)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
