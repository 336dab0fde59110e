"""The operations on the shared dictionary (floor 3): what :class:`~.service.ChordService` offers.

Owns the shape of the user's side: what a key and a value may be, and what each operation fires
with.  All operations return Deferreds; every Deferred can be cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from hashlib import sha256
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from .errors import ChordError, KeyTooLarge, ValueTooLarge
from .node import Node
from .node.core import user_key
from .settings import Settings
from .table.proposer import Condition, Write
from .watch import Watch

__all__ = ["Dictionary", "Text", "as_bytes"]

T = TypeVar("T")
#: An expected value that is longer travels as its hash.
_LONG = 256
#: What a key or value may be.
Text = bytes | bytearray | memoryview | str


def as_bytes(text: Text, what: str = "a key") -> bytes:
    """A key or value as bytes: bytes-like as it is, text as UTF-8.

    :raises TypeError: for anything else.
    """
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode("utf-8")
    try:
        return bytes(memoryview(text))
    except TypeError:
        raise TypeError(
            f"{what} must be bytes-like or str, not {type(text).__name__}: {text!r:.80}"
        ) from None


class Dictionary:
    """One dictionary of bytes, through the node that it is given."""

    node: Node
    settings: Settings

    # -- one key

    def _key(self, key: Text) -> bytes:
        raw = as_bytes(key)
        if len(raw) > self.settings.max_key:
            raise KeyTooLarge(
                f"a key of {len(raw)} bytes is over the limit of {self.settings.max_key} bytes"
            )
        return user_key(raw)

    def _value(self, value: Text) -> bytes:
        raw = as_bytes(value, "a value")
        if len(raw) > self.settings.max_value:
            raise ValueTooLarge(
                f"a value of {len(raw)} bytes is over the limit of {self.settings.max_value} bytes"
            )
        return raw

    def _write(
        self, key: bytes, value: bytes | None, condition: Condition, expected: bytes | None = None
    ) -> Deferred[bool]:
        if expected is not None and len(expected) > _LONG:
            condition, expected = Condition.HASHES, sha256(expected).digest()
        operations = self.node.operations
        number, clock = operations.next_operation(), self.node.core.stamp
        return operations.write(Write(key, value, number, condition, expected, clock))

    def get(self, key: Text, default: T | None = None) -> Deferred[bytes | T | None]:
        """The value at a key, or the default.

        :returns: fails with `Unavailable`, `OperationTimeout` or `NotConnected`.
        :raises TypeError, KeyTooLarge: for a key that cannot be one.
        """
        read: Deferred[Any] = self.node.operations.read(self._key(key))
        if default is not None:
            read.addCallback(lambda value: default if value is None else value)
        return read

    def contains(self, key: Text) -> Deferred[bool]:
        """Is there a value at the key?"""
        read = self.node.operations.read(self._key(key))
        return read.addCallback(lambda value: value is not None)

    def set(self, key: Text, value: Text) -> Deferred[None]:
        """Write a value.

        :returns: fails with `Unavailable` or `OperationTimeout`, whose `outcome_unknown` tells
            whether the value may have been written, or with `NotConnected`.
        :raises TypeError, KeyTooLarge, ValueTooLarge: for what cannot be stored.
        """
        done: Deferred[Any] = self._write(self._key(key), self._value(value), Condition.ALWAYS)
        return done.addCallback(_to_none)

    def delete(self, key: Text) -> Deferred[bool]:
        """Delete a key; fires with whether there was a value."""
        return self._write(self._key(key), None, Condition.PRESENT)

    def compare_and_set(
        self, key: Text, expected: Text | None, value: Text | None
    ) -> Deferred[bool]:
        """Write only if the present value is the expected one (None: only if there is none).

        :param value: None deletes.
        :returns: fires with whether it was done.
        """
        old = None if expected is None else self._value(expected)
        new = None if value is None else self._value(value)
        return self._write(self._key(key), new, Condition.EQUALS, old)

    def setdefault(self, key: Text, default: Text) -> Deferred[bytes]:
        """The value at a key; writes the default first if there is none."""
        return Deferred.fromCoroutine(self._setdefault(self._key(key), self._value(default)))

    async def _setdefault(self, key: bytes, default: bytes) -> bytes:
        while True:
            value = await self.node.operations.read(key)
            if value is not None:
                return value
            if await self._write(key, default, Condition.EQUALS):
                return default

    def pop(self, key: Text, *default: T) -> Deferred[bytes | T]:
        """Delete a key and fire with its value.

        :param default: instead of a value that is not there; without it `KeyError`.
        """
        raw = self._key(key)
        return Deferred.fromCoroutine(self._pop(raw, key, default))

    async def _pop(self, key: bytes, shown: Text, default: tuple[T, ...]) -> bytes | T:
        while True:
            value = await self.node.operations.read(key)
            if value is None:
                if default:
                    return default[0]
                raise KeyError(shown)
            if await self._write(key, None, Condition.EQUALS, value):
                return value

    def popitem(self) -> Deferred[tuple[bytes, bytes]]:
        """Delete some key and fire with it and its value; fails with KeyError if there is none."""
        return Deferred.fromCoroutine(self._popitem())

    async def _popitem(self) -> tuple[bytes, bytes]:
        while True:
            filled = [part for part, keys in (await self.node.walk.counts()).items() if keys]
            if not filled:
                raise KeyError("popitem(): the dictionary is empty")
            self.node.core.rng.shuffle(filled)
            async for key, _ in self.node.walk.keys(values=False, partitions=filled[:1], most=1):
                value = await self.node.operations.read(user_key(key))
                if value is not None and await self._write(
                    user_key(key), None, Condition.EQUALS, value
                ):
                    return key, value
                break

    # -- watching

    def watch(
        self, key: Text | None = None, *, prefix: Text | None = None, initial: bool = False
    ) -> Watch:
        """The changes of a key, or of all keys that begin with a prefix, as they happen.

        Every acknowledged change is followed by an event with its version or a later one of that
        key, in the order of the versions.

        :param initial: begin with what is there already, as ``"add"`` events.
        :raises TypeError: unless either a key or a prefix is given.
        :raises KeyTooLarge: for a key that cannot be one.
        :raises Unavailable: if ``Settings.watches`` watches are open already.
        :raises NotConnected: if the service was stopped.
        """
        if (key is None) is (prefix is None):
            raise TypeError('watch() takes either a key or prefix=; prefix=b"" is all keys')
        text = key if key is not None else prefix
        assert text is not None
        watching = self.node.watching
        watcher = watching.watch(self._key(text), prefix=key is None, initial=initial)
        return Watch(self.node, watcher)

    # -- many keys

    def get_many(self, keys: Iterable[Text]) -> Deferred[dict[bytes, bytes]]:
        """The values at these keys; those that have none are missing from the result."""
        if isinstance(keys, bytes | bytearray | memoryview | str):
            raise TypeError("get_many() takes several keys, in a list say: one key is for get()")
        wanted = [self._key(key) for key in keys]

        async def read() -> dict[bytes, bytes]:
            found = await self.node.bulk.read_many(wanted)
            return {key[1:]: value for key, value in found.items()}

        return Deferred.fromCoroutine(read())

    def update(
        self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), **kwargs: Text
    ) -> Deferred[None]:
        """Write many keys; those of one owner travel together.

        :returns: fires when all are written; fails with the first error.  Its `outcome_unknown` is
            true as soon as any of the keys was written, or may have been.
        """
        pairs = other.items() if isinstance(other, Mapping) else other
        last = {self._key(key): self._value(value) for key, value in pairs}
        last.update({self._key(key): self._value(value) for key, value in kwargs.items()})
        number = self.node.operations.next_operation
        clock = self.node.core.stamp
        writes = [Write(key, value, number(), after=clock) for key, value in last.items()]
        return Deferred.fromCoroutine(self.node.bulk.write_many(writes))

    def count(self) -> Deferred[int]:
        """How many keys there are, added up over the nodes that keep them."""

        async def add_up() -> int:
            return sum((await self.node.walk.counts()).values())

        return Deferred.fromCoroutine(add_up())

    def clear(self) -> Deferred[None]:
        """Delete every key that is there now; when it fails, as with :meth:`update`."""
        begun = False

        async def delete_pages() -> None:
            nonlocal begun
            number = self.node.operations.next_operation
            batch: list[Write] = []
            async for key in self.keys():
                clock = self.node.core.stamp
                batch.append(Write(user_key(key), None, number(), after=clock))
                if len(batch) == self.settings.page_keys:
                    await self.node.bulk.write_many(batch)
                    batch, begun = [], True
            await self.node.bulk.write_many(batch)

        async def delete_all() -> None:
            try:
                await delete_pages()
            except ChordError as error:
                error.outcome_unknown = error.outcome_unknown or begun
                raise

        return Deferred.fromCoroutine(delete_all())

    async def keys(self) -> AsyncIterator[bytes]:
        """Every key, page by page: each that exists all the while exactly once."""
        async for key, _ in self.node.walk.keys(values=False):
            yield key

    async def items(self) -> AsyncIterator[tuple[bytes, bytes]]:
        """Every key with its value, page by page, as :meth:`keys`."""
        async for item in self.node.walk.keys(values=True):
            yield item


def _to_none(_: object) -> None:
    return None
