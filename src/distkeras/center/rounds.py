"""The mean message of a synchronous round."""

from __future__ import annotations

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.messages import Exchange

CHUNK = 64 * 1024
"""Elements per step of the sum."""


def mean_of(messages: list[Exchange], weighted: bool) -> Vector:
    """Return the mean message as a new array, weighted by samples or with equal weights."""
    if len(messages) == 1:
        return messages[0].message.copy()
    samples = [message.num_samples if weighted else 1 for message in messages]
    weights = np.array(samples, messages[0].message.dtype)
    if not weights.any():  # No message has samples: weigh all alike.
        weights[:] = 1
    weights /= weights.sum()
    mean: Vector = messages[0].message * weights[0]
    spare = np.empty(min(CHUNK, mean.size), mean.dtype)
    for low in range(0, mean.size, CHUNK):  # A temporary of a whole message would be as large as the model.
        part = mean[low : low + CHUNK]
        for message, weight in zip(messages[1:], weights[1:], strict=True):
            weighed = np.multiply(message.message[low : low + CHUNK], weight, out=spare[: part.size])
            part += weighed
    return mean
