"""The command line of ``twistd chord`` (floor 4).

Owns what may be asked for, how a wrong value is refused, and where a daemon keeps its data unless
it is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from twisted import copyright as twisted_version

from . import __version__
from .base import ENCRYPTIONS, is_ip, parse_address, protocol
from .settings import DEFAULT_PROTOCOL, DEFAULT_REPLICAS, MAX_K, OFFERED_REPLICAS, Settings
from .storage.opening import ALWAYS, INTERVAL
from .storage.sqlite import SQLiteStorage

__all__ = ["LOOPBACK", "Options", "refuse", "storage_for"]

LOOPBACK = "127.0.0.1"


def _whole_number(option: str, low: int, high: int) -> Callable[[str], int]:
    def coerce(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise usage.UsageError(
            f"{option} must be a whole number from {low} to {high}, not {text!r}"
        )

    return coerce


def _replicas(text: str) -> int:
    for number in OFFERED_REPLICAS:
        if text == str(number):
            return number
    offered = ", ".join(map(str, OFFERED_REPLICAS))
    raise usage.UsageError(f"--replicas must be one of {offered}, not {text!r}")


def _address(option: str) -> Callable[[str], tuple[str, int]]:
    def coerce(text: str) -> tuple[str, int]:
        address = parse_address(text)
        if address is not None:
            return address
        raise usage.UsageError(
            f"{option} must be HOST:PORT with a port from 1 to 65535,"
            f" such as 192.0.2.7:4444 or [2001:db8::7]:4444, not {text!r}"
        )

    return coerce


def _bytes(option: str) -> Callable[[str], int]:
    def coerce(text: str) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,15})([KMGT]?)", text)
        if found is None:
            raise usage.UsageError(
                f"{option} must be a number of bytes, at least 1, such as 5000000, 500M or 2G, not"
                f" {text!r}"
            )
        return int(found[1]) << (10 * " KMGT".index(found[2] or " "))

    return coerce


def _interface(text: str) -> str:
    if text == "localhost":
        return LOOPBACK
    if is_ip(text):
        return text
    raise usage.UsageError(
        "--interface must be an IP address of this machine, 0.0.0.0 for all of IPv4"
        f" or :: for all of IPv6, not {text!r}"
    )


def _one_of(option: str, *offered: str) -> Callable[[str], str]:
    def coerce(text: str) -> str:
        if text in offered:
            return text
        raise usage.UsageError(f"{option} must be {' or '.join(offered)}, not {text!r}")

    return coerce


def _data(text: str) -> str:
    if not text:
        raise usage.UsageError(
            f"--data must name a folder, not {text!r}; --memory keeps nothing on the disk"
        )
    return os.path.abspath(text)


class Options(usage.Options):
    """The command line, checked: after :meth:`parseOptions` every value has its final type.

    Whatever is wrong with it ends the process by one line on stderr and exit code 1, where Twisted
    would print the whole help (``twistd``) or exit with 64 (``twist``).
    """

    synopsis = "[options]"
    longdesc = (
        "Runs one node of a Chord ring, which keeps one dictionary of bytes on all its machines."
        " Without --join it founds a new ring; with --join it becomes a member of an existing one."
        " What it keeps is on the disk, and SIGTERM and SIGINT only stop it: started again, it is"
        " back where it was, and needs no --join."
    )

    optFlags: ClassVar[Sequence[Sequence[Any]]] = [
        [
            "memory",
            None,
            "Keep nothing on the disk. SIGTERM and SIGINT let the node hand its keys over and leave"
            " the ring.",
        ],
        [
            "leave-on-stop",
            None,
            "On SIGTERM and SIGINT hand the keys over and leave the ring, though all is on the"
            " disk.",
        ],
    ]

    optParameters: ClassVar[Sequence[Sequence[Any]]] = [
        [
            "port",
            "p",
            4444,
            "Listen on this TCP port; 0 takes any free one, which the log names.",
            _whole_number("--port", 0, 65535),
        ],
        [
            "interface",
            "i",
            None,
            "Listen on this IP address of the machine, 0.0.0.0 for all of IPv4, :: for all of"
            f" IPv6. Without it only programs on this machine can connect ({LOOPBACK}).",
            _interface,
        ],
        [
            "k",
            None,
            Settings.k,
            f"Bits of an identifier, 1 to {MAX_K}: the ring has room for 2**k nodes. All nodes"
            " of a ring use the same.",
            _whole_number("--k", 1, MAX_K),
        ],
        [
            "replicas",
            None,
            None,
            "Copies of every key in the ring that this node founds: 1, 3 (survives one crash) or 5"
            " (two at once). It holds for the whole ring and for ever: with --join, leave it out"
            " or say the ring's number."
            f" [default: the ring's own, {DEFAULT_REPLICAS} in a new one]",
            _replicas,
        ],
        [
            "subnet",
            None,
            DEFAULT_PROTOCOL.subnet,
            "Name of the network, any text: nodes refuse everyone whose subnet differs.",
        ],
        [
            "encryption",
            None,
            None,
            "Plaintext, or SSL to encrypt all connections with TLS; SSL without --tls does not"
            " check who the peers are. [default: SSL with --tls, otherwise"
            f" {DEFAULT_PROTOCOL.encryption}]",
            _one_of("--encryption", *ENCRYPTIONS),
        ],
        [
            "tls",
            None,
            None,
            "Folder with ca.pem, cert.pem and key.pem, as chordctl tls issue makes it: encrypt all"
            " connections, and accept only peers whose certificate this authority signed.",
            os.path.abspath,
        ],
        [
            "http",
            None,
            None,
            "Show the ring in a browser, with probes, metrics and reading of keys, at this port of"
            " this machine, such as 8080, or at a Twisted endpoint, such as"
            " tcp:8080:interface=0.0.0.0. Under the TLS of --tls, if there is one. [default: off]",
        ],
        [
            "out-addr",
            None,
            None,
            "HOST:PORT at which other nodes reach this one, if that is not where it listens"
            " (behind a router, in a container).",
            _address("--out-addr"),
        ],
        [
            "data",
            None,
            None,
            "Folder for what the node must not forget; one for each node. [default:"
            " chord-PORT.data in the node's working directory; none with --port 0]",
            _data,
        ],
        [
            "sync",
            None,
            None,
            "What is acknowledged is on the disk: always, or with interval only in the hands of the"
            " operating system, which writes it within a second; then the end of the machine can"
            f" cost that second. [default: {ALWAYS}]",
            _one_of("--sync", ALWAYS, INTERVAL),
        ],
        [
            "quota",
            None,
            None,
            "Bytes of keys and values, with what is kept of them, that this node takes, such as"
            " 500M or 2G: beyond that, writes that need room are refused. [default: no limit]",
            _bytes("--quota"),
        ],
        [
            "cache",
            None,
            None,
            "Bytes of what is on the disk that the node has in memory, too, such as 500M: about so"
            " much of what was used last. It takes some 80M beside them. [default: 64M]",
            _bytes("--cache"),
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["join"] = []

    def opt_join(self, text: str) -> None:
        """HOST:PORT of a member to join through, IPv6 as [::1]:4444; several may be given."""
        self["join"].append(_address("--join")(text))

    def opt_version(self) -> NoReturn:
        """Print the versions of py2p_twisted and Twisted, and exit."""
        print(f"py2p_twisted {__version__} (Twisted {twisted_version.version})")
        raise SystemExit(0)

    def parseArgs(self, *args: str) -> None:
        """Refuse arguments that belong to no option."""
        if args:
            raise usage.UsageError(f"unexpected argument {args[0]!r}: everything is an --option")

    def postOptions(self) -> None:
        """Refuse what contradicts itself; ``self["prot"]`` joins ``--encryption`` and ``--tls``."""
        encryption = self["encryption"] or ("SSL" if self["tls"] else DEFAULT_PROTOCOL.encryption)
        if self["tls"] and encryption != "SSL":
            raise usage.UsageError(
                f"--tls encrypts: --encryption must be SSL or left out, not {encryption!r}"
            )
        self["prot"] = protocol(self["subnet"], encryption)
        if self["memory"]:
            for name in ("data", "sync", "quota", "cache"):
                if self[name] is not None:
                    raise usage.UsageError(
                        f"--memory keeps nothing on the disk: leave it or --{name} out"
                    )
        elif self["data"] is None and self["port"] == 0:
            for name in ("sync", "quota", "cache"):
                if self[name] is not None:
                    raise usage.UsageError(
                        "with --port 0 nothing is kept on the disk unless --data names a folder:"
                        f" leave --{name} out, or add --data"
                    )

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse, and check all that can be checked without listening.

        :raises SystemExit: with one line that says what is wrong and what is expected.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            refuse(error)


def refuse(error: Exception) -> NoReturn:
    """End the process before anything started: one line on stderr, exit code 1."""
    reason = " ".join(str(error).split())
    raise SystemExit(f"chord: {reason} (twistd chord --help explains the options)") from None


def storage_for(options: Options) -> SQLiteStorage | None:
    """Where the node is to keep its data; nothing is opened yet."""
    folder = options["data"]
    if options["memory"] or (folder is None and options["port"] == 0):
        return None
    if folder is None:
        # Where twistd is about to go: it changes its folder after makeService.
        twistd: dict[str, Any] = options.parent or {}
        rundir = twistd.get("rundir") or "."
        if rundir == "." and twistd.get("chroot"):
            rundir = "/"
        folder = os.path.join(os.path.abspath(rundir), f"chord-{options['port']}.data")
    return SQLiteStorage(folder, options["sync"] or ALWAYS, options["quota"])
