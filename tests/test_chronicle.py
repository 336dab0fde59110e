"""What a node remembers of what happened: each thing once, bounded, and told by its report."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.node.chronicle import MOST_EVENTS, Chronicle

from .fakes import config
from .simulation.ring_case import RingCase
from .simulation.world import SimNode, World


class ChronicleTests(SynchronousTestCase):
    """The events of one node, without the node."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.chronicle = Chronicle(self.clock)

    def test_bounded(self) -> None:
        """The oldest are forgotten, and no text is longer than a report takes."""
        for number in range(MOST_EVENTS + 5):
            self.clock.advance(1)
            self.chronicle.note("lost", f"{number} " + "x" * 1000)
        events = self.chronicle.latest()
        self.assertEqual([event.number for event in events], list(range(6, MOST_EVENTS + 6)))
        self.assertEqual([event.at for event in events], list(range(6, MOST_EVENTS + 6)))
        self.assertEqual({len(event.text) for event in events}, {256})

    def test_together(self) -> None:
        """Groups that change at the same time are one event, told when no more follow."""
        for partition in range(12):
            before, after = config(partition, 1, 1, 2, 3), config(partition, 2, 1, 2, 4)
            self.chronicle.regrouped(before, after)
            self.clock.advance(0.5)
        self.assertEqual(self.chronicle.latest(), [])
        self.clock.advance(0.5)
        (event,) = self.chronicle.latest()
        self.assertEqual((event.kind, event.at), ("regrouped", 5.5))
        self.assertEqual(event.text, "12 groups changed: 5 came, 4 went")
        self.chronicle.regrouped(config(1, 2, 1, 2, 4), config(1, 3, 1, 2, 4, 5, 6, 7, 8))
        self.clock.advance(1)
        self.assertEqual(self.chronicle.latest()[-1].text, "1 group changed: 6, 7, 8, 9 came")

    def test_many_names(self) -> None:
        """A few are named."""
        self.chronicle.regrouped(config(0, 1, *range(1, 8)), config(0, 2, 9))
        self.clock.advance(1)
        (event,) = self.chronicle.latest()
        self.assertRegex(event.text, r"^1 group changed: A came, (\w, ){3}\w and 3 more went$")

    def test_new_epoch_of_the_same(self) -> None:
        """An epoch with the same members is nothing that anybody has to know."""
        self.chronicle.regrouped(config(0, 1, 1, 2, 3), config(0, 2, 1, 2, 3))
        self.clock.advance(5)
        self.assertEqual(self.chronicle.latest(), [])


class RingTests(RingCase):
    """The events of a ring."""

    def kinds(self, world: World, *nodes: SimNode) -> list[tuple[str, str]]:
        """What the reports of nodes tell."""
        reports = [world.wait(node.service.report()) for node in nodes]
        return [(event.kind, event.text) for report in reports for event in report.events]

    def test_joins_and_losses(self) -> None:
        """Who joins, who is lost, what becomes of the groups; who tells it, tells it once."""
        with self.world(3, k=4, evict_after=10.0) as world:
            members = self.grow(world, 5)
            world.run(10)
            for node in members[1:]:
                told = self.kinds(world, node)
                self.assertEqual(told.count(("joined", f"{node.service.node.core.me} joined")), 1)
            founder = members[0].service.node.core.me
            self.assertIn(("joined", f"{founder} founded the ring"), self.kinds(world, members[0]))
            self.assertIn("regrouped", dict(self.kinds(world, *members)))
            gone, left = members[2], [*members[:2], *members[3:]]
            world.crash(gone)
            world.run(60)
            told = self.kinds(world, *left)
            lost = ("lost", f"{gone.service.node.core.me} does not answer any more")
            self.assertIn(lost, told)
            self.assertTrue(any(text.endswith(" went") for kind, text in told), told)

    def test_no_quorum(self) -> None:
        """Groups that cannot be used, and can again."""
        with self.world(4, k=4, evict_after=1000.0) as world:
            members = self.grow(world, 3)
            world.run(5)
            one, *others = (node.service.out_addr[0] for node in members)
            world.network.cut([one], others)
            world.run(20)
            me = members[0].service.node.core.me
            self.assertIn(
                ("unusable", f"16 groups of {me} cannot be used"), self.kinds(world, members[0])
            )
            world.network.heal()
            world.run(60)
            told = self.kinds(world, members[0])
            self.assertIn(("usable", f"all groups of {me} can be used"), told)
            self.assertIn("found", dict(self.kinds(world, *members)))  # by one side or the other
