"""Parsing of events of other systems."""

from typing import Any

import pytest

from modhost import Event, Failure, archivus
from modhost.nexus import MessageFinalized


def event(name: str, payload: Any) -> Event:
    return Event("evt_1", "test", name, None, 1, None, payload)


def message(**fields: Any) -> dict[str, Any]:
    return {
        "id": "m_1",
        "chatId": "thread_1",
        "senderType": "VIRTUAL_EMPLOYEE",
        "virtualSender": {"id": "employee_1", "name": "Nova"},
        "content": "Good morning",
        "type": "TEXT",
        "status": "PROCESSED",
        "createdAt": "2026-01-02T03:04:05.000Z",
        "files": [{"name": "a.pdf"}],
        "executionPlan": {"steps": 2},
    } | fields


def test_parses_all_fields_of_a_message() -> None:
    read = MessageFinalized.from_event(event("MESSAGE_FINALIZED", message()))
    assert (read.id, read.chat_id, read.sender, read.status) == ("m_1", "thread_1", "VIRTUAL_EMPLOYEE", "PROCESSED")
    assert (read.virtual_sender_id, read.user_sender_id) == ("employee_1", None)
    assert (read.content, read.kind, read.created_at) == ("Good morning", "TEXT", "2026-01-02T03:04:05.000Z")
    assert (read.files, read.execution_plan) == (({"name": "a.pdf"},), {"steps": 2})
    assert read.event.payload == message()


def test_accepts_missing_fields_and_unknown_values() -> None:
    payload: dict[str, Any] = {"id": "m", "chatId": "t", "senderType": "SYSTEM", "status": "QUEUED", "virtualSenderId": "employee_2"}
    payload |= {"virtualSender": None, "content": None, "files": None, "mood": "sunny"}
    read = MessageFinalized.from_event(event("MESSAGE_FINALIZED", payload))
    assert (read.sender, read.status, read.virtual_sender_id) == ("SYSTEM", "QUEUED", "employee_2")
    assert (read.content, read.files, read.execution_plan) == ("", (), None)


@pytest.mark.parametrize(("content", "text"), [({"content": "Hello"}, "Hello"), ([1], ""), (None, ""), ({"content": 7}, "")])
def test_falls_back_to_the_text_in_the_json_content(content: Any, text: str) -> None:
    payload = message(content="", contentJson=content)
    assert MessageFinalized.from_event(event("MESSAGE_FINALIZED", payload)).content == text


def test_parses_every_archivus_event() -> None:
    document = {"id": "doc_1", "filename": "a.pdf", "ai_summary": None, "ai_tags": ["lease"], "pages": 12}
    processed = archivus.DocumentProcessed.from_event(
        event("document.processed", {"document_id": "doc_1", "document": document})
    )
    assert processed.document == archivus.Document("doc_1", "a.pdf", None, None, None, ("lease",))
    assert processed.event.payload["document"]["pages"] == 12
    for error, text in [("it is encrypted", "it is encrypted"), ({"code": 7}, '{"code": 7}')]:
        failed = archivus.DocumentFailed.from_event(event("document.failed", {"document_id": "doc_1", "error": error}))
        assert (failed.document_id, failed.error) == ("doc_1", text)
    uploaded = archivus.DocumentUploaded.from_event(event("document.uploaded", {"document_id": "doc_1"}))
    assert uploaded.document_id == "doc_1"
    data = {"session_id": "s_1", "message_id": "m_1", "role": "robot", "document_id": None}
    created = archivus.ChatMessageCreated.from_event(event("chat.message.created", data))
    assert (created.session_id, created.message_id, created.role, created.document_id) == ("s_1", "m_1", "robot", None)


@pytest.mark.parametrize(
    ("kind", "payload", "detail"),
    [
        (MessageFinalized, {"id": "m_1"}, "missing field `chatId`"),
        (MessageFinalized, message(files=7), "`files` should be a list"),
        (MessageFinalized, [], "it should be an object"),
        (archivus.DocumentProcessed, {"document_id": "doc_1"}, "missing field `document`"),
        (archivus.DocumentProcessed, {"document": {"id": "doc_1"}}, "missing field `document.filename`"),
        (
            archivus.DocumentProcessed,
            {"document": {"id": "doc_1", "filename": "a", "ai_tags": [1]}},
            "`document.ai_tags` should be a list of strings",
        ),
        (archivus.DocumentFailed, {"document_id": "doc_1"}, "missing field `error`"),
        (archivus.DocumentUploaded, {"document_id": 7}, "`document_id` should be a string"),
        (archivus.ChatMessageCreated, {"session_id": "s_1"}, "missing field `message_id`"),
    ],
)
def test_malformed_payload_fails_and_names_the_event(kind: Any, payload: Any, detail: str) -> None:
    with pytest.raises(Failure) as raised:
        kind.from_event(event(kind.event_name, payload))
    start = f"cannot parse the payload of event `{kind.event_name}` (evt_1): "
    assert raised.value.reason == start + detail
    assert not raised.value.retry
