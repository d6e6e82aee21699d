"""Tests of the local platform with the official Python SDK: every call that the four capabilities use.

The local platform must be running, with the assistants `assistant_Assistant` and a module that answers it:

    modhost dev --no-build
    MODHOST_LOCAL_BASE=http://127.0.0.1:8092/public/chat pytest host/tests/official_sdk
"""

import asyncio
import itertools
import json
import os
from contextlib import contextmanager
from datetime import datetime, timezone
from urllib.parse import urljoin

import pytest
import requests
import unique_sdk
from sseclient import SSEClient
from unique_sdk._error import PermissionError  # the only error that the package doesn't export
from unique_sdk.utils.chat_in_space import send_message_and_wait_for_completion

BASE = os.environ["MODHOST_LOCAL_BASE"]
ASSISTANT = "assistant_Assistant"
WHO = {"user_id": "user_local", "company_id": "company_local"}
# One event loop for all tests: the SDK keeps its connections, and with a connection of a closed loop it repeats a request that
# was already sent.
RUNNER = asyncio.Runner()
REFERENCE = {
    "name": "Travel policy",
    "description": "",
    "url": "https://example.com/travel",
    "sequenceNumber": 1,
    "originalIndex": [0],
    "sourceId": "cont_1_chunk_1",
    "source": "node-ingestion-chunks",
}


@pytest.fixture(autouse=True)
def credentials():
    unique_sdk.api_base = BASE
    unique_sdk.api_key = "ukey_local"
    unique_sdk.app_id = "app_local"


@pytest.fixture
def chat():
    """A chat with one assistant message that no module writes to."""
    chat = unique_sdk.Space.create_chat(**WHO, title="A test", assistantId=ASSISTANT)
    message = unique_sdk.Message.create(
        **WHO,
        chatId=chat["id"],
        assistantId=ASSISTANT,
        role="ASSISTANT",
        text="first",
        references=[dict(REFERENCE)],
        debugInfo={"why": "test"},
        completedAt=None,
    )
    yield chat["id"], message
    unique_sdk.Space.delete_chat(**WHO, chat_id=chat["id"])


@contextmanager
def refused(kind, status, *words):
    """Expects the SDK to raise an error of exactly this type, with these words in its message."""
    with pytest.raises(kind) as raised:
        yield
    assert type(raised.value) is kind
    assert raised.value.http_status == status
    for word in words:
        assert word in str(raised.value)


def now():
    return datetime.now(timezone.utc).isoformat()


# Messages


def test_creates_a_message(chat):
    chat_id, message = chat
    assert isinstance(message, unique_sdk.Message)
    assert message.object == "message"
    assert message.chatId == chat_id
    assert message.role == "ASSISTANT"
    assert message.text == "first"
    assert message.debugInfo == {"why": "test"}
    assert message.completedAt is None
    assert message.createdAt.endswith("Z")
    assert message.references[0].sourceId == "cont_1_chunk_1"
    assert "description" not in message.references[0]


def test_modify_keeps_other_fields(chat):
    chat_id, message = chat
    at = now()
    changed = unique_sdk.Message.modify(
        **WHO,
        id=message.id,
        chatId=chat_id,
        text="second",
        originalText="raw",
        references=None,
        completedAt=at,
        startedStreamingAt=at,
        stoppedStreamingAt=at,
    )
    again = unique_sdk.Message.retrieve(**WHO, id=message.id, chatId=chat_id)
    assert changed == again
    assert (again.text, again.originalText) == ("second", "raw")
    assert len(again.references) == 1
    written = again.completedAt
    assert written == again.startedStreamingAt == again.stoppedStreamingAt
    assert abs((datetime.fromisoformat(written) - datetime.fromisoformat(at)).total_seconds()) < 0.001


def test_lists_messages_oldest_first(chat):
    chat_id, first = chat
    second = unique_sdk.Message.create(
        **WHO, chatId=chat_id, assistantId=ASSISTANT, role="ASSISTANT", text="later", references=[], debugInfo={}, completedAt=now()
    )
    listed = unique_sdk.Message.list(**WHO, chatId=chat_id)
    assert isinstance(listed, unique_sdk.ListObject)
    assert listed.has_more is False
    assert [message.id for message in listed] == [first.id, second.id]


def test_message_event_stores_nothing(chat):
    chat_id, message = chat
    shown = unique_sdk.Message.create_event(**WHO, messageId=message.id, chatId=chat_id, text="for the moment")
    assert shown.text == "for the moment"
    assert unique_sdk.Message.retrieve(**WHO, id=message.id, chatId=chat_id).text == "first"


def test_deletes_a_message(chat):
    chat_id, message = chat
    unique_sdk.Message.delete(message.id, **WHO, chatId=chat_id)
    with refused(unique_sdk.InvalidRequestError, 404, message.id):
        unique_sdk.Message.retrieve(**WHO, id=message.id, chatId=chat_id)


def test_async_calls(chat):
    chat_id, message = chat

    async def calls():
        await unique_sdk.Message.modify_async(**WHO, id=message.id, chatId=chat_id, text="async")
        return await unique_sdk.Message.list_async(**WHO, chatId=chat_id)

    assert RUNNER.run(calls()).data[0].text == "async"


# Message log


def test_creates_and_updates_a_step(chat):
    _, message = chat
    step = unique_sdk.MessageLog.create(
        **WHO, messageId=message.id, text="Searching…", status="RUNNING", order=1, details={"data": []}, references=[dict(REFERENCE)]
    )
    assert step.object == "message_log"
    assert step.messageId == message.id
    assert step.uncitedReferences == {}
    done = unique_sdk.MessageLog.update(
        **WHO, message_log_id=step.id, status="COMPLETED", text="Found it", uncitedReferences={"data": [1]}
    )
    assert (done.id, done.status, done.text, done.order) == (step.id, "COMPLETED", "Found it", 1)
    assert done.details == {"data": []}
    assert done.uncitedReferences == {"data": [1]}
    assert done.references[0].name == "Travel policy"
    assert done.updatedAt >= done.createdAt


def test_step_needs_an_existing_message_and_a_known_status(chat):
    _, message = chat
    with refused(unique_sdk.InvalidRequestError, 404, "msg_unknown"):
        unique_sdk.MessageLog.create(**WHO, messageId="msg_unknown", text="x", status="RUNNING", order=1)
    with refused(unique_sdk.InvalidRequestError, 400, "status", "DANCING"):
        unique_sdk.MessageLog.create(**WHO, messageId=message.id, text="x", status="DANCING", order=1)
    with refused(unique_sdk.InvalidRequestError, 404, "message_log_unknown"):
        unique_sdk.MessageLog.update(**WHO, message_log_id="message_log_unknown", status="FAILED")


# Search


def test_search_returns_all_fields():
    hits = unique_sdk.Search.create(**WHO, searchString="How much may a hotel cost?", searchType="COMBINED", limit=3)
    assert isinstance(hits, list) and 1 <= len(hits) <= 3
    best = hits[0]
    assert best.title == "Travel policy"
    assert best.key == "money/travel-policy.md"
    assert "140 euros a night" in best.text
    assert best.id.startswith("cont_") and best.chunkId.startswith("chunk_")
    assert best.url.startswith("http://") and best.url.endswith("/money/travel-policy.md")
    assert (best.startPage, best.endPage) == (1, 1)
    assert isinstance(best.order, int)
    assert best.metadata["mimeType"] == "text/markdown"
    assert best.createdAt.endswith("Z") and best.updatedAt.endswith("Z")


def test_search_filters():
    def keys(**params):
        hits = unique_sdk.Search.create(**WHO, searchString="days of leave", searchType="VECTOR", **params)
        return {hit.key for hit in hits}

    everywhere = keys()
    assert len(everywhere) > 1
    leave = unique_sdk.Search.create(**WHO, searchString="parental leave", searchType="FULL_TEXT", limit=1)[0]
    assert keys(contentIds=[leave.id]) == {"people/parental-leave.md"}
    folder = leave.metadata["folderIdPath"].removeprefix("uniquepathid://").split("/")[-1]
    assert all(key.startswith("people/") for key in keys(scopeIds=[folder]))
    title = {"path": ["title"], "operator": unique_sdk.UQLOperator.EQUALS, "value": "Parental leave"}
    assert keys(metaDataFilter={unique_sdk.UQLCombinator.AND: [title]}) == {"people/parental-leave.md"}
    assert keys(chatOnly=True) == set()
    assert not keys(page=1000)


def test_search_refuses_unsupported_parameters():
    ask = {"searchString": "leave", "searchType": "COMBINED"}
    for name, value in {"scoreThreshold": 0.7, "reranker": {"deploymentName": "x"}, "includeScores": True}.items():
        with refused(unique_sdk.InvalidRequestError, 400, name):
            unique_sdk.Search.create(**WHO, **ask, **{name: value})
    with refused(unique_sdk.InvalidRequestError, 400, "limit"):
        unique_sdk.Search.create(**WHO, **ask, limit=1001)
    with refused(unique_sdk.InvalidRequestError, 400, "searchType"):
        unique_sdk.Search.create(**WHO, searchString="leave", searchType="GUESS")


def test_search_string_contains_the_relevant_words():
    made = unique_sdk.SearchString.create(**WHO, prompt="What is our travel policy, please?")
    assert made.searchString == "travel policy"
    history = [{"role": "user", "text": "How much may a hotel cost?"}]
    made = unique_sdk.SearchString.create(**WHO, prompt="And in London?", messages=history)
    assert "london" in made.searchString and "hotel" in made.searchString


# Completion


def question(text="How much may a hotel cost a night?"):
    return [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": text}]


def test_completion():
    answer = unique_sdk.ChatCompletion.create(
        company_id="company_local", user_id="user_local", messages=question(), options={"temperature": 0.3}, timeout=60_000
    )
    assert isinstance(answer, unique_sdk.ChatCompletion)
    assert answer.choices[0].index == 0
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.role == "assistant"
    assert "140 euros" in answer.choices[0].message.content
    again = unique_sdk.ChatCompletion.create(company_id="company_local", messages=question())
    assert again.choices[0].message.content == answer.choices[0].message.content


def test_completion_requires_messages():
    with refused(unique_sdk.InvalidRequestError, 400, "messages"):
        unique_sdk.ChatCompletion.create(company_id="company_local", messages=[])
    with refused(unique_sdk.InvalidRequestError, 400, "messages[0].role", "robot"):
        unique_sdk.ChatCompletion.create(company_id="company_local", messages=[{"role": "robot", "content": "x"}])


def test_lists_a_model():
    assert unique_sdk.LLMModels.get_models(**WHO)["models"]


def test_embeddings_are_unsupported_without_retries():
    with refused(unique_sdk.APIError, 501, "embeddings"):
        unique_sdk.Embeddings.create(**WHO, texts=["x"])


def test_streams_a_completion_into_a_message(chat):
    chat_id, message = chat
    sources = unique_sdk.Search.create(**WHO, searchString="hotel cost night", searchType="COMBINED", limit=2)
    context = "\n\n".join(f"[source{place}] {hit.text}" for place, hit in enumerate(sources))
    result = unique_sdk.Integrated.chat_stream_completion(
        **WHO,
        chatId=chat_id,
        assistantId=ASSISTANT,
        assistantMessageId=message.id,
        userMessageId=message.id,
        messages=[{"role": "system", "content": context}, {"role": "user", "content": "How much may a hotel cost a night?"}],
        searchContext=[{"id": hit.id, "chunkId": hit.chunkId, "key": hit.key, "title": hit.title, "url": hit.url} for hit in sources],
        model="AZURE_GPT_4o_2024_1120",
        startText="So: ",
        debugInfo={"streamed": True},
        options={"temperature": 0},
        timeout=60_000,
    )
    assert result["object"] == "streamResult"
    assert result["toolCalls"] == []
    assert result["usage"]["totalTokens"] >= 0
    written = unique_sdk.Message.retrieve(**WHO, id=message.id, chatId=chat_id)
    assert result["message"] == written
    assert written.text.startswith("So: ") and "140 euros" in written.text
    assert "<sup>1</sup>" in written.text and "[source" not in written.text
    assert "[source0]" in written.originalText
    assert written.references[0].sourceId == f"{sources[0].id}_{sources[0].chunkId}"
    assert written.references[0].sequenceNumber == 1
    assert written.completedAt and written.startedStreamingAt and written.stoppedStreamingAt
    assert written.debugInfo == {"streamed": True}


# Space


def test_finds_a_space():
    space = unique_sdk.Space.get_space(**WHO, space_id=ASSISTANT)
    assert space.id == ASSISTANT
    assert space.modules[0].name == "Assistant"
    spaces = unique_sdk.Space.get_spaces(**WHO, name="assist")
    assert ASSISTANT in [space["id"] for space in spaces["data"]]
    with refused(unique_sdk.InvalidRequestError, 404, "assistant_nobody"):
        unique_sdk.Space.get_space(**WHO, space_id="assistant_nobody")


def test_pages_renames_and_deletes_a_chat(chat):
    chat_id, message = chat
    part = unique_sdk.Space.get_chat_messages(**WHO, chat_id=chat_id, take=5, excludeGptRequest=True)
    assert part["totalCount"] == 1
    assert part["messages"][0]["id"] == message.id
    assert part["messages"][0]["assessment"] == []
    assert unique_sdk.Space.get_chat_messages(**WHO, chat_id=chat_id, skip=1)["messages"] == []
    assert unique_sdk.Space.get_latest_message(**WHO, chat_id=chat_id)["id"] == message.id
    assert unique_sdk.Space.update_chat(**WHO, chat_id=chat_id, title="Another")["title"] == "Another"
    short_lived = unique_sdk.Space.create_chat(**WHO, title="Short", assistantId=ASSISTANT)
    assert unique_sdk.Space.delete_chat(**WHO, chat_id=short_lived["id"])["chat_id"] == short_lived["id"]
    with refused(unique_sdk.InvalidRequestError, 404, short_lived["id"]):
        unique_sdk.Space.get_chat_messages(**WHO, chat_id=short_lived["id"])


@pytest.mark.parametrize("stop_condition", ["stoppedStreamingAt", "completedAt"])
def test_module_answers_a_message(stop_condition):
    updates = []

    async def seen(message):
        updates.append(message["text"])

    answer = RUNNER.run(
        send_message_and_wait_for_completion(
            **WHO,
            assistant_id=ASSISTANT,
            text="How much may a hotel cost a night?",
            poll_interval=0.2,
            max_wait=60,
            stop_condition=stop_condition,
            on_message_update=seen,
        )
    )
    chat_id = answer["chatId"]
    try:
        assert answer["role"] == "ASSISTANT"
        assert answer["text"] and updates[-1] == answer["text"]
        messages = unique_sdk.Message.list(**WHO, chatId=chat_id).data
        assert [message.role for message in messages] == ["USER", "ASSISTANT"]
        assert messages[0].text == "How much may a hotel cost a night?"
        assert answer["triggeringUserMessageId"] == messages[0].id
        follow_up = RUNNER.run(
            send_message_and_wait_for_completion(
                **WHO, assistant_id=ASSISTANT, text="And a client dinner?", chat_id=chat_id, poll_interval=0.2, max_wait=60
            )
        )
        assert follow_up["chatId"] == chat_id and follow_up["id"] != answer["id"]
        roles = [message.role for message in unique_sdk.Message.list(**WHO, chatId=chat_id).data]
        assert roles == ["USER", "ASSISTANT"] * 2
    finally:
        unique_sdk.Space.delete_chat(**WHO, chat_id=chat_id)


# Errors


def test_wrong_credentials_raise_the_sdks_errors(chat):
    chat_id, _ = chat
    unique_sdk.api_key = "ukey_other"
    with refused(unique_sdk.AuthenticationError, 401, "ukey_local"):
        unique_sdk.Message.list(**WHO, chatId=chat_id)
    unique_sdk.api_key = "ukey_local"
    unique_sdk.app_id = "app_other"
    with refused(unique_sdk.AuthenticationError, 401, "app_local"):
        unique_sdk.Message.list(**WHO, chatId=chat_id)
    unique_sdk.app_id = "app_local"
    with refused(PermissionError, 403, "company_local"):
        unique_sdk.Message.list(user_id="user_local", company_id="company_other", chatId=chat_id)
    with refused(PermissionError, 403, "user_local"):
        unique_sdk.Message.list(user_id="user_other", company_id="company_local", chatId=chat_id)


def test_bad_requests_name_the_field(chat):
    chat_id, message = chat
    with refused(unique_sdk.InvalidRequestError, 404, "chat_unknown"):
        unique_sdk.Message.list(**WHO, chatId="chat_unknown")
    with refused(unique_sdk.InvalidRequestError, 400, "chatId"):
        unique_sdk.Message.list(**WHO)
    with refused(unique_sdk.InvalidRequestError, 400, "role"):
        unique_sdk.Message.create(**WHO, chatId=chat_id, assistantId=ASSISTANT, role="USER", text="x")
    with refused(unique_sdk.InvalidRequestError, 400, "references[0]", "sourceId"):
        unique_sdk.Message.modify(**WHO, id=message.id, chatId=chat_id, references=[{"name": "x", "sequenceNumber": 1, "source": "x"}])
    with refused(unique_sdk.InvalidRequestError, 400, "completedAt", "RFC 3339"):
        unique_sdk.Message.modify(**WHO, id=message.id, chatId=chat_id, completedAt="yesterday")


def test_unsupported_calls_are_refused():
    with refused(unique_sdk.InvalidRequestError, 404, "no such call", "/short-term-memory"):
        unique_sdk.ShortTermMemory.create(**WHO, memoryName="x", data="y", chatId="chat_x")


# Event socket


def test_event_socket_serves_the_toolkits_client():
    """Connects like `get_sse_client` in unique-toolkit 2026.44.2: the same URL, headers and client library.

    The toolkit itself needs a newer Python than the other tests.
    """
    names = ["unique.chat.user-message.created", "unique.chat.external-module.chosen"]
    headers = {
        "Authorization": "Bearer ukey_local",
        "x-app-id": "app_local",
        "x-company-id": "company_local",
        "x-user-id": "user_local",
        "x-api-version": "2023-12-06",
    }
    path = f"/public/event-socket/events/stream?subscriptions={','.join(names)}"
    client = SSEClient(url=urljoin(BASE, path), headers=headers)
    sent = unique_sdk.Space.create_message(**WHO, assistantId=ASSISTANT, text="Who listens?")
    received = [json.loads(event.data) for event in itertools.islice((event for event in client if event.data), 2)]
    client.resp.close()
    assert [event["event"] for event in received] == names
    assert all(event["id"].startswith("evt_") and event["companyId"] == "company_local" for event in received)
    assert received[1]["payload"]["userMessage"]["id"] == sent.id
    unique_sdk.Space.delete_chat(**WHO, chat_id=sent.chatId)


def test_event_socket_requires_credentials():
    with pytest.raises(requests.HTTPError) as raised:
        SSEClient(url=urljoin(BASE, "/public/event-socket/events/stream?subscriptions=x"), headers={})
    assert raised.value.response.status_code == 401
