"""Who may talk to whom: certificates, mutual TLS 1.3, and words for its failures (floor 1).

Owns :class:`Security`.  Imported only by those who encrypt; never opens a connection, never
chooses an address.

Certificates are checked by one callback for both directions: chain and dates by OpenSSL, the name
by service_identity.  Twisted's ``optionsForClientTLS`` is not used because its callback accepts a
certificate without any subjectAltName for every host, and because it resets the connection of a
wrongly named peer, which then cannot tell why; here the peer receives an alert.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)
from zope.interface import implementer

from ..errors import AuthenticationFailed, ChordError, NetworkMismatch
from .certificates import (
    Credentials,
    PrivateKey,
    first_end,
    make_certificate,
    misnamed,
    names,
    read_folder,
    validity,
)
from .endpoints import unreachable

if TYPE_CHECKING:
    from twisted.python.failure import Failure

__all__ = ["Security"]

#: What OpenSSL finds wrong with a certificate (X509_verify_cert_error_string(3)).
_VERIFY_ERRORS = {
    7: "is signed by another authority of our ca.pem's name: give both nodes the same ca.pem",
    9: "is valid only from {start} on: check the clocks, or issue a new one",
    10: "expired on {end}: issue a new one",
    18: "is self-signed: every node of a ring needs a cert.pem signed by its ca.pem",
    19: "is signed by an authority that is not our ca.pem: give both nodes the same ca.pem",
    20: "is signed by an authority that is not our ca.pem: give both nodes the same ca.pem",
    26: "is not allowed for this use: it must serve for both ends (serverAuth and clientAuth)",
}

_DATES = (9, 10)

#: Refusing a name in the verify callback makes OpenSSL 3 send "internal error".
_NAME = "most likely it does not name the host that was dialled"

#: What the peer's alert says about our certificate.  Under TLS 1.3 the side that dialled reads it
#: only after its own handshake, in connectionLost.
_ALERTS = {
    "alert certificate required": "no certificate was shown to it",
    "alert unknown ca": "it does not know the authority that signed it: give both the same ca.pem",
    "alert decrypt error": "its signature is not by the other's ca.pem: give both the same ca.pem",
    "alert certificate expired": "it has expired: issue a new cert.pem",
    "alert unsupported certificate": "it must serve for both ends (serverAuth and clientAuth)",
    "alert bad certificate": "it is damaged or not yet valid: check the dates and the clocks",
    "alert certificate unknown": _NAME,
    "alert internal error": _NAME,
    "alert certificate revoked": "it is revoked",
}

_PLAIN_TEXT = (
    "wrong version number",
    "http request",
    "https proxy request",
    "length too long",
    "record layer failure",
    "unknown protocol",
)
_OLD_TLS = ("unsupported protocol", "protocol version", "version too low", "handshake failure")


class _CertificateRefused(SSL.Error):
    """Raised in the verify callback: pyOpenSSL hands it on to whoever does the handshake.

    :ivar why: a predicate: "the certificate of the peer *expired on ...*".
    """

    def __init__(self, why: str) -> None:
        super().__init__([("certificate", "", why)])
        self.why = why


class Security:
    """The certificate of a node, and what it demands of those of others.

    Make one with :meth:`from_directory` or :meth:`self_made`.

    :ivar authenticated: whether peers must show a certificate of our authority.
    :ivar credentials: our key, our certificate with its chain, and whom we trust.
    :ivar expiry: when it, or what it needs, ends to be valid, and what that is, for people.
    :ivar before_use: called before each connection.
    """

    credentials: Credentials
    expiry: tuple[datetime, str]

    def __init__(
        self,
        key: PrivateKey,
        chain: list[x509.Certificate],
        authorities: list[x509.Certificate],
    ) -> None:
        self.authenticated = bool(authorities)
        self.before_use: Callable[[], object] = lambda: None
        self.renew(key, chain, authorities)

    def renew(
        self,
        key: PrivateKey,
        chain: list[x509.Certificate],
        authorities: list[x509.Certificate],
    ) -> None:
        """Use these from the next connection on; connections that are open stay as they are.

        :raises ValueError: OpenSSL cannot use them; what was there before stays.
        """
        trusted = [Certificate(X509.from_cryptography(authority)) for authority in authorities]
        options = CertificateOptions(
            # Twisted's hints say PKey and X509, which pyOpenSSL has deprecated in favour of these.
            privateKey=key,  # type: ignore[arg-type]
            certificate=chain[0],  # type: ignore[arg-type]
            extraCertChain=chain[1:],  # type: ignore[arg-type]
            trustRoot=trustRootFromCertificates(trusted) if trusted else None,
            raiseMinimumTo=TLSVersion.TLSv1_3,
        )
        try:
            context = options.getContext()
        except SSL.Error as error:
            said = _openssl_words(error)
            raise ValueError(f"OpenSSL refuses the certificate or its key: {said}") from error
        if self.authenticated:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
        self._context = context
        self.credentials = (key, chain, authorities)
        self.expiry = first_end(chain, authorities)

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Security:
        """Mutual TLS: ``cert.pem`` with its ``key.pem`` is ours, ``ca.pem`` is whom we trust.

        :raises ValueError: a file is missing, is not what it should be, or does not fit the others.
        """
        return cls(*read_folder(path))

    @classmethod
    def self_made(cls) -> Security:
        """A fresh certificate in memory: encrypts, but nobody knows with whom."""
        key, certificate = make_certificate()
        return cls(key, [certificate], [])

    @property
    def certificate(self) -> x509.Certificate:
        """Our own."""
        return self.credentials[1][0]

    def client_creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """For dialling a host: the certificate of the peer must name it, if authenticated."""
        return _ConnectionCreator(self, host)

    def server_creator(self) -> IOpenSSLServerConnectionCreator:
        """For listening: the peer must show a certificate, if authenticated.

        Its name is checked later, with :meth:`verify_host`, against the host that it announces.
        """
        return _ConnectionCreator(self, None)

    def connection(self, host: str | None) -> SSL.Connection:
        """An OpenSSL connection that checks its peer; None: not the name."""
        self.before_use()
        connection = _Connection(self._context)
        connection.host = host
        return connection

    def verify_host(self, transport: Any, host: str) -> None:
        """Check that the certificate that the peer showed names the host that it announces.

        Does nothing if not :attr:`authenticated`.

        :param transport: the TLS transport of the connection (``ISSLTransport``).
        :raises AuthenticationFailed: it does not, or there is none.
        """
        if not self.authenticated:
            return
        certificate: X509 | None = transport.getPeerCertificate()
        if certificate is None:
            raise AuthenticationFailed(f"the peer that calls itself {host!r} showed no certificate")
        why = misnamed(certificate.to_cryptography(), host)
        if why is not None:
            raise AuthenticationFailed(f"the certificate of the peer {why}")

    def verify_own(self, host: str) -> None:
        """Check that our own certificate names us, as every other node will.

        :param host: what this node announces.
        :raises AuthenticationFailed: it does not; nobody would keep a connection to a member.
        """
        why = misnamed(self.certificate, host) if self.authenticated else None
        if why is not None:
            raise AuthenticationFailed(f"this node cannot store: its own certificate {why}")

    def explain(self, reason: Failure, address: str) -> ChordError:
        """Turn the reason of ``connectionLost`` (or of a failed dial) into an error of ours.

        :param address: the peer as people write it, such as ``127.0.0.1:4444``.
        :returns: :exc:`AuthenticationFailed`, :exc:`NetworkMismatch`, or
            :exc:`~py2p_twisted.errors.PeerUnreachable` when TLS has nothing to say.
        """
        error = reason.value
        if isinstance(error, ChordError):
            return error
        if isinstance(error, _CertificateRefused):
            return AuthenticationFailed(f"the certificate of {address} {error.why}")
        if not isinstance(error, SSL.Error):
            return unreachable(reason, address)
        said = _openssl_words(error)
        if "did not return a certificate" in said:
            return AuthenticationFailed(
                f"{address} showed no certificate: it needs a TLS folder with one of our ca.pem"
            )
        for alert, why in _ALERTS.items():
            if alert in said:
                return AuthenticationFailed(
                    f"{address} refused our certificate: {why} ({self._describe()})"
                )
        return _mismatch(said, address) or unreachable(reason, address)

    def _describe(self) -> str:
        """Our own certificate in half a line, for the one who has to find out what is wrong."""
        if not self.authenticated:
            return "ours is self-made: this node was started without a TLS folder"
        start, end = validity(self.certificate)
        return f"ours names {names(self.certificate)} and is valid from {start} to {end}"


class _Connection(SSL.Connection):
    """An OpenSSL connection that knows which host its peer has to be.

    :ivar host: the host that was dialled; None: checked later, or not at all.
    """

    host: str | None = None


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class _ConnectionCreator:
    """Makes the OpenSSL connections of one endpoint."""

    def __init__(self, security: Security, host: str | None) -> None:
        self._security = security
        self._host = host

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return self._security.connection(self._host)

    serverConnectionForTLS = clientConnectionForTLS


def _verify(connection: SSL.Connection, shown: X509, code: int, depth: int, ok: int) -> bool:
    """OpenSSL's verify callback: called for each certificate of the chain, the peer's own last."""
    if not ok:
        start, end = validity(shown.to_cryptography())
        why = _VERIFY_ERRORS.get(code, f"was refused by OpenSSL's check (error {code})")
        whose = "is signed by an authority whose certificate " if depth and code in _DATES else ""
        raise _CertificateRefused(whose + why.format(start=start, end=end))
    assert isinstance(connection, _Connection)
    if depth == 0 and connection.host is not None:
        wrong = misnamed(shown.to_cryptography(), connection.host)
        if wrong is not None:
            raise _CertificateRefused(wrong)
    return True


def _mismatch(said: str, address: str) -> NetworkMismatch | None:
    """The peer does not speak TLS 1.3 at all, if that is what OpenSSL says."""
    if any(words in said for words in _PLAIN_TEXT):
        return NetworkMismatch(
            f"{address} speaks plain text and this node TLS: give both the same encryption",
            ours="TLS 1.3",
            theirs="plain text",
        )
    if any(words in said for words in _OLD_TLS):
        return NetworkMismatch(
            f"{address} does not speak TLS 1.3 with a certificate, as this node does: "
            "give it one, or upgrade its OpenSSL",
            ours="TLS 1.3",
            theirs="an older TLS",
        )
    return None


def _openssl_words(error: SSL.Error) -> str:
    """All reasons of OpenSSL's error queue in one lower-case text."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else [error.args]
    return "; ".join(str(entry[-1]) for entry in queue if entry).lower()
