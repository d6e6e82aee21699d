"""Language model completions. Calls are slow and cost money: one call may take minutes."""

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
"""The role and the text of one message in a conversation: ``("user", "Hello")``."""

Prompt: TypeAlias = str | Iterable[Turn | Message]
"""The input of the model: a question, or a conversation, oldest message first. Chat messages without text are skipped."""

_ROLES: dict[Role, types.Role] = {
    "system": types.Role.SYSTEM,
    "user": types.Role.USER,
    "assistant": types.Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of an answer, in the model's tokens."""

    prompt_tokens: int
    """Tokens read."""
    completion_tokens: int
    """Tokens written."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer."""

    text: str
    """The text."""
    finish_reason: str | None
    """Why the model stopped, in its own terms: ``stop``, ``length``, …"""
    usage: Usage | None
    """The cost, if the platform reports it."""


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
    """Calls a language model and waits for the whole answer.

        answer = complete("Say it shorter.", system="You are an editor.", temperature=0.3)
        answer = complete(messages.history(10), system="Continue this conversation.")

    :param prompt: the question, or the conversation.
    :param system: a system message: instructions to the model.
    :param model: the model, by its name on the platform. Default: the default model of the tenant's platform.
    :param temperature: the sampling temperature, from 0 to 2.
    :param max_tokens: the maximum length of the answer, in the model's tokens.
    :param options: more options, passed to the model unchanged (``top_p``, ``tools``, …).
    :param timeout: the timeout, in seconds or as a ``timedelta``. Default: the delivery's own time limit.
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
    """Calls a language model, streams the answer into the event's reply, then completes the reply.

    ``[source0]`` in the model's text becomes a footnote that refers to the first source, ``[source1]`` to the second, and
    so on. The other arguments are those of ``complete``.
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
    """Calls a language model and returns an iterator over the chunks of the answer. Takes the arguments of ``complete``.

        for piece in stream("Tell me a story."):
            text += piece
            messages.show(text)

    If the loop ends early, the rest of the answer is canceled when the iterator is garbage-collected. ``close``, or a
    ``with`` block, cancels it immediately.
    """
    request = _request(prompt, system, model, temperature, max_tokens, options, timeout)
    return Tokens(call("completion.stream", wit.stream, request))


class Tokens(Iterator[str]):
    """An iterator over the chunks of a streamed answer. The platform chooses the chunk size."""

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
        """Cancels the rest of the answer. Does nothing after the end."""
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
                raise ValueError(f"unknown role {role!r}; use one of {', '.join(_ROLES)}")
            yield role, content


def _answer(answer: wit.Answer) -> Answer:
    usage = answer.usage
    return Answer(
        text=answer.text,
        finish_reason=answer.finish_reason,
        usage=None if usage is None else Usage(usage.prompt_tokens, usage.completion_tokens),
    )
