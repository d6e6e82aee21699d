"""Exceptions: errors of calls to the host, and failures of a delivery."""

from datetime import timedelta
from typing import ClassVar, TypeAlias

Retry: TypeAlias = bool | float | timedelta
"""Whether a retry may succeed: no, yes at a time the host picks, or after a delay (seconds or a timedelta)."""


class NoHost(RuntimeError):
    """A call was made outside of a component, for example in a test, where there is no host."""


class Error(Exception):
    """A call to the host failed. The subclass is the kind of error; ``retry`` says whether a retry may succeed.

    An uncaught error fails the delivery, and the host retries it if a retry may succeed.
    """

    retry: Retry = False
    """Whether a retry may succeed, and when."""

    words: ClassVar[str] = "failed"

    def __init__(self, call: str, text: str = "") -> None:
        super().__init__(call, text)
        self.call = call
        """The call that failed, by its name in the contract, such as ``messages.reply``."""
        self.text = text
        """The error text of the platform or the host, if any."""

    def __str__(self) -> str:
        return f"{self.call}: {self.words}: {self.text}" if self.text else f"{self.call}: {self.words}"


class Invalid(Error):
    """The platform or the host rejects the request: the same call would fail again."""

    words = "invalid"


class Denied(Error):
    """The user or this module isn't allowed to make the call."""

    words = "not allowed"


class NotFound(Error):
    """The object the call refers to doesn't exist."""

    words = "not found"


class RateLimited(Error):
    """Too many calls."""

    words = "rate limited"

    def __init__(self, call: str, retry_after: int | None = None) -> None:
        super().__init__(call, "" if retry_after is None else f"retry after {retry_after} s")
        self.retry_after = retry_after
        """The delay before a retry, in seconds, if the platform reports one."""
        self.retry = True if retry_after is None else float(retry_after)


class Unavailable(Error):
    """The platform is down or unreachable."""

    words = "unavailable"
    retry = True


class Timeout(Error):
    """No answer in time. The call may still have taken effect."""

    words = "timed out; the call may still have taken effect"
    retry = True


class Unsupported(Error):
    """The event's platform has no such function, or the event lacks something it needs (a chat, a reply)."""

    words = "not supported"


class Misconfigured(Error):
    """A setting doesn't have the type that the module expects."""

    words = "misconfigured"


class Failure(Exception):
    """Raise this exception to fail the delivery with your own texts.

        raise Failure("the calendar has no such day", user_text="I know no such day. Did you mean another?")

    ``reason`` is for operators, ``user_text`` is for the user, in place of the host's apology. ``retry`` says whether a
    retry may succeed: ``True``, or the minimum delay before the retry (seconds or a ``timedelta``). The host limits the
    number of attempts.

        except modhost.Unavailable as error:
            raise Failure("no passages", user_text="The library is closed, sorry.") from error

    The exception it is raised ``from`` is added to the reason. If that is a failed call and ``retry`` isn't set, the call
    decides whether the host retries.
    """

    def __init__(self, reason: str, *, user_text: str | None = None, retry: Retry | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_text = user_text
        self.retry = retry
