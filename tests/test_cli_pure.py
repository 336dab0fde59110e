"""The parts of chordctl that only compute: texts, tables, the picture, findings, the export."""

from __future__ import annotations

import io
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.base import Peer, parse_address
from py2p_twisted.cli.diagnosis import GOOD, NOTE, PROBLEM, Finding, Here, of_node, of_ring
from py2p_twisted.cli.dump import Reader, Writer
from py2p_twisted.cli.frame import in_a_shell
from py2p_twisted.cli.looking import Look, Seen
from py2p_twisted.cli.picture import Spot, draw
from py2p_twisted.cli.ring import links, shown
from py2p_twisted.cli.terminal import Progress, Style, Table, bar, cut, style_for, width_of
from py2p_twisted.cli.texts import field, from_base64, of_field, seconds, size, visible
from py2p_twisted.wire.reports import GroupsReport, LinkReport, Report, StorageReport

NOW = 1_800_000_000.0


def peer(number: int) -> Peer:
    """One of several nodes, at the identifier of its number."""
    return Peer(bytes([number]) * 16, bytes([number]), f"10.0.0.{number}", 4444)


def report(number: int, after: int, **other: Any) -> Report:
    """What a node that is well tells.

    :param after: the node that follows it.
    """
    told: dict[str, Any] = dict.fromkeys(Report.__struct_fields__)
    told.update(version="1.0", wire=3, peer=peer(number), ring=b"r" * 16, k=6, replicas=3)
    told.update(phase="joined", uptime=60_000, clock=int(NOW * 1000), keys=10, size=100)
    told.update(groups=groups(), successors=() if after == number else (peer(after),))
    for name in ("fingers", "missing", "links", "asked", "counters"):
        told[name] = ()
    told.update(connections=0, status="Nominal")
    return Report(**told | other)


def groups(**other: int) -> GroupsReport:
    """Groups at full strength."""
    names = GroupsReport.__struct_fields__
    return GroupsReport(**dict.fromkeys(names, 0) | {"kept": 64, "proposes": 21} | other)


def ring(*reports: Report | None, numbers: tuple[int, ...] = (10, 30, 50)) -> Look:
    """Some nodes, as one look sees them."""
    seen = [
        Seen(peer(number), told, "" if told else "it is silent", number / 64, 1 / 3)
        for number, told in zip(numbers, reports, strict=True)
    ]
    return Look("name", 6, 3, seen, 10)


def well() -> list[Report]:
    """Three nodes of a ring that is well."""
    return [report(10, 30), report(30, 50), report(50, 10)]


class TextTests(SynchronousTestCase):
    """Bytes and numbers."""

    @given(st.binary(max_size=50))
    def test_fields(self, data: bytes) -> None:
        """What becomes part of a JSON object comes back as it was."""
        self.assertEqual(of_field("key", field("key", data)), data)

    def test_visible(self) -> None:
        """Nothing of a value steers the terminal; ordinary text stays what it is."""
        for data, text in (
            (b"plain", "plain"),
            ("schlüssel 🔑".encode(), "schlüssel 🔑"),
            (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
            (b"\xff", "\\xff"),
            (b"a\nb", "a\\nb"),
            ("\u202e".encode(), "\\u202e"),
        ):
            self.assertEqual(visible(data), text)
        self.assertEqual(visible(b"a\n\tb\x1b", lines=True), "a\n\tb\\x1b")

    def test_base64(self) -> None:
        """Strict."""
        self.assertEqual(from_base64("AP8="), b"\0\xff")
        for wrong in ("AP8", "A P8=", "ä", "AP8=\n"):
            self.assertRaises(ValueError, from_base64, wrong)

    def test_numbers(self) -> None:
        """For people."""
        for number, text in ((0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**40, "1.0 TiB")):
            self.assertEqual(size(number), text)
        for time, text in (
            (0.000485, "485 µs"),
            (0.0016, "1.6 ms"),
            (0.25, "250 ms"),
            (3.21, "3.2 s"),
            (59.2, "59 s"),
            (125, "2 min 5 s"),
            (9660, "2 h 41 min"),
            (200_000, "2 d 7 h"),
        ):
            self.assertEqual(seconds(time), text)

    def test_addresses(self) -> None:
        """HOST:PORT, and what is none."""
        self.assertEqual(parse_address("[::1]:4444"), ("::1", 4444))
        self.assertEqual(parse_address("node-1.example.org:1"), ("node-1.example.org", 1))
        for wrong in ("", "4444", ":4444", "host:", "host:0", "host:65536", "::1:4444", "a b:1",
                      "[x]:1", "host:٤٤", "host:000000000001"):  # fmt: skip
            self.assertIs(parse_address(wrong), None, wrong)

    def test_advice(self) -> None:
        """What an error advises is said as one does it in a shell."""
        text = in_a_shell("it is gone:\n  recover(accept_data_loss=True)")
        self.assertEqual(text, "it is gone: chordctl recover --accept-data-loss")


class TerminalTests(SynchronousTestCase):
    """Colours, widths, tables and the bar."""

    def test_when_there_are_colours(self) -> None:
        """On a terminal, unless somebody wants none."""
        main, other = os.openpty()
        self.addCleanup(os.close, main)
        self.addCleanup(os.close, other)
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        for number, choice, environment, color in (
            (other, "auto", {}, True),
            (other, "auto", {"NO_COLOR": "1"}, False),
            (other, "auto", {"NO_COLOR": ""}, True),
            (other, "auto", {"TERM": "dumb"}, False),
            (other, "never", {}, False),
            (writing, "auto", {}, False),
            (writing, "always", {"NO_COLOR": "1"}, True),
        ):
            self.assertIs(style_for(number, choice, environment).color, color)
        self.assertEqual(style_for(writing, "auto", {}).width, 80)
        self.assertEqual(style_for(writing, "auto", {"COLUMNS": "40"}).width, 40)

    def test_widths(self) -> None:
        """Columns, not characters."""
        self.assertEqual(width_of("\x1b[1;31mab\x1b[0m"), 2)
        self.assertEqual(width_of("日本"), 4)
        self.assertEqual(width_of("e\u0301"), 1)
        self.assertEqual(cut("abcdef", 4), "abc…")
        self.assertEqual(cut("日本語", 5), "日本…")

    def test_table(self) -> None:
        """As narrow as its cells; what there is no room for is left out."""
        table = Table(Style(width=24), "name", ">number", "more")
        table.add("a", "1", "x" * 10)
        table.add("long", "1,000", "y")
        self.assertEqual(
            table.lines(drop=("more",)),
            ["name  number  more", "a          1  xxxxxxxxxx", "long   1,000  y"],
        )
        narrow = Table(Style(width=20), "name", ">number", "more")
        narrow.add("a", "1", "x" * 10)
        self.assertEqual(narrow.lines(drop=("more",)), ["name  number", "a          1"])

    def test_bar(self) -> None:
        """Filled to a part."""
        for part, text in ((0, "░░░░"), (0.5, "██░░"), (1, "████"), (0.3, "█▎░░")):
            self.assertEqual(bar(Style(), part, 4), text)
        self.assertEqual(bar(Style(unicode=False), 0.5, 4), "##..")

    def test_progress(self) -> None:
        """How far it is, how fast, how long it takes; nothing at all where nobody looks."""
        clock = Clock()
        stream = io.StringIO()
        progress = Progress(clock, "Exporting", 1000, stream)
        clock.advance(2)
        progress.add(250)
        line = f"Exporting {'█' * 7}▌{'░' * 22}  25%  250 of 1,000  125/s  6.0 s left"
        self.assertEqual(progress.line(), line)
        progress.close()
        self.assertEqual(stream.getvalue(), "")
        unknown = Progress(clock, "Importing", None, stream)
        clock.advance(1)
        unknown.add(10)
        self.assertEqual(unknown.line(), "Importing 10  10/s")


class PictureTests(SynchronousTestCase):
    """The ring, drawn."""

    def test_fits(self) -> None:
        """At any width, with any nodes: no line is too long, and every node is there."""
        for width in (20, 40, 57, 80, 200):
            for number in (0, 1, 2, 5, 16, 64):
                for unicode in (True, False):
                    style = Style(width=width, unicode=unicode)
                    spots = [
                        Spot(at / number, (f"{at} 10.0.0.{at}:4444", str(at)), "", "@")
                        for at in range(number)
                    ]
                    lines = draw(style, spots, ["ring name", "5 nodes"])
                    text = "\n".join(lines)
                    self.assertLessEqual(max(map(width_of, lines)), width)
                    self.assertIn("ring name"[: width // 3], text)
                    if number <= 16:
                        self.assertEqual(text.count("@"), number, (width, number))
                    if not unicode:
                        self.assertTrue(text.isascii())

    def test_clockwise_from_the_top(self) -> None:
        """Identifier 0 is at the top, a quarter of the circle on the right."""
        places = {}
        spots = [Spot(n / 4, (), "", "nesw"[n]) for n in range(4)]
        for row, line in enumerate(draw(Style(), spots)):
            places.update({sign: (line.index(sign), row) for sign in "nesw" if sign in line})
        self.assertEqual(places["n"][0], places["s"][0])
        self.assertEqual(places["e"][1], places["w"][1])
        self.assertLess(places["w"][0], places["n"][0])
        self.assertLess(places["n"][1], places["e"][1])
        self.assertLess(places["n"][0], places["e"][0])

    def test_arcs_have_the_colour_of_who_they_lead_to(self) -> None:
        """The part of the circle before a node is its own."""
        spots = [Spot(0.25, (), "red", "a"), Spot(0.75, (), "green", "b")]
        lines = draw(Style(color=True), spots)
        middle = len(lines) // 2
        upper, lower = "".join(lines[: middle - 1]), "".join(lines[middle + 2 :])
        self.assertIn("\x1b[31m", upper.replace("1;", ""))
        self.assertIn("\x1b[32m", lower)
        self.assertNotIn("\x1b[31m", lower)

    def test_whole(self) -> None:
        """Picture and table of nodes that are well, suspected and gone."""
        suspecting = report(10, 30, links=(LinkReport(peer(30), False, True, 4000, 10),))
        found = ring(suspecting, report(30, 50), None)
        found.nodes[1].suspected_by.append("10.0.0.10:4444")
        for width in (40, 80):
            text = "\n".join(shown(Style(width=width), found))
            for words in ("suspected by 1", "unreachable", "3 nodes", "10 keys", "✗", "●"):
                self.assertIn(words, text)
            self.assertLessEqual(max(map(width_of, text.splitlines())), max(width, 55))
        self.assertIn("10.0.0.30:4444", "\n".join(shown(Style(width=80), found)))

    def test_links(self) -> None:
        """Who hears whom, and how fast."""
        fast = LinkReport(peer(30), False, False, 0, 1500)
        slow = LinkReport(peer(10), False, True, 4000, 250_000)
        one = report(10, 30, links=(fast,), missing=((peer(50), 9000),))
        found = ring(one, report(30, 50, links=(slow,)), None)
        self.assertEqual(
            links(Style(), found.nodes),
            ["        B       X  s", "B          1.5 ms  ✗", "X  250 ms          -", "s"],
        )


class DiagnosisTests(SynchronousTestCase):
    """Findings, each with its remedy."""

    here = Here(NOW, "1.0", 3)

    def of_ring(self, found: Look) -> list[Finding]:
        """What is not good about a ring; each has a remedy."""
        findings = [f for f in of_ring(self.here, found, b"r" * 16) if f.level != GOOD]
        for finding in findings:
            self.assertTrue(finding.remedy, finding)
        return findings

    def one(self, found: Look, level: str, what: str, *words: str) -> None:
        """Exactly one thing is not good."""
        (finding,) = self.of_ring(found)
        self.assertEqual((finding.level, finding.what), (level, what))
        for word in words:
            self.assertIn(word, finding.text)

    def test_well(self) -> None:
        """Nothing is wrong."""
        self.assertEqual(self.of_ring(ring(*well())), [])
        node = ring(*well()).nodes[0]
        levels = {finding.level for finding in of_node(self.here, node, NOW)}
        self.assertEqual(levels, {GOOD})

    def test_each(self) -> None:
        """One thing at a time."""
        one, two, three = well()
        year = 365 * 86400
        for reports, level, what, word in (
            ((one, two, report(50, 10, ring=b"x" * 16)), PROBLEM, "one ring", "another"),
            ((one, report(30, 10), three), NOTE, "circle", "10.0.0.30:4444 takes 10.0.0.10"),
            ((report(10, 30, groups=groups(below=5)), two, three), PROBLEM, "groups", "5 of 64"),
            (
                (one, two, report(50, 10, groups=groups(below=5, without_quorum=3))),
                PROBLEM,
                "groups",
                "3 of 64 have no quorum",
            ),
            ((one, two, report(50, 10, expires=int(NOW) - 1)), PROBLEM, "certificate", "expired"),
            ((one, two, report(50, 10, expires=int(NOW) + 86400)), NOTE, "certificate", "1 d 0 h"),
            ((one, two, report(50, 10, expires=int(NOW) + year)), GOOD, "", ""),
            (
                (one, two, report(50, 10, clock=int((NOW - 3600) * 1000))),
                PROBLEM,
                "clock",
                "behind",
            ),
            ((one, two, report(50, 10, version="2.0")), NOTE, "versions", "1.0 and 2.0"),
            (
                (one, two, report(50, 10, storage=StorageReport(True, "always", 95, 100, 0))),
                NOTE,
                "quota",
                "95 B of the 100 B",
            ),
            (
                (one, two, report(50, 10, storage=StorageReport(True, "always", 95, 100, 9))),
                PROBLEM,
                "quota",
                "10.0.0.50",
            ),
        ):
            if level == GOOD:
                self.assertEqual(self.of_ring(ring(*reports)), [])
            else:
                self.one(ring(*reports), level, what, word)

    def test_away(self) -> None:
        """Who does not answer is named, with the reason; there are too few for all copies."""
        found = self.of_ring(ring(report(10, 30), report(30, 10), None))
        self.assertEqual([finding.what for finding in found], ["members", "copies"])
        self.assertIn("it is silent", found[0].text)

    def test_older(self) -> None:
        """A member that cannot be asked is no fault; the ring counts it."""
        found = ring(report(10, 30), None, report(50, 10))
        found.nodes[1].linked = True
        self.one(found, NOTE, "members", "10.0.0.30:4444 tells nothing of itself: it is silent")
        self.assertEqual(found.nodes[1].state, "tells nothing")

    def test_half_seen(self) -> None:
        """Who answers here, and not to others."""
        look = ring(*well())
        look.nodes[1].suspected_by.append("10.0.0.10:4444")
        self.one(look, PROBLEM, "links", "10.0.0.30:4444 answers here, and not 10.0.0.10:4444")

    def test_survives_no_crash(self) -> None:
        """One or two nodes of a ring that wants three copies may be well, and none may fail."""
        one, two, three = report(10, 10), report(30, 10), report(50, 10)
        for look, words in (
            (ring(one, numbers=(10,)), "no crash: 1 node keeps 1 copy; 3 are wanted."),
            (ring(one, two, numbers=(10, 30)), "no crash: 2 nodes keep 2 copies; 3 are wanted."),
        ):
            self.assertEqual(look.summary(), f"All is well, but this ring survives {words}")
            self.assertFalse(look.well)
            look.replicas = 1  # it was founded for that
            self.assertTrue(look.well)
        self.assertEqual(ring(one, two, three).summary(), "All is well.")

    def test_full(self) -> None:
        """No identifier is left."""
        look = ring(*well())
        look.k = 1
        self.one(look, NOTE, "room", "all 2")

    def test_node(self) -> None:
        """The node that was asked for."""
        for told, what in (
            (report(10, 30, phase="leeching"), "member"),
            (report(10, 30, clock=int((NOW + 10) * 1000)), "clock"),
            (report(10, 30, status="its certificate expires"), "status"),
            (report(10, 30, version="0.9"), "version"),
        ):
            node = Seen(peer(10), told, "", 0.1)
            found = [f for f in of_node(self.here, node, NOW) if f.level != GOOD]
            self.assertEqual([finding.what for finding in found], [what])


class DumpTests(SynchronousTestCase):
    """The format of an export."""

    @given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=5))
    def test_there_and_back(self, items: list[tuple[bytes, bytes]]) -> None:
        """What is written is read; what is cut short anywhere is noticed."""
        writer = Writer()
        lines = [writer.head(ring="x"), *(writer.item(*item) for item in items), writer.end()]
        reader = Reader()
        found = [reader.take(line) for line in lines]
        reader.close()
        self.assertEqual([item for item in found if item is not None], items)
        for place in range(len(lines)):
            cut_short = Reader()
            for line in lines[:place]:
                cut_short.take(line)
            self.assertRaises(ValueError, cut_short.close)
