"""The payload of an event of another system, read field by field."""

from collections.abc import Mapping
from typing import Any

from modhost._errors import Failure
from modhost._events import Event


class Payload:
    """An object of a payload. A field of another shape than documented ends the delivery with a reason that names it."""

    def __init__(self, event: Event, value: Any, path: str = "") -> None:
        self._event = event
        self._path = path
        if not isinstance(value, Mapping):
            raise self._unknown(f"{f'`{path}`' if path else 'it'} should be an object")
        self._fields: Mapping[str, Any] = value

    def text(self, name: str) -> str:
        """A text that has to be there."""
        text = self.optional_text(name)
        if text is None:
            raise self._lacks(name)
        return text

    def optional_text(self, name: str) -> str | None:
        """A text, or ``None``."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self._unknown(f"`{self._path_of(name)}` should be text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where it isn't there."""
        items = self.items(name)
        if not all(isinstance(item, str) for item in items):
            raise self._unknown(f"`{self._path_of(name)}` should be a list of texts")
        return items

    def items(self, name: str) -> tuple[Any, ...]:
        """A list; empty where it isn't there."""
        value = self._fields.get(name)
        if value is not None and not isinstance(value, list):
            raise self._unknown(f"`{self._path_of(name)}` should be a list")
        return tuple(value or ())

    def inner(self, name: str) -> "Payload":
        """An object that has to be there."""
        if self._fields.get(name) is None:
            raise self._lacks(name)
        return Payload(self._event, self._fields[name], self._path_of(name))

    def optional_inner(self, name: str) -> "Payload | None":
        """An object, or ``None``."""
        return None if self._fields.get(name) is None else self.inner(name)

    def any(self, name: str) -> Any:
        """A value of any kind, or ``None``."""
        return self._fields.get(name)

    def some(self, name: str) -> Any:
        """A value of any kind that has to be there, ``None`` among them."""
        if name not in self._fields:
            raise self._lacks(name)
        return self._fields[name]

    def _lacks(self, name: str) -> Failure:
        return self._unknown(f"missing field `{self._path_of(name)}`")

    def _path_of(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _unknown(self, why: str) -> Failure:
        event = self._event
        return Failure(f"the payload of the event `{event.name}` ({event.id}) has an unknown shape: {why}")
