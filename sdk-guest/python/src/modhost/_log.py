"""Sends the standard ``logging`` and printed lines to the host's log."""

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
    """Sends log records to the host, which adds the module and the delivery."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            wit.log(level_of(record.levelno), record.name, self.format(record))
        except Exception:  # An error in logging is reported, and doesn't end the delivery.
            self.handleError(record)


def level_of(number: int) -> wit.Level:
    """Returns the host's level for a level of ``logging``."""
    return next((level for least, level in _LEVELS if number >= least), wit.Level.TRACE)


def install() -> None:
    """Sends ``logging`` and ``print`` to the host. Keeps handlers that the module has installed."""
    if not logging.root.handlers:
        logging.root.addHandler(HostHandler())
        logging.root.setLevel(logging.DEBUG)
    # Buffered lines would be lost with the instance.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
