"""The weighted mean of several vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CHUNK = 64 * 1024
"""Elements per step of the sum."""


def weighted_mean(
    vectors: Sequence[npt.NDArray[np.float32]], weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return `sum_i weights_i vectors_i`. The result is the first vector, which is overwritten.

    Args:
        vectors: one or more, of one shape (size,).
        weights: one per vector; their sum is 1.
    """
    mean = vectors[0]
    if len(vectors) == 1:
        return mean
    mean *= weights[0]
    spare = np.empty(min(CHUNK, mean.size), mean.dtype)
    for low in range(0, mean.size, CHUNK):  # A temporary of a whole vector would be as large as the model.
        part = mean[low : low + CHUNK]
        for vector, weight in zip(vectors[1:], weights[1:], strict=True):
            part += np.multiply(vector[low : low + CHUNK], weight, out=spare[: part.size])
    return mean
