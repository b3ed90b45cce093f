"""Code of the user's in the worker, and rows of different lengths, from a DataFrame to the trained model."""

from __future__ import annotations

import io
import os
import random
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import keras
import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

import distkeras
from distkeras.cluster.arrays import Roles
from distkeras.cluster.batches import BATCH_BYTES, SETTING
from distkeras.cluster.data import Prepared, check_full, prepare
from distkeras.cluster.evaluation import evaluate
from distkeras.cluster.stage import Stage
from distkeras.ml import KerasClassificationModel, KerasClassifier
from distkeras.predictors import ModelPredictor, predict_udf
from distkeras.trainers import DOWNPOUR, SingleTrainer
from distkeras.worker.feed import Feed
from distkeras.worker.feeding import Feeding
from distkeras.worker.padding import Padding
from distkeras.worker.rows import rows_at_once
from distkeras.worker.tensor_spec import TensorSpec

BATCH, ROWS = 8, 20
DRAW = np.random.default_rng(2)
PICTURES = DRAW.integers(0, 256, (ROWS, 4, 4, 3)).astype(np.uint8)
LABELS = DRAW.integers(0, 3, ROWS).tolist()
SENTENCES = [DRAW.integers(1, 9, length).tolist() for length in DRAW.integers(1, 13, ROWS)]
TAGS = [[word % 3 for word in words] for words in SENTENCES]
SENTENCE, TAGGED = TensorSpec("words", (None,), "int32"), TensorSpec("tags", (None, 3))


def encoded(picture: Any) -> bytes:
    """A picture in a file of NumPy's: bytes that differ in length are decoded as JPEG or PNG are."""
    file = io.BytesIO()
    np.savez_compressed(file, picture)
    return file.getvalue()


def decoding() -> Any:
    """Return a function that travels by value: this module is no worker's."""

    def decoded(columns: dict[str, Any], rng: np.random.Generator | None = None) -> Any:
        pictures = np.stack([np.load(io.BytesIO(data))["arr_0"] for data in columns["my picture"]]) / 255
        if rng is not None:
            pictures += rng.normal(0, 0.1, pictures.shape)
        return pictures

    return decoded


def picture_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    )


def prepared(df: Any, features: Any, label: Any, specs: Any, **options: Any) -> Prepared:
    inputs, outputs = specs
    loss = options.pop("loss", "sparse_categorical_crossentropy")
    roles = Roles(features, label, options.pop("weight", None))
    return prepare(df, roles, inputs=inputs, outputs=outputs, loss=loss, num_workers=1, **options)


def minibatch(result: Prepared) -> Any:
    """All rows, as the worker gets them."""
    batches = result.frame.toArrow().to_batches()
    with Feed(iter(batches), result.columns, batch_size=1000, partition=0, num_epoch=1) as feed:
        (batch,) = feed.epoch(0)
    return batch


def test_pictures_are_decoded_and_augmented_in_the_worker_and_train_like_fit(spark: SparkSession) -> None:
    rows = [(encoded(picture), label) for picture, label in zip(PICTURES, LABELS, strict=True)]
    frame = spark.createDataFrame(rows, "`my picture` binary, label int").coalesce(1)
    options: dict[str, Any] = {"features_col": "my picture", "batch_size": BATCH, "num_epoch": 2, "seed": 5}
    trainer = SingleTrainer(
        picture_model(),
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        preprocess=decoding(),
        drop_remainder=True,
        **options,
    )
    trained = trainer.train(frame)
    plain = picture_model()
    plain.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    for epoch in range(2):
        for index, first in enumerate(range(0, ROWS - BATCH + 1, BATCH)):
            some = slice(first, first + BATCH)
            rng = np.random.default_rng([5, 0, epoch, index])
            x = decoding()({"my picture": [data for data, _ in rows[some]]}, rng)
            plain.train_on_batch(x.astype(np.float32), np.array(LABELS[some]))
    for ours, keras_own in zip(trained.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=2e-5, atol=2e-6)
    assert sum(window.samples for window in trainer.get_history()) == 2 * 16


def test_workers_draw_other_numbers_a_seed_repeats_them_and_the_next_training_goes_on(
    spark: SparkSession, tmp_path: Path
) -> None:
    own = np.random.default_rng(0)

    def noisy(columns: dict[str, Any]) -> Any:
        x, folder = np.stack([[*map(float, row)] for row in columns["x"]]), str(tmp_path)
        drawn = np.random.rand(), random.random(), float(keras.random.uniform(()))
        with open(f"{folder}/{os.getpid()}", "a") as file:
            print(*drawn, own.random(), file=file)
        return x + drawn[0]

    def numbers() -> list[list[str]]:
        """What each worker has drawn."""
        found = []
        for file in tmp_path.iterdir():
            if file.name != str(os.getpid()):  # The driver tries the function, and goes on from there.
                found.append(file.read_text().split())
            file.unlink()
        return sorted(found)

    rows = [([float(row), 1.0], 0.0) for row in range(16)]
    frame = spark.createDataFrame(rows, "x array<double>, y double")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    options: dict[str, Any] = {"features_col": "x", "label_col": "y", "batch_size": 4, "preprocess": noisy}
    trainer = DOWNPOUR(model, "sgd", "mse", num_workers=2, communication_window=1, **options)
    found = []
    for seed in (3, 3, None):
        if seed is not None:
            keras.utils.set_random_seed(seed)
        trainer.train(frame)
        found.append(numbers())
    assert found[0] == found[1]
    first, second = found[0]
    assert len(first) == len(second) == 2 * 4
    every = first + second + [number for numbers_of_one in found[2] for number in numbers_of_one]
    # The function has travelled again, with its own generator as it was.
    assert len({*every}) == len(every) - 2 * 2


def test_what_a_function_leaves_out_comes_from_the_columns(spark: SparkSession) -> None:
    rows = [(Vectors.dense([row, 1.0]), f"text {row}", row % 3, [row / 2]) for row in range(6)]
    frame = spark.createDataFrame(rows, ["vector", "text", "label", "list"]).coalesce(1)
    specs = (TensorSpec("in", (2,)),), (TensorSpec("out", (3,)),)

    def alone(columns: dict[str, Any]) -> Any:
        assert list(columns) == ["vector", "text", "list", "label"]
        assert columns["text"].tolist()[:4] == ["text 0", "text 1", "text 2", "text 3"]
        return np.stack(columns["vector"])

    result = prepared(frame, ["vector", "text", "list"], "label", specs, feeding=Feeding(alone))
    batch = minibatch(result)
    assert batch.x.tolist() == [[row, 1] for row in range(6)]
    assert (batch.y.tolist(), str(batch.y.dtype)) == ([0, 1, 2, 0, 1, 2], "int32")

    def everything(columns: dict[str, Any]) -> Any:
        ends = np.array([int(text[-1]) for text in columns["text"]])
        return np.stack(columns["vector"]), ends, ends * 2.0

    batch = minibatch(prepared(frame, ["vector"], "text", specs, feeding=Feeding(everything)))
    assert (batch.y.tolist(), batch.sample_weight.tolist()) == ([*range(6)], [0, 2, 4, 6, 8, 10])


def test_a_function_that_does_not_fit_is_refused_on_the_driver(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1.0, 0)] * 3, ["x", "label"])
    specs = (TensorSpec("in", (2,)),), (TensorSpec("out", (3,)),)
    for function, error, message in (
        (
            lambda columns: columns["x"],
            ValueError,
            r"shape \('rows', 2\) for the input 'in'.*beginning of the",
        ),
        (lambda columns: columns["y"], KeyError, "y"),
        (lambda columns: np.zeros((2, 2)), ValueError, "a row for each of the 3 rows"),
    ):
        with pytest.raises(error, match=message):
            prepared(frame, "x", "label", specs, feeding=Feeding(function))
    with pytest.raises(ValueError, match="Column 'nope' is not in the DataFrame"):
        prepared(frame, ["x", "nope"], "label", specs, feeding=Feeding(lambda columns: columns["x"]))
    for wrong in (3, lambda: 0, lambda columns, random: 0, lambda columns, rng, more: 0):
        with pytest.raises(TypeError, match="`preprocess` must be a function"):
            Feeding(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`preprocess` or `pad_to`"):
        Feeding(lambda columns: 0, "longest")
    with pytest.raises(ValueError, match="`pad_to` must be"):
        Feeding(pad_to={"x": "shortest"})
    with pytest.raises(TypeError, match="`drop_remainder`"):
        Feeding(drop_remainder=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"drop_remainder=True. Received: 3 rows"):
        check_full((4, 3), 4)


@pytest.fixture(scope="module")
def sentences(spark: SparkSession) -> Any:
    rows = list(zip(SENTENCES, TAGS, LABELS, range(ROWS), strict=True))
    schema = "words array<int>, tags array<int>, label int, row int"
    return spark.createDataFrame(rows, schema).coalesce(1)


def tagger(length: int | None) -> keras.Model:
    keras.utils.set_random_seed(7)
    words, mask = keras.Input((length,), dtype="int32", name="words"), keras.Input((length,), name="mask")
    embedded = keras.layers.Embedding(9, 4)(words) * keras.ops.expand_dims(mask, -1)
    return keras.Model([words, mask], keras.layers.Dense(3, activation="softmax")(embedded))


def test_sentences_train_like_fit_on_the_same_padded_arrays(sentences: Any) -> None:
    trainer = SingleTrainer(
        tagger(None),
        keras.optimizers.SGD(0.5),
        "sparse_categorical_crossentropy",
        features_col="words",
        label_col="tags",
        pad_to=Padding(to=12, mask="mask"),
        batch_size=BATCH,
        num_epoch=2,
    )
    trained = trainer.train(sentences)
    x, y = distkeras.Padding(to=12).stack(SENTENCES), distkeras.Padding(to=12).stack(TAGS)
    own = (np.arange(12) < np.array([len(words) for words in SENTENCES])[:, None]).astype(np.float32)
    plain = tagger(12)
    plain.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    plain.fit([x, own], y, sample_weight=own, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
    for ours, keras_own in zip(trained.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=2e-5, atol=2e-6)


def test_columns_are_filled_up_where_they_need_it(sentences: Any) -> None:
    longest = max(map(len, SENTENCES))
    both = minibatch(
        prepared(sentences, "words", "tags", ((SENTENCE,), (TAGGED,)), feeding=Feeding(pad_to="longest"))
    )
    assert both.x.shape == both.y.shape == both.sample_weight.shape == (ROWS, 16)
    fixed = TensorSpec("words", (12,), "int32")
    label = TensorSpec("out", (3,))
    options = Feeding(pad_to={"words": 12})
    alone = minibatch(prepared(sentences, "words", "label", ((fixed,), (label,)), feeding=options))
    assert (alone.x.shape, alone.y.tolist(), alone.sample_weight) == ((ROWS, 12), LABELS, None)
    two = ((fixed, TensorSpec("row", ())), (label,))
    mixed = minibatch(prepared(sentences, ["words", "row"], "label", two, feeding=Feeding(pad_to=12)))
    assert [part.shape for part in mixed.x] == [(ROWS, 12), (ROWS,)]
    flat = TensorSpec("out", (12,))
    with pytest.raises(ValueError, match=r"labels of .* values, and output 'out' has shape"):
        prepared(sentences, "words", "tags", ((fixed,), (flat,)), feeding=Feeding(pad_to=12), loss="mse")
    for pad_to, features, inputs, message in (
        (4, "words", (SENTENCE,), f"rows of up to {longest} steps. Expected at most 4"),
        ("longest", "words", (fixed,), "Expected pad_to=12"),
        ({"row": 4}, "row", (TensorSpec("row", ()),), "a single value per row. Expected arrays"),
        (Padding(mask="nope"), "words", (SENTENCE,), "`mask` must name an input of the model: .'words'."),
        (None, "words", (SENTENCE,), "pad"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared(sentences, features, "label", (inputs, (label,)), feeding=Feeding(pad_to=pad_to))


def test_predictions_decode_and_fill_up_as_the_training_does(spark: SparkSession, sentences: Any) -> None:
    rows = [(encoded(picture), label) for picture, label in zip(PICTURES, LABELS, strict=True)]
    frame = spark.createDataFrame(rows, "`my picture` binary, label int").coalesce(1)
    model = picture_model()
    expected = model.predict((PICTURES / 255).astype(np.float32), verbose=0)
    predictor = ModelPredictor(model, "my picture", "answer", preprocess=decoding(), batch_size=BATCH)
    found = predictor.predict(frame).collect()
    assert [row.label for row in found] == LABELS
    np.testing.assert_allclose([row.answer for row in found], expected, rtol=1e-5, atol=1e-6)
    score = predict_udf(model, preprocess=decoding(), features_col=["my picture"], batch_size=BATCH)
    found = frame.select(score("my picture").alias("answer")).collect()
    np.testing.assert_allclose([row.answer for row in found], expected, rtol=1e-5, atol=1e-6)

    tags = tagger(None)
    for padding in (Padding(mask="mask"), Padding(to=12, mask="mask")):
        lengths = [padding.length(max(map(len, SENTENCES[first : first + BATCH]))) for first in (0, 8, 16)]
        found = ModelPredictor(tags, "words", "answer", pad_to=padding, batch_size=BATCH).predict(sentences)
        answers = [row.answer for row in found.collect()]
        assert [len(answer) for answer in answers] == [lengths[row // BATCH] for row in range(ROWS)]
        for words, answer in zip(SENTENCES, answers, strict=True):
            own = tags.predict([np.array([words]), np.ones((1, len(words)))], verbose=0)[0]
            np.testing.assert_allclose(answer[: len(words)], own, rtol=1e-5, atol=1e-6)


def test_a_prediction_whose_function_fails_says_in_which_rows(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1.0,)] * 3, ["x"]).coalesce(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(Exception, match=r"shape \('rows', 2\) .* partition 0, epoch 0, minibatch 0"):
        ModelPredictor(model, "x", preprocess=lambda columns: columns["x"]).predict(frame).collect()


@keras.saving.register_keras_serializable("feeding")
def doubled(columns: dict[str, Any], rng: Any = None) -> Any:
    return np.stack([columns["x"], columns["x"] * 2], 1) + (0 if rng is None else rng.normal())


def test_an_estimator_preprocesses_in_training_validation_and_prediction_and_is_saved(
    spark: SparkSession, tmp_path: Any
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    x = DRAW.normal(size=40)
    frame = spark.createDataFrame(
        [(float(value), float(value > 0), index % 4 == 0) for index, value in enumerate(x)],
        ["x", "label", "held"],
    ).coalesce(2)
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
    estimator = KerasClassifier(
        model=network,
        workerOptimizer="sgd",
        featuresCol="x",
        preprocess=doubled,
        dropRemainder=True,
        batchSize=4,
        validationIndicatorCol="held",
        numWorkers=1,
        shuffle=False,
    )
    estimator.save(str(tmp_path / "estimator"))
    estimator = KerasClassifier.load(str(tmp_path / "estimator"))
    model = estimator.fit(frame)
    assert sum(window.samples for window in model.history) == 28
    held = x[::4]
    inputs = np.stack([held, held * 2], 1).astype(np.float32)
    own = model.getModel().evaluate(inputs, (held > 0).astype(np.float32), verbose=0)
    assert model.validation_metrics["loss"] == pytest.approx(own[0], rel=1e-5)
    model.save(str(tmp_path / "model"))
    loaded = KerasClassificationModel.load(str(tmp_path / "model"))
    assert loaded.getPreprocess() is doubled
    found = loaded.transform(frame.where("held")).collect()
    expected = model.getModel().predict(inputs, verbose=0)[:, 0]
    np.testing.assert_allclose([row.probability[1] for row in found], expected, rtol=1e-5)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_validation_fills_up_as_the_training_does(sentences: Any) -> None:
    model = tagger(None)
    model.compile("sgd", "sparse_categorical_crossentropy")
    feeding = Feeding(pad_to=Padding(to=12, mask="mask"))
    found = evaluate(model, sentences, Roles("words", "tags"), feeding=feeding)
    x, y = Padding(to=12).stack(SENTENCES), Padding(to=12).stack(TAGS)
    own = (np.arange(12) < np.array([len(words) for words in SENTENCES])[:, None]).astype(np.float32)
    expected = model.evaluate([x, own], y, sample_weight=own, batch_size=256, verbose=0)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_record_batches_are_limited_by_bytes_whatever_the_session_says(spark: SparkSession) -> None:
    own = spark.conf.get(SETTING)
    row = F.repeat(F.lit("a"), F.lit(16 * 2**20))

    def sizes(batches: Any) -> Any:
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"bytes": [batch.nbytes]})

    try:
        for given, most in (("1g", BATCH_BYTES), ("16m", 16 * 2**20)):
            spark.conf.set(SETTING, given)
            frame = spark.range(0, 8, 1, 1).select(row.alias("x")).mapInArrow(sizes, "bytes long")
            stage = Stage(frame, "asks for sizes")
            stage.start()
            assert stage.wait(60)
            assert stage.error is None
            assert sum(found.bytes for found in stage.rows) >= 8 * 16 * 2**20
            assert max(found.bytes for found in stage.rows) <= most + 17 * 2**20  # the last row beyond
            assert spark.conf.get(SETTING) == given
    finally:
        spark.conf.set(SETTING, own)


def test_large_sparse_vectors_are_made_dense_a_few_at_a_time() -> None:
    fields = {"type": pa.array([0] * 40, pa.int8()), "size": pa.array([2**20] * 40, pa.int32())}
    fields |= {"indices": pa.array([[5, 9]] * 40), "values": pa.array([[1.0, 2.0]] * 40)}
    column = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    assert rows_at_once([column], 1) == 4
    assert rows_at_once([column], 3) == 3
    assert rows_at_once([column], 8) == 4
    assert rows_at_once([column.slice(0, 4)], 1) == 4
    assert rows_at_once([pa.array([1.0] * 7)], 3) == 7
