"""Certificates as files and as text: the TLS folder, and a certificate of one's own (floor 1).

Never judges a peer (:mod:`py2p_twisted.wire.tls` does) and never opens a connection.
"""

from __future__ import annotations

import os
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.internet.abstract import isIPAddress, isIPv6Address

__all__ = [
    "TLS_FILES",
    "Credentials",
    "PrivateKey",
    "first_end",
    "load_certificates",
    "load_key",
    "make_certificate",
    "misnamed",
    "names",
    "read_folder",
    "show_moment",
    "validity",
]

#: The kinds of key that TLS 1.3 can use.
PrivateKey = (
    ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | rsa.RSAPrivateKey
)

#: A node's key, its certificate with its chain, and the authorities that it trusts.
Credentials = tuple[PrivateKey, list[x509.Certificate], list[x509.Certificate]]

#: What a TLS folder holds.
TLS_FILES = ("ca.pem", "cert.pem", "key.pem")

_FOLDER = "a TLS folder holds ca.pem, cert.pem and key.pem"


def read_folder(path: str | os.PathLike[str]) -> Credentials:
    """Read a TLS folder: our key, our certificate with its chain, and the authorities.

    :raises ValueError: a file is missing, is not what it should be, or does not fit the others.
    """
    folder = os.fspath(path)
    ca_file, cert_file, key_file = (os.path.join(folder, name) for name in TLS_FILES)
    try:
        authorities, chain = load_certificates(ca_file), load_certificates(cert_file)
        key = load_key(key_file)
    except ValueError as error:
        raise ValueError(f"{error}: {_FOLDER}") from error
    if key.public_key() != chain[0].public_key():
        raise ValueError(f"{key_file} is not the private key of {cert_file}")
    if not any(_signed(last, by) for last in chain for by in authorities):
        raise ValueError(f"{cert_file} is not signed by the authority in {ca_file}")
    return key, chain, authorities


def make_certificate() -> tuple[PrivateKey, x509.Certificate]:
    """Make a self-signed certificate (EC P-256) that nobody has a reason to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=py2p_twisted")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1))
        .not_valid_after(datetime(9999, 12, 31))
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def names(certificate: x509.Certificate) -> str:
    """Write the hosts that a certificate names for people."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "no host"
    kinds = (x509.DNSName, x509.IPAddress)
    return ", ".join(str(n.value) for n in extension.value if isinstance(n, kinds)) or "no host"


def misnamed(certificate: x509.Certificate, host: str) -> str | None:
    """None if the certificate names the host, else what is wrong with it."""
    try:
        numeric = isIPAddress(host) or isIPv6Address(host)
        service = IPAddress_ID(host.partition("%")[0]) if numeric else DNS_ID(host)
        verify_service_identity(extract_patterns(certificate), [service], [])
    except (VerificationError, CertificateError, ValueError):
        named = names(certificate)
        remedy = "issue one that does (chordctl tls issue, --host)"
        return f"does not name {host!r}; it names {named}: {remedy}"
    return None


def validity(certificate: x509.Certificate) -> tuple[str, str]:
    """Write the first and the last moment of a certificate for people."""
    return show_moment(certificate.not_valid_before_utc), show_moment(
        certificate.not_valid_after_utc
    )


def show_moment(moment: datetime) -> str:
    """Write a moment, which is in UTC, for people."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def first_end(
    chain: list[x509.Certificate], authorities: list[x509.Certificate]
) -> tuple[datetime, str]:
    """When a chain ends to be valid, and what ends then, for people.

    Of the authorities only those count that signed it, and of several the one that lasts longest.
    """
    ends = [(one.not_valid_after_utc, "The certificate of this node") for one in chain[:1]]
    ends += [(one.not_valid_after_utc, "A certificate in cert.pem") for one in chain[1:]]
    signers = [by for by in authorities if any(_signed(last, by) for last in chain)]
    lasting = [(by.not_valid_after_utc, "The authority in ca.pem") for by in signers]
    return min([*ends, *([max(lasting)] if lasting else [])])


def _read(file: str) -> bytes:
    """Read a file of the TLS folder."""
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from error


def load_certificates(file: str) -> list[x509.Certificate]:
    """Read a file of one or more certificates.

    :raises ValueError: it cannot be read, or holds none.
    """
    data = _read(file)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ValueError(f"{file} holds no certificate in PEM form") from error


def load_key(file: str) -> PrivateKey:
    """Read a file with a private key.

    :raises ValueError: it cannot be read, or holds none that TLS 1.3 can use without a password.
    """
    data = _read(file)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise ValueError(f"{file} is protected by a password: it must be stored plainly") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{file} holds no private key in PEM form") from error
    if not isinstance(key, PrivateKey):
        raise ValueError(f"{file} holds a kind of key that TLS 1.3 cannot use: take EC P-256")
    return key


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority issued the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
