"""Predictions of a Spark task against those of Keras; test_predict.py runs it on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pyarrow as pa

from distkeras.predictors import predict_udf


def test_every_backend_predicts_exactly_what_keras_does():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    # The task pads the last minibatch and Keras does not: libraries may then add in another order. Sums of
    # small whole numbers are exact.
    draw = np.random.default_rng(0)
    model.set_weights([draw.integers(-3, 4, weight.shape) for weight in model.get_weights()])
    x = draw.integers(-8, 9, (50, 64)).astype("float32")
    answers = predict_udf(model, batch_size=32).func(pa.array(list(x)))
    expected = model.predict(x.reshape(-1, 8, 8, 1), batch_size=32, verbose=0)
    np.testing.assert_array_equal(np.array(answers.to_pylist(), "float32"), expected)
