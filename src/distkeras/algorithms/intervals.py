"""Checks of hyperparameters."""

from __future__ import annotations

from typing import Any


def check_interval(algorithm: Any, field: str, interval: str, *, integer: bool = False) -> None:
    """Check that `algorithm.field` is a number in `interval`, such as `"[0, 1)"` or `"(0, inf]"`.

    Args:
        algorithm: a dataclass of hyperparameters.
        field: name of one of them.
        interval: two bounds in mathematical notation; infinity is allowed only with a square bracket.
        integer: whether only integers are allowed.

    Raises:
        TypeError: the value is not a number.
        ValueError: the value lies outside the interval. NaN always does.
    """
    value = getattr(algorithm, field)
    kinds, kind = (int, "an integer") if integer else ((int, float), "a number")
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(
            f"`{field}` of {type(algorithm).__name__} must be {kind} in {interval}. "
            f"Received: {field}={value!r}"
        )
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    if not (above and below):
        raise ValueError(
            f"`{field}` of {type(algorithm).__name__} must lie in {interval}. Received: {field}={value!r}"
        )


def check_pattern(algorithm: Any) -> None:
    """Raise ValueError unless `algorithm.fragment_pattern` is "strided" or "sequential"."""
    if algorithm.fragment_pattern not in ("strided", "sequential"):
        raise ValueError(
            f'`fragment_pattern` of {type(algorithm).__name__} must be "strided" or "sequential". '
            f"Received: fragment_pattern={algorithm.fragment_pattern!r}"
        )
