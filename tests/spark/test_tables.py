"""Data that is no DataFrame yet: what is taken, as which columns, and what is left behind."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distkeras
from distkeras.cluster import tables
from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import prepare
from distkeras.cluster.session import local_session
from distkeras.cluster.tables import as_frame
from distkeras.worker.tensor_spec import TensorSpec

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.arange(6)
TABLE = pa.table({"features": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 2), "label": Y})
ROLES = Roles("features")


def parquet(folder):
    pq.write_table(TABLE, folder / "rows.parquet")
    return folder / "rows.parquet"


class Interchange:
    """A table of a library that knows the older protocol alone."""

    def __dataframe__(self, **options):
        return pa.table({"features": X[:, 0], "label": Y}).__dataframe__(**options)


KINDS = {
    "path": lambda folder: str(parquet(folder)),
    "folder": lambda folder: parquet(folder).parent,
    "pyarrow table": lambda _: TABLE.append_column("unused", pa.array([[object.__name__]] * 6)),
    "pyarrow stream": lambda _: TABLE.to_reader(max_chunksize=4),
    "pyarrow batch": lambda _: TABLE.to_batches()[0],
    "pandas": lambda _: pd.DataFrame({"features": list(X), "label": Y}, index=Y + 7),
    "polars": lambda _: pl.from_arrow(TABLE),
    "arrays by column": lambda _: {"label": Y, "features": X, "unused": object()},
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_gives_arrow_is_taken_as_the_columns_that_are_needed(spark, tmp_path, kind):
    with as_frame(KINDS[kind](tmp_path), ROLES, 1) as (frame, roles):
        assert roles == ROLES
        assert frame.columns == ["features", "label"]
        rows = frame.collect()
    assert [list(row.features) for row in rows] == X.tolist()
    assert [row.label for row in rows] == Y.tolist()


def test_a_dataframe_is_taken_as_it_is(spark):
    df = spark.range(3)
    with as_frame(df, ROLES, 2) as (frame, _):
        assert frame is df


def test_the_older_interchange_protocol_is_taken(spark):
    with as_frame(Interchange(), ROLES, 1) as (frame, _):
        assert [tuple(row) for row in frame.collect()] == list(zip(X[:, 0], Y, strict=True))


def test_a_tuple_says_what_its_columns_are(spark):
    weight = np.ones(6)
    with as_frame((X, Y, weight), Roles("image", "kind"), 1) as (frame, roles):
        assert roles == Roles("x", "y", "sample_weight")
        assert dict(frame.dtypes) == {"x": "array<float>", "y": "bigint", "sample_weight": "double"}
    with as_frame(({"a": X, "b": Y}, [Y, X]), ROLES, 1) as (frame, roles):
        assert roles == Roles({"a": "x a", "b": "x b"}, ["y 0", "y 1"])
        assert frame.columns == ["x a", "x b", "y 0", "y 1"]
    with as_frame(([[1.0, 2.0], [3.0, 4.0]], None), ROLES, 1) as (frame, roles):
        assert roles == Roles("x", None)
        assert [row.x for row in frame.collect()] == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("rows", "kind", "first"),
    [
        (np.arange(12, dtype=np.uint8).reshape(2, 3, 2), "binary", bytes(range(6))),
        (np.ones((2, 3), np.float16), "array<float>", [1, 1, 1]),
        (np.array([[True, False]] * 2), "array<boolean>", [True, False]),
        (np.array(["to be", "or not"]), "string", "to be"),
        (np.array([["to"], ["be"]], object), "array<string>", ["to"]),
        (np.ones((2, 2, 2), np.float64)[:, ::2], "array<double>", [1, 1]),
        (np.array([7, 8], np.uint8), "smallint", 7),
        (keras.ops.ones((2, 2)), "array<float>", [1, 1]),
        (pd.DataFrame({"a": [1, 2], "b": [3, 4]}), "array<bigint>", [1, 3]),
    ],
)
def test_arrays_of_any_kind_become_columns(spark, rows, kind, first):
    with as_frame((rows,), ROLES, 1) as (frame, _):
        assert frame.dtypes == [("x", kind)]
        assert frame.first().x == first


def test_views_and_half_precision_of_arrow_are_made_readable(spark):
    table = pa.table(
        {
            "features": pa.array([["a", "b"]], pa.list_(pa.string_view())),
            "label": pa.array([np.float16(0.5)], pa.float16()),
        }
    )
    with as_frame(table, ROLES, 1) as (frame, _):
        assert [tuple(row) for row in frame.collect()] == [(["a", "b"], 0.5)]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_keep_the_shape_of_their_rows_where_the_model_leaves_it_open(spark, dtype):
    images, boxes = np.zeros((4, 5, 6, 3), dtype), np.ones((4, 2, 2))
    with as_frame((images, boxes), ROLES, 1) as (frame, roles):
        specs = {"inputs": (TensorSpec("in", (None, None, 3)),), "outputs": (TensorSpec("out", None),)}
        columns = prepare(frame, roles, **specs, loss=None, num_workers=1).columns
        assert columns.features[0].shape == (5, 6, 3)
        assert columns.labels[0].shape == (2, 2)
        with pytest.raises(ValueError, match=r"has 5 x 6 x 3 value\(s\) per row. Expected .*shape \(90,\)"):
            prepare(frame, roles, **specs | {"inputs": (TensorSpec("in", (90,)),)}, loss=None, num_workers=1)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_rows_in_memory_reach_the_workers_evenly_without_a_shuffle(spark, caplog, num_workers):
    x = np.zeros((1001, 2000), np.float32)
    given = (x, np.arange(1001))
    with (
        caplog.at_level(logging.INFO, "distkeras.cluster"),
        as_frame(given, ROLES, num_workers) as (frame, roles),
    ):
        specs = {"inputs": (TensorSpec("in", (2000,)),), "outputs": (TensorSpec("out", (1,)),)}
        prepared = prepare(frame, roles, **specs, loss="mse", num_workers=num_workers, batch_size=1)
        assert "in the existing partitions" in caplog.text
        assert prepared.rows_per_partition in {(1001,), (500, 501), (501, 500)}
        if num_workers == 1:
            label = prepared.columns.labels[0].name
            assert [row[label] for row in prepared.frame.select(label).collect()] == list(range(1001))


def test_nothing_is_left_on_disk(spark):
    folder = Path(spark.sparkContext._temp_dir)
    before = set(folder.iterdir())
    with as_frame((X, Y), ROLES, 2):
        (lent,) = set(folder.iterdir()) - before
        assert len(list(lent.glob("*.parquet"))) == 2
    assert set(folder.iterdir()) == before


def test_on_a_cluster_the_rows_travel_through_the_driver(spark, monkeypatch):
    monkeypatch.setattr(tables, "is_local", lambda session: False)
    for given in ((X, Y), TABLE, TABLE.to_reader()):
        with as_frame(given, ROLES, 2) as (frame, _):
            assert sorted(tuple(row[0]) for row in frame.collect()) == [tuple(row) for row in X.tolist()]


def test_a_local_session_is_made_where_there_is_none_and_said(spark, monkeypatch, caplog):
    monkeypatch.setattr(tables, "present_session", lambda: None)
    monkeypatch.setattr(tables, "local_session", lambda: spark)
    with caplog.at_level(logging.INFO, "distkeras.cluster"), as_frame((X, Y), ROLES, 1) as (frame, _):
        assert frame.count() == 6
    assert "There is no Spark session. Creating a local one" in caplog.text


def test_a_thread_without_an_active_session_takes_the_one_that_there_is_as_it_is(spark):
    settings = {name: spark.conf.get(name, None) for name in ("spark.master", "spark.app.name")}
    found = []
    with ThreadPoolExecutor(1) as pool:
        found += pool.submit(lambda: [tables.session_for_data(), local_session(1)]).result()
    assert all(each is spark for each in found)
    assert settings == {name: spark.conf.get(name, None) for name in settings}
    assert local_session(1) is spark
    assert settings == {name: spark.conf.get(name, None) for name in settings}


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (X, TypeError, r"train\(\(x, y\)\)\. Received: .*ndarray"),
        ((row for row in X), TypeError, "Read it into arrays, or into Parquet files"),
        (5, TypeError, r"Expected a Spark DataFrame; the path .* Received: data of type <class 'int'>"),
        ((X, Y[1:]), ValueError, r"equal numbers of rows. Received: rows={'x': 6, 'y': 5}"),
        ((X, Y, Y, Y), ValueError, "a tuple of 4 parts"),
        ((X, 3), ValueError, "'y'. Received: 3"),
        ((X, Y.astype("M8[s]")), TypeError, r"array 'y'. Received: dtype=datetime64\[s\]"),
        ({"feature": X, "label": Y}, ValueError, "'features' is not in .* Did you mean 'feature'"),
        (TABLE.drop_columns("label"), ValueError, "'label' is not in"),
    ],
)
def test_what_is_no_data_is_refused(spark, data, error, message):
    with pytest.raises(error, match=message), as_frame(data, ROLES, 1):
        pass


def test_an_rdd_is_refused_with_the_way_to_a_dataframe(spark):
    with pytest.raises(TypeError, match=r"toDF\(\)"), as_frame(spark.sparkContext.range(3), ROLES, 1):
        pass


def test_training_on_arrays_equals_fit_on_them(spark):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    labels, weight, by_class = Y % 2, np.linspace(0, 1, 6), {1: 5.0}
    settings = (keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    plain.compile(*settings)
    product = weight * np.where(labels == 1, 5, 1)
    plain.fit(X, labels, sample_weight=product, batch_size=4, epochs=2, shuffle=False, verbose=0)
    trainer = distkeras.SingleTrainer(model, *settings, batch_size=4, num_epoch=2, class_weight=by_class)
    trained = trainer.train((X, labels, weight))
    for value, expected in zip(trained.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    with pytest.raises(TypeError, match=r"train\(\(x, y\)\)"):
        trainer.train(X, labels)
