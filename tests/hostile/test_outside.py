"""The quick ones among the attacks, on a node that is a process of its own, over raw sockets."""

from __future__ import annotations

import contextlib
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from . import attacks
from .attacks import Attack
from .raw import Raw, hello
from .victim import Victim, wait_until

#: Connections of one address that a node allows.
MOST = 64


class TestOutside(SynchronousTestCase):
    """Each goes over a bound; afterwards the node is well, and has complained with measure."""

    def setUp(self) -> None:
        if not Path("/proc/self/clear_refs").exists():
            raise SkipTest("what a process uses is read from /proc")

    def victim(self) -> Victim:
        folder = Path(self.mktemp())
        folder.mkdir()
        return Victim(folder, client=False)

    def held(self, victim: Victim, attack: Attack) -> None:
        """The attack's bounds hold."""
        victim.begin()
        attack.run(victim)
        measured = victim.end()
        self.assertEqual(measured.strange, [], attack.name)
        refused = [line for line in measured.lines if "refused" in line]
        self.assertLessEqual(attack.least, len(refused), attack.name)
        self.assertLessEqual(len(refused), attack.lines, attack.name)
        self.assertLess(measured.grown, attack.memory, attack.name)

    def test_what_is_no_message(self) -> None:
        quick = (
            attacks.strangers,
            attacks.announced,
            attacks.bad_msgpack,
        )
        with self.victim() as victim:
            self.held(victim, Attack("numbers", lambda v: attacks.out_of_range(v, 600), least=0))
            for attack in attacks.ATTACKS:
                if attack.run in quick:
                    self.held(victim, attack)

    def test_too_many(self) -> None:
        """The 65th connection of an address is closed at once; one more may come when one went."""
        with self.victim() as victim, contextlib.ExitStack() as stack:
            victim.begin()
            raws = [stack.enter_context(Raw(victim.address)) for _ in range(3 * MOST)]
            closed = attacks.ended(raws)
            self.assertEqual(len(closed), 2 * MOST)
            with Raw(victim.address, "127.0.0.2") as elsewhere:
                elsewhere.meet()
            left = [raw for raw in raws if raw not in closed]
            left[0].close()
            wait_until(lambda: self.enters(victim), "room for one more")
            measured = victim.end()
            self.assertEqual(measured.strange, [])
            refused = [line for line in measured.lines if "refused" in line]
            self.assertEqual(len(refused), 6)

    @staticmethod
    def enters(victim: Victim) -> bool:
        with Raw(victim.address) as raw:
            raw.say(hello())
            return raw.hear() is not None

    def test_no_descriptors_left(self) -> None:
        """A node that may open only a few files outlives more connections than that."""
        import resource

        with self.victim() as victim, contextlib.ExitStack() as stack:
            room = victim.descriptors + 40
            resource.prlimit(victim.pid, resource.RLIMIT_NOFILE, (room, room))
            victim.begin()
            with Raw(victim.address) as well_behaved:
                well_behaved.meet()
                raws = [
                    stack.enter_context(Raw(victim.address, f"127.0.0.{2 + number % 5}"))
                    for number in range(200)
                ]
                attacks.ended(raws)
                self.assertIsNotNone(well_behaved.ask(attacks.Ping()))
                for raw in raws:
                    raw.close()
                wait_until(lambda: self.enters(victim), "room again")
            measured = victim.end()
            # Twisted says three lines of each; the node itself has said enough after 51.
            own = [line for line in measured.lines if "EMFILE" not in line]
            self.assertEqual([line for line in measured.strange if line in own], [])
            self.assertLessEqual(len(own), 51)
