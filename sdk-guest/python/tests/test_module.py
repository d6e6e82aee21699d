"""From the event the host hands over to the function, and from what that raises to the failure the host gets."""

import textwrap
from datetime import UTC, datetime

import pytest
from componentize_py_types import Err
from conftest import Define, chosen, created, event

import modhost
from modhost import Event, ModuleChosen, UserMessageCreated
from modhost._bindings.imports import events as wit

IMPORTS = "import modhost\nfrom modhost import *\nheard = []\n"


def failure(handle: object, given: wit.Event) -> wit.Failure:
    with pytest.raises(Err) as raised:
        handle(given)  # type: ignore[operator]
    value: wit.Failure = raised.value.value
    return value


def test_the_function_gets_what_its_argument_says(define: Define) -> None:
    for takes, given, told in [
        ("ModuleChosen", chosen("Hi"), "event.user_message.text == 'Hi' and event.configuration == {'tone': 'kind'}"),
        ("UserMessageCreated", created("Hi"), "event.text == 'Hi'"),
        ("ModuleChosen | UserMessageCreated", created("Hi"), "type(event) is UserMessageCreated"),
        ("Event", chosen("Hi"), "type(event.subject) is ModuleChosen and event.attempt == 1"),
        ("Event", event("x", wit.Subject_Other(), {"a": 1}), "event.subject is None and event.payload == {'a': 1}"),
    ]:
        handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: {takes}) -> None:\n    assert {told}\n")
        handle(given)


def test_frames_of_the_import_system_are_left_out(define: Define) -> None:
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


def test_an_event_of_another_system_has_its_type(define: Define) -> None:
    imports = f"{IMPORTS}from modhost import archivus, nexus\nfrom modhost.nexus import MessageFinalized\n"
    message = {"id": "m_1", "chatId": "t_1", "senderType": "USER", "status": "PROCESSED", "content": "Hi"}
    for takes, name, payload, told in [
        ("nexus.MessageFinalized", "MESSAGE_FINALIZED", message, "event.content == 'Hi' and event.event.id == 'evt_1'"),
        ("ModuleChosen | MessageFinalized", "MESSAGE_FINALIZED", message, "type(event) is MessageFinalized"),
        (
            "archivus.DocumentUploaded | archivus.DocumentFailed",
            "document.failed",
            {"document_id": "doc_1", "error": "x"},
            "type(event) is archivus.DocumentFailed",
        ),
    ]:
        handle = define(f"{imports}@modhost.module\ndef answer(event: {takes}) -> None:\n    assert {told}\n")
        handle(event(name, wit.Subject_Other(), payload))
        ended = failure(handle, event("x", wit.Subject_Other(), payload))
        assert f"takes `{'unique.chat.external-module.chosen' if 'Chosen' in takes else ''}" in ended.reason
        assert f"`{name}`" in ended.reason


def test_an_event_may_have_a_type_of_the_module(define: Define) -> None:
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


def test_a_function_without_a_type_gets_everything(define: Define) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event):\n    assert type(event) is Event\n")
    handle(event("x", wit.Subject_Other()))


def test_types_may_be_text(define: Define) -> None:
    text = f"from __future__ import annotations\n{IMPORTS}@modhost.module\ndef answer(event: ModuleChosen) -> None: ...\n"
    define(text)(chosen())


def test_another_kind_of_event_is_a_failure_for_good(define: Define) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: ModuleChosen) -> None: ...\n")
    ended = failure(handle, created())
    assert "`unique.chat.user-message.created`" in ended.reason
    assert "modules.toml" in ended.reason
    assert ended.retry == wit.Retry_No()


def test_a_failure_reaches_the_host_whole(define: Define) -> None:
    text = 'raise Failure("no seats left", user_text="Sorry, full.", retry=1.5)'
    ended = failure(define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    {text}\n"), chosen())
    # Rounded up, so that it is never earlier than asked.
    assert ended == wit.Failure("no seats left", "Sorry, full.", wit.Retry_After(2))


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
def test_what_may_pass_is_tried_again(define: Define, raised: str, retry: wit.Retry) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    raise {raised}\n")
    assert failure(handle, chosen()).retry == retry


def test_a_failure_tells_what_it_was_raised_from(define: Define) -> None:
    for cause, more, reason, retry in [
        ("RateLimited('x.y', 7)", "", "no passages: x.y: too many calls: free again in 7 s", wit.Retry_After(7)),
        ("RateLimited('x.y', 7)", ", retry=False", "no passages: x.y: too many calls: free again in 7 s", wit.Retry_No()),
        ("KeyError('tea')", "", "no passages: KeyError: 'tea'", wit.Retry_No()),
    ]:
        text = f"    try:\n        raise {cause}\n    except Exception as error:\n"
        text += f"        raise Failure('no passages'{more}) from error\n"
        ended = failure(define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n{text}"), chosen())
        assert (ended.reason, ended.retry) == (reason, retry)


def test_a_call_that_fails_says_where_it_was_made(define: Define) -> None:
    handle = define(f"{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    raise Unavailable('x.y', '502')\n")
    reason = failure(handle, chosen()).reason
    assert reason.startswith("x.y: unavailable: 502 (defined_")
    assert reason.endswith("line 6, in answer)")


def test_any_other_exception_is_a_reason_with_its_traceback(define: Define) -> None:
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
    ended = failure(define(IMPORTS + textwrap.dedent(text)), chosen())
    first, *traceback = ended.reason.split("\n")
    assert first.startswith("RuntimeError: no price (defined_")
    assert first.endswith("line 13, in answer)")
    told = "\n".join(traceback)
    assert "line 6, in price" in told
    assert "KeyError: 'tea'" in told
    assert "direct cause" in told
    # Neither this package's frames nor the folder say anything to the author.
    assert "_module.py" not in told
    assert '"/' not in told
    assert ended.retry == wit.Retry_No()
    assert ended.user_text is None


@pytest.mark.parametrize("ends", ["sys.exit(3)", "raise KeyboardInterrupt", "raise MemoryError"])
def test_nothing_gets_past(define: Define, ends: str) -> None:
    handle = define(f"import sys\n{IMPORTS}@modhost.module\ndef answer(event: Event) -> None:\n    {ends}\n")
    assert "line 7, in answer" in failure(handle, chosen()).reason


def test_what_no_module_can_be_is_told_when_it_is_defined(define: Define) -> None:
    for text, told in [
        ("async def answer(event: Event): ...", "`async`"),
        ("def answer(): ...", "one argument"),
        ("def answer(event, other): ...", "one argument"),
        ("def answer(event: int): ...", "no event is"),
        ("def answer(event: ModuleChosen | int): ...", "no event is"),
        ("def answer(event: __import__('typing').Union[ModuleChosen, int]): ...", "no event is"),
    ]:
        with pytest.raises(TypeError, match=told):
            define(f"{IMPORTS}@modhost.module\n{text}\n")
    with pytest.raises(TypeError, match="a module has one"):
        define(f"{IMPORTS}@modhost.module\ndef a(event): ...\n@modhost.module\ndef b(event): ...\n")


def test_the_function_stays_a_function() -> None:
    @modhost.module
    def answer(event: Event) -> None:
        assert event.created_at == datetime(2026, 1, 31, tzinfo=UTC)

    answer(Event("evt_1", "test", "x", datetime(2026, 1, 31, tzinfo=UTC), 1, None, None))
    del answer.__globals__["ModhostBindings"]


def test_types_are_public() -> None:
    assert {ModuleChosen, UserMessageCreated} <= {getattr(modhost, name) for name in modhost.__all__}
