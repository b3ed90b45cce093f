"""Logs of a job's processes: the driver logs the server's lines; workers log to their executor's output."""

from __future__ import annotations

import logging
import sys

LIBRARY = "distkeras"
_START, _BETWEEN = "\x1e", "\x1f"


class _Lines(logging.Formatter):
    """Prefixes every line with the level and the logger, for the process that reads it."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        start = f"{_START}{record.levelno}{_BETWEEN}{record.name}{_BETWEEN}"
        return "\n".join(start + line for line in text.split("\n"))


def level_of_driver() -> int:
    """Return the level from which this process logs the library's messages."""
    return logging.getLogger(LIBRARY).getEffectiveLevel()


def log_to_driver() -> None:
    """Make this server process write its log to standard error, as lines for `parse_line`.

    Modules of the user log there too, from WARNING on.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def follow_driver(level: int) -> None:
    """Set the log level of this server's process."""
    logging.getLogger(LIBRARY).setLevel(level)


def follow_driver_in_worker(level: int) -> None:
    """Log in this worker's process from `level` on, to its standard error, which is the executor's.

    A logging configuration of the executors' Python, for example in `sitecustomize`, takes precedence.
    """
    logger = logging.getLogger(LIBRARY)
    ours = [handler for handler in logger.handlers if isinstance(handler, _Handler)]
    if not ours and (logger.hasHandlers() or level >= logging.WARNING):
        return  # Python writes warnings by itself.
    if not ours:
        handler = _Handler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Distinguishes this module's handler from the user's."""


def parse_line(line: str) -> tuple[int, str, str] | None:
    """Return level, logger and text of a line of a server's log; `None` if the line has another origin."""
    if not line.startswith(_START):
        return None
    level, _, rest = line[1:].partition(_BETWEEN)
    name, between, text = rest.partition(_BETWEEN)
    return (int(level), name, text) if between and level.isdigit() else None
