"""Fragments of the vector, which workers exchange in turn, and when they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.layout import Layout, Segment, trainable_in

LAYERS_OF_A_FRAGMENT = 3
"""Layers in a fragment if the algorithm does not set the number of fragments, as in Streaming DiLoCo."""

Range = tuple[int, int]
"""Half-open range of elements of the vector."""


@dataclass(frozen=True)
class Fragments:
    """A division of the vector into fragments of whole layers.

    A fragment's own vector has the trainable elements of its layers first, then their statistics.

    Attributes:
        parts: by fragment, the ranges of the whole vector that it consists of, in order.
    """

    parts: tuple[tuple[Range, ...], ...]

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of elements, by fragment."""
        return tuple(sum(high - low for low, high in part) for part in self.parts)

    def num_trainable(self, fragment: int, of_vector: int) -> int:
        """Return how many leading elements of a fragment are in the first `of_vector` of the whole vector."""
        return sum(trainable_in(low, high, of_vector) for low, high in self.parts[fragment])

    def gather(self, vector: Vector, fragment: int) -> Vector:
        """Return the elements of a fragment: a view if they are contiguous in `vector`, else a copy."""
        pieces = [vector[low:high] for low, high in self.parts[fragment]]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def scatter(self, part: Vector, fragment: int, out: Vector) -> None:
        """Copy the elements `part` of a fragment to their places in the whole vector `out`."""
        start = 0
        for low, high in self.parts[fragment]:
            end = start + high - low
            out[low:high] = part[start:end]
            start = end

    def whole(self, parts: Sequence[Vector]) -> Vector:
        """Return the vector that the `parts`, one per fragment, make together, as a new array."""
        out = np.empty(sum(self.sizes), parts[0].dtype)
        for fragment, part in enumerate(parts):
            self.scatter(part, fragment, out)
        return out


def fragments_of(layout: Layout, algorithm: Algorithm) -> Fragments | None:
    """Return the fragments that `algorithm` asks for; `None` for one, which is the whole vector.

    Statistics travel with the trainable weights of their layer, and those of other layers with the first
    fragment.

    Raises:
        ValueError: there are fewer layers than fragments, or the algorithm's pattern is unknown.
    """
    segments = list(layout.segments())
    trainable, statistics = segments[: len(layout.trainable)], segments[len(layout.trainable) :]
    layers = list(dict.fromkeys(map(_layer_of, trainable)))
    count, pattern = algorithm.fragments, algorithm.fragment_pattern
    if count is None:
        count = max(1, -(-len(layers) // LAYERS_OF_A_FRAGMENT))
    if count == 1:
        return None
    if not 1 <= count <= len(layers) or pattern not in ("strided", "sequential"):
        raise ValueError(
            f"Expected `fragments` from 1 to {len(layers)}, the layers with weights of this model, and the "
            f'pattern "strided" or "sequential". Received: fragments={count!r}, pattern={pattern!r}'
        )
    strided = pattern == "strided"
    owner = {
        layer: index % count if strided else index * count // len(layers)
        for index, layer in enumerate(layers)
    }
    ranges: list[list[Range]] = [[] for _ in range(count)]
    for segment in (*trainable, *statistics):
        ranges[owner.get(_layer_of(segment), 0)].append((segment.offset, segment.offset + segment.size))
    return Fragments(tuple(_joined(each) for each in ranges))


def _layer_of(segment: Segment) -> str:
    return segment.path.rpartition("/")[0] or segment.path


def _joined(ranges: list[Range]) -> tuple[Range, ...]:
    """Return the same elements in as few ranges as possible."""
    joined: list[Range] = []
    for low, high in ranges:
        if joined and joined[-1][1] == low:
            low = joined.pop()[0]
        joined.append((low, high))
    return tuple(joined)


def steps_before(sequence: int, window: int, num_fragments: int = 1, overlap: int = 0) -> int:
    """Return the minibatch steps that a worker trains between its commits `sequence - 1` and `sequence`.

    Replies are taken up after `window / num_fragments` steps, twice as many, and so on, and messages are made
    `overlap` steps before: so the first commit comes early by that much. At least 1.
    """
    steps = sequence * window // num_fragments - (sequence - 1) * window // num_fragments
    return max(1, steps - overlap if sequence == 1 else steps)


class Behind:
    """Counts the minibatches and rows since each fragment's last exchange with one worker."""

    def __init__(self, num_fragments: int = 1) -> None:
        self._counts = [(0, 0)] * num_fragments

    def add(self, steps: int, samples: int) -> None:
        """Count a window, which trains all fragments."""
        counts = self._counts
        for fragment, (before, rows) in enumerate(counts):
            counts[fragment] = before + steps, rows + samples

    def steps(self, fragment: int) -> int:
        """Return the minibatches behind the next message of a fragment."""
        return self._counts[fragment][0]

    def take(self, fragment: int) -> tuple[int, int]:
        """Return the minibatches and rows behind a fragment's message, and count from 0 again."""
        counts, self._counts[fragment] = self._counts[fragment], (0, 0)
        return counts
