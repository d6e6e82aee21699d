"""Calls to host functions, which are replaced by fakes."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from componentize_py_types import Err
from conftest import Define, chosen

import modhost
from modhost import _log, config, keyvalue, messages
from modhost._bindings.imports import atomics, completion, message_log, types, wasi_config_store, wasi_keyvalue_store
from modhost._bindings.imports import logging as host_logging
from modhost._bindings.imports import messages as host_messages

HIT = modhost.Hit(id="cont_1", chunk_id="chunk_1", text="…", title="Travel")


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    written: list[Any] = []

    def reply(change: host_messages.Change) -> host_messages.Message:
        written.append(change)
        return host_messages.Message("msg_2", types.Role.ASSISTANT, change.text, change.references, None)

    monkeypatch.setattr(host_messages, "reply", reply)
    return written


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    shown: list[tuple[str, str | None]] = []

    class Entry:
        def __init__(self, text: str) -> None:
            self.text = text

        @classmethod
        def create(cls, text: str, status: message_log.Status) -> "Entry":
            shown.append((text, status.name))
            return cls(text)

        def update(self, change: message_log.Change) -> None:
            self.text = change.text or self.text
            shown.append((self.text, change.status and change.status.name))

    monkeypatch.setattr(message_log, "Entry", Entry)
    return shown


def test_call_raises_no_host_outside_of_a_component() -> None:
    calls: list[Callable[[], object]] = [
        lambda: messages.reply("x"),
        lambda: modhost.search("x"),
        lambda: modhost.step("x"),
        lambda: config.get("x"),
        keyvalue.Store,
    ]
    for call in calls:
        with pytest.raises(modhost.NoHost, match="no host"):
            call()


def test_each_error_case_has_its_own_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[tuple[types.Error, type[modhost.Error], str]] = [
        (types.Error_Invalid("it said"), modhost.Invalid, "messages.show: invalid: it said"),
        (types.Error_Denied("it said"), modhost.Denied, "messages.show: not allowed: it said"),
        (types.Error_NotFound("it said"), modhost.NotFound, "messages.show: not found: it said"),
        (types.Error_RateLimited(7), modhost.RateLimited, "messages.show: rate limited: retry after 7 s"),
        (types.Error_RateLimited(None), modhost.RateLimited, "messages.show: rate limited"),
        (types.Error_Unavailable("it said"), modhost.Unavailable, "messages.show: unavailable: it said"),
        (types.Error_Timeout(), modhost.Timeout, f"messages.show: {modhost.Timeout.words}"),
        (types.Error_Unsupported("it said"), modhost.Unsupported, "messages.show: not supported: it said"),
    ]
    for error, kind, text in errors:

        def show(text: str, error: types.Error = error) -> None:
            raise Err(error)

        monkeypatch.setattr(host_messages, "show", show)
        with pytest.raises(kind) as raised:
            messages.show("x")
        assert str(raised.value) == text
        assert raised.value.call == "messages.show"


def test_reply_references_the_cited_hits(replies: list[Any]) -> None:
    message = messages.reply("Book early [source0], or never [source4].", citing=[HIT], debug_info={"hits": 1})
    (change,) = replies
    assert change.text == "Book early <sup>1</sup>, or never."
    assert [reference.source_id for reference in change.references] == ["cont_1_chunk_1"]
    assert change.debug_info == '{"hits": 1}'
    assert change.completed
    assert message.role == "assistant"

    messages.reply("Nothing [source0].", citing=[])
    messages.reply("[source0] stays", completed=False)
    assert [change.text for change in replies[1:]] == ["Nothing.", "[source0] stays"]
    assert not replies[2].completed


def test_conversation_skips_messages_without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[completion.Request] = []

    def complete(request: completion.Request) -> completion.Answer:
        asked.append(request)
        return completion.Answer("Yes.", "stop", completion.Usage(3, 1))

    monkeypatch.setattr(completion, "complete", complete)
    history = [messages.Message("1", "user", "Hi", (), None), messages.Message("2", "assistant", None, (), None)]
    answer = modhost.complete([("assistant", "Hello"), *history], system="Be kind.", timeout=1.5, options={"top_p": 1})
    assert (answer.text, answer.usage) == ("Yes.", modhost.Usage(3, 1))
    assert [(message.role.name, message.content) for message in asked[0].messages] == [
        ("SYSTEM", "Be kind."),
        ("ASSISTANT", "Hello"),
        ("USER", "Hi"),
    ]
    assert (asked[0].timeout_ms, asked[0].options) == (1500, '{"top_p": 1}')


def test_stream_is_canceled_when_the_loop_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[bool] = []

    class Tokens:
        def __init__(self) -> None:
            self.chunks = iter(["a", "b", None])

        def next(self) -> str | None:
            return next(self.chunks)

        def __exit__(self, *args: object) -> None:
            dropped.append(True)

    monkeypatch.setattr(completion, "stream", lambda request: Tokens())
    assert list(modhost.stream("x")) == ["a", "b"]
    with modhost.stream("x") as chunks:
        assert next(chunks) == "a"
    assert list(chunks) == []
    assert dropped == [True, True]


def test_with_block_closes_the_step(steps: list[tuple[str, str | None]]) -> None:
    with modhost.step("One…"):
        pass
    with modhost.step("Two…") as two:
        two.update("Two of 2…")
        two.fail("Two is out")
    assert steps == [
        ("One…", "RUNNING"),
        ("One…", "COMPLETED"),
        ("Two…", "RUNNING"),
        ("Two of 2…", None),
        ("Two is out", "FAILED"),
    ]


def test_step_left_by_a_caught_exception_fails(
    define: Define, steps: list[tuple[str, str | None]]
) -> None:
    text = """import modhost
@modhost.module
def answer(event: modhost.Event) -> None:
    for name in ("One…", "Two…"):
        try:
            with modhost.step(name):
                raise ValueError
        except ValueError:
            pass
"""
    define(text)(chosen())
    assert steps == [("One…", "RUNNING"), ("One…", "FAILED"), ("Two…", "RUNNING"), ("Two…", "FAILED")]


def test_step_of_a_failed_delivery_is_left_to_the_host(define: Define, steps: list[tuple[str, str | None]]) -> None:
    text = """import modhost
@modhost.module
def answer(event: modhost.Event) -> None:
    with modhost.step("One…"):
        raise ValueError
"""
    with pytest.raises(Err):
        define(text)(chosen())
    # Only the host knows whether it will retry.
    assert steps == [("One…", "RUNNING")]


def test_settings_are_converted_to_the_requested_type(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"greeting": "Hello", "limit": "3", "ratio": "2", "on": "true", "list": "[1]", "table": '{"a": 1}'}
    monkeypatch.setattr(wasi_config_store, "get", settings.get)
    monkeypatch.setattr(wasi_config_store, "get_all", lambda: list(settings.items()))
    assert config.get("greeting") == "Hello"
    assert config.get("missing", "Good day") == "Good day"
    assert config.read("limit", int) == 3
    assert config.read("limit", str) == "3"
    assert config.read("ratio", float) == 2.0
    assert config.read("on", bool) is True
    assert config.read("list", list) == [1]
    assert config.read("table", dict) == {"a": 1}
    assert config.read("missing", int, 5) == 5
    assert config.all() == settings
    for key, kind, text in [
        ("greeting", int, "`greeting` should be an integer, but is Hello"),
        ("on", int, "`on` should be an integer, but is true"),
        ("limit", bool, "`limit` should be true or false, but is 3"),
        ("table", list, "`table` should be a list"),
    ]:
        with pytest.raises(modhost.Misconfigured, match=text):
            config.read(key, kind)


def test_update_retries_after_a_concurrent_change(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [b"1", b"5"]

    class Cas:
        def __init__(self, value: bytes | None) -> None:
            self.value = value

        @classmethod
        def new(cls, bucket: object, key: str) -> "Cas":
            return cls(values[0])

        def current(self) -> bytes | None:
            return self.value

    def swap(cas: Cas, value: bytes) -> None:
        if cas.value == b"1":
            raise Err(atomics.CasError_CasFailed(Cas(b"5")))  # type: ignore[arg-type]
        values[1] = value

    monkeypatch.setattr(wasi_keyvalue_store, "open", lambda name: wasi_keyvalue_store.Bucket())
    monkeypatch.setattr(atomics, "Cas", Cas)
    monkeypatch.setattr(atomics, "swap", swap)
    store = keyvalue.Store()
    assert store.update("n", lambda value: str(int(value or 0) + 1)) == b"6"
    assert values[1] == b"6"
    assert not store.compare_and_swap("n", "9", "10")


def test_store_errors_map_to_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[tuple[wasi_keyvalue_store.Error, type[modhost.Error], str]] = [
        (wasi_keyvalue_store.Error_NoSuchStore(), modhost.NotFound, "no such store"),
        (wasi_keyvalue_store.Error_AccessDenied(), modhost.Denied, "may not use"),
        (wasi_keyvalue_store.Error_Other("it is full"), modhost.Invalid, "invalid: it is full"),
        (wasi_keyvalue_store.Error_Other("unavailable: busy"), modhost.Unavailable, "unavailable: busy"),
    ]
    for error, kind, text in errors:

        def open(name: str, error: wasi_keyvalue_store.Error = error) -> wasi_keyvalue_store.Bucket:
            raise Err(error)

        monkeypatch.setattr(wasi_keyvalue_store, "open", open)
        with pytest.raises(kind, match=text):
            keyvalue.Store("drafts")


def test_logging_levels_map_to_host_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[str, str, str]] = []
    monkeypatch.setattr(host_logging, "log", lambda level, context, text: logged.append((level.name, context, text)))
    logger = logging.Logger("mine", level=1)
    logger.addHandler(_log.HostHandler())
    logger.log(5, "fine")
    logger.debug("d %s", 1)
    logger.info("i")
    logger.warning("w")
    logger.error("e")
    logger.critical("c")
    levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]
    assert logged == [(level, "mine", text) for level, text in zip(levels, ["fine", "d 1", "i", "w", "e", "c"], strict=True)]
