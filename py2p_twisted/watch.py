"""Watching keys (floor 3): what :meth:`.ChordService.watch` returns."""

from __future__ import annotations

from weakref import ref

from twisted.internet.defer import Deferred

from .events import Event
from .node import Node
from .node.watcher import Watcher

__all__ = ["Watch"]


class Watch:
    """The changes of some keys: ``async for event in watch``.

    It goes on until :meth:`aclose`, until nobody has it any more, or until the service stops; then
    the loop simply ends.  One task at a time may wait for the next event.
    """

    def __init__(self, node: Node, watcher: Watcher) -> None:
        self._node = node
        self._watcher = watcher
        node.watching.keep_while(watcher, ref(self))

    def ready(self) -> Deferred[None]:
        """Fires once every change that takes effect from then on will be told.

        Whoever reads a key after that misses nothing between the reading and the watch.

        :returns: fails with `NotConnected` if the watch ends before, or `WatchTooWide`.
        """
        return self._watcher.inbox.ready()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        :raises WatchTooWide: once more keys are covered than ``Settings.watched_keys``.
        :raises RuntimeError: if another task waits for it already.
        """
        event = await self._watcher.inbox.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Watch no more; the loop over it ends."""
        self._watcher.inbox.clear()
        self._node.watching.close(self._watcher)
