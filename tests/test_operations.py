"""Reading and writing through groups of several members, without ring and wire."""

from __future__ import annotations

import os
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.errors import ChordError, NotConnected, OperationTimeout, Overloaded, Unavailable
from py2p_twisted.node.core import user_key
from py2p_twisted.table.proposer import Condition, Write
from py2p_twisted.wire.messages import Busy, Prepare, Read, ReadMany, WriteMany, WriteOne
from tests.group_case import Group, Member
from tests.simulation.history import History

KEY = user_key(b"key")


def write(
    node: Member,
    value: bytes | None,
    condition: Condition = Condition.ALWAYS,
    expected: bytes | None = None,
    key: bytes = KEY,
) -> Deferred[bool]:
    operation = node.operations.next_operation()
    clock = node.core.stamp
    return node.operations.write(Write(key, value, operation, condition, expected, clock))


def kinds(group: Group) -> dict[str, int]:
    """How many messages of each kind were sent; they are forgotten."""
    counted: dict[str, int] = {}
    for _, _, request in group.messages:
        name = type(request).__name__
        counted[name] = counted.get(name, 0) + 1
    group.messages.clear()
    return counted


class SettledTests(SynchronousTestCase):
    """What an operation costs when nothing is wrong."""

    def test_messages(self) -> None:
        """One round to a quorum, whoever asks; the others get a write a little later."""
        for members, quorum in ((1, 1), (2, 2), (3, 2), (5, 3)):
            group = Group(members, members)
            client = group.nodes[-1]
            for value in (b"1", b"2"):  # the first write of a key needs no PREPARE either
                self.assertTrue(group.wait(write(client, value)))
                eager = {"Accept": quorum - 1} if quorum > 1 else {}
                self.assertEqual(kinds(group), {"WriteOne": 1, **eager})
                group.run(0.02)
                later = {"Accept": members - quorum} if members > quorum else {}
                self.assertEqual(kinds(group), later)
                self.assertEqual(group.wait(client.operations.read(KEY)), value)
                self.assertEqual(kinds(group), {"Read": quorum})
                for member in group.nodes[:members]:
                    self.assertEqual(group.wait(member.operations.read(KEY)), value)
                reads = {"Read": members * (quorum - 1)} if quorum > 1 else {}
                self.assertEqual(kinds(group), reads)
            for member in group.nodes[:members]:
                acceptor = member.core.acceptors[member.core.partition(KEY)]
                self.assertEqual(acceptor.records[KEY].value, b"2")

    def test_conditions(self) -> None:
        """What does not change anything leaves nothing behind, and is confirmed by a quorum."""
        group = Group(7, 5)
        client = group.nodes[-1]
        self.assertFalse(group.wait(write(client, None, Condition.PRESENT)))
        self.assertFalse(group.wait(write(client, b"x", Condition.EQUALS, b"y")))
        self.assertTrue(group.wait(write(client, None)))
        self.assertIsNone(group.wait(client.operations.read(KEY)))
        for member in group.nodes[:5]:
            self.assertEqual([len(a) for a in member.core.acceptors.values()], [0, 0])
        self.assertTrue(group.wait(write(client, b"1", Condition.EQUALS, None)))
        self.assertFalse(group.wait(write(client, b"2", Condition.EQUALS, None)))
        self.assertTrue(group.wait(write(client, b"3", Condition.EQUALS, b"1")))
        self.assertEqual(group.wait(client.operations.read(KEY)), b"3")
        self.assertFalse(group.wait(write(client, None, Condition.EQUALS, b"2")))
        self.assertTrue(group.wait(write(client, None, Condition.EQUALS, b"3")))
        self.assertIsNone(group.wait(client.operations.read(KEY)))

    def test_many(self) -> None:
        """Many keys travel together, and all are there on every member."""
        group = Group(3, 5)
        client = group.nodes[-1]
        pairs = {user_key(b"%d" % n): b"value %d" % n for n in range(2_000)}
        number = client.operations.next_operation
        writes = [Write(key, value, number()) for key, value in pairs.items()]
        group.wait(Deferred.fromCoroutine(client.bulk.write_many(writes)))
        self.assertLess(sum(kinds(group).values()), 40)
        self.assertEqual(group.wait(Deferred.fromCoroutine(client.bulk.read_many(pairs))), pairs)
        self.assertLess(sum(kinds(group).values()), 40)
        member = group.nodes[4]
        self.assertEqual(group.wait(Deferred.fromCoroutine(member.bulk.read_many(pairs))), pairs)
        counts = group.wait(Deferred.fromCoroutine(client.walk.counts()))
        self.assertEqual(sum(counts.values()), 2_000)

        async def walk() -> list[tuple[bytes, bytes]]:
            return [item async for item in client.walk.keys(values=True)]

        items = group.wait(Deferred.fromCoroutine(walk()))
        self.assertEqual(dict(items), {key[1:]: value for key, value in pairs.items()})
        self.assertEqual(len(items), 2_000)

    def test_large_values(self) -> None:
        """Values that fit no message together are read all the same."""
        group = Group(4, 3)
        client = group.nodes[-1]
        pairs = {user_key(b"%d" % n): bytes([n]) * 700_000 for n in range(6)}
        number = client.operations.next_operation
        writes = [Write(key, value, number()) for key, value in pairs.items()]
        group.wait(Deferred.fromCoroutine(client.bulk.write_many(writes)))
        self.assertEqual(group.wait(Deferred.fromCoroutine(client.bulk.read_many(pairs))), pairs)


class FaultTests(SynchronousTestCase):
    """Members that are dead, frozen or behind."""

    def timed(self, group: Group, deferred: Deferred[Any]) -> tuple[float, Any]:
        began = group.clock.seconds()
        result = group.wait(deferred)
        return group.clock.seconds() - began, result

    def test_minority_dead(self) -> None:
        """Two of five are gone: nobody waits for them."""
        group = Group(1, 5)
        client = group.nodes[-1]
        group.wait(write(client, b"before"))
        group.nodes[0].dead = group.nodes[1].dead = True
        took, value = self.timed(group, client.operations.read(KEY))
        self.assertEqual(value, b"before")
        self.assertLess(took, 0.05)
        took, _ = self.timed(group, write(client, b"after"))
        self.assertLess(took, 0.05)
        self.assertEqual(group.wait(group.nodes[4].operations.read(KEY)), b"after")

    def test_frozen(self) -> None:
        """A member that froze just now costs a read 20 ms, a write two request timeouts."""
        for number in range(3):
            group = Group(number, 5)
            client = group.nodes[-1]
            group.wait(write(client, b"before"))
            group.nodes[number].freeze()
            took, value = self.timed(group, client.operations.read(KEY))
            self.assertEqual(value, b"before")
            self.assertLess(took, 0.03)
            took, _ = self.timed(group, write(client, b"after"))
            self.assertLess(took, 1.0 if number == 0 else 0.04)
            self.assertEqual(group.wait(group.nodes[4].operations.read(KEY)), b"after")
            group.nodes[number].thaw()
            group.run(1)
            self.assertEqual(group.wait(group.nodes[number].operations.read(KEY)), b"after")

    def test_frozen_before_the_last_member_had_it(self) -> None:
        """Who read two versions does not wait for the proposer, who could tell which one holds."""
        group = Group(2, 3)
        client = group.nodes[-1]
        group.wait(write(client, b"before"))
        group.nodes[0].freeze()
        group.lose = 1.0  # what the third member is to get stays with it
        group.run(0.02)
        group.lose = 0.0
        took, value = self.timed(group, client.operations.read(KEY))
        self.assertEqual(value, b"before")
        self.assertLess(took, 0.04)

    def test_proposer_cut_off(self) -> None:
        """A proposer that clients reach and members do not costs one write time, not every one."""
        group = Group(5, 5)
        client = group.nodes[-1]
        keys = [user_key(b"%d" % n) for n in range(40)]
        for key in keys:
            group.wait(write(client, b"before", key=key))

        def lost(_: Any, __: Any, done: Any, timeout: float | None = None) -> None:
            failure = Failure(OperationTimeout("lost"))
            group.clock.callLater(timeout or 0.5, done, failure)

        group.nodes[0].core.links.request = lost  # type: ignore[method-assign]
        took = [self.timed(group, write(client, b"after", key=key))[0] for key in keys]
        self.assertLess(took[0], 1.2)
        self.assertLess(max(took[1:]), 0.05)
        for key in keys:
            self.assertEqual(group.wait(client.operations.read(key)), b"after")

    def test_stopped(self) -> None:
        """What is begun on a node that was stopped fails, and leaves no timer behind."""
        group = Group(3, 3)
        client = group.nodes[-1]
        client.core.stop()
        client.operations.stop()
        self.failureResultOf(client.operations.read(KEY), NotConnected)
        self.failureResultOf(write(client, b"late"), NotConnected)
        for call in group.clock.getDelayedCalls():
            self.assertNotIn("Answers", str(call.func))

    def test_stopped_in_doubt(self) -> None:
        """A write that was sent, and is ended by the end of its node, may have happened."""
        for tenths in range(5, 40):  # asking, asking around, or waiting for a next try
            group = Group(4, 3)
            client = group.nodes[-1]
            for node in group.nodes[:3]:
                node.freeze()
            writing = write(client, b"perhaps")
            group.run(tenths / 10)
            self.assertNoResult(writing)
            client.core.stop()
            client.operations.stop()
            failed = self.failureResultOf(self.ended(group, writing), NotConnected)
            self.assertTrue(failed.value.outcome_unknown, f"after {tenths / 10} s")

    def test_no_quorum(self) -> None:
        """Three of five are gone: an error says how many of how many, in time; then all is back."""
        group = Group(5, 5)
        client = group.nodes[-1]
        group.wait(write(client, b"before"))
        for node in group.nodes[:3]:
            node.dead = True
        for deferred in (client.operations.read(KEY), group.nodes[4].operations.read(KEY)):
            began = group.clock.seconds()
            error = self.failureResultOf(self.ended(group, deferred), Unavailable).value
            self.assertEqual((error.reachable, error.members), (2, 5), error)
            self.assertFalse(error.outcome_unknown)
            self.assertLess(group.clock.seconds() - began, 10.1)
        error = self.failureResultOf(
            self.ended(group, write(client, b"after")), Unavailable
        ).value  # fmt: skip
        self.assertEqual((error.reachable, error.members), (2, 5), error)
        for node in group.nodes[:3]:
            node.dead = False
        self.assertTrue(group.wait(write(client, b"last")))
        self.assertEqual(group.wait(client.operations.read(KEY)), b"last")

    def ended(self, group: Group, deferred: Deferred[Any]) -> Deferred[Any]:
        ended: list[Any] = []
        deferred.addBoth(lambda result: ended.append(1) or result)
        while not ended:
            group.step(group.clock.seconds() + 60)
        return deferred

    def test_late_first_attempt(self) -> None:
        """What a frozen proposer finds in its mail was done by others meanwhile: it refuses it."""
        group = Group(6, 3)
        client, other = group.nodes[-1], group.nodes[1]
        group.nodes[0].freeze()
        self.assertTrue(group.wait(write(client, b"first")))
        for number in range(6):
            self.assertTrue(group.wait(write(other, b"%d" % number)))
        group.nodes[0].thaw()
        group.run(2)
        self.assertEqual(group.wait(client.operations.read(KEY)), b"5")
        self.assertEqual(group.wait(group.nodes[0].operations.read(KEY)), b"5")

    def test_torn_write(self) -> None:
        """A write that reached one member only is settled by the next read, one way for all."""
        group = Group(8, 3)
        client = group.nodes[-1]
        group.wait(write(client, b"before"))
        group.run(1)
        group.nodes[1].freeze()
        group.nodes[2].freeze()
        torn: list[Any] = []
        write(group.nodes[0], b"torn").addBoth(torn.append)
        group.run(0.001)
        group.nodes[1].thaw()
        group.nodes[2].thaw()
        group.waiting.clear()
        values = [group.wait(node.operations.read(KEY)) for node in group.nodes]
        self.assertEqual(len(set(values)), 1, values)
        group.run(15)
        self.assertEqual(len(torn), 1)


class BusyTests(SynchronousTestCase):
    """Members that refuse what begins, because they have too much to do."""

    def setUp(self) -> None:
        self.group = Group(8, 3)
        self.client = self.group.nodes[-1]
        self.group.wait(write(self.client, b"before"))
        self.group.run(1)
        self.group.messages.clear()
        self.useful = [dict(node.handlers) for node in self.group.nodes]

    def busy(self, busy: bool) -> None:
        """All members are busy, or not any more."""
        for node, useful in zip(self.group.nodes, self.useful, strict=True):
            for kind in (Read, ReadMany, WriteOne, WriteMany):
                node.handlers[kind] = (lambda _: Busy()) if busy else useful[kind]

    def test_for_a_moment(self) -> None:
        """It is tried again, and nobody does their work for them."""
        self.busy(True)
        self.group.clock.callLater(0.1, self.busy, False)
        self.assertTrue(self.group.wait(write(self.client, b"after")))
        sent = kinds(self.group)
        self.assertNotIn("Prepare", sent)
        self.assertIn(sent["WriteOne"], range(3, 7))
        self.assertEqual(self.group.wait(self.client.operations.read(KEY)), b"after")

    def test_for_long(self) -> None:
        """It fails early, was not done, and was not asked for again and again."""
        self.busy(True)
        for begin in (
            lambda: write(self.client, b"after"),
            lambda: self.client.operations.read(KEY),
        ):
            began = self.group.clock.seconds()
            with self.assertRaises(Overloaded) as caught:
                self.group.wait(begin())
            self.assertFalse(caught.exception.outcome_unknown)
            self.assertLess(self.group.clock.seconds() - began, 0.6)
        sent = kinds(self.group)
        self.assertEqual(set(sent), {"WriteOne", "Read"})
        self.assertLess(sent["WriteOne"], 8)
        self.assertLess(sent["Read"], 3 * 8)
        self.busy(False)
        self.assertEqual(self.group.wait(self.client.operations.read(KEY)), b"before")

    def test_refused_by_the_connection(self) -> None:
        """What the connection would not take is as good as refused by the peer."""
        refused = Failure(Overloaded("1000 requests wait already"))
        request, self.client.core.links.request = (
            self.client.core.links.request,
            lambda *arguments: arguments[2](refused),
        )
        self.group.clock.callLater(0.1, setattr, self.client.core.links, "request", request)
        self.assertTrue(self.group.wait(write(self.client, b"after")))
        self.assertEqual(kinds(self.group)["WriteOne"], 1)

    def test_many(self) -> None:
        """Only so many wait to be tried again; the others are told at once."""
        self.busy(True)
        failed: list[Failure] = []
        writes = [write(self.client, b"after", key=user_key(b"%d" % n)) for n in range(1000)]
        for deferred in writes:
            deferred.addErrback(failed.append)
        self.group.run(0.01)
        self.assertEqual(len(failed), 1000 - 256)
        self.busy(False)
        self.group.run(0.1)
        self.assertEqual(sum(deferred.called for deferred in writes), 1000)
        self.assertEqual(len(failed), 1000 - 256)
        for failure in failed:
            failure.trap(Overloaded)
        self.assertEqual(self.client.core.refused, 0)

    def test_in_doubt(self) -> None:
        """If an earlier try may have been done, the error says so."""
        self.group.lose = 1.0
        writing = write(self.client, b"after")
        self.group.run(0.6)
        self.group.lose = 0.0
        self.busy(True)
        for node in self.group.nodes[:3]:
            node.handlers[Prepare] = lambda _: Busy()
        with self.assertRaises(ChordError) as caught:
            self.group.wait(writing)
        self.assertTrue(caught.exception.outcome_unknown)

    def test_many_keys_at_once(self) -> None:
        """They send only so much at a time, and wait for their turn."""
        pairs = {user_key(b"%d" % n): b"value" for n in range(100)}
        number = self.client.operations.next_operation
        writes = [Write(key, value, number()) for key, value in pairs.items()]
        for begin in (
            lambda: self.client.bulk.write_many(writes),
            lambda: self.client.bulk.read_many(pairs),
        ):
            self.busy(True)
            self.group.clock.callLater(3, self.busy, False)
            self.group.wait(Deferred.fromCoroutine(begin()))


class FuzzTests(SynchronousTestCase):
    """Histories of many clients, with messages lost and members frozen and dead."""

    def seeds(self) -> range:
        one = os.environ.get("P2P_SEED")
        if one:
            return range(int(one), int(one) + 1)
        return range(int(os.environ.get("P2P_SEEDS", "60")) // 2)

    def test_linearizable(self) -> None:
        """No read is wrong, and none hangs."""
        operations = unknown = 0
        for seed in self.seeds():
            history = fuzz(seed)
            verdict = history.check()
            self.assertTrue(verdict, f"seed {seed}: {verdict.text}")
            operations += len(history.operations)
            unknown += sum(o.fate == "outcome unknown" for o in history.operations)
        print(f"\n{operations} operations, {unknown} of unknown outcome")
        self.assertLess(unknown, operations / 5)


def fuzz(seed: int) -> History:
    """One history of operations on a few keys."""
    rng = Random(seed)
    group = Group(seed, rng.choice((1, 2, 3, 3, 5, 5)), clients=2)
    group.lose = rng.choice((0, 0, 0.01, 0.05))
    group.delay = rng.choice(((0.0005, 0.002), (0.001, 0.05), (0.01, 0.2)))
    history = History()
    keys = [user_key(b"%d" % number) for number in range(rng.choice((2, 3)))]
    clients = 3 if group.lose or group.delay[1] > 0.1 else rng.randint(3, 6)  # unknowns cost much
    running = 0

    def begin(node: Member, name: str, left: int, seen: tuple[bytes | None, ...]) -> None:
        nonlocal running
        kind = rng.choice(("get", "get", "set", "delete", "compare_and_set"))
        key, value = rng.choice(keys), f"{name} {left}".encode()
        arguments: tuple[bytes | None, ...]
        asked: Deferred[Any]
        if kind == "get":
            arguments, asked = (), node.operations.read(key)
        elif kind == "set":
            arguments, asked = (value,), write(node, value, key=key).addCallback(lambda _: None)
        elif kind == "delete":
            arguments, asked = (), write(node, None, Condition.PRESENT, key=key)
        else:
            expected = rng.choice(seen)
            arguments = (expected, value)
            asked = write(node, value, Condition.EQUALS, expected, key=key)
        operation = history.call(name, kind, key, arguments, group.clock.seconds())

        def ended(result: Any) -> None:
            nonlocal running
            now_seen = seen
            if not isinstance(result, Failure):
                operation.returned(result, group.clock.seconds())
                if isinstance(result, bytes):
                    now_seen = (*seen[-3:], result)
            else:
                result.trap(ChordError)
                if result.value.outcome_unknown:
                    operation.unknown()
                else:
                    operation.failed()
            if left and not node.dead:
                pause = rng.expovariate(1 / 0.05)
                group.clock.callLater(pause, begin, node, name, left - 1, now_seen)
            else:
                running -= 1

        asked.addBoth(ended)

    for number in range(clients):
        running += 1
        begin(rng.choice(group.nodes), f"client {number}", 12, (None,))
    end = group.clock.seconds() + 200
    while running:
        if rng.random() < 0.002:
            node = rng.choice(group.nodes)
            if node.frozen_since is None:
                node.freeze()
                group.clock.callLater(rng.choice((0.1, 1, 5)), node.thaw)
        group.step(end)
    return history
