"""Waiting for the reply to a request (floor 1): who asked, and who answers later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from .messages import Reply

__all__ = ["Asking", "Fire", "Pending", "given_up"]


class Asking(Deferred[Reply]):
    """Fires with the answer; can be cancelled.

    :ivar number: of the request, 0 before it is sent.
    """

    number = 0


class Fire:
    """Fires a Deferred, unless it was cancelled."""

    __slots__ = ("deferred",)

    def __init__(self, deferred: Asking) -> None:
        self.deferred = deferred

    def __call__(self, result: Any) -> None:
        """The answer, or the `Failure` why there is none."""
        if not self.deferred.called:
            self.deferred.callback(result)  # a Failure makes it fail


def given_up(done: Callable[[Any], None]) -> bool:
    """Does nobody wait any more?"""
    return isinstance(done, Fire) and bool(done.deferred.called)


class Pending:
    """A reply that comes later: what a Deferred is, for who answers often.

    It is fired once, with a reply, by whoever made it.
    """

    __slots__ = ("_reply", "_send")

    def __init__(self) -> None:
        self._send: Callable[[Reply], None] | None = None
        self._reply: Reply | None = None

    def fire(self, reply: Reply) -> None:
        """This is the reply."""
        if self._send is not None:
            self._send(reply)
        else:
            self._reply = reply

    def then(self, send: Callable[[Reply], None]) -> None:
        """Whom to tell: at once, if it was fired already."""
        if self._reply is not None:
            send(self._reply)
        else:
            self._send = send
