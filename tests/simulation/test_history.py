"""The judge of histories accepts what a register can do, and nothing else."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .history import ANY, History, Operation, Outcome


def told(*lines: tuple[object, ...]) -> History:
    """A history of key k: (begin, end, kind, arguments, result); end None is unknown."""
    history = History()
    events: list[tuple[int, int, bool]] = []
    for number, (begin, end, *_) in enumerate(lines):
        assert isinstance(begin, int)
        events.append((begin, number, True))
        if isinstance(end, int):
            events.append((end, number, False))
    running: dict[int, Operation] = {}
    for time, number, begins in sorted(events):
        _, _, kind, arguments, result = lines[number]
        if begins:
            assert isinstance(kind, str) and isinstance(arguments, tuple)
            running[number] = history.call(f"c{number}", kind, b"k", arguments, float(time))
        else:
            running[number].returned(result, float(time))
    return history


class KnownHistories(SynchronousTestCase):
    """Small histories with a verdict that a person can check."""

    def fine(self, *lines: tuple[object, ...]) -> None:
        self.assertEqual(told(*lines).check().text, "linearizable")

    def wrong(self, *lines: tuple[object, ...]) -> None:
        self.assertIs(told(*lines).check().outcome, Outcome.VIOLATED)

    def test_read_of_a_write(self) -> None:
        """A read after a write sees it; one that overlaps it may or may not."""
        self.fine((0, 1, "set", (b"1",), None), (2, 3, "get", (), b"1"))
        self.wrong((0, 1, "set", (b"1",), None), (2, 3, "get", (), None))
        for seen in (b"1", None):
            self.fine((0, 3, "set", (b"1",), None), (1, 2, "get", (), seen))

    def test_reads_never_go_back(self) -> None:
        """Once a read saw the new value, later reads do too."""
        self.wrong((0, 9, "set", (b"1",), None), (1, 2, "get", (), b"1"), (3, 4, "get", (), None))

    def test_unknown_write(self) -> None:
        """It may happen at any later time, or never; it does not happen twice or undo itself."""
        write = (0, None, "set", (b"1",), None)
        self.fine(write, (2, 3, "get", (), b"1"))
        self.fine(write, (2, 3, "get", (), None))
        self.fine(write, (2, 3, "get", (), None), (4, 5, "get", (), b"1"))
        self.wrong(write, (2, 3, "get", (), b"1"), (4, 5, "get", (), None))
        self.wrong(
            write,
            (2, 3, "get", (), b"1"),
            (4, 5, "set", (b"2",), None),
            (6, 7, "get", (), b"2"),
            (8, 9, "get", (), b"1"),
        )

    def test_unknown_write_has_a_beginning(self) -> None:
        """It takes effect after its call, not before."""
        self.wrong((0, 1, "get", (), b"1"), (2, None, "set", (b"1",), None))

    def test_two_unknown_twins(self) -> None:
        """Two equal writes with unknown outcomes may each happen once, and not three times."""
        twins = [(0, None, "set", (b"1",), None), (1, None, "set", (b"1",), None)]
        seen = [(t, t + 1, "get", (), b"1") for t in (4, 12, 20)]
        gone = [(t, t + 1, "delete", (), True) for t in (8, 16)]
        self.fine(*twins, *seen[:2], gone[0])
        self.wrong(*twins, *seen, *gone)

    def test_compare_and_set(self) -> None:
        """Only one of two that expect the same can win; the loser's False must be true."""
        self.wrong(
            (0, 5, "compare_and_set", (None, b"1"), True),
            (1, 4, "compare_and_set", (None, b"2"), True),
        )
        self.fine(
            (0, 5, "compare_and_set", (None, b"1"), True),
            (1, 4, "compare_and_set", (None, b"2"), False),
        )
        self.wrong((0, 1, "compare_and_set", (None, b"1"), False))

    def test_delete_and_pop(self) -> None:
        """Their results tell what was there."""
        self.fine(
            (0, 1, "set", (b"1",), None),
            (2, 3, "pop", (), b"1"),
            (4, 5, "delete", (), False),
            (6, 7, "pop", (), None),
        )
        self.wrong((0, 1, "set", (b"1",), None), (2, 3, "delete", (), False))
        self.wrong((0, 9, "set", (b"1",), None), (1, 3, "pop", (), b"1"), (2, 4, "pop", (), b"1"))

    def test_setdefault(self) -> None:
        """The first wins and both see its value."""
        first, second = (0, 1, "setdefault", (b"1",), b"1"), (2, 3, "setdefault", (b"2",), b"1")
        self.fine(first, second)
        self.wrong(first, (*second[:4], b"2"))

    def test_result_not_seen(self) -> None:
        """ANY fits every result, but the effect is certain."""
        self.fine((0, 1, "set", (b"1",), None), (2, 3, "delete", (), ANY), (4, 5, "get", (), None))
        self.wrong((0, 1, "set", (b"1",), None), (2, 3, "delete", (), ANY), (4, 5, "get", (), b"1"))

    def test_moment_of_return_counts_not_its_time(self) -> None:
        """Of two things at one instant, the one recorded first came first."""
        history = History()
        history.call("a", "set", b"k", (b"1",), 1.0).returned(None, 1.0)
        history.call("b", "get", b"k", (), 1.0).returned(None, 1.0)
        self.assertFalse(history.check())


class Recording(SynchronousTestCase):
    """The recorder keeps what it is told, and refuses nonsense."""

    def test_keys_are_apart(self) -> None:
        """What happens to one key says nothing about another; the verdict names the bad one."""
        history = History()
        history.call("a", "set", b"one", (b"1",), 0.0).returned(None, 0.5)
        history.call("a", "get", b"two", (), 1.0).returned(None, 1.5)
        self.assertTrue(history.check())
        history.call("a", "get", b"two", (), 2.0).returned(b"1", 2.5)
        verdict = history.check()
        self.assertFalse(verdict)
        self.assertEqual(verdict.key, b"two")

    def test_failed_has_no_effect(self) -> None:
        """A failed write is left out: seeing it is a violation."""
        history = History()
        history.call("a", "set", b"k", (b"1",), 0.0).failed()
        history.call("b", "get", b"k", (), 1.0).returned(None, 1.0)
        self.assertTrue(history.check())
        history.call("b", "get", b"k", (), 2.0).returned(b"1", 2.0)
        self.assertFalse(history.check())

    def test_silence_is_unknown(self) -> None:
        """An operation that nobody settled, or settled as unknown, may or may not have happened."""
        for settle in (lambda operation: None, Operation.unknown):
            for seen in (None, b"1"):
                history = History()
                settle(history.call("a", "set", b"k", (b"1",), 0.0))
                history.call("b", "get", b"k", (), 1.0).returned(seen, 2.0)
                self.assertTrue(history.check())

    def test_refuses(self) -> None:
        """Settling twice, unknown kinds and time that runs backwards."""
        history = History()
        operation = history.call("a", "get", b"k", (), 5.0)
        self.assertRaises(ValueError, operation.returned, None, 4.0)
        operation = history.call("a", "get", b"k", (), 5.0)
        operation.failed()
        self.assertRaises(ValueError, operation.unknown)
        self.assertRaises(KeyError, history.call, "a", "increment", b"k", (), 6.0)
        self.assertRaises(ValueError, history.call, "a", "get", b"k", (), 4.0)

    def test_undecided_is_not_fine(self) -> None:
        """A budget too small gives a verdict of its own; a violation elsewhere outweighs it."""
        history = History()
        for number in range(4):
            history.call("a", "set", b"k", (b"%d" % number,), number).returned(None, number)
        verdict = history.check(budget=2)
        self.assertIs(verdict.outcome, Outcome.UNDECIDED)
        self.assertFalse(verdict)
        self.assertIn("undecided after 2 placements of 4 calls", verdict.text)
        history.call("a", "get", b"other", (), 9.0).returned(b"9", 9.0)
        self.assertEqual(history.check(budget=2).key, b"other")

    def test_excerpt(self) -> None:
        """Out of a long history it shows the first impossible return and what is near it."""
        history = History()
        for number in range(100):
            time = float(number)
            history.call("a", "set", b"k", (b"%d" % number,), time).returned(None, time + 0.25)
        history.call("slow", "set", b"k", (b"lost",), 100.0).unknown()
        history.call("b", "get", b"k", (), 100.5).returned(b"7", 100.75)
        for number in range(101, 200):
            history.call("a", "set", b"k", (b"x" * 99,), float(number)).returned(None, number)
        text = history.check().text
        self.assertIn(">   100.5000   100.7500  b: get() -> b'7'\n", text)
        self.assertIn("slow: set(b'lost')  outcome unknown\n", text)
        self.assertIn("a: set(b'99') -> absent\n", text)
        self.assertIn("the value could only be: b'99', b'lost'", text)
        self.assertLess(len(text.splitlines()), 15)
