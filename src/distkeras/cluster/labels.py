"""Check whether labels fit the loss and the output: requirements on their numbers, and errors for faults."""

from __future__ import annotations

import math

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.facts import Expected, Facts
from distkeras.cluster.forms import fit
from distkeras.cluster.source import Source
from distkeras.cluster.validate import check_leaf, check_numbers
from distkeras.worker.columns import Column
from distkeras.worker.tensor_spec import TensorSpec

SPARSE = {"sparsecategoricalcrossentropy"}
ONE_HOT = {"categoricalcrossentropy", "categoricalfocalcrossentropy", "categoricalhinge", "kldivergence"}
BINARY = {"binarycrossentropy", "binaryfocalcrossentropy"}
ELEMENTWISE = {
    *{"meansquarederror", "meanabsoluteerror", "meanabsolutepercentageerror", "mse", "mae", "mape", "msle"},
    *{"meansquaredlogarithmicerror", "huber", "logcosh", "poisson", "hinge", "squaredhinge"},
    *{"cosinesimilarity", "tversky", "dice"},
}
ALIASES = {"bce": "binarycrossentropy", "kld": "kldivergence", "kullbackleiblerdivergence": "kldivergence"}


INT32 = (-(2**31), 2**31 - 1)


def is_known(loss: str | None) -> bool:
    """Whether the valid labels of the loss are known; a loss of the user's own may take any."""
    return _plain(loss) in SPARSE | ONE_HOT | BINARY | ELEMENTWISE


def expected(source: Source, spec: TensorSpec, loss: str | None) -> Expected:
    """Return the requirements on the numbers of a label."""
    plain = _plain(loss)
    if plain in SPARSE:
        units = spec.shape[-1] if spec.shape else None
        return Expected(integers=True, limits=(0, INT32[1] if units is None else units - 1))
    if not is_known(loss):
        return Expected(limits=INT32 if source.integral else None)
    return Expected(finite=_dtype(spec), limits=(0, 1) if plain in BINARY else None)


def label(source: Source, facts: Facts, spec: TensorSpec, loss: str | None) -> Column:
    """Return the form in which `source` is compared with the output `spec`.

    Args:
        source: the column.
        facts: facts about it.
        spec: the output.
        loss: Keras's name, in any spelling; `None` or an unknown name for the user's own, which may take any
            labels.

    Raises:
        ValueError: loss and output cannot take these labels.
    """
    plain = _plain(loss)
    if plain in SPARSE:
        return _class_label(source, facts, spec)
    target = f"output {spec.name!r} of the model with loss {loss!r}"
    if plain in ONE_HOT:
        _check_one_hot(source, facts, spec, str(loss))
    if "not finite" in facts.faults:
        raise ValueError(
            f"Column {source.name!r} has the label NaN, or an infinite one, in {facts.faults['not finite']}. "
            f"Expected finite numbers: {target}. Drop these rows, or fill them."
        )
    if "outside" in facts.faults and plain in BINARY:
        raise ValueError(
            f"Column {source.name!r} has labels from {facts.low:g} to {facts.high:g}, outside 0 to 1 in "
            f"{facts.faults['outside']}. Expected 0 to 1: {target}. Map the classes to 0 and 1."
        )
    if is_known(loss):
        finite, limits = True, (0, 1) if plain in BINARY else None
        shape = fit(source, facts, spec.shape, target)
        return Column("", shape, _dtype(spec), spec.key, source=source.name, finite=finite, limits=limits)
    return _free_label(source, facts, spec)


def _class_label(source: Source, facts: Facts, spec: TensorSpec) -> Column:
    """Return a column of class indices: one per row, or one for each position of an output with several."""
    name = source.name
    units = spec.shape[-1] if spec.shape else None
    places = None if spec.shape is None else spec.shape[:-1]
    target = f"output {spec.name!r} with loss sparse_categorical_crossentropy"
    width = facts.lengths[0] if facts.lengths else (1, 1)
    if places == () and source.depth and units and units > 1 and width == (units, units):
        raise ValueError(
            f"Column {name!r} has {units} values per row. Expected one class index: {target}. These look "
            "like one-hot labels: use loss='categorical_crossentropy'."
        )
    shape = fit(source, facts, places, target)
    if "fraction" in facts.faults:
        raise ValueError(
            f"Column {name!r} has a label that is not an integer in {facts.faults['fraction']}. Expected "
            f"class indices: {target}. Index the classes (pyspark.ml.feature.StringIndexer), or use a loss "
            "for regression."
        )
    outside = facts.faults.get("outside")
    if outside is not None and facts.low is not None and facts.low < 0:
        raise ValueError(
            f"Column {name!r} has the label {facts.low:g}; labels outside the classes: {outside}. Expected "
            f"class indices from 0: {target}."
        )
    if outside is not None and facts.high is not None:
        mend = (
            "Use loss='binary_crossentropy'" if units == 1 else f"Give the output {facts.high + 1:.0f} units"
        )
        raise ValueError(
            f"Column {name!r} has labels up to {facts.high:g}; labels outside the classes: {outside}. "
            f"Expected 0 to {(units or 2**31) - 1}: {target}, which has {units} unit(s). {mend}, or index "
            "the classes from 0."
        )
    return Column("", shape, "int32", spec.key, source=name)


def _check_one_hot(source: Source, facts: Facts, spec: TensorSpec, loss: str) -> None:
    units = spec.shape[-1] if spec.shape else None
    width = facts.lengths[0] if facts.lengths else (1, 1)
    if units is not None and units > 1 and width == (1, 1):
        raise ValueError(
            f"Column {source.name!r} has a single class label per row. Expected {units} values (one-hot): "
            f"output {spec.name!r} has {units} units and the loss is {loss!r}. Use "
            "loss='sparse_categorical_crossentropy', or encode the labels with OneHotTransformer."
        )


def _free_label(source: Source, facts: Facts, spec: TensorSpec) -> Column:
    """Return a label for an unknown loss: unconverted, if every row has the same form."""
    target = f"the loss at output {spec.name!r}"
    if isinstance(source.leaf, T.StringType):
        check_leaf(source, _dtype(spec), target)
    one_value = not source.depth and spec.shape is not None and math.prod(n or 0 for n in spec.shape) == 1
    check_numbers(source, facts, spec, expected(source, spec, None))
    shape = fit(source, facts, spec.shape if one_value else None, target)
    return Column("", shape, "int32" if source.integral else _dtype(spec), spec.key, source=source.name)


def _plain(loss: str | None) -> str:
    """Return Keras's shortest name of a loss."""
    plain = (loss or "").replace("_", "").lower()
    return ALIASES.get(plain, plain)


def _dtype(spec: TensorSpec) -> str:
    return "float64" if spec.dtype == "float64" else "float32"
