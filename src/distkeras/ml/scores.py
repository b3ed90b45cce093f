"""Raw predictions, probabilities and the class from the output of a model, for columns and for one row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.transformers.base import let

LEAST = 1e-38
"""Smaller probabilities are raised to this value before taking the logarithm."""

Row = npt.NDArray[np.float64]


def scores(output: Column, units: int, logits: bool) -> tuple[Column, Column]:
    """Return raw predictions and probabilities, arrays of double with one number per class.

    Args:
        output: the output of the model, an array of double.
        units: length of the output; one unit is the probability, or the logit, of class 1.
        logits: whether the model outputs logits.
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
    """Return the class with the largest `probability / threshold`, a double; NaN if a probability is NaN."""
    if thresholds is None:
        return let(probability, lambda values: _first_largest(values, values))
    limits = F.array(*(F.lit(limit) for limit in thresholds))
    return let(probability, lambda values: _first_largest(values, F.zip_with(values, limits, _scaled)))


def scores_of_row(output: Row, logits: bool) -> tuple[Row, Row]:
    """Like `scores`, for the output of the model for one row, shape (units,)."""
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
    """Like `predicted_class`, for the probabilities of one row."""
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
    # Any probability above 0 reaches a threshold of 0.
    unlimited = F.when(probability > 0, float("inf")).otherwise(float("-inf"))
    return F.when(limit == 0, unlimited).otherwise(probability / limit)


def _first_largest(probability: Column, scaled: Column) -> Column:
    place = F.array_position(scaled, F.array_max(scaled)) - 1
    highest = F.array_max(probability)  # In Spark, NaN is the greatest number.
    return F.when(F.isnan(highest), highest).otherwise(place.cast("double"))
