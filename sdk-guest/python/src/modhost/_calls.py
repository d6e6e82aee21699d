"""Calls host functions and converts their errors to exceptions."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from componentize_py_types import Err

from modhost._bindings.imports import types as wit
from modhost._errors import (
    Denied,
    Error,
    Invalid,
    NoHost,
    NotFound,
    RateLimited,
    Timeout,
    Unavailable,
    Unsupported,
)


Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def call(
    name: str, function: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Answer:
    """Calls a function of the contract. ``name`` is the name of the call in errors."""
    try:
        return function(*args, **kwargs)
    except Err as error:
        raise error_of(name, error.value) from None
    except NotImplementedError:
        raise no_host(name) from None


def no_host(name: str) -> NoHost:
    """Returns the exception that a call raises outside of a component."""
    return NoHost(f"{name}: no host. Host functions work only in a component that a host runs.")


def error_of(name: str, error: wit.Error) -> Error:
    """Returns the exception for an error of the contract."""
    match error:
        case wit.Error_Invalid(text):
            return Invalid(name, text)
        case wit.Error_Denied(text):
            return Denied(name, text)
        case wit.Error_NotFound(text):
            return NotFound(name, text)
        case wit.Error_RateLimited(seconds):
            return RateLimited(name, seconds)
        case wit.Error_Unavailable(text):
            return Unavailable(name, text)
        case wit.Error_Timeout():
            return Timeout(name)
        case wit.Error_Unsupported(text):
            return Unsupported(name, text)
