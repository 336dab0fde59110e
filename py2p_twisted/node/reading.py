"""Reading one key from a quorum of its group (floor 2).

A read is done when a quorum gave the same version: then that version is chosen, and no later one
was acknowledged before the read began.  The own copy counts, and costs no message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.python.failure import Failure

from ..base import Peer
from ..errors import StorageError
from ..table.acceptor import Acceptor
from ..table.acceptor import WrongEpoch as EpochRefused
from ..table.group import Ballot, Config
from ..table.values import plain
from ..wire.messages import Read, Version, Versioned, Want, WrongEpoch
from .core import Core
from .hedge import Hedge

__all__ = ["Mixed", "Reading", "Readings"]


class Mixed(NamedTuple):
    """The members have different versions: somebody has to settle which one holds.

    :ivar silent: some member did not answer; it may be the one that would know.
    """

    silent: bool


#: What a reading ends with, if not with a value: the last that went wrong.
Problem = Mixed | WrongEpoch | Failure | object


class Reading:
    """One read on its way.

    :ivar rest: members that were not asked yet.
    :ivar waiting: members that were asked and did not answer yet.
    :ivar slow: so many of them took too long; it is not waited for them alone.
    :ivar heard: members that told a version.
    """

    __slots__ = (
        "_problem", "_versions", "config", "done", "heard", "key", "rest", "slow", "waiting"
    )  # fmt: skip

    def __init__(
        self, config: Config, key: bytes, done: Callable[[Reading, bytes | None, Any], None]
    ) -> None:
        self.config = config
        self.key = key
        self.done: Callable[[Reading, bytes | None, Any], None] | None = done
        self.rest: Sequence[Peer] = ()
        self.waiting = 0
        self.slow = 0
        self.heard = 0
        self._versions: dict[Ballot | None, list[Any]] = {}  # members that have it, its value
        self._problem: Any = None

    def take(self, ballot: Ballot | None, value: Any) -> bool:
        """A member told its version (and its value, or `_UNTOLD`); True if that is enough."""
        self.heard += 1
        known = self._versions.get(ballot)
        if known is None:
            known = self._versions[ballot] = [0, value]
        known[0] += 1
        if known[1] is _UNTOLD:
            known[1] = value
        return known[0] >= self.config.quorum and (ballot is None or known[1] is not _UNTOLD)

    def finish(self, ballot: Ballot | None) -> None:
        """It is this version."""
        done, self.done, self.rest = self.done, None, ()
        if done is not None:
            done(self, None if ballot is None else self._versions[ballot][1], None)

    def fail(self) -> None:
        """No quorum has one version, of all that answered."""
        problem: Any = self._problem
        if self.heard >= self.config.quorum:
            problem = Mixed(self.heard < len(self.config.members))
        done, self.done, self.rest = self.done, None, ()
        if done is not None:
            done(self, None, problem)

    def note(self, problem: Any) -> None:
        """A member did not tell."""
        if not isinstance(self._problem, WrongEpoch):
            self._problem = problem


#: A member told its version, not its value.
_UNTOLD = object()


class Readings:
    """The reads of this node that are under way."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._hedge: Hedge[Reading] = Hedge(core, self._too_slow)

    def stop(self) -> None:
        """Nobody is asked any more."""
        self._hedge.stop()

    def read(
        self, config: Config, key: bytes, done: Callable[[Reading, bytes | None, Any], None]
    ) -> Reading:
        """Read a key in this configuration.

        :param done: hears the reading, the value, and None or what went wrong.
        :returns: the reading, which may be done already.
        """
        core = self._core
        reading = Reading(config, key, done)
        needed = config.quorum
        members = core.preferred(config)
        acceptor = core.acceptors.get(config.partition)
        want = Want.BOTH
        if acceptor is not None and config.has(core.instance):
            members = tuple(peer for peer in members if peer.instance != core.instance)
            if core.holds(config.partition):  # as if it were asked (rule 13)
                core.when_kept(partial(self._read_late, reading, acceptor), (config.partition,))
                reading.waiting = 1
                needed -= 1
            elif self._read_here(reading, acceptor):
                if reading.done is None:
                    return reading
                needed -= 1
                want = Want.BALLOT
        asked, reading.rest = members[:needed], members[needed:]
        reading.waiting += len(asked)
        if reading.rest:
            self._hedge.watch(reading, asked)
        for peer in asked:
            self._ask(reading, peer, want)
            want = Want.BALLOT
        return reading

    def _read_here(self, reading: Reading, acceptor: Acceptor) -> bool:
        """Take the own copy; False if it is not of that epoch."""
        config = reading.config
        try:
            record = acceptor.read(config.epoch, reading.key)
            value = None if record is None else plain(record.value)
        except EpochRefused as refusal:
            newest = self._core.directory.get(config.partition)
            reading.note(WrongEpoch(newest, refusal.wedged))
            return False
        except StorageError:
            reading.note(Failure())
            return False
        self._core.reads += 1
        ballot = None if record is None else record.ballot
        if reading.take(ballot, value):
            reading.finish(ballot)
        return True

    def _read_late(self, reading: Reading, acceptor: Acceptor) -> None:
        """The own copy is on the disk."""
        if reading.done is not None:
            here = self._read_here(reading, acceptor)
            if reading.done is not None:
                self._go_on(reading, good=here)

    def _ask(self, reading: Reading, peer: Peer, want: Want) -> None:
        request = Read(reading.config.epoch, reading.key, want)
        self._core.links.request(peer, request, lambda reply: self._answered(reading, reply))

    def _answered(self, reading: Reading, reply: Any) -> None:
        if reading.done is None:
            return
        kind = type(reply)
        enough = False
        if kind is Version:
            enough = reading.take(reply.ballot, _UNTOLD)
        elif kind is Versioned:
            enough = reading.take(reply.ballot, reply.value)
        else:
            if kind is WrongEpoch and reply.config is not None:
                self._core.learn(reply.config)
            reading.note(reply)
        if enough:
            reading.finish(reply.ballot)
            return
        self._go_on(reading, good=kind in (Version, Versioned))

    def _go_on(self, reading: Reading, *, good: bool) -> None:
        """An answer was not enough."""
        reading.waiting -= 1
        if reading.waiting > reading.slow and good:
            return
        if reading.rest:
            self._ask_rest(reading)
        elif not reading.waiting:
            reading.fail()
        elif reading.waiting <= reading.slow and reading.heard >= reading.config.quorum:
            reading.fail()  # those that were slow are not waited for alone

    def _too_slow(self, reading: Reading) -> None:
        reading.slow = reading.waiting
        self._ask_rest(reading)

    def _ask_rest(self, reading: Reading) -> None:
        rest, reading.rest = reading.rest, ()
        reading.waiting += len(rest)
        for peer in rest:
            self._ask(reading, peer, Want.BOTH)
