"""How the log of a server's process comes to the driver, and when a worker's process writes one."""

from __future__ import annotations

import logging
import subprocess
import sys

from distkeras.wire.log import parse_line

LOGS = """
import logging
from distkeras.wire import log
log.log_to_driver()
log.follow_driver(logging.DEBUG)
logging.getLogger("distkeras.wire.server").debug("two\\nlines of %d", 1)
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("a.rule").warning("failed", exc_info=True)
logging.getLogger("a.rule").info("nobody asked for this")
log.follow_driver(logging.ERROR)
logging.getLogger("distkeras.wire.server").warning("nor for this")
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.removesuffix("\n").split("\n") if done.stderr else []


def test_every_line_of_a_servers_log_is_marked_with_its_level_and_logger():
    lines = [parse_line(line) for line in run(LOGS)]
    assert lines[:3] == [
        (logging.DEBUG, "distkeras.wire.server", "two"),
        (logging.DEBUG, "distkeras.wire.server", "lines of 1"),
        (logging.WARNING, "a.rule", "failed"),
    ]
    assert lines[-1] == (logging.WARNING, "a.rule", "ZeroDivisionError: division by zero")
    for other in ("what a rule prints", "\x1e", "\x1ex\x1fname\x1ftext", "\x1e20\x1fno end", ""):
        assert parse_line(other) is None


WORKER = """
import logging
from distkeras.wire import log
{before}
for level in (logging.WARNING, logging.INFO, logging.WARNING):
    log.follow_driver_in_worker(level)
    logging.getLogger("distkeras.worker.task").info("at %d", level)
print(len(logging.getLogger("distkeras").handlers), logging.getLogger("distkeras").level)
"""


def test_a_worker_logs_to_its_own_standard_error_from_the_level_of_the_driver_on():
    assert [line[24:] for line in run(WORKER.format(before=""))] == ["INFO distkeras.worker.task: at 20"]


def test_a_worker_whose_python_was_told_how_to_log_is_left_alone():
    assert run(WORKER.format(before="logging.basicConfig(level=logging.ERROR)")) == []
