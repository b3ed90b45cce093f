"""Make the center that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable

from distkeras.algorithms import Vector
from distkeras.center.center import Center
from distkeras.center.config import CenterConfig
from distkeras.center.fragmented import Fragmented
from distkeras.center.independent import Independent
from distkeras.center.regional import Regional
from distkeras.center.request_log import RequestLog

AnyCenter = Center | Fragmented | Independent | Regional
"""A center of any kind: as one, in fragments, one for each worker, or in regions under a global one."""


def make_center(
    config: CenterConfig,
    initial: Vector,
    *,
    clock: Callable[[], float],
    num_shards: int | None = None,
    request_log: RequestLog | None = None,
) -> AnyCenter:
    """Return a new center for `config`.

    Args:
        config: settings that decide the result, and the kind of center.
        initial: the first center, shape (size,); for one center per worker, shape (workers, size). Copied.
        clock: seconds since the epoch, for the events' timestamps.
        num_shards: number of shards of each center; chosen by size by default.
        request_log: receives the order of the requests, for other servers, if it is one center.
    """
    if config.independent:
        return Independent(config, initial, clock=clock)
    if config.regions is not None:
        return Regional(config, initial, clock=clock, num_shards=num_shards)
    if config.fragments is not None:
        return Fragmented(config, initial, clock=clock, num_shards=num_shards)
    return Center(config, initial, clock=clock, num_shards=num_shards, request_log=request_log)
