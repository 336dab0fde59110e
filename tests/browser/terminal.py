"""A picture of what a terminal shows, for the docs.

``chordctl --color always ring | python -m tests.browser.terminal TITLE FILE.png``
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from .chromium import Chromium, find_chromium

#: Of the picture, for each point of the drawing.
SCALE = 0.8


def drawing(text: str, title: str) -> str:
    """The text in its colours, as SVG, with a font that this machine has."""
    lines = text.rstrip("\n").split("\n")
    width = max(Text.from_ansi(line).cell_len for line in lines) + 4
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(lines)), highlight=False)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.S)
    return re.sub(r"font-family: [^;]*;", 'font-family: "DejaVu Sans Mono", monospace;', svg)


def main(title: str, path: Path) -> None:
    """Draw what comes on standard input."""
    program = find_chromium()
    if program is None:
        sys.exit("there is no Chromium")
    svg = drawing(sys.stdin.read(), title)
    match = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert match is not None
    width, height = (round(SCALE * float(number)) for number in match.groups())
    svg = svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1)
    with tempfile.TemporaryDirectory() as folder, Chromium(program) as browser:
        page = Path(folder, "terminal.html")
        page.write_text(f'<!doctype html><body style="margin:0">{svg}</body>', encoding="utf-8")
        browser.look_like(width, height)
        browser.go(page.as_uri())
        browser.until("document.querySelector('svg') !== null")
        browser.screenshot(path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
