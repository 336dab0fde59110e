"""Schedules written by hand, about reads and writes within an epoch (test support; pure).

Each shows what a rule is for, like those in ``epochs``.
"""

from __future__ import annotations

from .script import Script

__all__ = [
    "first_ballot_of_another",
    "first_ballot_used_up",
    "ghost",
    "ghost_of_a_refusal",
    "late_first_member",
    "own_acceptor_was_not_open",
    "own_promise",
    "read_of_one_among_many",
    "retry_across_a_purge",
    "retry_that_was_forgotten",
    "steady_after_an_open_fate",
]


def read_of_one_among_many(script: Script) -> None:
    """Rule 8.  A write that is under way is seen by one reader, and not by the next."""
    script.put("A", b"old")
    script.rest()
    script.put("A", b"new")
    script.lose("accept", "C")
    held = script.hold("accept", "B")
    script.get("D")
    script.deliver("read", "AB")
    script.rest()
    script.get("E")
    script.deliver("read", "BC")
    script.net += held
    script.rest()


def ghost(script: Script) -> None:
    """Rule 9.  A first attempt that was repeated long ago arrives after five writes of others."""
    script.put("D", b"slow")
    held = script.hold("write", "A")
    script.time_is_up(script.last)
    script.rest()
    for number in range(5):
        script.put("A", b"%d" % number)
        script.rest()
    script.net += held
    script.rest()
    script.get("E")
    script.rest()


def ghost_of_a_refusal(script: Script) -> None:
    """Rule 9.  It was refused when it was repeated; when it arrives its condition holds."""
    script.put("A", b"1")
    script.rest()
    script.put("D", b"slow", b"2")
    held = script.hold("write", "A")
    script.time_is_up(script.last)
    script.rest()
    script.put("A", b"2")
    script.rest()
    script.net += held
    script.rest()
    script.get("E")
    script.rest()


def retry_that_was_forgotten(script: Script) -> None:
    """Rule 9.  A write was done, its answer is lost, and five others came before it is repeated."""
    script.put("D", b"done")
    retrying = script.last
    script.deliver("write", "A")
    script.time_is_up(retrying)
    held = script.hold("write", "A")
    script.rest()
    script.get("E")
    script.rest()
    for number in range(5):
        script.put("A", b"%d" % number)
        script.rest()
    script.net += held
    script.rest()
    script.get("E")
    script.rest()


def retry_across_a_purge(script: Script) -> None:
    """Rule 11.  A write was done, deleted by another, and its tombstone dropped; then its retry."""
    script.put("D", b"done")
    retrying = script.last
    script.deliver("write", "A")
    script.time_is_up(retrying)
    script.lose("write", "A")
    script.rest()
    script.get("E")
    script.rest()
    script.delete("A")
    script.rest()
    script.drive("A", "ABC")
    script.rest()
    script.time_is_up(retrying)
    script.rest()
    script.get("E")
    script.rest()


def steady_after_an_open_fate(script: Script) -> None:
    """Rule 12.  A's second write reached nobody else; E's went between it and A's third."""
    script.try_once("A", b"1", None)
    script.rest()
    script.try_once("A", b"2", b"1")
    script.lose("accept", "BC")
    script.time_is_up(script.last)
    script.try_once("E", b"3", b"1")
    script.lose("prepare", "A")
    script.deliver("prepare", "BC")
    script.lose("accept", "A")
    script.deliver("accept", "BC")
    script.try_once("A", b"4", b"2")
    for kind in ("accept", "prepare"):
        script.lose(kind, "BC")
    script.time_is_up(script.last)
    script.get("F")
    script.lose("read", "C")
    script.deliver("read", "AB")
    script.time_is_up(script.last)
    script.lose("prepare", "C")
    script.rest()


def own_promise(script: Script) -> None:
    """Rule 12.  A asked for a promise, and only its own acceptor gave it."""
    script.try_once("A", b"1", None)
    script.rest()
    script.try_once("E", b"3", b"1")
    script.lose("prepare", "A")
    script.deliver("prepare", "BC")
    script.lose("accept", "A")
    script.deliver("accept", "BC")
    script.try_once("A", b"2", b"1")
    script.lose("accept", "C")
    script.deliver("accept", "B")
    script.lose("prepare", "BC")
    script.time_is_up(script.last)
    script.try_once("A", b"4", b"2")
    script.rest()
    script.get("F")
    script.rest()


def take_over(script: Script, without: str) -> None:
    """Epoch 2 is kept by D, B, C, E and F; those in `without` do not open it."""
    script.drive("B", "DBCEF")
    script.lose("wedge", "A")
    script.deliver("wedge", "C")
    script.lose("fetch", without)
    script.deliver("fetch", "CEF")
    script.deliver("records", "BBB")
    script.lose("choose", "A")
    script.deliver("choose", "C")
    script.lose("open", without)
    script.rest()
    for name in "DG":
        script.tell_config(name, "B")


def own_acceptor_was_not_open(script: Script) -> None:
    """Rule 12.  Of two writes of D the first reached F only, from which D copies what it missed.

    The second was acknowledged, at the very ballot that D's own acceptor then promises.
    """
    take_over(script, "D")
    script.try_once("D", b"1")
    script.lose("prepare", "F")
    script.deliver("prepare", "BCE")
    script.lose("accept", "BCE")
    script.deliver("accept", "F")
    script.time_is_up(script.last)
    script.try_once("D", b"2")
    script.lose("prepare", "F")
    script.deliver("prepare", "BCE")
    script.lose("accept", "F")
    script.rest()
    script.catch_up("D", "F")
    script.rest()
    script.try_once("D", b"3")
    script.rest()
    script.get("G")
    script.lose("read", "DF")
    script.rest()


def late_first_member(script: Script) -> None:
    """Rule 12.  D opens late, from F, which missed a write; its first ballot is refused by others.

    In the end it finds what was written.
    """
    take_over(script, "D")
    script.try_once("G", b"1", None)
    script.lose("prepare", "DF")
    script.deliver("prepare", "BCE")
    script.lose("accept", "DF")
    script.rest()
    script.catch_up("D", "F")
    script.rest()
    assert script["D"].acceptor is not None
    script.try_once("D", b"2", None)
    script.deliver("accept", "F")
    script.rest()
    script.get("G")
    script.rest()


def first_ballot_used_up(script: Script) -> None:
    """Rule 12.  A used its first ballot; E asked before it wrote; A goes on, and is refused."""
    script.try_once("A", b"1", None)
    script.deliver("accept", "B")
    script.lose("accept", "C")
    script.try_once("E", b"2", b"1")
    script.rest()
    script.try_once("A", b"3", b"1")
    script.rest()
    script.try_once("A", b"4", b"2")
    script.rest()
    script.get("F")
    script.rest()


def first_ballot_of_another(script: Script) -> None:
    """Rule 12.  The first ballot of an epoch is A's; what B writes at its own reaches nobody."""
    script.try_once("A", b"1", None)
    script.lose("accept", "B")
    script.deliver("accept", "C")
    script.try_once("B", b"2", None)
    for kind in ("accept", "prepare"):
        script.lose(kind, "AC")
    script.time_is_up(script.last)
    script.get("F")
    script.lose("read", "A")
    script.deliver("read", "BC")
    script.time_is_up(script.last)
    script.lose("prepare", "A")
    script.rest()
