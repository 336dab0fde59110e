"""Time, messages, faults, and who does what next (test support; pure).

A message can come in any order with the others, late, twice, or never; what asks somebody to write
never comes twice, as it travels on a connection.  A crash takes a node's memory: it comes back as
another instance.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from py2p_twisted.base import Peer
from py2p_twisted.table.group import Ballot, Config, Epoch, Record, Successor

from ..simulation.history import History, Operation
from .moving import Mover
from .talk import Ask, Task

__all__ = ["World"]

T = TypeVar("T")

#: Questions that may come twice.
_MAY_REPEAT = {"read", "prepare", "accept", "wedge", "choose", "fetch", "open", "learn", "records"}


class Actor:
    """Something that a node does; its answer goes to whoever asked for it.

    :ivar round: of its questions; answers to earlier ones are ignored.
    :ivar heard: whose answers of this round it had.
    """

    __slots__ = ("asker", "heard", "node", "round", "task")

    def __init__(self, node: Mover, task: Task[Any], asker: tuple[Actor, int] | None) -> None:
        self.node = node
        self.task = task
        self.asker = asker
        self.round = 0
        self.heard: set[bytes] = set()


class World:
    """Some hosts, their nodes, and the messages between them.

    :param rng: chance: of the schedule, of faults, and of what clients do.
    :param node_class: what a node is; a mutant lacks a rule.
    :param strict: hold what must hold?  A mutant is judged by what its users see alone.
    :ivar net: messages that may come next: (to, kind, arguments, actor, round), or, for answers,
        (actor, round, from, answer).
    :ivar late: messages that take long.
    """

    def __init__(
        self,
        rng: Random,
        node_class: type[Mover] = Mover,
        hosts: int = 6,
        members: int = 3,
        keys: int = 1,
        strict: bool = False,
    ) -> None:
        self.rng = rng
        self.node_class = node_class
        self.restless = 0.02 + 0.13 * rng.random()  # how often something happens beside messages
        self.crashing = 0.02 + 0.2 * rng.random()  # how much of that is a crash or a restart
        self.now = 0
        self.history = History()
        self.keys = [b"key %d" % number for number in range(keys)]
        self.net: list[tuple[Any, ...]] = []
        self.late: list[tuple[Any, ...]] = []
        self.actors: dict[Actor, None] = {}
        self.current: Actor | None = None
        self.nodes: dict[bytes, Mover] = {}
        self.hosts: list[Mover | None] = [None] * hosts
        self.residents: list[Mover | None] = [None] * hosts  # also while it is down
        self.lives = [0] * hosts
        self.clients: dict[Actor, str] = {}
        self.left: dict[str, int] = {}  # operations that a user will still do
        self.strict = strict
        self._accepted: dict[tuple[bytes, Ballot], Record] = {}
        self._decided: dict[Epoch, Successor] = {}
        self._operations = 0
        for host in range(hosts):
            self.boot(host)
        founders = tuple(node.peer for node in self.shuffled(list(self.nodes.values()))[:members])
        for node in self.nodes.values():
            node.found(founders)

    # -- chance; a script puts its own will in its place

    def maybe(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def choice(self, things: Sequence[T]) -> T:
        """One of them."""
        return things[int(self.rng.random() * len(things))]

    def shuffled(self, things: list[T]) -> list[T]:
        """The same in any order."""
        things = list(things)
        self.rng.shuffle(things)
        return things

    # -- nodes

    def boot(self, host: int) -> Mover:
        """A node starts with an empty memory, as a new instance (rule 6)."""
        before = self.residents[host]
        if before is not None and self.node_class.forgets:
            peer = before.peer
        else:
            name = f"{'ABCDEFGH'[host]}{self.lives[host] or ''}"
            peer = Peer(self.new_instance(host), b"\0", name, host)
        node = self.node_class(self, peer)
        if before is not None and self.node_class.forgets:
            node.known = before.known
        self.lives[host] += 1
        self.hosts[host] = self.residents[host] = self.nodes[peer.instance] = node
        return node

    def new_instance(self, host: int) -> bytes:
        """Sixteen bytes that never were."""
        return bytes([int(self.rng.random() * 256), host, self.lives[host], *bytes(13)])

    def crash(self, host: int) -> None:
        """A node loses its memory, and all that it was doing."""
        node = self.hosts[host]
        assert node is not None
        self.hosts[host] = None
        del self.nodes[node.instance]
        for actor in [actor for actor in self.actors if actor.node is node]:
            del self.actors[actor]
            actor.task.close()
            name = self.clients.pop(actor, None)
            if name is not None and self.left[name]:
                self.client(f"{name}'", self.left[name])

    def restart(self, host: int) -> None:
        """The host comes back."""
        self.boot(host)

    def configs(self) -> list[Config]:
        """What each node believes, if it believes anything."""
        return [node.known for node in self.nodes.values() if node.known is not None]

    def replaced(self, instance: bytes) -> bool:
        """Is it proven that this memory is gone: does another instance answer at its address?"""
        host = instance[1]
        node = self.hosts[host]
        return node is not None and node.instance != instance

    # -- doing

    def client(self, name: str, operations: int) -> None:
        """A user at some node."""
        actor = self.start(self.choice(list(self.nodes.values())), "use", name, operations)
        if actor in self.actors:
            self.clients[actor] = name

    def call(self, client: str, kind: str, key: bytes, *arguments: bytes | None) -> Operation:
        """A user calls."""
        return self.history.call(client, kind, key, arguments, self.now)

    def new_operation(self) -> bytes:
        """An operation id."""
        self._operations += 1
        return self._operations.to_bytes(8, "big")

    def start(self, node: Mover, what: str, *args: Any) -> Actor:
        """A node begins to do something."""
        return self._start(Actor(node, getattr(node, what)(*args), None))

    def _start(self, actor: Actor) -> Actor:
        self.actors[actor] = None
        self.resume(actor, None)
        return actor

    def resume(self, actor: Actor, value: Any) -> None:
        """Go on with something, until it asks or waits again."""
        before, self.current = self.current, actor
        try:
            ask = actor.task.send(value)
        except StopIteration as stop:
            del self.actors[actor]
            self.clients.pop(actor, None)
            if actor.asker is not None:
                asker, number = actor.asker
                self.net.append((asker, number, actor.node.instance, stop.value))
        else:
            if ask is not None:
                if not ask.more:
                    actor.round += 1
                    actor.heard = set()
                self._post(ask, actor)
        finally:
            self.current = before

    def poke(self, actor: Any) -> None:
        """What it waits for is there."""
        if actor in self.actors:
            self.net.append((actor, actor.round, b"", None))

    def tell(self, ask: Ask) -> None:
        """Say something to some, without waiting for an answer."""
        self._post(ask, None)

    def _post(self, ask: Ask, actor: Actor | None) -> None:
        number = actor.round if actor is not None else 0
        for instance in ask.to:
            message = (instance, ask.kind, ask.args, actor, number)
            slow = 0.12 if ask.kind == "write" else 0.03
            (self.late if self.maybe(slow) else self.net).append(message)

    # -- what must hold whatever happens

    def accepted(self, key: bytes, record: Record) -> None:
        """A ballot names one value of a key for ever."""
        if self.strict:
            first = self._accepted.setdefault((key, record.ballot), record)
            assert first == record, f"two values at one ballot: {first}, {record}"

    def decided(self, successor: Successor) -> None:
        """One epoch follows another, with one base."""
        if self.strict:
            first = self._decided.setdefault(successor.config.epoch, successor)
            assert first == successor, f"two next epochs: {first}, {successor}"

    def opened(self, config: Config) -> None:
        """Only what was decided is opened."""
        if self.strict and config.epoch in self._decided:
            decided = self._decided[config.epoch].config
            assert decided == config, f"opened, and not decided: {config}, {decided}"

    # -- messages

    def arrive(self, message: tuple[Any, ...]) -> None:
        """A question arrives, or an answer."""
        if len(message) == 4:
            actor, number, source, answer = message
            if actor in self.actors and actor.round == number and source not in actor.heard:
                if source:
                    actor.heard.add(source)
                self.resume(actor, (source, answer) if source else None)
            return
        instance, kind, args, actor, number = message
        node = self.nodes.get(instance)
        if node is None:
            return
        answer = node.answer(kind, args)
        if hasattr(answer, "send"):
            self._start(Actor(node, answer, (actor, number) if actor is not None else None))
        elif actor is not None:
            self.net.append((actor, number, instance, answer))

    # -- the schedule

    def run(self, clients: int = 4, operations: int = 8, steps: int = 8000) -> History:
        """Let users work while messages and nodes come and go; who did what when."""
        for number in range(clients):
            self.client(f"c{number}", operations)
        for _ in range(steps):
            if not self.clients:
                break
            self.now += 1
            self.step()
        return self.history

    def step(self) -> None:
        """One thing happens."""
        chance = self.rng.random()
        if chance < self.restless:
            self.trouble(chance / self.restless)
        elif self.net:
            place = int(self.rng.random() * len(self.net))
            message = self.net[place]
            fate = self.rng.random()
            if fate < 0.03 and len(message) == 5 and message[1] in _MAY_REPEAT:
                pass  # it stays, and comes again
            else:
                self.net[place] = self.net[-1]
                self.net.pop()
            if fate < 0.97:
                self.arrive(message)
        elif self.late and self.maybe(0.5):
            self.net.append(self.late.pop(int(self.rng.random() * len(self.late))))
        elif self.actors:
            self.resume(self.choice(list(self.actors)), None)

    def trouble(self, chance: float) -> None:
        """Something other than a message."""
        if chance < self.crashing:
            self.crash_or_restart()
        elif chance < 0.6:
            for node in self.shuffled(list(self.nodes.values()))[: self.choice((1, 1, 2, 3))]:
                self.chores(node)
        elif chance < 0.75:
            if self.actors:
                self.resume(self.choice(list(self.actors)), None)
        elif self.late:
            self.net.append(self.late.pop(int(self.rng.random() * len(self.late))))

    def chores(self, node: Mover) -> None:
        """A node looks after its partition."""
        if node.behind:
            self.start(node, "catch_up")
        elif self.maybe(0.25):
            self.start(node, "repair")
        elif node.acceptor is not None:
            self.start(node, "drive", self.wanted(node))

    def wanted(self, node: Mover) -> tuple[Peer, ...]:
        """The members that somebody thinks a group ought to have."""
        size = self.choice((1, 2, 3, 3, 3, 3, 5, 5))
        live = self.shuffled([one.peer for one in self.nodes.values()])
        if size == 2 and len(live) > 2 and self.maybe(0.5):
            size = 3
        return tuple(live[: size if size <= len(live) else 1])

    def crash_or_restart(self) -> None:
        """A node crashes, or one that did comes back."""
        down = [host for host, node in enumerate(self.hosts) if node is None]
        if down:
            self.restart(self.choice(down))
            return
        host = int(self.rng.random() * len(self.hosts))
        node = self.hosts[host]
        assert node is not None
        config = max(self.configs(), key=lambda config: config.epoch, default=None)
        if config is not None and config.has(node.instance):
            left = sum(peer.instance in self.nodes for peer in config.members) - 1
            if left < config.quorum and not self.maybe(0.1):
                return  # most histories are to go on
        self.crash(host)
