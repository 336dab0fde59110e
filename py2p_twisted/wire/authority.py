"""A private certificate authority: makes its own certificate, and those of nodes (floor 1).

Pure but for the keys that it draws: reads no clock, no file (:mod:`.certificates` reads a node's
folder) and never judges a peer (:mod:`.tls` does).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .certificates import PrivateKey

__all__ = [
    "certificate_pem",
    "hosts_of",
    "is_host",
    "issue",
    "key_pem",
    "make_authority",
    "may_issue",
]

#: How far the past reaches into a new certificate: clocks of two machines need not agree.
_SKEW = timedelta(hours=1)

_HASH_THEMSELVES = (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


def is_host(text: str) -> bool:
    """Whether a certificate can name this: an IP address, or a host name in ASCII."""
    if _is_address(text):
        return True
    # What ends in a number would be an IP address, and is none (the rule of the URL standard).
    return bool(_NAME.fullmatch(text)) and not text.rpartition(".")[2].isdigit()


def make_authority(now: datetime, days: int) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Make an authority (EC P-256) that may sign nodes, and nothing that signs in its turn.

    Its name is unlike that of every other one, so that a peer can tell two of them apart.

    :param now: aware of its time zone.
    :param days: how long it is valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"ring authority {secrets.token_hex(4)}")
    signs = x509.KeyUsage(
        *(False, False, False, False, False), True, True, encipher_only=False, decipher_only=False
    )
    certificate = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def issue(
    ca_key: PrivateKey,
    ca: x509.Certificate,
    name: str,
    hosts: Sequence[str],
    now: datetime,
    days: int,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Make a node's key and certificate (EC P-256), for dialling and for being dialled.

    :param name: what people call the node; at most 64 characters.
    :param hosts: what it may announce itself as; each :func:`is_host`.
    :param now: aware of its time zone.
    :param days: how long it is valid; not longer than its authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signs = x509.KeyUsage(
        True, *(False, False, False, False, False, False), encipher_only=False, decipher_only=False
    )
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    named = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    certificate = (
        _builder(_name(name), ca.subject, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(named, critical=False)
        .add_extension(_key_identifier(ca), critical=False)
        .sign(ca_key, None if isinstance(ca_key, _HASH_THEMSELVES) else hashes.SHA256())
    )
    return key, certificate


def may_issue(certificate: x509.Certificate) -> bool:
    """Whether it is the certificate of an authority."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The hosts that a certificate names, as :func:`issue` takes them."""
    try:
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(one.value) for one in named if isinstance(one, x509.DNSName | x509.IPAddress)]


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as its file holds it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as its file holds it, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _key_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(host)) if _is_address(host) else x509.DNSName(host)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
