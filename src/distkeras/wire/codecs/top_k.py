"""Sparse Communication for Distributed Gradient Descent, Aji and Heafield, EMNLP 2017 (1704.05021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.wire.codecs.base import CHUNK, LITTLE_FLOAT, MAGNITUDE, Bytes, Codec, CodecError

_LITTLE_INDEX = np.dtype("<u4")
_SAMPLE = 16 * 1024
_MARGIN = 1.5


@dataclass(frozen=True)
class TopK(Codec):
    """The `k = ceil(density * size)` values with the largest magnitude, as index and value; the rest is zero.

    Squared relative error at most `1 - k / size`. Ratio `1 / (2 density)`: 50 by default. Values that are
    not finite count as largest. All others stay in the error feedback until they have grown large enough.

    The error feedback adds up: each value is sent about every `1 / density` windows. Training overshoots if
    the inner learning rate is too large for that many windows at once: raise `density` or lower the rate. The
    momentum correction and the sparsity warm-up of Deep Gradient Compression (Lin et al. 2018, 1712.01887)
    are not part of this codec.

    Args:
        density: fraction of the values to send, in (0, 1].

    Reference: Aji and Heafield 2017; Stich et al. 2018, Sparsified SGD with Memory (1809.07599).
    """

    density: float = 0.01

    name: ClassVar[str] = "topk"
    number: ClassVar[int] = 5

    def __post_init__(self) -> None:
        density = self.density
        number = isinstance(density, int | float) and not isinstance(density, bool)
        if not number or not 0 < density <= 1:
            raise ValueError(
                "`density` of TopK must be a number in (0, 1], the fraction of the values to send. "
                f"Received: density={density!r}"
            )

    def kept(self, size: int) -> int:
        """Return k, which is at least 1 for a vector that is not empty."""
        return min(size, math.ceil(self.density * size))

    def encoded_bytes(self, size: int) -> int:
        return (_LITTLE_INDEX.itemsize + LITTLE_FLOAT.itemsize) * self.kept(size)

    def encode(self, vector: Vector, out: Bytes) -> None:
        split = out.size // 2
        largest = _largest(vector, self.kept(vector.size))
        out[:split].view(_LITTLE_INDEX)[:] = largest
        out[split:].view(LITTLE_FLOAT)[:] = vector[largest]

    def decode(self, data: Bytes, out: Vector) -> None:
        split = data.size // 2
        indices = data[:split].view(_LITTLE_INDEX)
        if indices.size and int(indices.max()) >= out.size:
            raise CodecError(f"Expected indices below {out.size}. Received: {int(indices.max())}")
        out.fill(0)
        out[indices] = data[split:].view(LITTLE_FLOAT)


def _largest(vector: Vector, k: int) -> npt.NDArray[np.intp]:
    """Return the indices of the `k` values of `vector` with the largest magnitude, in increasing order.

    Of equal magnitudes, the first ones are taken. Selecting among all values takes many times as long as
    reading them. So a sample gives a bound that slightly more than `k` values exceed, and the selection is
    among those.
    """
    # As integers, magnitudes have the same order as floats, with NaN above infinity.
    bits = vector.view(np.uint32)
    candidates = _at_least(bits, _likely_bound(bits, k))
    if candidates.size < k:
        candidates = np.arange(vector.size)
    chosen = bits[candidates] & MAGNITUDE
    if candidates.size <= k:
        return candidates
    smallest = np.partition(chosen, chosen.size - k)[chosen.size - k]
    keep = chosen > smallest
    keep[np.flatnonzero(chosen == smallest)[: k - np.count_nonzero(keep)]] = True
    kept: npt.NDArray[np.intp] = candidates[keep]
    return kept


def _likely_bound(bits: npt.NDArray[np.uint32], k: int) -> np.uint32:
    """Return a magnitude that slightly more than `k` values exceed, by a sample; 0 if that cannot tell."""
    stride = bits.size // _SAMPLE
    if stride > 1:
        sample = bits[::stride] & MAGNITUDE
        rank = math.ceil(_MARGIN * k / stride) + 8
        if rank < sample.size:
            return np.uint32(np.partition(sample, sample.size - rank)[sample.size - rank])
    return np.uint32(0)


def _at_least(bits: npt.NDArray[np.uint32], bound: np.uint32) -> npt.NDArray[np.intp]:
    """Return the indices of the values whose magnitude is `bound` or more."""
    spare = np.empty(min(CHUNK, bits.size), np.uint32)
    found: list[npt.NDArray[np.intp]] = [np.arange(0)]
    for low in range(0, bits.size, CHUNK):
        part = bits[low : low + CHUNK]
        magnitudes = np.bitwise_and(part, MAGNITUDE, out=spare[: part.size])
        found.append(np.flatnonzero(magnitudes >= bound) + low)
    return np.concatenate(found)
