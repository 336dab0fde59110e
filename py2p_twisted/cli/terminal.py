"""How a terminal is written on: colours, widths, tables, a bar that moves (floor 4).

Colours are used on a terminal, unless ``NO_COLOR`` is set (no-color.org) or the terminal knows
none; signs beyond ASCII only where the encoding has them.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .texts import seconds

__all__ = ["Progress", "Style", "Table", "style_for", "width_of"]

_CODES = {
    "bold": 1,
    "dim": 2,
    "red": 31,
    "green": 32,
    "yellow": 33,
    "blue": 34,
    "magenta": 35,
    "cyan": 36,
    "bright_green": 92,
    "bright_blue": 94,
    "bright_magenta": 95,
    "bright_cyan": 96,
}
_ESCAPES = re.compile("\x1b\\[[0-9;]*m")
#: Of a terminal that does not tell, and of a pipe.
_COLUMNS = 80
_FEWEST = 20


class Style:
    """What a stream can show.

    :ivar color: may there be colours?
    :ivar unicode: are there signs beyond ASCII?
    :ivar width: columns.
    """

    def __init__(self, *, color: bool = False, unicode: bool = True, width: int = _COLUMNS) -> None:
        self.color = color
        self.unicode = unicode
        self.width = max(width, _FEWEST)

    def paint(self, text: str, *names: str) -> str:
        """The text in a colour, or bold, or dim, if there are colours."""
        codes = ";".join(str(_CODES[name]) for name in names if name)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.color and codes and text else text

    def sign(self, fine: str, plain: str) -> str:
        """A sign, or what stands for it in ASCII."""
        return fine if self.unicode else plain


def style_for(
    number: int, choice: str = "auto", environment: Mapping[str, str] = os.environ
) -> Style:
    """What a descriptor can show.

    :param choice: ``auto``, ``always`` or ``never``: of colours.
    """
    terminal = os.isatty(number)
    color = choice == "always" or (
        choice == "auto"
        and terminal
        and not environment.get("NO_COLOR")
        and environment.get("TERM", "") != "dumb"
    )
    coding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    return Style(color=color, unicode=coding.startswith("utf"), width=_columns(number, environment))


def _columns(number: int, environment: Mapping[str, str]) -> int:
    told = environment.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(number).columns or _COLUMNS
    except OSError:
        return _COLUMNS


def width_of(text: str) -> int:
    """The columns that a text takes, without its colours."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in _ESCAPES.sub("", text)
    )


def cut(text: str, columns: int, end: str = "…") -> str:
    """A text without colours in at most so many columns."""
    if width_of(text) <= columns:
        return text
    while text and width_of(text) > columns - len(end):
        text = text[:-1]
    return text + end if columns > 0 else ""


class Table:
    """Columns under their heads, as narrow as they can be.

    :param heads: of the columns; one that begins with ``>`` is aligned to the right.
    """

    def __init__(self, style: Style, *heads: str) -> None:
        self._style = style
        self._right = [head.startswith(">") for head in heads]
        self._heads = [head.lstrip(">") for head in heads]
        self._rows: list[Sequence[str]] = []

    def add(self, *cells: str) -> None:
        """One more row."""
        self._rows.append(cells)

    def lines(self, drop: Sequence[str] = ()) -> list[str]:
        """The table, line by line.

        :param drop: heads of columns that are left out, one after the other, while it is too wide.
        """
        shown = list(range(len(self._heads)))
        for head in ("", *drop):
            shown = [at for at in shown if not head or self._heads[at] != head]
            widths = [max(width_of(row[at]) for row in (self._heads, *self._rows)) for at in shown]
            if sum(widths) + 2 * (len(shown) - 1) <= self._style.width:
                break
        heads = [self._style.paint(self._heads[at], "dim") for at in shown]
        lines = [self._line(heads, shown, widths)] if any(self._heads) else []
        return lines + [self._line([row[at] for at in shown], shown, widths) for row in self._rows]

    def _line(self, cells: Sequence[str], shown: Sequence[int], widths: Sequence[int]) -> str:
        padded = []
        for cell, at, width in zip(cells, shown, widths, strict=True):
            space = " " * (width - width_of(cell))
            padded.append(space + cell if self._right[at] else cell + space)
        return "  ".join(padded).rstrip()


class Progress:
    """A bar on stderr that shows how far it is; nothing where stderr is no terminal.

    :param clock: IReactorTime.
    :param what: is being done, such as ``Exporting``.
    :param total: of items; None while nobody knows.
    """

    _EVERY = 0.1

    def __init__(
        self, clock: Any, what: str, total: int | None = None, stream: TextIO | None = None
    ) -> None:
        self._clock = clock
        self._what = what
        self.total = total
        self.done = 0
        self._stream = stream or sys.stderr
        self._shown = self._stream is not None and self._stream.isatty()
        self._style = style_for(self._stream.fileno()) if self._shown else Style()
        self._began: float = clock.seconds()
        self._next = self._began

    def add(self, number: int = 1) -> None:
        """So many more are done."""
        self.done += number
        if self._shown and self._clock.seconds() >= self._next:
            self._next = self._clock.seconds() + self._EVERY
            self._stream.write("\r" + self.line() + "\x1b[K")
            self._stream.flush()

    def line(self) -> str:
        """What stands there now."""
        style = self._style
        elapsed = max(self._clock.seconds() - self._began, 1e-6)
        rate = f"{self.done / elapsed:,.0f}/s"
        if not self.total:
            return cut(f"{self._what} {self.done:,}  {rate}", style.width - 1)
        part = min(self.done / self.total, 1.0)
        left = seconds((self.total - self.done) * elapsed / self.done) if self.done else "?"
        tail = f" {part:4.0%}  {self.done:,} of {self.total:,}  {rate}  {left} left"
        room = style.width - 2 - width_of(self._what) - len(tail)
        if room < 8:
            return cut(f"{self._what}{tail}", style.width - 1)
        return f"{self._what} {bar(style, part, min(room, 30))}{tail}"

    def close(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False


def bar(style: Style, part: float, width: int) -> str:
    """A bar that is filled to a part, in eighths of a column where there are such signs."""
    if not style.unicode:
        filled = round(part * width)
        return "#" * filled + "." * (width - filled)
    eighths = round(part * width * 8)
    whole, rest = divmod(eighths, 8)
    text = "█" * whole + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return text + style.paint("░" * (width - len(text)), "dim")
