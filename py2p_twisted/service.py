"""The dictionary as a Twisted service (floor 3).

Owns the life of one node inside a reactor: when it listens, joins and leaves.  All of its
operations return Deferreds; every Deferred can be cancelled.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from .base import protocol, show_address
from .errors import (
    ChordError,
    KeyTooLarge,
    NotConnected,
    OperationTimeout,
    PeerUnreachable,
    ValueTooLarge,
)
from .node import Node
from .node.core import Phase, user_key
from .node.recovery import RecoveryReport
from .settings import DEFAULT_PROTOCOL, Settings
from .table.proposer import Condition, Write
from .wire.endpoints import Endpoints, TwistedEndpoints, announced_host
from .wire.link import Link

__all__ = ["ChordService", "as_bytes"]

T = TypeVar("T")
Text = bytes | bytearray | memoryview | str
Address = tuple[str, int]


def as_bytes(text: Text, what: str = "a key") -> bytes:
    """A key or value as bytes: bytes-like as it is, text as UTF-8.

    :raises TypeError: for anything else.
    """
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("utf-8")
    try:
        return bytes(memoryview(text))
    except TypeError:
        raise TypeError(
            f"{what} must be bytes-like or str, not {type(text).__name__}: {text!r:.80}"
        ) from None


class ChordService(Service):
    """One node, as an ``IService`` for any application.

    :param reactor: clock and connections.
    :param addr: the interface to listen on; ``'0.0.0.0'`` and ``'::'`` announce the LAN address.
    :param port: the port to listen on; 0 picks a free one.
    :param k: bits of an identifier: up to ``2**k`` nodes can store.
    :param prot: the network: nodes of another one are refused.
    :param out_addr: ``(host, port)`` that others dial, if it is not where the node listens.
    :param join: None: leech until :meth:`join`; ``[]``: found a ring at start; a list of
        ``(host, port)``: join through these, trying for ever.
    :param replicas: copies of a key; None or 1 in this version.
    :param tls: a folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; implies encryption SSL.
    :param timeout: seconds that an operation may take.
    :param settings: all other numbers.
    :param rng: all chance; by default seeded by the system.
    :param endpoints: how to reach the network; by default the reactor's.
    :raises ValueError, TypeError: for a parameter that cannot be.
    """

    log = Logger()
    name: str | None = "chord"  # type: ignore[assignment]

    def __init__(
        self,
        reactor: Any,
        addr: str,
        port: int,
        k: int = 6,
        prot: protocol = DEFAULT_PROTOCOL,
        out_addr: Address | None = None,
        join: Sequence[Address] | None = None,
        *,
        replicas: int | None = None,
        tls: Any = None,
        timeout: float = 10.0,
        settings: Settings | None = None,
        rng: random.Random | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        if tls is not None:
            prot = protocol(prot.subnet, "SSL")
        self._reactor = reactor
        self._interface = _check_host(addr, "addr")
        self._wanted_port = _check_port(port, "port", least=0)
        self._announced = _check_address(out_addr, "out_addr") if out_addr is not None else None
        self._join_through = None if join is None else [_check_address(a, "join") for a in join]
        self.settings = settings or Settings(
            k=k, prot=prot, replicas=1 if replicas is None else replicas, operation_timeout=timeout
        )
        security = _security(tls) if self.settings.prot.encryption == "SSL" else None
        self._self_made = security is not None and not security.authenticated
        self.node = Node(
            reactor,
            rng or random.SystemRandom(),
            self.settings,
            endpoints
            or TwistedEndpoints(reactor, security, timeout=self.settings.handshake_timeout),
            security,
        )
        self._listening: Deferred[None] | None = None
        self._joining: Deferred[Any] | None = None
        self._waiting: list[Deferred[ChordService]] = []
        self._stopped: Deferred[None] | None = None

    # -- life

    def privilegedStartService(self) -> None:
        """Twisted: open the port, while the process may still open low ones.

        :raises CannotListenError: if the port cannot be had.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Twisted: open the port, and found or join the ring that was asked for.

        :raises CannotListenError: if the port cannot be had.
        """
        self._listen()
        super().startService()
        if self._self_made:
            self.log.warn(
                "Encryption without authentication: this node made its own certificate, and "
                "anyone can do that. Give every node one of your own CA (tls=) to know who is there."
            )
        if self._join_through is not None and self._listening is not None:
            self._listening.addCallback(lambda _: self._start_joining())

    def _listen(self) -> None:
        if self._listening is not None:
            return
        host = announced_host(self._interface)
        out_addr = self._announced or (host, 0)
        self._listening = self.node.listen(self._interface, self._wanted_port, out_addr)
        problems: list[Failure] = []
        self._listening.addErrback(problems.append)
        if problems:
            self._listening = None
            problems[0].raiseException()

    def _start_joining(self) -> None:
        joining = self._joining = Deferred.fromCoroutine(self._join_for_ever())

        def ended(result: Any) -> None:
            self._joining = None
            if isinstance(result, Failure) and not result.check(CancelledError):
                self._tell_waiting(result)
                self.log.error(
                    "This node does not join: {error}", error=result.getErrorMessage()
                )  # fmt: skip

        joining.addBoth(ended)

    async def _join_for_ever(self) -> None:
        """Join through the addresses given, with growing, jittered pauses."""
        await _Joiner(self.node, self._join_through or []).run()
        self._tell_waiting(self)

    def _tell_waiting(self, result: ChordService | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(result)

    def stopService(self) -> Deferred[None]:
        """Twisted: leave the ring, bounded in time, and close everything.

        :returns: fires when every connection, loop and delayed call is gone.
        """
        if self._stopped is None:
            super().stopService()
            self._stopped = Deferred.fromCoroutine(self._stop())
        return self._stopped

    async def _stop(self) -> None:
        if self._joining is not None:
            self._joining.cancel()
        core = self.node.core
        if core.phase is Phase.JOINED:
            try:
                await self.node.membership.leave(timeout=self.settings.leave_timeout)
            except (ChordError, CancelledError) as error:  # cancelled: there is no more time
                self.log.warn(
                    "Stopping without handing over: {keys} keys are lost with this process. "
                    "({error})",
                    keys=core.keys,
                    error=str(error) or "it took too long",
                )
        self._tell_waiting(Failure(NotConnected("the service was stopped")))
        await self.node.stop()

    # -- in and out

    def when_ready(self) -> Deferred[ChordService]:
        """Fires with this service once it is in the ring (or, leeching, connected to one)."""
        core = self.node.core
        if core.phase is Phase.JOINED:
            return succeed(self)
        if self._join_through is None and any(core.ring_links()):
            return succeed(self)
        waiting: Deferred[ChordService] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def connect(self, host: str, port: int) -> Deferred[None]:
        """Connect to a node; fires when its ring can be read and written.

        :returns: fails with `PeerUnreachable`, `NetworkMismatch`, `AuthenticationFailed` or
            `RingConflict`.
        """
        address = _check_address((host, port), "the peer's address")
        return Deferred.fromCoroutine(self._connect(*address))

    async def _connect(self, host: str, port: int) -> None:
        await self._started()
        core = self.node.core
        link = await self.node.links.dial(host, port)
        deadline = core.clock.seconds() + self.settings.handshake_timeout
        while link.hello.ring and not core.same_ring(link.hello):
            # One of the two gives up an empty ring; both say so when it is done.
            if core.clock.seconds() > deadline or core.links.get(link.peer.instance) is None:
                raise PeerUnreachable(f"{show_address(host, port)} did not settle which ring to use")
            await core.sleep(0.02)
        if core.ring_id and not core.member and not link.hello.leeching:
            await self.node.finder.fetch_directory(link.peer)
        self._tell_waiting(self)

    async def _started(self) -> None:
        if self._listening is None:
            raise NotConnected("the service was not started: call startService() first")
        if not self.node.core.me.host:
            waiting: Deferred[None] = Deferred()
            self._listening.addCallback(lambda _: waiting.callback(None))
            await waiting

    def join(self) -> Deferred[None]:
        """Enter the connected ring as a member that stores, or found a ring if there is none.

        :returns: fails with `RingFull`, or another `ChordError` if it could not be done in time.
        """
        return Deferred.fromCoroutine(self._join())

    async def _join(self) -> None:
        await self._started()
        await self.node.membership.join()
        self._tell_waiting(self)

    def unjoin(self, *, discard: bool = False) -> Deferred[None]:
        """Hand everything over and stop storing; stay connected.

        :param discard: give up what nobody takes over (the last node of a ring).
        :returns: fails with `Unavailable` if nobody does and `discard` is false.
        """
        timeout = self.settings.leave_timeout
        return Deferred.fromCoroutine(
            self.node.membership.leave(discard=discard, timeout=timeout)
        )  # fmt: skip

    def recover(self, *, accept_data_loss: bool = False) -> Deferred[RecoveryReport]:
        """Re-form the partitions whose nodes will never come back, from what is left.

        :param accept_data_loss: must be True: keys of dead nodes are gone for good.
        :raises ValueError: if it is not.
        """
        if accept_data_loss is not True:
            raise ValueError(
                "recover() gives up the keys of every node that is not reachable now: say "
                "recover(accept_data_loss=True) if those nodes will never come back"
            )
        return Deferred.fromCoroutine(self.node.recovery.recover())

    # -- one key

    def _key(self, key: Text) -> bytes:
        raw = as_bytes(key)
        if len(raw) > self.settings.max_key:
            raise KeyTooLarge(
                f"a key of {len(raw)} bytes is over the limit of {self.settings.max_key} bytes"
            )
        return user_key(raw)

    def _value(self, value: Text) -> bytes:
        raw = as_bytes(value, "a value")
        if len(raw) > self.settings.max_value:
            raise ValueTooLarge(
                f"a value of {len(raw)} bytes is over the limit of {self.settings.max_value} bytes"
            )
        return raw

    def _write(
        self, key: bytes, value: bytes | None, condition: Condition, expected: bytes | None = None
    ) -> Deferred[bool]:
        operations = self.node.operations
        return operations.write(
            Write(key, value, operations.next_operation(), condition, expected)
        )  # fmt: skip

    def get(self, key: Text, default: T | None = None) -> Deferred[bytes | T | None]:
        """The value at a key, or the default.

        :returns: fails with `Unavailable`, `OperationTimeout` or `NotConnected`.
        :raises TypeError, KeyTooLarge: for a key that cannot be one.
        """
        read: Deferred[Any] = self.node.operations.read(self._key(key))
        if default is not None:
            read.addCallback(lambda value: default if value is None else value)
        return read

    def contains(self, key: Text) -> Deferred[bool]:
        """Is there a value at the key?"""
        return self.node.operations.read(self._key(key)).addCallback(lambda value: value is not None)

    def set(self, key: Text, value: Text) -> Deferred[None]:
        """Write a value.

        :returns: fails with `Unavailable` or `OperationTimeout`, whose `outcome_unknown` tells
            whether the value may have been written, or with `NotConnected`.
        :raises TypeError, KeyTooLarge, ValueTooLarge: for what cannot be stored.
        """
        done: Deferred[Any] = self._write(self._key(key), self._value(value), Condition.ALWAYS)
        return done.addCallback(_to_none)

    def delete(self, key: Text) -> Deferred[bool]:
        """Delete a key; fires with whether there was a value."""
        return self._write(self._key(key), None, Condition.PRESENT)

    def compare_and_set(self, key: Text, expected: Text | None, value: Text) -> Deferred[bool]:
        """Write only if the present value is the expected one (None: only if there is none).

        :returns: fires with whether it was written.
        """
        old = None if expected is None else self._value(expected)
        return self._write(self._key(key), self._value(value), Condition.EQUALS, old)

    def setdefault(self, key: Text, default: Text) -> Deferred[bytes]:
        """The value at a key; writes the default first if there is none."""
        return Deferred.fromCoroutine(self._setdefault(self._key(key), self._value(default)))

    async def _setdefault(self, key: bytes, default: bytes) -> bytes:
        while True:
            value = await self.node.operations.read(key)
            if value is not None:
                return value
            if await self._write(key, default, Condition.EQUALS):
                return default

    def pop(self, key: Text, *default: T) -> Deferred[bytes | T]:
        """Delete a key and fire with its value.

        :param default: instead of a value that is not there; without it `KeyError`.
        """
        raw = self._key(key)
        return Deferred.fromCoroutine(self._pop(raw, key, default))

    async def _pop(self, key: bytes, shown: Text, default: tuple[T, ...]) -> bytes | T:
        while True:
            value = await self.node.operations.read(key)
            if value is None:
                if default:
                    return default[0]
                raise KeyError(shown)
            if await self._write(key, None, Condition.EQUALS, value):
                return value

    def popitem(self) -> Deferred[tuple[bytes, bytes]]:
        """Delete some key and fire with it and its value; fails with KeyError if there is none."""
        return Deferred.fromCoroutine(self._popitem())

    async def _popitem(self) -> tuple[bytes, bytes]:
        while True:
            filled = [part for part, keys in (await self.node.bulk.counts()).items() if keys]
            if not filled:
                raise KeyError("popitem(): the dictionary is empty")
            self.node.core.rng.shuffle(filled)
            async for key, _ in self.node.bulk.walk(values=False, partitions=filled[:1], most=1):
                value = await self.node.operations.read(user_key(key))
                if value is not None and await self._write(
                    user_key(key), None, Condition.EQUALS, value
                ):
                    return key, value
                break

    # -- many keys

    def get_many(self, keys: Iterable[Text]) -> Deferred[dict[bytes, bytes]]:
        """The values at these keys; those that have none are missing from the result."""
        wanted = [self._key(key) for key in keys]

        async def read() -> dict[bytes, bytes]:
            found = await self.node.bulk.read_many(wanted)
            return {key[1:]: value for key, value in found.items()}

        return Deferred.fromCoroutine(read())

    def update(
        self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), **kwargs: Text
    ) -> Deferred[None]:
        """Write many keys; those of one owner travel together.

        :returns: fires when all are written; fails with the first error, when some may be.
        """
        pairs = other.items() if isinstance(other, Mapping) else other
        last = {self._key(key): self._value(value) for key, value in pairs}
        last.update({self._key(key): self._value(value) for key, value in kwargs.items()})
        number = self.node.operations.next_operation
        writes = [Write(key, value, number()) for key, value in last.items()]
        return Deferred.fromCoroutine(self.node.bulk.write_many(writes))

    def count(self) -> Deferred[int]:
        """How many keys there are, added up over the nodes that keep them."""

        async def add_up() -> int:
            return sum((await self.node.bulk.counts()).values())

        return Deferred.fromCoroutine(add_up())

    def clear(self) -> Deferred[None]:
        """Delete every key that is there now."""

        async def delete_all() -> None:
            number = self.node.operations.next_operation
            batch: list[Write] = []
            async for key in self.keys():
                batch.append(Write(user_key(key), None, number()))
                if len(batch) == self.settings.page_keys:
                    await self.node.bulk.write_many(batch)
                    batch = []
            await self.node.bulk.write_many(batch)

        return Deferred.fromCoroutine(delete_all())

    async def keys(self) -> AsyncIterator[bytes]:
        """Every key, page by page: each that exists all the while exactly once."""
        async for key, _ in self.node.bulk.walk(values=False):
            yield key

    async def items(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Every key with its value, page by page, as :meth:`keys`."""
        async for item in self.node.bulk.walk(values=True):
            yield item

    # -- what it looks like

    @property
    def out_addr(self) -> Address:
        """The address that others dial."""
        return self.node.core.me.address

    @property
    def leeching(self) -> bool:
        """True while this node stores nothing."""
        return not self.node.core.member

    @property
    def status(self) -> str:
        """``"Nominal"``, or what is wrong."""
        return self.node.status()

    def links(self) -> list[Link]:
        """The connections, for looking at."""
        return list(self.node.links)


def _to_none(_: object) -> None:
    return None


def _security(tls: Any) -> Any:
    from .wire.tls import Security

    return Security.self_made() if tls is None else Security.from_directory(tls)


def _check_host(host: object, what: str) -> str:
    if not isinstance(host, str) or not host:
        raise TypeError(f"{what} must be a host name or an address as text, not {host!r}")
    return host


def _check_port(port: object, what: str, least: int = 1) -> int:
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"{what} must be a whole number, not {port!r}")
    if not least <= port <= 65535:
        raise ValueError(f"{what} must be from {least} to 65535, not {port}")
    return port


def _check_address(address: object, what: str) -> Address:
    if not isinstance(address, tuple | list) or len(address) != 2:
        raise TypeError(f"{what} must be (host, port), not {address!r}")
    return _check_host(address[0], what), _check_port(address[1], what)


class _Joiner:
    """Joins through addresses, for ever (design section 4, "Ring identity")."""

    log = Logger()

    def __init__(self, node: Node, addresses: Sequence[Address]) -> None:
        self._node = node
        self._core = node.core
        self._others = [a for a in addresses if a != node.core.me.address]
        self._first = bool(addresses) and addresses[0] == node.core.me.address
        self._alone = not self._others
        self._said_no_ring: dict[Address, int] = {}

    async def run(self) -> None:
        """Returns once the node is a member.

        :raises ChordError: what no patience can mend: another network, a foreign certificate.
        """
        core, settings = self._core, self._node.core.settings
        pause = settings.redial_min
        told = ""
        while core.phase is not Phase.JOINED:
            if self._alone or self._may_found():
                await self._node.membership.join()
                return
            problem = await self._try()
            if problem and problem != told:
                self.log.info("Cannot join yet: {problem}. Trying on.", problem=problem)
                told = problem
            if problem:
                await core.sleep(core.jittered(pause))
                pause = min(2 * pause, settings.redial_max)

    def _may_found(self) -> bool:
        return self._first and all(self._said_no_ring.get(a, 0) >= 2 for a in self._others)

    async def _try(self) -> str:
        """One round over all addresses; empty once joined, else what is in the way."""
        problems = []
        for host, port in self._others:
            try:
                link = await self._node.links.dial(host, port)
                if not link.hello.ring:
                    address = (host, port)
                    self._said_no_ring[address] = self._said_no_ring.get(address, 0) + 1
                    problems.append(f"{show_address(host, port)} is in no ring yet")
                    continue
                if not link.hello.leeching:
                    await self._node.finder.fetch_directory(link.peer)
                if self._core.phase is Phase.LEECHING:
                    await self._node.membership.join()
                return ""
            except (ChordError, ConnectionError, OperationTimeout) as error:
                problems.append(str(error))
        return "; ".join(problems)

