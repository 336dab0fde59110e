"""Functions that are called when keys change (floor 4), in the manners of py2p's sockets.

Owns the listeners of one socket and the thread that calls them, one at a time: never the reactor's,
so that they may use the socket.  Each set of keys that somebody listens to is one watch of the
service; while a listener takes its time, what happens waits in that watch, which is bounded.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ChordError, OperationTimeout
from ..events import Event
from ..service import ChordService, Text, as_bytes
from ..watch import Watch
from .reactor import run_later

__all__ = ["Listening"]

#: What a listener may hear of.
_KINDS = ("add", "change", "delete")

#: What is called: with the socket and the event.
Listener = Callable[[Any, Event], object]
L = TypeVar("L", bound=Listener)


class _Heard:
    """The keys of one watch, and who listens to them.

    :ivar listeners: of each kind; true: once.
    """

    def __init__(self) -> None:
        self.listeners: dict[str, dict[Listener, bool]] = {kind: {} for kind in _KINDS}
        self.watch: Watch | None = None
        self.task: Deferred[None] | None = None

    def __bool__(self) -> bool:
        return any(self.listeners.values())


class Listening:
    """What a socket has of an event emitter."""

    log = Logger()
    _service: ChordService
    _pending: set[Deferred[Any]]

    @abstractmethod
    def _wait(
        self, function: Callable[..., Any], *arguments: Any, steps: int = 1, write: bool = False
    ) -> Any:
        """See :class:`.dictionary.Dictionary`."""

    def _begin_listening(self) -> None:
        self._lock = threading.Lock()  # of what listeners there are
        self._heard: dict[tuple[str, bytes], _Heard] = {}
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._deaf = False

    # -- who listens

    def on(
        self,
        event: str,
        listener: Any = None,
        *,
        key: Text | None = None,
        prefix: Text | None = None,
    ) -> Any:
        """Call a function whenever a key changes: ``@sock.on("add")``, or ``sock.on("add", f)``.

        It is called as ``listener(sock, event)`` with an :class:`~py2p_twisted.events.Event`, in a
        thread of its own, where it may use the socket.  All listeners of a socket are called one
        after the other.  What one raises is logged.

        When this returns every later change will be told; before the socket is in a ring it returns
        at once, and they are told from then on.

        :param event: ``"add"``, ``"change"`` or ``"delete"``.
        :param listener: registered once, however often this is called with it.
        :param key: only of this key.
        :param prefix: only of the keys that begin with it.  Without both: of all keys.
        :returns: the listener; or without one what makes a listener of a function.
        :raises ValueError: for another event.
        :raises OperationTimeout: if too few members answer; it is not registered then.
        """
        return self._add(event, listener, key, prefix, once=False)

    def once(
        self,
        event: str,
        listener: Any = None,
        *,
        key: Text | None = None,
        prefix: Text | None = None,
    ) -> Any:
        """As :meth:`on`, for the next such event only."""
        return self._add(event, listener, key, prefix, once=True)

    def remove_listener(
        self,
        event: str,
        listener: Listener,
        *,
        key: Text | None = None,
        prefix: Text | None = None,
    ) -> None:
        """Call it no more.

        :raises KeyError: if it was not registered for that.
        """
        target = _target(event, key, prefix)
        with self._lock:
            heard = self._heard.get(target)
            if heard is None or listener not in heard.listeners[event]:
                raise KeyError(f"{listener!r} does not listen to {event!r} of these keys")
            del heard.listeners[event][listener]
        self._tidy()

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Call none of them any more: those of one event, or all."""
        if event is not None:
            _target(event, None, None)
        with self._lock:
            for heard in self._heard.values():
                for kind in _KINDS if event is None else (event,):
                    heard.listeners[kind].clear()
        self._tidy()

    def listeners(self, event: str) -> list[Listener]:
        """Who listens to an event, of whatever keys."""
        _target(event, None, None)
        with self._lock:
            return [one for heard in self._heard.values() for one in heard.listeners[event]]

    def _add(
        self, event: str, listener: Any, key: Text | None, prefix: Text | None, *, once: bool
    ) -> Any:
        target = _target(event, key, prefix)
        if listener is None:
            return partial(self._register, event, target, once)
        return self._register(event, target, once, listener)

    def _register(self, event: str, target: tuple[str, bytes], once: bool, listener: L) -> L:
        if not callable(listener):
            raise TypeError(f"{listener!r} cannot be called, as listener(sock, event)")
        with self._lock:
            heard = self._heard.setdefault(target, _Heard())
            heard.listeners[event][listener] = once
        try:
            self._wait(self._listen, target, heard)
        except BaseException:
            with self._lock:
                heard.listeners[event].pop(listener, None)
            self._tidy()
            raise
        return listener

    # -- in the reactor's thread

    async def _listen(self, target: tuple[str, bytes], heard: _Heard) -> None:
        """See to it that a watch is there, and that it misses nothing."""
        service = self._service
        if heard.watch is None:
            kind, text = target
            heard.watch = service.watch(text) if kind == "key" else service.watch(prefix=text)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._call_all, name="chord listeners", daemon=True
                )
                self._thread.start()
            task = heard.task = Deferred.fromCoroutine(self._pass_on(heard.watch, heard))
            self._pending.add(task)
            task.addBoth(partial(self._ended, target, heard, task))
        core = service.node.core
        if not core.member and not any(core.ring_links()):
            return
        seconds = service.settings.operation_timeout

        def late(result: object, _: float) -> None:
            raise OperationTimeout(
                f"these keys could not be watched within {seconds:g} s: too few of the members "
                "that keep them answer"
            )

        await heard.watch.ready().addTimeout(seconds, core.clock, late)

    async def _pass_on(self, watch: Watch, heard: _Heard) -> None:
        """Have the listeners called, event by event."""
        async for event in watch:
            if self._deaf:
                return
            called: Deferred[None] = Deferred()
            self._calls.put(partial(self._call, heard, event, called))
            await called

    def _ended(
        self, target: tuple[str, bytes], heard: _Heard, task: Deferred[None], result: Any
    ) -> None:
        self._pending.discard(task)
        with self._lock:
            if self._heard.get(target) is heard:
                del self._heard[target]
        if isinstance(result, Failure) and not result.check(CancelledError):
            if result.check(ChordError):
                self.log.error(
                    "Listeners hear no more: {error}", error=result.getErrorMessage()
                )  # fmt: skip
            else:
                self.log.failure("Listeners hear no more", result)

    def _tidy(self) -> None:
        """End the watches that nobody listens to any more."""
        with self._lock:
            idle = [(target, heard) for target, heard in self._heard.items() if not heard]
            for target, _ in idle:
                del self._heard[target]
        for _, heard in idle:
            run_later(_close, heard)

    # -- in the listeners' thread

    def _call_all(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _call(self, heard: _Heard, event: Event, called: Deferred[None]) -> None:
        with self._lock:
            listeners = heard.listeners[event.kind]
            chosen = list(listeners)
            for listener in [one for one in chosen if listeners[one]]:
                del listeners[listener]
        for listener in chosen:
            if self._deaf:
                break
            try:
                listener(self, event)
            except Exception:
                self.log.failure("A listener of {kind!r} failed", kind=event.kind)
        if not heard:
            self._tidy()
        run_later(_fire, called)

    def _stop_listening(self) -> None:
        """Nobody is called any more, but for who is being called just now."""
        self._deaf = True
        self._calls.put(None)


def _target(event: str, key: Text | None, prefix: Text | None) -> tuple[str, bytes]:
    """Which keys are meant.

    :raises ValueError: for an event that there is not.
    :raises TypeError: if both are given.
    """
    if event not in _KINDS:
        raise ValueError(f"there is no event {event!r}: there are 'add', 'change' and 'delete'")
    if key is not None and prefix is not None:
        raise TypeError("either a key or prefix=, or neither of them")
    if key is not None:
        return "key", as_bytes(key)
    return "prefix", as_bytes(b"" if prefix is None else prefix, "a prefix")


def _close(heard: _Heard) -> None:
    if heard.watch is not None and heard.task is not None:
        heard.task.cancel()
        Deferred.fromCoroutine(heard.watch.aclose())


def _fire(called: Deferred[None]) -> None:
    if not called.called:
        called.callback(None)
