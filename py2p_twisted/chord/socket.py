"""One node with a blocking face (floor 4): its life, and what it looks like.

The dictionary's side of it is :class:`.dictionary.Dictionary`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from ..base import Peer, protocol, show_address, to_base_58
from ..errors import CannotListen, ChordError, NotConnected, WouldBlockReactor
from ..node.recovery import RecoveryReport
from ..service import ChordService
from ..settings import DEFAULT_PROTOCOL
from ..storage.interface import Storage
from . import logs
from .dictionary import Dictionary
from .listeners import Listening
from .reactor import GRACE, block, open_services, start_reactor

__all__ = ["ChordSocket"]

#: Seconds that connecting, joining, leaving, or reading what was kept may take; usually far less.
_MOVING = 120.0


class ChordSocket(Listening, Dictionary):
    """A node of a ring, and with it the ring's dictionary.

    All methods block until they are done, and can be called from any thread but the reactor's.
    What is still open when the main thread ends is closed then, within about 3 s, even if other
    threads run on.

    Keys and values are bytes-like, or ``str`` which stands for its UTF-8 bytes; what comes back is
    ``bytes``.  Operations raise `OperationTimeout`, `Unavailable` or `NotConnected` of
    :mod:`py2p_twisted.errors`; ``error.outcome_unknown`` tells if a write may have happened.

    :param addr: the interface to listen on; ``'0.0.0.0'`` and ``'::'`` announce the LAN address.
    :param port: the port to listen on; 0 picks a free one, which `out_addr` tells.
    :param k: bits of an identifier: up to ``2**k`` nodes can store.
    :param prot: the network: nodes of another one are refused.
    :param out_addr: ``(host, port)`` that others dial, if it is not where the node listens.
    :param debug_level: what the logger ``py2p_twisted`` lets through: 0 warnings, 1 the story of
        the ring too, 2 everything.
    :param replicas: copies of every key: 1, 3 or 5, which the founder decides for its ring.  None:
        the ring's own number, 5 in a ring that this socket founds.
    :param tls: a folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; implies encryption SSL.
        Certificates that are renewed there are taken up while the socket is open.
    :param storage: a folder for what must outlive the process, one for each socket; or a
        :class:`~py2p_twisted.storage.interface.Storage`.  None: everything is in memory.  A socket
        that was a member when it was closed, or killed, is back in its ring when it is opened again
        with what it kept there: it needs neither :meth:`connect` nor :meth:`join`.
    :param leave_on_stop: leave the ring when the socket is closed, though it has a storage.
    :param timeout: seconds that an operation may take.
    :raises CannotListen: if the port cannot be had.
    :raises StorageError: if the storage is in use, damaged, another network's, or not usable.
    :raises WouldBlockReactor: in a Twisted application, which uses `ChordService`.
    :raises ValueError, TypeError: for a parameter that cannot be.
    """

    def __init__(
        self,
        addr: str,
        port: int,
        k: int = 6,
        prot: protocol = DEFAULT_PROTOCOL,
        out_addr: tuple[str, int] | None = None,
        debug_level: int = 0,
        *,
        replicas: int | None = None,
        tls: str | os.PathLike[str] | None = None,
        storage: Storage | str | os.PathLike[str] | None = None,
        leave_on_stop: bool = False,
        timeout: float = 10.0,
    ) -> None:
        reactor = start_reactor()
        logs.show(debug_level)
        self._pid = os.getpid()
        self._closed = False
        self._pending: set[Deferred[Any]] = set()
        self._begin_listening()

        async def listen() -> ChordService:
            service = ChordService(
                *(reactor, addr, port, k, prot, out_addr),
                replicas=replicas,
                tls=tls,
                storage=storage,
                leave_on_stop=leave_on_stop,
                timeout=timeout,
                verbose=debug_level > 1,
            )
            try:
                service.privilegedStartService()
                service.startService()
            except BaseException:
                await service.stopService()  # it may have opened its storage
                raise
            open_services[service] = None
            return service

        try:
            patience = GRACE if storage is None else _MOVING
            self._service = block(listen, patience=patience, pending=self._pending)
        except CannotListenError as error:
            cause = error.socketError
            where = show_address(str(error.interface), int(error.port))
            why = getattr(cause, "strerror", None) or str(cause)
            number = getattr(cause, "errno", None)
            if number == errno.EADDRNOTAVAIL:
                why += " (addr must be an address of this machine)"
            raise CannotListen(f"cannot listen on {where}: {why}", errno=number) from None

    def _wait(
        self, function: Callable[..., Any], *arguments: Any, steps: int = 1, write: bool = False
    ) -> Any:
        """Call a function of the service; each of its steps keeps to the socket's timeout."""
        self._check_open()
        patience = steps * self._service.settings.operation_timeout + GRACE
        return block(function, *arguments, patience=patience, pending=self._pending, write=write)

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise ChordError(
                "this socket belongs to the process that this one was forked from: "
                "open one of its own in each process"
            )
        if self._closed:
            raise NotConnected("this socket is closed")

    # -- in and out

    def connect(self, host: str, port: int) -> None:
        """Connect to a node; its ring can be read and written from then on.

        :raises PeerUnreachable, NetworkMismatch, AuthenticationFailed: if it cannot be talked to.
        :raises RingConflict: if both are in rings that are in use, or the peer's ring keeps another
            number of copies than `replicas` says.
        """
        self._move(self._service.connect, host, port)

    def join(self) -> None:
        """Store a share: enter the connected ring, or found one if there is none.

        :raises RingFull: if ``2**k`` nodes store already.
        """
        self._move(self._service.join)

    def unjoin(self, discard: bool = False) -> None:
        """Hand this node's share over and stop storing; the socket stays connected.

        :param discard: give up what no other node takes over.
        :raises Unavailable: if nobody takes over and `discard` is false.
        """
        self._move(partial(self._service.unjoin, discard=discard))

    def recover(self, accept_data_loss: bool = False) -> RecoveryReport:
        """Re-form what dead nodes kept, which will never come back, from what is left.

        :param accept_data_loss: must be True: the keys of dead nodes are gone for good.
        :raises ValueError: if it is not.
        """
        recover = partial(self._service.recover, accept_data_loss=accept_data_loss)
        report: RecoveryReport = self._move(recover)
        return report

    def _move(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._check_open()
        return block(function, *arguments, patience=_MOVING, pending=self._pending)

    def close(self) -> None:
        """Close everything, within about 10 s.  Again: nothing happens.

        Without a storage the socket leaves its ring before.  With one it keeps its place there, for
        when it is opened again; :meth:`unjoin` leaves.

        :raises StorageError: if what it kept could not be written to the end.
        """
        if self._closed or self._pid != os.getpid():
            return
        patience = 2 * (self._service.settings.leave_timeout + GRACE)
        pending = self._pending

        async def stop() -> None:
            self._stop_listening()
            try:
                await self._service.stopService()
            finally:
                open_services.pop(self._service, None)
                for operation in list(pending):
                    operation.cancel()

        try:
            self._closed = True
            block(stop, patience=patience, pending=set())
        except WouldBlockReactor:
            self._closed = False
            raise
        except NotConnected:
            return  # the program ends, and sees to it

    def __enter__(self) -> ChordSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what it looks like

    @property
    def id_10(self) -> int:
        """This node's place on the circle."""
        return self._service.node.core.me.id

    @property
    def id(self) -> bytes:
        """This node's place on the circle, in base 58."""
        return to_base_58(self.id_10)

    @property
    def k(self) -> int:
        """Bits of an identifier."""
        return self._service.settings.k

    @property
    def limit(self) -> int:
        """How many nodes can store."""
        return 1 << self.k

    @property
    def protocol(self) -> protocol:
        """The network."""
        return self._service.settings.prot

    @property
    def out_addr(self) -> tuple[str, int]:
        """The address that others dial."""
        return self._service.out_addr

    @property
    def routing_table(self) -> dict[bytes, Peer]:
        """The connected nodes that store, by their identifier in base 58."""
        return {to_base_58(peer.id): peer for peer, member in self._peers() if member}

    @property
    def awaiting_ids(self) -> list[Peer]:
        """The connected nodes that do not store (yet)."""
        return [peer for peer, member in self._peers() if not member]

    def _peers(self) -> list[tuple[Peer, bool]]:
        if self._closed:
            return []
        links = self._wait(self._service.links)
        return [(link.peer, not link.hello.leeching) for link in links]

    @property
    def next(self) -> Peer | None:
        """The node that follows on the circle, None without one."""
        pointers = self._service.node.core.pointers
        return None if pointers is None else pointers.successor

    @property
    def prev(self) -> Peer | None:
        """The node before on the circle, None without one."""
        pointers = self._service.node.core.pointers
        return None if pointers is None else pointers.predecessor

    @property
    def leeching(self) -> bool:
        """True while this node stores nothing."""
        return self._service.leeching

    @property
    def status(self) -> str:
        """``"Nominal"``, or what is wrong: members that are not reachable, an old certificate."""
        if self._closed:
            return "Closed"
        return str(self._wait(lambda: self._service.status))

    def __repr__(self) -> str:
        state = "closed" if self._closed else "leeching" if self.leeching else "joined"
        where = show_address(*self.out_addr)
        return f"<ChordSocket {self.id.decode()} at {where}, k={self.k}, {state}>"
