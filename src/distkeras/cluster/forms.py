"""Match the form of rows to the model's shapes. Errors state the form of a row and the expected one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distkeras.cluster.facts import Facts
from distkeras.cluster.source import Source
from distkeras.worker.columns import Column, nesting
from distkeras.worker.images import image_hint
from distkeras.worker.tensor_spec import TensorSpec

SHOWN_PARTS = 4
"""Number of combined columns that a message names."""


def feature(source: Source, facts: Facts, spec: TensorSpec) -> Column:
    """Return the form in which `source` feeds the input `spec`.

    Raises:
        ValueError: the length of its rows does not fit, or differs from row to row.
    """
    target = f"input {spec.name!r} of the model"
    return Column("", fit(source, facts, spec.shape, target), spec.dtype, spec.key, source=source.name)


def assembled(sources: Sequence[Source], found: Sequence[Facts], spec: TensorSpec) -> Column:
    """Return the form in which several columns, combined in their order, feed the input `spec`.

    Raises:
        ValueError: their total of numbers is not that of the input, or differs from row to row.
        TypeError: a column cannot be combined with others.
    """
    parts = []
    for source, facts in zip(sources, found, strict=True):
        check_assembled(source, spec)
        shape = fit(source, facts, None, f"input {spec.name!r} of the model")
        parts.append((source.name, math.prod(shape)))
    width = sum(numbers for _, numbers in parts)
    names = ", ".join(source.name for source in sources[:SHOWN_PARTS])
    more = f" and {len(sources) - SHOWN_PARTS} more" if len(sources) > SHOWN_PARTS else ""
    filled = (width,) if spec.shape is None else _fill(spec.shape, (width,))
    if filled is None:
        raise ValueError(
            f"The columns {names}{more} have {width} value(s) per row together. Expected "
            f"{_values(spec.shape or ())} for input {spec.name!r} of the model. "
            f"Received: features_col={[source.name for source in sources]}"
        )
    return Column("", filled, spec.dtype, spec.key, source=names + more, parts=tuple(parts))


def check_assembled(source: Source, spec: TensorSpec) -> None:
    """Raise TypeError if a column cannot be combined with others for one input."""
    if source.binary or source.depth > 1:
        held = "bytes" if source.binary else "nested arrays"
        raise TypeError(
            f"Column {source.name!r} holds {held}. Expected numbers, arrays of them or Spark ML vectors, "
            f"where several columns feed input {spec.name!r} of the model together. Use F.flatten."
        )


def weight(source: Source, facts: Facts, spec: TensorSpec, known: bool) -> Column:
    """Return the form in which `source` weighs the rows, or each position, of the output `spec`.

    Args:
        source: the column.
        facts: facts about it.
        spec: the output; it has a loss for each position, without its last axis.
        known: whether the loss is known to have this form.

    Raises:
        ValueError: the column has neither one number per row nor one for each position.
    """
    target = f"the sample weight of output {spec.name!r} of the model"
    shape = fit(source, facts, None, target)
    places = None if spec.shape is None else spec.shape[:-1]
    if math.prod(shape) == 1:
        # By itself Keras does not expand one number per row to the rank of losses with several positions.
        shape = (1,) * len(places or ()) if known else ()
    elif known and places is not None:
        filled = _fill(places, shape)
        # For positions in rows and columns, one weight for each row is enough.
        if filled is None and (len(shape) != len(places) - 1 or not _agree(shape, places)):
            raise ValueError(
                f"Column {source.name!r} has {' x '.join(map(str, shape))} value(s) per row. Expected a "
                f"number per row{f', or {_values(places)}' if places else ''} for {target}."
            )
        shape = (*shape, 1) if filled is None else filled
    return Column("", shape, "float32", spec.key, source=source.name, finite=True)


def _agree(shape: tuple[int, ...], places: tuple[int | None, ...]) -> bool:
    return all(wanted in (None, have) for have, wanted in zip(shape, places, strict=False))


def fit(source: Source, facts: Facts, shape: tuple[int | None, ...] | None, target: str) -> tuple[int, ...]:
    """Return the shape in which rows of `source` fill `shape`, with all unknown lengths determined.

    Raises:
        ValueError: the rows do not fill it.
    """
    for level, (shortest, longest) in enumerate(facts.lengths):
        if shortest != longest:
            where = "" if level == 0 else f" at nesting level {level + 1}"
            wanted = "one length" if shape is None or None in shape else f"{_values(shape)} in every row"
            raise ValueError(
                f"Column {source.name!r} has rows of {shortest} to {longest} values{where}. Expected "
                f"{wanted} for {target}: pad or cut the rows{image_hint(facts.head())}."
            )
    found = source.shape or tuple(longest for _, longest in facts.lengths)
    if shape is None:
        return found
    filled = _fill(shape, found)
    if filled is None or 0 in found:
        held = "a single value" if not source.depth else f"{' x '.join(map(str, found))} value(s)"
        raise ValueError(
            f"Column {source.name!r} has {held} per row. Expected {_values(shape)} for {target}. Change the "
            f"column, or the model's input shape and output units{image_hint(facts.head())}."
        )
    return filled


def _fill(shape: tuple[int | None, ...], found: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return `shape` with its unknown lengths taken from `found`; `None` if they do not fit."""
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
