"""The seam between an author's function and the component's export."""

import inspect
import linecache
import sys
import traceback
import types
import typing
from collections.abc import Callable
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from componentize_py_types import Err

from modhost import _events, _log, _sources, _steps
from modhost._bindings.imports import events as wit
from modhost._errors import Error, Failure, Retry
from modhost._events import Event, FromEvent, ModuleChosen, UserMessageCreated

Answer = TypeVar("Answer", bound=Callable[[Any], None])

# The name by which componentize-py looks for the export in the module: made of that of the bindings.
EXPORT = "ModhostBindings"

# What the host itself understands of events, with the names of those.
_SUBJECTS: dict[type, str] = {
    ModuleChosen: "unique.chat.external-module.chosen",
    UserMessageCreated: "unique.chat.user-message.created",
}

_HERE = str(Path(__file__).parent)


def module(answer: Answer) -> Answer:
    """Names the function that answers events; there is one in a module.

        @modhost.module
        def answer(event: ModuleChosen) -> None: ...

    The type of its argument says which events it takes: ``ModuleChosen``, ``UserMessageCreated``, one of
    ``modhost.nexus`` or ``modhost.archivus``, a ``FromEvent`` of your own, several of them with ``|``, or ``Event``, which
    is every event, whole. Another event ends the delivery with a reason that says so.

    What the function raises ends the delivery: a ``Failure`` as it says, a ``modhost.Error`` with another try where that
    may help, and anything else with its traceback as the reason.
    """
    takes = _takes(answer)

    class Export:
        """What the host calls."""

        def handle(self, event: wit.Event) -> None:
            try:
                renewed = _sources.renewed(_root(answer), EXPORT)
            except BaseException as error:
                raise Err(_failure(error, _root(answer))) from None
            if renewed is not None:
                renewed().handle(event)
                return
            try:
                answer(_argument(event, takes))
                _steps.close_left()
            except BaseException as error:  # Nothing may get past: it would be a trap without a word.
                raise Err(_failure(error, _root(answer))) from None

    namespace = answer.__globals__
    if EXPORT in namespace:
        raise TypeError(f"{namespace['__name__']} has two functions with @modhost.module; a module has one")
    namespace[EXPORT] = Export
    if sys.platform == "wasi":
        _log.install()
        if not _sources.is_renewing():
            _remember_sources(_root(answer))
    return answer


def _root(answer: Callable[[Any], None]) -> str:
    """The folder of the module's own files, as they are called in the component."""
    return str(Path(answer.__code__.co_filename).parent)


def _remember_sources(root: str) -> None:
    """Has tracebacks show the module's lines: a component has no files to read them from."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file is not None and file.startswith(root) and not file.startswith(_HERE):
            text = Path(file).read_text(encoding="utf-8")
            # Without a time, nobody looks whether the file is still there.
            linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)


def _takes(answer: Callable[[Any], None]) -> tuple[type, ...]:
    """The types a function takes; for ``Event`` and without a type, none: all events."""
    name = answer.__qualname__
    if inspect.iscoroutinefunction(answer):
        raise TypeError(f"{name} is `async`, and a module can't be: calls wait by themselves. Leave `async` out.")
    parameters = list(inspect.signature(answer).parameters.values())
    if not parameters or any(rest.default is rest.empty and rest.kind < rest.VAR_POSITIONAL for rest in parameters[1:]):
        raise TypeError(f"{name} has to take one argument, the event: def {name}(event: ModuleChosen) -> None")
    takes = typing.get_type_hints(answer).get(parameters[0].name, Event)
    either = typing.get_origin(takes) in (types.UnionType, typing.Union)
    kinds = typing.get_args(takes) if either else (takes,)
    if kinds == (Event,):
        return ()
    if not all(kind in _SUBJECTS or _is_read(kind) for kind in kinds):
        raise TypeError(
            f"{name} takes {takes}, which no event is: take ModuleChosen, UserMessageCreated, a type of modhost.nexus or "
            "modhost.archivus, a FromEvent of your own, several of them with `|`, or Event"
        )
    return kinds


def _is_read(kind: type) -> bool:
    """Whether it is a ``FromEvent``."""
    return isinstance(getattr(kind, "event_name", None), str) and callable(getattr(kind, "from_event", None))


def _name(kind: type) -> str:
    """The name of the events that are of this type."""
    return _SUBJECTS.get(kind) or str(getattr(kind, "event_name"))


def _argument(given: wit.Event, takes: tuple[type, ...]) -> object:
    # The payload is read where it is wanted: one that is too deep for the parser keeps nobody from the subject.
    subject = _events.subject(given.subject)
    if type(subject) in takes:
        return subject
    event = _events.from_host(given, subject)
    if not takes:
        return event
    if any(kind in _SUBJECTS and _name(kind) == event.name for kind in takes):
        raise Failure(
            f"the event `{event.name}` ({event.id}) is of a kind this module takes, but its payload has an unknown shape: "
            "the host's log says which field. A module that takes `Event` can read it from the payload."
        )
    for kind in takes:
        if kind not in _SUBJECTS and _name(kind) == event.name:
            return typing.cast(type[FromEvent], kind).from_event(event)
    names = " and ".join(f"`{_name(kind)}`" for kind in takes)
    raise Failure(
        f"the event `{event.name}` ({event.id}) is of a kind this module doesn't take: it takes {names}. "
        "Name only that under `events` of the module in modules.toml."
    )


def _failure(error: BaseException, root: str) -> wit.Failure:
    """How what was raised ends the delivery."""
    if isinstance(error, Failure):
        return _own(error)
    if isinstance(error, Error):
        return wit.Failure(f"{error}{_place(error)}", None, _retry(error.retry))
    return wit.Failure(_told(error, root), None, wit.Retry_No())


def _own(failure: Failure) -> wit.Failure:
    """A failure in the module's words, with what it was raised from."""
    cause = failure.__cause__
    reason = failure.reason if cause is None else f"{failure.reason}: {_head(cause)}"
    retry = failure.retry
    if retry is None:
        retry = cause.retry if isinstance(cause, Error) else False
    return wit.Failure(reason, failure.user_text, _retry(retry))


def _head(error: BaseException) -> str:
    """One line that says what it was; a failed call says so by itself."""
    return str(error) if isinstance(error, Error) else "".join(traceback.format_exception_only(error)).strip().split("\n")[-1]


def _told(error: BaseException, root: str) -> str:
    """The traceback without the frames of this package, after one line that says what it was and where."""
    whole = traceback.TracebackException(type(error), error, _without_ours(error.__traceback__))
    left: list[traceback.TracebackException | None] = [whole]
    known: set[int] = set()
    while left:
        one = left.pop()
        if one is not None and id(one) not in known:
            known.add(id(one))
            one.stack[:] = [frame for frame in one.stack if not _is_of_imports(frame.filename)]
            left += [one.__cause__, one.__context__, *(one.exceptions or [])]
    told = "".join(whole.format()).strip().replace(f'File "{root}/', 'File "')
    return f"{_head(error)}{_place(error)}\n{told}"


def _place(error: BaseException) -> str:
    """Where in the module it happened: the innermost line that is the author's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not (frame.filename.startswith(_HERE) or _is_of_imports(frame.filename))
    ]
    if not frames:
        return ""
    frame = frames[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})"


def _is_of_imports(file: str) -> bool:
    """Whether a frame's file is the import system, which says nothing about the module."""
    return file.startswith("<frozen importlib") or file.endswith("/importlib/__init__.py")


def _without_ours(frames: types.TracebackType | None) -> types.TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    return frames


def _retry(retry: Retry) -> wit.Retry:
    if retry is True:
        return wit.Retry_Yes()
    if retry is False:
        return wit.Retry_No()
    seconds = retry.total_seconds() if isinstance(retry, timedelta) else retry
    # Rounded up, so that it is never earlier than asked.
    return wit.Retry_After(min(max(ceil(seconds), 0), 2**32 - 1))
