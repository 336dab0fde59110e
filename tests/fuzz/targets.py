"""The targets by name."""

from __future__ import annotations

from .codec import codec
from .corpus import Target
from .protocol import protocol

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {"codec": codec, "protocol": protocol}
