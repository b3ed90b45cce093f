"""Does a column fit the model? An error says which, what it holds, what it should, and how to mend it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import SPARK_TYPES, Facts, Source
from distkeras.worker.columns import Column, TensorSpec, nesting

Field = TypeVar("Field")
"""What a table says of a column."""

Names = str | Sequence[str] | Mapping[str, str]
"""One column, several in the model's order, or by the name of the model's input or output."""

SPARSE = {"sparsecategoricalcrossentropy"}
ONE_HOT = {"categoricalcrossentropy", "categoricalfocalcrossentropy", "categoricalhinge", "kldivergence"}
BINARY = {"binarycrossentropy", "binaryfocalcrossentropy"}
ELEMENTWISE = {
    *{"meansquarederror", "meanabsoluteerror", "meanabsolutepercentageerror", "mse", "mae", "mape", "msle"},
    *{"meansquaredlogarithmicerror", "huber", "logcosh", "poisson", "hinge", "squaredhinge"},
    *{"cosinesimilarity", "tversky", "dice"},
}
ALIASES = {"bce": "binarycrossentropy", "kld": "kldivergence", "kullbackleiblerdivergence": "kldivergence"}


def match(given: Names, specs: tuple[TensorSpec, ...], argument: str, what: str) -> list[str]:
    """Return the column for each of `specs`, in order.

    Args:
        given: what the user wrote.
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
        hint = ""
        if len(specs) == 1 and what == "input":
            hint = " Put them together in one column first, with pyspark.ml.feature.VectorAssembler."
        raise ValueError(
            f"The model has {len(specs)} {what}(s) ({', '.join(spec.name for spec in specs)}), and "
            f"`{argument}` names {len(columns)} column(s).{hint} Received: {argument}={given!r}"
        )
    return columns


def find(name: str, fields: Mapping[str, Field], argument: str) -> Field:
    """Return the field of the column `name`.

    Raises:
        ValueError: there is none.
    """
    if name in fields:
        return fields[name]
    close = difflib.get_close_matches(name, fields, 1, 0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Column {name!r} is not in the DataFrame.{hint} Expected one of {list(fields)}. "
        f"Received: {argument}={name!r}"
    )


def check_nulls(source: Source, facts: Facts) -> None:
    """Raise ValueError if a row is null, or has a null inside."""
    if facts.nulls:
        raise ValueError(
            f"Column {source.name!r} is null in {facts.nulls} row(s). Expected no null. Drop these rows with "
            f"df.na.drop(subset=[{source.name!r}]), or fill them."
        )
    if facts.inner_nulls:
        raise ValueError(
            f"Column {source.name!r} has a null inside the array in {facts.inner_nulls} row(s). Expected no "
            f"null. Fill them, or keep the other rows: df.where(F.forall({source.name!r}, F.isnotnull))."
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


def feature(source: Source, facts: Facts, spec: TensorSpec) -> Column:
    """Return how `source` feeds the input `spec`.

    Raises:
        ValueError: the length of its rows is another, or differs from row to row; a fractional number for an
            input of integers.
    """
    target = f"input {spec.name!r} of the model"
    if facts.fractional and spec.dtype.startswith(("int", "uint")):
        raise ValueError(
            f"Column {source.name!r} has a number that is no integer in {facts.fractional} row(s). Expected "
            f"integers: {target} takes {spec.dtype}."
        )
    return Column(source.name, _fit(source, facts, spec.shape, target), spec.dtype, spec.key)


def label(source: Source, facts: Facts, spec: TensorSpec, loss: str | None) -> Column:
    """Return how `source` is compared with the output `spec`.

    Args:
        source: the column.
        facts: about it.
        spec: the output.
        loss: a name of Keras, in whatever spelling; `None` or an unknown one: the user's own, which may want
            anything.

    Raises:
        ValueError: loss and output cannot take these labels.
    """
    plain = (loss or "").replace("_", "").lower()
    plain = ALIASES.get(plain, plain)
    if plain in SPARSE:
        return _class_label(source, facts, spec)
    if facts.high is not None and math.isnan(facts.high):  # To Spark, NaN is the greatest number.
        raise ValueError(
            f"Column {source.name!r} has the label NaN. Expected numbers: drop these rows, or fill them."
        )
    dtype = "float64" if spec.dtype == "float64" else "float32"
    if plain in ONE_HOT:
        _check_one_hot(source, facts, spec, str(loss))
    target = f"output {spec.name!r} of the model with loss {loss!r}"
    if plain in BINARY and not ((facts.low or 0) >= 0 and (facts.high or 0) <= 1):
        raise ValueError(
            f"Column {source.name!r} has labels from {facts.low:g} to {facts.high:g}. Expected 0 to 1: "
            f"{target}. Map the classes to 0 and 1."
        )
    if plain in ONE_HOT | BINARY | ELEMENTWISE:
        return Column(source.name, _fit(source, facts, spec.shape, target), dtype, spec.key)
    return _free_label(source, facts, spec, dtype)


def check_classes(labels: Sequence[Column]) -> None:
    """Raise ValueError unless each row has one label, which says its class."""
    if len(labels) != 1:
        raise ValueError(
            "`class_weight` is for models with one output and a label. Weigh the rows by a column: "
            f"`sample_weight_col`. Received: labels={[column.name for column in labels]}"
        )
    (label,) = labels
    # Integers of which a row has several are classes of its places, not one-hot.
    if len(label.shape) > 1 or (label.dtype == "int32" and label.width > 1):
        raise ValueError(
            f"Column {label.name!r} has labels of shape {label.shape}. Expected one class a row, or one-hot "
            "floats, for `class_weight`: weigh the rows by a column, `sample_weight_col`."
        )


def _class_label(source: Source, facts: Facts, spec: TensorSpec) -> Column:
    """Return a column of class indices: one a row, or one for each place of an output that has several."""
    name = source.name
    units = spec.shape[-1] if spec.shape else None
    expected = None if spec.shape is None else spec.shape[:-1]
    target = f"output {spec.name!r} with loss sparse_categorical_crossentropy"
    width = facts.lengths[0] if facts.lengths else (1, 1)
    if expected == () and source.depth and units and units > 1 and width == (units, units):
        raise ValueError(
            f"Column {name!r} has {units} values a row. Expected one class index: {target}. These look like "
            "one-hot labels: use loss='categorical_crossentropy'."
        )
    shape = _fit(source, facts, expected, target)
    if facts.fractional:
        raise ValueError(
            f"Column {name!r} has a label that is no integer in {facts.fractional} row(s). Expected class "
            f"indices: {target}. Index the classes (pyspark.ml.feature.StringIndexer), or use a loss for "
            "regression."
        )
    if facts.low is not None and facts.low < 0:
        raise ValueError(
            f"Column {name!r} has the label {facts.low:g}. Expected class indices from 0: {target}."
        )
    if units is not None and facts.high is not None and facts.high >= units:
        mend = (
            "Use loss='binary_crossentropy'" if units == 1 else f"Give the output {facts.high + 1:.0f} units"
        )
        raise ValueError(
            f"Column {name!r} has labels up to {facts.high:g}. Expected 0 to {units - 1}: {target}, which "
            f"has {units} unit(s). {mend}, or index the classes from 0."
        )
    return Column(name, shape, "int32", spec.key)


def _check_one_hot(source: Source, facts: Facts, spec: TensorSpec, loss: str) -> None:
    units = spec.shape[-1] if spec.shape else None
    width = facts.lengths[0] if facts.lengths else (1, 1)
    if units is not None and units > 1 and width == (1, 1):
        raise ValueError(
            f"Column {source.name!r} has a single class label a row. Expected {units} values (one-hot): "
            f"output {spec.name!r} has {units} units and the loss is {loss!r}. Use "
            "loss='sparse_categorical_crossentropy', or encode the labels with OneHotTransformer."
        )


def _free_label(source: Source, facts: Facts, spec: TensorSpec, dtype: str) -> Column:
    """Return a label for a loss that is not known here: as it comes, if every row is alike."""
    target = f"the loss at output {spec.name!r}"
    if isinstance(source.leaf, T.StringType):
        check_leaf(source, dtype, target)
    one_value = not source.depth and spec.shape is not None and math.prod(n or 0 for n in spec.shape) == 1
    shape = _fit(source, facts, spec.shape if one_value else None, target)
    return Column(source.name, shape, "int32" if source.integral else dtype, spec.key)


def _fit(source: Source, facts: Facts, shape: tuple[int | None, ...] | None, target: str) -> tuple[int, ...]:
    """Return the shape in which rows of `source` fill `shape`, with every unknown length found.

    Raises:
        ValueError: none does.
    """
    for level, (shortest, longest) in enumerate(facts.lengths):
        if shortest != longest:
            where = "" if level == 0 else f" at nesting level {level + 1}"
            wanted = "one length" if shape is None or None in shape else f"{_values(shape)} in every row"
            raise ValueError(
                f"Column {source.name!r} has rows of {shortest} to {longest} values{where}. Expected "
                f"{wanted} for {target}: pad or cut the rows."
            )
    found = source.shape or tuple(longest for _, longest in facts.lengths)
    if shape is None:
        return found
    filled = _fill(shape, found)
    if filled is None or 0 in found:
        held = "a single value" if not source.depth else f"{' x '.join(map(str, found))} value(s)"
        raise ValueError(
            f"Column {source.name!r} has {held} a row. Expected {_values(shape)} for {target}. Change the "
            "column, or the model's input shape and output units."
        )
    return filled


def _fill(shape: tuple[int | None, ...], found: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return `shape` with its unknown lengths taken from `found`; `None` where they cannot agree."""
    if None in shape:
        if len(found) == len(shape):
            shape = tuple(
                have if length is None else length for length, have in zip(shape, found, strict=True)
            )
        else:
            known = math.prod(length for length in shape if length is not None)
            if shape.count(None) > 1 or known == 0 or math.prod(found) % known:
                return None
            shape = tuple(math.prod(found) // known if length is None else length for length in shape)
    whole = tuple(length for length in shape if length is not None)
    if not found:
        return whole if math.prod(whole) == 1 else None
    return whole if nesting(whole, len(found)) == found else None


def _values(shape: tuple[int | None, ...]) -> str:
    if None in shape:
        return f"shape {shape}"
    return f"{math.prod(length or 1 for length in shape)} value(s) (shape {shape})"
