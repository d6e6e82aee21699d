"""What the module keeps from one event to the next: values under keys, on the host's disk.

All of it is private to the module and the tenant of the event: for another tenant, the same module sees other values.

    store = Store()
    asked = store.increment("questions")
    if "greeted" not in store:
        store["greeted"] = event.chat_id

A write is on disk when the call returns, and stays, however the event ends: a delivery that fails takes nothing back. When
it starts again, reads and writes that were answered are answered as they were then, without being done again. So an
``increment`` counts once for each event, even if the host is killed in the middle of it.

Deliveries run side by side. What two of them may change at the same time wants ``increment``, ``update`` or
``compare_and_swap``, not a read and then a write.

What there is room for is ``limits.keyvalue`` of the module in ``modules.toml``. A call beyond it raises
``modhost.Invalid``, and says what is full. A module that doesn't import ``modhost.keyvalue`` doesn't ask for any.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeAlias, TypeVar

from componentize_py_types import Err

from modhost._bindings.imports import atomics, batch
from modhost._bindings.imports import wasi_keyvalue_store as wit
from modhost._calls import no_host
from modhost._errors import Denied, Error, Invalid, NotFound, Unavailable

Value: TypeAlias = bytes | str
"""What can be kept: bytes, or text, which is kept in UTF-8."""

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class Store:
    """Values under keys. A store with a name has keys of its own."""

    def __init__(self, name: str = "") -> None:
        self._bucket = _call("keyvalue.open", wit.open, name)

    def __getitem__(self, key: str) -> bytes:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Value) -> None:
        _call("keyvalue.set", self._bucket.set, key, _bytes(value))

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.delete(key)

    def __contains__(self, key: str) -> bool:
        return _call("keyvalue.exists", self._bucket.exists, key)

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def get(self, key: str) -> bytes | None:
        """What stands under the key, or ``None``."""
        return _call("keyvalue.get", self._bucket.get, key)

    def get_text(self, key: str) -> str | None:
        """What stands under the key, as text."""
        value = self.get(key)
        return None if value is None else _text(key, value)

    def get_json(self, key: str) -> Any:
        """What stands under the key, read as JSON; ``None`` where nothing does."""
        value = self.get(key)
        return None if value is None else _from_json(key, value)

    def set(self, key: str, value: Value) -> None:
        """Sets the key, as ``store[key] = value`` does."""
        self[key] = value

    def set_json(self, key: str, value: Any) -> None:
        """Sets the key to a value as JSON."""
        self[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Removes the key, if it is there."""
        _call("keyvalue.delete", self._bucket.delete, key)

    def keys(self) -> Iterator[str]:
        """All keys, however many there are: more are asked for as the loop goes on."""
        cursor: str | None = None
        while True:
            page = _call("keyvalue.list-keys", self._bucket.list_keys, cursor)
            yield from page.keys
            cursor = page.cursor
            if cursor is None:
                return

    def get_many(self, keys: Iterable[str]) -> list[bytes | None]:
        """What stands under the keys, in their order, in one call."""
        found = _call("keyvalue.get-many", batch.get_many, self._bucket, list(keys))
        return [None if entry is None else entry[1] for entry in found]

    def set_many(self, entries: Mapping[str, Value]) -> None:
        """Sets all of them, or none if that fails."""
        pairs = [(key, _bytes(value)) for key, value in entries.items()]
        _call("keyvalue.set-many", batch.set_many, self._bucket, pairs)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Removes all of them, or none if that fails."""
        _call("keyvalue.delete-many", batch.delete_many, self._bucket, list(keys))

    def increment(self, key: str, by: int = 1) -> int:
        """Adds to the number under the key, which begins at 0, and returns what it is then."""
        return _call("keyvalue.increment", atomics.increment, self._bucket, key, by)

    def update(self, key: str, change: Callable[[bytes | None], Value]) -> bytes:
        """Sets the key to what ``change`` makes of its value, and returns that. If another delivery sets the key in
        between, ``change`` is called again with what that has set."""
        cas = self._look(key)
        while True:
            value = _bytes(change(_current(cas)))
            later = _swap(cas, value)
            if later is None:
                return value
            cas = later

    def update_json(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Like ``update``, with values as JSON; ``None`` where nothing stands."""

        def written(value: bytes | None) -> str:
            return json.dumps(change(None if value is None else _from_json(key, value)))

        return _from_json(key, self.update(key, written))

    def compare_and_swap(self, key: str, expected: Value | None, value: Value) -> bool:
        """Sets the key if what stands under it is what is expected (``None``: nothing), and says whether it did."""
        wanted = None if expected is None else _bytes(expected)
        cas = self._look(key)
        while _current(cas) == wanted:
            later = _swap(cas, _bytes(value))
            if later is None:
                return True
            # Set anew in between, maybe to the same.
            cas = later
        return False

    def _look(self, key: str) -> atomics.Cas:
        return _call("keyvalue.cas.new", atomics.Cas.new, self._bucket, key)


def _current(cas: atomics.Cas) -> bytes | None:
    return _call("keyvalue.cas.current", cas.current)


def _swap(cas: atomics.Cas, value: bytes) -> atomics.Cas | None:
    """Nothing if it is done; else how to try it again."""
    try:
        atomics.swap(cas, value)
    except Err as error:
        match error.value:
            case atomics.CasError_CasFailed(later):
                return later
            case atomics.CasError_StoreError(cause):
                raise _error("keyvalue.swap", cause) from None
            case other:
                raise AssertionError(f"no case of cas-error: {other!r}") from None
    return None


def _call(
    name: str, function: Callable[_Arguments, _Answer], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Answer:
    try:
        return function(*args, **kwargs)
    except Err as error:
        raise _error(name, error.value) from None
    except NotImplementedError:
        raise no_host(name) from None


def _error(name: str, error: wit.Error) -> Error:
    match error:
        case wit.Error_NoSuchStore():
            return NotFound(name, "there is no such store")
        case wit.Error_AccessDenied():
            return Denied(name, "the module may not use this store")
        case wit.Error_Other(text):
            passing = text.removeprefix("unavailable: ")
            return Invalid(name, text) if passing == text else Unavailable(name, passing)


def _bytes(value: Value) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _text(key: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Invalid("keyvalue.get", f"what stands under `{key}` isn't text: {error}") from None


def _from_json(key: str, value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise Invalid("keyvalue.get", f"what stands under `{key}` isn't JSON: {error}") from None
