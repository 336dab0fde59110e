"""A world whose schedule is written by hand (test support; pure).

Nothing is left to chance: everybody asks all members in their order, the first member of a group is
its proposer, and a message arrives when the script says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from py2p_twisted.table.proposer import Condition, Outcome, Write

from ..simulation.history import Operation
from .moving import Mover
from .talk import Ask, Failed, Task, Written
from .world import Actor, World

__all__ = ["Script"]

T = TypeVar("T")


class Script(World):
    """Nodes with the names of their hosts, A to H; their instances are in that order, too.

    The members of the first epoch are A, B and C.
    """

    def __init__(self, node_class: type[Mover] = Mover, *, strict: bool = False) -> None:
        super().__init__(Random(0), node_class, hosts=8, members=3, strict=strict)
        self.last: Actor  # what a user began last
        self.key = self.keys[0]

    def maybe(self, probability: float) -> bool:
        return False

    def choice(self, things: Sequence[T]) -> T:
        return things[0]

    def shuffled(self, things: list[T]) -> list[T]:
        return list(things)

    def new_instance(self, host: int) -> bytes:
        return bytes([65 + host, host, self.lives[host], *bytes(13)])

    def __getitem__(self, name: str) -> Mover:
        node = self.hosts[ord(name) - 65]
        assert node is not None
        return node

    def members(self, names: str) -> tuple[Any, ...]:
        """These nodes, as members of a group."""
        return tuple(self[name].peer for name in names)

    # -- what users do

    def results(self) -> list[object]:
        """What each operation returned, or how it ended."""
        return [
            one.result if one.fate == "returned" else one.fate for one in self.history.operations
        ]

    def get(self, name: str) -> Operation:
        """A user of this node reads the key."""
        operation = self.call(name, "get", self.key)
        self.last = self.start(self[name], "get", operation, self.key)
        return operation

    def put(self, name: str, value: bytes, expected: bytes | str | None = "any") -> Operation:
        """A user of this node sets the key, or compares and sets it; as often as it takes."""
        operation, write = self._write(name, value, expected)
        self.last = self.start(self[name], "put", operation, write)
        return operation

    def try_once(self, name: str, value: bytes, expected: bytes | str | None = "any") -> Operation:
        """The same, as one proposal of this node itself, which is not repeated."""
        operation, write = self._write(name, value, expected)
        node = self[name]
        self.last = self._start(Actor(node, _once(node, operation, write), None))
        return operation

    def delete(self, name: str) -> Operation:
        """A user of this node deletes the key."""
        operation = self.call(name, "delete", self.key)
        write = Write(self.key, None, self.new_operation(), Condition.PRESENT)
        self.last = self.start(self[name], "put", operation, write)
        return operation

    def _write(
        self, name: str, value: bytes, expected: bytes | str | None
    ) -> tuple[Operation, Write]:
        if isinstance(expected, str):
            operation = self.call(name, "set", self.key, value)
            return operation, Write(self.key, value, self.new_operation())
        operation = self.call(name, "compare_and_set", self.key, expected, value)
        write = Write(self.key, value, self.new_operation(), Condition.EQUALS, expected)
        return operation, write

    def drive(self, name: str, members: str) -> Actor:
        """A node begins to drive its group to the next epoch, with these members."""
        return self.start(self[name], "drive", self.members(members))

    def catch_up(self, name: str, source: str) -> None:
        """A node opens an epoch late, with what another has."""
        node = self[name]
        if node.behind:
            self.start(node, "catch_up", self[source].instance)

    def copy_ahead(self, name: str, to: str) -> None:
        """A node has another copy what it serves, which it may want as a member."""
        node = self[name]
        assert node.acceptor is not None
        args = (node.acceptor.config.epoch, node.instance)
        self.tell(Ask("prefetch", args, (self[to].instance,)))

    def tell_config(self, name: str, source: str) -> None:
        """A node hears the newest configuration that another knows."""
        self[name].learn(self[source].known)

    # -- what the network does

    def deliver(self, kind: str, to: str, *, lost: bool = False) -> list[tuple[Any, ...]]:
        """The oldest question of a kind arrives at each of these nodes, and its answer comes back.

        :param lost: the answer does not come back.
        :returns: what was lost, if it is to come later after all.
        """
        kept: list[tuple[Any, ...]] = []
        for name in to:
            self.now += 1
            for message in self._questions(kind, name)[:1]:
                self.net.remove(message)
                before = len(self.net)
                self.arrive(message)
                if lost:
                    kept += [one for one in self.net[before:] if len(one) == 4]
                    self.net[before:] = [one for one in self.net[before:] if len(one) == 5]
            self.answers()
        return kept

    def answers(self) -> None:
        """All answers come back."""
        while replies := [message for message in self.net if len(message) == 4]:
            for message in replies:
                self.net.remove(message)
                self.arrive(message)

    def lose(self, kind: str, at: str) -> None:
        """All questions of a kind to these nodes are lost."""
        for name in at:
            for message in self._questions(kind, name):
                self.net.remove(message)

    def _questions(self, kind: str, name: str) -> list[tuple[Any, ...]]:
        instance = self[name].instance
        return [
            message
            for message in self.net
            if len(message) == 5 and message[0] == instance and message[1] == kind
        ]

    def hold(self, kind: str, at: str) -> list[tuple[Any, ...]]:
        """Take the questions of a kind to these nodes out of the network, to be sent on later."""
        held = [message for name in at for message in self._questions(kind, name)]
        for message in held:
            self.net.remove(message)
        return held

    def rest(self) -> None:
        """Everything that is under way arrives."""
        while self.net:
            self.now += 1
            self.arrive(self.net.pop(0))

    def time_is_up(self, actor: Actor, times: int = 1) -> None:
        """Somebody has waited for long enough."""
        for _ in range(times):
            self.now += 1
            if actor in self.actors:
                self.resume(actor, None)


def _once(node: Mover, operation: Operation, write: Write) -> Task[None]:
    """One proposal, and what its user is told."""
    assert node.known is not None
    result, _ = yield from node.propose(node.known, write.again(node.stamp, None))
    if isinstance(result, Written) and result.outcome is not Outcome.STALE:
        node.tell(operation, result.outcome)
    elif isinstance(result, Failed) and result.sent:
        operation.unknown()
    else:
        operation.failed()
