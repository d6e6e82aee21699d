"""The messages of the chat in which the event happened.

    messages.show("Let me think…")
    messages.reply("Yes.")
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from modhost._bindings.imports import messages as wit
from modhost._bindings.imports import types
from modhost._calls import call
from modhost._reference import Reference, cite
from modhost._reference import from_host as reference_from_host
from modhost._reference import to_host as reference_to_host
from modhost._search import Hit

Role: TypeAlias = Literal["system", "user", "assistant"]
"""The author of a message: ``system`` for instructions that aren't part of the chat, ``user`` for a person, ``assistant`` for a
module or a language model."""

_ROLES: dict[types.Role, Role] = {
    types.Role.SYSTEM: "system",
    types.Role.USER: "user",
    types.Role.ASSISTANT: "assistant",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the chat."""

    id: str
    """The platform's id of the message; empty if the platform doesn't report it."""
    role: Role
    """The author."""
    text: str | None
    """The text; ``None`` for a reply that isn't filled yet."""
    references: tuple[Reference, ...]
    """The sources it cites."""
    created_at: str | None
    """When the message was written, in the platform's time format (RFC 3339)."""


def reply(
    text: str | None = None,
    *,
    citing: Sequence[Hit] | None = None,
    references: Iterable[Reference] = (),
    debug_info: Mapping[str, Any] | None = None,
    completed: bool = True,
) -> Message:
    """Writes the event's reply: the assistant message that the platform created for it. Only an event that chose the module has
    a reply. Arguments that aren't given leave the current values unchanged.

        messages.reply("Book early [source0], or pay more [source2].", citing=hits)

    :param text: the text, in Markdown.
    :param citing: the hits that the text cites: ``[source0]`` in the text becomes a footnote that refers to the first hit,
        ``[source1]`` to the second, and so on. If the text cites no hit, the message references all of them. Citations of hits
        that don't exist are removed.
    :param references: more references. ``<sup>1</sup>`` in the text refers to the one with the sequence number 1.
    :param debug_info: debugging information that the platform stores with the message.
    :param completed: whether this is the final text, which clients that wait for the answer receive; ``False`` for an interim
        text.
    """
    change = _change(text, citing, references, debug_info, completed)
    return _from_host(call("messages.reply", wit.reply, change))


def create(
    text: str,
    *,
    citing: Sequence[Hit] | None = None,
    references: Iterable[Reference] = (),
    debug_info: Mapping[str, Any] | None = None,
    completed: bool = True,
) -> Message:
    """Creates an assistant message in the chat, in addition to the reply. The arguments are those of ``reply``."""
    change = _change(text, citing, references, debug_info, completed)
    return _from_host(call("messages.create", wit.create, change))


def modify(
    id: str,
    text: str | None = None,
    *,
    citing: Sequence[Hit] | None = None,
    references: Iterable[Reference] = (),
    debug_info: Mapping[str, Any] | None = None,
    completed: bool = True,
) -> Message:
    """Changes an assistant message in the chat, by its id, for example one that ``create`` returned. The other arguments are
    those of ``reply``."""
    change = _change(text, citing, references, debug_info, completed)
    return _from_host(call("messages.modify", wit.modify, id, change))


def show(text: str) -> None:
    """Shows a text in place of the reply while the module works on the answer. Nothing is stored."""
    call("messages.show", wit.show, text)


def history(limit: int | None = None) -> list[Message]:
    """Returns the newest messages of the chat, oldest first: at most ``limit``, or all. They include the message being answered
    and the empty reply."""
    return [_from_host(message) for message in call("messages.history", wit.history, limit)]


def _change(
    text: str | None,
    citing: Sequence[Hit] | None,
    references: Iterable[Reference],
    debug_info: Mapping[str, Any] | None,
    completed: bool,
) -> wit.Change:
    cited = Reference.from_hits(citing or ())
    # An empty list of hits also removes the citations from the text.
    if text is not None and citing is not None:
        text, cited = cite(text, cited)
    return wit.Change(
        text=text,
        references=[reference_to_host(reference) for reference in (*references, *cited)],
        debug_info=None if debug_info is None else json.dumps(debug_info),
        completed=completed,
    )


def _from_host(message: wit.Message) -> Message:
    return Message(
        id=message.id,
        role=_ROLES[message.role],
        text=message.text,
        references=tuple(reference_from_host(reference) for reference in message.references),
        created_at=message.created_at,
    )
