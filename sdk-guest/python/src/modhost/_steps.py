"""The steps shown under the reply while it is being made."""

import json
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from modhost._bindings.imports import message_log as wit
from modhost._calls import call
from modhost._reference import Reference
from modhost._reference import to_host as reference_to_host

# Steps that an exception has left. If it ends the delivery, the host closes them, as failed or not yet, as it knows
# whether there is another try. If the module caught it and goes on, they are closed as failed with the next step, or at
# the end.
_left: list["Step"] = []


def step(text: str) -> "Step":
    """Shows a new step below the earlier ones, with a spinner until it is closed.

        with step("Searching knowledge base…") as searching:
            hits = search("travel policy")
            searching.done(f"Found {len(hits)} relevant documents")

    At the end of ``with`` the step is done, unless ``done`` or ``fail`` said otherwise before; where an exception leaves
    it, it has failed. A step without ``with`` is closed by ``done``, ``fail``, or the end of the delivery.
    """
    close_left()
    return Step(call("message-log.create", wit.Entry.create, text, wit.Status.RUNNING))


class Step:
    """A step shown under the reply. Made by ``step``."""

    def __init__(self, entry: wit.Entry) -> None:
        self._entry = entry
        self._closed = False

    @property
    def id(self) -> str:
        """The platform's id of the step."""
        return call("message-log.id", self._entry.id)

    def update(
        self,
        text: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        references: Iterable[Reference] = (),
    ) -> None:
        """Shows another text; the step goes on.

        :param text: what the user reads; without it, the text stays.
        :param details: details in the platform's own shape.
        :param references: sources the step found.
        """
        self._send(text, None, details, references)

    def done(
        self,
        text: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        references: Iterable[Reference] = (),
    ) -> None:
        """Closes the step as done. The arguments are those of ``update``."""
        self._close(wit.Status.COMPLETED, text, details, references)

    def fail(
        self,
        text: str | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        references: Iterable[Reference] = (),
    ) -> None:
        """Closes the step as failed. The delivery needn't fail with it. The arguments are those of ``update``."""
        self._close(wit.Status.FAILED, text, details, references)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closed:
            return
        if error is None:
            self.done()
        else:
            _left.append(self)

    def _close(
        self,
        status: wit.Status,
        text: str | None,
        details: Mapping[str, Any] | None,
        references: Iterable[Reference],
    ) -> None:
        self._send(text, status, details, references)
        self._closed = True

    def _send(
        self,
        text: str | None,
        status: wit.Status | None,
        details: Mapping[str, Any] | None,
        references: Iterable[Reference],
    ) -> None:
        change = wit.Change(
            text=text,
            status=status,
            details=None if details is None else json.dumps(details),
            references=[reference_to_host(reference) for reference in references],
        )
        call("message-log.update", self._entry.update, change)


def close_left() -> None:
    """Closes the steps that exceptions have left, as failed."""
    while _left:
        step = _left.pop(0)
        if not step._closed:
            step.fail()
