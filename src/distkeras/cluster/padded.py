"""Columns whose rows differ in length, for models that take padded rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from distkeras.cluster.facts import Facts
from distkeras.cluster.source import Source
from distkeras.worker.columns import Column
from distkeras.worker.feeding import Feeding
from distkeras.worker.padding import Padding
from distkeras.worker.tensor_spec import TensorSpec


def with_columns(inputs: Sequence[TensorSpec], feeding: Feeding) -> tuple[TensorSpec, ...]:
    """Return the inputs that columns feed: the others are masks.

    Raises:
        ValueError: a mask does not name an input.
    """
    names = {spec.key or spec.name for spec in inputs}
    if not feeding.masks <= names:
        raise ValueError(
            f"`mask` must name an input of the model: {sorted(names)}. Received: mask={sorted(feeding.masks)}"
        )
    return tuple(spec for spec in inputs if (spec.key or spec.name) not in feeding.masks)


def padding_for(
    source: Source, facts: Facts, spec: TensorSpec, feeding: Feeding, step: int, *, label: bool = False
) -> Padding | None:
    """Return how rows of `source` are padded; `None` if they fit the model without padding.

    Raises:
        ValueError: `pad_to` names a column of single values; a row is too long; or the labels of an output
            without steps differ in length.
    """
    padding = feeding.padding(source.name)
    if padding is None:
        return None
    named = isinstance(feeding.pad_to, dict)
    if not facts.lengths:
        if named and not source.depth:
            raise ValueError(
                f"Column {source.name!r} has a single value per row. Expected arrays, to pad. "
                f"Received: pad_to={feeding.pad_to!r}"
            )
        return None
    shortest, longest = facts.lengths[0]
    wanted = spec.shape[0] if spec.shape else None
    fits = shortest == longest and (spec.shape is None or _holds(facts, spec.shape))
    if fits and not named:
        return None
    if label and spec.shape is not None and len(spec.shape) < 2:
        raise ValueError(
            f"Column {source.name!r} has labels of {shortest} to {longest} values, and output {spec.name!r} "
            f"has shape {spec.shape} per row: the loss is a mean over the row, so padding "
            "would count. Expected an output with an axis of steps and one of values, such as (None, 1). "
            f"Received: pad_to={feeding.pad_to!r}"
        )
    longest //= step
    if padding.too_long(longest):
        raise ValueError(
            f"Column {source.name!r} has rows of up to {longest} steps. Expected at most {padding.limit}: "
            "raise the length, or cut rows with distkeras.Padding(..., truncate=True). "
            f"Received: pad_to={feeding.pad_to!r}"
        )
    if wanted is not None and padding.to != wanted:
        raise ValueError(
            f"Column {source.name!r} has rows of {shortest} to {longest} values, and {spec.name!r} of the "
            f"model takes {wanted}. Expected pad_to={wanted}. Received: pad_to={feeding.pad_to!r}"
        )
    return padding


def resolve(
    facts: Facts,
    step: int,
    padding: Padding,
    as_if_equal: Callable[[Facts], Column],
) -> Column:
    """Return the form of a column whose rows are padded.

    Args:
        facts: facts about the column.
        step: numbers per step of a flat row.
        padding: the padding.
        as_if_equal: returns the form of rows of equal length.
    """
    longest = padding.to or max(1, facts.lengths[0][1] // step)
    numbers = longest * step
    column = as_if_equal(replace(facts, lengths=((numbers, numbers), *facts.lengths[1:])))
    return replace(column, padding=padding)


def _holds(facts: Facts, shape: tuple[int | None, ...]) -> bool:
    """Whether rows of one length fill `shape`, or hold one label for each of its positions."""
    if None in shape:
        return False
    whole = [length or 1 for length in shape]
    found = math.prod(longest for _, longest in facts.lengths)
    return found in (math.prod(whole), math.prod(whole[:-1]))


def step_of(source: Source, spec: TensorSpec) -> int:
    """Return how many numbers of a flat row of features make a step."""
    if source.depth != 1 or not spec.shape or None in spec.shape[1:]:
        return 1
    return math.prod(length or 1 for length in spec.shape[1:])
