"""The dictionary as a Twisted service (floor 3).

Owns the life of one node inside a reactor: when it listens, joins and leaves.  All of its
operations return Deferreds; every Deferred can be cancelled.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from .arguments import Address, check_address, check_host, check_port, security_of, storage_of
from .base import count_of, protocol, show_address
from .dictionary import Dictionary, Text, as_bytes
from .errors import ChordError, NotConnected, PeerUnreachable, StorageError
from .joiner import Joiner
from .keeping import open_storage
from .node import Node
from .node.core import Phase
from .node.ending import left_behind
from .node.recovery import RecoveryReport
from .reporting import Reporting
from .settings import DEFAULT_PROTOCOL, Settings
from .storage.interface import Storage
from .wire.endpoints import Endpoints, TwistedEndpoints, announced_host, is_loopback
from .wire.link import Link

__all__ = ["ChordService", "Text", "as_bytes"]


class ChordService(Dictionary, Reporting, Service):
    """One node, as an ``IService`` for any application.

    :param reactor: clock and connections.
    :param addr: the interface to listen on; ``'0.0.0.0'`` and ``'::'`` announce the LAN address.
    :param port: the port to listen on; 0 picks a free one.
    :param k: bits of an identifier: up to ``2**k`` nodes can store.
    :param prot: the network: nodes of another one are refused.
    :param out_addr: ``(host, port)`` that others dial, if it is not where the node listens.
    :param join: None: leech until :meth:`join`; ``[]``: found a ring at start; a list of
        ``(host, port)``: join through these, trying for ever.
    :param replicas: copies of every key: 1, 3 or 5, which the founder decides for its ring.  None:
        the ring's own number, 5 in a ring that this node founds.  A node that asks for another
        number than the ring's is refused.
    :param tls: a folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; implies encryption SSL.
        Certificates that are renewed there are taken up while the node runs.
    :param storage: where it keeps what must outlive the process: a path, or a
        :class:`~.storage.interface.Storage`; None: nowhere.  With one, a node that is stopped keeps
        its place, and its groups wait for it to come back for ``evict_after`` seconds.
    :param cache: bytes, about, of what is in the storage that are in memory, too.
    :param leave_on_stop: leave the ring when the service stops, though it has a storage.
    :param timeout: seconds that an operation may take.
    :param verbose: log what only an author wants to read, too.
    :param settings: all other numbers, instead of those before.
    :param rng: all chance; by default seeded by the system.
    :param endpoints: how to reach the network; by default the reactor's.
    :raises ValueError, TypeError: for a parameter that cannot be.
    """

    log = Logger()
    name = "chord"

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
        storage: Storage | str | os.PathLike[str] | None = None,
        cache: int = Settings.cache,
        leave_on_stop: bool = False,
        timeout: float = 10.0,
        verbose: bool = False,
        settings: Settings | None = None,
        rng: random.Random | None = None,
        endpoints: Endpoints | None = None,
    ) -> None:
        if tls is not None:
            prot = protocol(prot.subnet, "SSL")
        self._reactor = reactor
        self._interface = check_host(addr, "addr")
        self._wanted_port = check_port(port, "port", least=0)
        self._announced = check_address(out_addr, "out_addr") if out_addr is not None else None
        if self._announced is not None and self._announced[0] in ("0.0.0.0", "::"):
            raise ValueError(f"out_addr must be what others can dial, not {self._announced[0]}")
        if not isinstance(prot, protocol):
            raise TypeError(f"prot must be a base.protocol(subnet, encryption), not {prot!r}")
        self._join_through = None if join is None else [check_address(a, "join") for a in join]
        self.settings = settings or Settings(
            k, prot, replicas, cache=cache, operation_timeout=timeout, verbose=verbose
        )
        folder = None if tls is None else os.path.abspath(tls)  # a daemon may change its own
        self._security = security = security_of(folder, self.settings.prot.encryption)
        self._renewal = None if folder is None else self._renewing(reactor, security, folder)
        self.node = Node(
            reactor,
            rng or random.SystemRandom(),
            self.settings,
            endpoints
            or TwistedEndpoints(reactor, security, timeout=self.settings.handshake_timeout),
            security,
        )
        self._storage = storage_of(storage)
        self._leave_on_stop = leave_on_stop
        self._listening: Deferred[Any] | None = None
        self._joining: Deferred[Any] | None = None
        self._given_up: Failure | None = None  # why it does not join, if it was told to
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
        :raises StorageError: if what it keeps cannot be used, or is another node's.
        """
        self._listen()
        self._begin()
        super().startService()
        self._warn_of_strangers()
        if self._renewal is not None:
            self._renewal.start()
        if self._join_through is not None and self._listening is not None:
            self._listening.addCallback(lambda _: self._start_joining())

    def _warn_of_strangers(self) -> None:
        """Say that anyone can come in, where that is so."""
        if self._security is None and not is_loopback(self._interface):
            self.log.warn(
                "Everyone who reaches {interface} can read and change the dictionary: nothing is "
                "encrypted or authenticated. A TLS folder (tls=, --tls DIR) would do both.",
                interface=self._interface,
            )
        elif self._security is not None and not self._security.authenticated:
            self.log.warn(
                "Encryption without authentication: this node made its own certificate, and anyone "
                "can do that. Give every node one of your own CA (tls=) to know who is there."
            )

    def _renewing(self, reactor: Any, security: Any, folder: str) -> Any:
        from .wire.renewal import Renewal

        def host() -> str:
            return "" if self.leeching else self.node.core.me.host

        return Renewal(reactor, security, folder, host)

    def _listen(self) -> None:
        if self._stopped is not None:
            raise RuntimeError("a ChordService that was stopped stays so: make a new one")
        if self._listening is not None:
            return
        self._listening = self.node.listen(self._interface, self._wanted_port)
        problems: list[Failure] = []
        self._listening.addErrback(problems.append)
        if problems:
            self._listening = None
            problems[0].raiseException()

    def _begin(self) -> None:
        """Be somebody; the process has given up its privileges by now."""
        listening = self._listening
        if self.running or listening is None:
            return
        if self._storage is not None:
            try:
                open_storage(self.node, self._reactor, self._storage)
            except StorageError:
                self._stopped = self.node.stop()
                raise
        host, announced = self._announced or (announced_host(self._interface), 0)
        listening.addCallback(lambda port: self.node.begin(host, announced or port))

    @property
    def _keeps_its_place(self) -> bool:
        storage = self._storage
        return storage is not None and storage.durable and not self._leave_on_stop

    def _start_joining(self) -> None:
        joining = self._joining = Deferred.fromCoroutine(self._join_for_ever())

        def ended(result: Any) -> None:
            self._joining = None
            if isinstance(result, Failure) and not result.check(CancelledError):
                self._given_up = result
                self._tell_waiting(result)
                self.log.error(
                    "This node does not join: {error}", error=result.getErrorMessage()
                )  # fmt: skip

        joining.addBoth(ended)

    async def _join_for_ever(self) -> None:
        """Join through the addresses given, with growing, jittered pauses."""
        for address in self._join_through or []:
            self.node.core.remember_address(address)  # who is back looks for its ring there, too
        await Joiner(self.node, self._join_through or []).run()
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
        if self._renewal is not None:
            self._renewal.stop()
        if self._joining is not None:
            self._joining.cancel()
        core = self.node.core
        if self._keeps_its_place and core.phase is Phase.JOINED:
            self.log.info(
                "Stopping: this node keeps its place in ring {ring}, and {keys} on its disk.",
                ring=core.ring_name,
                keys=count_of(core.keys, "key"),
            )
        leaving = Deferred.fromCoroutine(self._leave_at_last())
        leaving.addTimeout(2 * self.settings.leave_timeout, core.clock)
        try:
            await leaving
        except (ChordError, CancelledError, TimeoutError) as error:
            if core.keys:
                self.log.warn(
                    "Stopping without handing over: {keys}. ({error})",
                    keys=left_behind(core),
                    error=str(error) or "it took too long",
                )
        self._tell_waiting(Failure(NotConnected("the service was stopped")))
        await self.node.stop()

    async def _leave_at_last(self) -> None:
        core = self.node.core
        while core.phase is Phase.LEAVING:
            await core.sleep(0.05)  # somebody called unjoin(): let it finish
        if core.phase is Phase.JOINED and not self._keeps_its_place:
            await self.node.membership.leave(timeout=self.settings.leave_timeout)

    # -- in and out

    def when_ready(self) -> Deferred[ChordService]:
        """Fires with this service once it is in the ring (or, leeching, connected to one)."""
        core = self.node.core
        if self._stopped is not None:
            return fail(NotConnected("the service was stopped"))
        if core.phase is Phase.JOINED:
            return succeed(self)
        if self._given_up is not None:
            return fail(self._given_up)
        if self._join_through is None and any(core.ring_links()):
            return succeed(self)
        waiting: Deferred[ChordService] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def connect(self, host: str, port: int) -> Deferred[None]:
        """Connect to a node; fires when its ring can be read and written.

        :returns: fails with `PeerUnreachable`, `NetworkMismatch`, `AuthenticationFailed`, or
            `RingConflict` if both rings are in use, or the peer's keeps another number of copies
            than this node asked for.
        """
        address = check_address((host, port), "the peer's address")
        return Deferred.fromCoroutine(self._connect(*address))

    async def _connect(self, host: str, port: int) -> None:
        await self._started()
        core = self.node.core
        self.node.forget_lost_ring()
        link = await self.node.links.dial(host, port)
        deadline = core.clock.seconds() + self.settings.handshake_timeout
        while link.hello.ring and not core.same_ring(link.hello):
            # One of the two gives up an empty ring; both say so when it is done.
            if core.clock.seconds() > deadline:
                where = show_address(host, port)
                raise PeerUnreachable(f"{where} did not settle which ring to use")
            await core.sleep(0.02)
            if core.links.get(link.peer.instance) is None:
                link = await self.node.links.dial(host, port)  # it hung up, and now says why
        if core.ring_id and not core.member:
            await self.node.finder.fetch_directory(link.peer)
        self._tell_waiting(self)

    async def _started(self) -> None:
        if self._stopped is not None:
            raise NotConnected("the service was stopped")
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

    # -- what it looks like

    @property
    def out_addr(self) -> Address:
        """The address that others dial."""
        return self.node.core.me.address

    @property
    def given_up(self) -> str:
        """Why this node does not join any more, though it was told to; empty if it may."""
        return "" if self._given_up is None else self._given_up.getErrorMessage()

    @property
    def leeching(self) -> bool:
        """True while this node stores nothing."""
        return not self.node.core.member

    @property
    def status(self) -> str:
        """``"Nominal"``, or what is wrong: members that are not reachable, an old certificate."""
        status = self.node.status()
        expiring = "" if self._renewal is None else self._renewal.warning()
        if not expiring or self._stopped is not None:
            return status
        return expiring if status == "Nominal" else f"{status}; {expiring}"

    @property
    def certificate_expires(self) -> datetime | None:
        """When this node's certificate ends to be valid, in UTC; None without a TLS folder."""
        return None if self._renewal is None else self._renewal.expires

    def links(self) -> list[Link]:
        """The connections, for looking at."""
        return list(self.node.links)
