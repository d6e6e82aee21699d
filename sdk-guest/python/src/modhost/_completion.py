"""Answers of a language model. They are slow and they cost money: a call may take minutes."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeAlias

from modhost._bindings.imports import completion as wit
from modhost._bindings.imports import types
from modhost._calls import call
from modhost._search import Hit
from modhost._search import to_host as hit_to_host
from modhost.messages import Message, Role

Turn: TypeAlias = tuple[Role, str]
"""Something said in a conversation, and by whom: ``("user", "Hello")``."""

Prompt: TypeAlias = str | Iterable[Turn | Message]
"""What the model is asked: a question, or a conversation, oldest first. Messages of the chat without text are left out."""

_ROLES: dict[Role, types.Role] = {
    "system": types.Role.SYSTEM,
    "user": types.Role.USER,
    "assistant": types.Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost, in the model's tokens."""

    prompt_tokens: int
    """Read."""
    completion_tokens: int
    """Written."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model answered."""

    text: str
    """The answer."""
    finish_reason: str | None
    """Why it stopped, in the model's words: ``stop``, ``length``, …"""
    usage: Usage | None
    """What it cost, where the platform tells."""


def complete(
    prompt: Prompt,
    *,
    system: str | None = None,
    model: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
    timeout: float | timedelta | None = None,
) -> Answer:
    """Asks a language model, and waits for the whole answer.

        answer = complete("Say it shorter.", system="You are an editor.", temperature=0.3)
        answer = complete(messages.history(10), system="Go on with this conversation.")

    :param prompt: the question, or the conversation.
    :param system: instructions before it.
    :param model: the model, by the platform's name; else the default of the tenant's platform.
    :param temperature: how freely it words its answer: 0 not at all, 2 at most.
    :param max_tokens: how long the answer may be, in the model's tokens.
    :param options: further options the platform hands to the model as they are (``top_p``, ``tools``, …).
    :param timeout: how long to wait, in seconds or as a ``timedelta``; else as long as the delivery may take.
    """
    request = _request(prompt, system, model, temperature, max_tokens, options, timeout)
    return _answer(call("completion.complete", wit.complete, request))


def complete_into_reply(
    prompt: Prompt,
    *,
    sources: Sequence[Hit] = (),
    system: str | None = None,
    model: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
    timeout: float | timedelta | None = None,
) -> Answer:
    """Asks a language model, and writes the answer into the event's reply while it is being made; completes the reply.

    ``[source0]`` in the model's text becomes a footnote that refers to the first of ``sources``, and so on. The other
    arguments are those of ``complete``.
    """
    request = _request(prompt, system, model, temperature, max_tokens, options, timeout)
    hits = [hit_to_host(hit) for hit in sources]
    return _answer(call("completion.complete-into-reply", wit.complete_into_reply, request, hits))


def stream(
    prompt: Prompt,
    *,
    system: str | None = None,
    model: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    options: Mapping[str, Any] | None = None,
    timeout: float | timedelta | None = None,
) -> "Tokens":
    """Asks a language model, and hands over the answer piece by piece. The arguments are those of ``complete``.

        for piece in stream("Tell me a story."):
            text += piece
            messages.show(text)

    Leaving the loop early gives the rest up as soon as nothing refers to the answer any more; ``close``, or ``with``,
    does so at once.
    """
    request = _request(prompt, system, model, temperature, max_tokens, options, timeout)
    return Tokens(call("completion.stream", wit.stream, request))


class Tokens(Iterator[str]):
    """An answer on its way: an iterator over its pieces, as large as the platform makes them."""

    def __init__(self, tokens: wit.Tokens) -> None:
        self._tokens: wit.Tokens | None = tokens

    def __next__(self) -> str:
        if self._tokens is None:
            raise StopIteration
        try:
            piece = call("completion.tokens.next", self._tokens.next)
        except BaseException:
            self.close()
            raise
        if piece is None:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        """Gives the rest up. Does nothing at its end."""
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            tokens.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _request(
    prompt: Prompt,
    system: str | None,
    model: str | None,
    temperature: float | None,
    max_tokens: int | None,
    options: Mapping[str, Any] | None,
    timeout: float | timedelta | None,
) -> wit.Request:
    if isinstance(timeout, timedelta):
        timeout = timeout.total_seconds()
    return wit.Request(
        model=model,
        messages=[wit.Message(_ROLES[role], content) for role, content in _conversation(prompt, system)],
        temperature=temperature,
        max_tokens=max_tokens,
        options=None if options is None else json.dumps(options),
        timeout_ms=None if timeout is None else min(max(round(timeout * 1000), 0), 2**32 - 1),
    )


def _conversation(prompt: Prompt, system: str | None) -> Iterator[Turn]:
    if system is not None:
        yield "system", system
    if isinstance(prompt, str):
        yield "user", prompt
        return
    for turn in prompt:
        if isinstance(turn, Message):
            if turn.text:
                yield turn.role, turn.text
        else:
            role, content = turn
            if role not in _ROLES:
                raise ValueError(f"nobody in a conversation has the role {role!r}: take one of {', '.join(_ROLES)}")
            yield role, content


def _answer(answer: wit.Answer) -> Answer:
    usage = answer.usage
    return Answer(
        text=answer.text,
        finish_reason=answer.finish_reason,
        usage=None if usage is None else Usage(usage.prompt_tokens, usage.completion_tokens),
    )
