"""One step at a time: the atomicity that the proof of the ring needs (floor 0; pure).

While a member waits for the answer to a query of its own step, it does not answer queries about its
state, and neither does one whose list lost an entry, until a step refilled it.  Such waits can
close into a circle: in small rings, and wherever every other member died at once.  So a query from
a lower identifier is answered always, and makes the member give up its own step (a step not taken
is always safe; a list that lost an entry is short, not wrong); one from a higher identifier waits.
Waits then run only towards lower identifiers.
"""

from __future__ import annotations

__all__ = ["Steps"]


class Steps:
    """Tells which step is current, and whether a state query may be answered now."""

    def __init__(self) -> None:
        self._last = 0
        self._current: int | None = None

    @property
    def busy(self) -> bool:
        """True while a step waits for an answer."""
        return self._current is not None

    def begin(self) -> int | None:
        """Start a step; its token, or None while another one is under way."""
        if self._current is not None:
            return None
        self._last += 1
        self._current = self._last
        return self._current

    def is_current(self, token: int) -> bool:
        """May this step still be applied?  False once it was given up."""
        return self._current == token

    def finish(self, token: int) -> None:
        """The step is over, applied or not."""
        if self._current == token:
            self._current = None

    def may_answer(self, me: int, asker: int | None, *, depleted: bool) -> bool:
        """May a query about the state be answered now?  May give up the current step.

        :param me: my identifier.
        :param asker: the identifier of the member that asks, None for a node outside the ring.
        :param depleted: the list lost an entry and waits to be refilled.
        """
        if asker is not None and asker < me:
            self._current = None
            return True
        return self._current is None and not depleted
