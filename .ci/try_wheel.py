"""Build as a release would, and try the wheel in a second environment, from an empty folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen
from zipfile import ZipFile

CHECKOUT = Path(__file__).resolve().parents[1]

#: Seconds after which a process is taken for hanging.
PATIENCE = 120.0

#: What the node logs once it runs, with the default interface.
RUNNING = "Only this machine can connect."


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return what it printed."""
    print("$", *command, flush=True)
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, text=True, timeout=10 * PATIENCE, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nexit code {done.returncode}")
    return done.stdout


def expect(holds: object, complaint: str) -> None:
    """Fail the step unless something holds."""
    if not holds:
        sys.exit(complaint)


def looks_right(wheel: Path) -> None:
    """Look at what the wheel would put into somebody's site-packages."""
    names = [name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name]
    ours = [name for name in names if name.startswith("py2p_twisted/")]
    source = {
        path.relative_to(CHECKOUT).as_posix()
        for pattern in ("*.py", "web/assets/*")
        for path in (CHECKOUT / "py2p_twisted").rglob(pattern)
    }
    expect(source | {"py2p_twisted/py.typed"} <= set(ours), f"modules are missing from {ours}")
    others = sorted(set(names) - set(ours))
    expect(others == ["twisted/plugins/py2p_chord.py"], f"the wheel also holds {others}")


def holds_the_docs(archive: Path) -> None:
    """What the source archive must bring besides the package, and what it must not."""
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {"LICENSE", "NEWS.rst", "README.rst", "SECURITY.md", "docs/index.rst"}
    expect(wanted <= names, f"the source archive misses {sorted(wanted - names)}")
    tests = sorted(name for name in names if name.startswith("tests"))
    expect(not tests, f"the source archive would install {tests} as packages")


def says_its_version(archive: Path, binaries: Path, empty: Path) -> None:
    """There is one version, in ``__init__.py``; whoever tells it tells that one."""
    source = (CHECKOUT / "py2p_twisted" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', source, re.M)
    expect(archive.name == f"py2p_twisted-{version}.tar.gz", f"{archive.name} is not {version}")
    code = "from importlib.metadata import version; print(version('py2p_twisted'))"
    conf = CHECKOUT / "docs" / "conf.py"
    for said in (
        run(binaries / "python", "-c", code, cwd=empty),
        run(binaries / "chordctl", "--version", cwd=empty),
        run(binaries / "twistd", "chord", "--version", cwd=empty),
        run(
            sys.executable,
            "-c",
            f"import runpy; print(runpy.run_path({str(conf)!r})['release'])",
            cwd=empty,
        ),
        run(sys.executable, "-m", "towncrier", "build", "--draft", cwd=CHECKOUT),
    ):
        words = re.sub(r"^py2p_twisted ", "", said.partition("would be written.\n\n")[2] or said)
        expect(words.split()[0] == version, f"this does not begin with {version}:\n{said}")


def shows_the_page(log: str) -> None:
    """The files of the page came along, and without the extra there are no metrics."""
    found = re.search(r"ChordSite starting on (\d+)", log)
    expect(found, "the node offers no page")
    page = f"http://127.0.0.1:{found[1]}"  # type: ignore[index]
    for name in ("/", "/ring.js", "/circle.js", "/style.css", "/icon.svg", "/readyz"):
        with urlopen(page + name, timeout=PATIENCE) as answer:
            expect(answer.status == 200 and answer.read(), f"{name} is not there")
    try:
        urlopen(f"{page}/metrics", timeout=PATIENCE)
    except HTTPError as error:
        expect(error.code == 501 and b"py2p_twisted[metrics]" in error.read(), "501 says why")
    else:
        sys.exit("there are metrics without prometheus-client")


def found_and_leave(twistd: Path, folder: Path) -> None:
    """Start a node, wait until it runs, end it by SIGTERM, and look at how it went."""
    node = subprocess.Popen(
        [twistd, "-n", "chord", "--port", "0", "--memory", "--http", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    guard = threading.Timer(PATIENCE, node.kill)
    guard.start()
    lines = []
    for line in node.stdout or ():
        lines.append(line)
        if RUNNING in line:
            shows_the_page("".join(lines))
            node.send_signal(signal.SIGTERM)
    guard.cancel()
    output = "".join(lines)
    print(output)
    # Twisted stops everything in good order, and then dies by the signal that it was sent.
    expect(node.wait() == -signal.SIGTERM, f"the node ended with {node.returncode}")
    expect(RUNNING in output, "the node never ran")
    expect("Server Shut Down." in lines[-1], "the node did not stop in good order")
    expect("Traceback" not in output, "the node logged a traceback")


def main() -> None:
    """Build, install and try."""
    os.environ.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory() as scratch:
        dist, environment, empty = (Path(scratch, name) for name in ("dist", "venv", "empty"))
        empty.mkdir()
        # The wheel is built from the source archive, so that what the archive misses is missed.
        run(sys.executable, "-m", "build", "--outdir", dist, ".", cwd=CHECKOUT)
        (wheel,), (archive,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive, cwd=empty)
        looks_right(wheel)
        holds_the_docs(archive)
        run(sys.executable, "-m", "venv", environment, cwd=empty)
        binaries = environment / "bin"
        run(binaries / "pip", "install", "--quiet", wheel, cwd=empty)
        for module in (
            *("py2p_twisted.chord", "py2p_twisted.service", "py2p_twisted.tap", "py2p_twisted.web"),
        ):
            run(binaries / "python", "-c", f"import {module}", cwd=empty)
        listed = run(binaries / "twistd", "--help", cwd=empty)
        expect("\n    chord  " in listed, f"twistd does not know chord:\n{listed}")
        says_its_version(archive, binaries, empty)
        found_and_leave(binaries / "twistd", empty)
        expect(not list(empty.iterdir()), "the node left files behind")


if __name__ == "__main__":
    main()
