"""``chordctl tls``: what it writes, what it says, how it refuses; and the frame around it."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from py2p_twisted import __version__
from py2p_twisted.cli import main
from py2p_twisted.cli.frame import CommandError, ExitCode, Parser, whole_number
from py2p_twisted.cli.main import COMMANDS
from py2p_twisted.errors import PeerUnreachable
from py2p_twisted.wire.authority import (
    certificate_pem,
    hosts_of,
    is_host,
    issue,
    key_pem,
    make_authority,
)
from py2p_twisted.wire.certificates import misnamed, read_folder
from py2p_twisted.wire.tls import Security

from .test_plugin import ROOT, environment


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def chordctl(*arguments: str | Path) -> Ended:
    """Run ``chordctl`` in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


class CommandCase(SynchronousTestCase):
    """An empty folder."""

    def setUp(self) -> None:
        self.top = Path(self.mktemp())
        self.top.mkdir()
        self.ring = self.top / "ring"

    def done(self, *arguments: str | Path) -> str:
        """Run what must succeed; what it printed."""
        ended = chordctl(*arguments)
        self.assertEqual((ended.code, ended.err), (0, ""))
        return ended.out

    def refused(self, *arguments: str | Path, code: int = 1) -> str:
        """Run what must be refused, in one line, without a change; that line."""
        before = self.snapshot()
        ended = chordctl(*arguments)
        self.assertEqual((ended.code, ended.out), (code, ""), ended)
        self.assertRegex(ended.err, r"\Achordctl[^\n]*\n\Z")
        self.assertEqual(self.snapshot(), before)
        return ended.err

    def snapshot(self) -> dict[str, bytes]:
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in sorted(self.top.rglob("*"))
        }

    def certificate(self, *path: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.ring.joinpath(*path).read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class InitTests(CommandCase):
    def test_an_authority(self) -> None:
        out = self.done("tls", "init", self.ring)
        self.assertEqual({path.name for path in self.ring.iterdir()}, {"ca.pem", "ca-key.pem"})
        ca = self.certificate("ca.pem")
        basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(basic.critical and basic.value.ca)
        self.assertEqual(basic.value.path_length, 0)
        usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
        self.assertTrue(usage.key_cert_sign and not usage.digital_signature)
        ca.verify_directly_issued_by(ca)
        left = ca.not_valid_after_utc - utc_now()
        self.assertAlmostEqual(left / timedelta(days=3650), 1, places=3)
        for word in ("ca-key.pem", "off the nodes", f"chordctl tls issue {self.ring} NAME"):
            self.assertIn(word, out)

    def test_permissions(self) -> None:
        for umask in (0o000, 0o077):
            ring = self.top / f"ring {umask}"
            previous = os.umask(umask)
            try:
                self.done("tls", "init", ring)
                self.done("tls", "issue", ring, "node")
                self.done("tls", "issue", ring, "node", "--renew")
            finally:
                os.umask(previous)
            for private in (ring / "ca-key.pem", ring / "node" / "key.pem"):
                self.assertEqual(mode(private), 0o600, private)
            for folder in (ring, ring / "node"):
                self.assertEqual(mode(folder), 0o700, folder)
            self.assertEqual(mode(ring / "node" / "cert.pem"), 0o644)

    def test_a_folder_that_is_there(self) -> None:
        self.ring.mkdir()
        (self.ring / "notes").write_text("mine")
        self.done("tls", "init", self.ring)
        self.assertEqual((self.ring / "notes").read_text(), "mine")

    def test_nothing_is_overwritten(self) -> None:
        self.done("tls", "init", self.ring)
        self.assertIn("ca.pem exists already", self.refused("tls", "init", self.ring))
        (self.ring / "ca.pem").unlink()
        self.assertIn("ca-key.pem exists already", self.refused("tls", "init", self.ring))
        (self.ring / "ca-key.pem").unlink()
        (self.ring / "ca.pem").symlink_to("nowhere")
        self.assertIn("ca.pem exists already", self.refused("tls", "init", self.ring))

    def test_two_authorities_have_two_names(self) -> None:
        now = utc_now()
        self.assertNotEqual(make_authority(now, 1)[1].subject, make_authority(now, 1)[1].subject)

    def test_days(self) -> None:
        self.done("tls", "init", self.ring, "--days", "400")
        left = self.certificate("ca.pem").not_valid_after_utc - utc_now()
        self.assertEqual(round(left / timedelta(days=1)), 400)
        for text in ("0", "36501", "-1", "x", "1.5", "٤", "", "9" * 5000):
            line = self.refused("tls", "init", self.top / "other", "--days", text, code=2)
            self.assertIn("--days", line)

    def test_where_it_cannot_write(self) -> None:
        (self.top / "file").write_text("")
        self.assertIn("file", self.refused("tls", "init", self.top / "file"))
        self.assertIn("Not a directory", self.refused("tls", "init", self.top / "file" / "ring"))
        self.refused("tls", "init", "")

    def test_a_disk_that_is_full(self) -> None:
        """The key without its certificate would be in the way of the next try."""
        real, calls = os.fsync, []

        def full(handle: int) -> None:
            calls.append(handle)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
            real(handle)

        with patch("os.fsync", full):
            ended = chordctl("tls", "init", self.ring)
        self.assertEqual((ended.code, ended.err), (1, "chordctl: No space left on device\n"))
        self.assertEqual(list(self.ring.iterdir()), [])


class IssueTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.done("tls", "init", self.ring)

    def hosts(self, name: str) -> list[str]:
        return hosts_of(self.certificate(name, "cert.pem"))

    def test_a_folder_for_a_node(self) -> None:
        out = self.done("tls", "issue", self.ring, "node1")
        folder = self.ring / "node1"
        self.assertEqual(
            {path.name for path in folder.iterdir()}, {"ca.pem", "cert.pem", "key.pem"}
        )
        key, (certificate,), (ca,) = read_folder(folder)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self.assertEqual(key.curve.name, "secp256r1")
        self.assertEqual(ca, self.certificate("ca.pem"))
        certificate.verify_directly_issued_by(ca)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertFalse(basic.value.ca)
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(
            set(uses), {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        )
        left = certificate.not_valid_after_utc - utc_now()
        self.assertAlmostEqual(left / timedelta(days=90), 1, places=3)
        self.assertLess(certificate.not_valid_before_utc, utc_now())
        self.assertTrue(Security.from_directory(folder).authenticated)
        for word in (str(folder), "90 days", "--tls"):
            self.assertIn(word, out)

    def test_the_authoritys_key_stays(self) -> None:
        self.done("tls", "issue", self.ring, "node1")
        secret = (self.ring / "ca-key.pem").read_bytes()
        for path in (self.ring / "node1").iterdir():
            self.assertNotIn(secret, path.read_bytes())

    def test_default_hosts(self) -> None:
        loopback = ["localhost", "127.0.0.1", "::1"]
        for name, hosts in (
            ("node1", ["node1", *loopback]),
            ("node-1.example", ["node-1.example", *loopback]),
            ("192.0.2.7", ["192.0.2.7", *loopback]),
            ("my_node", ["my_node", *loopback]),
            ("odd.", loopback),
            ("1", loopback),
            ("localhost", loopback),
        ):
            out = self.done("tls", "issue", self.ring, name)
            self.assertEqual(self.hosts(name), hosts, name)
            self.assertIn(", ".join(hosts), out)

    def test_hosts(self) -> None:
        wanted = ["192.0.2.7", "2001:db8::7", "node1.example.org"]
        said = [part for host in [*wanted, wanted[0]] for part in ("--host", host)]
        self.done("tls", "issue", self.ring, "node1", *said)
        self.assertEqual(self.hosts("node1"), wanted)
        certificate = self.certificate("node1", "cert.pem")
        for host in (*wanted, "NODE1.example.org"):
            self.assertIsNone(misnamed(certificate, host), host)
        for host in ("node1", "localhost", "127.0.0.1", "192.0.2.8", "x.node1.example.org"):
            self.assertIn("it names 192.0.2.7", str(misnamed(certificate, host)))

    def test_bad_hosts(self) -> None:
        for host in ("", "h:4444", "[::1]", "a b", "søk.example", "-x", "a..b", "*", "x" * 64,
                     "http://h", "1.2.3", "1.2.3.256", "fe80::1%eth0", "a\n"):  # fmt: skip
            self.assertFalse(is_host(host), host)
            line = self.refused("tls", "issue", self.ring, "node", f"--host={host}", code=2)
            self.assertIn("--host", line)
            self.assertIn("without a port", line)

    def test_bad_names(self) -> None:
        for name in (
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/abs",
            ".hidden",
            "a b",
            "x" * 65,
            "søk",
            "a\n",
        ):
            line = self.refused("tls", "issue", self.ring, name, code=2)
            self.assertIn("NAME", line)
        for name in ("ca.pem", "ca-key.pem"):
            self.assertIn("exists already", self.refused("tls", "issue", self.ring, name))

    def test_the_longest_name(self) -> None:
        self.done("tls", "issue", self.ring, "n" * 64)
        self.assertEqual(self.hosts("n" * 64), ["localhost", "127.0.0.1", "::1"])

    def test_nothing_is_overwritten(self) -> None:
        self.done("tls", "issue", self.ring, "node1")
        line = self.refused("tls", "issue", self.ring, "node1")
        self.assertIn("node1 exists already", line)
        self.assertIn("--renew", line)
        (self.ring / "empty").mkdir()
        self.assertIn("exists already", self.refused("tls", "issue", self.ring, "empty"))

    def test_days(self) -> None:
        self.done("tls", "issue", self.ring, "node1", "--days", "7")
        left = self.certificate("node1", "cert.pem").not_valid_after_utc - utc_now()
        self.assertEqual(round(left / timedelta(days=1)), 7)
        for text in ("0", "3651", "week"):
            self.refused("tls", "issue", self.ring, "node2", "--days", text, code=2)

    def test_not_longer_than_the_authority(self) -> None:
        line = self.refused("tls", "issue", self.ring, "node1", "--days", "3650")
        self.assertIn("--days can be 3649 at most", line)

    def test_renew(self) -> None:
        self.done("tls", "issue", self.ring, "node1", "--host", "192.0.2.7", "--days", "1")
        before = read_folder(self.ring / "node1")
        self.assertIn("Renewed", self.done("tls", "issue", self.ring, "node1", "--renew"))
        after = read_folder(self.ring / "node1")
        self.assertNotEqual(before[0].public_key(), after[0].public_key())
        self.assertEqual(self.hosts("node1"), ["192.0.2.7"])
        left = after[1][0].not_valid_after_utc - utc_now()
        self.assertEqual(round(left / timedelta(days=1)), 90)
        self.done("tls", "issue", self.ring, "node1", "--renew", "--host", "::1")
        self.assertEqual(self.hosts("node1"), ["::1"])
        self.assertEqual(len(list((self.ring / "node1").iterdir())), 3)

    def test_renew_refused(self) -> None:
        renew = ("tls", "issue", self.ring, "node1", "--renew")
        self.assertIn("leave --renew out", self.refused(*renew))
        self.done("tls", "issue", self.ring, "node1")
        (self.ring / "node1" / "cert.pem").write_text("nonsense")
        self.assertIn("cert.pem holds no certificate", self.refused(*renew))
        self.done(*renew, "--host", "node1")
        self.assertEqual(self.hosts("node1"), ["node1"])

    def test_a_disk_that_is_full(self) -> None:
        self.done("tls", "issue", self.ring, "node1")
        before = self.snapshot()
        with patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            for name, renew in (("node1", ["--renew"]), ("node2", [])):
                ended = chordctl("tls", "issue", self.ring, name, *renew)
                self.assertEqual((ended.code, ended.out), (1, ""))
        self.assertEqual(self.snapshot(), before)


class AuthorityTests(CommandCase):
    """What ``issue`` makes of the authority that it finds."""

    def write(self, key: bytes, certificate: bytes) -> None:
        self.ring.mkdir(exist_ok=True)
        (self.ring / "ca-key.pem").write_bytes(key)
        (self.ring / "ca.pem").write_bytes(certificate)

    def test_missing(self) -> None:
        line = self.refused("tls", "issue", self.ring, "node1")
        self.assertIn(f"there is no {self.ring}/ca.pem", line)
        self.assertIn(f"chordctl tls init {self.ring}", line)
        self.done("tls", "init", self.ring)
        (self.ring / "ca-key.pem").unlink()
        self.assertIn("there is no", self.refused("tls", "issue", self.ring, "node1"))

    def test_garbled(self) -> None:
        for name, words in (("ca.pem", "no certificate"), ("ca-key.pem", "no private key")):
            self.done("tls", "init", self.top / name)
            (self.top / name / name).write_text("nonsense")
            self.assertIn(words, self.refused("tls", "issue", self.top / name, "node1"))

    def test_key_of_another(self) -> None:
        (key, _), (_, certificate) = (make_authority(utc_now(), 9) for _ in range(2))
        self.write(key_pem(key), certificate_pem(certificate))
        line = self.refused("tls", "issue", self.ring, "node1", "--days", "1")
        self.assertIn("is not the private key of", line)

    def test_no_authority(self) -> None:
        ca_key, ca = make_authority(utc_now(), 9)
        key, certificate = issue(ca_key, ca, "n", ["n"], utc_now(), 8)
        self.write(key_pem(key), certificate_pem(certificate))
        line = self.refused("tls", "issue", self.ring, "node1", "--days", "1")
        self.assertIn("not the certificate of an authority", line)

    def test_expired(self) -> None:
        key, certificate = make_authority(utc_now() - timedelta(days=2), 1)
        self.write(key_pem(key), certificate_pem(certificate))
        self.assertIn("make a new one", self.refused("tls", "issue", self.ring, "n", "--days", "1"))

    def test_two_authorities(self) -> None:
        """While one takes over from the other, nodes trust both; the one with the key signs."""
        (old_key, old), (_, new) = (make_authority(utc_now(), 200) for _ in range(2))
        self.write(key_pem(old_key), certificate_pem(new) + certificate_pem(old))
        self.done("tls", "issue", self.ring, "node1")
        _, chain, authorities = read_folder(self.ring / "node1")
        self.assertEqual(authorities, [new, old])
        chain[0].verify_directly_issued_by(old)

    def test_authorities_of_others(self) -> None:
        """Another kind of key, and no identifier of it."""
        key = ed25519.Ed25519PrivateKey.generate()
        name = x509.Name.from_rfc4514_string("CN=elsewhere")
        ca = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(utc_now() - timedelta(days=1))
            .not_valid_after(utc_now() + timedelta(days=100))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, None)
        )
        raw = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.write(raw, certificate_pem(ca))
        self.done("tls", "issue", self.ring, "node1")
        self.assertTrue(Security.from_directory(self.ring / "node1").authenticated)


class DocsTests(CommandCase):
    """What the pages show is what the command does."""

    page = (ROOT / "docs" / "chordctl.rst").read_text("utf-8")

    def test_the_commands_in_their_order(self) -> None:
        page = (ROOT / "docs" / "tls.rst").read_text("utf-8")
        shown = re.findall(r"^    (chordctl tls .*)$", page, re.M)
        self.assertGreater(len(shown), 3)
        for line in shown:
            self.done(*shlex.split(line.replace("ring-ca", str(self.ring)))[1:])
        self.assertEqual(self.hosts_of("node1"), ["192.0.2.7", "node1.example.org"])
        self.assertEqual(self.hosts_of("node2"), ["192.0.2.8"])

    def hosts_of(self, name: str) -> list[str]:
        return hosts_of(self.certificate(name, "cert.pem"))

    def test_every_option(self) -> None:
        actions = (["tls", "init"], ["tls", "issue"])
        for line in (*([command.NAME] for command in COMMANDS), *actions):
            for option in re.findall(r"--[\w-]+", self.done(*line, "--help")):
                if option != "--help":
                    self.assertIn(option, self.page, line)

    def test_every_command(self) -> None:
        for command in COMMANDS:
            self.assertRegex(self.page, f"``(chordctl )?{command.NAME}\\b")

    def test_every_exit_code(self) -> None:
        table = self.page.partition("Exit codes\n")[2].partition("\nFor programs\n")[0]
        self.assertEqual(
            [int(code) for code in re.findall(r"^    \* - (\d+)$", table, re.M)],
            [code.value for code in ExitCode],
        )


class FrameTests(CommandCase):
    """Help, version, exit codes, and whatever a user can cause."""

    def test_commands_are_told(self) -> None:
        out = " ".join(self.done("--help").split())
        for command in COMMANDS:
            self.assertIn(f" {command.NAME} ", out)
            self.assertIn(command.HELP, out)
        for line in (["tls", "--help"], ["tls", "init", "--help"], ["tls", "issue", "--help"]):
            self.assertIn("usage: chordctl tls", self.done(*line))
        self.assertEqual(self.done("--version"), f"py2p_twisted {__version__}\n")

    def test_wrong_command_lines(self) -> None:
        for line in ([], ["tls"], ["fly"], ["tls", "init"], ["tls", "issue", "d"], ["--port", "1"],
                     ["tls", "init", "a", "b"], ["tls", "issue", "d", "n", "--ren"]):  # fmt: skip
            self.assertIn("--help", self.refused(*line, code=2))
        for line in (["--json", "tls", "init", "d"], ["tls", "issue", "d", "n", "--json"]):
            self.assertIn("leave --json out", self.refused(*line, code=2))
        for command, missing in (("del", "KEY"), ("set", "KEY")):
            self.assertIn(f"required: {missing} (", self.refused(command, code=2))

    def test_errors_become_one_line(self) -> None:
        for error, code, line in (
            (CommandError("no\nway"), 1, "chordctl: no way\n"),
            (CommandError("wrong", ExitCode.USAGE), 2, "chordctl: wrong\n"),
            (PeerUnreachable("it is gone"), 4, "chordctl: it is gone\n"),
            (
                PermissionError(13, "Permission denied", "/x"),
                1,
                "chordctl: /x: Permission denied\n",
            ),
            (OSError("odd"), 1, "chordctl: odd\n"),
            (KeyboardInterrupt(), 130, ""),
        ):
            with patch("py2p_twisted.cli.tls._init", side_effect=error):
                self.assertEqual(chordctl("tls", "init", "d"), (code, "", line))

    def test_a_bug_is_not_hidden(self) -> None:
        with patch("py2p_twisted.cli.tls._init", side_effect=ZeroDivisionError):
            self.assertRaises(ZeroDivisionError, chordctl, "tls", "init", "d")

    def test_whole_number(self) -> None:
        parser = Parser(prog="x")
        parser.add_argument("n", type=whole_number(1, 9))
        self.assertEqual(parser.parse_args(["9"]).n, 9)

    def process(
        self, *arguments: str, stdout: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "py2p_twisted.cli", *arguments],
            cwd=self.top,
            env=environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )

    def test_as_a_process(self) -> None:
        done = self.process("tls", "init", os.fsdecode(b"r\xff"))
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(rb"r\udcff/ca.pem", done.stdout)
        done = self.process("tls", "issue", "elsewhere", "n")
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertRegex(done.stderr, rb"\Achordctl: there is no [^\n]*\n\Z")

    def test_a_reader_that_goes_away(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = self.process("tls", "init", "ring", stdout=writing)
        finally:
            os.close(writing)
        self.assertEqual((done.returncode, done.stderr), (ExitCode.BROKEN_PIPE, b""))

    def test_without_output(self) -> None:
        command = shlex.join([sys.executable, "-m", "py2p_twisted.cli", "tls", "init", "ring"])
        done = subprocess.run(
            ["sh", "-c", f"{command} >&-"],
            cwd=self.top,
            env=environment(),
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_commands_are_cheap_to_import(self) -> None:
        """Neither Twisted nor TLS, before a command needs them."""
        program = (
            "import sys, py2p_twisted.cli;"
            "sys.exit(any(n.split('.')[0] in ('twisted', 'OpenSSL', 'cryptography')"
            " for n in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", program], env=environment(), timeout=30)
        self.assertEqual(done.returncode, 0)
