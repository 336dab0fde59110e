"""What a socket has of a ``dict`` (floor 4).

Owns the meaning of ``MutableMapping`` on top of a service's operations.  Whatever moves many keys
moves them in pages or chunks: no call holds a whole table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import (
    AsyncGenerator,
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from itertools import chain
from typing import Any, TypeVar, overload

from ..service import ChordService, Text, as_bytes
from .reactor import close_later

__all__ = ["Dictionary"]

T = TypeVar("T")

#: Keys, and bytes, that are sent to the reactor's thread at once.
_CHUNK_KEYS, _CHUNK_BYTES = 8192, 8 * 1024 * 1024


class Dictionary(MutableMapping[bytes, bytes]):
    """A ring's dictionary, in the words of ``dict``."""

    _service: ChordService

    @abstractmethod
    def _wait(
        self, function: Callable[..., Any], *arguments: Any, steps: int = 1, write: bool = False
    ) -> Any:
        """Call a function of the service in the reactor's thread and wait for its result.

        :param steps: how many times the service's own timeout it may take.
        :param write: whether the outcome is unknown if no result comes.
        """

    # A socket is one node, not the dictionary that it shows: equal only to itself.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    # -- one key

    def __getitem__(self, key: Text) -> bytes:
        value: bytes | None = self._wait(self._service.get, as_bytes(key))
        if value is None:
            raise KeyError(key)
        return value

    @overload
    def get(self, key: Text) -> bytes | None: ...
    @overload
    def get(self, key: Text, default: T) -> bytes | T: ...
    def get(self, key: Text, default: Any = None) -> Any:
        """The value at a key, or the default."""
        value: bytes | None = self._wait(self._service.get, as_bytes(key))
        return default if value is None else value

    def __contains__(self, key: object) -> bool:
        return bool(self._wait(self._service.contains, as_bytes(key)))  # type: ignore[arg-type]

    def set(self, key: Text, value: Text) -> None:
        """Write a value: ``sock[key] = value``."""
        self._wait(self._service.set, as_bytes(key), as_bytes(value, "a value"), write=True)

    __setitem__ = set

    def __delitem__(self, key: Text) -> None:
        if not self._wait(self._service.delete, as_bytes(key), write=True):
            raise KeyError(key)

    def compare_and_set(self, key: Text, expected: Text | None, value: Text | None) -> bool:
        """Write only if the present value is the expected one (None: only if there is none).

        :param value: None deletes.
        :returns: whether it was done.
        """
        old = None if expected is None else as_bytes(expected, "a value")
        new = None if value is None else as_bytes(value, "a value")
        return bool(self._wait(self._service.compare_and_set, as_bytes(key), old, new, write=True))

    def setdefault(self, key: Text, default: Text | None = None) -> bytes:
        """The value at a key; writes the default first if there is none.

        :raises TypeError: if there is none and no default is given: None cannot be stored.
        """
        if default is None and (there := self.get(key)) is not None:
            return there
        new = as_bytes(default, "a value")  # type: ignore[arg-type]
        value: bytes = self._wait(self._service.setdefault, as_bytes(key), new, steps=3, write=True)
        return value

    @overload
    def pop(self, key: Text, /) -> bytes: ...
    @overload
    def pop(self, key: Text, default: T, /) -> bytes | T: ...
    def pop(self, key: Text, /, *default: Any) -> Any:
        """Delete a key and return its value, or the default; without one raises `KeyError`."""
        if len(default) > 1:
            raise TypeError(f"pop() takes a key and one default, not {len(default)}")
        value = self._wait(self._service.pop, as_bytes(key), None, steps=3, write=True)
        if value is not None:
            return value
        if not default:
            raise KeyError(key)
        return default[0]

    def popitem(self) -> tuple[bytes, bytes]:
        """Delete some key and return it with its value.

        :raises KeyError: if there is none.
        """
        item: tuple[bytes, bytes] = self._wait(self._service.popitem, steps=4, write=True)
        return item

    # -- many keys

    def get_many(self, keys: Iterable[Text]) -> dict[bytes, bytes]:
        """The values at these keys, without those that have none; few messages for many keys."""
        found: dict[bytes, bytes] = {}
        for chunk in _chunks((as_bytes(key), b"") for key in keys):
            found.update(self._wait(self._service.get_many, list(chunk), steps=12))
        return found

    def update(self, other: Any = (), /, **kwargs: Text) -> None:
        """Write many keys: a mapping, or pairs, and keywords.  Those of one owner travel together.

        What was written before an error stays written.
        """
        pairs = other
        if isinstance(other, Mapping):
            pairs = other.items()
        elif hasattr(other, "keys"):
            pairs = ((key, other[key]) for key in other.keys())  # noqa: SIM118
        both = chain(pairs, kwargs.items())
        for chunk in _chunks((as_bytes(k), as_bytes(v, "a value")) for k, v in both):
            self._wait(self._service.update, chunk, steps=12, write=True)

    def clear(self) -> None:
        """Delete every key that is there now."""
        pages = len(self) // self._service.settings.page_keys
        self._wait(self._service.clear, steps=4 + 2 * pages, write=True)

    def __len__(self) -> int:
        return int(self._wait(self._service.count))

    def __iter__(self) -> Iterator[bytes]:
        return self._stream(self._service.keys, len)

    def keys(self) -> KeysView[bytes]:
        """The keys; iterating fetches them page by page, each that stays exactly once."""
        return KeysView(self)

    def values(self) -> ValuesView[bytes]:
        """The values, as :meth:`items`."""
        return _Values(self)

    def items(self) -> ItemsView[bytes, bytes]:
        """Keys and values; iterating fetches them together, page by page."""
        return _Items(self)

    def _stream(self, start: Callable[[], Any], size_of: Callable[[Any], int]) -> Iterator[Any]:
        """What an asynchronous iterator of the service gives, a page at a time."""
        settings = self._service.settings
        source: AsyncGenerator[Any, None] = start()

        async def page() -> tuple[list[Any], bool]:
            taken, room = [], settings.page_bytes
            async for item in source:
                taken.append(item)
                room -= size_of(item)
                if room <= 0 or len(taken) >= settings.page_keys:
                    return taken, True
            return taken, False

        more = True
        try:
            while more:
                taken, more = self._wait(page, steps=4)
                yield from taken
        finally:
            if more:
                close_later(source)


class _Values(ValuesView[bytes]):
    """Values in pages, where the general view would make a request for each."""

    _mapping: Dictionary

    def __iter__(self) -> Iterator[bytes]:
        return (value for _, value in _Items(self._mapping))

    def __contains__(self, value: object) -> bool:
        wanted = _as_stored(value)
        return any(wanted == there for there in self)


class _Items(ItemsView[bytes, bytes]):
    """Items in pages."""

    _mapping: Dictionary

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping.get(item[0])
        return value is not None and value == _as_stored(item[1])

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        sock = self._mapping
        return sock._stream(sock._service.items, lambda item: len(item[0]) + len(item[1]))


def _as_stored(value: object) -> object:
    """The bytes that a value is stored as; what cannot be stored stays, and equals nothing."""
    return as_bytes(value) if isinstance(value, str | bytearray | memoryview) else value


def _chunks(pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[dict[bytes, bytes]]:
    """Pairs in dictionaries of bounded size."""
    chunk: dict[bytes, bytes] = {}
    room = _CHUNK_BYTES
    for key, value in pairs:
        chunk[key] = value
        room -= len(key) + len(value)
        if room <= 0 or len(chunk) == _CHUNK_KEYS:
            yield chunk
            chunk, room = {}, _CHUNK_BYTES
    if chunk:
        yield chunk
