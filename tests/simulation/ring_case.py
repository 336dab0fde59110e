"""What the tests of whole rings share: seeds, worlds that end in good order, and a few words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.node.core import Phase
from py2p_twisted.settings import Settings

from .weather import PERFECT, SimOptions
from .world import PORT, SimNode, World

__all__ = ["RingCase", "address", "seeds"]


def seeds(most: int) -> range:
    """The seeds of a test: `most`, in proportion more with P2P_SEEDS, or the one of P2P_SEED."""
    one = os.environ.get("P2P_SEED")
    if one:
        return range(int(one), int(one) + 1)
    return range(max(1, most * int(os.environ.get("P2P_SEEDS", "60")) // 60))


def address(node: SimNode) -> tuple[str, int]:
    """Where a node can be dialled."""
    return (node.host.address, PORT)


class RingCase(SynchronousTestCase):
    """Rings of whole nodes."""

    @contextmanager
    def world(
        self, seed: int, k: int = 6, options: SimOptions = PERFECT, **numbers: Any
    ) -> Iterator[World]:
        """A world of this seed; at its end every node is stopped and must have left nothing."""
        world = World(seed, Settings(k=k, **numbers), options)
        try:
            yield world
            world.stop()
        except Exception as error:
            story = "\n".join(world.story[-20:])
            raise AssertionError(
                f"seed {seed} (P2P_SEED replays it), k={k}, at {world.clock.seconds():.1f} s, "
                f"{world.nodes}: {type(error).__name__}: {error}\n{story}"
            ) from error

    # -- doing

    def enter(self, node: SimNode, through: SimNode) -> Deferred[None]:
        """Connect and join."""

        async def enter() -> None:
            await node.service.connect(*address(through))
            await node.service.join()

        return Deferred.fromCoroutine(enter())

    def grow(self, world: World, size: int) -> list[SimNode]:
        """Let nodes join one by one until there are so many, then wait until the ring is ideal."""
        if not world.nodes:
            world.wait(world.add().service.join())
        while len(world.members()) < size:
            through = world.rng.choice(world.members())
            world.wait(self.enter(world.add(), through))
        world.settle(60)
        return world.members()

    def all_of(self, world: World, deferreds: Iterable[Deferred[Any]]) -> list[Any]:
        """Wait for all of them; results, with failures as the exceptions."""
        ended: dict[int, Any] = {}
        waiting = list(deferreds)
        for number, deferred in enumerate(waiting):
            deferred.addBoth(partial(ended.__setitem__, number))
        if not world.run_while(lambda: len(ended) < len(waiting), 120):
            raise AssertionError(f"{len(waiting) - len(ended)} of {len(waiting)} do not end")
        results = [ended[number] for number in range(len(waiting))]
        return [r.value if isinstance(r, Failure) else r for r in results]

    def fails(self, world: World, kind: type[Exception], deferred: Deferred[Any]) -> str:
        """It fails with exactly this kind of error; its text."""
        (error,) = self.all_of(world, [deferred])
        self.assertIs(type(error), kind, repr(error))
        return str(error)

    def write(self, world: World, through: SimNode, number: int = 100) -> dict[bytes, bytes]:
        """Write so many keys; what was written."""
        written = {b"key %d" % n: b"value %d" % n for n in range(number)}
        world.wait(through.service.update(written))
        return written

    # -- looking

    def readable(self, world: World, written: dict[bytes, bytes], nodes: Sequence[SimNode]) -> None:
        """All of it can be read on each of these nodes."""
        for node in nodes:
            self.assertEqual(world.wait(node.service.get_many(written)), written, node)

    def ids(self, nodes: Iterable[SimNode]) -> list[int]:
        """Their identifiers, sorted."""
        return sorted(node.service.node.core.me.id for node in nodes)

    def not_closed(self, nodes: Sequence[SimNode]) -> list[str]:
        """What keeps these nodes from being a ring of their own, each next to the right ones."""
        members = sorted(nodes, key=lambda node: node.service.node.core.me.id)
        found = []
        for place, node in enumerate(members):
            if node.pointers is None:
                found.append(f"{node} is no member")
                continue
            before, after = members[place - 1], members[(place + 1) % len(members)]
            for there, wanted in (
                (node.pointers.successor, after),
                (node.pointers.predecessor, before),
            ):
                if (there is None) != (wanted is node) or (
                    there is not None and there.instance != wanted.service.node.core.instance
                ):
                    found.append(f"{node} is next to {there}, not to {wanted}")
        return found

    def closes(self, world: World, nodes: Sequence[SimNode], seconds: float) -> float:
        """These nodes become a ring of their own in that time; how long it took."""
        return world.eventually(lambda: self.not_closed(nodes), seconds)

    def until(self, world: World, holds: Callable[[], bool], seconds: float, what: str) -> float:
        """It comes true in that time; how long it took."""
        return world.eventually(lambda: [] if holds() else [what], seconds)

    def all_joined(self, world: World, nodes: Sequence[SimNode], seconds: float) -> float:
        """These nodes become members in that time."""
        return self.until(
            world,
            lambda: all(node.phase is Phase.JOINED for node in nodes),
            seconds,
            "not all are members",
        )
