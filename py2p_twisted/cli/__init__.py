"""``chordctl``: what a shell does to a ring and for it (floor 4).

:mod:`.main` owns the frame, the exit codes and how things are refused.  Each command is a module
of its own, that :data:`.main.COMMANDS` names.
"""

from __future__ import annotations

from .main import main

__all__ = ["main"]
