"""Which messages came with which wire version, and what two nodes speak with each other (floor 1).

A node speaks every version from the oldest to the newest that it announces in HELLO.  A connection
has the newest that both speak; what came later is never sent on it.  Whoever adds a message names
it in :data:`SINCE`; whoever adds a field puts it last, with a default: nodes pass over fields that
they do not know.  Named tuples (epochs, ballots, bases) have no room for more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .messages import (
    Changed,
    GetReport,
    Hello,
    Leave,
    Report,
    Unwatch,
    Watch,
    Watched,
    Who,
)

__all__ = ["SINCE", "common_version", "show_versions", "unknown_to", "versions_of", "why_unknown"]

#: Of each message that the oldest version does not have, the version that it came with.
SINCE: dict[type, int] = {
    Who: 3,  # said before anybody knows what the other speaks: an older node closes the connection
    GetReport: 3,
    Leave: 3,
    Report: 3,
    Watch: 3,
    Unwatch: 3,
    Changed: 3,
    Watched: 3,
}


def versions_of(hello: Hello) -> tuple[int, int]:
    """The oldest and the newest version that a node speaks."""
    return hello.version, max(hello.version, hello.newest)


def common_version(one: Hello, other: Hello) -> int | None:
    """The newest version that both speak; None if there is none."""
    (oldest, newest), (others_oldest, others_newest) = versions_of(one), versions_of(other)
    version = min(newest, others_newest)
    return version if version >= max(oldest, others_oldest) else None


def show_versions(hello: Hello) -> str:
    """What a node speaks, for people: ``2``, or ``2 to 3``."""
    oldest, newest = versions_of(hello)
    return f"{oldest} to {newest}" if newest > oldest else f"{oldest}"


@cache
def unknown_to(version: int) -> frozenset[type]:
    """The messages that came after a version."""
    return frozenset(kind for kind, since in SINCE.items() if since > version)


def why_unknown(request: Any, peer: object, version: int) -> str:
    """Why a peer is not asked that, for people."""
    kind = type(request)
    return (
        f"{peer} speaks wire version {version} and knows no {kind.__name__}, which came with "
        f"version {SINCE[kind]}: upgrade it"
    )
