"""How a node of the model reads and writes for its user (test support; pure)."""

from __future__ import annotations

from typing import Any

from py2p_twisted.table.group import Config, Epoch, Record
from py2p_twisted.table.proposer import Condition, Outcome, Write

from ..simulation.history import Operation
from .proposing import Proposing
from .talk import Ask, Failed, Held, Settled, Task, Wrong

__all__ = ["Client"]

#: Tries of one operation before its user is told that it failed.
_MOST_TRIES = 8


class Mixed:
    """The members have different versions."""


class Client(Proposing):
    """A node with users."""

    def use(self, name: str, operations: int) -> Task[None]:
        """A user does some operations, one after the other."""
        world = self.world
        seen: dict[bytes, bytes | None] = {}
        for number in range(operations):
            key = world.choice(world.keys)
            kind = world.choice(("get", "get", "get", "set", "set", "compare", "compare", "delete"))
            value = b"%s.%d" % (name.encode(), number)
            world.left[name] = operations - number - 1
            if kind == "get":
                operation = world.call(name, "get", key)
                found = yield from self.get(operation, key)
                seen[key] = found
            elif kind == "set":
                operation = world.call(name, "set", key, value)
                yield from self.put(operation, Write(key, value, world.new_operation()))
                seen[key] = value
            elif kind == "compare":
                old = seen.get(key)
                operation = world.call(name, "compare_and_set", key, old, value)
                write = Write(key, value, world.new_operation(), Condition.EQUALS, old)
                if (yield from self.put(operation, write)):
                    seen[key] = value
            else:
                operation = world.call(name, "delete", key)
                write = Write(key, None, world.new_operation(), Condition.PRESENT)
                yield from self.put(operation, write)
                seen[key] = None

    def newest(self) -> Task[Config | None]:
        """The newest configuration that it knows; asks somebody if it knows none."""
        if self.known is None or self.world.maybe(0.1):
            others = [one for one in self.world.nodes if one != self.instance]
            reply = yield Ask("config", (), self.world.shuffled(others)[:1])
            if reply is not None:
                self.learn(reply[1])
        return self.known

    # -- reading

    def get(self, operation: Operation, key: bytes) -> Task[bytes | None]:
        """Read a key."""
        for _ in range(_MOST_TRIES):
            config = yield from self.newest()
            if config is None:
                continue
            found = yield from self.read(config, key)
            if found is Mixed:
                found = yield from self.settled(config, key)
            if found is None or isinstance(found, Record):
                value = found.value if found is not None else None
                operation.returned(value, self.world.now)
                return value
        operation.failed()
        return None

    def read(self, config: Config, key: bytes) -> Task[Record | type[Mixed] | Failed | None]:
        """Ask a quorum, the rest when it is slow or differs: the record, if enough are equal."""
        own = self.answer_read(config.epoch, key) if config.has(self.instance) else None
        held = [own.record] if isinstance(own, Held) else []
        members = [peer.instance for peer in config.members if peer.instance != self.instance]
        members = self.world.shuffled(members)
        needed = config.quorum - len(held) if self.world.maybe(0.7) else len(members)
        asked, rest = members[:needed], members[needed:]
        waiting = len(asked)
        reply: Any = None
        if asked:
            reply = yield Ask("read", (config.epoch, key), asked)
        while True:
            if asked and reply is not None:
                waiting -= 1
                if isinstance(reply[1], Held):
                    held.append(reply[1].record)
                elif isinstance(reply[1], Wrong):
                    self.learn(reply[1].config)
            enough, record = self.judge(config, held)
            if enough:
                return record
            if waiting and (reply is not None or not asked):
                reply = yield None
            elif rest:
                waiting, more, rest = waiting + len(rest), rest, []
                asked = more
                reply = yield Ask("read", (config.epoch, key), more, more=bool(held or reply))
            else:
                return Mixed if len(held) >= config.quorum else Failed(False)

    def judge(self, config: Config, held: list[Record | None]) -> tuple[bool, Record | None]:
        """Have a quorum the same version?  Then that is the record (rule 8)."""
        for record in held:
            version = record.ballot if record is not None else None
            same = sum(version == (one.ballot if one is not None else None) for one in held)
            if same >= config.quorum:
                return True, record
        return False, None

    def settled(self, config: Config, key: bytes) -> Task[Record | Failed | None]:
        """Have the proposer find out, or do it here."""
        proposer = self.proposer(config)
        if proposer != self.instance and self.world.maybe(0.5):
            reply = yield Ask("settle", (config.epoch, key), (proposer,))
            result = reply[1] if reply is not None else None
        else:
            result = yield from self.settle(config, key)
        if isinstance(result, Settled):
            return result.record
        if isinstance(result, Wrong):
            self.learn(result.config)
        return Failed(False)

    # -- writing

    def proposer(self, config: Config) -> bytes:
        """Who is to write for all: mostly the first member."""
        members = [peer.instance for peer in config.members]
        return self.world.choice(members) if self.world.maybe(0.15) else members[0]

    def put(self, operation: Operation, write: Write) -> Task[bool]:
        """Carry a write out, in as many tries as it takes; was it applied?"""
        doubtful: Epoch | None = None
        write = self.first_try(write)
        for _ in range(_MOST_TRIES):
            config = yield from self.newest()
            if config is None:
                continue
            proposer = self.proposer(config)
            result: Any = None
            here = proposer == self.instance
            if here or self.world.maybe(0.2 if doubtful is None else 0.6):
                patient = not self.world.maybe(0.5)
                ask = Ask("attempt", (config, write), (self.instance,))
            else:
                patient = False
                ask = Ask("write", (config.epoch, write), (proposer,))
            if patient:
                result, _ = yield from self.propose(config, write)
            else:
                reply = yield ask
                result = reply[1] if reply is not None else Failed(True)
            if isinstance(result, Wrong):
                self.learn(result.config)
            elif isinstance(result, Failed):
                if result.sent and doubtful is None:
                    doubtful = config.epoch
            elif result.outcome is Outcome.STALE:
                self.hear(result.stamp)
                if doubtful is None:
                    write = write.again(self.stamp, None)
            else:
                self.hear(result.stamp)
                return self.tell(operation, result.outcome)
            if doubtful is not None:
                write = self.next_try(write, doubtful)
        self.give_up(operation, doubtful)
        return False

    def first_try(self, write: Write) -> Write:
        """The write with what this node has heard of."""
        return write.again(self.stamp, None)

    def next_try(self, write: Write, doubtful: Epoch) -> Write:
        """The same after an attempt that may have arrived: under its operation id (rule 9)."""
        return write.again(write.after, doubtful)

    def give_up(self, operation: Operation, doubtful: Epoch | None) -> None:
        """Tell the user that it failed, and whether it may have happened (rule 9)."""
        if doubtful is None:
            operation.failed()
        else:
            operation.unknown()

    def tell(self, operation: Operation, outcome: Outcome) -> bool:
        """Tell the user what became of a write."""
        applied = outcome is Outcome.APPLIED
        if outcome is Outcome.UNKNOWN:
            operation.unknown()
        elif operation.kind == "set":
            operation.returned(None, self.world.now)
        else:
            operation.returned(applied, self.world.now)
        return applied
