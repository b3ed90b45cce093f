"""From the output of a model to raw predictions, probabilities and a class: of columns, and of one row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.transformers.base import let

LEAST = 1e-38
"""Probabilities are held at least this far from 0 before their logarithm is taken."""

Row = npt.NDArray[np.float64]


def scores(output: Column, units: int, logits: bool) -> tuple[Column, Column]:
    """Return raw predictions and probabilities, arrays of double with a number for every class.

    Args:
        output: of the model, an array of double.
        units: its length; one unit is the probability, or the logit, of class 1.
        logits: whether the model gives logits.
    """
    if units == 1:
        value = output[0]
        one = 1 / (1 + F.exp(-value)) if logits else value
        odds = value if logits else _log(value) - _log(1 - value)
        return F.array(-odds, odds), F.array(1 - one, one)
    if logits:
        return output, let(output, _softmax)
    return F.transform(output, _log), output


def predicted_class(probability: Column, thresholds: list[float] | None) -> Column:
    """Return the class of the largest `probability / threshold`, a double; NaN where a probability is NaN."""
    if thresholds is None:
        return let(probability, lambda values: _first_largest(values, values))
    limits = F.array(*(F.lit(limit) for limit in thresholds))
    return let(probability, lambda values: _first_largest(values, F.zip_with(values, limits, _scaled)))


def scores_of_row(output: Row, logits: bool) -> tuple[Row, Row]:
    """Return what `scores` gives, of the output of the model for one row, shape (units,)."""
    if len(output) == 1:
        (value,) = output
        one = 1 / (1 + np.exp(-value)) if logits else value
        odds = value if logits else _log_of_row(value) - _log_of_row(1 - value)
        return np.array([-odds, odds]), np.array([1 - one, one])
    if logits:
        powers = np.exp(output - np.max(output))
        return output, powers / np.sum(powers)
    return _log_of_row(output), output


def predicted_class_of_row(probability: Row, thresholds: list[float] | None) -> float:
    """Return what `predicted_class` gives, of the probabilities of one row."""
    if np.isnan(probability).any():
        return float("nan")
    limits = np.ones(len(probability)) if thresholds is None else np.array(thresholds)
    unlimited = np.where(probability > 0, np.inf, -np.inf)
    scaled = np.divide(probability, limits, out=unlimited, where=limits > 0)
    return float(np.argmax(scaled))


def _softmax(logits: Column) -> Column:
    largest = F.array_max(logits)
    powers = F.transform(logits, lambda value: F.exp(value - largest))
    return let(
        powers,
        lambda parts: F.transform(
            parts, lambda part: part / F.aggregate(parts, F.lit(0.0), lambda total, x: total + x)
        ),
    )


def _log(value: Column) -> Column:
    return F.log(F.greatest(value, F.lit(LEAST)))


def _log_of_row(value: Row) -> Row:
    row: Row = np.log(np.maximum(value, LEAST))
    return row


def _scaled(probability: Column, limit: Column) -> Column:
    # A threshold of 0 is the one that any probability above 0 reaches.
    unlimited = F.when(probability > 0, float("inf")).otherwise(float("-inf"))
    return F.when(limit == 0, unlimited).otherwise(probability / limit)


def _first_largest(probability: Column, scaled: Column) -> Column:
    place = F.array_position(scaled, F.array_max(scaled)) - 1
    highest = F.array_max(probability)  # To Spark, NaN is the greatest number.
    return F.when(F.isnan(highest), highest).otherwise(place.cast("double"))
