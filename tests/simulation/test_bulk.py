"""Many keys at once, while members of their groups are frozen."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from py2p_twisted.errors import NotConnected, Unavailable

from .ring_case import RingCase, address, seeds
from .world import SimNode, World

KEYS = 500


class BulkCase(RingCase):
    """A ring of eight, a client beside it, and many keys."""

    def ring(self, world: World) -> tuple[list[SimNode], SimNode, dict[bytes, bytes]]:
        """The members, a client that keeps nothing, and what is written."""
        members = self.grow(world, 8)
        client = world.add()
        world.wait(client.service.connect(*address(members[0])))
        written = self.update(world, client, 1)
        self.readable(world, written, [client, *members])
        return members, client, written

    def update(self, world: World, node: SimNode, version: int) -> dict[bytes, bytes]:
        """Write every key; what was written."""
        written = {b"key %d" % n: b"value %d of %d" % (version, n) for n in range(KEYS)}
        world.wait(node.service.update(written))
        return written

    def timed(self, world: World, deferred: Deferred[Any]) -> tuple[float, Any]:
        """How long it took, and its result."""
        began = world.clock.seconds()
        result = world.wait(deferred)
        return world.clock.seconds() - began, result

    def freeze(self, world: World, members: list[SimNode], number: int) -> list[SimNode]:
        """So many members freeze; which."""
        frozen = world.rng.sample(members, number)
        for node in frozen:
            world.tell(f"{node} freezes")
            node.host.pause()
        return frozen

    def thaw(self, frozen: list[SimNode]) -> None:
        """They go on."""
        for node in frozen:
            node.host.resume()


class TestFrozen(BulkCase):
    """Members that froze just now, with a quorum of every group left."""

    def test_read(self) -> None:
        """A read does not wait for their time-out: it asks others after a tenth of a second."""
        for seed in seeds(4):
            replicas = (3, 5)[seed % 2]
            with self.world(seed, replicas=replicas) as world:
                members, client, written = self.ring(world)
                frozen = self.freeze(world, members, replicas // 2)
                other = next(node for node in members if node not in frozen)
                took, found = self.timed(world, client.service.get_many(written))
                self.assertEqual(found, written)
                self.assertLess(took, 0.4)
                took, found = self.timed(world, other.service.get_many(written))
                self.assertEqual(found, written)
                self.assertLess(took, 0.4)
                self.thaw(frozen)

    def test_write(self) -> None:
        """A write waits about one request timeout; what the frozen find in their mail is over."""
        for seed in seeds(4):
            replicas = (3, 5)[seed % 2]
            with self.world(seed, replicas=replicas) as world:
                members, client, written = self.ring(world)
                frozen = self.freeze(world, members, replicas // 2)
                other = next(node for node in members if node not in frozen)
                for version, node in ((2, client), (3, other), (4, client)):
                    written = dict.fromkeys(written, b"%d" % version)
                    took, _ = self.timed(world, node.service.update(written))
                    self.assertLess(took, 1.0)
                self.readable(world, written, [client, other])
                self.thaw(frozen)
                world.run(world.rng.choice((0.01, 0.5, 5)))
                self.readable(world, written, [client, *members])
                world.settle(60)
                self.readable(world, written, [client, *members])

    def test_thawed_meanwhile(self) -> None:
        """They go on while others take their place: nothing is lost, and nothing comes back."""
        for seed in seeds(6):
            with self.world(seed, replicas=5) as world:
                members, client, written = self.ring(world)
                for node in self.freeze(world, members, 2):
                    world.clock.callLater(world.rng.uniform(0.1, 0.5), node.host.resume)
                reading = client.service.get_many(written)
                written = self.update(world, client, 2)
                self.assertEqual(set(world.wait(reading)), set(written))
                self.readable(world, written, [client, *members])
                written = self.update(world, members[0], 3)
                self.readable(world, written, [client, *members])


class TestNoQuorum(BulkCase):
    """Too many are frozen."""

    def test_unavailable(self) -> None:
        """It is said in time, and nothing is left waiting."""
        with self.world(1, replicas=3, operation_timeout=4.0) as world:
            members, client, written = self.ring(world)
            frozen = self.freeze(world, members, 5)
            began = world.clock.seconds()
            self.fails(world, Unavailable, client.service.get_many(written))
            self.assertLess(world.clock.seconds() - began, 10)
            began = world.clock.seconds()
            (error,) = self.all_of(world, [client.service.update(written)])
            self.assertTrue(error.outcome_unknown, repr(error))
            self.assertLess(world.clock.seconds() - began, 10)
            self.thaw(frozen)
            world.settle(60)
            self.readable(world, written, [client])

    def test_some_written(self) -> None:
        """Who hears that it failed hears that some of the keys were written all the same."""
        with self.world(1, replicas=1, operation_timeout=4.0) as world:
            members = self.grow(world, 3)
            writer = members[0].service
            world.crash(members[2])
            world.run(1)  # nothing is sent to it any more: no doubt about its own keys
            (error,) = self.all_of(world, [writer.update({b"%d" % n: b"1" for n in range(60)})])
            self.assertIsInstance(error, Unavailable)
            there = self.all_of(world, [writer.get(b"%d" % n, None) for n in range(60)])
            written = there.count(b"1")
            self.assertTrue(0 < written < 60, written)
            self.assertTrue(error.outcome_unknown, repr(error))
            self.assertIn(f"({written} of 60 keys were written)", str(error))
            away = next(n for n, value in enumerate(there) if value != b"1")
            (error,) = self.all_of(world, [writer.update({b"%d" % away: b"2"})])
            self.assertFalse(error.outcome_unknown, repr(error))

    def interrupted(self, seed: int, *, stop: bool) -> None:
        """The node stops, or its user gives up, while it waits for the frozen."""
        with self.world(seed, replicas=3) as world:
            members, client, written = self.ring(world)
            frozen = self.freeze(world, members, 2)
            operations = [client.service.get_many(written), client.service.update(written)]
            world.run(world.rng.choice((0.05, 0.15, 0.3, 1.0)))
            waiting = [deferred for deferred in operations if not deferred.called]
            self.assertTrue(waiting)
            if stop:
                world.wait(client.service.stopService())
                kind: type[Exception] = NotConnected
            else:
                for deferred in waiting:
                    deferred.cancel()
                kind = CancelledError
                world.run(3)  # what was sent already ends by itself
            for deferred in waiting:
                self.fails(world, kind, deferred)
            if stop:
                left = [
                    call
                    for call in client.host.clock.getDelayedCalls()
                    if not getattr(call.function, "__module__", "").startswith("tests.simulation")
                ]
                self.assertEqual(left, [])
            self.thaw(frozen)

    def test_stopped_meanwhile(self) -> None:
        """A node that stops leaves nothing behind."""
        for seed in seeds(6):
            self.interrupted(seed, stop=True)

    def test_cancelled(self) -> None:
        """Who gives up leaves nothing behind."""
        for seed in seeds(6):
            self.interrupted(seed, stop=False)
