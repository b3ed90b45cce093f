"""The place of a model's weights in one flat vector, and the bounds of its shards."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from distkeras.algorithms import Vector

SHARD_BYTES = 4 * 2**20
"""Largest size of a shard: small enough for two exchanges to work on a large center in parallel."""

SERVER_GRAIN = 1024
"""Servers' parts begin at multiples of this number of elements, so that codecs scale the same blocks."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One weight of the model and its place in the vector.

    Attributes:
        path: path of the weight.
        shape: shape of the weight.
        offset: index of its first element in the vector.
    """

    path: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def elements(self) -> slice:
        """Slice of the vector that holds the weight."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """The trainable weights, followed by the statistics: other floats that change in training.

    Weights that do not change are left out. So are integers (seeds, counters): they stay local to each
    worker.

    Args:
        trainable: path and shape of each trainable weight, in the model's order.
        statistics: path and shape of each statistic.
        dtype: data type of the vector: "float32", or "float64" if a weight needs it.
    """

    trainable: tuple[tuple[str, tuple[int, ...]], ...]
    statistics: tuple[tuple[str, tuple[int, ...]], ...] = ()
    dtype: str = "float32"

    @property
    def fingerprint(self) -> str:
        """Hash of this layout. Vectors with equal fingerprints hold the same weights in the same order."""
        text = json.dumps([self.trainable, self.statistics, self.dtype])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def num_trainable(self) -> int:
        """Number of elements that the algorithm updates: the first part of the vector."""
        return sum(self.tensors)

    @property
    def tensors(self) -> tuple[int, ...]:
        """Number of elements of each trainable weight, in order."""
        return tuple(math.prod(shape) for _, shape in self.trainable)

    @property
    def size(self) -> int:
        """Number of elements of the whole vector."""
        return self.num_trainable + sum(math.prod(shape) for _, shape in self.statistics)

    def segments(self) -> Iterator[Segment]:
        """Yield each weight's place, in order."""
        offset = 0
        for path, shape in (*self.trainable, *self.statistics):
            yield (segment := Segment(path, shape, offset))
            offset += segment.size

    def pack(self, weights: Sequence[np.ndarray]) -> Vector:
        """Return `weights`, given in the layout's order, as one new vector.

        Raises:
            ValueError: the number of weights or the shape of one differs from the layout.
        """
        segments = list(self.segments())
        if len(weights) != len(segments):
            raise ValueError(f"Expected {len(segments)} weights. Received: {len(weights)}")
        vector = np.empty(self.size, self.dtype)
        for segment, weight in zip(segments, weights, strict=True):
            if tuple(weight.shape) != segment.shape:
                raise ValueError(
                    f"Expected shape {segment.shape} for {segment.path!r}. Received: {tuple(weight.shape)}"
                )
            vector[segment.elements] = weight.ravel()
        return vector

    def unpack(self, vector: Vector) -> list[Vector]:
        """Return views of `vector`, one per weight, in the layout's order.

        Raises:
            ValueError: `vector` has another size.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"Expected a vector of shape ({self.size},). Received: {vector.shape}")
        return [vector[part.elements].reshape(part.shape) for part in self.segments()]


def shard_bounds(size: int, num_shards: int | None = None, item_bytes: int = 4) -> list[tuple[int, int]]:
    """Cut `size` elements into contiguous shards whose sizes differ by at most one element.

    Args:
        size: elements of the vector.
        num_shards: number of shards; by default as few as keep each within `SHARD_BYTES`. At most `size`.
        item_bytes: bytes of one element.

    Returns:
        The half-open range of each shard, as (low, high).
    """
    if num_shards is None:
        num_shards = math.ceil(size * item_bytes / SHARD_BYTES)
    count = max(1, min(num_shards, size))
    edges = [size * index // count for index in range(count + 1)]
    return list(pairwise(edges))


def tensor_bounds(size: int, tensors: Sequence[int]) -> list[tuple[int, int]]:
    """Cut `size` elements into one shard per tensor, and one for the elements that follow the tensors.

    Args:
        size: elements of the vector.
        tensors: elements of each tensor, at most `size` together.

    Returns:
        The half-open range of each shard, as (low, high).
    """
    edges = sorted({0, *accumulate(tensors), size})
    return list(pairwise(edges))


def server_bounds(size: int, num_servers: int, tensors: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Cut `size` elements into one contiguous part per server, of equal size to within `SERVER_GRAIN`.

    Args:
        size: elements of the vector.
        num_servers: number of parts; at most `size`.
        tensors: sizes of trainable tensors that must not be cut: parts then begin at the nearest bounds.
            Empty: cut anywhere.

    Returns:
        The half-open range of each part, as (low, high).

    Raises:
        ValueError: there are fewer tensors than servers.
    """
    count = max(1, min(num_servers, size))
    if tensors:
        return list(pairwise(_tensor_edges(size, count, tensors)))
    grain = SERVER_GRAIN if size >= SERVER_GRAIN * count else 1
    edges = [size * index // count // grain * grain for index in range(count)]
    return list(pairwise([*edges, size]))


def _tensor_edges(size: int, count: int, tensors: Sequence[int]) -> list[int]:
    """Return the edges of `count` parts: of the bounds between tensors, the nearest to equal parts."""
    inner = sorted(set(accumulate(tensors)) - {0, size, sum(tensors)})
    if count > len(inner) + 1:
        raise ValueError(
            f"Expected at most {len(inner) + 1} parameter servers: no tensor may be cut. Received: {count}"
        )
    edges = [0]
    for index in range(1, count):
        free = [edge for edge in inner if edge > edges[-1]]
        choice = free[: len(free) - (count - 1 - index)]  # Leave a bound for each server that follows.
        edges.append(min(choice, key=lambda edge: abs(edge - size * index // count)))
    return [*edges, size]


def tensors_in(low: int, high: int, tensors: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of the parts of `tensors` from element `low` to `high` (excluded)."""
    ranges = pairwise(accumulate(tensors, initial=0))
    parts = [(max(low, begin), min(high, end)) for begin, end in ranges]
    return tuple(end - begin for begin, end in parts if end > begin)


def trainable_in(low: int, high: int, num_trainable: int) -> int:
    """Return how many of the elements from `low` to `high` (excluded) are in the first `num_trainable`."""
    return min(max(num_trainable - low, 0), high - low)
