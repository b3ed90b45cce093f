"""A DataFrame as the workers get it, for tests of what is accepted and what is refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame

from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, prepare
from distkeras.worker.feed import Feed
from distkeras.worker.tensor_spec import TensorSpec

PAIR = TensorSpec("in", (2,))
IMAGE = TensorSpec("in", (28, 28, 1))
ONE = TensorSpec("out", (1,))
TEN = TensorSpec("out", (10,))


def prepared(
    df: DataFrame,
    *,
    features: Any = "x",
    label: Any = "y",
    inputs: tuple[TensorSpec, ...] = (PAIR,),
    outputs: tuple[TensorSpec, ...] = (ONE,),
    loss: Any = "mse",
    num_workers: int = 1,
    sample_weight_col: Any = None,
    **options: Any,
) -> Prepared:
    return prepare(
        df,
        Roles(features, label, sample_weight_col),
        inputs=inputs,
        outputs=outputs,
        loss=loss,
        num_workers=num_workers,
        **options,
    )


def minibatch(result: Prepared, rows: int = 1000) -> Any:
    """All rows, as the worker gets them."""
    table: pa.Table = result.frame.toArrow()
    with Feed(iter(table.to_batches()), result.columns, batch_size=rows, partition=0, num_epoch=1) as feed:
        (batch,) = feed.epoch(0)
    return batch


def refused(df: DataFrame, *parts: str, error: type[Exception] = ValueError, **options: Any) -> None:
    with pytest.raises(error) as caught:
        prepared(df, **options)
    for part in parts:
        assert part in str(caught.value)
