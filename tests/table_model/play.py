"""One history from one seed (test support; pure)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ..simulation.history import Verdict
from .moving import Mover
from .world import World

__all__ = ["Played", "play"]


@dataclass(frozen=True)
class Played:
    """What came of a seed.

    :ivar unknown: operations whose users do not know what became of them.
    :ivar epochs: that the group began.
    """

    verdict: Verdict
    operations: int
    returned: int
    unknown: int
    epochs: int
    steps: int


def play(seed: int, node_class: type[Mover] = Mover, *, strict: bool = False) -> Played:
    """Let users, faults and reconfigurations play, and judge what the users saw.

    :param strict: hold what must hold inside as well, after every step.
    :raises AssertionError: if that does not hold.
    """
    rng = Random(seed)
    members, keys = rng.choice((1, 2, 3, 3, 3, 5)), rng.choice((1, 1, 2))
    world = World(rng, node_class, members=members, keys=keys, strict=strict)
    history = world.run(clients=rng.choice((3, 4)), operations=8)
    fates = [operation.fate for operation in history.operations]
    return Played(
        history.check(),
        len(fates),
        fates.count("returned"),
        sum(fate in ("outcome unknown", "no answer") for fate in fates),
        max((config.epoch.number for config in world.configs()), default=0),
        world.now,
    )
