"""The attacks of ``python -m tests.hostile``: each goes over one of the bounds from outside.

Each returns what happened in a few words, and raises AssertionError if the bound did not hold.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from py2p_twisted.node.core import user_key
from py2p_twisted.table.group import FIRST_EPOCH, Ballot, Record
from py2p_twisted.table.proposer import Write
from py2p_twisted.wire.bodies import MOST_ITEMS, MOST_WRITES
from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import (
    Accept,
    Answer,
    Ask,
    Done,
    GetConfigs,
    Hello,
    Leave,
    Page,
    Ping,
    Prepare,
    Read,
    ReadMany,
    Recover,
    Value,
    WriteMany,
    WriteOne,
)

from .forge import REPLIES, REQUESTS, Forger, bent, keys_of, liars, many, stretched
from .raw import Raw, framed, hello, source
from .victim import Victim, wait_until

__all__ = ["ATTACKS", "TLS_ATTACKS", "Attack"]

#: Connections of one address that a node allows; the client of the node needs a few of them.
CROWD = 56
#: Bounds of ``settings.Settings``.
MOST_CONNECTIONS, MOST_OF_ADDRESS, MAX_FRAME = 1024, 64, 1280 * 1024
#: Anybody who is let in may ask for these, and they are done.
_WISHES = (Recover, Leave)


@dataclass(frozen=True)
class Attack:
    """One attack, and what it may cost.

    :ivar run: does it.
    :ivar memory: MiB that the node may have grown by.
    :ivar least: how many lines the node has to log about it.
    :ivar lines: how many it may log.
    """

    name: str
    run: Callable[[Victim], str]
    memory: int = 32
    least: int = 1
    lines: int = 6


def member(victim: Victim, number: int) -> Hello:
    """A liar's HELLO: another member of the node's ring."""
    said = victim.said
    return hello(number, leeching=False, ring=said.ring, replicas=said.replicas)


@contextlib.contextmanager
def crowd(
    victim: Victim, size: int = CROWD, receive_buffer: int = 0, *, meet: bool = True
) -> Iterator[list[Raw]]:
    """So many connections from one address."""
    raws: list[Raw] = []
    try:
        for number in range(size):
            raws.append(victim.connect(receive_buffer=receive_buffer))
            if meet:
                raws[-1].meet(hello(1000 + number))
        yield raws
    finally:
        for raw in raws:
            raw.close()


def ended(raws: list[Raw]) -> set[Raw]:
    """Those of them that the node has closed, or closes within the next moments."""
    poll = select.poll()
    places = {raw.socket.fileno(): raw for raw in raws}
    for place in places:
        poll.register(place, select.POLLIN)
    closed: set[Raw] = set()
    while len(closed) < len(raws) and (events := poll.poll(150)):
        for place, _ in events:
            poll.unregister(place)
            closed.add(places[place])
    return closed


def each(raws: list[Raw], do: Callable[[Raw], Any]) -> list[Any]:
    """Do something with all of them at once."""
    with ThreadPoolExecutor(len(raws)) as pool:
        return list(pool.map(do, raws))


def pour(raw: Raw, data: bytes, times: int, seconds: float = 5.0) -> int | None:
    """Send it so often, reading nothing, for a while; None once the node closed the connection."""
    end = time.monotonic() + seconds
    raw.socket.settimeout(1.0)
    for count in range(times):
        try:
            raw.socket.sendall(data)
        except TimeoutError:
            return count
        except ConnectionError:
            return None
        if time.monotonic() > end:
            return count
    return times


# -- connections


def connections(victim: Victim) -> str:
    """10,000, from 160 addresses, in steps of 500; nobody says a word."""
    before, held, refused = victim.descriptors, [], 0
    try:
        for step in range(20):
            opened = [victim.connect(source((500 * step + number) % 160)) for number in range(500)]
            closed = ended(opened)
            held += [raw for raw in opened if raw not in closed]
            refused += len(closed)
            for raw in closed:
                raw.close()
        most = victim.descriptors - before
        assert most <= MOST_CONNECTIONS, f"{most} connections are open"
        assert refused >= 10_000 - 2 * MOST_CONNECTIONS, refused
        wait_until(lambda: victim.descriptors <= before + 2, "the silent are dropped", 8)
    finally:
        for raw in held:
            raw.close()
    return f"{refused} closed at once, {most} held, all dropped after 5 s"


def unfinished(victim: Victim) -> str:
    """Handshakes that never end: nothing, half a HELLO, or a byte a second; and silent members."""
    first = framed(encode(hello(7)))
    ends: dict[str, float] = {}
    with contextlib.ExitStack() as stack:

        def begin(data: bytes = b"", said: Hello | None = None) -> Raw:
            raw = stack.enter_context(victim.connect())
            raw.meet(said) if said else raw.send(data)
            return raw

        waiting = {
            "nothing": begin(),
            "half a HELLO": begin(first[: len(first) // 2]),
            "HELLO byte by byte": begin(),
            "a member that never answers": begin(said=member(victim, 8)),
            "a frame byte by byte": begin(said=hello(9)),
        }
        slow = iter(first)
        waiting["a frame byte by byte"].send(MAX_FRAME.to_bytes(4, "big"))
        began = time.monotonic()
        while waiting and time.monotonic() - began < 12:
            for name, raw in list(waiting.items()):
                if raw.ended(0.02) is not None:
                    ends[name] = time.monotonic() - began
                    del waiting[name]
            if int(time.monotonic() - began) > len(first) - 1:
                break
            if "HELLO byte by byte" in waiting:
                waiting["HELLO byte by byte"].send(bytes([next(slow)]))
            if "a frame byte by byte" in waiting:
                waiting["a frame byte by byte"].send(b"\x93")
            time.sleep(0.9)
    assert not waiting, f"still connected: {list(waiting)}"
    for name in ("nothing", "half a HELLO", "HELLO byte by byte"):
        assert ends[name] < 7, (name, ends[name])
    return ", ".join(f"{name}: {seconds:.0f} s" for name, seconds in ends.items())


def tls_unfinished(victim: Victim) -> str:
    """Nothing, half a ClientHello, all of it but nothing after that, and plain text."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    first = outgoing.read()
    raws = []
    for data in [b"", first[:50], first, bytes(100), framed(encode(hello()))] * 11:
        raws.append(victim.connect())
        raws[-1].send(data)
    try:
        closed: set[Raw] = set()
        end = time.monotonic() + 8
        while len(closed) < len(raws):
            assert time.monotonic() < end, f"{len(raws) - len(closed)} are still connected"
            for raw in raws:
                if raw not in closed and raw.ended(0.02) is not None:
                    closed.add(raw)
    finally:
        for raw in raws:
            raw.close()
    return f"{len(raws)} connections closed within 8 s"


# -- frames


def announced(victim: Victim) -> str:
    """Frames of 4 GiB and just over the limit, before HELLO and after it."""
    lengths = (2**32 - 1, 2**31, MAX_FRAME + 1)
    for length in (*lengths, 4097):
        with victim.connect() as raw:
            raw.send(length.to_bytes(4, "big") + bytes(2000))
            assert raw.ended(2) is not None, length
    for length in lengths:
        with victim.connect() as raw:
            raw.meet()
            raw.send(length.to_bytes(4, "big") + bytes(2000))
            assert raw.ended(2) is not None, length
    return f"{2 * len(lengths) + 1} connections closed at once"


def at_the_limit(victim: Victim) -> str:
    """Whole frames of 1.25 MiB, and many connections that each hold one back, in small pieces."""
    with victim.connect() as raw:
        raw.meet()
        body = encode(Answer(1, Value(bytes(MAX_FRAME - 10))))
        assert len(body) == MAX_FRAME, len(body)
        for _ in range(200):
            assert raw.send(framed(body))
        assert raw.ask(Ping()) == Done()
    with crowd(victim) as raws:

        def fill(raw: Raw) -> None:
            raw.send(MAX_FRAME.to_bytes(4, "big"))
            for _ in range(20_000):
                if not raw.send(b"\x93"):
                    return
            raw.send(bytes(MAX_FRAME - 20_001))

        each(raws, fill)
    return f"200 were read; {CROWD} connections held one each"


def tiny_pieces(victim: Victim) -> str:
    """One frame, two bytes at a time, as fast as that goes; of one byte Python has an object."""
    with victim.connect() as raw:
        raw.meet()
        raw.send(MAX_FRAME.to_bytes(4, "big"))
        end = time.monotonic() + 5
        sent = 0
        while time.monotonic() < end and sent < MAX_FRAME // 2 - 1 and raw.send(b"\x93\x93"):
            sent += 1
    return f"{sent} pieces of two bytes"


def bad_msgpack(victim: Victim) -> str:
    """Deep nesting, and lengths that lie."""
    count = 0
    for body in liars():
        with victim.connect() as raw:
            raw.meet()
            raw.send(framed(body))
            assert raw.ended(5) is not None, body[:20]
            count += 1
    return f"{count} connections closed"


def every_field(victim: Victim) -> str:
    """Each field of each message missing, of another type, and beyond its ends."""
    forger = Forger(victim.said, Random(1))
    closed = answered = 0
    for kind in (*REQUESTS, *REPLIES, Hello):
        raw = None
        raws = stretched(member(victim, 11) if kind is Hello else forger.body(kind))
        for body in islice(raws, 400):
            if raw is None:
                raw = victim.connect()
                raw.meet()
            if kind in _WISHES and not bent(body):
                continue
            raw.send(framed(body))
            if bent(body):
                assert raw.ended(5) is not None, body
                raw.close()
                raw = None
                closed += 1
            else:
                answered += 1
        if raw is not None:
            raw.close()
    return f"{closed} were no messages: each closed its connection; {answered} were taken"


def out_of_range(victim: Victim, number_of_requests: int = 3000) -> str:
    """Ids, partitions, epochs and ballots at the ends of what their types allow."""
    forger = Forger(victim.said, Random(2))
    kinds: dict[str, int] = {}
    raw = victim.connect()
    raw.meet(hello(12))
    asked = [kind for kind in REQUESTS if kind not in _WISHES]
    for number in range(number_of_requests):
        request = forger.body(asked[number % len(asked)])
        reply = raw.ask(request)
        assert reply is not None, request
        kinds[type(reply).__name__] = kinds.get(type(reply).__name__, 0) + 1
    raw.close()
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


# -- requests and answers


def million(victim: Victim) -> str:
    """A million requests on one connection, and no answer is read."""
    with victim.connect(receive_buffer=4096) as raw:
        raw.meet()
        sent = pour(raw, many(Ping(), 10_000), 100, 30)
    assert sent is None or sent < 100, "all were taken"
    return "cut off" if sent is None else f"not read any more after {sent * 10_000}"


def unread(victim: Victim) -> str:
    """Many connections ask for much, again and again, and read nothing."""
    key = user_key(b"large")
    with victim.connect() as raw:
        raw.meet()
        raw.ask(WriteOne(FIRST_EPOCH, Write(key, bytes(1_000_000), b"unread..")))
    ended = 0
    for request in (Read(FIRST_EPOCH, key), GetConfigs(0), Page(0, FIRST_EPOCH, None, True, 4096)):
        with crowd(victim, receive_buffer=4096) as raws:
            data = many(request, 1000)
            ended += each(raws, lambda raw, data=data: pour(raw, data, 400, 4)).count(None)
    return f"{ended} of {3 * CROWD} cut off, the others not read any more"


def flood(victim: Victim) -> str:
    """Many connections ask as fast as they can, and read the answers."""
    requests = (
        Ping(),
        GetConfigs(0),
        WriteOne(FIRST_EPOCH, Write(user_key(b"flood"), b"x" * 100, b"flood...")),
    )
    count = 0
    for request in requests:
        data = many(request, 2000)
        with crowd(victim) as raws:

            def busy(raw: Raw, data: bytes = data) -> int:
                end, answers = time.monotonic() + 2, 0
                while time.monotonic() < end and raw.send(data):
                    answers += sum(1 for _ in islice(raw.hear_all(), 2000))
                return answers

            count += sum(each(raws, busy))
    return f"{count} answers on {CROWD} connections in {2 * len(requests)} s"


def large_requests(victim: Victim) -> str:
    """As many keys as one message may have, and more."""
    keys = keys_of(0, MOST_ITEMS + 1)
    ballot = Ballot(FIRST_EPOCH, 2, b"")

    def bodies(some: list[bytes], most_writes: int) -> list[tuple[Any, list[Any]]]:
        operations = [number.to_bytes(8, "big") for number in range(len(some))]
        writes = [[key, b"", op] for key, op in zip(some, operations, strict=True)]
        return [
            (ReadMany, [[FIRST_EPOCH, some]]),
            (WriteMany, [[FIRST_EPOCH, writes[len(some) - most_writes :]]]),
            (Prepare, [[0, FIRST_EPOCH, [[key, ballot] for key in some]]]),
            (Accept, [[0, FIRST_EPOCH, [[key, Record(ballot, b"")] for key in some]]]),
        ]

    for kind, parts in bodies(keys[:-1], MOST_WRITES):
        with victim.connect() as raw:
            raw.meet()
            for _ in range(10):
                raw.send(framed(encode([10, 1, [kind.__struct_config__.tag, parts]])))
                assert raw.hear().number == 1
    for kind, parts in bodies(keys, MOST_WRITES + 1):
        with victim.connect() as raw:
            raw.meet()
            raw.send(framed(encode([10, 1, [kind.__struct_config__.tag, parts]])))
            assert raw.ended(5) is not None, kind
    return "40 with as many keys as are allowed were answered, 4 with one more cut off"


def answers(victim: Victim) -> str:
    """Answers that nobody asked for, repeated ones, and late ones."""
    with victim.connect() as raw:
        raw.meet()
        sent = pour(raw, framed(*(encode(Answer(n, Done())) for n in range(2000))), 20)
        assert sent is None or raw.ended(2) is not None, "still connected"
    with victim.connect() as raw:
        raw.meet(member(victim, 13))
        asked = late = 0
        for message in raw.hear_all():
            if isinstance(message, Ask):
                asked += 1
                if asked % 2:
                    time.sleep(0.3)
                    late += 1
                raw.say(*[Answer(message.number, Done())] * 3)
            if asked == 8:
                break
        assert raw.ask(Ping()) == Done()
    return f"a flood was cut off; {asked} requests answered three times, {late} of them late"


def strangers(victim: Victim) -> str:
    """What is no HELLO, or a HELLO of somebody else, before anything else."""
    first = (
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        bytes(4000),
        framed(b""),
        framed(encode(Ask(1, Ping()))),
        framed(encode(Answer(1, Done()))),
        framed(encode(hello(1, k=7))),
        framed(encode(hello(1, subnet="\x1b[2J" * 60))),
        framed(encode(hello(1, ring=b"other", leeching=False, replicas=3))),
        framed(encode(hello(1, peer=victim.said.peer))),
    )
    for data in first:
        with victim.connect() as raw:
            raw.send(data)
            assert raw.ended(6) is not None, data[:40]
    return f"{len(first)} connections closed"


ATTACKS = (
    Attack("strangers", strangers),
    Attack("handshakes never finished", unfinished, lines=8),
    Attack("frames announced at 4 GiB", announced),
    Attack("frames at the limit", at_the_limit, memory=CROWD * 3 // 2 + 32, least=0),
    Attack("a frame in tiny pieces", tiny_pieces, memory=8, least=0),
    Attack("deep or lying msgpack", bad_msgpack),
    Attack("every field bent", every_field),
    Attack("numbers out of range", out_of_range, least=0),
    Attack("a million requests, none read", million),
    Attack("large answers, none read", unread, memory=256),
    Attack("a flood of requests", flood, memory=64, least=0),
    Attack("requests of many keys", large_requests, memory=64),
    Attack("unsolicited, repeated, late answers", answers),
    Attack("10,000 connections", connections, memory=64, lines=2 * 51),
)

#: On a node with certificates.
TLS_ATTACKS = (Attack("TLS handshakes never finished", tls_unfinished, lines=6),)
