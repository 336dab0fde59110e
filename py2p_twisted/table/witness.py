"""What the members of one group tell a watcher, and what of it is chosen (floor 0; pure).

A record that one member accepted may never be chosen; it is once a quorum of the members of that
epoch has told the same version.  Members tell first what they have, key by key, and then whatever
they accept.  So whatever was acknowledged is told by one of any quorum of members that have told
all they had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..events import Event, Kind, Version
from .candidate import UNTOLD, Budget, Candidate
from .group import Ballot, Config
from .history import ABSENT, History, Seen, compare

__all__ = ["DOUBT", "HOLD", "Witness"]

#: Seconds for which a version that is chosen waits for its value, and for the versions before it.
HOLD = 1.0
#: Seconds after which somebody should find out what became of a version that no quorum told ...
DOUBT = 1.0
#: ... and after which at most it is tried again.
_LONGEST_DOUBT = 30.0
#: If the pause is longer than this, it was read often enough to know what was there.
_OPEN_FOR = 4 * DOUBT
#: Versions of one key that are kept even if there is no room for more.
_KEPT = 2


class _Key:
    """What is known of one key.

    :ivar ballot: the version up to which the user knows it; None: any version is news.
    :ivar back: versions may have gone back, and a lower one may be news.
    :ivar seen: what the user knows of it.
    :ivar fresh: the user is to be told what it is at the beginning.
    :ivar open: the latest version that was told before the beginning, and may have been chosen
        before it; None: it is known what was there at the beginning.
    :ivar late: there was no room for a version: only the latest will be told.
    :ivar round: when it was told last.
    """

    __slots__ = ("back", "ballot", "fresh", "late", "open", "pending", "round", "seen")

    def __init__(self) -> None:
        self.ballot: Ballot | None = None
        self.seen = ABSENT
        self.back = self.fresh = self.late = False
        self.open: Ballot | None = None
        self.round = 0
        self.pending: dict[Ballot, Candidate] = {}


class Witness:
    """The watched keys of one partition.

    :param emit: takes an event, or returns False if there is no room for it now.
    :param budget: what it may keep.
    :param prefix: bytes in front of the user's keys.
    :param initial: tell what is there at the beginning, too.
    :ivar config: the group that is listened to.
    :ivar covered: has a quorum told all it had?
    :ivar wanted: keys of which a version is chosen that could not be told, and since when.
    :ivar doubtful: keys of which something was told that may not be chosen, when to look, and the
        pause after that.
    """

    def __init__(
        self, emit: Callable[[Event], bool], budget: Budget, *, prefix: int, initial: bool
    ) -> None:
        self._emit = emit
        self._budget = budget
        self._prefix = prefix
        self._initial = initial
        self._keys: dict[bytes, _Key] = {}
        self._bits: dict[bytes, int] = {}
        self._current = 0
        self._round = 0
        self._began = False  # is the state known that later ones are compared to?
        self._open: set[bytes] = set()  # keys of which that is not quite known
        self.config: Config | None = None
        self.covered = False
        self.wanted: dict[bytes, float] = {}
        self.doubtful: dict[bytes, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def settled(self) -> bool:
        """Is all known that was there at the beginning?  What is chosen from then on is told."""
        return self.covered and not self._open

    # -- who tells

    def follow(self, config: Config, *, anew: bool = False) -> None:
        """Listen to this group from now on; all of its members tell anew what they have.

        :param anew: versions may have gone back: the ring was recovered, or is another one.
        """
        before = self.config
        anew = anew or (before is not None and before.epoch.era_name != config.epoch.era_name)
        self.config = config
        self._bits = {peer.instance: 1 << place for place, peer in enumerate(config.members)}
        self._current = 0
        self._round += 1
        self.covered = False
        self.wanted.clear()
        self.doubtful.clear()
        for known in self._keys.values():
            for ballot in list(known.pending):
                self._drop(known, ballot)
            known.back = known.back or anew

    def forget(self) -> None:
        """Nobody watches any more."""
        for known in self._keys.values():
            for ballot in list(known.pending):
                self._drop(known, ballot)
        self._keys.clear()
        self._open.clear()
        self.wanted.clear()
        self.doubtful.clear()

    def unsure(self, member: bytes) -> None:
        """A member may have failed to tell something; it begins anew."""
        self._current &= ~self._bits.get(member, 0)

    def is_current(self, member: bytes) -> bool:
        """Has this member told all it had, and whatever came since?"""
        return bool(self._current & self._bits.get(member, 0))

    def current(self, member: bytes, now: float) -> None:
        """A member has told all it had."""
        assert self.config is not None
        self._current |= self._bits.get(member, 0)
        if not self.covered and self._current.bit_count() >= self.config.quorum:
            self.covered = True
            if self._began:
                self._purge()
            else:
                self._began = True
                self._begin()
            for key in [key for key, known in self._keys.items() if known.pending]:
                self._advance(key, now)
        if self.covered:
            for key in list(self._open):
                self._close_if_known(key)

    def _begin(self) -> None:
        """What is there now is what the user knows, or what is told first."""
        for key, known in self._keys.items():
            pending = known.pending
            chosen = [ballot for ballot, one in pending.items() if self._is_chosen(one)]
            if not self._initial and any(not chosen or one > max(chosen) for one in pending):
                known.open = max(pending)
                self._open.add(key)
            if not chosen and len(pending) < 2:
                continue  # it is being written for the first time, or some lag behind
            ballot = max(chosen) if chosen else min(pending)
            if self._initial and (pending[ballot].alive or not chosen):
                known.fresh = True
                self.wanted[key] = -HOLD
                continue
            self._know(known, ballot)

    def _know(self, known: _Key, ballot: Ballot) -> None:
        """This version was there at the beginning: no event."""
        candidate = known.pending[ballot]
        known.ballot = ballot
        known.seen = Seen(compare(ABSENT, candidate.history)[0], candidate.alive)
        known.back = False
        self._drop_before(known, ballot)
        self._drop(known, ballot)

    def _close_if_known(self, key: bytes) -> None:
        """Nothing that was told before the beginning, and is not chosen yet, was chosen by then.

        It could have been by those that told it and those that have not told all they had.
        """
        assert self.config is not None
        known = self._keys[key]
        assert known.open is not None
        unheard = ((1 << len(self._bits)) - 1) & ~self._current
        if (known.ballot is not None and known.ballot >= known.open) or not any(
            ballot <= known.open and (one.by | unheard).bit_count() >= self.config.quorum
            for ballot, one in known.pending.items()
        ):
            self._close(key)

    def _close(self, key: bytes) -> None:
        """What is chosen of this key from now on is news."""
        self._keys[key].open = None
        self._open.discard(key)

    def _purge(self) -> None:
        """What no member told in this epoch was deleted, and the tombstone was dropped."""
        assert self.config is not None
        # Of what is there now, none is older than this; of what was told, none is later.
        ballot = Ballot(self.config.epoch, 0, b"")
        for key, known in list(self._keys.items()):
            if known.round == self._round:
                continue
            if known.seen.alive:
                candidate = self._candidate(known, ballot, alive=False)
                candidate.by = (1 << len(self._bits)) - 1
            else:
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        known = self._keys.pop(key)
        for ballot in list(known.pending):
            self._drop(known, ballot)
        self._open.discard(key)
        self.wanted.pop(key, None)
        self.doubtful.pop(key, None)

    # -- what is told

    def tell(
        self,
        member: bytes,
        key: bytes,
        ballot: Ballot,
        now: float,
        *,
        alive: bool,
        history: History | None = None,
        value: Any = UNTOLD,
    ) -> None:
        """A member of this epoch has accepted this version.

        :param history: what its record remembers, None if that was not told.
        """
        bit = self._bits.get(member)
        if bit is None:
            return
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = _Key()
        known.round = self._round
        if known.ballot is not None and ballot <= known.ballot:
            if ballot == known.ballot and known.seen.write is None and history is not None:
                known.seen = Seen(compare(ABSENT, history)[0], known.seen.alive)
            if ballot == known.ballot or not known.back:
                return
        candidate = known.pending.get(ballot)
        if candidate is None:
            candidate = self._candidate(known, ballot, alive=alive)
        candidate.by |= bit
        if history is not None:
            candidate.history = history
        room = not self._budget.spent or self._is_chosen(candidate)
        if room and candidate.value is UNTOLD and value is not UNTOLD:
            candidate.value = value
            self._budget.used += len(value)
        if self._began:
            self._advance(key, now)

    def _candidate(self, known: _Key, ballot: Ballot, *, alive: bool) -> Candidate:
        """One more version; those before it give way if there is no room."""
        while self._budget.spent and len(known.pending) >= _KEPT:
            self._drop(known, min(known.pending))
        candidate = known.pending[ballot] = Candidate(alive=alive)
        self._budget.used += candidate.size
        return candidate

    def _drop(self, known: _Key, ballot: Ballot) -> None:
        self._budget.used -= known.pending.pop(ballot).size

    def _drop_before(self, known: _Key, ballot: Ballot) -> None:
        for earlier in [one for one in known.pending if one < ballot]:
            self._drop(known, earlier)

    def _is_chosen(self, candidate: Candidate) -> bool:
        assert self.config is not None
        return candidate.by.bit_count() >= self.config.quorum

    # -- what is chosen

    def _advance(self, key: bytes, now: float, *, patient: bool = True) -> None:
        """Tell the user what is chosen, in order.

        :param patient: wait for values, and for the versions before one that is chosen.
        """
        known = self._keys[key]
        pending = known.pending
        chosen = [ballot for ballot, one in pending.items() if self._is_chosen(one)]
        top = max(chosen, default=None)
        if known.open is not None and top is not None:
            self._know(known, top)
            self._close_if_known(key)
            top = None
        if known.late and top is not None:
            self._drop_before(known, top)
        while top is not None and pending:
            ballot = min(pending)
            if ballot > top:
                break
            candidate = pending[ballot]
            if self._is_chosen(candidate) and candidate.value is not UNTOLD:
                if not self._told(key, known, ballot, candidate):
                    self._put_off(known, top)
                    self.wanted.setdefault(key, now)
                    return
            elif patient or ballot == top:
                self.wanted.setdefault(key, now)
                return
            self._drop(known, ballot)
        self.wanted.pop(key, None)
        if not pending:
            self.doubtful.pop(key, None)
        elif key not in self.doubtful:
            self.doubtful[key] = (now + DOUBT, DOUBT)

    def _put_off(self, known: _Key, top: Ballot) -> None:
        """The user is too slow: only the latest version will be told, and is fetched then."""
        known.late = True
        self._drop_before(known, top)
        candidate = known.pending[top]
        self._budget.used -= candidate.size
        candidate.forget_value()
        self._budget.used += candidate.size

    def _told(self, key: bytes, known: _Key, ballot: Ballot, candidate: Candidate) -> bool:
        """A version is chosen: make an event of it if it is news; False if there is no room."""
        seen, alive = known.seen, candidate.value is not None
        write, changed, skipped = compare(seen, candidate.history)
        if known.fresh:
            changed, skipped = True, False
        if changed and (alive or seen.alive or skipped):
            kind: Kind = "delete" if not alive else "change" if seen.alive else "add"
            version = Version(ballot)
            event = Event(key[self._prefix :], kind, candidate.value, version, skipped=skipped)
            if not self._emit(event):
                return False
        known.ballot, known.seen = ballot, Seen(write, alive)
        known.back = known.fresh = known.late = False
        return True

    # -- what is missing

    @property
    def busy(self) -> bool:
        """Is something chosen and not told, or told and not chosen?"""
        return bool(self.wanted or self.doubtful)

    def lacking(self, now: float, most: int) -> list[tuple[bytes, Ballot]]:
        """Keys whose value has to be fetched, and the version that it has to be, or a later one.

        What is not waited for any more is told, if there is room.
        """
        found: list[tuple[bytes, Ballot]] = []
        if not self.covered:
            return found
        for key in [key for key, since in self.wanted.items() if now - since >= HOLD]:
            self._advance(key, now, patient=False)
            if key in self.wanted:
                pending = self._keys[key].pending
                chosen = [ballot for ballot, one in pending.items() if self._is_chosen(one)]
                if chosen and pending[max(chosen)].value is UNTOLD:
                    found.append((key, max(chosen)))
                if len(found) == most:
                    break
        return found

    def holders(self, key: bytes, ballot: Ballot) -> list[bytes]:
        """The members that told this version."""
        known = self._keys.get(key)
        candidate = None if known is None else known.pending.get(ballot)
        by = 0 if candidate is None else candidate.by
        return [member for member, bit in self._bits.items() if by & bit]

    def due(self, now: float, most: int) -> list[bytes]:
        """Keys of which somebody should find out what is chosen; a quorum will tell it then."""
        if not self.covered:
            return []
        found = [key for key, (at, _) in self.doubtful.items() if at <= now][:most]
        for key in found:
            pause = min(2 * self.doubtful[key][1], _LONGEST_DOUBT)
            self.doubtful[key] = (now + pause, pause)
            if key in self._open and pause > _OPEN_FOR:
                self._close(key)  # it was read, and no quorum told it: it was not chosen
        return found
