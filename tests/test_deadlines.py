"""When the deadlines of requests are looked at."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.settings import Settings
from py2p_twisted.wire.watch import Watch


class FakeLink:
    """A connection with requests under way, and its own link."""

    idle = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.link = self
        self.swept: list[float] = []

    def sweep(self, now: float) -> None:
        """As the product's."""
        self.swept.append(now)


class TestWatch(SynchronousTestCase):
    def test_a_node_that_was_busy(self) -> None:
        """It looks at what came meanwhile before it calls anybody silent."""
        clock = Clock()
        link: Any = FakeLink(clock)
        watch = Watch(clock, Settings(), lambda: [link])
        watch.expect()
        clock.advance(0.05)
        self.assertEqual(link.swept, [0.05])
        clock.rightNow = 3.0  # the reactor was held up: its calls are late
        clock.advance(0)
        self.assertEqual(link.swept, [0.05])
        clock.rightNow = 6.0  # and is so again: some time it must be
        clock.advance(0)
        self.assertEqual(link.swept, [0.05, 6.0])
        clock.advance(0.05)
        self.assertEqual(link.swept, [0.05, 6.0, 6.05])
        watch.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
