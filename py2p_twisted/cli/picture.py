"""A ring, drawn in characters (floor 4; pure).

The circle is read clockwise from the top, where identifier 0 is.  Each node stands at its
identifier, with its name beside it; the arc that leads to it, its share, has its colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .terminal import Style, cut, width_of

__all__ = ["COLORS", "Spot", "draw"]

#: Of the nodes, one after the other round the circle.
COLORS = ("cyan", "magenta", "green", "blue", "bright_magenta", "bright_cyan", "bright_green")

#: The dots of a Braille sign, two across and four down, as its bits.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


@dataclass(frozen=True)
class Spot:
    """A node in the picture.

    :ivar place: on the circle, from 0 to 1.
    :ivar names: to stand beside it: the first that there is room for.
    :ivar color: of it and its arc.
    :ivar mark: the sign at its place, one column wide.
    """

    place: float
    names: tuple[str, ...]
    color: str
    mark: str


class _Canvas:
    """Characters with their colours, and the dots of a curve below them."""

    def __init__(self, style: Style, width: int, height: int) -> None:
        self.style = style
        self.width, self.height = width, height
        self._signs: dict[tuple[int, int], tuple[str, str]] = {}
        self._dots: dict[tuple[int, int], int] = {}
        self._dot_colors: dict[tuple[int, int], str] = {}

    def dot(self, x: float, y: float, color: str) -> None:
        """A dot of a curve, in columns and rows."""
        column, row = int(x), int(y)
        if self.style.unicode:
            bit = _DOTS[int((y - row) * 4)][int((x - column) * 2)]
            self._dots[column, row] = self._dots.get((column, row), 0) | bit
        else:
            self._dots[column, row] = 0
        self._dot_colors[column, row] = color

    def free(self, column: int, row: int, width: int) -> bool:
        """Is there nothing in these columns, nor right beside them?"""
        if row < 0 or row >= self.height or column < 0 or column + width > self.width:
            return False
        places = [(at, row) for at in range(column - 1, column + width + 1)]
        return not any(at in self._signs or at in self._dots for at in places)

    def put(self, column: int, row: int, text: str, *names: str) -> None:
        """Write a text, whose signs are one column wide each."""
        painted = ";".join(names)
        for at, sign in enumerate(text):
            self._signs[column + at, row] = (sign, painted)

    def lines(self) -> list[str]:
        """What came of it."""
        lines = []
        for row in range(self.height):
            cells: list[tuple[str, str]] = []
            for column in range(self.width):
                here = (column, row)
                if here in self._signs:
                    cells.append(self._signs[here])
                elif here in self._dots:
                    sign = chr(0x2800 + self._dots[here]) if self.style.unicode else "."
                    cells.append((sign, self._dot_colors[here]))
                else:
                    cells.append((" ", ""))
            lines.append(self._painted(cells))
        return lines

    def _painted(self, cells: Sequence[tuple[str, str]]) -> str:
        text = run = color = ""
        for sign, names in [*cells, ("", "end")]:
            if names != color:
                text += self.style.paint(run, *color.split(";")) if run.strip() else run
                run, color = "", names
            run += sign
        return text.rstrip()


def draw(style: Style, spots: Sequence[Spot], middle: Sequence[str] = ()) -> list[str]:
    """The picture, line by line, as wide as the style's columns at most.

    :param middle: lines to stand inside the circle.
    """
    width = min(style.width, 100)
    # A column is about half as wide as a row is high.
    most = 9 if len(spots) <= 24 else 12
    radius = max(3, min(most, (width - 2) // (8 if width >= 60 else 6)))
    canvas = _Canvas(style, width, 2 * radius + 3)
    x0, y0 = width / 2, radius + 1.5
    spots = sorted(spots, key=lambda spot: spot.place)
    steps = 64 * radius
    for step in range(steps):
        place = (step + 0.5) / steps
        owner = next((spot for spot in spots if spot.place >= place), spots[0] if spots else None)
        x, y = _at(place, x0, y0, radius)
        canvas.dot(x, y, owner.color if owner is not None else "")
    places: list[tuple[Spot, int, int]] = []
    for spot in spots:
        x, y = _at(spot.place, x0, y0, radius)
        places.append((spot, int(x), int(y)))
    for spot, column, row in places:
        canvas.put(column, row, spot.mark, "bold", spot.color)
    for spot, column, row in places:
        _name(canvas, spot, column, row)
    _middle(canvas, middle, radius)
    lines = canvas.lines()
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return lines


def _at(place: float, x0: float, y0: float, radius: int) -> tuple[float, float]:
    angle = 2 * math.pi * place
    wide = 2 * radius - 0.01  # the rightmost point is in the last column, not beyond it
    return x0 + wide * math.sin(angle), y0 - radius * math.cos(angle)


def _name(canvas: _Canvas, spot: Spot, column: int, row: int) -> None:
    """Write a name outside the circle, where there is room for it, or not at all."""
    right = math.sin(2 * math.pi * spot.place) >= -1e-9
    outside = -1 if math.cos(2 * math.pi * spot.place) > 0 else 1
    for name in spot.names:
        text = "".join(c for c in name if width_of(c) == 1)
        for away, shift in ((2, 0), (3, 0), (4, 0), (5, 0), (2, outside), (0, outside)):
            start = column + away if right else column - away + 1 - len(text)
            if canvas.free(start, row + shift, len(text)):
                canvas.put(start, row + shift, text, spot.color)
                return


def _middle(canvas: _Canvas, lines: Sequence[str], radius: int) -> None:
    first = (canvas.height - len(lines)) // 2
    for at, line in enumerate(lines):
        text = cut(line, 3 * radius - 1, canvas.style.sign("…", "~"))
        canvas.put((canvas.width - len(text)) // 2, first + at, text, "bold" if at == 0 else "dim")
