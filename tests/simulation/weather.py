"""What the simulated network is like at the moment (test support; imports nothing of the product).

Owns every random draw of the network and the cuts.  Never touches a host or a connection, but for
waking the pipes that a cut held up.  Cuts and slow spells belong to addresses, so they outlive the
host that is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

from .clock import SimClock

__all__ = ["PERFECT", "ROUGH", "Cut", "SimOptions", "Weather"]


@dataclass(frozen=True)
class SimOptions:
    """The numbers of a simulated network.  Times are seconds, rates chances from 0 to 1."""

    delay: tuple[float, float] = (0.0005, 0.005)  # of every delivery, one way
    spike_rate: float = 0.0  # that a delivery is late by `spike` more
    spike: tuple[float, float] = (0.05, 0.5)
    reset_rate: float = 0.0  # that a chunk, instead of arriving, resets its connection
    split_rate: float = 0.0  # that a chunk arrives in two pieces
    merge_rate: float = 0.0  # that a chunk waits for the one behind it
    retransmit: tuple[float, float] = (0.0, 1.0)  # after a heal, until held bytes go on
    connect_retry: float = 1.0  # until a lost connect request is repeated
    connect_timeout: float = 30.0


#: Inside the assumptions of the ring's proof: nothing but small delays.
PERFECT = SimOptions(delay=(0.0005, 0.002))

#: Outside them: late, split, merged and now and then reset; a scenario adds cuts and pauses.
ROUGH = SimOptions(spike_rate=0.002, reset_rate=0.0002, split_rate=0.05, merge_rate=0.1)


@dataclass(frozen=True)
class Cut:
    """Nothing sent from ``senders`` reaches ``receivers``, nor the reverse unless ``one_way``."""

    senders: frozenset[str]
    receivers: frozenset[str]
    one_way: bool = False

    def stops(self, source: str, target: str) -> bool:
        """Does it stop what goes from source to target?"""
        if source in self.senders and target in self.receivers:
            return True
        return not self.one_way and source in self.receivers and target in self.senders


class Held(Protocol):
    """Something that a cut holds up."""

    def try_again(self) -> None:
        """A cut was healed: move on, unless another one holds it."""


class Weather:
    """Delays, chances and cuts, all drawn from one seeded generator."""

    def __init__(self, clock: SimClock, rng: Random, options: SimOptions) -> None:
        self.clock = clock
        self.rng = rng
        self.options = options
        self._cuts: list[Cut] = []
        self._held: list[Held] = []
        self._slow: dict[str, tuple[float, float]] = {}  # address: until when, how much more

    def chance(self, rate: float) -> bool:
        """True at this rate.  A rate of zero draws nothing."""
        return rate > 0 and self.rng.random() < rate

    def delay(self, source: str, target: str) -> float:
        """How long something sent now is under way."""
        seconds = self.rng.uniform(*self.options.delay)
        if self.chance(self.options.spike_rate):
            seconds += self.rng.uniform(*self.options.spike)
        for address in (source, target):
            until, extra = self._slow.get(address, (0.0, 0.0))
            if until > self.clock.seconds():
                seconds += self.rng.uniform(0, extra)
        return seconds

    def slow(self, addresses: Iterable[str], extra: float, seconds: float) -> None:
        """For so many seconds, what these send or are sent takes up to ``extra`` seconds more."""
        until = self.clock.seconds() + seconds
        self._slow.update((address, (until, extra)) for address in addresses)

    def blocked(self, source: str, target: str) -> bool:
        """Is there a cut in the way?  Never from an address to itself."""
        return source != target and any(cut.stops(source, target) for cut in self._cuts)

    def hold(self, held: Held) -> None:
        """Remember to wake this at the next heal."""
        self._held.append(held)

    def cut(self, senders: Iterable[str], receivers: Iterable[str], *, one_way: bool) -> Cut:
        """Begin a cut."""
        made = Cut(frozenset(senders), frozenset(receivers), one_way)
        self._cuts.append(made)
        return made

    def heal(self, cut: Cut | None = None) -> None:
        """End one cut, or all.

        :raises ValueError: if that cut is not there (any more).
        """
        if cut is None:
            self._cuts.clear()
        else:
            self._cuts.remove(cut)
        waking, self._held = self._held, []
        for held in waking:
            held.try_again()

    def calm(self) -> None:
        """No more faults: all cuts healed, no spikes, no resets, no slow spells."""
        self.options = replace(self.options, spike_rate=0.0, reset_rate=0.0)
        self._slow.clear()
        self.heal()
