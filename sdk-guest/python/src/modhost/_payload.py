"""Parses the payload of another system's event, field by field."""

from collections.abc import Mapping
from typing import Any

from modhost._errors import Failure
from modhost._events import Event


class Payload:
    """An object in a payload. A field that doesn't have the documented type fails the delivery with a reason that names it."""

    def __init__(self, event: Event, value: Any, path: str = "") -> None:
        self._event = event
        self._path = path
        if not isinstance(value, Mapping):
            raise self._malformed(f"{f'`{path}`' if path else 'it'} should be an object")
        self._fields: Mapping[str, Any] = value

    def text(self, name: str) -> str:
        """Returns a required string."""
        text = self.optional_text(name)
        if text is None:
            raise self._missing(name)
        return text

    def optional_text(self, name: str) -> str | None:
        """Returns a string, or ``None``."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self._malformed(f"`{self._path_of(name)}` should be a string")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a list of strings; empty if the field is missing."""
        items = self.items(name)
        if not all(isinstance(item, str) for item in items):
            raise self._malformed(f"`{self._path_of(name)}` should be a list of strings")
        return items

    def items(self, name: str) -> tuple[Any, ...]:
        """Returns a list; empty if the field is missing."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, list):
            raise self._malformed(f"`{self._path_of(name)}` should be a list")
        return tuple(value or ())

    def inner(self, name: str) -> "Payload":
        """Returns a required object."""
        if self._fields.get(name) is None:
            raise self._missing(name)
        return Payload(self._event, self._fields[name], self._path_of(name))

    def optional_inner(self, name: str) -> "Payload | None":
        """Returns an object, or ``None``."""
        return None if self._fields.get(name) is None else self.inner(name)

    def any(self, name: str) -> Any:
        """Returns a value of any type, or ``None``."""
        return self._fields.get(name)

    def some(self, name: str) -> Any:
        """Returns a required value of any type, which may be ``None``."""
        if name not in self._fields:
            raise self._missing(name)
        return self._fields[name]

    def _missing(self, name: str) -> Failure:
        return self._malformed(f"missing field `{self._path_of(name)}`")

    def _path_of(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _malformed(self, why: str) -> Failure:
        event = self._event
        return Failure(f"cannot parse the payload of event `{event.name}` ({event.id}): {why}")
