"""What a socket has of a ``dict``, on a simulated ring of two nodes; and what becomes of the log.

The threads and processes of the blocking face are in :mod:`.test_chord_process`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping
from random import Random
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted import base, chord
from py2p_twisted.chord import logs
from py2p_twisted.chord.dictionary import Dictionary
from py2p_twisted.errors import KeyTooLarge, ValueTooLarge
from py2p_twisted.service import ChordService

from .simulation.clock import SimClock
from .simulation.network import SimNetwork

PORT = 4444
KEYS = [b"", b"\0", b"key", "schl\u00fcssel \U0001f511".encode(), *(b"%d" % n for n in range(20))]
VALUES = [b"", b"\0", b"value", "\u00e4".encode(), b"x" * 1000]

Model = MutableMapping[bytes, bytes]


class SimDictionary(Dictionary):
    """The dictionary of a service whose clock stands still unless somebody waits.

    :ivar waits: how often somebody waited.
    """

    def __init__(self, clock: SimClock, service: ChordService) -> None:
        self._clock = clock
        self._service = service
        self.waits = 0

    def _wait(
        self, function: Callable[..., Any], *arguments: Any, steps: int = 1, write: bool = False
    ) -> Any:
        self.waits += 1
        results: list[Any] = []
        running: Deferred[Any] = maybeDeferred(function, *arguments)
        running.addBoth(results.append)
        assert self._clock.run_while(lambda: not results, steps * 10.0), "it takes too long"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


def some(rng: Random) -> dict[bytes, bytes]:
    """A few keys with values."""
    return {rng.choice(KEYS): rng.choice(VALUES) for _ in range(rng.randrange(9))}


#: All that can be done with a dict of bytes, as (how often, what).
OPERATIONS: list[tuple[int, Callable[[Model, Random], Any]]] = [
    (9, lambda d, r: d[r.choice(KEYS)]),
    (9, lambda d, r: d.get(r.choice(KEYS))),
    (3, lambda d, r: d.get(r.choice(KEYS), b"default")),
    (9, lambda d, r: d.__setitem__(r.choice(KEYS), r.choice(VALUES))),
    (9, lambda d, r: d.__delitem__(r.choice(KEYS))),
    (9, lambda d, r: r.choice(KEYS) in d),
    (3, lambda d, r: len(d)),
    (3, lambda d, r: bool(d)),
    (3, lambda d, r: sorted(d)),
    (3, lambda d, r: sorted(d.keys())),
    (3, lambda d, r: sorted(d.values())),
    (3, lambda d, r: sorted(d.items())),
    (3, lambda d, r: (len(d.keys()), len(d.values()), len(d.items()))),
    (3, lambda d, r: r.choice(KEYS) in d.keys()),  # noqa: SIM118
    (3, lambda d, r: r.choice(VALUES) in d.values()),
    (3, lambda d, r: (r.choice(KEYS), r.choice(VALUES)) in d.items()),
    (3, lambda d, r: d.keys() & some(r).keys()),
    (3, lambda d, r: d.items() - some(r).items()),
    (3, lambda d, r: d.keys() == some(r).keys()),
    (6, lambda d, r: d.pop(r.choice(KEYS))),
    (6, lambda d, r: d.pop(r.choice(KEYS), None)),
    (6, lambda d, r: d.setdefault(r.choice(KEYS), r.choice(VALUES))),
    (3, lambda d, r: d.update(some(r))),
    (3, lambda d, r: d.update(iter(some(r).items()))),
    (1, lambda d, r: d.clear()),
    (1, lambda d, r: d.popitem() if not d else None),
]


def outcome(operation: Callable[[Model, Random], Any], mapping: Model, seed: int) -> Any:
    """What an operation returns, or the type and arguments of what it raises."""
    try:
        return operation(mapping, Random(seed))
    except KeyError as error:
        return KeyError, error.args if error.args[0] in KEYS else ()


class DictionaryTests(SynchronousTestCase):
    """One dictionary, seen from a member and from a node that is only connected."""

    def setUp(self) -> None:
        """Two members and a guest."""
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, Random(1))
        self.member, self.other, self.guest = (self.open(f"10.0.0.{n}") for n in (1, 2, 3))
        self.member._wait(self.member._service.join)
        for one in (self.other, self.guest):
            one._wait(one._service.connect, "10.0.0.1", PORT)
        self.other._wait(self.other._service.join)
        self.clock.run_until(self.clock.seconds() + 5)
        self.assertTrue(self.other._service.node.core.acceptors, "the other has no share")

    def open(self, address: str) -> SimDictionary:
        """A node that listens."""
        host = self.network.host(address)
        service = ChordService(
            host.clock, address, PORT, k=4, rng=Random(address), endpoints=host
        )  # fmt: skip
        service.startService()
        return SimDictionary(self.clock, service)

    def test_like_a_dict(self) -> None:
        """A seeded sequence of everything, through both nodes, does what a dict does."""
        rng = Random(7)
        model: dict[bytes, bytes] = {}
        weights = [often for often, _ in OPERATIONS]
        for step in range(2000):
            (number,) = rng.choices(range(len(OPERATIONS)), weights)
            operation, seed = OPERATIONS[number][1], rng.getrandbits(32)
            node = rng.choice((self.member, self.guest))
            expected = outcome(operation, model, seed)
            self.assertEqual(outcome(operation, node, seed), expected, (step, number))
        self.assertEqual(dict(self.guest.items()), model)

    def test_popitem(self) -> None:
        """Each item once, in some order; then KeyError."""
        model = {key: b"value of " + key for key in KEYS}
        self.guest.update(model)
        popped = [self.guest.popitem() for _ in KEYS]
        self.assertEqual(dict(popped), model)
        self.assertRaises(KeyError, self.guest.popitem)

    def test_text(self) -> None:
        """Text stands for its UTF-8 bytes, and all that is bytes-like for its bytes."""
        guest = self.guest
        guest["schl\u00fcssel"] = "\u00e4"
        guest[bytearray(b"array")] = memoryview(b"view")
        guest.update(keyword="argument")
        expected = {
            "schl\u00fcssel".encode(): "\u00e4".encode(),
            b"array": b"view",
            b"keyword": b"argument",
        }
        self.assertEqual(dict(guest.items()), expected)
        self.assertEqual(guest.get_many(["keyword", b"array", "none"]), {
            b"keyword": b"argument", b"array": b"view",
        })  # fmt: skip
        self.assertEqual(guest.pop("keyword"), b"argument")
        self.assertIn("array", guest)
        self.assertIn(("array", "view"), guest.items())
        self.assertNotIn(("array", 1), guest.items())
        self.assertNotIn(("none", None), guest.items())
        self.assertNotIn("array", guest.items())
        self.assertIn("\u00e4", guest.values())
        self.assertNotIn(None, guest.values())
        self.assertTrue(guest.compare_and_set("array", "view", "new"))
        self.assertFalse(guest.compare_and_set("array", None, "newer"))
        self.assertTrue(guest.compare_and_set("absent", None, "there"))
        self.assertEqual(self.member["absent"], b"there")

    def test_key_error_names_the_key(self) -> None:
        """As the user wrote it."""
        for fails in (
            lambda: self.guest["none"],
            lambda: self.guest.pop("none"),
            lambda: self.guest.__delitem__("none"),
        ):
            self.assertEqual(self.assertRaises(KeyError, fails).args, ("none",))

    def test_wrong_types(self) -> None:
        """TypeError, with what was expected, and nothing is sent."""
        guest = self.guest
        waits = guest.waits
        bad: Any
        for bad in (None, 1, 1.5, ["a"], object()):
            for fails in (
                lambda bad=bad: guest[bad],
                lambda bad=bad: guest.get(bad),
                lambda bad=bad: bad in guest,
                lambda bad=bad: guest.pop(bad, None),
                lambda bad=bad: guest.set(bad, "value"),
                lambda bad=bad: guest.set("key", bad),
                lambda bad=bad: guest.update({"key": bad}),
                lambda bad=bad: guest.update([("good", "good"), (bad, "value")]),
                lambda bad=bad: guest.get_many(["key", bad]),
                lambda bad=bad: guest.setdefault(bad, "value"),
                lambda bad=bad: guest.compare_and_set(bad, None, "value"),
            ):
                error = self.assertRaises(TypeError, fails)
                self.assertIn("must be bytes-like or str, not", str(error))
        self.assertEqual(guest.waits, waits)
        self.assertRaises(TypeError, guest.setdefault, "key")
        self.assertRaises(TypeError, guest.pop, "key", 1, 2)
        self.assertEqual(len(guest), 0)

    def test_limits(self) -> None:
        """Too long is an error; as long as allowed is not."""
        self.guest[b"k" * 4096] = b"v" * 2**20
        self.assertEqual(self.member[b"k" * 4096], b"v" * 2**20)
        self.assertRaises(KeyTooLarge, self.guest.set, b"k" * 4097, b"")
        self.assertRaises(KeyTooLarge, self.guest.get, b"k" * 4097)
        self.assertRaises(ValueTooLarge, self.guest.set, b"k", b"v" * (2**20 + 1))

    def test_update_reads_as_it_writes(self) -> None:
        """Pairs that come from elsewhere are never held all at once."""
        seen: list[int] = []

        def pairs() -> Iterator[tuple[str, str]]:
            for number in range(20_000):
                if number % 5000 == 0:
                    seen.append(len(self.member))
                yield str(number), ""

        self.guest.update(pairs())
        self.assertEqual(seen, [0, 0, 8192, 8192])
        self.assertEqual(len(self.guest), 20_000)

    def test_update_from_what_has_keys(self) -> None:
        """As ``dict.update``; another socket will do as well."""
        with_keys = SimpleNamespace(keys=lambda: ["a", "b"])

        class Table:
            def keys(self) -> list[str]:
                return with_keys.keys()  # type: ignore[no-any-return]

            def __getitem__(self, key: str) -> str:
                return key * 2

        self.guest.update(Table(), c="cc")
        self.assertEqual(dict(self.guest.items()), {b"a": b"aa", b"b": b"bb", b"c": b"cc"})
        self.guest.update(self.member)
        self.assertEqual(len(self.guest), 3)
        self.assertRaises(ValueError, self.guest.update, ["abc"])

    def test_pages(self) -> None:
        """Iterating takes a page at a time, and not one request for each item."""
        self.guest.update({str(number): "v" * 100 for number in range(3000)})
        for view in (self.guest, self.guest.items(), self.guest.values()):
            self.guest.waits = 0
            iterator = iter(view)
            self.assertEqual(self.guest.waits, 0)
            next(iterator)
            self.assertEqual(self.guest.waits, 1)
            self.assertEqual(1 + sum(1 for _ in iterator), 3000)
            self.assertLess(self.guest.waits, 10)
        self.guest.update({str(number): "v" * 100_000 for number in range(50)})
        self.guest.waits = 0
        self.assertEqual(max(map(len, self.guest.values())), 100_000)
        self.assertGreater(self.guest.waits, 20)  # large values make short pages

    def test_abandoned_iteration(self) -> None:
        """Stopping half-way leaves nothing behind."""
        self.guest.update({str(number): "" for number in range(3000)})
        for _ in self.guest:
            break
        for _ in self.guest.items():
            break
        self.guest.clear()
        self.assertEqual((len(self.guest), list(self.guest), bool(self.guest)), (0, [], False))

    def test_identity(self) -> None:
        """Two nodes of one ring are not the same, whatever they show; they can be in sets."""
        self.assertNotEqual(self.guest, self.member)
        self.assertNotEqual(self.guest, {})
        self.assertEqual(len({self.guest, self.member, self.guest}), 2)


class NamesTests(SynchronousTestCase):
    """What the module is called by."""

    def test_names(self) -> None:
        """One class with two names, and the documented protocol."""
        self.assertIs(chord.chord_socket, chord.ChordSocket)
        self.assertEqual(chord.default_protocol, base.protocol("chord", "Plaintext"))
        self.assertTrue(issubclass(chord.ChordSocket, MutableMapping))


class Kept(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class LogTests(SynchronousTestCase):
    """From Twisted's log to Python's."""

    def setUp(self) -> None:
        """Listen to the package's logger, and leave it as it was."""
        self.logger = logging.getLogger("py2p_twisted")
        self.kept = Kept()
        before = self.logger.level, self.logger.handlers[:], self.logger.propagate
        self.addCleanup(self.restore, *before)
        self.logger.handlers[:] = [self.kept]
        self.logger.propagate = False
        self.logger.setLevel(logging.NOTSET)
        logs.bridge()
        self.addCleanup(logs.unbridge)

    def restore(self, level: int, handlers: list[logging.Handler], propagate: bool) -> None:
        self.logger.setLevel(level)
        self.logger.handlers[:] = handlers
        self.logger.propagate = propagate

    def said(self) -> list[str]:
        """What was logged since the last time."""
        log = Logger(namespace="py2p_twisted.node")
        log.warn("a {what}", what="warning")
        log.info("an {what}", what="info")
        log.debug("a {what}", what="{detail}")
        Logger(namespace="somebody.else").warn("not ours")
        lines = [record.getMessage() for record in self.kept.records]
        self.kept.records.clear()
        return lines

    def test_levels(self) -> None:
        """0 is warnings, 1 the story, 2 everything; who asks for more gets it for all."""
        logs.show(0)
        self.assertEqual(self.said(), ["a warning"])
        logs.show(1)
        self.assertEqual(self.said(), ["a warning", "an info"])
        logs.show(0)
        self.assertEqual(self.said(), ["a warning", "an info"])
        logs.show(2)
        self.assertEqual(self.said(), ["a warning", "an info", "a {detail}"])

    def test_level_of_the_program(self) -> None:
        """What the program set for itself stays."""
        self.logger.setLevel(logging.ERROR)
        logs.show(0)
        self.assertEqual(self.said(), [])

    def test_failures(self) -> None:
        """A failure brings its traceback."""
        logs.show(0)
        try:
            raise ValueError("what happened")
        except ValueError:
            Logger(namespace="py2p_twisted.node").failure("it failed")
        (record,) = self.kept.records
        self.assertEqual(record.levelno, logging.CRITICAL)
        self.assertEqual((record.name, record.getMessage()), ("py2p_twisted.node", "it failed"))
        assert record.exc_info is not None
        self.assertIs(record.exc_info[0], ValueError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
