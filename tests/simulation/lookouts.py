"""Watches in simulated rings, and the judgement on what they tell (test support).

Owns the record of what every member accepted, which says what was really chosen, and of what every
watch told.  Which faults happen is a scenario's business.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from py2p_twisted.errors import ChordError
from py2p_twisted.events import Event
from py2p_twisted.node.core import USER
from py2p_twisted.table.acceptor import Acceptor
from py2p_twisted.table.directory import Directory
from py2p_twisted.table.group import Ballot, Config, Record
from py2p_twisted.table.history import History, history_of
from py2p_twisted.table.values import plain

from .history import History as Calls
from .workload import KEYS
from .world import SimNode, Stuck, World

__all__ = ["FEW", "Lookout", "Lookouts", "Oracle"]

#: So little waits for a user that slow ones are too slow soon.
FEW: Any = {"watch_events": 3, "watch_bytes": 2000}

#: Simulated seconds after which a settled ring has told everything.
PATIENCE = 60.0

#: Keys that are written each time, and never again.
_QUIET = 5


class Oracle:
    """What all members of all epochs accepted."""

    def __init__(self) -> None:
        self._accepted: dict[tuple[bytes, Ballot], set[bytes]] = defaultdict(set)
        self._chosen: dict[tuple[bytes, Ballot], bytes | None] = {}
        self._histories: dict[bytes, dict[Ballot, History]] = defaultdict(dict)

    def listen(self, node: SimNode) -> None:
        """Hear of whatever this node accepts from now on."""
        core = node.service.node.core
        core.acceptors = _Acceptors(self, core)

    def opened(self, instance: bytes, acceptor: Acceptor) -> None:
        """A node keeps a partition from now on, in a new epoch or in a new life."""
        for key, record in acceptor.records.items():
            self.accepted(instance, acceptor.config, key, record)
        store = acceptor._store

        def listening(key: bytes, record: Record) -> None:
            store(key, record)
            self.accepted(instance, acceptor.config, key, record)

        acceptor._store = listening  # type: ignore[method-assign]

    def accepted(self, instance: bytes, config: Config, key: bytes, record: Record) -> None:
        """A member has a record; what it has of an earlier epoch stood in the agreed base."""
        if key[:1] != USER:
            return
        version = (key[1:], record.ballot)
        members = self._accepted[version]
        members.add(instance)
        if record.ballot.epoch != config.epoch or len(members) >= config.quorum:
            self._chosen[version] = plain(record.value)
            self._histories[key[1:]][record.ballot] = history_of(record)

    def problem(self, event: Event) -> str | None:
        """Why this event cannot be; None if it can."""
        ballot = event.version._ballot
        if event.kind == "delete" and ballot.counter == 0:
            return None  # it tells that a tombstone is gone
        version = (event.key, ballot)
        if version not in self._chosen:
            return f"{event} was never chosen"
        if self._chosen[version] != event.value:
            return f"{event}: {self._chosen[version]!r} was chosen"
        return None

    def between(self, before: Event, event: Event) -> int:
        """How many writes of the key there were after the one event and before the other.

        A record that began anew after its tombstone was dropped has no trace of those before that.
        """
        first, last = before.version._ballot, event.version._ballot
        writes = {
            ballot: history.applied[-1]
            for ballot, history in self._histories[event.key].items()
            if history.applied
        }
        found = {write for ballot, write in writes.items() if first < ballot < last}
        history = self._histories[event.key][last]
        if not history.forgot:
            found &= {*history.applied}
        return len(found - {writes.get(first), writes.get(last)})


class _Acceptors(dict[int, Acceptor]):
    """The acceptors of a node, which the oracle listens to."""

    def __init__(self, oracle: Oracle, core: Any) -> None:
        super().__init__()
        self._oracle = oracle
        self._core = core
        for partition, acceptor in core.acceptors.items():
            self[partition] = acceptor

    def __setitem__(self, partition: int, acceptor: Acceptor) -> None:
        super().__setitem__(partition, acceptor)
        self._oracle.opened(self._core.instance, acceptor)


class Lookout:
    """One watch: what it told, and what its user knows by it.

    :ivar pause: seconds that its user takes over an event; 0: none.
    """

    def __init__(
        self, world: World, node: SimNode, oracle: Oracle, pause: float, **what: Any
    ) -> None:
        self.node = node
        self.what = what
        self.events: list[Event] = []
        self.known: dict[bytes, bytes | None] = {}
        self.problems: list[str] = []
        self.failure: Failure | None = None
        self.began = world.clock.seconds()
        self.ready = False
        self.over = False
        self._world = world
        self._oracle = oracle
        self.pause = pause
        self.watch = node.service.watch(**what)
        ready = self.watch.ready()
        ready.addCallbacks(self._is_ready, lambda failure: failure.trap(ChordError) and None)
        Deferred.fromCoroutine(self._listen()).addBoth(self._ended)

    def _is_ready(self, _: None) -> None:
        self.ready = True

    async def _listen(self) -> None:
        async for event in self.watch:
            self._judge(event)
            self.events.append(event)
            self.known[event.key] = event.value
            if self.pause:
                await self.node.service.node.core.sleep(self.pause)

    def _judge(self, event: Event) -> None:
        earlier = [one for one in self.events if one.key == event.key]
        problem = self._oracle.problem(event)
        if problem is not None:
            self.problems.append(problem)
        if not earlier:
            return
        before = earlier[-1]
        recovered = any(config.epoch.era for node in self._world.nodes for config in _configs(node))
        if event.version <= before.version and not recovered:
            self.problems.append(f"{event} comes after {before}")
        if problem is None and not event.skipped and self._oracle.between(before, event):
            self.problems.append(f"{event} comes after {before}, and others were between")
        there = {"add": False, "change": True}.get(event.kind, before.value is not None)
        if there is not (before.value is not None) or (
            event.kind == "delete" and not there and not event.skipped
        ):
            self.problems.append(f"{event} comes after {before}")

    def _ended(self, result: Any) -> None:
        self.over = True
        if isinstance(result, Failure) and not result.check(ChordError, CancelledError):
            self.failure = result

    def __repr__(self) -> str:
        return f"<watch {self.what} on {self.node}, {len(self.events)} events, {self.ready}>"


def _configs(node: SimNode) -> Directory:
    return node.service.node.core.directory


class Lookouts:
    """Watches that come and go on all nodes of a world."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = Random(seed)
        self.oracle = Oracle()
        self.all: list[Lookout] = []
        self._quiet = 0  # keys that are written once
        self._acknowledged: dict[tuple[bytes, Any], float] = {}  # when, by key and value
        spoil = world.spoil

        def listen(node: SimNode) -> None:
            spoil(node)
            self.oracle.listen(node)

        world.spoil = listen
        for node in world.nodes:
            self.oracle.listen(node)

    def happen(self) -> None:
        """Some keys are written once and for all; perhaps a watch begins, or ends."""
        rng, world = self._rng, self._world
        nodes = [node for node in world.nodes if node.service.running and not node.paused]
        ready = [node for node in nodes if node.service.node.core.ring_id]
        if ready:
            self._write(rng.choice(ready))
        if nodes and rng.random() < 0.6 and len(self.living()) < 8:
            what: dict[str, Any] = {"key": rng.choice(KEYS)}
            if rng.random() < 0.6:
                what = {"prefix": rng.choice((b"", b"key", b"quiet", b"key 3"))}
            pause = rng.choice((0, 0, 0, 0.3, 3.0))
            what["initial"] = rng.random() < 0.5
            lookout = Lookout(world, rng.choice(nodes), self.oracle, pause, **what)
            world.tell(f"begin {lookout}")
            self.all.append(lookout)
        elif rng.random() < 0.3 and self.living():
            lookout = rng.choice(self.living())
            world.tell(f"end {lookout}")
            Deferred.fromCoroutine(lookout.watch.aclose())

    def _write(self, node: SimNode) -> None:
        """Keys that no later write brings to a member that lags behind."""
        for _ in range(_QUIET):
            self._quiet += 1
            key, value = b"quiet %d" % self._quiet, b"%d" % self._quiet

            def written(_: None, what: tuple[bytes, bytes] = (key, value)) -> None:
                self._acknowledged[what] = self._world.clock.seconds()

            writing = node.service.set(key, value)
            writing.addCallbacks(
                written, lambda failure: failure.trap(ChordError, CancelledError) and None
            )

    def living(self) -> list[Lookout]:
        """Those that go on."""
        nodes = self._world.nodes
        return [one for one in self.all if one.node in nodes and not one.over]

    def judge(self) -> int:
        """Everything is calm: what they told is right, and enough; how many events there were."""
        world = self._world
        for lookout in self.living():
            lookout.pause = 0  # there may be hundreds of events
        self._check_told()
        reader = self._rng.choice(world.members()).service
        end = world.clock.seconds() + PATIENCE
        while True:
            # A write that nobody waits for any more may still arrive: look anew each time.
            present = {key: world.wait(reader.get(key)) for key in KEYS}
            lacking = [text for one in self.living() for text in self._lacking(one, present)]
            if not lacking:
                break
            if world.clock.seconds() > end:
                raise Stuck("; ".join(lacking[:8]))
            world.run(1.0)
        self._check_told()
        return sum(len(one.events) for one in self.all)

    def judge_news(self, history: Calls) -> None:
        """Without `initial`, what was acknowledged before a watch began is no event.

        After a recovery it may be: values go back.

        :param history: what the clients did.
        """
        if any(config.epoch.era for node in self._world.nodes for config in _configs(node)):
            return
        acknowledged = self._acknowledged | {
            (call.key, call.arguments[-1]): call.returned_at
            for call in history.operations
            if call.returned_at is not None and call.arguments
        }
        for lookout in self.all:
            for event in () if lookout.what["initial"] else lookout.events:
                at = acknowledged.get((event.key, event.value))
                if at is not None and at < lookout.began:
                    lookout.problems.append(
                        f"{event} was acknowledged at {at:.3f} s, "
                        f"and the watch began at {lookout.began:.3f} s"
                    )

    def _check_told(self) -> None:
        for lookout in self.all:
            if lookout.failure is not None:
                lookout.failure.raiseException()
            if lookout.problems:
                raise AssertionError(f"{lookout}: {'; '.join(lookout.problems[:4])}")

    def _lacking(self, lookout: Lookout, present: dict[bytes, bytes | None]) -> list[str]:
        """What its user does not know yet."""
        core = lookout.node.service.node.core
        living = {node.service.out_addr for node in self._world.members()}
        if not core.member and living.isdisjoint(core.remembered):
            return []  # everyone it ever knew crashed
        found = [] if lookout.ready else [f"{lookout} is not ready"]
        for key, value in present.items():
            watched = key == lookout.what.get("key") or (
                "prefix" in lookout.what and key.startswith(lookout.what["prefix"])
            )
            sure = lookout.what["initial"] or key in lookout.known
            if watched and sure and lookout.known.get(key) != value:
                known = lookout.known.get(key)
                found.append(f"{lookout} knows {key!r}: {known!r}, not {value!r}")
        return found
