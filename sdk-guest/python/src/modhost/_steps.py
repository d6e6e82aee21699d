"""The progress steps shown under the reply."""

import json
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from modhost._bindings.imports import message_log as wit
from modhost._calls import call
from modhost._reference import Reference
from modhost._reference import to_host as reference_to_host

# Steps that an exception left. If the exception ends the delivery, the host closes them, because only the host knows whether it
# will retry. If the module catches the exception and continues, they are closed as failed before the next step, or at the end.
_abandoned: list["Step"] = []


def step(text: str) -> "Step":
    """Creates a step below the earlier ones, with a spinner until it is closed.

        with step("Searching knowledge base…") as searching:
            hits = search("travel policy")
            searching.done(f"Found {len(hits)} relevant documents")

    The end of the ``with`` block closes the step as done, unless ``done`` or ``fail`` closed it before. If an exception leaves
    the block, the step has failed. Without ``with``, ``done``, ``fail`` or the end of the delivery closes the step.
    """
    close_abandoned()
    return Step(call("message-log.create", wit.Entry.create, text, wit.Status.RUNNING))


class Step:
    """A progress step shown under the reply, created by ``step``."""

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
        """Changes the step and leaves it open.

        :param text: the new text. Default: the text stays.
        :param details: details in the platform's own shape.
        :param references: the sources the step found.
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
        """Closes the step as failed. The delivery may still succeed. The arguments are those of ``update``."""
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
            _abandoned.append(self)

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


def close_abandoned() -> None:
    """Closes the steps that exceptions left, as failed."""
    while _abandoned:
        step = _abandoned.pop(0)
        if not step._closed:
            step.fail()
