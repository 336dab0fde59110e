"""What the fuzzer once found worth keeping, again; needs no fuzzer."""

from __future__ import annotations

import gc
from pathlib import Path
from random import Random
from typing import Any

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted.wire.messages import Ask, Ping

from .bending import any_kind, bent_message
from .corpus import MOST_CHARACTERS, MOST_INPUTS, covered, keep, kept, worth_keeping
from .source import ByteRandom
from .stage import nothing_failed
from .targets import TARGETS


class CorpusTests(SynchronousTestCase):
    def play(self, name: str) -> None:
        """Every input that is kept for a target."""
        inputs = kept(name)
        self.assertGreater(len(inputs), 10)
        self.assertLessEqual(len(inputs), MOST_INPUTS)
        with nothing_failed():
            for data in inputs:
                try:
                    TARGETS[name](data)
                except Exception as error:
                    raise AssertionError(f"the input {data!r} fails: {error}") from error
            gc.collect()  # what nobody waits for any more and failed is logged now

    def test_codec(self) -> None:
        self.play("codec")

    def test_protocol(self) -> None:
        self.play("protocol")


class HarnessTests(SynchronousTestCase):
    """The fuzzer's own parts: they find something, and change nothing."""

    def test_bytes_decide(self) -> None:
        rng = ByteRandom(b"\x02\xff\x80")
        self.assertEqual(rng.choice([10, 20, 30, 40]), 30)
        self.assertEqual(rng.getrandbits(8), 255)
        self.assertEqual((rng.random(), rng.exhausted), (0.5, True))
        self.assertEqual((rng.random(), rng.getrandbits(64), rng.rest()), (0.0, 0, b""))
        self.assertEqual(rng.choice("abc"), "a")

    def test_kinds_keep_their_bytes(self) -> None:
        """A message more changes only what was nobody's."""
        some = [Ping, Ask]
        self.assertIs(any_kind(some, ByteRandom(b"\x01")), Ping)
        self.assertIs(any_kind(some, ByteRandom(b"\x0a")), Ask)
        self.assertIs(any_kind(some, ByteRandom(b"\xff")), Ping)

    def test_bending_bends(self) -> None:
        rng = Random(1)
        raws = {bent_message(Ask(1, Ping()), rng) for _ in range(200)}
        self.assertGreater(len(raws), 50)

    def test_a_logged_failure_is_noticed(self) -> None:
        log = Logger()
        with self.assertRaisesRegex(AssertionError, "division"), nothing_failed():
            try:
                1 / 0  # noqa: B018
            except ZeroDivisionError:
                log.failure("a division")
        self.flushLoggedErrors(ZeroDivisionError)

    def test_what_leads_nowhere_new_is_not_kept(self) -> None:
        inputs = [b"", b"\x00", bytes(40), bytes(41)]
        chosen = worth_keeping(TARGETS["codec"], inputs)
        self.assertLess(len(chosen), len(inputs))
        self.assertTrue(covered(TARGETS["codec"], b""))

    def test_too_much_is_not_kept(self) -> None:
        many: Any = (bytes([n // 256, n % 256]) for n in range(MOST_INPUTS + 1))
        self.assertRaises(ValueError, keep, "codec", many)
        self.assertRaises(ValueError, keep, "codec", [bytes(MOST_CHARACTERS)])

    def test_every_target_has_its_corpus(self) -> None:
        files = {file.stem for file in Path(__file__).with_name("corpus").iterdir()}
        self.assertEqual(files, set(TARGETS))
