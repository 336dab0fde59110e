"""Rings of real processes: full, damaged, and mended again; this process reads and writes."""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from py2p_twisted.base import Peer, show_address
from py2p_twisted.errors import ChordError, RingFull, Unavailable
from py2p_twisted.service import ChordService

from .certificates import Authority
from .processes import NodeProcess, Processes, eventually, processes

#: What must never be in a log.
SECRET_KEY, SECRET_VALUE = "sesame-key", "sesame-value"


def some_keys(number: int) -> dict[bytes, bytes]:
    """So many keys with values."""
    return {f"{SECRET_KEY} {n}".encode(): f"{SECRET_VALUE} {n}".encode() for n in range(number)}


class ProcessCase(TestCase):
    """A client in this process, and nodes in others."""

    timeout = 60.0

    async def client(self, member: NodeProcess, **parameters: Any) -> ChordService:
        """A service in this process that is connected to a member."""
        service = ChordService(reactor, "127.0.0.1", 0, **parameters)
        service.startService()
        self.addCleanup(service.stopService)
        await service.connect(*member.address)
        return service

    async def readable(self, client: ChordService, written: dict[bytes, bytes]) -> None:
        """All of it can be read."""
        self.assertEqual(await client.get_many(written), written)

    def peer_of(self, client: ChordService, node: NodeProcess) -> Peer:
        """A node as the client knows it."""
        peers = client.node.core.directory.members()
        return next(peer for peer in peers if peer.address == node.address)

    def check_logs(self, nodes: Processes) -> None:
        """They tell of no key, no value and no accident."""
        for node in nodes.all:
            for word in (SECRET_KEY, SECRET_VALUE, "Traceback", "Unhandled"):
                self.assertNotIn(word, node.log, node.name)


class TestFull(ProcessCase):
    """Four processes at k=2."""

    async def test_four_and_a_fifth(self) -> None:
        """Three join the founder at once; a fifth is refused, and comes in when one leaves."""
        with processes(self.mktemp()) as nodes:
            (founder,) = await nodes.joined("--k", "2")
            through = ["--k", "2", "--join", show_address(*founder.address)]
            await nodes.joined(*through, number=3)
            client = await self.client(founder, k=2)
            written = some_keys(200)
            await client.update(written)
            error = None
            try:
                await client.join()
            except ChordError as refusal:
                error = refusal
            self.assertIsInstance(error, RingFull)
            fifth = nodes.start(*through)
            await eventually(lambda: fifth.says("Cannot join yet", "all 4 identifiers"), "refusal")
            nodes.all[2].send(signal.SIGTERM)
            await eventually(lambda: nodes.all[2].exit_code is not None, "the exit", 10)
            self.assertTrue(nodes.all[2].says("Left ring"))
            await eventually(lambda: fifth.says("Joined ring"), "the fifth")
            await self.readable(client, written)
            await client.stopService()
            self.check_logs(nodes)


class TestDamaged(ProcessCase):
    """Eight processes at k=6: one leaves, one freezes, one is killed."""

    async def test_eight(self) -> None:
        """The ring closes over what is gone, tells the story, and is mended by a recovery."""
        with processes(self.mktemp()) as nodes:
            (founder,) = await nodes.joined()
            await nodes.joined("--join", show_address(*founder.address), number=7)
            client = await self.client(founder, timeout=4.0)
            written = some_keys(400)
            await client.update(written)
            await eventually(
                lambda: len(list(client.node.core.directory.members())) == 8, "eight keepers"
            )
            _, leaver, frozen, victim, *_ = nodes.all
            await self.leave(client, leaver, written)
            await self.freeze(client, frozen, written)
            await self.kill(client, victim, written)
            await client.stopService()
            self.check_logs(nodes)

    async def leave(
        self, client: ChordService, leaver: NodeProcess, written: dict[bytes, bytes]
    ) -> None:
        """SIGTERM: its keys stay readable."""
        leaver.send(signal.SIGTERM)
        await eventually(lambda: leaver.exit_code is not None, "the leaver's exit", 10)
        self.assertEqual(leaver.exit_code, -signal.SIGTERM)
        self.assertTrue(leaver.says("Left ring"))
        await self.readable(client, written)

    async def freeze(
        self, client: ChordService, frozen: NodeProcess, written: dict[bytes, bytes]
    ) -> None:
        """SIGSTOP: closed over within 10 s; SIGCONT: it comes back by itself, with its keys."""
        peer = self.peer_of(client, frozen)
        frozen.send(signal.SIGSTOP)
        # What the issue demands, and a little for the looking on a busy machine.
        await eventually(lambda: self.owned(client, peer, False), "closing over the frozen", 11)
        frozen.send(signal.SIGCONT)
        await eventually(lambda: self.owned(client, peer, True), "the thawed one's return")
        await eventually(lambda: self.all_there(client, written), "the thawed one's keys")

    async def kill(
        self, client: ChordService, victim: NodeProcess, written: dict[bytes, bytes]
    ) -> None:
        """SIGKILL: closed over within 2 s; its keys are unavailable until the recovery."""
        peer = self.peer_of(client, victim)
        partitions = {
            config.partition
            for config in client.node.core.directory
            if config.members[0].instance == peer.instance
        }
        core = client.node.core
        lost = {key for key in written if core.partition(b"\0" + key) in partitions}
        self.assertTrue(lost)
        victim.send(signal.SIGKILL)
        await eventually(lambda: self.owned(client, peer, False), "closing over the killed", 3)
        error = None
        try:
            await client.get(min(lost))
        except ChordError as refusal:
            error = refusal
        self.assertIsInstance(error, Unavailable)
        left = {key: value for key, value in written.items() if key not in lost}
        await self.readable(client, left)
        report = await client.recover(accept_data_loss=True)
        self.assertEqual((report.lost, report.superseded), (len(partitions), False))
        await self.readable(client, left)
        await client.update(written)
        await self.readable(client, written)

    def owned(self, client: ChordService, peer: Peer, by_itself: bool) -> Deferred[bool]:
        """Do all members that the client can ask find the peer at its place, or all of them not?"""

        async def look() -> bool:
            links = [link.peer for link in client.node.core.ring_links()]
            asked = [other for other in links if other.instance != peer.instance]
            if not asked:
                return False
            for other in asked:
                try:
                    found = await client.node.finder.find_successor(peer.id, through=other)
                except ChordError:
                    return False
                owner = found.owner
                if (owner is not None and owner.instance == peer.instance) is not by_itself:
                    return False
            return True

        return Deferred.fromCoroutine(look())

    def all_there(self, client: ChordService, written: dict[bytes, bytes]) -> Deferred[bool]:
        """Can all be read?"""

        async def look() -> bool:
            try:
                return await client.get_many(written) == written
            except ChordError:
                return False

        return Deferred.fromCoroutine(look())


class TestEncrypted(ProcessCase):
    """Processes with certificates."""

    async def test_tls(self) -> None:
        """Two of one authority make a ring; one of another is refused, and all logs say so."""
        authority, elsewhere = Authority(), Authority("elsewhere")
        with processes(self.mktemp()) as nodes:
            folders = [authority.directory(str(nodes.folder / name)) for name in "abc"]
            foreign = elsewhere.directory(str(nodes.folder / "foreign"))
            (founder,) = await nodes.joined("--tls", folders[0])
            through = show_address(*founder.address)
            await nodes.joined("--tls", folders[1], "--join", through)
            stranger = nodes.start("--tls", foreign, "--join", through)
            await eventually(lambda: stranger.says("Cannot join yet", "certificate"), "refusal")
            await eventually(lambda: founder.says("was refused", "certificate"), "its log")
            client = await self.client(founder, tls=folders[2])
            written = some_keys(50)
            await client.update(written)
            await self.readable(client, written)
            await client.stopService()
            self.check_logs(nodes)
