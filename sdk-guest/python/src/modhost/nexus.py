"""NexusGPT events, as the NexusGPT webhook documentation describes them.

    from modhost import messages, nexus

    @modhost.module
    def answer(message: nexus.MessageFinalized) -> None:
        # Messages from virtual employees arrive as events, too.
        if message.sender == "USER" and message.status == "PROCESSED":
            messages.create(f"You said: {message.content}")

On NexusGPT, a module can only write text messages to the event's thread, with ``messages.create``. Every other platform call
raises ``modhost.Unsupported``.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from modhost._events import Event
from modhost._payload import Payload

MESSAGE_LIMIT = 4000
"""The maximum length of a message to a thread, in UTF-16 code units, as JavaScript counts them:
``len(text.encode("utf-16-le")) // 2``. The host doesn't send longer messages."""


@dataclass(frozen=True, slots=True)
class MessageFinalized:
    """A message in a thread is finalized (``MESSAGE_FINALIZED``), from a person or a virtual employee."""

    event_name: ClassVar[str] = "MESSAGE_FINALIZED"

    id: str
    """The message's id. A message that is changed later arrives again as another event."""
    chat_id: str
    """The thread, for information only: the host writes to no other thread."""
    sender: str
    """The kind of sender: ``USER``, ``VIRTUAL_EMPLOYEE``, or another value that the platform may add."""
    user_sender_id: str | None
    """The id of the person who wrote the message, if a person wrote it."""
    virtual_sender_id: str | None
    """The id of the virtual employee that wrote the message or received it."""
    content: str
    """The text; empty if the message has none."""
    kind: str | None
    """The platform's ``type`` of the message."""
    status: str
    """The status: ``PROCESSED`` if the message is complete, ``IN_PROGRESS`` while it is being written, or another value that the
    platform may add."""
    created_at: str | None
    """When the message was written, in the platform's time format (RFC 3339)."""
    updated_at: str | None
    """When the message was last changed."""
    files: tuple[Any, ...]
    """The attached files, each in the platform's own shape."""
    execution_plan: Any
    """The plan of a virtual employee, in the platform's own shape, or ``None``."""
    event: Event
    """The original event; its ``payload`` contains fields that this type doesn't have."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Parses the event."""
        payload = Payload(event, event.payload)
        employee = payload.optional_inner("virtualSender")
        return cls(
            id=payload.text("id"),
            chat_id=payload.text("chatId"),
            sender=payload.text("senderType"),
            user_sender_id=payload.optional_text("userSenderId"),
            virtual_sender_id=(employee and employee.optional_text("id")) or payload.optional_text("virtualSenderId"),
            content=payload.optional_text("content") or _text_of(payload.any("contentJson")),
            kind=payload.optional_text("type"),
            status=payload.text("status"),
            created_at=payload.optional_text("createdAt"),
            updated_at=payload.optional_text("updatedAt"),
            files=payload.items("files"),
            execution_plan=payload.any("executionPlan"),
            event=event,
        )


def _text_of(content: Any) -> str:
    """Returns the text in the message's JSON content, which may be the only place that has it."""
    text = content.get("content") if isinstance(content, dict) else None
    return text if isinstance(text, str) else ""
