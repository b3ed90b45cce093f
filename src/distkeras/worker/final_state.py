"""The state that a worker returns at its end besides the center's weights, and its form on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]

PART_BYTES = 16 * 2**20
"""Size of the parts in which an array travels."""

VARIABLE, OPTIMIZER, METRIC, GENERATOR = "variable ", "optimizer ", "metric ", "generator "


@dataclass(frozen=True)
class FinalState:
    """The result of a worker.

    Attributes:
        error: the traceback of the exception that ended it, or None.
        variables: worker 0 only, by path: variables of the model that changed and are not in the center.
        optimizer: worker 0 only: values of the optimizer's variables, in their order.
        metrics: values of the variables of the metrics after the last epoch, in their order.
        generators: worker 0 only, by name: where the process's generators of random numbers are.
        too_large: bytes of an optimizer state that the worker did not send.
    """

    error: str | None = None
    variables: dict[str, Array] = field(default_factory=dict)
    optimizer: list[Array] = field(default_factory=list)
    metrics: list[Array] = field(default_factory=list)
    generators: dict[str, Array] = field(default_factory=dict)
    too_large: int = 0

    def batches(self, worker: int) -> Iterator[pa.RecordBatch]:
        """Yield the state as rows, one of them without an array."""
        yield _row(worker, self.error, "", "", [self.too_large], 0, b"")
        for name, array in self._named():
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            for part, first in enumerate(range(0, max(1, data.size), PART_BYTES)):
                piece = data[first : first + PART_BYTES].tobytes()
                yield _row(worker, None, name, array.dtype.name, list(array.shape), part, piece)

    def _named(self) -> Iterator[tuple[str, Array]]:
        yield from ((VARIABLE + path, array) for path, array in self.variables.items())
        yield from ((f"{OPTIMIZER}{index}", array) for index, array in enumerate(self.optimizer))
        yield from ((f"{METRIC}{index}", array) for index, array in enumerate(self.metrics))
        yield from ((GENERATOR + name, array) for name, array in self.generators.items())


def failures_in(rows: Iterable[Any]) -> list[tuple[int, str]]:
    """Return workers that ended by an exception, in order, with their tracebacks, from the rows of all."""
    return sorted((row.worker, row.error) for row in rows if row.error is not None)


def final_states_of(rows: Iterable[Any]) -> dict[int, FinalState]:
    """Return the final state of each worker, from the rows of all, in any order."""
    import ml_dtypes  # noqa: F401  # It registers bfloat16 with NumPy.

    errors: dict[int, str | None] = {}
    too_large: dict[int, int] = {}
    parts: defaultdict[int, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.name:
            parts[row.worker][row.name].append(row)
        else:
            errors[row.worker], too_large[row.worker] = row.error, row.shape[0]
    final_states = {}
    for worker, error in errors.items():
        arrays = {name: _joined(pieces) for name, pieces in parts[worker].items()}
        final_states[worker] = FinalState(
            error,
            named(arrays, VARIABLE),
            _numbered(arrays, OPTIMIZER),
            _numbered(arrays, METRIC),
            named(arrays, GENERATOR),
            too_large[worker],
        )
    return final_states


def _row(
    worker: int, error: str | None, name: str, dtype: str, shape: list[int], part: int, data: bytes
) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "worker": pa.array([worker], pa.int32()),
            "error": pa.array([error], pa.string()),
            "name": pa.array([name], pa.string()),
            "dtype": pa.array([dtype], pa.string()),
            "shape": pa.array([shape], pa.list_(pa.int64())),
            "part": pa.array([part], pa.int32()),
            "data": pa.array([data], pa.binary()),
        }
    )


def _joined(pieces: list[Any]) -> Array:
    pieces = sorted(pieces, key=lambda row: row.part)
    data = b"".join(bytes(row.data) for row in pieces)
    array: Array = np.frombuffer(data, np.dtype(pieces[0].dtype)).reshape(pieces[0].shape)
    return array


def named(arrays: Mapping[str, Array], kind: str) -> dict[str, Array]:
    """Return those of `arrays` whose names begin with `kind`, by the rest of their names."""
    return {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}


def _numbered(arrays: dict[str, Array], kind: str) -> list[Array]:
    return [arrays[f"{kind}{index}"] for index in range(sum(name.startswith(kind) for name in arrays))]
