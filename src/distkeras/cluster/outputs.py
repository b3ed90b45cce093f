"""Convert the outputs of a model to columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import NUMBER_TYPES, WIDENED, array_of
from distkeras.cluster.validate import Names, match
from distkeras.worker.output_columns import OutputColumn
from distkeras.worker.tensor_spec import TensorSpec

Output = Literal["array", "vector", "scalar"]


def output_names(given: Names, outputs: Sequence[TensorSpec]) -> list[str]:
    """Return the name of the column for each of `outputs`.

    Args:
        given: a name for each; with several outputs, a single name gives `<name>_<name of the output>`.
        outputs: outputs of the model.

    Raises:
        ValueError: the number of names is not that of the outputs.
    """
    if isinstance(given, str) and len(outputs) > 1:
        return [f"{given}_{spec.key or spec.name}" for spec in outputs]
    return match(given, tuple(outputs), "output_col", "output")


def output_column(spec: TensorSpec, output: str, name: str) -> OutputColumn:
    """Return the column form of the output `spec`.

    Raises:
        ValueError: it does not fit `output`.
        TypeError: no column can hold its type.
    """
    dtype = WIDENED.get(spec.dtype, spec.dtype)
    if dtype not in NUMBER_TYPES:
        raise TypeError(f"Output {spec.name!r} of the model is of {spec.dtype}, which no column can hold.")
    known = [length for length in spec.shape or () if length is not None]
    several = spec.shape is not None and (len(known) < len(spec.shape) or any(n != 1 for n in known))
    fits = {"array": True, "vector": spec.shape is None or len(spec.shape) <= 1, "scalar": not several}
    if output not in fits or not fits[output]:
        mend = "" if output in fits else f" Expected one of {list(get_args(Output))}."
        raise ValueError(
            f"Output {spec.name!r} of the model has shape {spec.shape} per row.{mend} "
            f"Received: output={output!r}"
        )
    depth = 0 if output == "scalar" else max(1, len(spec.shape or ()))
    return OutputColumn(name, depth, dtype)


def type_of(output_columns: Sequence[OutputColumn]) -> T.DataType:
    """Return the Spark type of the predictions."""
    types = [
        T.StructField(column.name, array_of(NUMBER_TYPES[column.dtype], column.depth))
        for column in output_columns
    ]
    return types[0].dataType if len(types) == 1 else T.StructType(types)
