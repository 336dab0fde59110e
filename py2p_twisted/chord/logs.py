"""From Twisted's log to Python's, where a script looks for it (floor 4).

The package's own events go to the loggers that are called as its modules are; crochet hands
Twisted's other events to the logger ``twisted``.
"""

from __future__ import annotations

import logging
import sys

from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

__all__ = ["bridge", "show", "unbridge"]

_PACKAGE = __name__.partition(".")[0]
_LEVELS = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}


def bridge() -> None:
    """Hand the package's events to Python's logging from now on."""
    globalLogPublisher.addObserver(_observe)  # type: ignore[arg-type]
    logging.getLogger("twisted").addFilter(_is_foreign)


def unbridge() -> None:
    """Undo :func:`bridge`."""
    globalLogPublisher.removeObserver(_observe)  # type: ignore[arg-type]
    logging.getLogger("twisted").removeFilter(_is_foreign)


def show(debug_level: int) -> None:
    """Let the package's log through, to stderr if the program did not set logging up.

    :param debug_level: 0 warnings, 1 the story of the ring too, 2 everything.
    """
    logger = logging.getLogger(_PACKAGE)
    wanted = {0: logging.WARNING, 1: logging.INFO}.get(debug_level, logging.DEBUG)
    if logger.level == logging.NOTSET or (debug_level and wanted < logger.level):
        logger.setLevel(wanted)
    if debug_level and not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(lambda _: not logging.getLogger().handlers)  # set up after all
        logger.addHandler(handler)


def _is_ours(event: LogEvent) -> bool:
    return str(event.get("log_namespace", "")).partition(".")[0] == _PACKAGE


def _observe(event: LogEvent) -> None:
    level = _LEVELS.get(event.get("log_level", LogLevel.info), logging.INFO)
    if not _is_ours(event):
        return
    logger = logging.getLogger(event["log_namespace"])
    if logger.isEnabledFor(level):
        failure = event.get("log_failure")
        cause = (failure.type, failure.value, failure.getTracebackObject()) if failure else None
        logger.log(level, "%s", formatEvent(event), exc_info=cause)


def _is_foreign(record: logging.LogRecord) -> bool:
    """A filter for crochet's bridge, which hands everything to the logger ``twisted``."""
    return not _is_ours(getattr(record.msg, "event", {}))
