"""Certificates for tests: an authority in memory, and TLS folders on disk."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["LOOPBACK", "Authority", "Pair", "days_from_now"]

#: Every name of this machine that a test may dial.
LOOPBACK = ("127.0.0.1", "::1", "localhost")

_BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def days_from_now(days: float) -> datetime:
    """A moment, in days from now; negative for the past."""
    return datetime.now(timezone.utc) + timedelta(days=days)


@dataclass
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


class Authority:
    """A certificate authority (EC P-256); two of them do not know each other."""

    def __init__(self, name: str = "test authority", valid_to: datetime | None = None) -> None:
        self._name = _common_name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(
            self._name, self._key, days_from_now(-900), valid_to or days_from_now(900)
        )
        builder = builder.add_extension(usage, critical=True)
        self.pair = Pair(builder.sign(self._key, hashes.SHA256()), self._key)

    def issue(
        self,
        *hosts: str,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        uses: tuple[x509.ObjectIdentifier, ...] = _BOTH,
    ) -> Pair:
        """A certificate that names these hosts (none: it has no subjectAltName)."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(key, *hosts, valid_from=valid_from, valid_to=valid_to, uses=uses)
        return Pair(certificate, key)

    def certify(
        self,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        *hosts: str,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        uses: tuple[x509.ObjectIdentifier, ...] = _BOTH,
    ) -> x509.Certificate:
        """The same for a key that there is already."""
        builder = self._builder(
            _common_name("node"),
            key,
            valid_from or days_from_now(-300),
            valid_to or days_from_now(300),
        ).add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def directory(
        self,
        path: str,
        *hosts: str,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
    ) -> str:
        """Write ca.pem, cert.pem and key.pem for a node that has these names (the loopback's)."""
        pair = self.issue(*(hosts or LOOPBACK), valid_from=valid_from, valid_to=valid_to)
        return self.write(path, pair)

    def write(self, path: str, pair: Pair) -> str:
        """Write a TLS folder that holds this certificate."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.pem").write_bytes(self.pair.certificate_pem)
        (folder / "cert.pem").write_bytes(pair.certificate_pem)
        (folder / "key.pem").write_bytes(pair.key_pem)
        return str(folder)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        start: datetime,
        end: datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
