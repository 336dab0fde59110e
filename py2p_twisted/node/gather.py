"""Asking several peers at once (floor 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from ..base import Peer
from ..errors import ChordError
from ..wire.messages import Reply, Request
from .core import Core

__all__ = ["gather"]


async def gather(
    core: Core,
    requests: Mapping[Peer, Request],
    heard: Callable[[Peer, Reply | None], None],
    enough: Callable[[], bool],
    seconds: float,
) -> None:
    """Ask all of them at the same time, until enough is heard; what comes later is ignored.

    :param heard: called with each reply; None: the peer did not answer.
    :param enough: asked after every reply; true ends the wait.
    :param seconds: the longest wait.
    """
    missing = len(requests)
    woken = over = False
    until = core.sleep(seconds)

    def wake() -> None:
        nonlocal woken
        if not woken and (missing == 0 or enough()):
            woken = True
            until.cancel()

    def awake(failure: Failure) -> None:
        failure.trap(CancelledError)
        if not woken:  # whoever waits for this was cancelled
            failure.raiseException()

    def answered(outcome: Reply | Failure, peer: Peer) -> None:
        nonlocal missing
        if isinstance(outcome, Failure):
            outcome.trap(ChordError, ConnectionError, ConnectionClosed)
            core.debug("{peer}: {error}", peer=peer, error=outcome.getErrorMessage())
        if not over:
            missing -= 1
            heard(peer, None if isinstance(outcome, Failure) else outcome)
            wake()

    until.addErrback(awake)
    for peer, request in requests.items():
        core.ask(peer, request, seconds).addBoth(partial(answered, peer=peer))
    wake()
    try:
        await until
    finally:
        over = True
