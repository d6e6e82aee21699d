"""Why a call to the host failed, and why an event was not answered."""

from datetime import timedelta
from typing import ClassVar, TypeAlias

Retry: TypeAlias = bool | float | timedelta
"""Whether another try may help: no, yes whenever the host finds it best, or not before so long (seconds or a timedelta)."""


class NoHost(RuntimeError):
    """A call was made where there is no host: outside a component, say in a test."""


class Error(Exception):
    """A call to the host failed. The subclasses say how; ``retry`` whether another try may help.

    What a module doesn't catch ends the delivery, and is tried again where that may help.
    """

    retry: Retry = False
    """Whether another try may help, and when."""

    words: ClassVar[str] = "failed"

    def __init__(self, call: str, text: str = "") -> None:
        super().__init__(call, text)
        self.call = call
        """The call that failed, by its name in the contract: ``messages.reply``."""
        self.text = text
        """What the platform or the host said, where it said something."""

    def __str__(self) -> str:
        return f"{self.call}: {self.words}: {self.text}" if self.text else f"{self.call}: {self.words}"


class Invalid(Error):
    """The platform can't make sense of the request, or the host refuses it: the same call fails again."""

    words = "refused as invalid"


class Denied(Error):
    """Not allowed for the user, or for this module."""

    words = "not allowed"


class NotFound(Error):
    """What the call names isn't there."""

    words = "not found"


class RateLimited(Error):
    """Too many calls."""

    words = "too many calls"

    def __init__(self, call: str, retry_after: int | None = None) -> None:
        super().__init__(call, "" if retry_after is None else f"free again in {retry_after} s")
        self.retry_after = retry_after
        """After how many seconds another try is worth it, where the platform says so."""
        self.retry = True if retry_after is None else float(retry_after)


class Unavailable(Error):
    """The platform is out of order or out of reach."""

    words = "unavailable"
    retry = True


class Timeout(Error):
    """No answer in time. What was asked for may have happened all the same."""

    words = "no answer in time; what was asked for may have happened all the same"
    retry = True


class Unsupported(Error):
    """The platform of this event has no such function, or the event lacks what it needs (a chat, a reply)."""

    words = "not supported here"


class Misconfigured(Error):
    """A setting isn't what the module expects."""

    words = "misconfigured"


class Failure(Exception):
    """Raise it to end the delivery in words of your own.

        raise Failure("the calendar has no such day", user_text="I know no such day. Did you mean another?")

    ``reason`` is for the operators, ``user_text`` for the user, in place of the host's apology. ``retry`` says whether
    another try may help: ``True``, or a time (seconds or a ``timedelta``) before which it is no use. The host decides how
    many tries there may be.

        except modhost.Unavailable as error:
            raise Failure("no passages", user_text="The library is closed, sorry.") from error

    What it is raised ``from`` is told after the reason; a failed call then also says whether another try may help, where
    ``retry`` doesn't.
    """

    def __init__(self, reason: str, *, user_text: str | None = None, retry: Retry | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.user_text = user_text
        self.retry = retry
