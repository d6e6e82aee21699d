"""The path from an event to the function, and from an exception to the failure."""

import textwrap
from datetime import UTC, datetime

import pytest
from componentize_py_types import Err
from conftest import Define, chosen, created, event

import modhost
from modhost import Event, ModuleChosen, UserMessageCreated
from modhost._bindings.imports import events as wit

IMPORTS = "import modhost\nfrom modhost import *\n\n"


def failure(handle: object, event: wit.Event) -> wit.Failure:
    with pytest.raises(Err) as raised:
        handle(event)  # type: ignore[operator]
    value: wit.Failure = raised.value.value
    return value


def test_argument_type_selects_the_event(define: Define) -> None:
    for kind, given, condition in [
        ("ModuleChosen", chosen("Hi"), "event.user_message.text == 'Hi' and event.configuration == {'tone': 'kind'}"),
        ("UserMessageCreated", created("Hi"), "event.text == 'Hi'"),
        ("ModuleChosen | UserMessageCreated", created("Hi"), "type(event) is UserMessageCreated"),
        ("Event", chosen("Hi"), "type(event.subject) is ModuleChosen and event.attempt == 1"),
        ("Event", event("x", wit.Subject_Other(), {"a": 1}), "event.subject is None and event.payload == {'a': 1}"),
    ]:
        handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: {kind}) -> None:\n    assert {condition}\n")
        handle(given)


def test_traceback_omits_import_frames(define: Define) -> None:
    text = f"""{IMPORTS}
import importlib

@modhost.module
def answer(event: Event) -> None:
    try:
        importlib.import_module("modhost.no_such_part")
    except ImportError as error:
        raise RuntimeError("not there") from error
"""
    reason = failure(define(text), chosen("Hi")).reason
    assert reason.startswith("RuntimeError: not there (") and "ModuleNotFoundError" in reason
    assert "importlib" not in reason.replace('importlib.import_module("modhost', ""), reason


def test_events_of_other_systems_have_their_types(define: Define) -> None:
    imports = f"{IMPORTS}from modhost import archivus, nexus\nfrom modhost.nexus import MessageFinalized\n"
    message = {"id": "m_1", "chatId": "t_1", "senderType": "USER", "status": "PROCESSED", "content": "Hi"}
    for kind, name, payload, condition in [
        ("nexus.MessageFinalized", "MESSAGE_FINALIZED", message, "event.content == 'Hi' and event.event.id == 'evt_1'"),
        ("ModuleChosen | MessageFinalized", "MESSAGE_FINALIZED", message, "type(event) is MessageFinalized"),
        (
            "archivus.DocumentUploaded | archivus.DocumentFailed",
            "document.failed",
            {"document_id": "doc_1", "error": "x"},
            "type(event) is archivus.DocumentFailed",
        ),
    ]:
        handle = define(f"{imports}@modhost.module\ndef answer(event: {kind}) -> None:\n    assert {condition}\n")
        handle(event(name, wit.Subject_Other(), payload))
        result = failure(handle, event("x", wit.Subject_Other(), payload))
        assert f"it handles `{'unique.chat.external-module.chosen' if 'Chosen' in kind else ''}" in result.reason
        assert f"`{name}`" in result.reason


def test_module_can_define_its_own_event_type(define: Define) -> None:
    text = """
    class InvoicePaid:
        event_name = "invoice.paid"

        def __init__(self, number):
            self.number = number

        @classmethod
        def from_event(cls, event):
            return cls(event.payload["number"])

    @modhost.module
    def answer(event: InvoicePaid) -> None:
        assert event.number == 7
    """
    handle = define(IMPORTS + textwrap.dedent(text))
    handle(event("invoice.paid", wit.Subject_Other(), {"number": 7}))
    assert "KeyError: 'number'" in failure(handle, event("invoice.paid", wit.Subject_Other(), {})).reason


def test_function_without_type_receives_all_events(define: Define) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event):\n    assert type(event) is Event\n")
    handle(event("x", wit.Subject_Other()))


def test_types_may_be_string_annotations(define: Define) -> None:
    text = f"from __future__ import annotations\n{IMPORTS}@modhost.module\ndef answer(event: ModuleChosen) -> None: ...\n"
    define(text)(chosen())


def test_fails_without_retry_on_another_kind_of_event(define: Define) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: ModuleChosen) -> None: ...\n")
    result = failure(handle, created())
    assert "`unique.chat.user-message.created`" in result.reason
    assert "modules.toml" in result.reason
    assert result.retry == wit.Retry_No()


def test_all_fields_of_a_failure_reach_the_host(define: Define) -> None:
    text = 'raise Failure("no seats left", user_text="Sorry, full.", retry=1.5)'
    result = failure(define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    {text}\n"), chosen())
    # Rounded up, so that no retry is early.
    assert result == wit.Failure("no seats left", "Sorry, full.", wit.Retry_After(2))


@pytest.mark.parametrize(
    ("raised", "retry"),
    [
        ("RateLimited('search.search', 7)", wit.Retry_After(7)),
        ("RateLimited('search.search')", wit.Retry_Yes()),
        ("Unavailable('search.search', '502')", wit.Retry_Yes()),
        ("Timeout('search.search')", wit.Retry_Yes()),
        ("Invalid('search.search', 'no')", wit.Retry_No()),
        ("Denied('search.search', 'no')", wit.Retry_No()),
        ("NotFound('search.search', 'no')", wit.Retry_No()),
        ("Unsupported('search.search', 'no')", wit.Retry_No()),
        ("Misconfigured('config.get', 'no')", wit.Retry_No()),
        ("Failure('again', retry=True)", wit.Retry_Yes()),
        ("Failure('again', retry=__import__('datetime').timedelta(minutes=1))", wit.Retry_After(60)),
    ],
)
def test_exception_determines_the_retry(define: Define, raised: str, retry: wit.Retry) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    raise {raised}\n")
    assert failure(handle, chosen()).retry == retry


def test_reason_includes_the_cause(define: Define) -> None:
    for cause, more, reason, retry in [
        ("RateLimited('x.y', 7)", "", "no passages: x.y: rate limited: retry after 7 s", wit.Retry_After(7)),
        ("RateLimited('x.y', 7)", ", retry=False", "no passages: x.y: rate limited: retry after 7 s", wit.Retry_No()),
        ("KeyError('tea')", "", "no passages: KeyError: 'tea'", wit.Retry_No()),
    ]:
        text = f"    try:\n        raise {cause}\n    except Exception as error:\n"
        text += f"        raise Failure('no passages'{more}) from error\n"
        result = failure(define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n{text}"), chosen())
        assert (result.reason, result.retry) == (reason, retry)


def test_reason_of_a_failed_call_has_its_location(define: Define) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    raise Unavailable('x.y', '502')\n")
    reason = failure(handle, chosen()).reason
    assert reason.startswith("x.y: unavailable: 502 (defined_")
    assert reason.endswith("line 6, in answer)")


def test_reason_of_other_exceptions_has_the_traceback(define: Define) -> None:
    text = """
    def price(of):
        return {}[of]

    @modhost.module
    def answer(event: Event) -> None:
        try:
            price("tea")
        except KeyError as cause:
            raise RuntimeError("no price") from cause
    """
    result = failure(define(IMPORTS + textwrap.dedent(text)), chosen())
    first, *traceback = result.reason.split("\n")
    assert first.startswith("RuntimeError: no price (defined_")
    assert first.endswith("line 13, in answer)")
    rest = "\n".join(traceback)
    assert "line 6, in price" in rest
    assert "KeyError: 'tea'" in rest
    assert "direct cause" in rest
    # Frames of this package and absolute paths are removed.
    assert "_module.py" not in rest
    assert '"/' not in rest
    assert result.retry == wit.Retry_No()
    assert result.user_text is None


@pytest.mark.parametrize("statement", ["sys.exit(3)", "raise KeyboardInterrupt", "raise MemoryError"])
def test_no_exception_escapes(define: Define, statement: str) -> None:
    handle = define(f"import sys\n{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    {statement}\n")
    assert "line 7, in answer" in failure(handle, chosen()).reason


def test_rejects_invalid_functions_at_definition(define: Define) -> None:
    for text, message in [
        ("async def answer(event: Event): ...", "`async`"),
        ("def answer(): ...", "one argument"),
        ("def answer(event, other): ...", "one argument"),
        ("def answer(event: int): ...", "is not an event type"),
        ("def answer(event: ModuleChosen | int): ...", "is not an event type"),
        ("def answer(event: __import__('typing').Union[ModuleChosen, int]): ...", "is not an event type"),
    ]:
        with pytest.raises(TypeError, match=message):
            define(f"{IMPORTS}@modhost.module\n{text}\n")
    with pytest.raises(TypeError, match="a module has one"):
        define(f"{IMPORTS}@modhost.module\ndef a(event): ...\n@modhost.module\ndef b(event): ...\n")


def test_decorated_function_stays_callable() -> None:
    @modhost.module
    def answer(event: Event) -> None:
        assert event.created_at == datetime(2026, 1, 31, tzinfo=UTC)

    answer(Event("evt_1", "test", "x", datetime(2026, 1, 31, tzinfo=UTC), 1, None, None))
    del answer.__globals__["ModhostBindings"]


def test_types_are_public() -> None:
    assert {ModuleChosen, UserMessageCreated} <= {getattr(modhost, name) for name in modhost.__all__}
