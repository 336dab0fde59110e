"""The target ``protocol``: bytes are an intruder's doings in a ring, which must bear them."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from py2p_twisted.wire.codec import encode
from py2p_twisted.wire.messages import Answer, Ask, Hello, Refused

from ..hostile.forge import REPLIES, REQUESTS, Forger, keys_of
from ..hostile.raw import framed
from .bending import any_kind, bent_message
from .source import ByteRandom
from .stage import HOME, Intruder, Stage, nothing_failed

__all__ = ["protocol"]

#: Doings of one input, at most.
_MOST_STEPS = 40
#: Answers of one input to what the nodes ask.
_MOST_ANSWERS = 200
#: Seconds of processor time that one input may take.
_LONGEST = 5.0


def protocol(data: bytes) -> str:
    """Let an intruder do what these bytes say, and see what becomes of the ring."""
    began = time.process_time()
    with nothing_failed():
        rng = ByteRandom(data)
        stage = Stage(disks=rng.random() >= 0.7)
        script = _Script(stage, rng)
        script.play()
        stage.world.run(1.0)
        stage.judge(told_lies=script.told_lies)
    took = time.process_time() - began
    assert took < _LONGEST, f"{took:.1f} s of processor time"
    return ""


class _Script:
    """What the intruder does, decided by bytes.

    :ivar told_lies: it said that it is a member.
    """

    def __init__(self, stage: Stage, rng: ByteRandom) -> None:
        self.told_lies = False
        self._stage = stage
        self._rng = rng
        self._answers = 0
        core = stage.members[0].service.node.core
        peers = [HOME, *(member.service.node.core.me for member in stage.members)]
        self._forgers = [
            Forger(
                stage.said(),
                rng,
                peers,
                core.directory.get(partition),
                keys_of(partition, 3, core.settings.k),
            )
            for partition in range(core.partitions)
        ]
        self._claims = rng.choice(["client", "client", "member", "member", "other ring", "nothing"])
        self._answering = rng.random() < 0.7
        stage.on_meeting = self._greet
        stage.on_question = self._answer
        self._number = 0

    def play(self) -> None:
        """Do it."""
        doings = (self._ask, self._ask, self._ask, self._reply, self._hello, self._raw)
        doings = (*doings, self._wait, self._close, self._reading, self._dial, self._refuse)
        self._dial()
        for _ in range(_MOST_STEPS):
            if self._rng.exhausted:
                break
            self._rng.choice(doings)()

    # -- what it says first

    def _hello_message(self) -> Hello:
        said = self._stage.said()
        changes: dict[str, Any] = {"peer": HOME, "fresh": False, "full": False, "leeching": True}
        if self._claims in ("member", "other ring"):
            changes["leeching"] = False
        if self._claims == "other ring":
            changes["ring"] = b"another"
        self.told_lies = self.told_lies or not changes["leeching"]
        return msgspec.structs.replace(said, **changes)

    def _greet(self, intruder: Intruder) -> None:
        if self._claims != "nothing":
            intruder.say(encode(self._hello_message()))

    def _body(self, kind: Any) -> Any:
        return self._rng.choice(self._forgers).body(kind)

    # -- what it does

    @property
    def _connection(self) -> Intruder | None:
        living = [one for one in self._stage.connections if not one.lost]
        return self._rng.choice(living) if living else None

    def _dial(self) -> None:
        self._stage.dial(self._rng.choice(self._stage.members))
        self._stage.world.run(0.01)

    def _ask(self) -> None:
        self._number += 1
        body = self._body(any_kind(REQUESTS, self._rng))
        self._send(Ask(self._number, body))

    def _reply(self) -> None:
        connection = self._connection
        number = connection.asked[-1].number if connection and connection.asked else 1
        self._send(Answer(number, self._body(any_kind(REPLIES, self._rng))))

    def _hello(self) -> None:
        said = self._body(Hello) if self._rng.random() < 0.3 else self._hello_message()
        self.told_lies = True  # whatever becomes of it when it is bent
        self._send(said)

    def _refuse(self) -> None:
        self._send(self._body(Refused))

    def _send(self, message: Any) -> None:
        if self._rng.random() < 0.7:
            raw = encode(message)
        else:
            raw = bent_message(message, self._rng)
        times = self._rng.choice([1, 1, 1, 2, 40])
        self._write(framed(raw) * times)

    def _raw(self) -> None:
        size = self._rng.choice([1, 3, 4, 5, 16, 64])
        self._write(self._rng.randbytes(size))

    def _write(self, data: bytes) -> None:
        """In one piece, or in some that arrive one after the other."""
        connection = self._connection
        if connection is None:
            return
        if self._rng.random() < 0.8:
            connection.write(data)
        else:
            place = self._rng.randint(0, len(data))
            connection.write(data[:place])
            self._stage.world.run(0.01)
            connection.write(data[place:])
        self._stage.world.run(0.01)

    def _wait(self) -> None:
        self._stage.world.run(self._rng.choice([0.01, 0.3, 2.0, 9.0]))

    def _close(self) -> None:
        connection = self._connection
        if connection is not None:
            if self._rng.random() < 0.5:
                connection.transport.loseConnection()
            else:
                connection.transport.abortConnection()

    def _reading(self) -> None:
        connection = self._connection
        if connection is not None:
            if connection.transport.reading:
                connection.transport.pauseProducing()
            else:
                connection.transport.resumeProducing()

    # -- what it answers

    def _answer(self, intruder: Intruder) -> None:
        self._answers += 1
        if self._answering and self._answers <= _MOST_ANSWERS:
            number = intruder.asked[-1].number
            reply = self._body(any_kind(REPLIES, self._rng))
            intruder.say(encode(Answer(number, reply)))
