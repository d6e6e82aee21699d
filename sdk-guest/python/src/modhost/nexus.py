"""Events of NexusGPT, as its documentation of webhooks describes them.

    from modhost import messages, nexus

    @modhost.module
    def answer(message: nexus.MessageFinalized) -> None:
        # What virtual employees write comes back as an event too.
        if message.sender == "USER" and message.status == "PROCESSED":
            messages.create(f"You said: {message.content}")

All a module can do on NexusGPT is to write messages into the event's thread, of text, with ``messages.create``; every other
call raises ``modhost.Unsupported``.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from modhost._events import Event
from modhost._payload import Payload

MESSAGE_LIMIT = 4000
"""The most characters a message into a thread may have, counted as JavaScript counts them: in UTF-16 code units, which are
``len(text.encode("utf-16-le")) // 2``. The host sends no longer one."""


@dataclass(frozen=True, slots=True)
class MessageFinalized:
    """A message of a thread is there (``MESSAGE_FINALIZED``): a person's, or a virtual employee's."""

    event_name: ClassVar[str] = "MESSAGE_FINALIZED"

    id: str
    """The message's id. One that is changed later comes again as another event."""
    chat_id: str
    """The thread, for information: the host writes into no other."""
    sender: str
    """What kind of sender wrote it: ``USER``, ``VIRTUAL_EMPLOYEE``, or another word the platform may add."""
    user_sender_id: str | None
    """The person who wrote it, if a person did."""
    virtual_sender_id: str | None
    """The virtual employee that wrote it, or that it was written to."""
    content: str
    """What it says; empty if it says nothing in words."""
    kind: str | None
    """The platform's ``type`` of the message."""
    status: str
    """Whether it is whole: ``PROCESSED`` if it is, ``IN_PROGRESS`` while it is being written, or another word the platform may
    add."""
    created_at: str | None
    """When it was written, as the platform writes times (RFC 3339)."""
    updated_at: str | None
    """When it was last changed."""
    files: tuple[Any, ...]
    """The files that came with it, each in the platform's own shape."""
    execution_plan: Any
    """What a virtual employee means to do, in the platform's own shape; ``None`` where there is none."""
    event: Event
    """The event it was read from; its ``payload`` has what this type doesn't know."""

    @classmethod
    def from_event(cls, event: Event) -> Self:
        """Reads the event."""
        payload = Payload(event, event.payload)
        employee = payload.optional_inner("virtualSender")
        return cls(
            id=payload.text("id"),
            chat_id=payload.text("chatId"),
            sender=payload.text("senderType"),
            user_sender_id=payload.optional_text("userSenderId"),
            virtual_sender_id=(employee and employee.optional_text("id")) or payload.optional_text("virtualSenderId"),
            content=payload.optional_text("content") or _words_of(payload.any("contentJson")),
            kind=payload.optional_text("type"),
            status=payload.text("status"),
            created_at=payload.optional_text("createdAt"),
            updated_at=payload.optional_text("updatedAt"),
            files=payload.items("files"),
            execution_plan=payload.any("executionPlan"),
            event=event,
        )


def _words_of(content: Any) -> str:
    """The words in the message's JSON content, where they may stand alone."""
    words = content.get("content") if isinstance(content, dict) else None
    return words if isinstance(words, str) else ""
