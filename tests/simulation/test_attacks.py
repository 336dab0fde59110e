"""What an adversary tried once: cancelled leaves, everybody leaving, strangers' requests."""

from __future__ import annotations

from py2p_twisted.errors import PeerUnreachable, RingConflict, Unavailable
from py2p_twisted.node.core import Phase, user_key
from py2p_twisted.table.digest import EMPTY_BASE
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Config, Epoch, Record, Successor
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import (
    Accept,
    Answer,
    Choose,
    Count,
    Counted,
    Declined,
    Differing,
    Fetch,
    GetDifference,
    GetDigests,
    Learn,
    Open,
    Prefetch,
    Prepare,
    Promised,
    Source,
    Survey,
    TakeEra,
    Wedge,
    WrongEpoch,
)

from .ring_case import RingCase, address, seeds


class TestLeaving(RingCase):
    """A leave that is interrupted changes nothing."""

    def test_cancelled(self) -> None:
        """Cancelled at any moment, the node is a member as before, or has left; nothing is lost."""
        for seed in seeds(12):
            with self.world(seed) as world:
                members = self.grow(world, 3)
                written = self.write(world, members[0], 200)
                leaver = world.rng.choice(members)
                leaving = leaver.service.unjoin()
                ended: list[object] = []
                leaving.addBoth(ended.append)
                world.run(world.rng.uniform(0, 0.03))
                leaving.cancel()
                world.run(1)
                self.assertEqual(len(ended), 1)
                self.assertIn(leaver.phase, (Phase.JOINED, Phase.LEECHING), ended)
                world.settle(30)
                self.readable(world, written, world.nodes)
                world.wait(leaver.service.unjoin())
                world.settle(30)
                self.readable(world, written, world.nodes)

    def test_twice(self) -> None:
        """A second leave meanwhile is refused; the first one goes on."""
        with self.world(1) as world:
            members = self.grow(world, 3)
            written = self.write(world, members[0])
            first = members[1].service.unjoin()
            self.fails(world, RingConflict, members[1].service.unjoin())
            world.wait(first)
            self.readable(world, written, world.nodes)

    def test_all_at_once(self) -> None:
        """All stop at the same time: nobody can take anything over, and nobody waits for long."""
        with self.world(2) as world:
            members = self.grow(world, 4)
            self.write(world, members[0])
            began = world.clock.seconds()
            self.all_of(world, [node.service.stopService() for node in members])
            self.assertLess(world.clock.seconds() - began, 5)
            world.nodes.clear()

    def test_all_but_one(self) -> None:
        """All but one stop at the same time: that one has everything."""
        for seed in seeds(6):
            with self.world(seed) as world:
                members = self.grow(world, 5)
                written = self.write(world, members[0])
                stays = world.rng.choice(members)
                going = [node for node in members if node is not stays]
                self.all_of(world, [node.service.stopService() for node in going])
                for node in going:
                    world.nodes.remove(node)
                world.settle(30)
                self.readable(world, written, [stays])

    def test_all_leave_at_once(self) -> None:
        """Who is refused hears that the others are leaving, too: they can all be reached."""
        for seed in seeds(4):
            with self.world(seed, replicas=1) as world:
                members = self.grow(world, 3)
                world.settle(60)
                world.wait(members[0].service.update({b"%d" % n: b"" for n in range(300)}))
                for error in self.all_of(world, [node.service.unjoin() for node in members]):
                    self.assertIsInstance(error, Unavailable)
                    self.assertIn("does not take over: this node is leaving", str(error))

    def test_unjoin_ends_a_join(self) -> None:
        """Join, unjoin, join: the last one counts."""
        with self.world(3) as world:
            (founder,) = self.grow(world, 1)
            node = world.add()
            world.wait(node.service.connect(*address(founder)))
            results = self.all_of(
                world, [node.service.join(), node.service.unjoin(), node.service.join()]
            )
            kinds = [type(result) for result in results]
            self.assertEqual(kinds, [RingConflict, type(None), type(None)])
            self.assertIs(node.phase, Phase.JOINED)


class TestLargeValues(RingCase):
    """What is within the limits works, whatever else travels with it."""

    def test_compare_two_large_values(self) -> None:
        with self.world(1) as world:
            (founder,) = self.grow(world, 1)
            client = world.add()
            world.wait(client.service.connect(*address(founder)))
            most = client.service.settings.max_value
            world.wait(client.service.set(b"k", b"a" * most))
            swap = client.service.compare_and_set
            self.assertFalse(world.wait(swap(b"k", b"b" * most, b"c" * most)))
            self.assertTrue(world.wait(swap(b"k", b"a" * most, b"c" * most)))
            self.assertEqual(world.wait(client.service.pop(b"k")), b"c" * most)


class TestStrangers(RingCase):
    """A node that keeps nothing cannot decide who keeps something."""

    def test_requests_of_members(self) -> None:
        with self.world(1) as world:
            members = self.grow(world, 2)
            written = self.write(world, members[0])
            stranger = world.add()
            world.wait(stranger.service.connect(*address(members[0])))
            core = stranger.service.node.core
            epoch = Epoch(0, 0, 99)
            config = Config(0, epoch, (core.me,))
            ballot = Ballot(FIRST_EPOCH, 1 << 40, core.instance)
            successor = Successor(config, EMPTY_BASE, FIRST_EPOCH)
            for request in (
                Learn((config,)),
                GetDigests(((0, FIRST_EPOCH, Source.EPOCH),)),
                GetDifference((Differing(0, FIRST_EPOCH, Source.EPOCH, 1, (0,), ()),)),
                Prefetch(((0, epoch),)),
                Wedge(((0, ballot),)),
                Fetch(((ballot, successor),)),
                Choose(((ballot, successor),)),
                Open((successor,)),
                TakeEra(((config, ()),)),
                Survey(),
            ):
                for member in members:
                    reply = world.wait(core.ask(member.service.node.core.me, request))
                    self.assertIsInstance(reply, Declined, request)
                    self.assertIn("only members", reply.reason)
            self.readable(world, written, world.nodes)

    def test_eras_that_leave_no_room(self) -> None:
        """Not even a member can use the numbers up."""
        with self.world(2) as world:
            one, other = self.grow(world, 2)
            written = self.write(world, one)
            taker = other.service.node.core.me
            config = Config(0, Epoch(2**62, 1, 1), (taker,))
            reply = world.wait(one.service.node.core.ask(taker, TakeEra(((config, ()),))))
            self.assertIsInstance(reply, Declined)
            world.wait(one.service.recover(accept_data_loss=True))
            self.readable(world, written, [one, other])

    def test_ballots_that_leave_no_room(self) -> None:
        """The ballot after a promised one must fit a message, or connections would break."""
        with self.world(5) as world:
            members = self.grow(world, 3)
            world.settle(10)
            written = self.write(world, members[0])
            stranger = world.add()
            world.wait(stranger.service.connect(*address(members[0])))
            core = stranger.service.node.core
            high = 2**62
            for key in written:
                partition = core.partition(user_key(key))
                config = core.directory.get(partition)
                assert config is not None
                ballot = Ballot(config.epoch, high, bytes([255]) * 16)
                record = Record(ballot, b"poison")
                for member in config.members:
                    for request in (
                        Prepare(((partition, config.epoch, ((user_key(key), ballot),)),)),
                        Accept(((partition, config.epoch, ((user_key(key), record),)),)),
                    ):
                        reply = world.wait(core.ask(member, request))
                        self.assertEqual(
                            reply, Declined("the counter of a ballot is too high"), request
                        )
            self.readable(world, written, world.nodes)
            self.write(world, members[1])

    def test_a_ballot_that_nobody_outbids(self) -> None:
        """It stops one group until its next epoch: no other one, and not the next epoch."""
        with self.world(5, operation_timeout=1.0) as world:
            members = self.grow(world, 3)
            written = self.write(world, members[0])
            stranger = world.add()
            world.wait(stranger.service.connect(*address(members[0])))
            core = stranger.service.node.core
            key = b"key 1"
            partition = core.partition(user_key(key))
            config = core.directory.get(partition)
            assert config is not None
            ballot = Ballot(config.epoch, 2**61, bytes([255]) * 16)
            prepare = Prepare(((partition, config.epoch, ((user_key(key), ballot),)),))
            for member in config.members:
                self.assertIsInstance(world.wait(core.ask(member, prepare)), Promised)
            for node in members:
                self.fails(world, Unavailable, node.service.set(key, b"new"))
            proposer = config.members[0].instance
            for node in members:  # who is not reached is stood in for, by a full round
                if node.service.node.core.instance == proposer:
                    node.host.pause()
            others = {k: v for k, v in written.items() if core.partition(user_key(k)) != partition}
            client = next(n for n in members if n.service.node.core.instance != proposer)
            world.wait(client.service.update(others))
            world.network.calm()
            world.wait(self.enter(world.add(), members[0]))
            world.settle(60)
            self.readable(world, written, members)
            while core.directory.get(partition) == config:
                world.wait(self.enter(world.add(), members[0]))
                world.settle(60)
            world.wait(client.service.set(key, b"new"))

    def test_a_count_of_too_much(self) -> None:
        """The reply stays small; what has no room in it is to be asked for again."""
        with self.world(3, page_bytes=4 * 1024) as world:
            members = self.grow(world, 5)
            client = world.add()
            world.wait(client.service.connect(*address(members[0])))
            core = client.service.node.core
            most = 1024  # parts of one message
            request = Count(((0, Epoch(0, 0, 77)),) * most)
            reply = world.wait(core.ask(members[0].service.node.core.me, request))
            assert isinstance(reply, Counted)
            self.assertEqual(len(reply.parts), most)
            told = [part for part in reply.parts if isinstance(part, WrongEpoch) and part.config]
            self.assertGreater(len(told), 5)
            self.assertLess(len(encode(Answer(1, Counted(tuple(told))))), 4 * 1024)
            self.assertEqual(len(told) + reply.parts.count(WrongEpoch(None, True)), most)

    def test_a_count_in_pieces(self) -> None:
        """A client that gets some of the numbers at a time comes again for the rest."""
        with self.world(3, page_bytes=512) as world:
            members = self.grow(world, 3)
            self.write(world, members[0])
            client = world.add()
            world.wait(client.service.connect(*address(members[0])))
            self.assertEqual(world.wait(client.service.count()), 100)

    def test_more_parts_than_a_message_may_have(self) -> None:
        """Who asks for them is cut off, and nobody else notices."""
        with self.world(4) as world:
            members = self.grow(world, 3)
            written = self.write(world, members[0])
            client = world.add()
            world.wait(client.service.connect(*address(members[0])))
            core = client.service.node.core
            member = members[0].service.node.core.me
            for request in (
                Count(((0, Epoch(0, 0, 77)),) * 1025),
                Learn((Config(0, FIRST_EPOCH, (core.me,) * 65),)),
            ):
                self.fails(world, PeerUnreachable, core.ask(member, request))
                world.wait(client.service.connect(*address(members[0])))
            self.readable(world, written, world.nodes)
