"""Hosts on a simulated network, and everything that can befall them (test support).

Owns who is there, who listens, and the faults that a scenario may cause.  Imports nothing of the
product: a node is given a :class:`SimHost` where it would be given real endpoints, and
``host.clock`` where it would be given the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    NoProtocol,
    TimeoutError,
)
from twisted.internet.interfaces import IListeningPort, IProtocol, IProtocolFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from .clock import HostClock, SimCall, SimClock
from .connection import Address, SimTransport, address, establish
from .weather import PERFECT, Cut, SimOptions, Weather

__all__ = ["SimHost", "SimNetwork", "SimPort"]

_FIRST_FREE_PORT = 49_152
_EVERYWHERE = ("", "0.0.0.0", "::")


class SimNetwork:
    """All hosts and what is between them.  Same clock, seed and calls: same run.

    :ivar weather: delays, chances and cuts.
    """

    def __init__(self, clock: SimClock, rng: Random, options: SimOptions = PERFECT) -> None:
        self.clock = clock
        self.weather = Weather(clock, rng, options)
        self._hosts: dict[str, SimHost] = {}

    def host(self, address: str) -> SimHost:
        """A new host at this address, where none is or one has crashed.

        :raises ValueError: if a host lives there.
        """
        if self.find(address) is not None:
            raise ValueError(f"there is a host at {address} already")
        made = self._hosts[address] = SimHost(self, address)
        return made

    def find(self, address: str) -> SimHost | None:
        """The living host at an address, paused or not."""
        host = self._hosts.get(address)
        return None if host is None or host.crashed else host

    def hosts(self) -> list[SimHost]:
        """All living hosts, in the order of their addresses' first use."""
        return [host for host in self._hosts.values() if not host.crashed]

    def reset(self, one: str, other: str) -> int:
        """Reset all connections between two addresses; both ends see it.  Tells how many."""
        host = self.find(one)
        ends = [] if host is None else [end for end in host.transports if end.there.host == other]
        for end in ends:
            end.break_off()
        return len(ends)

    def cut(
        self, senders: Iterable[str], receivers: Iterable[str], *, one_way: bool = False
    ) -> Cut:
        """Stop everything between two groups of addresses, or only what goes from the first.

        What was sent waits for the heal, as TCP would repeat it; new connects time out.
        """
        return self.weather.cut(senders, receivers, one_way=one_way)

    def heal(self, cut: Cut | None = None) -> None:
        """End one cut, or all of them."""
        self.weather.heal(cut)

    def slow(self, addresses: Iterable[str], extra: float, seconds: float) -> None:
        """For so many seconds, what these send or are sent takes up to ``extra`` seconds more."""
        self.weather.slow(addresses, extra, seconds)

    def calm(self) -> None:
        """Stop all faults: heal, resume who is paused, no random resets and spikes any more."""
        self.weather.calm()
        for host in self.hosts():
            host.resume()


class SimHost:
    """One host with one process on it: a clock, and connections out and in.

    :ivar address: what others dial.
    :ivar clock: what its process takes for the reactor's clock.
    :ivar crashed: True once it crashed; the object is then of no more use.
    :ivar transports: its ends of connections that are open or opening, oldest first.
    """

    def __init__(self, network: SimNetwork, address: str) -> None:
        self.network = network
        self.address = address
        self.clock = HostClock(network.clock)
        self.crashed = False
        self.transports: dict[SimTransport, None] = {}
        self._ports: dict[int, SimPort] = {}
        self._last_port = _FIRST_FREE_PORT - 1

    def connect(self, host: str, port: int, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to an address.

        :returns: fires with the connected protocol.  Fails, after a delay, with
            ``ConnectionRefusedError`` if nobody listens there, ``TimeoutError`` if a cut is in the
            way, ``NoProtocol`` if the factory builds none; all as Twisted's endpoints do.
        """
        return _Attempt(self, address(host, port), factory).deferred

    def listen(
        self, interface: str, port: int, factory: IProtocolFactory
    ) -> Deferred[IListeningPort]:
        """Accept connections; port 0 picks a free one.

        :returns: fires with the port, or fails with ``CannotListenError`` if the port is in use or
            the interface is not this host's.
        """
        if interface not in (self.address, *_EVERYWHERE):
            why = OSError(f"{interface} is no address of {self.address}")
            return fail(CannotListenError(interface, port, why))
        if port in self._ports:
            return fail(CannotListenError(interface, port, OSError("Address already in use")))
        listening = SimPort(self, port or self.free_port(), factory)
        listening.startListening()
        return succeed(listening)

    def pause(self) -> None:
        """Stop the process (SIGSTOP).  Its kernel still accepts connections and bytes."""
        self.clock.pause()

    def resume(self) -> None:
        """Let it go on: all that came due and all that came in meanwhile happens at once."""
        self.clock.resume()

    def crash(self) -> None:
        """Kill the process (SIGKILL): peers see resets, connects are refused, nothing runs."""
        self.crashed = True
        self.clock.kill()
        for transport in list(self.transports):
            transport.vanish()

    def free_port(self) -> int:
        """A port that was not in use yet."""
        self._last_port += 1
        return self.free_port() if self._last_port in self._ports else self._last_port

    def port(self, number: int) -> SimPort | None:
        """Who listens on this port."""
        return self._ports.get(number)

    def bind(self, port: SimPort, listening: bool) -> None:
        """Note that a port listens, or does not any more."""
        if listening:
            self._ports[port.number] = port
        elif self._ports.get(port.number) is port:
            del self._ports[port.number]

    def transport(
        self,
        here: Address,
        there: Address,
        opened: Callable[[SimTransport], None],
        closed: Callable[[], None] | None = None,
    ) -> SimTransport:
        """A new end of a connection, counted as ours until it is closed."""

        def forget(end: SimTransport) -> None:
            if end in self.transports:
                del self.transports[end]
                if closed is not None:
                    closed()

        made = SimTransport(self.clock, here, there, opened, forget)
        self.transports[made] = None
        return made


@implementer(IListeningPort)
class SimPort:
    """A listening port of a host."""

    def __init__(self, host: SimHost, number: int, factory: IProtocolFactory) -> None:
        self.number = number
        self._host = host
        self._factory = factory

    def startListening(self) -> None:
        """Accept connections from now on."""
        self._factory.doStart()
        self._host.bind(self, True)

    def stopListening(self) -> Deferred[None]:
        """Accept no more; connections that stand are left alone.  Fires in the next turn."""
        stopped: Deferred[None] = Deferred()
        if self._host.port(self.number) is self:
            self._host.bind(self, False)
            self._factory.doStop()
        self._host.clock.callLater(0, stopped.callback, None)
        return stopped

    def getHost(self) -> Address:
        """The address that it listens on."""
        return address(self._host.address, self.number)

    def accept(self, transport: SimTransport) -> None:
        """A connection reached the process: give it a protocol, or reset it."""
        listening = self._host.port(self.number) is self
        protocol = self._factory.buildProtocol(transport.there) if listening else None
        if protocol is None:
            transport.drop()
        else:
            transport.attach(protocol)


class _Attempt:
    """One connect, from the request to the protocol, the refusal or the timeout."""

    def __init__(self, host: SimHost, there: Address, factory: IProtocolFactory) -> None:
        self.deferred: Deferred[IProtocol] = Deferred(self._cancelled)
        self._host = host
        self._there = there
        self._factory = factory
        self._weather = host.network.weather
        self._transport: SimTransport | None = None
        self._refusal: SimCall | None = None
        self._over = False
        options = self._weather.options
        factory.doStart()
        self._deadline = host.clock.callLater(options.connect_timeout, self._fail, TimeoutError())
        self._request()

    def _request(self) -> None:
        under_way = self._weather.delay(self._host.address, self._there.host)
        self._weather.clock.callLater(under_way, self._reach)

    def _reach(self) -> None:
        """The request reaches the other kernel, or a cut swallows it."""
        here, there = self._host.address, self._there.host
        if self._over or self._host.crashed:
            return
        if self._weather.blocked(here, there) or self._weather.blocked(there, here):
            self._weather.clock.callLater(self._weather.options.connect_retry, self._request)
            return
        other = self._host.network.find(there)
        port = None if other is None else other.port(self._there.port)
        if other is None or port is None:
            back = self._weather.delay(there, here)
            self._refusal = self._host.clock.callLater(back, self._fail, ConnectionRefusedError())
            return
        mine = address(here, self._host.free_port())
        self._transport = self._host.transport(mine, self._there, self._open, self._closed)
        establish(self._weather, self._transport, other.transport(self._there, mine, port.accept))

    def _open(self, transport: SimTransport) -> None:
        """The answer came: the connection stands."""
        protocol = self._factory.buildProtocol(self._there)
        if protocol is None:
            self._fail(NoProtocol())
            return
        self._finish()
        transport.attach(protocol)
        self.deferred.callback(protocol)

    def _closed(self) -> None:
        if not self._host.crashed:
            self._factory.doStop()

    def _cancelled(self, deferred: Deferred[IProtocol]) -> None:
        self._fail(ConnectingCancelledError(self._there))

    def _fail(self, reason: Exception) -> None:
        if self._over:
            return
        self._finish()
        if self._transport is not None:
            self._transport.drop()
        else:
            self._factory.doStop()
        self.deferred.errback(Failure(reason))

    def _finish(self) -> None:
        self._over = True
        for call in (self._deadline, self._refusal):
            if call is not None and call.active():
                call.cancel()
