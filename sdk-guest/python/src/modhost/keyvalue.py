"""A key-value store for values that the module keeps between events, on the host's disk.

All values are private to the module and the event's tenant: the same module, running for another tenant, has other values.

    store = Store()
    asked = store.increment("questions")
    if "greeted" not in store:
        store["greeted"] = event.chat_id

A write is on disk when the call returns, and it stays, however the delivery ends: a failed delivery rolls nothing back. In a
retry, reads and writes that an earlier attempt completed are answered from the call log and not repeated. So an ``increment``
counts once per event, even if the host crashes during the call.

Deliveries run concurrently. For a value that two deliveries may change at the same time, use ``increment``, ``update`` or
``compare_and_swap``, not a read followed by a write.

``limits.keyvalue`` in the module's entry in ``modules.toml`` limits the storage. A call that exceeds it raises
``modhost.Invalid``, which names the limit. A module that doesn't import ``modhost.keyvalue`` doesn't request storage.
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
"""A value: bytes, or text, which is encoded as UTF-8."""

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class Store:
    """A bucket of the module's key-value store. A named bucket has its own keys."""

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
        """Returns the value of a key, or ``None``."""
        return _call("keyvalue.get", self._bucket.get, key)

    def get_text(self, key: str) -> str | None:
        """Returns the value of a key as text, or ``None``."""
        value = self.get(key)
        return None if value is None else _text(key, value)

    def get_json(self, key: str) -> Any:
        """Returns the value of a key, parsed as JSON, or ``None`` if the key doesn't exist."""
        value = self.get(key)
        return None if value is None else _from_json(key, value)

    def set(self, key: str, value: Value) -> None:
        """Sets a key, like ``store[key] = value``."""
        self[key] = value

    def set_json(self, key: str, value: Any) -> None:
        """Sets a key to a value, serialized as JSON."""
        self[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        """Deletes a key, if it exists."""
        _call("keyvalue.delete", self._bucket.delete, key)

    def keys(self) -> Iterator[str]:
        """Iterates over all keys. Fetches them page by page."""
        cursor: str | None = None
        while True:
            page = _call("keyvalue.list-keys", self._bucket.list_keys, cursor)
            yield from page.keys
            cursor = page.cursor
            if cursor is None:
                return

    def get_many(self, keys: Iterable[str]) -> list[bytes | None]:
        """Returns the values of several keys in one call, in the order of the keys."""
        found = _call("keyvalue.get-many", batch.get_many, self._bucket, list(keys))
        return [None if entry is None else entry[1] for entry in found]

    def set_many(self, entries: Mapping[str, Value]) -> None:
        """Sets several keys atomically."""
        pairs = [(key, _bytes(value)) for key, value in entries.items()]
        _call("keyvalue.set-many", batch.set_many, self._bucket, pairs)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Deletes several keys atomically."""
        _call("keyvalue.delete-many", batch.delete_many, self._bucket, list(keys))

    def increment(self, key: str, by: int = 1) -> int:
        """Adds ``by`` to the number of a key, and returns the new number. A missing key counts as 0."""
        return _call("keyvalue.increment", atomics.increment, self._bucket, key, by)

    def update(self, key: str, change: Callable[[bytes | None], Value]) -> bytes:
        """Changes the value of a key atomically, and returns the new value. Calls ``change`` again if another delivery changed the
        value in the meantime."""
        cas = self._cas(key)
        while True:
            value = _bytes(change(_current(cas)))
            later = _swap(cas, value)
            if later is None:
                return value
            cas = later

    def update_json(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Like ``update``, for values stored as JSON; ``None`` if the key doesn't exist."""

        def change_json(value: bytes | None) -> str:
            return json.dumps(change(None if value is None else _from_json(key, value)))

        return _from_json(key, self.update(key, change_json))

    def compare_and_swap(self, key: str, expected: Value | None, value: Value) -> bool:
        """Sets a key if its current value is ``expected`` (``None``: the key doesn't exist). Returns whether it was set."""
        wanted = None if expected is None else _bytes(expected)
        cas = self._cas(key)
        while _current(cas) == wanted:
            later = _swap(cas, _bytes(value))
            if later is None:
                return True
            # Set by another delivery in the meantime, maybe to the same value.
            cas = later
        return False

    def _cas(self, key: str) -> atomics.Cas:
        return _call("keyvalue.cas.new", atomics.Cas.new, self._bucket, key)


def _current(cas: atomics.Cas) -> bytes | None:
    return _call("keyvalue.cas.current", cas.current)


def _swap(cas: atomics.Cas, value: bytes) -> atomics.Cas | None:
    """Swaps the value. Returns a new handle if another delivery changed the value in the meantime."""
    try:
        atomics.swap(cas, value)
    except Err as error:
        match error.value:
            case atomics.CasError_CasFailed(later):
                return later
            case atomics.CasError_StoreError(cause):
                raise _error("keyvalue.swap", cause) from None
            case other:
                raise AssertionError(f"unknown cas-error: {other!r}") from None
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
            return NotFound(name, "no such store")
        case wit.Error_AccessDenied():
            return Denied(name, "the module may not use this store")
        case wit.Error_Other(text):
            detail = text.removeprefix("unavailable: ")
            return Invalid(name, text) if detail == text else Unavailable(name, detail)


def _bytes(value: Value) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _text(key: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Invalid("keyvalue.get", f"cannot read the value of `{key}` as text: {error}") from None


def _from_json(key: str, value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise Invalid("keyvalue.get", f"cannot read the value of `{key}` as JSON: {error}") from None
