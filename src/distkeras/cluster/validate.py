"""Match columns to inputs and outputs, and check their values. Errors name the column and a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.facts import Expected, Facts
from distkeras.cluster.names import missing
from distkeras.cluster.source import SPARK_TYPES, Source, plain
from distkeras.worker.columns import Column
from distkeras.worker.tensor_spec import TensorSpec

Field = TypeVar("Field")
"""A table's description of a column."""

Names = str | Sequence[str] | Mapping[str, str]
"""One column, several in the model's order, or by the name of the model's input or output."""

Weights = str | Sequence[str | None] | Mapping[str, str] | None
"""One column for all outputs, one for each in order, or some by the output's name."""


def match(given: Names, specs: tuple[TensorSpec, ...], argument: str, what: str) -> list[str]:
    """Return the column for each of `specs`, in order.

    Args:
        given: the user's argument.
        specs: inputs or outputs of the model.
        argument: name of the user's argument.
        what: "input" or "output".

    Raises:
        ValueError: too few, too many, or a key that names no input or output.
    """
    if isinstance(given, Mapping):
        chosen = {}
        for spec in specs:
            name = next((key for key in (spec.key, spec.name) if key is not None and key in given), None)
            if name is not None:
                chosen[name] = given[name]
        names = [spec.key or spec.name for spec in specs]
        if set(chosen) != set(given) or len(chosen) != len(specs):
            raise ValueError(
                f"`{argument}` must give one column for each {what} of the model: {names}. "
                f"Received: {argument}={dict(given)}"
            )
        return list(chosen.values())
    columns = [given] if isinstance(given, str) else list(given)
    if len(columns) != len(specs):
        raise ValueError(
            f"The model has {len(specs)} {what}(s) ({', '.join(spec.name for spec in specs)}), but "
            f"`{argument}` names {len(columns)} column(s). Received: {argument}={given!r}"
        )
    return columns


def match_features(given: Names, specs: tuple[TensorSpec, ...]) -> list[list[str]]:
    """Return the columns for each input: one, or for a single input several that are combined, in order.

    Raises:
        ValueError: as `match`.
    """
    if len(specs) == 1 and not isinstance(given, str | Mapping) and len(given) > 1:
        return [list(given)]
    return [[name] for name in match(given, specs, "features_col", "input")]


def match_weights(given: Weights, outputs: tuple[TensorSpec, ...]) -> dict[int | None, str]:
    """Return the column of the sample weights by index of the output; `None` for all outputs.

    Args:
        given: one column for all; or one for each output in order, `None` for one whose rows count 1; or some
            by the outputs' names.
        outputs: outputs of the model.

    Raises:
        ValueError: too few, too many, or a key that names no output.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        return {None: given}
    named = {name: index for index, spec in enumerate(outputs) for name in (spec.key, spec.name) if name}
    chosen: dict[int | None, str | None]
    if isinstance(given, Mapping):
        places = [named.get(key) for key in given]
        fits = None not in places and len(set(places)) == len(places)
        chosen = dict(zip(places, given.values(), strict=True))
    else:
        fits = len(given) == len(outputs)
        chosen = dict(enumerate(given))
    if not fits:
        raise ValueError(
            "`sample_weight_col` must be a column for all outputs, or give one for each: "
            f"{[spec.key or spec.name for spec in outputs]}. Received: sample_weight_col={given!r}"
        )
    if len(outputs) == 1:
        (name,) = chosen.values()
        return {} if name is None else {None: name}
    return {place: name for place, name in chosen.items() if name is not None}


def find(name: str, fields: Mapping[str, Field], argument: str) -> Field:
    """Return the field of the column `name`.

    Raises:
        ValueError: there is no such column.
    """
    if name not in fields:
        missing(name, fields, argument)
    return fields[name]


def check_nulls(source: Source, facts: Facts) -> None:
    """Raise ValueError if a row is null, or has a null inside."""
    path = source.written or plain(source.name)
    if "null" in facts.faults:
        mend = f"df.na.drop(subset=[{source.name!r}])"
        if path != source.name:
            mend = f"df.where(F.col({path!r}).isNotNull())"
        raise ValueError(
            f"Column {source.name!r} is null in {facts.faults['null']}. Expected no null. Drop these rows "
            f"with {mend}, or fill them."
        )
    if "inner null" in facts.faults:
        raise ValueError(
            f"Column {source.name!r} has a null inside the array in {facts.faults['inner null']}. Expected "
            f"no null. Fill them, or keep the other rows: df.where(F.forall({path!r}, F.isnotnull))."
        )


def check_numbers(source: Source, facts: Facts, spec: TensorSpec, expected: Expected) -> None:
    """Raise ValueError if a number does not meet its requirements."""
    faults, name = facts.faults, source.name
    target = f"input {spec.name!r} of the model takes {spec.dtype}"
    if "not finite" in faults:
        size = f" (or too large for {expected.finite})" if isinstance(source.leaf, T.DoubleType) else ""
        raise ValueError(
            f"Column {name!r} has NaN or infinity{size} in {faults['not finite']}. Expected finite numbers: "
            "drop these rows, or fill them, with df.na.fill (NaN) or F.when (infinity)."
        )
    if "fraction" in faults:
        raise ValueError(
            f"Column {name!r} has a number that is not an integer in {faults['fraction']}. Expected "
            f"integers: {target}."
        )
    if "outside" in faults and expected.limits is not None:
        low, high = expected.limits
        why = f"{target}"
        if spec.size is not None:
            why = f"the embedding at input {spec.name!r} of the model has {spec.size} ids"
        raise ValueError(
            f"Column {name!r} has numbers from {facts.low:.16g} to {facts.high:.16g}, outside {low} to "
            f"{high} in {faults['outside']}. Expected {low} to {high}: {why}."
        )


def check_leaf(source: Source, dtype: str, target: str) -> None:
    """Raise TypeError if the elements cannot become `dtype`."""
    if dtype not in SPARK_TYPES:
        raise TypeError(f"{target} takes {dtype}, which no column can hold. Expected one of {[*SPARK_TYPES]}")
    text = isinstance(source.leaf, T.StringType)
    if text and dtype != "string":
        raise TypeError(
            f"Column {source.name!r} holds strings. Expected numbers: {target} takes {dtype}. Encode it "
            "first (pyspark.ml.feature.StringIndexer), or cast it if the strings are numbers."
        )
    if dtype == "string" and not text:
        raise TypeError(
            f"Column {source.name!r} holds {source.leaf.simpleString()}. Expected strings: {target} takes "
            "strings. Cast it with .cast('string')."
        )


def check_batch_size(inputs: Sequence[TensorSpec], batch_size: int) -> None:
    """Raise ValueError if the model fixes another batch size."""
    for spec in inputs:
        if spec.batch not in (None, batch_size):
            raise ValueError(
                f"Input {spec.name!r} of the model fixes minibatches of {spec.batch} rows. Expected "
                f"batch_size={spec.batch}, or a model whose input leaves the batch size open. Received: "
                f"batch_size={batch_size}"
            )


def check_last_batch(
    inputs: Sequence[TensorSpec], batch_size: int, shares: Sequence[int], drop_remainder: bool
) -> None:
    """Raise ValueError if the model fixes minibatches that the rows of a worker do not fill."""
    if all(spec.batch is None for spec in inputs):
        return
    if drop_remainder:
        wrong = [rows for rows in shares if rows < batch_size]
        mend = "Train on more rows, or with fewer workers."
    else:
        wrong = [rows for rows in shares if rows % batch_size]
        mend = "Skip the last rows of each worker with drop_remainder=True."
    if wrong:
        raise ValueError(
            f"The model fixes minibatches of {batch_size} rows, but a worker has {wrong[0]} rows: its last "
            f"minibatch is not full. {mend} Received: rows={list(shares)}, drop_remainder={drop_remainder}"
        )


def check_classes(labels: Sequence[Column]) -> None:
    """Raise ValueError unless each row has one label that is its class."""
    if len(labels) != 1:
        raise ValueError(
            "`class_weight` is for models with one output and a label. Use a column of weights "
            f"instead: `sample_weight_col`. Received: labels={[column.title for column in labels]}"
        )
    (label,) = labels
    # Several integers in a row are classes of its positions, not a one-hot label.
    if len(label.shape) > 1 or (label.dtype == "int32" and label.width > 1):
        raise ValueError(
            f"Column {label.title!r} has labels of shape {label.shape}. Expected one class per row, or "
            "one-hot floats, for `class_weight`: weigh the rows by a column, `sample_weight_col`."
        )
