"""Groups of several members: they follow the ring, and lose nothing while they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.logger import formatEvent, globalLogPublisher

from py2p_twisted.base import Peer
from py2p_twisted.errors import PeerUnreachable
from py2p_twisted.node.core import Core, Phase, Staged, claim_key, user_key
from py2p_twisted.ring.circle import between_right
from py2p_twisted.table.group import Ballot, Base, Config, Record, Successor
from py2p_twisted.table.proposer import Write
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import (
    Answer,
    Ask,
    Choose,
    Fetch,
    Open,
    Prefetch,
    Request,
    Survey,
    Surveyed,
    TakeEra,
    Wedge,
)

from .ring_case import RingCase, address, seeds
from .world import SimNode, World


def core_of(node: SimNode) -> Core:
    """The state of a node."""
    return node.service.node.core


class GroupCase(RingCase):
    """Rings with several copies of everything."""

    def copies_differ(self, world: World) -> list[str]:
        """Partitions that two members of one epoch keep in different versions."""
        found = []
        for partition in range(core_of(world.nodes[0]).partitions):
            for epoch, nodes in world.serving(partition).items():
                versions = [
                    {
                        key: record.ballot
                        for key, record in core_of(node).acceptors[partition].records.items()
                    }
                    for node in nodes
                ]
                if any(version != versions[0] for version in versions):
                    found.append(f"partition {partition} differs in {epoch} among {nodes}")
        return found

    def all_there(self, world: World, written: dict[bytes, bytes], seconds: float = 30) -> float:
        """In that time the groups are the right ones, and all of it is there; how long it took.

        What a member missed that was not told lazily, the check finds within about a minute.
        """
        took = world.settle(seconds)
        self.readable(world, written, [world.rng.choice(world.members())])
        world.eventually(lambda: self.copies_differ(world), 75)
        self.nothing_left(world)
        return took

    def nothing_left(self, world: World) -> None:
        """Nobody keeps what belongs to an epoch that is over."""

        def left() -> list[str]:
            return [
                f"{node} keeps {what} of partition {partition}"
                for node in world.members()
                for what, there in (
                    ("the base", core_of(node).staged),
                    ("the old base", core_of(node).retired),
                )
                for partition in there
            ]

        world.eventually(left, 90)

    def faulty(
        self, world: World, kind: type, happen: Callable[[SimNode], Any], most: float = 0.004
    ) -> list[SimNode]:
        """Whoever first asks for this: it happens to that node, a moment later."""
        hit: list[SimNode] = []

        def watch(node: SimNode) -> None:
            core = core_of(node)
            original = core.ask

            def ask(peer: Peer, request: Request, timeout: float | None = None) -> Deferred[Any]:
                if type(request) is kind and not hit:
                    hit.append(node)
                    world.tell(f"{node} sends {kind.__name__}")
                    world.clock.callLater(world.rng.uniform(0, most), happen, node)
                return original(peer, request, timeout)

            core.ask = ask  # type: ignore[method-assign]

        for node in world.nodes:
            watch(node)
        return hit


class TestGrowing(GroupCase):
    """Nodes come and go one after the other."""

    def test_one_to_eight(self) -> None:
        """From 1 to 8 nodes and back to 1: after every step all is where it belongs."""
        for seed in seeds(4):
            with self.world(seed, replicas=(1, 3, 5)[seed % 3]) as world:
                self.grow(world, 1)
                written = self.write(world, world.nodes[0], 200)
                for size in range(2, 9):
                    self.grow(world, size)
                    self.all_there(world, written)
                while len(world.members()) > 1:
                    leaver = world.rng.choice(world.members())
                    world.tell(f"{leaver} leaves")
                    world.wait(leaver.service.unjoin())
                    self.all_there(world, written)
                    written |= self.write(world, world.members()[0], 200)

    def test_a_member_that_moved(self) -> None:
        """A member whose identifier was given away joins anew: its groups follow the ring.

        The ring is larger than what a successor list tells, so that the owners of its old
        partitions do not see it at its new place.
        """
        far = 0
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                self.grow(world, 16)
                written = self.write(world, world.nodes[0])
                far += self.give_away(world) > world.settings.successors + 1
                self.all_there(world, written, 60)
        self.assertTrue(far, "no seed moved the member far enough to show anything")

    def give_away(self, world: World) -> int:
        """Give one member's identifier to another; how many members it moves over."""
        moving, other = world.rng.sample(world.members(), 2)
        core, before, there = core_of(moving), core_of(moving).me, core_of(other).me
        usurper = Peer(there.instance, before.identifier, there.host, there.port)
        operations = other.service.node.operations
        claim = Write(
            claim_key(before.identifier),
            msgspec.msgpack.encode(usurper),
            operations.next_operation(),
        )
        world.wait(operations.write(claim))
        self.until(
            world,
            lambda: core.me != before and moving.phase is Phase.JOINED,
            60,
            "it goes on under an identifier that is not its own",
        )
        return sum(
            between_right(before.id, core_of(node).me.id, core.me.id) for node in world.members()
        )

    def test_two_at_once(self) -> None:
        """Two nodes join at the same time, then two leave at the same time."""
        for seed in seeds(4):
            with self.world(seed, replicas=3 + 2 * (seed % 2)) as world:
                self.grow(world, 2 + seed % 4)
                written = self.write(world, world.nodes[0], 200)
                new = [world.add(), world.add()]
                through = world.rng.sample(world.members(), 2)
                joins = [self.enter(*pair) for pair in zip(new, through, strict=True)]
                self.assertEqual(self.all_of(world, joins), [None, None])
                self.all_there(world, written)
                leavers = world.rng.sample(world.members(), 2)
                leaves = [node.service.unjoin() for node in leavers]
                self.assertEqual(self.all_of(world, leaves), [None, None])
                self.all_there(world, written)

    def test_all_but_one_leave(self) -> None:
        """Everybody but one leaves at the same moment."""
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                members = self.grow(world, 5)
                written = self.write(world, members[0], 200)
                leaves = [node.service.unjoin() for node in members[1:]]
                self.assertEqual(self.all_of(world, leaves), [None] * 4)
                self.all_there(world, written)
                self.assertEqual(world.members(), members[:1])

    def test_all_stop(self) -> None:
        """Everybody is stopped at the same moment: nobody waits longer than a leave may take."""
        for seed in seeds(3):
            with self.world(seed, replicas=(1, 3, 5)[seed % 3]) as world:
                members = self.grow(world, 5)
                self.write(world, members[0], 200)
                began = world.clock.seconds()
                stops = [node.service.stopService() for node in members]
                self.assertEqual(self.all_of(world, stops), [None] * 5)
                self.assertLess(world.clock.seconds() - began, 15)
                world.nodes.clear()

    def test_pause(self) -> None:
        """While nodes join and leave, no partition is without a quorum for more than a second."""
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                self.grow(world, 3)
                written = self.write(world, world.nodes[0], 1000)
                longest = 0.0
                unserved: dict[int, float] = {}

                def look(world: World = world, unserved: dict[int, float] = unserved) -> float:
                    worst, now = 0.0, world.clock.seconds()
                    for partition in range(64):
                        if any(
                            len(nodes) >= core_of(nodes[0]).acceptors[partition].config.quorum
                            for nodes in world.serving(partition).values()
                        ):
                            unserved.pop(partition, None)
                        else:
                            worst = max(worst, now - unserved.setdefault(partition, now))
                    return worst

                changes = [lambda: self.enter(world.add(), world.members()[0])] * 3
                changes += [lambda: world.rng.choice(world.members()).service.unjoin()] * 2
                for change in changes:
                    done = self.started(change)
                    until = world.clock.seconds() + 3
                    while not done or world.clock.seconds() < until:
                        world.run(0.01)
                        longest = max(longest, look())
                self.all_there(world, written)
                self.assertLessEqual(longest, 1)
                epochs = {config.epoch.number for config in core_of(world.nodes[0]).directory}
                self.assertGreater(max(epochs), 4)

    def started(self, change: Callable[[], Deferred[Any]]) -> list[Any]:
        """Begin something; its result, once it has one."""
        done: list[Any] = []
        change().addBoth(done.append)
        return done


class TestCrashes(GroupCase):
    """Members that die are replaced, and nothing is lost."""

    def killed(self, world: World, size: int, victims: int) -> None:
        """So many of a ring die at the same moment; then as many again, after that healed."""
        self.grow(world, size)
        written = self.write(world, world.nodes[0], 200)
        for _ in range(2):
            for node in world.rng.sample(world.members(), victims):
                world.crash(node)
            self.readable(world, written, world.members()[:1])
            self.all_there(world, written)
            written |= self.write(world, world.members()[0], 200)

    def test_one_of_three(self) -> None:
        """With three copies one may die at a time."""
        for seed in seeds(4):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                self.killed(world, 5 + seed % 3, 1)

    def test_two_of_five(self) -> None:
        """With five copies two may."""
        for seed in seeds(4):
            with self.world(seed, replicas=5, evict_after=2.0) as world:
                self.killed(world, 7 + seed % 2, 2)

    def test_down_to_two(self) -> None:
        """A member that died keeps its place while only two are left; a new one replaces it."""
        for seed in seeds(4):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                members = self.grow(world, 3)
                written = self.write(world, members[0], 200)
                world.crash(world.rng.choice(members))
                world.run(5)
                self.all_there(world, written)
                sizes = {len(config.members) for config in core_of(world.nodes[0]).directory}
                self.assertEqual(sizes, {3})
                world.wait(self.enter(world.add(), world.members()[0]))
                self.all_there(world, written)

    def test_leaving_beside_the_dead(self) -> None:
        """Nobody is kept from leaving by a member that died long ago."""
        for seed in seeds(4):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                members = self.grow(world, 3)
                written = self.write(world, members[0], 200)
                world.crash(members[seed % 3])
                world.run(8)
                leaver = world.rng.choice(world.members())
                world.wait(leaver.service.unjoin())
                self.all_there(world, written)

    def test_back_at_the_address(self) -> None:
        """A member that comes back without its memory is taken in at once."""
        for seed in seeds(4):
            size = 2 + seed % 3
            with self.world(seed, replicas=3) as world:
                members = self.grow(world, size)
                written = self.write(world, members[0], 200)
                victim = members[seed % size]
                world.crash(victim)
                again = world.add(victim.host.address)
                world.wait(self.enter(again, world.rng.choice(world.members())))
                self.assertLess(self.all_there(world, written), 15)

    def test_frozen(self) -> None:
        """A member that slept while its groups moved on opens nothing old, and catches up."""
        for seed in seeds(4):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                members = self.grow(world, 5)
                written = self.write(world, members[0], 200)
                frozen = world.rng.choice(members)
                frozen.host.pause()
                others = [node for node in members if node is not frozen]
                world.run(world.rng.choice((1, 6, 15)))
                written |= self.write(world, others[0], 300)
                world.run(world.rng.choice((0.1, 5)))
                frozen.host.resume()
                self.all_there(world, written, 60)

    def test_minority(self) -> None:
        """Who is cut off with less than a quorum moves nothing; after the heal all is well."""
        for seed in seeds(4):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                members = self.grow(world, 5)
                written = self.write(world, members[0], 200)
                some = world.rng.sample(members, 2)
                rest = [node for node in members if node not in some]
                cut = world.network.cut(
                    [node.host.address for node in some], [node.host.address for node in rest]
                )
                world.run(20)
                for partition in range(64):
                    quorums = [
                        epoch
                        for epoch, nodes in world.serving(partition).items()
                        if len(nodes) >= core_of(nodes[0]).acceptors[partition].config.quorum
                    ]
                    self.assertLessEqual(len(quorums), 1, partition)
                world.network.heal(cut)
                self.all_there(world, written, 60)


class TestVotes(GroupCase):
    """What was agreed, or only perhaps, when those who know it are gone."""

    def three(self, world: World) -> tuple[dict[bytes, bytes], int, list[SimNode]]:
        """A ring of three with data; a partition that has some, and its members in order."""
        self.grow(world, 3)
        written = self.write(world, world.nodes[0], 300)
        world.eventually(lambda: self.copies_differ(world), 75)
        config = next(config for config in core_of(world.nodes[0]).directory)
        by_instance = {core_of(node).instance: node for node in world.nodes}
        return written, config.partition, [by_instance[peer.instance] for peer in config.members]

    def vote(self, node: SimNode, partition: int, successor: Successor, counter: int = 9) -> None:
        """A member stops, and votes."""
        acceptor = core_of(node).acceptors[partition]
        epoch = acceptor.config.epoch
        ballot = Ballot(epoch, counter, bytes(16))
        acceptor.wedge(epoch, ballot)
        acceptor.choose(epoch, ballot, successor)

    def test_known_but_not_open(self) -> None:
        """All have heard of the next epochs, but only the driver opened them, and it dies."""
        for seed in seeds(4):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                self.grow(world, 4)
                written = self.write(world, world.nodes[0], 300)
                hit: list[SimNode] = []

                def lose(node: SimNode, world: World = world, hit: list[SimNode] = hit) -> None:
                    original = core_of(node).ask

                    def ask(
                        peer: Peer, request: Request, timeout: float | None = None
                    ) -> Deferred[Any]:
                        if isinstance(request, Open) and hit in ([], [node]):
                            if not hit:
                                world.clock.callLater(0.01, end, node)
                            hit[:] = [node]
                            return fail(PeerUnreachable("lost"))
                        return original(peer, request, timeout)

                    core_of(node).ask = ask  # type: ignore[method-assign]

                def end(driver: SimNode, world: World = world) -> None:
                    for acceptor in core_of(driver).acceptors.values():
                        for node in world.nodes:
                            core_of(node).learn(acceptor.config)
                    world.crash(driver)

                for node in world.nodes:
                    lose(node)
                world.wait(self.enter(world.add(), world.rng.choice(world.members())))
                world.run(2)
                self.assertEqual(len(hit), 1)
                self.all_there(world, written, 60)

    def test_vote_for_what_nobody_holds(self) -> None:
        """One vote for a base that is nowhere cannot have been agreed, and stops nobody."""
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                written, partition, members = self.three(world)
                config = core_of(members[0]).acceptors[partition].config
                if seed % 2:
                    world.crash(members[2])  # then only the holders can tell
                nothing = Successor(
                    Config(partition, config.epoch.following(), config.members),
                    Base(5, b"nowhere yet seen"),
                    config.epoch,
                )
                self.vote(members[seed % 3 % 2], partition, nothing)
                self.readable(world, written, members[:2])
                world.run(5)  # two of three can be read before the epoch goes on
                epochs = world.serving(partition)
                self.assertEqual([e.number for e in epochs], [config.epoch.number + 1])

    def agreed_with_the_dead(self, world: World) -> tuple[dict[bytes, bytes], SimNode, SimNode]:
        """Two of three are to go on, and one of these died before; the survivor and the dead."""
        written, partition, (one, two, three) = self.three(world)
        acceptor = core_of(one).acceptors[partition]
        epoch = acceptor.config.epoch
        config = Config(partition, epoch.following(), (core_of(two).me, core_of(three).me))
        agreed = Successor(config, acceptor.records.live_draft().base(), acceptor.purged)
        for node in (one, two, three):
            self.vote(node, partition, agreed)
        core_of(two).staged[partition] = Staged(
            epoch, acceptor.records.live_draft(), agreed, Ballot(epoch, 9, bytes(16))
        )
        world.crash(three)
        return written, one, three

    def test_agreed_with_the_dead(self) -> None:
        """Once it is proven gone, the other one goes on alone."""
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                written, one, dead = self.agreed_with_the_dead(world)
                world.wait(self.enter(world.add(dead.host.address), one))
                self.all_there(world, written)

    def test_recovered_from_the_dead(self) -> None:
        """While it is not, nobody goes on by himself; a recovery loses nothing of it."""
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                written, one, _ = self.agreed_with_the_dead(world)
                world.run(10)
                self.assertTrue(world.not_served())
                again = one.service.recover(accept_data_loss=True)
                report = world.wait(one.service.recover(accept_data_loss=True))
                self.assertIs(self.successResultOf(again), report)  # one for both
                self.assertEqual((report.reformed, report.lost), (1, 0))
                self.all_there(world, written, 60)

    def test_recovered_in_pages(self) -> None:
        """Neither what is kept nor what is to begin need fit one message."""
        sizes: list[int] = []
        for seed in seeds(3):
            with self.world(seed, replicas=3, page_bytes=1024) as world:
                members = self.grow(world, 5)
                written = self.write(world, members[0])
                for node in members[:3]:
                    world.crash(node)
                survivors = members[3:]
                for node in survivors:
                    core = core_of(node)
                    handlers = node.service.node._own
                    for kind in (Survey, TakeEra):

                        def answer(link: Any, request: Any, to: Any = handlers[kind]) -> Any:
                            sizes.append(len(encode(Ask(1, request))))
                            reply = to(link, request)
                            if isinstance(reply, Surveyed):
                                sizes.append(len(encode(Answer(1, reply))))
                            return reply

                        handlers[kind] = answer
                report = world.wait(survivors[0].service.recover(accept_data_loss=True))
                self.assertEqual(report.kept + report.reformed + report.lost, core.partitions)
                self.assertGreater(report.reformed, 20)
                world.settle(60)
                left = world.wait(survivors[1].service.get_many(written))
                self.assertEqual(left, {key: written[key] for key in left})
                self.assertGreater(len(left), 10)
        self.assertGreater(len(sizes), 20)
        self.assertLess(max(sizes), 1024)

    def test_nodes_of_version_2_survey_all_at_once(self) -> None:
        """They do not know that there may be more."""
        with self.world(1, page_bytes=1024) as world:
            (node,) = self.grow(world, 1)
            answer = node.service.node.recovery.answer_survey
            reply = answer(Survey())
            assert isinstance(reply, Surveyed)
            self.assertEqual((len(reply.parts), reply.more), (64, False))
            page = answer(Survey(0))
            assert isinstance(page, Surveyed) and page.more
            self.assertEqual(page.parts, reply.parts[: len(page.parts)])
            last = answer(Survey(63))
            self.assertEqual(last, Surveyed(reply.parts[-1:]))

    def test_vote_of_a_quorum(self) -> None:
        """What a quorum voted for comes first, whoever would have it otherwise."""
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                written, partition, members = self.three(world)
                acceptor = core_of(members[0]).acceptors[partition]
                alone = core_of(members[seed % 3]).me
                epoch = acceptor.config.epoch.following()
                agreed = Successor(
                    Config(partition, epoch, (alone,)),
                    acceptor.records.live_draft().base(),
                    acceptor.purged,
                )
                for voter in world.rng.sample(members, 2):
                    self.vote(voter, partition, agreed)
                heard: set[Config] = set()
                for node in members:
                    self.listen(core_of(node), partition, heard)
                self.all_there(world, written)
                self.assertEqual({c for c in heard if c.epoch == epoch}, {agreed.config})

    def listen(self, core: Core, partition: int, heard: set[Config]) -> None:
        """Note every configuration of a partition that a node hears of."""
        original = core.directory.learn

        def learn(config: Config) -> bool:
            if config.partition == partition:
                heard.add(config)
            return original(config)

        core.directory.learn = learn  # type: ignore[method-assign]


class TestChecks(GroupCase):
    """What runs in the background."""

    def test_found(self) -> None:
        """What one member lacks is found within about a minute, repaired, counted and logged."""
        with self.world(1, replicas=3) as world, self.logged() as lines:
            self.grow(world, 4)
            written = self.write(world, world.nodes[0], 300)
            world.run(1)
            partition = core_of(world.nodes[0]).partition(user_key(b"key 0"))
            ((epoch, nodes),) = world.serving(partition).items()
            late = Record(Ballot(epoch, 50, bytes(16)), b"late")
            for node in nodes[:2]:
                core_of(node).acceptors[partition].accept(epoch, user_key(b"key 0"), late)
            self.assertTrue(self.copies_differ(world))
            self.all_there(world, written | {b"key 0": b"late"})
            found = [core_of(node).found_differences for node in world.nodes]
            self.assertEqual(sum(found), 1)
            self.assertEqual(core_of(nodes[2]).found_differences, 1)
            told = [line for line in lines if line.startswith("The check found")]
            self.assertEqual(len(told), 1)
            self.assertIn(f"1 record in partition {partition}", told[0])

    def test_cut_off(self) -> None:
        """A member that was cut off has what was written meanwhile seconds after it is back."""
        for seed in seeds(3):
            with self.world(seed, replicas=3) as world, self.logged() as lines:
                members = self.grow(world, 3)
                lonely, others = members[0], members[1:]
                cut = world.network.cut(
                    [lonely.host.address], [node.host.address for node in others]
                )
                world.run(15)
                written = self.write(world, others[0], 1000)
                world.network.heal(cut)
                self.assertLess(self.complete(world, lonely, len(written)), 30)
                self.assertTrue([line for line in lines if line.startswith("Caught up: ")])
                self.assertEqual([core_of(node).found_differences for node in members], [0] * 3)

    def complete(self, world: World, node: SimNode, keys: int) -> float:
        """Wait until it keeps so many keys; how long it took."""
        core = core_of(node)
        return self.until(world, lambda: core.keys == keys, 60, "it is still behind")

    @contextmanager
    def logged(self) -> Iterator[list[str]]:
        """What is logged meanwhile."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        try:
            yield lines
        finally:
            globalLogPublisher.removeObserver(observe)

    def test_nothing_found(self) -> None:
        """While writers write and nothing is lost, the check finds nothing."""
        with self.world(2, k=3, replicas=3) as world:
            members = self.grow(world, 4)
            until = world.clock.seconds() + 90
            number = 0
            while world.clock.seconds() < until:
                key = b"key %d" % (number % 50)
                world.wait(world.rng.choice(members).service.set(key, b"%d" % number))
                number += 1
                world.run(0.05)
            self.assertEqual([core_of(node).found_differences for node in members], [0] * 4)

    def test_tombstones(self) -> None:
        """Deleted keys leave nothing behind for long, and stay deleted."""
        for seed in seeds(4):
            with self.world(seed, replicas=3 + seed % 2 * 2) as world:
                members = self.grow(world, 6)
                written = self.write(world, members[0], 2000)
                world.wait(members[1].service.clear())
                world.run(8)
                left = [
                    acceptor.tombstones
                    for node in members
                    for acceptor in core_of(node).acceptors.values()
                ]
                self.assertLessEqual(max(left), 64)
                self.assertEqual(world.wait(members[2].service.get_many(written)), {})
                self.all_there(world, {})

    def test_discarded(self) -> None:
        """Who gave up its data comes back as another, and its place is filled anew."""
        for seed in seeds(4):
            with self.world(seed, replicas=3) as world:
                members = self.grow(world, 4)
                written = self.write(world, members[0], 200)
                lonely = members[seed % 4]
                others = [node for node in members if node is not lonely]
                before = core_of(lonely).instance
                cut = world.network.cut(
                    [lonely.host.address], [node.host.address for node in others]
                )
                world.wait(lonely.service.unjoin(discard=True))
                self.assertNotEqual(core_of(lonely).instance, before)
                world.network.heal(cut)
                world.wait(lonely.service.connect(*address(others[0])))
                world.wait(lonely.service.join())
                self.all_there(world, written)


PHASES = (Prefetch, Wedge, Fetch, Choose, Open)


class TestDrivers(GroupCase):
    """The driver is lost in the middle: others go on."""

    def joining(self, world: World, kind: type, happen: Callable[[SimNode], Any]) -> None:
        """A node joins; the first driver that says this has a fault."""
        self.grow(world, 4)
        written = self.write(world, world.nodes[0], 300)
        hit = self.faulty(world, kind, happen)
        joiner = world.add()
        world.wait(self.enter(joiner, world.rng.choice(world.members())))
        world.run(2)
        self.assertEqual(len(hit), 1, f"nobody sent {kind.__name__}")
        self.all_there(world, written, 60)
        self.all_there(world, self.write(world, world.members()[0], 300))

    def crashing(self, kind: type) -> None:
        """It crashes."""
        for seed in seeds(3):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                self.joining(world, kind, world.crash)

    def cut_off(self, kind: type) -> None:
        """It is cut off for a while."""
        for seed in seeds(3):
            with self.world(seed, replicas=3, evict_after=2.0) as world:

                def cut(node: SimNode, world: World = world) -> None:
                    others = [other.host.address for other in world.nodes if other is not node]
                    made = world.network.cut([node.host.address], others)
                    world.clock.callLater(world.rng.choice((0.5, 4, 15)), world.network.heal, made)

                self.joining(world, kind, cut)

    def frozen(self, kind: type) -> None:
        """It is frozen for a while."""
        for seed in seeds(3):
            with self.world(seed, replicas=3, evict_after=2.0) as world:

                def freeze(node: SimNode, world: World = world) -> None:
                    node.host.pause()
                    world.clock.callLater(world.rng.choice((0.5, 4, 15)), node.host.resume)

                self.joining(world, kind, freeze)

    def leaving(self, kind: type) -> None:
        """It was about to leave, and crashes."""
        for seed in seeds(2):
            with self.world(seed, replicas=3, evict_after=2.0) as world:
                members = self.grow(world, 5)
                written = self.write(world, members[0], 300)
                leaver = world.rng.choice(members)
                hit = self.faulty(world, kind, world.crash)
                leaver.service.unjoin().addErrback(lambda _: None)
                world.run(2)
                self.assertEqual(hit, [leaver])
                self.all_there(world, written, 60)


def _add_phases() -> None:
    for name, fault in (
        ("crashing", TestDrivers.crashing),
        ("cut_off", TestDrivers.cut_off),
        ("frozen", TestDrivers.frozen),
        ("leaving", TestDrivers.leaving),
    ):
        for kind in PHASES:

            def test(
                self: TestDrivers,
                fault: Callable[[TestDrivers, type], None] = fault,
                kind: type = kind,
            ) -> None:
                fault(self, kind)

            test.__doc__ = f"At {kind.__name__}: {fault.__doc__}"
            setattr(TestDrivers, f"test_{name}_at_{kind.__name__.lower()}", test)


_add_phases()
