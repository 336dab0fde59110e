"""What happens in a simulated ring, seed by seed (test support).

Setting A stays inside the assumptions of Zave's proof and checks its invariants after every event.
Setting B does everything else that can befall a ring, then lets it calm down, and checks that it is
ideal, that every partition is served, and that no read was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from py2p_twisted.errors import ChordError, OperationTimeout, RingFull
from py2p_twisted.node.core import Core, Phase
from py2p_twisted.ring.ring import Pointers, RingRules
from py2p_twisted.ring.steps import Steps
from py2p_twisted.settings import Settings
from py2p_twisted.table.group import Config

from .history import History
from .invariants import (
    RingSnapshot,
    at_least_one_ring,
    at_most_one_ring,
    connected_appendages,
    no_duplicates,
    ordered_ring,
    ordered_successor_lists,
    principals,
)
from .lookouts import FEW, Lookouts
from .weather import PERFECT, ROUGH, SimOptions
from .workload import Client
from .world import PORT, SimNode, Stuck, World

__all__ = [
    "InvariantBroken",
    "Report",
    "enter",
    "finished",
    "heal",
    "judge",
    "proven",
    "resume",
    "rough",
    "write_and_read",
]

_INVARIANTS = (
    at_least_one_ring,
    at_most_one_ring,
    ordered_ring,
    connected_appendages,
    no_duplicates,
    ordered_successor_lists,
)


class InvariantBroken(AssertionError):
    """A property that always holds did not."""


@dataclass
class Report:
    """What one run did."""

    seed: int
    nodes: int
    events: int
    virtual: float
    settled: float
    operations: int = 0
    unknown: int = 0
    told: int = 0  # to watches


def _check(snapshot: RingSnapshot) -> None:
    broken = [problem for invariant in _INVARIANTS for problem in invariant(snapshot)]
    if broken:
        raise InvariantBroken("; ".join(broken))


# -- setting A


def proven(
    seed: int,
    rules_of: type[RingRules] = RingRules,
    make_steps: type[Steps] = Steps,
    steps: int = 20,
) -> Report:
    """Joins and failures (for the ring, a leave is one) inside the proof's assumptions.

    r is 1 to 3, at least r + 1 principals are there all the time, failures are detected perfectly:
    one member fails at a time, and only if every list keeps a live entry.
    """
    rng = Random(seed)
    r = rng.choice((1, 2, 3))
    # Steps overlap often when messages are slow and rounds are quick; timeouts stay far away.
    options, interval = rng.choice(
        (
            (PERFECT, 0.3),
            (replace(PERFECT, delay=(0.005, 0.03)), 0.3),
            (replace(PERFECT, delay=(0.01, 0.1)), 1.0),
        )
    )
    settings = Settings(
        k=5, replicas=1, successors=r, stabilize_interval=interval, request_timeout_min=2.0
    )  # fmt: skip
    world = World(seed, settings, options, rules_of(r), make_steps)
    first = world.add()
    world.wait(first.service.join())
    for _ in range(r):
        node = world.add()
        world.wait(node.service.connect(first.host.address, PORT))
        world.wait(node.service.join())
    world.settle(60)

    important: set[int] = set()
    excused: list[Pointers] = []

    def check(snapshot: RingSnapshot) -> None:
        nonlocal important
        _check(snapshot)
        before, important = important, principals(snapshot)
        lost = {identifier for identifier in before - important if identifier in snapshot.members}
        if lost:
            raise InvariantBroken(f"{sorted(lost)} are alive and no principals any more")
        members = {own.me.id: own for node in world.members() if (own := node.pointers)}
        for own in members.values():
            if own.depleted or len(own.successors) >= r or own in excused:
                continue
            # A depleted member answers lower ones all the same, else two could wait for each other.
            after = members.get(own.successor.id) if own.successor is not None else None
            if after is None or not after.depleted:
                raise InvariantBroken(f"{own.me.id} shows a list of less than {r} entries")
            excused.append(own)

    world.on_change = check
    joining: list[SimNode] = []
    for _ in range(steps):
        joining = [node for node in joining if node.phase is Phase.JOINING]
        choice = rng.random()
        if choice < 0.5 and len(world.nodes) < 12:
            joining.append(_join_somewhere(world, rng))
        elif choice < 0.85:
            _fail_one(world, rng, r)
        world.run(rng.expovariate(1.0))
    world.run_while(lambda: any(node.phase is Phase.JOINING for node in world.nodes), 60)
    settled = world.eventually(world.not_ideal, 120)
    return Report(seed, len(world.nodes), world.clock.turn, world.clock.seconds(), settled)


def _join_somewhere(world: World, rng: Random) -> SimNode:
    node = world.add()
    through = rng.choice(world.members())

    async def join() -> None:
        try:
            await node.service.connect(through.host.address, PORT)
            await node.service.join()
        except ChordError as error:
            world.tell(f"{node} did not join: {error}")

    world.tell(f"{node} joins through {through}")
    node.service.node.spawn(join(), "joining")
    return node


def _fail_one(world: World, rng: Random, r: int) -> None:
    """Take one member out, if the assumptions allow it.

    A step is one event in the proof, so nothing fails while an answer is under way.
    """

    def steps_under_way() -> bool:
        return any(
            node.service.node.core.steps.busy or node.phase is Phase.JOINING for node in world.nodes
        )

    if not world.run_while(steps_under_way, 20):
        return
    for node in rng.sample(world.members(), len(world.members())):
        snapshot = world.snapshot()
        identifier = node.service.node.core.me.id
        important = principals(snapshot)
        others = [view for view in snapshot.members.values() if view.id != identifier]
        lists_survive = all(
            any(entry in snapshot.members and entry != identifier for entry in view.successors)
            for view in others
        )
        enough = len(important - {identifier}) >= r + 1
        if lists_survive and enough and node.phase is Phase.JOINED:
            world.crash(node)
            return


# -- setting B


@dataclass(frozen=True)
class Faults:
    """What setting B may do in a run."""

    crashes: bool
    gentle: bool  # no crash takes the quorum of a group, and nothing may be lost
    cuts: bool
    pauses: bool
    leaves: bool
    options: SimOptions
    until: float = 0.0  # on the clock


def _faults(rng: Random) -> Faults:
    return Faults(
        crashes=rng.random() < 0.6,
        gentle=rng.random() < 0.7,
        cuts=rng.random() < 0.5,
        pauses=rng.random() < 0.5,
        leaves=rng.random() < 0.7,
        options=rng.choice((PERFECT, ROUGH)),
    )


def rough(
    seed: int,
    rules_of: type[RingRules] = RingRules,
    *,
    watched: bool = False,
    spoil: Callable[[SimNode], None] = lambda node: None,
) -> Report:
    """Everything outside the proof: small rings, cuts, pauses, false suspicion, crashes.

    :param watched: watches come and go, and what they tell is judged, too.
    :param spoil: takes a rule out of a node that has just started.
    """
    rng = Random(seed)
    faults = _faults(rng)
    k = rng.choice((3, 4, 5, 6, 6, 8))
    most = min(1 << k, rng.choice((1, 2, 3, 4, 5, 6, 8, 12, 16)))
    replicas = rng.choice((1, 3, 3, 5, 5, 5))
    settings = Settings(
        k=k, replicas=replicas, evict_after=rng.choice((2.0, 5.0, 30.0)), **(FEW if watched else {})
    )
    world = World(seed, settings, faults.options, rules_of(8))
    world.spoil = spoil
    world.tell(
        f"seed {seed}: k={k}, up to {most} nodes, {replicas} copies, "
        f"evict_after {settings.evict_after:g} s, {faults}"
    )
    try:
        return _rough(world, rng, faults, most, Lookouts(world, seed) if watched else None, seed)
    except (AssertionError, ChordError) as error:
        story = "\n".join(world.story[-60:])
        raise AssertionError(f"seed {seed}: {error}\n{story}") from error


def _rough(
    world: World, rng: Random, faults: Faults, most: int, lookouts: Lookouts | None, seed: int
) -> Report:
    first = world.add()
    world.wait(first.service.join())
    history = History()
    clients = [Client(world, history, f"client {number}") for number in range(rng.randint(3, 10))]
    end = world.clock.seconds() + rng.uniform(20, 60)
    faults = replace(faults, until=end)
    crashed = False
    while world.clock.seconds() < end:
        crashed = _happen(world, rng, faults, most) or crashed
        if lookouts is not None:
            lookouts.happen()
        world.run(rng.expovariate(1 / 1.5))
    world.tell("calm")
    world.network.calm()
    for node in world.nodes:
        node.paused = False
    judge(world, clients, history)
    if lookouts is not None:
        lookouts.judge_news(history)
    settled = _settle(world, crashed=crashed)
    told = 0 if lookouts is None else lookouts.judge()
    write_and_read(world, rng)
    return finished(world, seed, history, settled, told)


def judge(world: World, clients: Sequence[Client], history: History) -> None:
    """End the clients, and look at what they saw; then let who joins or leaves be done with it."""
    for client in clients:
        client.stop()
    if not world.run_while(lambda: not all(client.idle for client in clients), 90):
        raise Stuck("a client waits for ever")
    unexpected = [failure for client in clients for failure in client.unexpected]
    if unexpected:
        unexpected[0].raiseException()
    verdict = history.check()
    if not verdict:
        raise AssertionError(verdict.text)
    world.run_while(
        lambda: any(node.phase in (Phase.JOINING, Phase.LEAVING) for node in world.nodes), 60
    )


def finished(world: World, seed: int, history: History, settled: float, told: int = 0) -> Report:
    """What the run did; stops every node."""
    report = Report(
        seed,
        len(world.nodes),
        world.clock.turn,
        world.clock.seconds(),
        settled,
        len(history.operations),
        sum(operation.fate == "outcome unknown" for operation in history.operations),
        told,
    )
    world.stop()
    return report


def _settle(world: World, *, crashed: bool) -> float:
    """The liveness phase: an ideal ring in which every partition is served."""
    began = world.clock.seconds()
    world.eventually(world.not_ideal, 120)
    if crashed and world.members():
        world.tell("recover")
        world.wait(world.members()[0].service.recover(accept_data_loss=True))
    world.settle(120)
    return world.clock.seconds() - began


def write_and_read(world: World, rng: Random) -> None:
    """What is written through one node now is read through every other."""
    living = {node.service.out_addr for node in world.members()}
    nodes = [
        node  # that can find the ring: everyone it ever knew may have crashed
        for node in world.nodes
        if node.pointers or not living.isdisjoint(node.service.node.core.remembered)
    ]
    if not nodes:
        return
    if not world.run_while(
        lambda: any(
            not node.pointers and not any(node.service.node.core.ring_links()) for node in nodes
        ),
        60,
    ):
        raise Stuck("a leeching node does not find its ring again")
    written = {b"end %d" % number: b"%d" % number for number in range(20)}
    writer = rng.choice(nodes).service
    try:
        world.wait(writer.update(written))
    except OperationTimeout as error:
        # What a cut had swallowed may be told only now; writing the same again settles it.
        if not error.outcome_unknown:
            raise
        world.wait(writer.update(written))
    for node in nodes:
        found = world.wait(node.service.get_many(written))
        if found != written:
            raise AssertionError(f"{node} read {len(found)} of {len(written)} keys")


def _happen(world: World, rng: Random, faults: Faults, most: int) -> bool:
    """One event of the safety phase; True if a member that may have had keys crashed."""
    running = [node for node in world.nodes if not node.paused]
    choice = rng.random()
    if choice < 0.35 and len(world.nodes) < most:
        _add_one(world, rng)
    elif choice < 0.5 and faults.leaves and len(world.members()) > 1:
        node = rng.choice(world.members())
        if not node.paused and node.phase is Phase.JOINED:
            world.tell(f"{node} leaves")
            leaving = node.service.unjoin()
            leaving.addErrback(lambda failure: failure.trap(ChordError) and None)
    elif choice < 0.6 and faults.crashes and len(running) > 1 and len(world.members()) > 1:
        return _crash_one(world, rng, faults, rng.choice(running))
    elif choice < 0.7 and faults.pauses and running:
        node = rng.choice(running)
        world.tell(f"pause {node}")
        node.host.pause()
        node.paused = True
        world.clock.callLater(rng.choice((0.5, 3, 12, 25)), resume, world, node)
    elif choice < 0.8 and faults.cuts and len(world.nodes) > 1:
        addresses = [node.host.address for node in world.nodes]
        some = rng.sample(addresses, rng.randint(1, len(addresses) - 1))
        rest = [address for address in addresses if address not in some]
        one_way = rng.random() < 0.2
        world.tell(f"cut {some} from the rest{' (one way)' if one_way else ''}")
        cut = world.network.cut(some, rest, one_way=one_way)
        world.clock.callLater(rng.choice((1, 5, 15, 30)), heal, world, cut)
    elif choice < 0.85 and len(world.nodes) > 1:
        one, other = rng.sample([node.host.address for node in world.nodes], 2)
        world.network.reset(one, other)
    elif choice < 0.9:
        world.network.slow([rng.choice(world.nodes).host.address], rng.uniform(0.1, 3), 5)
    else:
        gone = [node for node in running if node.phase is Phase.LEECHING]
        if gone:
            _join(world, rng.choice(gone))
    return False


def _crash_one(world: World, rng: Random, faults: Faults, node: SimNode) -> bool:
    """Kill a node, and perhaps start another memory at its address; True if data may be lost."""
    if not [other for other in world.members() if other is not node]:
        return False
    dangerous = not _survive(world, node)
    if dangerous and faults.gentle:
        return False
    world.crash(node)
    if rng.random() < 0.4:
        pause = rng.choice((0.1, 3, 10))
        world.clock.callLater(pause, _restart, world, node.host.address, faults.until)
    return dangerous


def _survive(world: World, victim: SimNode) -> bool:
    """Has every group, present or on its way, a quorum of living members without this one?

    Of an epoch that is not settled, members that have not opened count for nothing.
    """
    living = [node.service.node.core for node in world.nodes if node is not victim]
    everyone = [node.service.node.core for node in world.nodes]
    for partition in range(everyone[0].partitions):
        configs = {}
        for core in everyone:
            acceptor = core.acceptors.get(partition)
            if acceptor is not None:
                configs[acceptor.config.epoch] = acceptor.config
        if not all(_enough(config, living) for config in _on_their_way(everyone, partition)):
            return False
        newest = max(configs, default=None)
        for epoch, config in configs.items():
            open_members = [
                core
                for core in living
                if (acceptor := core.acceptors.get(partition)) is not None
                and acceptor.config.epoch == epoch
            ]
            if len(open_members) < config.quorum and epoch == newest:
                return False
    return True


def _on_their_way(cores: list[Core], partition: int) -> list[Config]:
    """The next configurations that somebody voted for, or holds ready."""
    found = []
    for core in cores:
        acceptor = core.acceptors.get(partition)
        if acceptor is not None and acceptor.vote is not None:
            found.append(acceptor.vote[1].config)
        staged = core.staged.get(partition)
        if staged is not None and staged.successor is not None:
            found.append(staged.successor.config)
    return found


def _enough(config: Config, living: list[Core]) -> bool:
    return sum(config.has(core.instance) for core in living) >= config.quorum


def _restart(world: World, address: str, until: float) -> None:
    members = world.members()
    late = world.clock.seconds() > until
    if late or not members or any(node.host.address == address for node in world.nodes):
        return
    through = world.rng.choice(members)
    node = world.add(address)
    world.tell(f"{node} starts at {address}, through {through}")
    node.service.node.spawn(enter(world, node, through, True), "entering")


def resume(world: World, node: SimNode) -> None:
    """A node that was paused goes on."""
    if node in world.nodes and node.paused:
        world.tell(f"resume {node}")
        node.paused = False
        node.host.resume()


def heal(world: World, cut: object) -> None:
    """A cut is over."""
    try:
        world.network.heal(cut)  # type: ignore[arg-type]
        world.tell("heal")
    except ValueError:
        pass  # the calm came first


def _add_one(world: World, rng: Random) -> None:
    members = world.members()
    if not members:
        return
    through = rng.choice(members)
    node = world.add()
    world.tell(f"{node} connects through {through}")
    wants_to_join = rng.random() < 0.8

    node.service.node.spawn(enter(world, node, through, wants_to_join), "entering")


async def enter(world: World, node: SimNode, through: SimNode, wants_to_join: bool) -> None:
    """A node comes to the ring."""
    try:
        await node.service.connect(through.host.address, PORT)
        if wants_to_join:
            await node.service.join()
    except RingFull as error:
        world.tell(f"{node}: {error}")
    except ChordError as error:
        world.tell(f"{node} did not come in: {error}")


def _join(world: World, node: SimNode) -> None:
    world.tell(f"{node} joins")

    async def join() -> None:
        try:
            await node.service.join()
        except ChordError as error:
            world.tell(f"{node} did not join: {error}")

    if node.service.node.core.ring_id:
        node.service.node.spawn(join(), "joining")
