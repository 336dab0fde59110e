"""What nodes tell of themselves: the truth, bounded, also of those that are gone."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from py2p_twisted import __version__
from py2p_twisted.base import Peer
from py2p_twisted.errors import PeerUnreachable
from py2p_twisted.reporting import Member, Report
from py2p_twisted.settings import Settings
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import WIRE_VERSION, Answer, Declined, Done, Leave, Request
from py2p_twisted.wire.reports import (
    MOST_LINKS,
    EventReport,
    GroupsReport,
    LinkReport,
    StorageReport,
)

from .simulation.disk import SimDisk
from .simulation.ring_case import RingCase, address
from .simulation.world import SimNode, World


class TestReport(RingCase):
    """The report of one node."""

    def report(self, world: World, node: SimNode, of: SimNode | None = None) -> Report:
        """What a node tells another one, or itself, of how it is."""
        peer = None if of is None else of.service.node.core.me
        return world.wait(node.service.report(peer))

    def test_member(self) -> None:
        """A member tells its place, its keys and its groups, the same to all who ask."""
        with self.world(1, k=4) as world:
            members = sorted(self.grow(world, 3), key=lambda node: node.service.node.core.me.id)
            self.write(world, members[0], 50)
            world.run(5)
            one, two, three = (node.service.node.core.me for node in members)
            report = self.report(world, members[1])
            self.assertEqual((report.version, report.wire), (__version__, WIRE_VERSION))
            self.assertEqual((report.peer, report.k, report.replicas), (two, 4, 5))
            self.assertEqual(report.ring, members[0].service.node.core.ring_id)
            self.assertEqual((report.phase, report.leeching), ("joined", False))
            self.assertEqual((report.predecessor, report.successors), (one, (three, one)))
            self.assertEqual(report.keys, 50)
            self.assertEqual(report.size, 50 * 8 - 10 + 3 * self.claim_bytes(members))
            self.assertEqual(report.status, "Nominal")
            self.assertEqual((report.storage, report.expires, report.missing), (None, None, ()))
            self.assertEqual({link.peer for link in report.links}, {one, three})
            for link in report.links:
                self.assertEqual((link.leeching, link.suspected), (False, False))
                self.assertTrue(0 < (link.round_trip or 0) < 100_000, link)
                self.assertLess(link.heard, 2_000)
            self.assertEqual(report.clock, int(world.clock.seconds() * 1000))
            self.assertTrue(5_000 <= report.uptime <= report.clock)
            other = self.report(world, members[0], members[1])
            self.assertEqual((other.peer, other.keys, other.groups), (two, 50, report.groups))
            self.assertGreater(dict(other.asked)["GetReport"], 0)

    def claim_bytes(self, members: list[SimNode]) -> int:
        """Of a claim to an identifier, which is a record of the table, too."""
        core = members[0].service.node.core
        claims = [
            len(record.value or b"")
            for acceptor in core.acceptors.values()
            for key, record in acceptor.records.items()
            if key.startswith(b"\1")
        ]
        self.assertEqual(len(claims), 3)
        self.assertEqual(len(set(claims)), 1)
        return claims[0]

    def test_groups(self) -> None:
        """Each group has one proposer; a member that is away is missed, and so is a quorum."""
        with self.world(2, k=4, evict_after=1000.0) as world:
            members = self.grow(world, 3)
            reports = [self.report(world, node) for node in members]
            self.assertEqual([r.groups.kept for r in reports], [16, 16, 16])
            self.assertEqual(sum(r.groups.proposes for r in reports), 16)
            self.write(world, members[0], 30)
            world.run(2)
            reports = [self.report(world, node) for node in members]
            self.assertEqual(sum(r.groups.keys for r in reports), 30)
            self.assertEqual([r.keys for r in reports], [30, 30, 30])
            for report in reports:
                self.assertEqual((report.groups.below, report.groups.without_quorum), (0, 0))
            gone = members[0].service.node.core.me
            world.crash(members[0])
            world.run(12)
            report = self.report(world, members[1])
            self.assertEqual((report.groups.below, report.groups.without_quorum), (16, 0))
            self.assertEqual([peer for peer, _ in report.missing], [gone])
            self.assertTrue(5_000 < report.missing[0][1] < 13_000, report.missing)
            self.assertIn("Not reachable", report.status)
            world.crash(members[1])
            world.run(12)
            report = self.report(world, members[2])
            self.assertEqual((report.groups.below, report.groups.without_quorum), (16, 16))
            self.assertEqual(report.groups.proposes, 16)

    def test_two_of_five(self) -> None:
        """A small ring is at full strength with the nodes that it has."""
        with self.world(3, k=3) as world:
            for node in self.grow(world, 2):
                report = self.report(world, node)
                self.assertEqual((report.groups.kept, report.groups.below), (8, 0))

    def test_counters(self) -> None:
        """Reads and writes are counted, wherever they were asked for."""
        with self.world(4, k=4) as world:
            members = self.grow(world, 3)
            reader = world.add()
            world.wait(reader.service.connect(*address(members[0])))

            def added(name: str) -> int:
                reports = [self.report(world, node) for node in members]
                return sum(dict(report.counters)[name] for report in reports)

            before = {name: added(name) for name in ("reads", "writes")}
            for node in (reader, members[1]):
                for number in range(10):
                    world.wait(node.service.set(f"key {number}", "value"))
                    world.wait(node.service.get(f"key {number}"))
                world.wait(node.service.update({f"key {number}": "1" for number in range(10)}))
                world.wait(node.service.get_many([f"key {number}" for number in range(10)]))
            self.assertIn(added("reads") - before["reads"], range(40, 80))  # some are asked twice
            self.assertEqual(added("writes") - before["writes"], 40)

    def test_storage(self) -> None:
        """What is on the disk."""
        with self.world(5, k=3) as world:
            node = world.add(disk=SimDisk(world.rng))
            world.wait(node.service.join())
            world.wait(node.service.set("key", "value"))
            storage = self.report(world, node).storage
            assert storage is not None
            self.assertTrue(storage.durable)
            self.assertGreater(storage.used, 0)
            self.assertIs(storage.quota, None)

    def test_outsider(self) -> None:
        """A leeching node tells that it is one, and may ask members; an address will do."""
        with self.world(6, k=3) as world:
            (member,) = self.grow(world, 1)
            reader = world.add()
            own = self.report(world, reader)
            self.assertEqual((own.phase, own.leeching, own.ring), ("leeching", True, b""))
            world.wait(reader.service.connect(*address(member)))
            own, other = self.report(world, reader), self.report(world, reader, member)
            self.assertTrue(own.leeching)
            self.assertEqual(own.ring, other.ring)
            by_address = world.wait(reader.service.report(address(member)))
            self.assertEqual(by_address.peer, other.peer)
            self.assertTrue([link for link in by_address.links if link.leeching])
            world.crash(member)
            self.fails(world, PeerUnreachable, reader.service.report(("10.0.77.77", 1)))

    def test_many_groups(self) -> None:
        """What is added up over very many groups may be a quarter of a second old, and no more."""
        with self.world(7, k=10, replicas=1) as world:
            (member,) = self.grow(world, 1)
            self.assertEqual(self.report(world, member).keys, 0)
            self.write(world, member, 10)
            world.run(0.3)
            report = self.report(world, member)
            self.assertEqual((report.keys, report.groups.kept), (10, 1024))

    def test_largest(self) -> None:
        """The largest report that can be made fits one message, with room to spare."""
        peer = Peer(b"i" * 16, b"p" * 20, "h" * 255, 65535)
        most = 2**62
        kinds = [(kind.__name__, most) for kind in Request.__args__]  # type: ignore[attr-defined]
        report = Report(
            *("v" * 64, most, peer, b"r" * 16, 160, 5, "leeching", most, most, most, most),
            GroupsReport(most, most, most, most, most, most),
            *(peer, (peer,) * 64, (peer,) * 160, ((peer, most),) * 64),
            (LinkReport(peer, True, True, most, most),) * MOST_LINKS,
            *(most, tuple(kinds), (("c" * 64, most),) * 128),
            *(StorageReport(True, "interval", most, most, most), most, "s" * 1024),
            (EventReport(most, most, "k" * 64, "t" * 256),) * 64,
        )
        self.assertLess(len(encode(Answer(most, report))), Settings.max_frame // 4)


class TestReports(RingCase):
    """The reports of a whole ring."""

    def members(self, world: World, node: SimNode) -> list[Member]:
        """What a node learns of all."""
        return world.wait(node.service.reports())

    def test_all(self) -> None:
        """Everybody, in the order of the circle, for a member and for a leeching node."""
        with self.world(1, k=5) as world:
            members = self.grow(world, 7)
            reader = world.add()
            world.wait(reader.service.connect(*address(members[0])))
            for node in (members[3], reader):
                found = self.members(world, node)
                self.assertEqual([member.peer.id for member in found], self.ids(members))
                for member in found:
                    assert member.report is not None
                    self.assertEqual((member.report.peer, member.problem), (member.peer, ""))

    def test_more_than_keep_something(self) -> None:
        """With fewer partitions than nodes some keep nothing: their neighbours name them."""
        with self.world(2, k=2, replicas=1) as world:
            members = self.grow(world, 4)
            reader = world.add()
            world.wait(reader.service.connect(*address(members[0])))
            found = self.members(world, reader)
            self.assertEqual([member.peer.id for member in found], [0, 1, 2, 3])

    def test_absent(self) -> None:
        """Who was lost, and is still counted by groups, is listed, with the reason."""
        with self.world(3, k=4, evict_after=1000.0) as world:
            members = self.grow(world, 5)
            gone = members[2].service.node.core.me
            world.crash(members[2])
            world.run(1)
            found = {member.peer: member for member in self.members(world, members[0])}
            self.assertEqual(len(found), 5)
            self.assertIs(found[gone].report, None)
            self.assertNotEqual(found[gone].problem, "")
            self.assertEqual(sum(one.report is not None for one in found.values()), 4)

    def test_nobody(self) -> None:
        """A node that knows no ring knows no members."""
        with self.world(4) as world:
            self.assertEqual(self.members(world, world.add()), [])

    def test_cancelled(self) -> None:
        """It can be cancelled; nothing is left of it."""
        with self.world(5, k=4) as world:
            members = self.grow(world, 3)
            waiting: Deferred[list[Member]] = members[0].service.reports()
            failed: list[object] = []
            waiting.addErrback(failed.append)
            waiting.cancel()
            world.run(3)
            self.assertEqual(len(failed), 1)


class TestLeave(RingCase):
    """A member that is asked to leave."""

    def ask(self, world: World, node: SimNode, member: SimNode) -> object:
        """What a member answers."""
        return world.wait(node.service.node.core.ask(member.service.node.core.me, Leave(), 30.0))

    def test_leaves(self) -> None:
        """It hands its keys over first, and stays connected, leeching."""
        with self.world(1, k=4) as world:
            members = self.grow(world, 3)
            written = self.write(world, members[0])
            reader = world.add()
            world.wait(reader.service.connect(*address(members[0])))
            self.assertEqual(self.ask(world, reader, members[1]), Done())
            self.assertTrue(members[1].service.leeching)
            world.settle(60)
            self.assertEqual(len(world.members()), 2)
            self.readable(world, written, [members[0], members[1], members[2], reader])
            answer = self.ask(world, reader, members[1])
            self.assertEqual(answer, Declined("it is not a member of the ring"))

    def test_last(self) -> None:
        """The last one keeps its keys, and says why."""
        with self.world(2, k=4) as world:
            (member,) = self.grow(world, 1)
            written = self.write(world, member, 3)
            reader = world.add()
            world.wait(reader.service.connect(*address(member)))
            answer = self.ask(world, reader, member)
            assert isinstance(answer, Declined)
            self.assertIn("it is the last one", answer.reason)
            self.readable(world, written, [member, reader])
            world.wait(member.service.unjoin(discard=True))
