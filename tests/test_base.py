"""Names of networks and members, base 58, and the family of the errors."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted import base, errors
from py2p_twisted.settings import DEFAULT_PROTOCOL, MAX_K, Settings


class Base58Tests(SynchronousTestCase):
    def test_known_numbers(self) -> None:
        for number, text in (
            (0, b"1"),
            (57, b"z"),
            (58, b"21"),
            (3364, b"211"),
            (2**64, b"jpXCZedGfVR"),
        ):
            self.assertEqual(base.to_base_58(number), text)
            self.assertEqual(base.from_base_58(text), number)
            self.assertEqual(base.from_base_58(text.decode()), number)

    @given(st.integers(min_value=0, max_value=2**400))
    def test_round_trip(self, number: int) -> None:
        text = base.to_base_58(number)
        self.assertEqual(base.from_base_58(text), number)
        self.assertTrue(number == 0 or not text.startswith(b"1"))

    @given(st.binary(max_size=12) | st.text(max_size=12))
    def test_any_text_is_a_number_or_refused(self, text: bytes | str) -> None:
        try:
            number = base.from_base_58(text)
        except ValueError:
            return
        raw = text.encode() if isinstance(text, str) else text
        self.assertEqual(base.to_base_58(number), raw.lstrip(b"1") or b"1")

    def test_what_is_no_number(self) -> None:
        self.assertRaisesRegex(ValueError, "sign", base.to_base_58, -1)
        for text in (b"", "", b"0", "O", "I", b"l", " 1", b"1\n", "\u0661"):
            self.assertRaisesRegex(ValueError, "base 58", base.from_base_58, text)


class ProtocolTests(SynchronousTestCase):
    def test_it_is_a_named_tuple(self) -> None:
        prot = base.protocol("chord", "Plaintext")
        self.assertEqual(prot, ("chord", "Plaintext"))
        self.assertEqual((prot.subnet, prot.encryption), prot)
        self.assertEqual(prot, DEFAULT_PROTOCOL)
        self.assertEqual(hash(prot), hash(DEFAULT_PROTOCOL))
        self.assertEqual(copy.copy(prot), prot)

    def test_an_unknown_encryption(self) -> None:
        for encryption in ("", "plaintext", "TLS", None):
            self.assertRaisesRegex(
                ValueError, "'Plaintext' or 'SSL'", base.protocol, "chord", encryption
            )

    def test_the_identity_is_base_58_and_names_both_fields(self) -> None:
        names = [("chord", "Plaintext"), ("chord", "SSL"), ("other", "SSL"), ("", "SSL")]
        found = [base.protocol(*name).id for name in names]
        self.assertEqual(len(set(found)), len(found))
        for identity in found:
            self.assertLess(base.from_base_58(identity), 1 << 256)
        self.assertEqual(found[0], DEFAULT_PROTOCOL.id)

    def test_a_network_is_a_protocol_and_a_size(self) -> None:
        names = {base.network_name(DEFAULT_PROTOCOL, k) for k in range(1, MAX_K + 1)}
        self.assertEqual(len(names), MAX_K)
        self.assertIn(Settings(k=6).network, names)


class PeerTests(SynchronousTestCase):
    def test_its_names(self) -> None:
        peer = base.Peer(b"i" * 16, b"\x01\x02", "::1", 4444)
        self.assertEqual(peer.id, 258)
        self.assertEqual(peer.address, ("::1", 4444))
        self.assertEqual(str(peer), "5T at [::1]:4444")
        self.assertEqual(base.show_address("host", 1), "host:1")


#: Each error with what else it is, as users may catch it.
FAMILY: dict[type[errors.ChordError], tuple[type[Exception], ...]] = {
    errors.NetworkMismatch: (ConnectionError, OSError),
    errors.PeerUnreachable: (ConnectionError, OSError),
    errors.AuthenticationFailed: (ConnectionError, OSError),
    errors.NotConnected: (),
    errors.RingFull: (),
    errors.RingConflict: (),
    errors.OperationTimeout: (TimeoutError, OSError),
    errors.Unavailable: (),
    errors.Overloaded: (),
    errors.WatchTooWide: (),
    errors.KeyTooLarge: (ValueError,),
    errors.ValueTooLarge: (ValueError,),
    errors.StorageError: (),
    errors.StorageFull: (),
    errors.StorageInUse: (),
    errors.StorageCorrupt: (),
    errors.StorageMismatch: (),
    errors.StorageUnusable: (),
    errors.WouldBlockReactor: (RuntimeError,),
    errors.BadMessage: (),
    errors.CannotListen: (OSError,),
}
BUILTIN = (
    *(ConnectionError, TimeoutError, OSError),
    *(ValueError, RuntimeError, KeyError, TypeError, AttributeError, LookupError),
)


class ErrorsTests(SynchronousTestCase):
    def test_none_is_missing_here(self) -> None:
        named = {getattr(errors, name) for name in errors.__all__}
        self.assertEqual(named, {errors.ChordError, *FAMILY})

    def test_each_is_what_it_should_be_and_nothing_else(self) -> None:
        for error, also in FAMILY.items():
            self.assertTrue(issubclass(error, errors.ChordError))
            self.assertEqual(tuple(b for b in BUILTIN if issubclass(error, b)), also, error)

    def test_each_can_be_asked_whether_the_outcome_is_known(self) -> None:
        for error in FAMILY:
            raised = error("what happened")
            self.assertIs(raised.outcome_unknown, False)
            self.assertEqual(str(raised), "what happened")

    def test_a_write_that_may_have_happened(self) -> None:
        for error in (errors.OperationTimeout, errors.Unavailable, errors.ChordError):
            raised = error("it", outcome_unknown=True)
            self.assertIs(raised.outcome_unknown, True)
            self.assertIs(error("it").outcome_unknown, False)

    def test_what_they_carry(self) -> None:
        mismatch = errors.NetworkMismatch("they differ", ours="k=6", theirs="k=2")
        self.assertEqual((mismatch.ours, mismatch.theirs), ("k=6", "k=2"))
        unavailable = errors.Unavailable("no quorum", reachable=1, members=3)
        self.assertEqual((unavailable.reachable, unavailable.members), (1, 3))
        self.assertTrue(errors.PeerUnreachable("reset", sent=True).sent)

    def test_a_copy_says_the_same(self) -> None:
        """Errors travel between threads."""
        error = errors.Unavailable("it", reachable=1, members=3, outcome_unknown=True)
        again = copy.copy(error)
        self.assertEqual(str(again), "it")
        self.assertEqual(vars(again), vars(error))
