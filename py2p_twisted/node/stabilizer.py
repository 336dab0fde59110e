"""Keeping the ring's pointers right (floor 2): when to ask whom, for the rules of ``ring/ring.py``.

Owns the periodic steps of a member: stabilize, notify, rectify, fix_fingers.  What a step decides
stands in :class:`~py2p_twisted.ring.ring.RingRules`; that steps do not overlap with answers about
the state stands in :class:`~py2p_twisted.ring.steps.Steps`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from twisted.internet.defer import Deferred

from ..base import Peer
from ..errors import ChordError, OperationTimeout
from ..ring.ring import Pointers
from ..wire.link import Link
from ..wire.messages import (
    Busy,
    Declined,
    Done,
    GetState,
    Leaving,
    Notify,
    Ping,
    Reply,
    State,
)
from .core import Core
from .finder import Finder

__all__ = ["Stabilizer"]

#: Queries about the state that wait for a step to end, and notifications, at most.
_MOST_WAITING = 64
#: Configurations in one answer.
_MOST_CONFIGS = 256


class _Silence(Enum):
    """Why a member's pointers were not heard."""

    SLOW = "slow"  # it may wait for a step of its own
    GONE = "gone"  # it cannot be reached, or is no member


class Stabilizer:
    """The steps that keep one member's pointers right."""

    def __init__(self, core: Core, finder: Finder) -> None:
        self._core = core
        self._finder = finder
        self._held: list[tuple[Deferred[Reply], GetState]] = []
        self._notifiers: dict[int, Peer] = {}
        self._seen: dict[bytes, int] = {}  # instance -> version of its directory
        self._rectifying = False
        self._gone: dict[bytes, bytes] = {}  # instance -> identifier of who is known to be gone

    # -- what members answer

    def answer_state(self, link: Link, request: GetState) -> Reply | Deferred[Reply]:
        """A peer asks for the pointers: now, or when the step under way is over."""
        pointers = self._core.pointers
        if pointers is None:
            return Declined("not a member of the ring")
        asker = None if link.hello.leeching else link.peer.id
        steps = self._core.steps
        if steps.may_answer(pointers.me.id, asker, depleted=pointers.depleted):
            return self._state(pointers, request)
        if len(self._held) >= _MOST_WAITING:
            return Busy()
        held: Deferred[Reply] = Deferred()
        self._held.append((held, request))
        return held

    def _state(self, pointers: Pointers, request: GetState) -> State:
        since = request.since if request.instance == self._core.instance else 0
        configs, version = self._core.directory.since(since, _MOST_CONFIGS)
        return State(pointers.predecessor, pointers.successors, tuple(configs), version)

    def release(self) -> None:
        """Answer the queries that waited, if they may be answered now."""
        pointers = self._core.pointers
        if pointers is not None and (self._core.steps.busy or pointers.depleted):
            return
        held, self._held = self._held, []
        for deferred, request in held:
            if pointers is None:
                deferred.callback(Declined("not a member of the ring"))
            else:
                deferred.callback(self._state(pointers, request))

    def answer_notify(self, link: Link, request: Notify) -> Reply:
        """A peer believes that it is this member's predecessor."""
        if self._core.pointers is None:
            return Declined("not a member of the ring")
        if request.peer != link.peer or link.hello.leeching:
            return Declined("notify only for yourself, as a member")
        if len(self._notifiers) < _MOST_WAITING:
            self._notifiers[request.peer.id] = request.peer
        self._rectify_next()
        return Done()

    def answer_leaving(self, link: Link, request: Leaving) -> Reply:
        """A peer is no member any more."""
        if request.peer.instance == link.peer.instance:
            self._tell_gone(request.peer, left=True)
            self.gone(request.peer)
        return Done()

    # -- what is heard about a peer

    def _tell_gone(self, peer: Peer, *, left: bool = False) -> None:
        """Log once that a member is gone, however often and from whom it is noticed."""
        if self._gone.get(peer.instance) == peer.identifier:
            return
        if len(self._gone) >= _MOST_WAITING:
            self._gone.clear()
        self._gone[peer.instance] = peer.identifier
        if left:
            self._core.log.info("Neighbour left: {peer}.", peer=peer)
            self._core.chronicle.note("left", f"{peer} left")
        else:
            self._core.log.info("Neighbour lost: {peer}.", peer=peer)
            self._core.chronicle.note("lost", f"{peer} does not answer any more")

    def gone(self, peer: Peer) -> None:
        """A member is dead or has left: take it out of the first place."""
        core = self._core
        core.fingers.forget(peer.id)
        pointers = core.pointers
        if pointers is None:
            return
        changed = core.rules.successor_failed(pointers, peer)
        before = changed.predecessor
        if not changed.successors and before is not None and before.instance == peer.instance:
            changed = core.rules.predecessor_failed(changed)
        if changed != pointers and not core.steps.busy:
            core.pointers = changed
            self.release()

    # -- the steps

    @contextmanager
    def step(self) -> Iterator[int | None]:
        """One step: its token, None while another one is under way.  Queries wait until it ends."""
        steps = self._core.steps
        token = steps.begin()
        try:
            yield token
        finally:
            if token is not None:
                if not steps.is_current(token):
                    self._core.joined_changed()  # it was given up: take it again soon
                steps.finish(token)
            self.release()
            self._rectify_next()

    async def stabilize(self) -> bool:
        """STABILIZE and, at its end, notify; True if the successor answered."""
        core = self._core
        with self.step() as token:
            if token is None or core.pointers is None:
                return False
            settled = await self._stabilize(token)
        pointers = core.pointers
        if settled and pointers is not None and pointers.successor is not None:
            await core.try_ask(pointers.successor, Notify(pointers.me), Done)
        return settled

    async def _stabilize(self, token: int) -> bool:
        core, rules = self._core, self._core.rules
        pointers = core.pointers
        while pointers is not None and pointers.successor is not None:
            successor = pointers.successor
            state = await self.query(successor)
            if not core.steps.is_current(token) or core.pointers is None:
                return False
            if state is _Silence.SLOW:
                return False  # the failure detector decides whether it is dead
            if state is _Silence.GONE:
                self._tell_gone(successor)
                core.pointers = pointers = rules.successor_failed(core.pointers, successor)
                continue
            core.pointers = rules.stabilized(core.pointers, successor, state.successors)
            return await self._closer(token, state.predecessor)
        if pointers is None or pointers.predecessor is None:
            return pointers is not None
        return await self._closer(token, pointers.predecessor)

    async def _closer(self, token: int, named: Peer | None) -> bool:
        """The second half: adopt the node in between, if it answers."""
        core, rules = self._core, self._core.rules
        assert core.pointers is not None
        candidate = rules.candidate(core.pointers, named)
        if candidate is None:
            return True
        state = await self.query(candidate)
        if not core.steps.is_current(token) or core.pointers is None:
            return False
        if isinstance(state, State):
            core.pointers = rules.adopted(core.pointers, candidate, state.successors)
        elif core.pointers.successor is None and state is _Silence.GONE:
            self._tell_gone(candidate)
            core.pointers = rules.predecessor_failed(core.pointers)
        else:
            core.pointers = rules.candidate_failed(core.pointers, candidate)
        return True

    async def query(self, peer: Peer) -> State | _Silence:
        """Ask for a member's pointers; takes its news of the directory."""
        core = self._core
        request = GetState(self._seen.get(peer.instance, 0), peer.instance)
        try:
            state = await core.ask(peer, request, core.settings.request_timeout_max)
        except OperationTimeout:
            return _Silence.SLOW
        except ConnectionError as error:
            core.debug("{error}", error=str(error))
            return _Silence.GONE
        if core.moved(peer):
            return _Silence.GONE
        if not isinstance(state, State) or not core.valid(state.predecessor, *state.successors):
            return _Silence.SLOW if isinstance(state, Busy) else _Silence.GONE
        if len(self._seen) > 4096:
            self._seen.clear()
        self._seen[peer.instance] = state.version
        for config in state.configs:
            core.learn(config)
        for known in state.successors:
            core.remember(known)
        return state

    # -- rectify

    def _rectify_next(self) -> None:
        core = self._core
        if self._rectifying or not self._notifiers or core.pointers is None or core.steps.busy:
            return
        identifier = next(iter(self._notifiers))
        notifier = self._notifiers.pop(identifier)
        if core.rules.rectify_needs_ping(core.pointers, notifier):
            self._rectifying = True
            done = Deferred.fromCoroutine(self._rectify(notifier))
            done.addErrback(lambda failure: core.log.failure("rectify failed", failure))
        else:
            self._set_predecessor(notifier)
            self._rectify_next()

    async def _rectify(self, notifier: Peer) -> None:
        core = self._core
        with self.step() as token:
            try:
                before = core.pointers.predecessor if core.pointers is not None else None
                if token is None or before is None:
                    return
                answered = await core.try_ask(before, Ping(member=True), Done)
                gone = answered is None or core.moved(before)
                if gone and core.steps.is_current(token) and core.pointers is not None:
                    self._tell_gone(before)
                    self._set_predecessor(notifier)
            finally:
                self._rectifying = False

    def _set_predecessor(self, notifier: Peer) -> None:
        core = self._core
        assert core.pointers is not None
        changed = core.rules.rectified(core.pointers, notifier)
        self._gone.pop(notifier.instance, None)
        if changed != core.pointers:
            core.pointers = changed
            core.remember(notifier)
            core.joined_changed()

    # -- fingers

    async def fix_fingers(self) -> None:
        """Look the next finger up."""
        core = self._core
        if core.pointers is None:
            return
        wanted = core.fingers.wanted(core.pointers.successor)
        if wanted is None:
            return
        index, identifier = wanted
        try:
            found = await self._finder.find_successor(identifier)
        except ChordError as error:
            core.debug("finger {index}: {error}", index=index, error=str(error))
            core.fingers.skip(index)
            return
        assert found.owner is not None
        core.fingers.found(index, found.owner)

    def stop(self) -> None:
        """Not a member any more: nobody waits for its pointers."""
        self._notifiers.clear()
        self._seen.clear()
        self.release()
