"""The columns that the outputs of a model become."""

from __future__ import annotations

from collections.abc import Sequence

from distkeras.cluster.validate import Names, match
from distkeras.worker.tensor_spec import TensorSpec


def output_names(given: Names, outputs: Sequence[TensorSpec]) -> list[str]:
    """Return the name of the column for each of `outputs`.

    Args:
        given: a name for each; a single name and several outputs give `<name>_<name of the output>`.
        outputs: of the model.

    Raises:
        ValueError: another number of names than outputs.
    """
    if isinstance(given, str) and len(outputs) > 1:
        return [f"{given}_{spec.key or spec.name}" for spec in outputs]
    return match(given, tuple(outputs), "output_col", "output")
