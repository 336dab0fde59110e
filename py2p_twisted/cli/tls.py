"""``chordctl tls``: a ring's own certificate authority, and a TLS folder for each node (floor 4).

The authority is a folder with ``ca.pem`` and ``ca-key.pem``; the nodes' folders stand inside it.
Nothing is overwritten unless ``--renew`` says so, and then file by file in one step each, so that a
node that reads at that moment finds the old one or the new one.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import tempfile
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from .frame import CommandError, ExitCode, whole_number

if TYPE_CHECKING:
    from cryptography import x509

    from ..wire.certificates import PrivateKey

__all__ = ["HELP", "NAME", "configure"]

NAME = "tls"
HELP = "make a ring's certificate authority, and certificates for its nodes"

_CA, _CA_KEY = "ca.pem", "ca-key.pem"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NODE_DAYS, _CA_DAYS = 90, 3650

#: Permissions of what is secret, and of what is not.
_SECRET, _PUBLIC, _FOLDER = 0o600, 0o644, 0o700


def configure(parser: argparse.ArgumentParser) -> None:
    """Add ``init`` and ``issue``."""
    parser.set_defaults(objects=False)  # for people only
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    what = "make a private certificate authority in DIR; its key stays there"
    init = actions.add_parser("init", help=what, description=what)
    init.add_argument("dir", metavar="DIR", help="the folder, made if there is none")
    init.add_argument(
        "--days",
        metavar="DAYS",
        type=whole_number(1, 36500),
        default=_CA_DAYS,
        help="how long it is valid (default: %(default)s)",
    )
    init.set_defaults(run=_init)
    what = "write DIR/NAME/ with ca.pem, cert.pem and key.pem, the folder to hand to a node"
    issue = actions.add_parser("issue", help=what, description=what)
    issue.add_argument("dir", metavar="DIR", help="the authority's folder, from chordctl tls init")
    issue.add_argument("name", metavar="NAME", type=_node_name, help="what you call the node")
    issue.add_argument(
        "--host",
        action="append",
        type=_host,
        metavar="HOST",
        help="a host name or IP address that the node announces, as often as needed"
        " (default: NAME, and this machine's loopback)",
    )
    issue.add_argument(
        "--days",
        metavar="DAYS",
        type=whole_number(1, 3650),
        default=_NODE_DAYS,
        help="how long the certificate is valid (default: %(default)s)",
    )
    issue.add_argument(
        "--renew",
        action="store_true",
        help="replace the key and the certificate in DIR/NAME; the hosts stay if no --host is said",
    )
    issue.set_defaults(run=_issue)


def _node_name(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text):
        return text
    raise argparse.ArgumentTypeError(
        f"must be 1 to 64 letters, digits, '.', '_' or '-', not {text!r}: it names a folder"
    )


def _host(text: str) -> str:
    from ..wire.authority import is_host

    if is_host(text):
        return text
    raise argparse.ArgumentTypeError(
        f"must be a host name or an IP address, without a port, not {text!r}"
    )


# -- init


def _init(options: argparse.Namespace) -> ExitCode:
    from ..wire.authority import certificate_pem, key_pem, make_authority
    from ..wire.certificates import validity

    ca, ca_key = (os.path.join(options.dir, name) for name in (_CA, _CA_KEY))
    for file in (ca, ca_key):
        if os.path.lexists(file):
            raise CommandError(
                f"{file} exists already, and nothing was changed: issue certificates with"
                f" chordctl tls issue {shlex.quote(options.dir)} NAME, or choose another folder"
            )
    key, certificate = make_authority(datetime.now(timezone.utc), options.days)
    os.makedirs(options.dir, mode=_FOLDER, exist_ok=True)
    _write(ca_key, key_pem(key), _SECRET)
    try:
        _write(ca, certificate_pem(certificate), _PUBLIC)
    except BaseException:
        os.unlink(ca_key)
        raise
    print(f"Made a certificate authority, valid until {validity(certificate)[1]}:")
    print(f"  {ca}  tells who belongs; each node gets a copy")
    print(f"  {ca_key}  lets in whomever it signs: keep it here, and off the nodes")
    print(f"Next, for each node: chordctl tls issue {shlex.quote(options.dir)} NAME --host HOST")
    return ExitCode.OK


# -- issue


def _issue(options: argparse.Namespace) -> ExitCode:
    from ..wire.authority import certificate_pem, hosts_of, is_host, issue, key_pem
    from ..wire.certificates import names, validity

    now = datetime.now(timezone.utc)
    ca_key, ca, ca_pem = _read_authority(options.dir, now, options.days)
    folder = os.path.join(options.dir, options.name)
    there = os.path.lexists(folder)
    if there and not options.renew:
        raise CommandError(
            f"{folder} exists already, and nothing was changed: --renew gives it a new certificate"
        )
    if options.renew and not there:
        raise CommandError(f"there is no {folder} to renew: leave --renew out to issue it")
    hosts = options.host
    if hosts is None and there:
        hosts = hosts_of(_load(os.path.join(folder, "cert.pem"))[0])
        if not hosts:
            raise CommandError(f"{folder}/cert.pem names no host: say --host")
    if hosts is None:
        hosts = [*([options.name] if is_host(options.name) else []), *_LOOPBACK]
    hosts = list(dict.fromkeys(hosts))
    key, certificate = issue(ca_key, ca, options.name, hosts, now, options.days)
    # In this order a node that reads in between finds a certificate that it has no key for, and
    # waits for the next one.
    files = [
        (_CA, ca_pem, _PUBLIC),
        ("cert.pem", certificate_pem(certificate), _PUBLIC),
        ("key.pem", key_pem(key), _SECRET),
    ]
    if there:
        _replace_files(folder, files)
    else:
        _write_folder(folder, files)
    print(f"{'Renewed' if there else 'Wrote'} {folder}{os.sep}")
    print(f"  names {names(certificate)}")
    print(f"  valid until {validity(certificate)[1]}, {options.days} days")
    if there:
        print("Copy it to the node, which takes it up by itself, without a restart.")
    else:
        print("Hand this folder to the node: twistd chord --tls FOLDER, or tls=FOLDER in Python.")
    return ExitCode.OK


def _read_authority(
    folder: str, now: datetime, days: int
) -> tuple[PrivateKey, x509.Certificate, bytes]:
    """The authority's key and certificate, and what nodes are to trust, as its file holds it."""
    from ..wire.authority import may_issue
    from ..wire.certificates import load_key, show_moment

    file, key_file = (os.path.join(folder, name) for name in (_CA, _CA_KEY))
    for needed in (file, key_file):
        if not os.path.exists(needed):
            raise CommandError(
                f"there is no {needed}: make an authority with"
                f" chordctl tls init {shlex.quote(folder)}"
            )
    certificates = _load(file)
    try:
        key = load_key(key_file)
    except ValueError as error:
        raise CommandError(str(error)) from None
    ours = [one for one in certificates if one.public_key() == key.public_key()]
    if not ours:
        raise CommandError(f"{key_file} is not the private key of {file}")
    if not may_issue(ours[0]):
        raise CommandError(f"{file} is not the certificate of an authority (CA:TRUE)")
    end = ours[0].not_valid_after_utc
    if now + timedelta(days=days) > end:
        left = (end - now) // timedelta(days=1)
        most = f"--days can be {left} at most" if left > 0 else "make a new one, elsewhere"
        raise CommandError(f"the authority in {file} ends on {show_moment(end)}: {most}")
    with open(file, "rb") as opened:
        return key, ours[0], opened.read()


def _load(file: str) -> list[x509.Certificate]:
    from ..wire.certificates import load_certificates

    try:
        return load_certificates(file)
    except ValueError as error:
        raise CommandError(str(error)) from None


# -- files


def _write(file: str, content: bytes, mode: int) -> None:
    """Write a file that does not exist yet, never readable by others than it is to be."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(handle, "wb") as opened:
            os.fchmod(handle, mode)
            opened.write(content)
            opened.flush()
            os.fsync(handle)
    except BaseException:
        os.unlink(file)
        raise


def _write_folder(folder: str, files: list[tuple[str, bytes, int]]) -> None:
    """Write a folder that does not exist yet: whole, or not at all."""
    temporary = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(folder))  # mode 0700
    try:
        for name, content, mode in files:
            _write(os.path.join(temporary, name), content, mode)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace_files(folder: str, files: list[tuple[str, bytes, int]]) -> None:
    """Replace the files of a folder once all new ones are written."""
    temporary = tempfile.mkdtemp(prefix=".new-", dir=folder)
    try:
        for name, content, mode in files:
            _write(os.path.join(temporary, name), content, mode)
        for name, _, _ in files:
            os.replace(os.path.join(temporary, name), os.path.join(folder, name))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
