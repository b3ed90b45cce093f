"""Checks for bad updates: vectors that are not finite or too large, in messages and in the center."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from distkeras.algorithms import Vector

Returned = TypeVar("Returned")

LARGEST_NORM = math.sqrt(np.finfo(np.float32).max)
"""Algorithms square the messages, and float32 cannot hold the square of a larger norm."""


@dataclass(frozen=True)
class BadUpdates:
    """What the server does with an update whose loss or message is NaN, infinite or too large.

    The server always refuses such an update and leaves the center unchanged. If an algorithm turns finite
    messages into a center that is not finite, the action applies as well: with "skip" the server restores its
    last snapshot.

    Attributes:
        action: "raise" ends the training with an error. "skip" skips the window; its worker continues from
            the center with the next window.
        max_norm: largest Euclidean norm of a message; `None` for the largest that float32 can square, 1.8e19.
            The norm is that of the change for algorithms that send deltas, and that of the weights for
            elastic ones.
        limit: consecutive windows of one worker that "skip" may skip; the next bad window raises.

    Raises:
        ValueError: the action is unknown, or a number is not positive.
    """

    action: Literal["raise", "skip"] = "raise"
    max_norm: float | None = None
    limit: int = 10

    def __post_init__(self) -> None:
        numbers = [number for number in (self.max_norm, self.limit) if number is not None]
        if self.action not in ("raise", "skip") or min(numbers) <= 0:
            raise ValueError(
                'Expected "raise" or "skip", or BadUpdates(action, max_norm, limit) with positive numbers. '
                f"Received: on_bad_update={self!r}"
            )

    def reason_to_refuse(self, message: Vector, metrics: Mapping[str, float]) -> str | None:
        """Return what is wrong with an update; `None` if nothing is wrong."""
        loss = metrics.get("loss", 0.0)
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        norm = norm_of(message)
        if norm < LARGEST_NORM and (self.max_norm is None or norm <= self.max_norm):
            return None
        if not math.isfinite(norm):
            return "the message holds NaN or infinity"
        if norm >= LARGEST_NORM:
            return f"the norm of the message is {norm:.4g}, and its square exceeds the range of float32"
        return f"the norm of the message is {norm:.4g}, which is more than max_norm={self.max_norm:g}"


def norm_of(vector: Vector) -> float:
    """Return the Euclidean norm. It is NaN or infinite exactly when an element is."""
    # Takes a third of the time of any other check of each element, needs no temporary array, and unlike `dot`
    # gives no warning.
    square = float(np.vdot(vector, vector))
    if not math.isfinite(square):  # The squares of large finite numbers overflow, except in double precision.
        square = float(np.einsum("i,i", vector, vector, dtype=np.float64))
    return math.sqrt(square)


def noting_errors(act: Callable[..., Returned], *args: Any) -> tuple[Returned, list[str]]:
    """Call `act`, and return what it returns, and the errors of NumPy's arithmetic in it.

    They are overflows, invalid operations and divisions by zero. The processor detects them anyway, so no
    pass over the numbers is needed. An algorithm that computes without NumPy's operations, or silences these
    errors, is caught by the checks of its next messages and snapshot.
    """
    noted: list[str] | None = getattr(_thread, "noted", None)
    if noted is None:
        with errors_noted_here():
            return noting_errors(act, *args)
    noted.clear()
    return act(*args), noted


def note_errors_in_this_thread() -> None:
    """Make `noting_errors` free in this thread. From now on, NumPy reports this thread's errors only there.

    For threads that handle messages: setting NumPy up takes a tenth of the time of a small exchange.
    """
    _thread.noted = []
    np.seterr(**_CALLED)
    np.seterrcall(_noting(_thread.noted))


@contextlib.contextmanager
def errors_noted_here() -> Iterator[None]:
    """Make `noting_errors` free in this thread, in a `with` block, as `note_errors_in_this_thread` does."""
    before: list[str] | None = getattr(_thread, "noted", None)
    _thread.noted = []
    try:
        with np.errstate(**_CALLED, call=_noting(_thread.noted)):
            yield
    finally:
        _thread.noted = before


_CALLED: dict[Literal["over", "invalid", "divide"], Literal["call"]] = {
    "over": "call",
    "invalid": "call",
    "divide": "call",
}
_thread = threading.local()


def _noting(noted: list[str]) -> Callable[[str, int], None]:
    return lambda what, _: noted.append(what)


def is_finite(vector: Vector) -> bool:
    """Return whether no element is NaN or infinite."""
    return math.isfinite(norm_of(vector))


def is_too_large(vector: Vector) -> bool:
    """Return whether `vector` is not finite or its norm is too large for float32 to square."""
    return not norm_of(vector) < LARGEST_NORM


RAISE = BadUpdates()
"""A bad update ends the training with an error."""


def get(on_bad_update: Literal["raise", "skip"] | BadUpdates) -> BadUpdates:
    """Return the settings for an action's name.

    Raises:
        ValueError: the name is neither "raise" nor "skip".
    """
    return on_bad_update if isinstance(on_bad_update, BadUpdates) else BadUpdates(on_bad_update)
