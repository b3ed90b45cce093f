"""How a job's processes log: the server by lines that the driver logs, workers where their executor does."""

from __future__ import annotations

import logging
import sys

LIBRARY = "distkeras"
_START, _BETWEEN = "\x1e", "\x1f"


class _Lines(logging.Formatter):
    """Marks every line with the level and the logger, for the process that reads it."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        start = f"{_START}{record.levelno}{_BETWEEN}{record.name}{_BETWEEN}"
        return "\n".join(start + line for line in text.split("\n"))


def level_of_driver() -> int:
    """Return from which level on this process's log takes what the library says."""
    return logging.getLogger(LIBRARY).getEffectiveLevel()


def log_to_driver() -> None:
    """Let this server's process write its log to standard error, as lines that `parse_line` reads.

    What modules of the user's log goes there, too, from WARNING on.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def follow_driver(level: int) -> None:
    """Log in this server's process from `level` on."""
    logging.getLogger(LIBRARY).setLevel(level)


def follow_driver_in_worker(level: int) -> None:
    """Log in this worker's process from `level` on, to its standard error, which is the executor's.

    Where the executors' Python has been told how to log, by a `sitecustomize` or the like, that holds.
    """
    logger = logging.getLogger(LIBRARY)
    ours = [handler for handler in logger.handlers if isinstance(handler, _Handler)]
    if not ours and (logger.hasHandlers() or level >= logging.WARNING):
        return  # Python itself writes warnings.
    if not ours:
        handler = _Handler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Tells what this module has set up from what the user has."""


def parse_line(line: str) -> tuple[int, str, str] | None:
    """Return level, logger and text of a line of a server's log; `None`: something else has written it."""
    if not line.startswith(_START):
        return None
    level, _, rest = line[1:].partition(_BETWEEN)
    name, between, text = rest.partition(_BETWEEN)
    return (int(level), name, text) if between and level.isdigit() else None
