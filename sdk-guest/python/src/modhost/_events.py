"""Events that the host delivers to a module."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol, Self

from modhost._bindings.imports import events as wit


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A message from a user who chose the module."""

    id: str
    """The platform's id of the message."""
    text: str
    """The text to answer."""
    original_text: str | None
    """The text as the user wrote it, if the platform changed it (for example, rewrote it as a search query)."""
    language: str | None
    """The language the platform detected in the text, as a BCP 47 tag."""
    created_at: str
    """When the message was written, in the platform's time format (RFC 3339)."""


@dataclass(frozen=True, slots=True)
class ModuleChosen:
    """A user's message chose the module to answer it (``unique.chat.external-module.chosen``)."""

    name: str
    """The module's name on the platform."""
    description: str
    """The description the module's owner wrote on the platform."""
    configuration: dict[str, Any]
    """The module's settings in this assistant. ``modhost.config`` reads them key by key."""
    chat_id: str
    """The chat, for information only: the host acts on no other chat."""
    assistant_id: str
    """The assistant (space) the chat belongs to."""
    user_message: UserMessage
    """The message to answer."""
    assistant_message_id: str
    """The empty message shown below the user's message; ``messages.reply`` fills it."""


@dataclass(frozen=True, slots=True)
class UserMessageCreated:
    """A user wrote a message (``unique.chat.user-message.created``)."""

    chat_id: str
    """The chat it was written in."""
    assistant_id: str
    """The assistant (space) the chat belongs to."""
    text: str
    """The text the user wrote."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event on a platform, verified by the host."""

    id: str
    """The platform's id of the event."""
    source: str
    """The name of the source that received the event, as in ``modules.toml``."""
    name: str
    """The event's name on the platform."""
    created_at: datetime | None
    """When the event happened, as the platform reports it."""
    attempt: int
    """The attempt number of this delivery, from 1."""
    subject: ModuleChosen | UserMessageCreated | None
    """The event as the host parsed it; ``None`` for any other event: read ``name`` and ``payload``."""
    payload: Any
    """The complete payload, parsed from the platform's own JSON, whatever ``subject`` is."""


class FromEvent(Protocol):
    """A type for events of another system. A module's function can take it as its argument, like ``ModuleChosen`` and
    ``UserMessageCreated``. ``modhost.nexus`` and ``modhost.archivus`` contain such types. To support another system:

        @dataclass(frozen=True)
        class InvoicePaid:
            event_name: ClassVar[str] = "invoice.paid"
            number: str

            @classmethod
            def from_event(cls, event: Event) -> Self:
                return cls(event.payload["number"])
    """

    event_name: ClassVar[str]
    """The name of the events of this type."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Parses the event. An exception fails the delivery."""
        ...


def from_host(event: wit.Event, subject: ModuleChosen | UserMessageCreated | None) -> Event:
    """Converts an event from the bindings."""
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


def subject(subject: wit.Subject) -> ModuleChosen | UserMessageCreated | None:
    """Converts the subject of an event from the bindings."""
    match subject:
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
