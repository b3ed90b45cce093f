"""What a synchronous round is made of."""

from __future__ import annotations

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.messages import Exchange

CHUNK = 64 * 1024
"""Elements worked on at a time."""


def mean_of(messages: list[Exchange], weighted: bool) -> Vector:
    """Return the mean message, a new array: weighted by samples, or of all alike."""
    if len(messages) == 1:
        return messages[0].message.copy()
    samples = [message.num_samples if weighted else 1 for message in messages]
    weights = np.array(samples, messages[0].message.dtype)
    if not weights.any():  # no samples to weigh by
        weights[:] = 1
    weights /= weights.sum()
    mean: Vector = messages[0].message * weights[0]
    spare = np.empty(min(CHUNK, mean.size), mean.dtype)
    for low in range(0, mean.size, CHUNK):  # Of large models, a whole temporary would be as large.
        part = mean[low : low + CHUNK]
        for message, weight in zip(messages[1:], weights[1:], strict=True):
            weighed = np.multiply(message.message[low : low + CHUNK], weight, out=spare[: part.size])
            part += weighed
    return mean
