"""Numbers on their way to the page: rates, and what JSON can hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from distkeras.monitor.dashboard.buckets import Buckets

RECENT, LONG = 10.0, 30.0
"""Seconds over which the rates of all workers, and of one, are taken: over less they jump."""


def span_of(buckets: Buckets, seconds: float) -> int:
    """Return the number of buckets in so many seconds."""
    return max(1, round(seconds / buckets.width)) if buckets.count else 1


def rates_of(
    buckets: Buckets, sums: npt.NDArray[Any], since: int, over: float = RECENT
) -> npt.NDArray[np.float64]:
    """Return sums a second, each over the last seconds up to a bucket, from bucket `since` on.

    Args:
        buckets: the buckets.
        sums: the sums of each bucket, shape (count, n).
        since: the first bucket of the result, which has the shape (count - since, n).
        over: seconds over which a rate is taken.
    """
    span = span_of(buckets, over)
    first = max(0, since + 1 - span)
    seconds = _trailing(buckets.seconds(first)[:, None], span)
    rates: npt.NDArray[np.float64] = _trailing(sums[first:].astype(np.float64), span) / seconds
    return rates[since - first :]


def _trailing(values: npt.NDArray[np.float64], span: int) -> npt.NDArray[np.float64]:
    """Return the sums of each row with the `span` - 1 rows before it."""
    totals = np.cumsum(values, axis=0)
    totals[span:] -= totals[:-span].copy()
    return totals


def plain(value: float) -> float | str | None:
    """Return a number as JSON can have it: not-a-number and infinity are texts, as in events."""
    number = float(value)
    return number if math.isfinite(number) else str(number)


def listed(values: npt.NDArray[Any], digits: int | None) -> list[float | None]:
    """Return numbers as a list with `None` where there is none, rounded to `digits` after the point."""
    rounded = values if digits is None else np.round(values.astype(np.float64), digits)
    return [number if math.isfinite(number) else None for number in rounded.tolist()]
