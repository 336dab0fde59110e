"""Schedules written by hand, about the end of an epoch and the next one (test support; pure).

Each shows what a rule is for: with all rules on it ends well, as its description says, and with the
rule taken out no order of the operations explains what the users saw.
"""

from __future__ import annotations

from .script import Script

__all__ = [
    "back_without_memory",
    "base_replaced_by_a_lower_ballot",
    "copy_ahead_over_a_base",
    "late_opening_of_a_holder",
    "members_without_a_base",
    "opened_on_hearsay",
    "opened_twice",
    "opened_with_anything",
    "second_decision",
    "silent_because_it_went_on",
    "stale_members_of_a_stale_config",
    "value_of_the_epoch_before",
]


def stale_members_of_a_stale_config(script: Script) -> None:
    """Rule 1.  Two members that missed an epoch's end are a quorum of the one before it.

    F still believes in epoch 1 (A, B, C), the group is in epoch 3 (C, D, E), and A and B missed
    that epoch 2 (A to E) has ended.  F reads from A and B.
    """
    script.drive("A", "ABCDE")
    script.rest()
    script.drive("C", "CDE")
    for kind in ("wedge", "choose"):
        script.lose(kind, "AB")
        script.deliver(kind, "DE")
        if kind == "wedge":
            script.deliver("fetch", "D")
            script.answers()
            script.deliver("records", "C")
    script.rest()
    script.put("C", b"new")
    script.rest()
    assert script["A"].known == script["B"].known != script["C"].known
    script.get("F")
    script.deliver("read", "AB")
    script.rest()


def opened_twice(script: Script) -> None:
    """Rule 4.  C asked two members for what it missed; one answers after C has taken part."""
    script.drive("A", "ABC")
    script.deliver("wedge", "B")
    script.deliver("fetch", "B")
    script.deliver("records", "A")
    script.lose("fetch", "C")
    script.deliver("choose", "B")
    script.lose("open", "C")
    script.rest()
    script.tell_config("C", "A")
    script.catch_up("C", "A")
    copy = script.deliver("records", "A", lost=True)
    script.catch_up("C", "B")
    script.rest()
    script.put("A", b"new")
    script.lose("accept", "B")
    script.deliver("accept", "C")
    script.net += copy
    script.rest()
    script.tell_config("D", "A")
    script.get("D")
    script.lose("read", "A")
    script.deliver("read", "BC")
    script.time_is_up(script.last)
    script.rest()


def two_halves(script: Script) -> None:
    """Two writes of a key that does not exist, each accepted by one member, in epoch 1.

    Both are by compare-and-set, so that at most one of them can ever have happened.  The one that A
    has is of a higher ballot than the one that B has; C promised both.
    """
    script.try_once("D", b"of D", None)
    first = script.last
    script.lose("prepare", "A")
    script.deliver("prepare", "BC")
    script.lose("accept", "AC")
    script.try_once("E", b"of E", None)
    second = script.last
    script.lose("prepare", "B")
    script.deliver("prepare", "AC")
    script.lose("accept", "C")
    script.deliver("accept", "AB")
    script.lose("accept", "B")
    script.time_is_up(first)
    script.time_is_up(second)


def members_without_a_base(script: Script) -> None:
    """Rule 5.  Two drivers of one epoch saw different quorums, each with half a write.

    B decides for D, E and F, and two of them open; A finds the vote for that.
    """
    two_halves(script)
    script.drive("B", "DEF")
    script.lose("wedge", "A")
    script.deliver("wedge", "C")
    script.deliver("records", "C")
    script.deliver("fetch", "DE")
    script.deliver("records", "BB")
    script.lose("fetch", "F")
    script.deliver("choose", "C")
    script.lose("choose", "A")
    script.deliver("open", "DE")
    script.lose("open", "F")
    script.tell_config("G", "D")
    script.get("G")
    script.deliver("read", "DE")
    script.lose("read", "F")
    script["A"].counter = 7
    script.drive("A", "DEF")
    script.deliver("wedge", "C")
    script.rest()
    script.tell_config("F", "D")
    script.catch_up("F", "D")
    script.rest()
    script.tell_config("H", "D")
    script.get("H")
    script.lose("read", "D")
    script.deliver("read", "EF")
    script.time_is_up(script.last)
    script.lose("prepare", "D")
    script.rest()


def second_decision(script: Script) -> None:
    """Rule 5.  B and C decided for D, E and F; A heard of nothing, and finds C's vote for that."""
    script.drive("B", "DEF")
    script.lose("wedge", "A")
    script.deliver("wedge", "C")
    script.deliver("fetch", "DE")
    script.deliver("records", "BB")
    script.lose("fetch", "F")
    script.deliver("choose", "C")
    script.lose("choose", "A")
    script.deliver("open", "DE")
    script.lose("open", "F")
    script.tell_config("G", "D")
    script.put("G", b"new")
    script.rest()
    script["A"].counter = 7
    script.drive("A", "ABC")
    script.lose("wedge", "B")
    script.deliver("wedge", "C")
    script.rest()
    script.tell_config("H", "A")
    script.get("H")
    script.rest()


def silent_because_it_went_on(script: Script) -> None:
    """Rule 5.  Who opened with a base, and went on, does not hold it any more.

    Epoch 2 (D, E, F) was chosen by A and B, and epoch 3 follows.  C, who heard of nothing, drives
    epoch 1 again and finds B's vote for a base that nobody has.
    """
    script.drive("A", "DEF")
    script.lose("wedge", "C")
    script.deliver("wedge", "B")
    for name in "DEF":
        script.deliver("fetch", name)
        script.deliver("records", "A")
    script.deliver("choose", "B")
    script.lose("choose", "C")
    script.deliver("open", "DEF")
    script.put("D", b"new")
    script.rest()
    script.drive("D", "DEF")
    script.rest()
    script.drive("C", "CBG")
    script.lose("wedge", "A")
    script.deliver("wedge", "B")
    script.rest()
    script["H"].learn(script["C"].known)
    script.get("H")
    script.rest()


def base_replaced_by_a_lower_ballot(script: Script) -> None:
    """Rule 5.  B's base was chosen and not opened yet when A, whose ballot is lower, comes late.

    D and E hold B's base.  If they took A's for it, C would find that two of three do not hold what
    was chosen, and decide for itself; while F opens what B decided.
    """
    two_halves(script)
    late = script.drive("A", "FDE")
    script.lose("wedge", "B")
    script.deliver("wedge", "C")
    script.deliver("records", "C")
    held = script.hold("fetch", "DE")
    script.lose("fetch", "F")
    script["B"].counter = 7
    script.drive("B", "FDE")
    script.lose("wedge", "A")
    script.deliver("wedge", "C")
    script.deliver("records", "C")
    script.deliver("fetch", "FDE")
    script.deliver("records", "BBB")
    script.deliver("choose", "C")
    script.lose("choose", "A")
    opens = script.hold("open", "FDE")
    script.net += held
    script.deliver("fetch", "DE")
    script.deliver("records", "AA")
    script.time_is_up(late)
    script.crash(1)
    script["C"].counter = 17
    script.drive("C", "ACG")
    script.deliver("wedge", "A")
    script.deliver("records", "DEF")
    script.rest()
    script.net += opens
    script.rest()
    script.catch_up("D", "F")
    script.catch_up("E", "F")
    script.rest()
    script.tell_config("H", "F")
    script.get("H")
    script.rest()
    script.get("C")
    script.rest()


def late_opening_of_a_holder(script: Script) -> None:
    """Rule 5.  E holds the base of epoch 3 when it opens epoch 2, late, with a copy of F's records.

    The base was chosen, and opened by G and H, when F asks who holds it.
    """
    script.drive("A", "AEF")
    script.deliver("wedge", "B")
    script.lose("fetch", "E")
    script.deliver("fetch", "F")
    script.deliver("records", "A")
    script.deliver("choose", "B")
    script.lose("open", "E")
    script.rest()
    script.tell_config("E", "A")
    script.drive("A", "GEH")
    script.lose("wedge", "E")
    script.deliver("wedge", "F")
    script.deliver("fetch", "EG")
    script.deliver("records", "AA")
    script.lose("fetch", "H")
    script.lose("choose", "E")
    script.deliver("choose", "F")
    opens = script.hold("open", "EGH")
    script.catch_up("E", "F")
    script.rest()
    script["F"].counter = 17
    script.drive("F", "FEB")
    script.lose("wedge", "A")
    script.deliver("wedge", "E")
    script.lose("records", "G")
    script.deliver("records", "EH")
    script.rest()
    script.net += opens
    script.deliver("open", "G")
    script.lose("open", "EH")
    script.tell_config("H", "G")
    script.catch_up("H", "G")
    script.rest()
    script.tell_config("C", "G")
    script.put("C", b"new")
    script.deliver("write", "G")
    script.lose("accept", "E")
    script.deliver("accept", "H")
    script.tell_config("D", "F")
    script.get("D")
    script.rest()


def copy_ahead_over_a_base(script: Script) -> None:
    """Rule 5.  D opened alone what was chosen; E, who holds that base, is to copy ahead from D.

    B finds the vote for it, and asks E and F whether they hold the base.
    """
    script.drive("A", "DEF")
    script.lose("wedge", "C")
    script.deliver("wedge", "B")
    script.deliver("fetch", "DE")
    script.deliver("records", "AA")
    script.lose("fetch", "F")
    script.deliver("choose", "B")
    script.lose("choose", "C")
    script.deliver("open", "D")
    script.lose("open", "EF")
    script.copy_ahead("D", "E")
    script.rest()
    script["B"].counter = 7
    script.drive("B", "BCG")
    script.lose("wedge", "A")
    script.deliver("wedge", "C")
    script.lose("records", "D")
    script.deliver("records", "EF")
    script.rest()
    script.tell_config("F", "D")
    script.catch_up("F", "D")
    script.rest()
    script.put("D", b"new")
    script.lose("accept", "E")
    script.rest()
    script.tell_config("H", "B")
    script.get("H")
    script.rest()


def opened_on_hearsay(script: Script) -> None:
    """Rule 8.  The same members were proposed with two bases, and D holds the one that lost."""
    two_halves(script)
    lost = script.drive("A", "DEF")
    script.lose("wedge", "B")
    script.deliver("wedge", "C")
    script.deliver("records", "C")
    script.deliver("fetch", "DE")
    script.deliver("records", "AA")
    script.lose("fetch", "F")
    script.lose("choose", "BC")
    script.time_is_up(lost)
    script["B"].counter = 7
    script.drive("B", "DEF")
    script.lose("wedge", "A")
    script.deliver("wedge", "C")
    script.deliver("records", "C")
    script.lose("fetch", "D")
    script.deliver("fetch", "EF")
    script.deliver("records", "BB")
    script.deliver("choose", "C")
    script.lose("choose", "A")
    script.lose("open", "D")
    script.deliver("open", "EF")
    script.tell_config("G", "E")
    script.get("G")
    script.lose("read", "D")
    script.deliver("read", "EF")
    script.tell_config("D", "E")
    script.get("G")
    script.lose("read", "F")
    script.deliver("read", "DE")
    script.time_is_up(script.last)
    script.lose("prepare", "F")
    script.rest()
    script.catch_up("D", "F")
    script.rest()


def opened_with_anything(script: Script) -> None:
    """Rule 8.  C has missed a write, and is told to open; D, who holds the base, copies from it."""
    script.put("A", b"new")
    script.deliver("accept", "B")
    script.lose("accept", "C")
    script.drive("A", "CDA")
    script.deliver("wedge", "B")
    script.lose("wedge", "C")
    script.lose("fetch", "C")
    script.deliver("fetch", "D")
    script.deliver("records", "A")
    script.deliver("choose", "B")
    script.lose("choose", "C")
    script.lose("open", "D")
    script.deliver("open", "C")
    script.tell_config("D", "A")
    script.catch_up("D", "C")
    script.rest()
    script.catch_up("D", "A")
    script.rest()
    script.tell_config("E", "A")
    script.get("E")
    script.lose("read", "A")
    script.deliver("read", "CD")
    script.time_is_up(script.last)
    script.rest()


def back_without_memory(script: Script) -> None:
    """Rule 6.  C has a write that B missed; it loses its memory and copies from B."""
    script.put("A", b"new")
    script.lose("accept", "B")
    script.deliver("accept", "C")
    script.crash(2)
    script.restart(2)
    script.catch_up("C", "B")
    script.rest()
    script.get("D")
    script.lose("read", "A")
    script.deliver("read", "BC")
    for _ in range(2):
        script.time_is_up(script.last)
        script.rest()


def value_of_the_epoch_before(script: Script) -> None:
    """Rule 7.  What was written in epoch 1 with a high counter, and in epoch 2 with a low one."""
    script["D"].counter = 40
    script.try_once("D", b"old")
    script.rest()
    script.drive("A", "ABC")
    script.rest()
    script.put("A", b"new")
    script.deliver("accept", "B")
    script.lose("accept", "C")
    script.tell_config("E", "A")
    script.get("E")
    script.lose("read", "A")
    script.deliver("read", "BC")
    script.time_is_up(script.last)
    script.lose("prepare", "A")
    script.rest()
