"""How a model's weights lie in one flat vector, and how that vector is cut into shards."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from distkeras.algorithms import Vector

SHARD_BYTES = 4 * 2**20
"""Largest shard: small enough for two exchanges to work on a large center side by side."""

SERVER_GRAIN = 1024
"""Parts of servers begin at multiples of so many elements: codecs scale blocks of this size alike then."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One weight of the model: its place in the vector.

    Attributes:
        path: what the weight is called.
        shape: of the weight.
        offset: index of its first element.
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
        """Where it lies in the vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """Trainable weights first, then the statistics: other floats that training moves.

    What does not move has no place here. Nor have integers (seeds, counters): they stay local to each
    worker.

    Args:
        trainable: path and shape of each trainable weight, in the model's order.
        statistics: path and shape of each statistic.
        dtype: of the vector: "float32", or "float64" where a weight needs it.
    """

    trainable: tuple[tuple[str, tuple[int, ...]], ...]
    statistics: tuple[tuple[str, tuple[int, ...]], ...] = ()
    dtype: str = "float32"

    @property
    def fingerprint(self) -> str:
        """A name for this layout: vectors of two layouts with one name hold the same weights in one order."""
        text = json.dumps([self.trainable, self.statistics, self.dtype])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def num_trainable(self) -> int:
        """Elements that the rule governs: the first part of the vector."""
        return sum(math.prod(shape) for _, shape in self.trainable)

    @property
    def size(self) -> int:
        """Elements of the whole vector."""
        return self.num_trainable + sum(math.prod(shape) for _, shape in self.statistics)

    def segments(self) -> Iterator[Segment]:
        """Yield every weight's place, in order."""
        offset = 0
        for path, shape in (*self.trainable, *self.statistics):
            yield (segment := Segment(path, shape, offset))
            offset += segment.size

    def pack(self, weights: Sequence[np.ndarray]) -> Vector:
        """Return `weights` (in the layout's order) as one new vector.

        Raises:
            ValueError: a weight is missing, too many, or of another shape.
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
        """Return views of `vector`, one a weight, in the layout's order.

        Raises:
            ValueError: `vector` has another size.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"Expected a vector of shape ({self.size},). Received: {vector.shape}")
        return [vector[part.elements].reshape(part.shape) for part in self.segments()]


def shard_bounds(size: int, num_shards: int | None = None, item_bytes: int = 4) -> list[tuple[int, int]]:
    """Cut `size` elements into contiguous shards of equal size to within one element.

    Args:
        size: elements of the vector.
        num_shards: how many; default: as few as keep each within `SHARD_BYTES`. Never more than elements.
        item_bytes: of one element.

    Returns:
        The half-open range of each shard.
    """
    if num_shards is None:
        num_shards = math.ceil(size * item_bytes / SHARD_BYTES)
    count = max(1, min(num_shards, size))
    edges = [size * index // count for index in range(count + 1)]
    return list(pairwise(edges))


def server_bounds(size: int, num_servers: int) -> list[tuple[int, int]]:
    """Cut `size` elements into a contiguous part for each server, of equal size to within `SERVER_GRAIN`.

    Args:
        size: elements of the vector.
        num_servers: how many; fewer where there are not as many elements.

    Returns:
        The half-open range of each part.
    """
    count = max(1, min(num_servers, size))
    grain = SERVER_GRAIN if size >= SERVER_GRAIN * count else 1
    edges = [size * index // count // grain * grain for index in range(count)]
    return list(pairwise([*edges, size]))


def trainable_in(low: int, high: int, num_trainable: int) -> int:
    """Return how many of the elements from `low` to `high` are among the leading `num_trainable`."""
    return min(max(num_trainable - low, 0), high - low)
