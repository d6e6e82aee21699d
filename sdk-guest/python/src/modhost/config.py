"""The module's settings: first those of the assistant that sent the event, then the module's ``config`` table in
``modules.toml``.

    [[module]]
    name   = "DemoApp"
    config = { greeting = "Hello", limit = 3 }

    greeting = config.get("greeting", "Good day")
    hits = search("parental leave", limit=config.read("limit", int, 5))
"""

import json
from contextlib import suppress
from typing import TypeVar, overload

from componentize_py_types import Err

from modhost._bindings.imports import wasi_config_store as wit
from modhost._calls import no_host
from modhost._errors import Misconfigured, Unavailable

T = TypeVar("T", str, int, float, bool, list[object], dict[str, object])


@overload
def get(key: str) -> str | None: ...
@overload
def get(key: str, default: str) -> str: ...
def get(key: str, default: str | None = None) -> str | None:
    """Returns a setting as text, or ``default`` if it isn't set. A value that isn't a string is returned as JSON."""
    try:
        value = wit.get(key)
    except Err as error:
        raise Unavailable("config.get", error.value.value) from None
    except NotImplementedError:
        raise no_host("config.get") from None
    return default if value is None else value


@overload
def read(key: str, kind: type[T]) -> T | None: ...
@overload
def read(key: str, kind: type[T], default: T) -> T: ...
def read(key: str, kind: type[T], default: T | None = None) -> T | None:
    """Returns a setting as a value of this type (``str``, ``int``, ``float``, ``bool``, ``list`` or ``dict``), or ``default`` if
    it isn't set. Raises ``Misconfigured`` if the setting has another type."""
    text = get(key)
    return default if text is None else parse(key, text, kind)


def all() -> dict[str, str]:
    """Returns all settings, as ``get`` returns them."""
    try:
        return dict(wit.get_all())
    except Err as error:
        raise Unavailable("config.get-all", error.value.value) from None
    except NotImplementedError:
        raise no_host("config.get-all") from None


def parse(key: str, text: str, kind: type[T]) -> T:
    """Converts a setting's text to a value of this type."""
    value: object = text
    if kind is not str:
        # Plain text isn't JSON. It stays text, for the error message below.
        with suppress(ValueError):
            value = json.loads(text)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    # In Python, bool is a subtype of int. In a setting, it isn't a number.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Misconfigured("config.get", f"setting `{key}` should be {_NAMES[kind]}, but is {text}")
    return value


_NAMES: dict[type, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
