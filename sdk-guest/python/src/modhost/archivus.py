"""Events of Archivus, as its documentation of webhooks describes them.

    from modhost import archivus

    @modhost.module
    def note(event: archivus.DocumentProcessed | archivus.DocumentFailed) -> None:
        match event:
            case archivus.DocumentProcessed(document=document):
                log.info("%s is ready", document.filename)
            case archivus.DocumentFailed():
                log.warning("%s failed: %s", event.document_id, event.error)

There is no platform to answer on: the tenant has ``platform = { kind = "none" }`` in ``modules.toml``, and calls that want one
raise ``modhost.Unsupported``.
"""

import json
from dataclasses import dataclass
from typing import ClassVar, Self

from modhost._events import Event
from modhost._payload import Payload


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the platform knows it."""

    id: str
    """Its id."""
    filename: str
    """The name of its file."""
    status: str | None
    """How far it is, in the platform's word."""
    ai_status: str | None
    """How far it is understood, in the platform's word."""
    ai_summary: str | None
    """What it is about, as a language model put it."""
    ai_tags: tuple[str, ...]
    """The words a language model filed it under."""


@dataclass(frozen=True, slots=True)
class DocumentProcessed:
    """A document was read and understood (``document.processed``)."""

    event_name: ClassVar[str] = "document.processed"

    document_id: str
    """The document's id."""
    document: Document
    """The document."""
    event: Event
    """The event it was read from; its ``payload`` has what this type doesn't know."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Reads the event."""
        payload = Payload(event, event.payload)
        document = payload.inner("document")
        known = Document(
            id=document.text("id"),
            filename=document.text("filename"),
            status=document.optional_text("status"),
            ai_status=document.optional_text("ai_status"),
            ai_summary=document.optional_text("ai_summary"),
            ai_tags=document.texts("ai_tags"),
        )
        return cls(payload.text("document_id"), known, event)


@dataclass(frozen=True, slots=True)
class DocumentFailed:
    """A document could not be read or understood (``document.failed``)."""

    event_name: ClassVar[str] = "document.failed"

    document_id: str
    """The document's id."""
    error: str
    """Why, in the platform's words; what isn't text is given as JSON."""
    event: Event
    """The event it was read from; its ``payload`` has what this type doesn't know."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Reads the event."""
        payload = Payload(event, event.payload)
        error = payload.some("error")
        return cls(payload.text("document_id"), error if isinstance(error, str) else json.dumps(error), event)


@dataclass(frozen=True, slots=True)
class DocumentUploaded:
    """A document came in, and is still to be read (``document.uploaded``)."""

    event_name: ClassVar[str] = "document.uploaded"

    document_id: str
    """The document's id."""
    event: Event
    """The event it was read from; its ``payload`` has what this type doesn't know."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Reads the event."""
        return cls(Payload(event, event.payload).text("document_id"), event)


@dataclass(frozen=True, slots=True)
class ChatMessageCreated:
    """Somebody wrote in a chat about documents (``chat.message.created``). What was written is not part of it."""

    event_name: ClassVar[str] = "chat.message.created"

    session_id: str
    """The chat."""
    message_id: str
    """The message's id."""
    role: str
    """Who wrote it, in the platform's word."""
    document_id: str | None
    """The document it is about, if it is about one."""
    event: Event
    """The event it was read from; its ``payload`` has what this type doesn't know."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Reads the event."""
        payload = Payload(event, event.payload)
        return cls(
            session_id=payload.text("session_id"),
            message_id=payload.text("message_id"),
            role=payload.text("role"),
            document_id=payload.optional_text("document_id"),
            event=event,
        )
