"""What a module logs: the standard ``logging``, and whatever it prints."""

import io
import logging
import sys

from modhost._bindings.imports import logging as wit

_LEVELS = (
    (logging.CRITICAL, wit.Level.CRITICAL),
    (logging.ERROR, wit.Level.ERROR),
    (logging.WARNING, wit.Level.WARN),
    (logging.INFO, wit.Level.INFO),
    (logging.DEBUG, wit.Level.DEBUG),
)


class HostHandler(logging.Handler):
    """Hands log records to the host, which adds which module and which delivery it was."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            wit.log(level_of(record.levelno), record.name, self.format(record))
        except Exception:  # As handlers do: a mistake in logging is told, and ends nothing.
            self.handleError(record)


def level_of(number: int) -> wit.Level:
    """The host's level for one of ``logging``."""
    return next((level for least, level in _LEVELS if number >= least), wit.Level.TRACE)


def install() -> None:
    """Sends ``logging`` and ``print`` to the host. What the module has set up by itself stays."""
    if not logging.root.handlers:
        logging.root.addHandler(HostHandler())
        logging.root.setLevel(logging.DEBUG)
    # The instance is thrown away with whatever is still in a buffer.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
