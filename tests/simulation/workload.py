"""Clients that read and write a few keys all the time, and the record of what came of it."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from py2p_twisted.errors import ChordError

from .history import History
from .world import SimNode, World

__all__ = ["Client"]

KEYS = tuple(b"key %d" % number for number in range(8))


class Client:
    """One client: one operation at a time, on any node, until it is stopped.

    A node that crashes takes its operation with it; the history then does not know its outcome.
    """

    def __init__(self, world: World, history: History, name: str, pause: float = 0.3) -> None:
        self._world = world
        self._history = history
        self._name = name
        self._rng = Random(world.rng.getrandbits(64))
        self._pause = pause
        self._running = True
        self._count = 0
        self._waiting_on: SimNode | None = None
        self.unexpected: list[Failure] = []
        self._next()

    def stop(self) -> None:
        """No operation after the present one."""
        self._running = False

    @property
    def idle(self) -> bool:
        """Is no operation under way on a living node?"""
        return self._waiting_on is None or self._waiting_on not in self._world.nodes

    def _next(self) -> None:
        if self._running:
            self._world.clock.callLater(self._rng.expovariate(1 / self._pause), self._operate)

    def _operate(self) -> None:
        ready = [
            node
            for node in self._world.nodes
            if not node.paused and node.service.node.core.ring_id and node.service.running
        ]
        if not ready or not self._running:
            self._next()
            return
        node = self._rng.choice(ready)
        key = self._rng.choice(KEYS)
        self._count += 1
        value = f"{self._name} {self._count}".encode()
        service = node.service
        kind = self._rng.choices(
            ("get", "set", "delete", "compare_and_set", "setdefault", "pop"), (8, 5, 2, 3, 1, 1)
        )[0]
        arguments: tuple[bytes | None, ...]
        asked: Deferred[Any]
        if kind == "get":
            arguments, asked = (), service.get(key)
        elif kind == "set":
            arguments, asked = (value,), service.set(key, value)
        elif kind == "delete":
            arguments, asked = (), service.delete(key)
        elif kind == "compare_and_set":
            expected = self._rng.choice((None, *self._seen)) if self._seen else None
            arguments, asked = (expected, value), service.compare_and_set(key, expected, value)
        elif kind == "setdefault":
            arguments, asked = (value,), service.setdefault(key, value)
        else:
            arguments, asked = (), service.pop(key, None)
        operation = self._history.call(
            self._name, kind, key, arguments, self._world.clock.seconds()
        )
        self._waiting_on = node

        def ended(result: Any) -> None:
            self._waiting_on = None
            if not isinstance(result, Failure):
                operation.returned(result, self._world.clock.seconds())
                if isinstance(result, bytes):
                    self._seen = (*self._seen[-3:], result)
            elif not result.check(ChordError, CancelledError):
                self.unexpected.append(result)
                operation.unknown()
            elif getattr(result.value, "outcome_unknown", True):
                operation.unknown()
            else:
                operation.failed()
            self._next()

        asked.addBoth(ended)
        if self._waiting_on is node:
            # The node may crash: then nobody calls back, and another client takes this one's place.
            self._world.clock.callLater(30.0, self._abandon, operation, node)

    _seen: tuple[bytes, ...] = ()

    def _abandon(self, operation: Any, node: SimNode) -> None:
        crashed = self._waiting_on is node and node not in self._world.nodes
        if crashed and operation.fate == "no answer":
            operation.unknown()
            self._waiting_on = None
            self._next()
