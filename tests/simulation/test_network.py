"""Hosts on the simulated network connect, listen and refuse as Twisted's endpoints do."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from subprocess import check_output

from twisted.internet import error
from twisted.internet.interfaces import (
    IConsumer,
    IListeningPort,
    IProtocol,
    IPushProducer,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from .clock import SimClock
from .network import SimHost, SimNetwork, SimPort
from .network_case import PORT, Listener, NetworkCase, Recorder
from .weather import ROUGH


class Connecting(NetworkCase):
    """From a connect to two protocols, or to the right failure."""

    def test_interfaces(self) -> None:
        """Transports and ports provide what Twisted's protocols expect."""
        client, _ = self.connected()
        for interface in (ITransport, ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, client.transport)
        verifyObject(IListeningPort, self.port)

    def test_connect(self) -> None:
        """Both sides get a protocol, after a delay, and know each other's address."""
        dialling = self.dial()
        self.assertNoResult(dialling)
        self.assertEqual(self.servers.made, [])
        client, server = self.connected()
        mine, theirs = client.transport.getHost(), client.transport.getPeer()
        self.assertEqual((theirs.host, theirs.port), ("10.0.0.2", PORT))
        self.assertEqual((mine.host, mine), ("10.0.0.1", server.transport.getPeer()))
        self.assertEqual(server.transport.getHost(), theirs)
        self.assertTrue(client.transport.connected)

    def test_to_itself(self) -> None:
        """A host can connect to itself, even when cut off."""
        self.network.cut(["10.0.0.2"], ["10.0.0.2", "10.0.0.1"])
        dialling = self.b.connect("10.0.0.2", PORT, Listener(self.clock))
        self.run_for(0.1)
        self.successResultOf(dialling)
        self.assertEqual(len(self.servers.made), 1)

    def test_refused(self) -> None:
        """Nobody on the port, or nobody at the address: refused after a delay, not at once."""
        for host, port in (("10.0.0.2", 1), ("10.9.9.9", PORT)):
            dialling = self.a.connect(host, port, Listener(self.clock))
            self.assertNoResult(dialling)
            self.run_for(0.1)
            self.failureResultOf(dialling, error.ConnectionRefusedError)
        self.assertEqual(self.a.transports, {})

    def test_no_protocol(self) -> None:
        """A factory that refuses: the client's own fails, the server's resets the client."""
        picky = Listener(self.clock)
        picky.refusing = True
        dialling = self.a.connect("10.0.0.2", PORT, picky)
        self.run_for(0.1)
        self.failureResultOf(dialling, error.NoProtocol)
        self.assertIs(self.servers.made[-1].lost, error.ConnectionLost)
        self.servers.refusing = True
        dialling = self.dial()
        self.run_for(0.1)
        client = self.successResultOf(dialling)
        assert isinstance(client, Recorder)
        self.assertIs(client.lost, error.ConnectionLost)
        self.assertEqual((self.a.transports, self.b.transports), ({}, {}))

    def test_cancel(self) -> None:
        """A cancelled connect fails as Twisted's does and leaves nothing behind, at any moment."""
        for steps in range(8):
            dialling = self.dial()
            for _ in range(steps):
                self.clock.step()
            if not dialling.called:
                dialling.cancel()
                self.failureResultOf(dialling, error.ConnectingCancelledError)
                self.run_for(40)
                self.assertEqual((self.a.transports, self.b.transports), ({}, {}), steps)
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_factory_life(self) -> None:
        """Client factories are started at connect and stopped once there is nothing left."""
        factory = Listener(self.clock)
        for port in (PORT, 1):
            dialling = self.a.connect("10.0.0.2", port, factory)
            self.assertEqual(factory.numPorts, 1)
            self.run_for(0.1)
            if port == PORT:
                self.successResultOf(dialling)
                factory.made[0].transport.loseConnection()
                self.run_for(0.1)
            else:
                self.failureResultOf(dialling)
            self.assertEqual(factory.numPorts, 0)

    def test_listen(self) -> None:
        """Ports: a free one on demand, none twice, only own interfaces, none after stopping."""
        listen = self.b.listen
        free = {self.successResultOf(listen("::", 0, self.servers)).getHost() for _ in range(3)}
        self.assertEqual(len(free), 3)
        self.failureResultOf(listen("", PORT, self.servers), error.CannotListenError)
        self.failureResultOf(listen("10.0.0.1", 5, self.servers), error.CannotListenError)
        self.assertIsInstance(self.port, SimPort)
        stopping = self.port.stopListening()
        assert stopping is not None
        self.assertNoResult(stopping)
        dialling = self.dial()
        self.run_for(0.1)
        self.successResultOf(stopping)
        self.failureResultOf(dialling, error.ConnectionRefusedError)
        self.successResultOf(listen("10.0.0.2", PORT, self.servers))


class Chatter(Int32StringReceiver):
    """Answers every number with the next one, in Twisted's own framing, to its end."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name

    def stringReceived(self, string: bytes) -> None:
        self.log.append(f"{self.name} {string!r}")
        if (number := int(string)) < 200:
            self.sendString(b"%d" % (number + 1))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.log.append(f"{self.name} {reason.value!r}")


class ChatterFactory(Factory):
    """Makes chatters that write into one log."""

    noisy = False

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name

    def buildProtocol(self, addr: object) -> Chatter:
        return Chatter(self.log, self.name)


def rough_run(seed: int) -> list[str]:
    """Six hosts that all talk to each other, through every fault there is: what they saw."""
    rng = Random(seed)
    clock = SimClock()
    network = SimNetwork(clock, rng, replace(ROUGH, reset_rate=0.005))
    log: list[str] = []
    hosts: list[SimHost] = [network.host(f"10.0.0.{n}") for n in range(6)]

    def begin_counting(made: IProtocol) -> None:
        assert isinstance(made, Chatter)
        made.sendString(b"0")

    def begin(host: SimHost) -> None:
        host.listen("", PORT, ChatterFactory(log, f"server {host.address}"))
        for other in network.hosts():
            factory = ChatterFactory(log, f"client {host.address} to {other.address}")
            dialling = host.connect(other.address, PORT, factory)
            dialling.addCallbacks(begin_counting, lambda failure: log.append(repr(failure.value)))

    for host in hosts:
        begin(host)
    for _ in range(12):
        addresses = [host.address for host in network.hosts()]
        rng.shuffle(addresses)
        network.cut(addresses[:2], addresses[2:], one_way=rng.random() < 0.5)
        network.slow(addresses[:1], 0.1, 0.5)
        network.reset(addresses[1], addresses[3])
        victim = network.find(addresses[4])
        assert victim is not None
        victim.pause()
        clock.run_until(clock.seconds() + rng.uniform(0, 0.2))
        network.heal()
        victim.resume()
        if rng.random() < 0.3:
            victim.crash()
            begin(network.host(victim.address))
        clock.run_until(clock.seconds() + rng.uniform(0, 0.2))
    network.calm()
    clock.run_until(clock.seconds() + 60)
    log.append(f"{clock.turn} turns, {clock.seconds()!r}")
    return log


class Determinism(SynchronousTestCase):
    """Same seed, same run, in every process."""

    def test_same_seed(self) -> None:
        """Twice the same; another seed is another run, in which much happened."""
        first, again, other = rough_run(1), rough_run(1), rough_run(2)
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)
        self.assertGreater(len(first), 1000)
        self.assertTrue(any("ConnectionLost" in line for line in first))

    def test_same_in_every_process(self) -> None:
        """Another process, which hashes strings differently, sees the very same."""
        here = rough_run(1)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONHASHSEED": "12345",
        }
        program = f"from {__name__} import rough_run; print('\\n'.join(rough_run(1)))"
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", program]
        there = check_output(command, env=environment, cwd=root, text=True)
        self.assertEqual(there.splitlines(), here)
