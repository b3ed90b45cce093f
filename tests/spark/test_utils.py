"""The functions of `utils`."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from pyspark.sql import Row

from distkeras import utils
from distkeras.events import Window


def model():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, activation="relu"), keras.layers.BatchNormalization()]
    )


def window(worker, iteration, loss, samples=10):
    return Window(worker, 0, iteration, 1, samples, {"loss": loss}, 0, float(iteration))


def test_shuffle_keeps_the_rows_and_an_order_that_stays(spark):
    df = spark.range(200)
    mixed = utils.shuffle(df, seed=5)
    first = [row.id for row in mixed.collect()]
    assert sorted(first) == list(range(200))
    assert first != list(range(200))
    assert [row.id for row in mixed.collect()] == first
    assert mixed.is_cached
    mixed.unpersist()


def test_precache_lays_the_rows_out_for_the_workers(spark):
    cached = utils.precache(spark.range(10), 3)
    assert (cached.rdd.getNumPartitions(), cached.is_cached, cached.count()) == (3, True, 10)
    cached.unpersist()
    with pytest.raises(ValueError, match="num_workers=0"):
        utils.precache(spark.range(10), 0)


def test_a_new_row_has_one_field_more_or_one_replaced():
    row = Row(b=1, a="x")
    assert utils.new_dataframe_row(row, "c", 2.5) == Row(b=1, a="x", c=2.5)
    assert utils.new_dataframe_row(row, "b", 7) == Row(b=7, a="x")
    with pytest.raises(TypeError, match="named fields"):
        utils.new_dataframe_row(Row(1, 2), "c", 3)


def test_a_json_object_becomes_a_row():
    assert utils.json_to_dataframe_row('{"label": 1, "x": [0.5]}') == Row(label=1, x=[0.5])
    with pytest.raises(ValueError, match="JSON object"):
        utils.json_to_dataframe_row("[1]")


def test_one_hot_refuses_what_is_no_class():
    assert utils.to_one_hot_encoded_dense(2.0, 4).tolist() == [0, 0, 1, 0]
    assert utils.to_one_hot_encoded_dense(1).tolist() == [0, 1]
    for value in (2, -1, 0.5, float("nan")):
        with pytest.raises(ValueError, match="integer from 0 to 1"):
            utils.to_one_hot_encoded_dense(value)


def test_a_model_comes_back_from_its_dictionary_with_the_same_predictions():
    original = model()
    dictionary = utils.serialize_keras_model(original)
    assert json.loads(dictionary["model"])["class_name"] == "Sequential"
    x = np.random.default_rng(0).normal(size=(5, 4))
    copy = utils.deserialize_keras_model(dictionary)
    np.testing.assert_array_equal(copy.predict(x, verbose=0), original.predict(x, verbose=0))
    with pytest.raises(ValueError, match="'weights'"):
        utils.deserialize_keras_model({"model": dictionary["model"]})


def test_uniform_weights_fills_the_range_and_leaves_the_statistics():
    drawn = model()
    utils.uniform_weights(drawn, (1.0, 2.0), seed=1)
    for weight in drawn.trainable_variables:
        values = keras.ops.convert_to_numpy(weight)
        assert values.min() >= 1.0
        assert values.max() <= 2.0
    assert keras.ops.convert_to_numpy(drawn.layers[-1].moving_variance).tolist() == [1, 1, 1]
    again = model()
    utils.uniform_weights(again, (1.0, 2.0), seed=1)
    np.testing.assert_array_equal(again.get_weights()[0], drawn.get_weights()[0])
    with pytest.raises(ValueError, match="from low to high"):
        utils.uniform_weights(drawn, (1, 0))


def test_histories_are_averaged_and_parted_by_worker():
    history = [window(1, 0, 3.0), window(0, 0, 1.0, samples=30), window(0, 1, 0.5)]
    averaged = utils.history_executors_average(history)
    assert [(record.iteration, record.workers, record.metrics["loss"]) for record in averaged] == [
        (0, 2, 1.5),
        (1, 1, 0.5),
    ]
    assert [entry.iteration for entry in utils.history_executor(history, 0)] == [0, 1]
    assert utils.history_executor(history, 7) == []
