"""The user's function that makes each minibatch, run in the worker."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt

from distkeras.worker.ragged import Ragged
from distkeras.worker.tensor_spec import TensorSpec

Array = npt.NDArray[Any]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Preprocess:
    """A user's function, as it travels.

    Attributes:
        function: pickled by cloudpickle.
        names: the user's names of the columns that the function receives.
        inputs: inputs of the model.
        made: its result for no rows: (x,), (x, y) or (x, y, sample_weight); empty before a trial call.
    """

    function: bytes
    names: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    made: tuple[Any, ...] = ()

    @classmethod
    def of(cls, function: Function, names: tuple[str, ...], inputs: tuple[TensorSpec, ...]) -> Preprocess:
        """Return `function` in the form that travels."""
        return cls(cloudpickle.dumps(function), names, inputs)


class Preprocessor:
    """Calls the function and validates its result.

    Args:
        preprocess: the function.
        worker: index of the worker that trains; the generators that the function refers to differ by it.

    Attributes:
        names: the user's names of the columns that the function receives.
        seconds: total seconds of all calls.
    """

    def __init__(self, preprocess: Preprocess, worker: int = 0) -> None:
        self._inputs = preprocess.inputs
        self.names = preprocess.names
        try:
            self._function: Function = cloudpickle.loads(preprocess.function)
        except ModuleNotFoundError as error:
            error.add_note(
                "`preprocess` needs this module in the workers. Define the function in the script or "
                "notebook itself (it is then sent by value), or give the executors the module: "
                "spark.addArtifacts, "
                "`--py-files`, or an installed package."
            )
            raise
        if worker:
            from distkeras.model.randomness import reseed

            reseed(self._function, worker)
        self._takes_rng = takes_rng(self._function)
        self.seconds = 0.0

    def __call__(
        self, columns: Mapping[str, Array], num_rows: int, rng: np.random.Generator | None, where: str
    ) -> tuple[Any, ...]:
        """Return (x,), (x, y) or (x, y, sample_weight) of one minibatch, in the form that the model takes.

        Args:
            columns: columns by the user's names, each of shape (rows,).
            num_rows: number of rows that the result must have.
            rng: random numbers of this minibatch; `None` outside of training.
            where: position of the rows, for errors.

        Raises:
            ValueError: the result does not fit the model, or has another number of rows.
        """
        started = time.perf_counter()
        try:
            returned = self._function(dict(columns), **({"rng": rng} if self._takes_rng else {}))
        except Exception as error:
            error.add_note(f"This was raised by `preprocess`, called with the rows of {where}.")
            raise
        finally:
            self.seconds += time.perf_counter() - started
        parts = returned if isinstance(returned, tuple) else (returned,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                "`preprocess` must return x, (x, y) or (x, y, sample_weight). "
                f"Received: a tuple of {len(parts)} from the rows of {where}"
            )
        x = _as_inputs(parts[0], self._inputs, where)
        rest = tuple(_map(np.asarray, part) for part in parts[1:])
        for name, part in zip(("x", "y", "sample_weight"), (x, *rest), strict=False):
            for array in _leaves(part):
                if array.ndim == 0 or len(array) != num_rows:
                    raise ValueError(
                        f"`preprocess` must return a row for each of the {num_rows} rows of {where}. "
                        f"Received: {name} of shape {array.shape}"
                    )
        return (x, *rest)


def as_given(rows: Array | Ragged) -> Array:
    """Return the rows of a column in the form that the user's function receives."""
    # A copy: the function may write to it, and later epochs read the same memory.
    return rows.objects() if isinstance(rows, Ragged) else rows[:, 0].copy()


def takes_rng(function: Function) -> bool:
    """Whether `function` has an argument `rng` for random numbers."""
    return "rng" in inspect.signature(function).parameters


def rng_of(seed: int, partition: int, epoch: int, minibatch: int) -> np.random.Generator:
    """Return the random numbers of a minibatch: a worker that trains it again gets the same ones."""
    return np.random.default_rng([number % 2**32 for number in (seed, partition, epoch, minibatch)])


def _as_inputs(x: Any, specs: tuple[TensorSpec, ...], where: str) -> Any:
    """Return `x` in the order or by the keys of the model's inputs, converted to their types."""
    if isinstance(x, Mapping):
        by_key = {spec.key or spec.name: spec for spec in specs}
        if set(x) != set(by_key):
            raise ValueError(
                f"`preprocess` must return an array for each input of the model: {sorted(by_key)}. "
                f"Received: {sorted(map(str, x))} from the rows of {where}"
            )
        arrays = [_as_input(x[key], spec, where) for key, spec in by_key.items()]
    elif isinstance(x, list):
        arrays = [_as_input(array, spec, where) for array, spec in zip(x, specs, strict=False)]
        if len(x) != len(specs):
            raise ValueError(
                f"`preprocess` must return a list of {len(specs)} array(s), one for each input of the model; "
                "rows become one array by np.stack(rows). "
                f"Received: a list of {len(x)} from the rows of {where}"
            )
    else:
        if len(specs) != 1:
            raise ValueError(
                f"`preprocess` must return a list or a dict of arrays for the {len(specs)} inputs of the "
                f"model. Received: {type(x).__name__} from the rows of {where}"
            )
        arrays = [_as_input(x, specs[0], where)]
    if specs[0].key is not None:
        return {str(spec.key): array for spec, array in zip(specs, arrays, strict=True)}
    return arrays[0] if len(arrays) == 1 else arrays


def _as_input(given: Any, spec: TensorSpec, where: str) -> Array:
    array = np.asarray(given)
    wanted = "object" if spec.dtype == "string" else spec.dtype
    if array.dtype.kind not in ("OUS" if spec.dtype == "string" else "biuf"):
        raise ValueError(
            f"`preprocess` must return {spec.dtype} for the input {spec.name!r} of the model. Received: "
            f"an array of type {array.dtype} and shape {array.shape} from the rows of {where}. Rows of "
            "different lengths are joined by distkeras.Padding(...).stack(rows)."
        )
    if array.ndim and spec.shape is not None:
        found = array.shape[1:]
        fits = len(found) == len(spec.shape) and all(
            length in (None, have) for length, have in zip(spec.shape, found, strict=True)
        )
        if not fits:
            raise ValueError(
                f"`preprocess` must return shape {('rows', *spec.shape)} for the input {spec.name!r} of the "
                f"model. Received: shape {array.shape} from the rows of {where}"
            )
    return array.astype(wanted, copy=False)


def _map(change: Callable[[Any], Array], part: Any) -> Any:
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {key: change(array) for key, array in part.items()}
    if isinstance(part, list):
        return [change(array) for array in part]
    return change(part)


def _leaves(part: Any) -> list[Array]:
    if part is None:
        return []
    if isinstance(part, dict):
        return list(part.values())
    return part if isinstance(part, list) else [part]
