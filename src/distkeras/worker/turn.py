"""Wait until no other process trains as the same worker."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from distkeras.center.answers import NotYet
from distkeras.center.requests import MayJoin

if TYPE_CHECKING:
    from collections.abc import Callable

    from distkeras.center.answers import Place
    from distkeras.wire.client import Client
    from distkeras.wire.group import Group

ASK_SECONDS = 0.5
RESULT_SECONDS = 60.0
"""Time for the result of a worker that has left to reach Spark, which then ends the copies of its task."""

logger = logging.getLogger(__name__)


def wait_for_turn(
    client: Client | Group, worker: int, ticket: int, sleep: Callable[[float], None] = time.sleep
) -> Place:
    """Wait until this process may train as `worker`, and return from where.

    Raises:
        JobStopped, ServerLost, AuthenticationError: as for `Client.call`.
    """
    waits_for = None
    while isinstance(reply := client.call(MayJoin(worker, ticket)), NotYet):
        if reply.reason != waits_for:
            logger.info("A process waits to train as worker %d: %s.", worker, reply.reason)
        waits_for = reply.reason
        sleep(ASK_SECONDS)
    place: Place = reply
    return place


def is_over(place: Place, until: int | None) -> bool:
    """Return whether a process that ends before epoch `until` has nothing left to do at `place`.

    Args:
        place: where the worker is.
        until: the epoch; `None` for the end of the training, which the worker knows by having left.
    """
    if until is None:
        return False
    reached = place.epoch >= until
    return reached and (place.left or (place.epoch, place.step) > (until, 0))


def let_result_arrive(sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until Spark ends this task: the process that has trained returns more than this one could."""
    sleep(RESULT_SECONDS)
