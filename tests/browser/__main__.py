"""Run the page against a real ring: ``python -m tests.browser [FOLDER]`` keeps pictures there.

Exit code 0 if all is well, 1 if not, and 75 if there is no Chromium.
"""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from py2p_twisted import chord

from ..processes import NodeProcess
from .chromium import PATIENCE, Chromium, find_chromium

NODES = 5
KEYS = 200


def wait_for(holds: Callable[[], object], what: str) -> None:
    """Wait until it holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: it did not come to pass")
        time.sleep(0.05)


def expect(holds: object, complaint: object) -> None:
    """Fail unless something holds."""
    if not holds:
        raise AssertionError(complaint)


class Ring:
    """Real nodes, the first with a page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: list[NodeProcess] = []

    def form(self) -> None:
        """Start all, and wait until all are in."""
        self._start("--http", "0")
        wait_for(lambda: self.nodes[0].in_ring, "the first node is in a ring")
        self.host, self.port = self.nodes[0].address
        while len(self.nodes) < NODES:
            self._start("--join", f"{self.host}:{self.port}")
        for node in self.nodes:
            wait_for(lambda node=node: node.in_ring, f"{node.name} is in the ring")

    def _start(self, *arguments: str) -> None:
        self.nodes.append(NodeProcess(self._folder, f"node {len(self.nodes) + 1}", *arguments))

    @property
    def page(self) -> str:
        """Where it can be looked at."""
        found = re.search(r"ChordSite starting on (\d+)", self.nodes[0].log)
        assert found is not None, self.nodes[0].log
        return f"http://127.0.0.1:{found[1]}/"


def count(browser: Chromium, selector: str) -> int:
    """How many elements there are."""
    found: int = browser.run(f"document.querySelectorAll({selector!r}).length")
    return found


def text(browser: Chromium, name: str) -> str:
    """What an element says."""
    found: str = browser.run(f"document.getElementById({name!r}).textContent")
    return found


def looks_right(browser: Chromium) -> None:
    """All nodes, in the circle and in the table, each with words."""
    browser.until(f"document.querySelectorAll('#dots g').length === {NODES}")
    browser.until(f"document.getElementById('tile-keys').textContent === '{KEYS}'")
    browser.until("document.getElementById('state').dataset.state === 'good'")
    expect(count(browser, "#arcs path") == NODES, "an arc for each node")
    expect(count(browser, "#nodes tbody tr") == NODES, "a row for each node")
    expect(count(browser, "#events li") > 0, "events")
    labels = browser.run("[...document.querySelectorAll('#dots g')].map(g => g.ariaLabel)")
    expect(all(re.match(r"Node \w+ 127.0.0.1:\d+, joined", one) for one in labels), labels)
    browser.until("/[0-9]/.test(document.getElementById('rate').textContent)")


def pointer(browser: Chromium) -> None:
    """The fingers of the node under the pointer, and what it tells."""
    browser.point("#dots g:nth-child(2) .hit")
    browser.until("document.querySelectorAll('#fingers path').length > 0")
    browser.until("document.getElementById('hint').hidden")
    name = browser.run("document.querySelectorAll('#dots .name')[1].textContent")
    expect(text(browser, "node-title").startswith(f"Node {name}"), text(browser, "node-title"))
    expect("127.0.0.1:" in text(browser, "node"), "the node is described")
    browser.point("h1")
    browser.until("document.querySelectorAll('#fingers path').length === 0")
    expect("(this one)" in text(browser, "node-title"), "the own node, if no other")


def keyboard(browser: Chromium) -> None:
    """From node to node, and back, without a pointer."""
    for _ in range(10):
        browser.press("Tab")
        if browser.run("document.activeElement.closest('#dots') !== null"):
            break
    here = "document.activeElement.ariaLabel"
    first = browser.run(here)
    expect(first.endswith("this node"), f"Tab leads to the own node, not to {first}")
    browser.press("ArrowRight")
    second = browser.run(here)
    expect(second != first and second.startswith("Node "), second)
    expect(count(browser, "#fingers path") > 0, "the fingers of the node with the focus")
    browser.press("Enter")
    expect(browser.run("document.activeElement.ariaPressed") == "true", "Enter keeps it")
    time.sleep(2.5)  # looks at the ring come and go
    expect(browser.run(here).split(",")[0] == second.split(",")[0], "the focus stays")
    browser.press("Escape")
    expect(browser.run("document.activeElement.ariaPressed") == "false", "Escape lets it go")
    browser.press("ArrowLeft")
    expect(browser.run(here) == first, "and back")


def search(browser: Chromium) -> None:
    """Where a key lives, and whether there is a value."""
    browser.press("/")
    browser.type("key/7 <b>")
    browser.press("Enter")
    browser.until("document.querySelectorAll('#places li').length > 0")
    keepers = count(browser, "#places li")
    expect(keepers == count(browser, "#dots .keeps"), "the same nodes in the circle")
    expect("There is no value" in text(browser, "places"), text(browser, "places"))
    browser.run("document.getElementById('key').select()")
    browser.type("key/7")
    browser.press("Enter")
    browser.until("document.getElementById('places').textContent.includes('value of 3 B')")


def loss(browser: Chromium, ring: Ring) -> None:
    """A node dies, and the page tells."""
    ring.nodes[-1].send(signal.SIGKILL)
    browser.until("document.querySelectorAll('#dots .silent').length === 1")
    browser.until("document.querySelectorAll('#events [data-kind=lost]').length > 0")
    browser.until("document.querySelectorAll('#weak path').length > 0")
    expect(
        text(browser, "tile-nodes").startswith(f"{NODES - 1} 1 not"), text(browser, "tile-nodes")
    )
    browser.until("document.getElementById('state').dataset.state === 'below'")


def screens(browser: Chromium, pictures: Path) -> None:
    """Light and dark, wide and narrow; nothing sticks out."""
    grounds = []
    for name, width, height, dark in (
        ("light", 1280, 1010, False),
        ("dark", 1280, 1010, True),
        ("phone", 390, 844, True),
        ("small", 320, 640, False),
    ):
        browser.look_like(width, height, dark=dark, phone=width < 500)
        time.sleep(1.0)  # transitions
        browser.screenshot(pictures / f"{name}.png")
        wide = browser.run("document.documentElement.scrollWidth")
        expect(wide <= width, f"{name}: {wide} pixels on a screen of {width}")
        grounds.append(browser.run("getComputedStyle(document.body).backgroundColor"))
    expect(grounds[0] == grounds[3] != grounds[1] == grounds[2], grounds)


def hidden(browser: Chromium) -> None:
    """A page that nobody sees asks for nothing, and goes on when it is seen again."""
    hide = (
        "Object.defineProperty(document, 'hidden', {{configurable: true, value: {}}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    browser.run(hide.format("true"))
    before = text(browser, "updated")
    time.sleep(2.5)
    expect(text(browser, "updated") == before, "no event came")
    browser.run(hide.format("false"))
    browser.until(f"document.getElementById('updated').textContent !== {before!r}")


def gone(browser: Chromium, ring: Ring) -> None:
    """The node of the page dies: that is told, too."""
    ring.nodes[0].send(signal.SIGKILL)
    browser.until("document.body.classList.contains('stale')")
    expect("Trying again" in text(browser, "state"), text(browser, "state"))


def check(ring: Ring, program: str, pictures: Path) -> None:
    """All of it, with one browser."""
    with chord.chord_socket("127.0.0.1", 0) as sock:
        sock.connect(ring.host, ring.port)
        sock.update({f"key/{number}": "abc" for number in range(KEYS)})
    with Chromium(program) as browser:
        browser.look_like(1280, 1010)
        browser.go(ring.page)
        for step in (looks_right, pointer, keyboard, search, hidden):
            print(step.__name__, flush=True)
            step(browser)
        print("loss", flush=True)
        loss(browser, ring)
        print("screens", flush=True)
        screens(browser, pictures)
        # Chromium counts an absent key as an error.
        said = [line for line in browser.said if not re.search(r"404 .*/v1/keys/", line)]
        expect(not said, f"the page complained: {said}")
        print("gone", flush=True)
        gone(browser, ring)


def main() -> int:
    """Find a browser, start a ring, look."""
    program = find_chromium()
    if program is None:
        print("SKIPPED: there is no Chromium on this machine (Debian: apt-get install chromium).")
        return 75
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
        pictures.mkdir(parents=True, exist_ok=True)
        ring = Ring(Path(scratch))
        try:
            ring.form()
            check(ring, program, pictures)
        except BaseException:
            print(ring.nodes[0].log)
            raise
        finally:
            for node in ring.nodes:
                node.end()
    print("The page is as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
