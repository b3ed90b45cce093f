"""What no request of a worker of this job can be."""

from __future__ import annotations

import math

from distkeras.center.requests import MAX_STATES, Exchange

MAX_TIMING = 2.0**62
"""Larger seconds or bytes are not measured."""


class ProtocolError(Exception):
    """A request that no worker of this job sends: unknown worker, wrong sequence number or wrong size."""


def check_exchange(request: Exchange, size: int, fragment: int) -> None:
    """Raise ProtocolError unless `request` fits a center of `size` elements, that of a `fragment`."""
    if request.message.shape != (size,):
        raise ProtocolError(f"Expected {size} elements. Received: {request.message.shape}")
    steps, samples = request.window
    if request.num_steps < 1 or request.num_samples < 0 or steps < 0 or samples < 0:
        raise ProtocolError(
            "Expected a window of at least one step. "
            f"Received: num_steps={request.num_steps}, num_samples={request.num_samples}, "
            f"window={steps, samples}"
        )
    if request.fragment != fragment:
        raise ProtocolError(f"Expected fragment {fragment}. Received: {request.fragment}")
    if len(request.states) % 8 or len(request.states) > MAX_STATES:
        raise ProtocolError(
            f"Expected at most {MAX_STATES} bytes of float64 states. Received: {len(request.states)}"
        )
    if not 0 <= request.seconds < math.inf:
        raise ProtocolError(
            f"Expected the time of a window, at least 0 and finite. Received: seconds={request.seconds}"
        )
    if request.timing is not None and not all(0 <= each < MAX_TIMING for each in request.timing):
        raise ProtocolError(f"Expected finite numbers of at least 0. Received: {request.timing}")
