"""The messages of the chat the event happened in.

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
"""Who says something: instructions nobody wrote in the chat, a person, a module or a language model."""

_ROLES: dict[types.Role, Role] = {
    types.Role.SYSTEM: "system",
    types.Role.USER: "user",
    types.Role.ASSISTANT: "assistant",
}


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the chat."""

    id: str
    """The platform's id; empty where it doesn't tell."""
    role: Role
    """Who wrote it."""
    text: str | None
    """What it says; ``None`` for a reply nobody filled yet."""
    references: tuple[Reference, ...]
    """The sources it names."""
    created_at: str | None
    """When it was written, as the platform writes times (RFC 3339)."""


def reply(
    text: str | None = None,
    *,
    citing: Sequence[Hit] | None = None,
    references: Iterable[Reference] = (),
    debug_info: Mapping[str, Any] | None = None,
    completed: bool = True,
) -> Message:
    """Writes the event's reply: the assistant message the platform made for it. Only an event that chose the module has
    one. What isn't said stays as it is.

        messages.reply("Book early [source0], or pay more [source2].", citing=hits)

    :param text: what it says, in Markdown.
    :param citing: the hits that the text cites: ``[source0]`` in it becomes a footnote that refers to the first of them,
        and so on. All of them are named where the text cites none; what it cites beyond them is taken out.
    :param references: further sources. ``<sup>1</sup>`` in the text points to the one with the sequence number 1.
    :param debug_info: for people who look for mistakes: kept by the platform with the message.
    :param completed: whether this is the final text, so that whoever waits for the answer has it; ``False`` if more is to
        come.
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
    """Writes a new assistant message into the chat, besides the reply. The arguments are those of ``reply``."""
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
    """Changes an assistant message of the chat, by its id: say one that ``create`` made. The other arguments are those of
    ``reply``."""
    change = _change(text, citing, references, debug_info, completed)
    return _from_host(call("messages.modify", wit.modify, id, change))


def show(text: str) -> None:
    """Shows a text in the reply's place while the answer is being made. Nothing is stored."""
    call("messages.show", wit.show, text)


def history(limit: int | None = None) -> list[Message]:
    """The chat's messages, oldest first: the newest that many, or all. The message that is being answered and the empty
    reply are among them."""
    return [_from_host(message) for message in call("messages.history", wit.history, limit)]


def _change(
    text: str | None,
    citing: Sequence[Hit] | None,
    references: Iterable[Reference],
    debug_info: Mapping[str, Any] | None,
    completed: bool,
) -> wit.Change:
    cited = Reference.from_hits(citing or ())
    # A search without hits, too, takes out of the text what it cites.
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
