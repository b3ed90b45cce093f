"""A lock that allows a trainer one training at a time, because a trainer keeps one history."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
_training: set[int] = set()
_lock = threading.Lock()


def one_at_a_time(train: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """Return the method `train`, which raises RuntimeError while another thread runs it on that object."""

    @functools.wraps(train)
    def exclusive(trainer: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with _lock:  # Recorded here and not in the trainer, which may be copied while it trains.
            if id(trainer) in _training:
                raise RuntimeError(
                    "This trainer is already training in another thread, and keeps one history. Create one "
                    f"trainer for each concurrent training. Received: {type(trainer).__name__}.train"
                )
            _training.add(id(trainer))
        try:
            return train(trainer, *args, **kwargs)
        finally:
            with _lock:
                _training.discard(id(trainer))

    return exclusive
