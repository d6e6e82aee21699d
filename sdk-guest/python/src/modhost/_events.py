"""What a module is called with."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol, Self

from modhost._bindings.imports import events as wit


@dataclass(frozen=True, slots=True)
class UserMessage:
    """The message of a user that chose the module."""

    id: str
    """The platform's id of the message."""
    text: str
    """The text to answer."""
    original_text: str | None
    """What the user wrote, where the platform changed it (say, put it into the words of a search)."""
    language: str | None
    """The language the platform believes the text to be in, as a BCP 47 tag."""
    created_at: str
    """When it was written, as the platform writes times (RFC 3339)."""


@dataclass(frozen=True, slots=True)
class ModuleChosen:
    """A user's message chose the module to answer it (``unique.chat.external-module.chosen``)."""

    name: str
    """The module's name on the platform."""
    description: str
    """What the module's owner wrote about it there."""
    configuration: dict[str, Any]
    """The module's settings in this assistant. ``modhost.config`` reads them key by key."""
    chat_id: str
    """The chat, for information: the host acts on no other."""
    assistant_id: str
    """The assistant (space) the chat belongs to."""
    user_message: UserMessage
    """The message to answer."""
    assistant_message_id: str
    """The empty message shown under it, which ``messages.reply`` fills."""


@dataclass(frozen=True, slots=True)
class UserMessageCreated:
    """A user wrote a message (``unique.chat.user-message.created``)."""

    chat_id: str
    """The chat it was written in."""
    assistant_id: str
    """The assistant (space) the chat belongs to."""
    text: str
    """What the user wrote."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a platform, verified by the host."""

    id: str
    """The platform's id of the event."""
    source: str
    """The name of the source it came through, as in ``modules.toml``."""
    name: str
    """What happened, in the platform's words."""
    created_at: datetime | None
    """When the platform says it happened."""
    attempt: int
    """Which attempt at this delivery this is, from 1."""
    subject: ModuleChosen | UserMessageCreated | None
    """What the host understood of it; ``None`` for anything else: read ``name`` and ``payload``."""
    payload: Any
    """The payload in the platform's own JSON, read, whatever ``subject`` is."""


class FromEvent(Protocol):
    """An event of another system, with a type of its own: what a module's function may take besides ``ModuleChosen`` and
    ``UserMessageCreated``. ``modhost.nexus`` and ``modhost.archivus`` have such types; write your own for others:

        @dataclass(frozen=True)
        class InvoicePaid:
            event_name: ClassVar[str] = "invoice.paid"
            number: str

            @classmethod
            def from_event(cls, event: Event) -> Self:
                return cls(event.payload["number"])
    """

    event_name: ClassVar[str]
    """The name of the events that are of this type."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Reads such an event. What it raises ends the delivery."""
        ...


def from_host(event: wit.Event, subject: ModuleChosen | UserMessageCreated | None) -> Event:
    """The event as the module reads it."""
    created_at = None if event.created_at is None else datetime.fromtimestamp(event.created_at, UTC)
    return Event(
        id=event.id,
        source=event.source,
        name=event.name,
        created_at=created_at,
        attempt=event.attempt,
        subject=subject,
        payload=json.loads(event.payload),
    )


def subject(given: wit.Subject) -> ModuleChosen | UserMessageCreated | None:
    """What the host understood of it."""
    match given:
        case wit.Subject_ModuleChosen(chosen):
            message = chosen.user_message
            return ModuleChosen(
                name=chosen.name,
                description=chosen.description,
                configuration=json.loads(chosen.configuration),
                chat_id=chosen.chat_id,
                assistant_id=chosen.assistant_id,
                user_message=UserMessage(
                    id=message.id,
                    text=message.text,
                    original_text=message.original_text,
                    language=message.language,
                    created_at=message.created_at,
                ),
                assistant_message_id=chosen.assistant_message_id,
            )
        case wit.Subject_UserMessageCreated(created):
            return UserMessageCreated(
                chat_id=created.chat_id, assistant_id=created.assistant_id, text=created.text
            )
        case wit.Subject_Other():
            return None
