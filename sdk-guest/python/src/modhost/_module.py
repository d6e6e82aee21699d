"""Connects the author's function to the component's export."""

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

# The name of the export in the module. componentize-py derives it from the name of the bindings.
EXPORT = "ModhostBindings"

# The event types that the host parses itself, with the names of their events.
_SUBJECTS: dict[type, str] = {
    ModuleChosen: "unique.chat.external-module.chosen",
    UserMessageCreated: "unique.chat.user-message.created",
}

_PACKAGE = str(Path(__file__).parent)


def module(answer: Answer) -> Answer:
    """Exports a function as the module's event handler. A module has exactly one.

        @modhost.module
        def answer(event: ModuleChosen) -> None: ...

    The type of its argument selects the events it handles: ``ModuleChosen``, ``UserMessageCreated``, a type from
    ``modhost.nexus`` or ``modhost.archivus``, your own ``FromEvent``, several of these combined with ``|``, or ``Event`` for
    all events. Any other event fails the delivery with a reason that says so.

    An exception fails the delivery. A ``Failure`` sets the texts and the retry. A ``modhost.Error`` is retried if a retry
    may succeed. Any other exception isn't retried, and its traceback is the reason.
    """
    kinds = _accepted_types(answer)

    class Export:
        """The exported object."""

        def handle(self, event: wit.Event) -> None:
            try:
                current = _sources.load_appended(_root(answer), EXPORT)
            except BaseException as error:
                raise Err(_failure(error, _root(answer))) from None
            if current is not None:
                current().handle(event)
                return
            try:
                answer(_argument(event, kinds))
                _steps.close_abandoned()
            except BaseException as error:  # An exception that escapes would be a trap without a reason.
                raise Err(_failure(error, _root(answer))) from None

    namespace = answer.__globals__
    if EXPORT in namespace:
        raise TypeError(f"{namespace['__name__']} has two functions with @modhost.module; a module has one")
    namespace[EXPORT] = Export
    if sys.platform == "wasi":
        _log.install()
        if not _sources.is_loading():
            _cache_source_lines(_root(answer))
    return answer


def _root(answer: Callable[[Any], None]) -> str:
    """Returns the folder of the module's own files, as it is named in the component."""
    return str(Path(answer.__code__.co_filename).parent)


def _cache_source_lines(root: str) -> None:
    """Caches the module's source lines for tracebacks, because a component has no files to read them from."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file is not None and file.startswith(root) and not file.startswith(_PACKAGE):
            text = Path(file).read_text(encoding="utf-8")
            # Without a modification time, linecache doesn't check whether the file exists.
            linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)


def _accepted_types(answer: Callable[[Any], None]) -> tuple[type, ...]:
    """Returns the event types that a function handles. Empty for all events: ``Event``, or no type."""
    name = answer.__qualname__
    if inspect.iscoroutinefunction(answer):
        raise TypeError(f"{name} is `async`, which a module can't be: calls block until they return. Remove `async`.")
    parameters = list(inspect.signature(answer).parameters.values())
    if not parameters or any(rest.default is rest.empty and rest.kind < rest.VAR_POSITIONAL for rest in parameters[1:]):
        raise TypeError(f"{name} must take one argument, the event: def {name}(event: ModuleChosen) -> None")
    hint = typing.get_type_hints(answer).get(parameters[0].name, Event)
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if is_union else (hint,)
    if kinds == (Event,):
        return ()
    if not all(kind in _SUBJECTS or _is_from_event(kind) for kind in kinds):
        raise TypeError(
            f"{name} takes {hint}, which is not an event type; use ModuleChosen, UserMessageCreated, a type from modhost.nexus or "
            "modhost.archivus, your own FromEvent, several of these combined with `|`, or Event"
        )
    return kinds


def _is_from_event(kind: type) -> bool:
    """Returns whether a type is a ``FromEvent``."""
    return isinstance(getattr(kind, "event_name", None), str) and callable(getattr(kind, "from_event", None))


def _name(kind: type) -> str:
    """Returns the name of the events of a type."""
    return _SUBJECTS.get(kind) or str(getattr(kind, "event_name"))


def _argument(wit_event: wit.Event, kinds: tuple[type, ...]) -> object:
    # The payload is parsed only if it is needed: one that is nested too deeply must not make the subject unusable.
    subject = _events.subject(wit_event.subject)
    if type(subject) in kinds:
        return subject
    event = _events.from_host(wit_event, subject)
    if not kinds:
        return event
    if any(kind in _SUBJECTS and _name(kind) == event.name for kind in kinds):
        raise Failure(
            f"the host couldn't parse the payload of event `{event.name}` ({event.id}); its log names the field. "
            "A module that takes `Event` can read the payload itself."
        )
    for kind in kinds:
        if kind not in _SUBJECTS and _name(kind) == event.name:
            return typing.cast(type[FromEvent], kind).from_event(event)
    names = " and ".join(f"`{_name(kind)}`" for kind in kinds)
    raise Failure(
        f"this module doesn't handle event `{event.name}` ({event.id}); it handles {names}. "
        "List only those events under `events` of the module in modules.toml."
    )


def _failure(error: BaseException, root: str) -> wit.Failure:
    """Converts an exception to the failure of the delivery."""
    if isinstance(error, Failure):
        return _from_failure(error)
    if isinstance(error, Error):
        return wit.Failure(f"{error}{_location(error)}", None, _retry(error.retry))
    return wit.Failure(_format(error, root), None, wit.Retry_No())


def _from_failure(failure: Failure) -> wit.Failure:
    """Converts a ``Failure``, and adds the exception it was raised from to the reason."""
    cause = failure.__cause__
    reason = failure.reason if cause is None else f"{failure.reason}: {_summary(cause)}"
    retry = failure.retry
    if retry is None:
        retry = cause.retry if isinstance(cause, Error) else False
    return wit.Failure(reason, failure.user_text, _retry(retry))


def _summary(error: BaseException) -> str:
    """Returns an exception as one line."""
    return str(error) if isinstance(error, Error) else "".join(traceback.format_exception_only(error)).strip().split("\n")[-1]


def _format(error: BaseException, root: str) -> str:
    """Formats an exception: one line with its summary and location, then the traceback without the frames of this package."""
    whole = traceback.TracebackException(type(error), error, _without_own_frames(error.__traceback__))
    pending: list[traceback.TracebackException | None] = [whole]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.stack[:] = [frame for frame in one.stack if not _is_import_frame(frame.filename)]
            pending += [one.__cause__, one.__context__, *(one.exceptions or [])]
    text = "".join(whole.format()).strip().replace(f'File "{root}/', 'File "')
    return f"{_summary(error)}{_location(error)}\n{text}"


def _location(error: BaseException) -> str:
    """Returns the innermost line of the module's own code in the traceback."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not (frame.filename.startswith(_PACKAGE) or _is_import_frame(frame.filename))
    ]
    if not frames:
        return ""
    frame = frames[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno}, in {frame.name})"


def _is_import_frame(file: str) -> bool:
    """Returns whether a frame's file belongs to the import system."""
    return file.startswith("<frozen importlib") or file.endswith("/importlib/__init__.py")


def _without_own_frames(frames: types.TracebackType | None) -> types.TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next
    return frames


def _retry(retry: Retry) -> wit.Retry:
    if retry is True:
        return wit.Retry_Yes()
    if retry is False:
        return wit.Retry_No()
    seconds = retry.total_seconds() if isinstance(retry, timedelta) else retry
    # Rounded up, so that no retry is early.
    return wit.Retry_After(min(max(ceil(seconds), 0), 2**32 - 1))
