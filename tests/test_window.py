"""How many requests may be on their way to one peer."""

from __future__ import annotations

from unittest import TestCase

from py2p_twisted.settings import Settings
from py2p_twisted.wire.window import Window

SETTINGS = Settings()


class TestWindow(TestCase):
    def setUp(self) -> None:
        self.window = Window(SETTINGS)
        self.sent = 0

    def round(self, *, busy: int = 0) -> None:
        """As many as may be are sent and answered; so many of them find the peer busy."""
        under_way = int(self.window.size)
        first, self.sent = self.sent, self.sent + under_way
        for number in range(first, self.sent):
            if number - first < busy:
                self.window.busy(number + 1, self.sent, under_way)
            else:
                self.window.answered(under_way)

    def test_a_calm_peer(self) -> None:
        """Twice as many with each round trip, up to the bound."""
        sizes = []
        for _ in range(6):
            sizes.append(self.window.size)
            self.round()
        self.assertEqual(sizes, [64, 128, 256, 512, 1024, 1024])

    def test_a_busy_peer(self) -> None:
        """A good deal less, once for a round trip; then only a few more with each."""
        for _ in range(4):
            self.round()
        self.round(busy=500)
        self.assertAlmostEqual(self.window.size, 0.7 * 1024, delta=8)
        before = self.window.size
        self.round()
        self.assertAlmostEqual(self.window.size, before + 8, delta=1)

    def test_always_busy(self) -> None:
        """It does not end: some must find out that the peer is not busy any more."""
        for _ in range(50):
            self.round(busy=1024)
        self.assertEqual(self.window.size, 32)
        for _ in range(2000):
            self.round()
        self.assertEqual(self.window.size, SETTINGS.requests_per_connection)

    def test_what_is_not_used(self) -> None:
        """Few answers at a time do not tell that the peer could bear many."""
        for _ in range(1000):
            self.window.answered(10)
        self.assertEqual(self.window.size, 64)

    def test_few_under_way(self) -> None:
        """A peer that is busy with few of them is asked less than that."""
        for _ in range(4):
            self.round()
        self.window.busy(self.sent + 1, self.sent + 1, 100)
        self.assertEqual(self.window.size, 70)

    def test_small_bounds(self) -> None:
        window = Window(Settings(requests_per_connection=4))
        window.busy(1, 1, 4)
        self.assertEqual(window.size, 4)

    def test_slow(self) -> None:
        """A long way is not slow; one that takes longer than usual is."""
        self.assertTrue(self.window.is_slow(0.51))  # nothing is known of the way yet
        self.assertFalse(self.window.is_slow(0.2))
        self.assertFalse(self.window.is_slow(0.44))
        self.assertTrue(self.window.is_slow(0.46))
        self.assertFalse(self.window.is_slow(0.001))
        self.assertTrue(self.window.is_slow(0.26))

    def test_wait(self) -> None:
        self.assertEqual(self.window.wait(1000, None), 0)
        self.assertAlmostEqual(self.window.wait(640, 0.02), 0.2)
