"""Inputs that are kept: one file for each target, one line of base64 for each input, sorted."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Target", "covered", "keep", "kept", "worth_keeping"]

#: What becomes of some bytes, in a word, if anything can be said; raises if it must not be.
Target = Callable[[bytes], str]

FOLDER = Path(__file__).with_name("corpus")
#: Inputs of one target, at most, and characters of its file: the ordinary tests play all of them.
MOST_INPUTS = 100
MOST_CHARACTERS = 64 * 1024

_PRODUCT = str(Path(__file__).resolve().parents[2] / "py2p_twisted")

#: A step from one line of a file to another; or what came of it, as if it were a file.
Step = tuple[str, int, int]


def kept(name: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    file = FOLDER / f"{name}.txt"
    lines = file.read_text("ascii").split() if file.exists() else []
    return [b64decode(line, validate=True) for line in lines]


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Keep exactly these.

    :raises ValueError: if they are too many, or too long.
    """
    lines = sorted({b64encode(data).decode("ascii") for data in inputs})
    text = "".join(f"{line}\n" for line in lines)
    if len(lines) > MOST_INPUTS or len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(lines)} inputs in {len(text)} characters are too much to keep")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.txt").write_text(text, "ascii")


def covered(target: Target, data: bytes) -> set[Step]:
    """The steps from line to line of the product that an input leads through."""
    steps: set[Step] = set()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(_PRODUCT):
            return None
        last = 0

        def line(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal last
            if event == "line":
                steps.add((file, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        steps.add((target(data), 0, 0))
    finally:
        sys.settrace(None)
    return steps


def worth_keeping(target: Target, inputs: Iterable[bytes], most: int = MOST_INPUTS) -> list[bytes]:
    """Those that together lead through every step that all of them do, few and short; the best.

    Each time the one is taken that adds most for its length; those that fail are left out.
    """
    steps: dict[bytes, set[Step]] = {}
    for data in sorted(set(inputs), key=len):
        try:
            steps[data] = covered(target, data)
        except Exception as error:
            print(f"left out, it fails: {data!r}: {error}")
    chosen: list[bytes] = []
    room = MOST_CHARACTERS
    while steps and len(chosen) < most:
        best = max(steps, key=lambda data: (len(steps[data]) / (len(data) + 64), data))
        gained = steps.pop(best)
        size = 4 * (len(best) + 2) // 3 + 4
        if not gained:
            break
        if size > room:
            continue
        room -= size
        chosen.append(best)
        for rest in steps.values():
            rest -= gained
    return chosen
