"""Tests of what the feed gives to a replica, run by test_feed_training.py on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pyarrow as pa
import pytest

from distkeras.model.spec import deserialize_model, serialize_model
from distkeras.model.weights import initial_vector
from distkeras.worker.backends import make_replica
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import Column, Columns
from distkeras.worker.feed import Feed
from distkeras.worker.padding import Padding
from distkeras.worker.signature import check_strings, model_signature
from distkeras.worker.tensor_spec import TensorSpec

BACKEND = keras.backend.backend()
ROWS, BATCH = 22, 8  # the last minibatch has 6 rows
DRAW = np.random.default_rng(3)
X = DRAW.normal(size=(ROWS, 3)).astype(np.float32)
WORD = DRAW.integers(0, 5, ROWS).astype(np.int32)
LABEL = DRAW.integers(0, 3, ROWS).astype(np.int32)
SCORE = DRAW.normal(size=ROWS).astype(np.float32)
WEIGHT = DRAW.uniform(0.1, 2.0, ROWS).astype(np.float32)
TABLE = pa.record_batch(
    {
        "x": list(X),
        "word": WORD,
        "label": LABEL,
        "score": SCORE,
        "weight": WEIGHT,
        "hot": list(np.eye(3)[LABEL]),
    }
)


def trained(model, columns, batch=TABLE):
    """The weights after two epochs of `batch` through the feed and the replica of a worker."""
    replica = make_replica(deserialize_model(serialize_model(model)))
    with Feed(iter([batch]), columns, batch_size=BATCH, partition=0) as feed:
        for epoch in range(2):
            for minibatch in feed.epoch(epoch):
                replica.train(minibatch.x, minibatch.y, minibatch.sample_weight)
    return replica.read()


def fitted(model, *data, **options):
    """The weights after two epochs of `keras.Model.fit` in the same order."""
    plain = deserialize_model(serialize_model(model))
    plain.fit(*data, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, **options)
    return initial_vector(plain)


def two_by_two():
    keras.utils.set_random_seed(7)
    numbers, words = keras.Input((3,), name="numbers"), keras.Input((1,), dtype="int32", name="words")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(words))
    joined = keras.layers.Concatenate()([numbers, embedded])
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(joined)
    score = keras.layers.Dense(1, name="score")(joined)
    model = keras.Model({"numbers": numbers, "words": words}, {"kind": kind, "score": score})
    model.compile(keras.optimizers.SGD(0.1), {"kind": "sparse_categorical_crossentropy", "score": "mse"})
    return model


def test_columns_of_several_inputs_and_outputs_train_like_fit():
    columns = Columns(
        (Column("x", (3,), "float32", "numbers"), Column("word", (1,), "int32", "words")),
        (Column("label", (), "int32", "kind"), Column("score", (1,), "float32", "score")),
        (Column("weight", (), "float32"),),
    )
    x = {"numbers": X, "words": WORD[:, None]}
    y = {"kind": LABEL, "score": SCORE[:, None]}
    expected = fitted(two_by_two(), x, y, sample_weight={"kind": WEIGHT, "score": WEIGHT})
    np.testing.assert_allclose(trained(two_by_two(), columns), expected, rtol=2e-5, atol=2e-6)


def test_class_weights_train_like_fit():
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    given = {0: 0.5, 2: 4.0}
    features, labels = Column("x", (3,), "float32"), Column("label", (), "int32")
    columns = Columns((features,), (labels,), class_weight=ClassWeight.of(given))
    expected = fitted(model, X, LABEL, class_weight=given)
    np.testing.assert_allclose(trained(model, columns), expected, rtol=2e-5, atol=2e-6)


def test_texts_reach_the_layers_of_a_backend_that_has_strings_and_are_refused_elsewhere():
    if BACKEND != "tensorflow":
        with pytest.raises(ValueError, match=f"take strings, which {BACKEND} does not support"):
            check_strings((TensorSpec("text", (1,), "string"),))
        return
    words = ["to", "be", "or", "not"]
    vectorize = keras.layers.TextVectorization(output_sequence_length=3, vocabulary=words)
    keras.utils.set_random_seed(7)
    layers = [vectorize, keras.layers.Embedding(6, 4), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((1,), dtype="string"), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    check_strings(model_signature(model)[0])
    texts = [" ".join(words[: 1 + index % 4]) for index in range(ROWS)]
    batch = pa.record_batch({"text": texts, "score": SCORE})
    columns = Columns((Column("text", (1,), "string"),), (Column("score", (1,), "float32"),))
    import tensorflow as tf

    # Keras's own loop takes no texts of NumPy's.
    expected = fitted(model, tf.constant(texts)[:, None], SCORE[:, None])
    np.testing.assert_allclose(trained(model, columns, batch), expected, rtol=2e-5, atol=2e-6)


LENGTHS = DRAW.integers(1, 13, ROWS)
SENTENCES = [DRAW.integers(1, 9, length).astype(np.int32) for length in LENGTHS]
TAGGED = [(words % 3).astype(np.int32) for words in SENTENCES]


def tagger():
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Embedding(9, 4, mask_zero=True), keras.layers.Dense(5, activation="tanh")]
    model = keras.Sequential([keras.Input((None,), dtype="int32"), *layers, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss)
    return model


def test_sequences_are_filled_up_and_tagged_like_fit_on_the_same_arrays():
    batch = pa.record_batch({"words": SENTENCES, "tags": TAGGED})
    buckets = Padding(buckets=(4, 8, 12))

    def columns(padding):
        words = Column("words", (12,), "int32", padding=padding)
        return Columns((words,), (Column("tags", (12,), "int32", padding=padding),))

    x, tags = Padding(to=12).stack(SENTENCES), Padding(to=12).stack(TAGGED)
    own = (np.arange(12) < LENGTHS[:, None]).astype(np.float32)
    expected = fitted(tagger(), x, tags, sample_weight=own)
    np.testing.assert_allclose(
        trained(tagger(), columns(Padding(to=12)), batch), expected, rtol=2e-5, atol=2e-6
    )
    plain, replica = (
        deserialize_model(serialize_model(tagger())),
        make_replica(deserialize_model(serialize_model(tagger()))),
    )
    lengths = set()
    with Feed(iter([batch]), columns(buckets), batch_size=BATCH, partition=0, shuffle=True) as feed:
        for epoch in range(4):
            for minibatch in feed.epoch(epoch):
                replica.train(minibatch.x, minibatch.y, minibatch.sample_weight)
                plain.train_on_batch(minibatch.x, minibatch.y, minibatch.sample_weight)
                lengths.add(minibatch.x.shape[1])
    np.testing.assert_allclose(replica.read(), initial_vector(plain), rtol=2e-5, atol=2e-6)
    assert lengths <= set(buckets.buckets)
    assert replica.num_compilations <= 2 * len(buckets.buckets)
