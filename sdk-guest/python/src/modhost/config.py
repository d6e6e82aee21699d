"""The module's settings: first those of the assistant the event comes from, then the ``config`` table of the module in
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
    """The setting as text, or ``default`` where nobody set it. What isn't text in ``modules.toml`` is given as JSON."""
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
    """The setting as a value of this kind (``str``, ``int``, ``float``, ``bool``, ``list`` or ``dict``), or ``default``
    where nobody set it. A setting of another kind raises ``Misconfigured``."""
    text = get(key)
    return default if text is None else parse(key, text, kind)


def all() -> dict[str, str]:
    """All settings, as ``get`` gives them."""
    try:
        return dict(wit.get_all())
    except Err as error:
        raise Unavailable("config.get-all", error.value.value) from None
    except NotImplementedError:
        raise no_host("config.get-all") from None


def parse(key: str, text: str, kind: type[T]) -> T:
    """A setting's text as a value of this kind."""
    value: object = text
    if kind is not str:
        # Words are no JSON, and not what is asked for either: they stay what they are, to be told.
        with suppress(ValueError):
            value = json.loads(text)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    # To Python True is a number; to whoever wrote the setting it isn't.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Misconfigured("config.get", f"the setting `{key}` should be {_NAMES[kind]}, and is {text}")
    return value


_NAMES: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}
