"""chordctl against rings: what each command prints, for people and for programs, and its codes."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol

from py2p_twisted import __version__
from py2p_twisted.base import protocol
from py2p_twisted.cli.dump import Writer
from py2p_twisted.cli.frame import ExitCode
from py2p_twisted.cli.main import parse
from py2p_twisted.errors import Unavailable
from py2p_twisted.service import ChordService
from py2p_twisted.settings import Settings
from py2p_twisted.wire.endpoints import TwistedEndpoints
from py2p_twisted.wire.probe import probe

from .certificates import Authority
from .cli_case import CliCase, Ended
from .fakes import framed
from .processes import eventually, pause


class TestKeys(CliCase):
    """One key, and many."""

    async def test_text(self) -> None:
        """set, get, cas and del as people use them."""
        (node,) = await self.ring(1)
        peer = ("--peer", self.peer(node))
        self.assertEqual(await self.chordctl("set", "key", "value", *peer), (0, b"", ""))
        self.assertEqual(await self.chordctl("get", "key", *peer), (0, b"value", ""))
        self.assertEqual(await self.chordctl(*peer, "get", "key"), (0, b"value", ""))
        done = await self.chordctl("cas", "key", "value", "other", *peer)
        self.assertEqual(done, (0, b"", ""))
        no = await self.chordctl("cas", "key", "value", "third", *peer)
        self.assertEqual((no.code, no.out), (ExitCode.NO, b""))
        self.assertIn("another value is, or none, at 'key': nothing was changed", no.err)
        self.assertEqual((await self.chordctl("get", "key", *peer)).out, b"other")
        no = await self.chordctl("cas", "key", "--absent", "third", *peer)
        self.assertEqual(no.code, ExitCode.NO)
        self.assertEqual((await self.chordctl("cas", "new", "--absent", "1", *peer)).code, 0)
        self.assertEqual((await self.chordctl("cas", "new", "1", "--delete", *peer)).code, 0)
        self.assertIs(await node.get("new"), None)
        gone = await self.chordctl("del", "key", "absent", *peer)
        self.assertEqual((gone.code, gone.out), (ExitCode.NO, b""))
        self.assertIn("nothing was at 'absent'", gone.err)
        none = await self.chordctl("get", "key", *peer)
        self.assertEqual((none.code, none.out), (ExitCode.NO, b""))
        self.assertIn("nothing is at 'key'", none.err)

    async def test_binary(self) -> None:
        """Any bytes, from standard input, a file and base64, come out as they were."""
        (node,) = await self.ring(1)
        peer = ("--peer", self.peer(node))
        raw = bytes(range(256)) * 3 + b"\n"
        self.assertEqual((await self.chordctl("set", "one", *peer, stdin=raw)).code, 0)
        file = self.mktemp()
        Path(file).write_bytes(raw)
        self.assertEqual((await self.chordctl("set", "two", "--file", file, *peer)).code, 0)
        self.assertEqual((await self.chordctl("set", "three", "--file", "-", *peer)).code, 0)
        self.assertEqual((await self.chordctl("set", "--base64", "AP8=", "gA==", *peer)).code, 0)
        self.assertEqual(
            await node.get_many(["one", "two", "three", b"\0\xff"]),
            {b"one": raw, b"two": raw, b"three": b"", b"\0\xff": b"\x80"},
        )
        self.assertEqual((await self.chordctl("get", "one", *peer)).out, raw)
        found = await self.chordctl("get", "--base64", "AP8=", "--json", *peer)
        self.assertEqual(
            found.lines, [{"key_base64": "AP8=", "found": True, "value_base64": "gA=="}]
        )
        wrong = await self.chordctl("get", "--base64", "no base64", *peer)
        self.assertEqual(wrong.code, ExitCode.USAGE)
        key = os.fsdecode(b"\xfe")
        self.assertEqual((await self.chordctl("set", key, "raw", *peer)).code, 0)
        self.assertEqual(await node.get(b"\xfe"), b"raw")

    async def test_json(self) -> None:
        """One object for each."""
        (node,) = await self.ring(1)
        peer = ("--json", "--peer", self.peer(node))
        for arguments, code, printed in (
            (("set", "a", "ä"), 0, [{"key": "a", "done": True, "bytes": 2}]),
            (("get", "a"), 0, [{"key": "a", "found": True, "value": "ä"}]),
            (("get", "b"), 3, [{"key": "b", "found": False}]),
            (("cas", "a", "x", "y"), 3, [{"key": "a", "done": False}]),
            (("keys",), 0, [{"key": "a"}]),
            (("keys", "--count"), 0, [{"keys": 1}]),
            (
                ("del", "a", "b"),
                3,
                [{"key": "a", "deleted": True}, {"key": "b", "deleted": False}],
            ),
        ):
            ended = await self.chordctl(*peer, *arguments)
            self.assertEqual((ended.code, ended.lines, ended.err), (code, printed, ""))

    async def test_keys(self) -> None:
        """All, those with a prefix, the first few, how many; whatever they are made of."""
        (node,) = await self.ring(1)
        peer = ("--peer", self.peer(node))
        keys = {f"user/{number}".encode() for number in range(700)} | {b"other", b"a\nb"}
        await node.update(dict.fromkeys(keys, b""))
        everything = await self.chordctl("keys", "-0", *peer)
        self.assertEqual({*everything.out.split(b"\0")} - {b""}, keys)
        some = await self.chordctl("keys", "--prefix", "user/", *peer)
        self.assertEqual(len(some.out.splitlines()), 700)
        few = await self.chordctl("keys", "--prefix", "user/", "--limit", "3", *peer)
        self.assertEqual(len(few.out.splitlines()), 3)
        for arguments, number in ((("--count",), 702), (("--count", "--prefix", "o"), 1)):
            ended = await self.chordctl("keys", *arguments, *peer)
            self.assertEqual(ended.out, b"%d\n" % number)

    async def test_limits(self) -> None:
        """What the ring does not take is refused in a sentence."""
        (node,) = await self.ring(1)
        peer = ("--peer", self.peer(node))
        long_key = await self.chordctl("get", "k" * 5000, *peer)
        self.assertEqual(long_key.code, ExitCode.FAILED)
        self.assertIn("5000 bytes is over the limit of 4096", long_key.err)
        long = await self.chordctl("set", "key", *peer, stdin=bytes(1024 * 1024 + 1))
        self.assertEqual(long.code, ExitCode.FAILED)
        self.assertIn("over the limit of 1048576", long.err)
        longest = await self.chordctl("set", "key", *peer, stdin=bytes(20 * 1024 * 1024))
        self.assertEqual(longest.code, ExitCode.FAILED)
        self.assertIn("standard input is over the limit", longest.err)

    async def test_usage(self) -> None:
        """What contradicts itself is refused before anything happens."""
        (node,) = await self.ring(1)
        peer = ("--peer", self.peer(node))
        for arguments, words in (
            (("cas", "key", "old"), "say what is expected"),
            (("cas", "key", "old", "new", "--absent"), "say what is expected"),
            (("cas", "key", "old", "--delete", "--file", "x"), "say what is expected"),
            (("set", "key", "two", "words"), "quote it"),
            (("set", "key", "value", "--file", "x"), "not both"),
            (("get",), "required: KEY"),
            (("get", "key", "more"), "unrecognized arguments: more"),
            (("keys", "--limit", "0"), "from 1 to"),
            (("leave", "nowhere"), "must be HOST:PORT"),
            (("export", "--verify"), "name one"),
            *(
                (("get", "key", "--timeout", text), "at least 0.05")
                for text in ("0", "0.04", "nan")
            ),
        ):
            ended = await self.chordctl(*arguments, *peer)
            self.assertEqual((ended.code, ended.out), (ExitCode.USAGE, b""), arguments)
            self.assertIn(words, ended.err)


class TestWatch(CliCase):
    """watch."""

    async def test_events(self) -> None:
        """A line for each change, at once; it ends after so many, or when it is interrupted."""
        (node,) = await self.ring(1)
        await node.update({"user/1": "one", "other": "x"})
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.set_blocking(reading, False)
        arguments = ["watch", "--prefix", "user/", "--json", "--initial", "--limit", "4"]
        watching = self.begin(parse([*arguments, "--peer", self.peer(node)]), 0, writing)
        printed = b""

        async def event() -> dict[str, object]:
            nonlocal printed

            def there() -> bool:
                nonlocal printed
                with contextlib.suppress(BlockingIOError):
                    printed += os.read(reading, 65536)
                return b"\n" in printed

            await eventually(there, "an event")
            line, _, printed = printed.partition(b"\n")
            found: dict[str, object] = json.loads(line)
            self.assertIn("-", str(found.pop("version")))
            self.assertIs(found.pop("skipped"), False)
            return found

        told = await event()
        self.assertEqual(told, {"event": "add", "key": "user/1", "value": "one"})
        await node.set(b"user/\xff", "two")
        told = await event()
        self.assertEqual(told, {"event": "add", "key_base64": "dXNlci//", "value": "two"})
        await node.set("other", "y")
        await node.set("user/1", "three")
        told = await event()
        self.assertEqual(told, {"event": "change", "key": "user/1", "value": "three"})
        await node.delete("user/1")
        self.assertEqual(await event(), {"event": "delete", "key": "user/1"})
        self.assertEqual(await watching, 0)
        os.close(writing)
        text = await self.chordctl(
            "watch", "other", "--initial", "--limit", "1", "--peer", self.peer(node)
        )
        self.assertEqual((text.code, text.text), (0, "add     other  y\n"))
        for wrong in (("watch",), ("watch", "a", "b"), ("watch", "a", "--prefix", "b")):
            ended = await self.chordctl(*wrong, "--peer", self.peer(node))
            self.assertEqual(ended.code, ExitCode.USAGE)
        interrupted = self.begin(parse(["watch", "other", "--peer", self.peer(node)]), 0, 1)
        await pause(0.3)
        interrupted.cancel()
        interrupted.addErrback(lambda failure: failure.trap(CancelledError))
        self.assertIs(await interrupted, CancelledError)


class TestWhere(CliCase):
    """Which ring."""

    async def test_any_network(self) -> None:
        """k, subnet and number of copies are learned from the peer."""
        (node,) = await self.ring(1, k=11, prot=protocol('it\'s "another"', "Plaintext"))
        peer = ("--peer", self.peer(node))
        self.assertEqual((await self.chordctl("set", "key", "value", *peer)).code, 0)
        self.assertEqual(await node.get("key"), b"value")

    async def test_tls(self) -> None:
        """With the folder of a client of the same authority; what is wrong is said otherwise."""
        authority = Authority()
        folder, client = (authority.directory(self.mktemp()) for _ in range(2))
        (node,) = await self.ring(1, tls=folder)
        peer = ("--peer", self.peer(node))
        self.assertEqual((await self.chordctl("set", "k", "v", "--tls", client, *peer)).code, 0)
        os.environ["CHORD_TLS"] = client
        self.addCleanup(os.environ.pop, "CHORD_TLS", None)
        self.assertEqual((await self.chordctl("get", "k", *peer)).out, b"v")
        healthy = await self.chordctl("doctor", "--json", *peer)
        self.assertIn("certificate", [line["what"] for line in healthy.lines])
        del os.environ["CHORD_TLS"]
        plain = await self.chordctl("get", "k", *peer)
        self.assertEqual(plain.code, ExitCode.UNREACHABLE)
        self.assertIn("speaks TLS and this node plain text", plain.err)
        stranger = Authority().directory(self.mktemp())
        refused = await self.chordctl("get", "k", "--tls", stranger, *peer)
        self.assertEqual(refused.code, ExitCode.UNREACHABLE)
        self.assertIn("certificate", refused.err)
        nothing = await self.chordctl("get", "k", "--tls", self.mktemp(), *peer)
        self.assertEqual(nothing.code, ExitCode.FAILED)
        for arguments, words in (
            (("--tls", stranger), "chordctl tls issue"),
            ((), "say --tls DIR"),
        ):
            sick = await self.chordctl("doctor", *arguments, *peer)
            self.assertEqual(sick.code, ExitCode.FAILED)
            self.assertIn(words, sick.text)

    async def test_encrypted_without_authority(self) -> None:
        """A ring that encrypts, and does not check who is there."""
        (node,) = await self.ring(1, prot=protocol("chord", "SSL"))
        peer = ("--peer", self.peer(node))
        done = await self.chordctl("set", "k", "v", "--encryption", "SSL", *peer)
        self.assertEqual(done.code, 0)
        self.assertEqual(await node.get("k"), b"v")

    async def test_nobody(self) -> None:
        """Nobody listens, somebody else does, or a node that is in no ring."""
        alone = ChordService(reactor, "127.0.0.1", 0)
        alone.startService()
        self.addCleanup(alone.stopService)

        class Talker(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"220 mail.example ESMTP\r\n")

        port = reactor.listenTCP(0, Factory.forProtocol(Talker), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        for where, words in (
            ("127.0.0.1:1", "refused the connection"),
            (
                f"127.0.0.1:{port.getHost().port}",
                "sent what is no message: something listens there that",
            ),
            (self.peer(alone), "is in no ring yet"),
        ):
            for command in (("get", "key"), ("status",), ("export",)):
                ended = await self.chordctl(*command, "--peer", where)
                self.assertEqual((ended.code, ended.out), (ExitCode.UNREACHABLE, b""))
                self.assertIn(words, ended.err)
            sick = await self.chordctl("doctor", where)
            self.assertEqual(sick.code, ExitCode.FAILED)
            self.assertIn("1 to mend", sick.text)
            self.assertEqual("name the --port of the node" in sick.text, "no message" in words)

    async def test_timeout(self) -> None:
        """It bounds connecting: to who says nothing, and to who says HELLO to the first only."""
        (node,) = await self.ring(1)
        hello = await probe(reactor, TwistedEndpoints(reactor), None, node.out_addr)

        class Greeter(Protocol):
            greeted = False

            def connectionMade(self) -> None:
                assert self.transport is not None
                if not Greeter.greeted:
                    self.transport.write(framed(hello))
                Greeter.greeted = True

        for kind, words in (
            (Protocol, "said nothing for 0.3 s"),
            (Greeter, "could not be connected to in 0.3 s"),
        ):
            port = reactor.listenTCP(0, Factory.forProtocol(kind), interface="127.0.0.1")  # type: ignore[attr-defined]
            self.addCleanup(port.stopListening)
            began = reactor.seconds()  # type: ignore[attr-defined]
            peer = f"127.0.0.1:{port.getHost().port}"
            ended = await self.chordctl("--timeout", "0.3", "--peer", peer, "get", "key")
            self.assertEqual(ended.code, ExitCode.UNREACHABLE)
            self.assertIn(words, ended.err)
            self.assertLess(reactor.seconds() - began, 3)  # type: ignore[attr-defined]

    async def test_several_peers(self) -> None:
        """The first that answers is taken, from the command line or the environment."""
        (node,) = await self.ring(1)
        there = self.peer(node)
        self.assertEqual((await self.chordctl("keys", "--peer", f"127.0.0.1:1,{there}")).code, 0)
        twice = ("--peer", "127.0.0.1:1", "--peer", there)
        self.assertEqual((await self.chordctl(*twice, "keys")).code, 0)
        os.environ["CHORD_PEER"] = there
        self.addCleanup(os.environ.pop, "CHORD_PEER", None)
        self.assertEqual((await self.chordctl("keys")).code, 0)
        os.environ["CHORD_PEER"] = "nowhere"
        wrong = await self.chordctl("keys")
        self.assertEqual(wrong.code, ExitCode.USAGE)
        self.assertIn("CHORD_PEER must be HOST:PORT", wrong.err)


class TestLooking(CliCase):
    """status, ring and doctor."""

    async def test_well(self) -> None:
        """A ring of three that is well."""
        nodes = await self.ring(3, replicas=3)
        await nodes[0].update({f"key {number}": "value" for number in range(1234)})
        peer = ("--peer", self.peer(nodes[0]))

        async def settled() -> bool:
            ended = await self.chordctl("status", "--json", *peer)
            return ended.lines[0]["copies"] == 3 * 1234 and "All is well" in ended.text

        await eventually(lambda: Deferred.fromCoroutine(settled()), "well")
        (status,) = (await self.chordctl("status", "--json", *peer)).lines
        self.assertEqual(status["nodes"], 3)
        self.assertEqual((status["keys"], status["unreachable"]), (1234, 0))
        self.assertEqual((status["k"], status["replicas"], status["subnet"]), (6, 3, "chord"))
        self.assertEqual((status["below_strength"], status["without_quorum"]), (0, 0))
        self.assertEqual(status["versions"], [__version__])
        text = (await self.chordctl("status", *peer)).text
        for words in ("1,234, 3 copies", "3 of 64", "64, all at full strength", "All is well."):
            self.assertIn(words, text)
        found = (await self.chordctl("ring", "--json", *peer)).lines
        self.assertEqual({line["address"] for line in found}, {self.peer(node) for node in nodes})
        identifiers = [line["identifier"] for line in found]
        self.assertEqual(identifiers, sorted(identifiers))
        self.assertAlmostEqual(sum(line["share"] for line in found), 1.0, places=2)
        for line in found:
            self.assertEqual((line["state"], line["keys"]), ("well", 1234))
            self.assertLess(line["round_trip_seconds"], 1)
            self.assertEqual(line["suspected_by"], [])
        picture = (await self.chordctl("ring", *peer)).text
        for node in nodes:
            self.assertIn(self.peer(node), picture)
        self.assertIn("3 nodes", picture)
        self.assertNotIn("\x1b", picture)
        colored = await self.chordctl("ring", "--color", "always", *peer)
        self.assertIn("\x1b[", colored.text)
        doctor = await self.chordctl("doctor", *peer)
        self.assertEqual(doctor.code, 0, doctor.text)
        self.assertIn("All is well.", doctor.text)
        both = await self.chordctl("doctor", self.peer(nodes[1]), "--json", *peer)
        self.assertEqual(both.code, 0)
        self.assertEqual({line["level"] for line in both.lines}, {"good"})
        self.assertIn("same ring", [line["what"] for line in both.lines])

    async def test_two_rings(self) -> None:
        """The doctor sees that two nodes are not in one ring, or not in one network."""
        (one,), (other,) = await self.ring(1), await self.ring(1)
        (third,) = await self.ring(1, k=7)
        for node, words in ((other, "is in another ring"), (third, "k is 6 at")):
            sick = await self.chordctl("doctor", self.peer(one), "--peer", self.peer(node))
            self.assertEqual(sick.code, ExitCode.FAILED)
            self.assertIn(words, sick.text)

    async def test_older_member(self) -> None:
        """A member of an older version cannot be asked how it is; all else goes on."""
        (one,) = await self.ring(1)
        old = await self.node([one.out_addr], settings=Settings(wire_version=2))
        await eventually(lambda: len(old.node.core.acceptors) == 64, "it keeps all groups")
        peer = ("--peer", self.peer(one))
        self.assertEqual((await self.chordctl("set", "key", "value", *peer)).code, 0)
        self.assertEqual(await old.get("key"), b"value")
        nodes = (await self.chordctl("ring", "--json", *peer)).lines
        (told,) = [line for line in nodes if line["address"] == self.peer(old)]
        self.assertEqual((told["state"], told["reachable"]), ("tells nothing", True))
        self.assertIn("upgrade it", told["problem"])
        ended = await self.chordctl("doctor", *peer)
        self.assertEqual(ended.code, 0, ended.text)
        self.assertIn("tells nothing of itself", ended.text)
        leaving = await self.chordctl("leave", self.peer(old))
        self.assertNotEqual(leaving.code, 0)
        self.assertFalse(old.leeching)

    async def test_few_copies(self) -> None:
        """A node alone keeps less than was asked for, which is no fault."""
        (node,) = await self.ring(1)
        ended = await self.chordctl("doctor", self.peer(node))
        self.assertEqual(ended.code, 0)
        self.assertIn("start 4 more", ended.text)
        self.assertIn("Nothing is broken; 1 to know.", ended.text)


class TestExport(CliCase):
    """export and import."""

    async def test_there_and_back(self) -> None:
        """What is exported can be imported into another ring, whatever it is made of."""
        (one,), (other,) = await self.ring(1), await self.ring(1, k=3)
        things = {b"key %d" % number: bytes([number % 256]) * number for number in range(1500)}
        things |= {b"\xff\0": b"\xfe", b"": b"", "schlüssel".encode(): "wert\n\u2028".encode()}
        await one.update(things)
        file = self.mktemp()
        ended = await self.chordctl("export", file, "--verify", "--peer", self.peer(one))
        self.assertEqual((ended.code, ended.out), (0, b""))
        self.assertIn("the file is whole, and the ring has the same", ended.err)
        self.assertFalse(os.path.exists(f"{file}.part"))
        written = Path(file).read_bytes().splitlines()
        self.assertEqual(len(written), len(things) + 2)
        self.assertEqual(json.loads(written[-1])["keys"], len(things))
        loaded = await self.chordctl("import", file, "--verify", "--peer", self.peer(other))
        self.assertEqual((loaded.code, loaded.out), (0, b""))
        self.assertIn("1,503 keys, and read them back", loaded.err)
        self.assertEqual(await other.get_many(things), things)
        self.assertEqual(await other.count(), len(things))
        stream = await self.chordctl("export", "--prefix", "key 1", "--peer", self.peer(other))
        chosen = {key for key in things if key.startswith(b"key 1")}
        self.assertEqual(len(stream.lines), len(chosen) + 2)
        await one.clear()
        again = await self.chordctl(
            "import", "--json", "--peer", self.peer(one), stdin=stream.out
        )  # fmt: skip
        self.assertEqual((again.code, again.lines[0]["keys"]), (0, len(chosen)))
        self.assertEqual(await one.get_many(things), {key: things[key] for key in chosen})

    async def load(self, node: ChordService, content: bytes, *more: str) -> Ended:
        """Import some bytes from a file."""
        file = self.mktemp()
        Path(file).write_bytes(content)
        return await self.chordctl("import", file, *more, "--peer", self.peer(node))

    async def test_damaged(self) -> None:
        """A file that is not whole is refused before anything is written."""
        (node,) = await self.ring(1)
        writer = Writer()
        lines = [writer.head(), *(writer.item(b"%d" % n, b"v") for n in range(3)), writer.end()]
        whole = b"".join(lines)
        for content, words in (
            (b"".join(lines[:-1]), "last line is missing"),
            (whole[:60], "it was cut short" if whole[59:60] == b"\n" else "cut short"),
            (whole.replace(b'"v"', b'"w"'), "SHA-256"),
            (b"".join(lines[:2] + lines[3:]), "ends with 3 keys, and has 2"),
            (whole + b'{"key": "x", "value": ""}\n', "follows the last line"),
            (b"".join(lines[1:]), "first line"),
            (whole.replace(b'"chordctl_export": 1', b'"chordctl_export": 9'), "format 9"),
            (b"", "it is empty"),
            (lines[0] + b"nonsense\n", "line 2: it is no JSON"),
            (lines[0] + b"[]\n", "line 2: it is no JSON object"),
            (lines[0] + b'{"key": "x"}\n', 'it needs either "value" or "value_base64"'),
            (lines[0] + b'{"key": 7, "value": ""}\n', "must be text"),
            (lines[0] + b'{"key_base64": "\xc3\xa4", "value": ""}\n', "is not base64"),
        ):
            ended = await self.load(node, content)
            self.assertEqual((ended.code, ended.out), (ExitCode.FAILED, b""), words)
            self.assertIn(words, ended.err)
            self.assertIn("Nothing was written", ended.err)
        self.assertEqual(await node.count(), 0)

    async def test_loose(self) -> None:
        """Lines that somebody made, with no first and last one."""
        (node,) = await self.ring(1)
        lines = b'{"key": "a", "value": "1", "comment": "mine"}\n\n{"key": "b", "value": "2"}'
        self.assertEqual((await self.load(node, lines)).code, ExitCode.FAILED)
        ended = await self.load(node, lines, "--loose", "--json")
        self.assertEqual((ended.code, ended.lines[0]["keys"]), (0, 2))
        self.assertEqual(await node.get_many(["a", "b"]), {b"a": b"1", b"b": b"2"})

    async def test_streams(self) -> None:
        """Pipes: what is slow does not stop the reactor; what ends early has said what it wrote."""
        (node,) = await self.ring(1)
        await node.update({f"key {number}": "v" * 1000 for number in range(500)})
        read_end, write_end = os.pipe()
        exporting = self.begin(parse(["export", "--peer", self.peer(node)]), 0, write_end)
        os.set_blocking(read_end, False)
        got = b""
        while not exporting.called:
            await pause(0.005)
            self.assertEqual(await node.get("key 1"), b"v" * 1000)  # the reactor goes on
            with contextlib.suppress(BlockingIOError):
                got += os.read(read_end, 65536)
        os.close(write_end)
        while more := os.read(read_end, 65536):
            got += more
        os.close(read_end)
        self.assertEqual(await exporting, 0)
        self.assertEqual(len(got.splitlines()), 502)
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        importing = self.begin(parse(["import", "--peer", self.peer(node)]), read_end, 1)
        for start in range(0, 50_000, 5_000):
            os.write(write_end, got[start : start + 5_000])
            await pause(0.002)
            self.assertFalse(importing.called)
        os.close(write_end)
        with self.assertRaisesRegex(Exception, "cut short.* keys were written before"):
            await importing

    async def test_reader_goes_away(self) -> None:
        """A broken pipe ends the command."""
        (node,) = await self.ring(1)
        await node.update({f"key {number}": "v" * 1000 for number in range(500)})
        read_end, write_end = os.pipe()
        exporting = self.begin(parse(["export", "--peer", self.peer(node)]), 0, write_end)
        os.close(read_end)
        with self.assertRaises(BrokenPipeError):
            await exporting
        os.close(write_end)

    async def test_cancelled(self) -> None:
        """What is interrupted leaves no half file, and no key of its own."""
        (node,) = await self.ring(1)
        await node.update({f"key {number}": "v" * 1000 for number in range(3000)})
        file = self.mktemp()
        exporting = self.begin(parse(["export", file, "--peer", self.peer(node)]), 0, 1)
        while not os.path.exists(f"{file}.part"):
            await pause(0.001)
        exporting.cancel()
        exporting.addErrback(lambda _: None)
        await exporting
        self.assertEqual((os.path.exists(file), os.path.exists(f"{file}.part")), (False, False))
        bench = self.begin(parse(["bench", "--peer", self.peer(node)]), 0, 1)
        await eventually(lambda: node.count().addCallback(lambda keys: keys > 3000), "writes")
        bench.cancel()
        bench.addErrback(lambda _: None)
        await bench
        self.assertEqual(await node.count(), 3000)


class TestRing(CliCase):
    """bench, leave and recover."""

    async def test_bench(self) -> None:
        """It measures, and leaves nothing behind."""
        (node,) = await self.ring(1)
        arguments = ("--seconds", "1", "--in-flight", "4", "--keys", "50", "--size", "5000")
        peer = ("--peer", self.peer(node))
        ended = await self.chordctl("bench", "--json", *arguments, *peer)
        self.assertEqual([line["operation"] for line in ended.lines], ["set", "get"])
        for line in ended.lines:
            self.assertGreater(line["per_second"], 10)
            self.assertEqual((line["in_flight"], line["value_bytes"]), (4, 5000))
            times = line["seconds"]
            self.assertTrue(0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"] < 1)
        self.assertEqual(await node.count(), 0)
        for bad in (("--keys", "0"), ("--size", "2000000")):
            self.assertEqual((await self.chordctl("bench", *bad, *peer)).code, ExitCode.USAGE)

    async def test_leave(self) -> None:
        """A member hands over and leaves; the last one keeps what it has."""
        one, other = await self.ring(2)
        await one.update({f"key {number}": "value" for number in range(50)})
        ended = await self.chordctl("leave", self.peer(other), "--json")
        self.assertEqual((ended.code, ended.lines), (0, [{"left": self.peer(other)}]))
        self.assertTrue(other.leeching)
        self.assertEqual(await one.count(), 50)
        last = await self.chordctl("leave", self.peer(one))
        self.assertEqual((last.code, last.out), (ExitCode.FAILED, b""))
        self.assertIn("it is the last one", last.err)
        self.assertNotIn("unjoin", last.err)
        self.assertEqual(await one.count(), 50)
        again = await self.chordctl("leave", self.peer(other))
        self.assertEqual(again.code, ExitCode.FAILED)
        self.assertIn("not a member", again.err)

    async def test_recover(self) -> None:
        """Only who accepts the loss; a ring that is well has nothing to recover."""
        (node,) = await self.ring(1)
        await node.set("key", "value")
        peer = ("--peer", self.peer(node))
        asked = await self.chordctl("recover", *peer)
        self.assertEqual((asked.code, asked.out), (ExitCode.USAGE, b""))
        self.assertIn("nothing was done, nor is it needed", asked.err)
        done = await self.chordctl("recover", "--accept-data-loss", *peer)
        self.assertEqual((done.code, done.err), (0, ""))
        self.assertIn("Nothing to recover", done.text)
        told = await self.chordctl("recover", "--accept-data-loss", "--json", *peer)
        self.assertEqual(
            told.lines,
            [{"era": 0, "kept": 64, "reformed": 0, "lost": 0, "keys": 0, "superseded": False}],
        )
        self.assertEqual(await node.get("key"), b"value")

    async def test_outcome_unknown(self) -> None:
        """Whether it was done is not always known, and has a code of its own."""
        from py2p_twisted.cli.main import code_of

        self.assertEqual(code_of(Unavailable("x", outcome_unknown=True)), ExitCode.UNKNOWN)
        self.assertEqual(code_of(Unavailable("x")), ExitCode.FAILED)
