"""Shared fixtures: events as the host delivers them, and modules defined in a test."""

import itertools
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from modhost import _steps
from modhost._bindings.imports import events as wit
from modhost._module import EXPORT

Define = Callable[[str], Callable[[wit.Event], None]]


def chosen(text: str = "Hello") -> wit.Event:
    message = wit.UserMessage(id="msg_1", text=text, original_text=None, language="en", created_at="2026-01-31T08:00:00Z")
    subject = wit.Subject_ModuleChosen(
        wit.ModuleChosen(
            name="Test",
            description="",
            configuration='{"tone": "kind"}',
            chat_id="chat_1",
            assistant_id="assistant_1",
            user_message=message,
            assistant_message_id="msg_2",
        )
    )
    return event("unique.chat.external-module.chosen", subject)


def created(text: str = "Hello") -> wit.Event:
    subject = wit.Subject_UserMessageCreated(wit.UserMessageCreated(chat_id="chat_1", assistant_id="assistant_1", text=text))
    return event("unique.chat.user-message.created", subject)


def event(name: str, subject: wit.Subject, payload: Any = None) -> wit.Event:
    return wit.Event(
        id="evt_1",
        source="unique",
        name=name,
        created_at=1_700_000_000,
        attempt=1,
        subject=subject,
        payload=json.dumps(payload),
    )


_numbers = itertools.count()


@pytest.fixture
def define(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Define:
    """Defines a module from source code, and returns its exported handler."""

    def define(text: str) -> Callable[[wit.Event], None]:
        module = types.ModuleType(f"defined_{next(_numbers)}")
        file = tmp_path / f"{module.__name__}.py"
        file.write_text(text)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, str(file), "exec"), module.__dict__)
        handle: Callable[[wit.Event], None] = getattr(module, EXPORT)().handle
        return handle

    return define


@pytest.fixture(autouse=True)
def no_abandoned_steps() -> None:
    _steps._abandoned.clear()
