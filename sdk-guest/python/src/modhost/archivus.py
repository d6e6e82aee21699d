"""Archivus events, as the Archivus webhook documentation describes them.

    from modhost import archivus

    @modhost.module
    def note(event: archivus.DocumentProcessed | archivus.DocumentFailed) -> None:
        match event:
            case archivus.DocumentProcessed(document=document):
                log.info("%s is ready", document.filename)
            case archivus.DocumentFailed():
                log.warning("%s failed: %s", event.document_id, event.error)

Archivus has no API for replies: the tenant has ``platform = { kind = "none" }`` in ``modules.toml``, and calls that need a
platform raise ``modhost.Unsupported``.
"""

import json
from dataclasses import dataclass
from typing import ClassVar, Self

from modhost._events import Event
from modhost._payload import Payload


@dataclass(frozen=True, slots=True)
class Document:
    """A document on the platform."""

    id: str
    """The document's id."""
    filename: str
    """The file name."""
    status: str | None
    """The status, in the platform's terms."""
    ai_status: str | None
    """The status of the AI processing, in the platform's terms."""
    ai_summary: str | None
    """A summary by a language model."""
    ai_tags: tuple[str, ...]
    """Tags by a language model."""


@dataclass(frozen=True, slots=True)
class DocumentProcessed:
    """A document was processed (``document.processed``)."""

    event_name: ClassVar[str] = "document.processed"

    document_id: str
    """The document's id."""
    document: Document
    """The document."""
    event: Event
    """The original event; its ``payload`` contains fields that this type doesn't have."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Parses the event."""
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
    """A document couldn't be processed (``document.failed``)."""

    event_name: ClassVar[str] = "document.failed"

    document_id: str
    """The document's id."""
    error: str
    """The error, in the platform's terms. A value that isn't a string is given as JSON."""
    event: Event
    """The original event; its ``payload`` contains fields that this type doesn't have."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Parses the event."""
        payload = Payload(event, event.payload)
        error = payload.some("error")
        return cls(payload.text("document_id"), error if isinstance(error, str) else json.dumps(error), event)


@dataclass(frozen=True, slots=True)
class DocumentUploaded:
    """A document was uploaded and isn't processed yet (``document.uploaded``)."""

    event_name: ClassVar[str] = "document.uploaded"

    document_id: str
    """The document's id."""
    event: Event
    """The original event; its ``payload`` contains fields that this type doesn't have."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Parses the event."""
        return cls(Payload(event, event.payload).text("document_id"), event)


@dataclass(frozen=True, slots=True)
class ChatMessageCreated:
    """A message was written in a chat about documents (``chat.message.created``). The event doesn't contain the text."""

    event_name: ClassVar[str] = "chat.message.created"

    session_id: str
    """The chat's id."""
    message_id: str
    """The message's id."""
    role: str
    """The author's role, in the platform's terms."""
    document_id: str | None
    """The id of the document that the message is about, if any."""
    event: Event
    """The original event; its ``payload`` contains fields that this type doesn't have."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Parses the event."""
        payload = Payload(event, event.payload)
        return cls(
            session_id=payload.text("session_id"),
            message_id=payload.text("message_id"),
            role=payload.text("role"),
            document_id=payload.optional_text("document_id"),
            event=event,
        )
