"""One worker against plain Keras on the same minibatches."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd

from distkeras import DOWNPOUR, SingleTrainer

ROWS, BATCH, EPOCHS = 330, 32, 2


def make_model():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.2, seed=5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def make_rows():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 20)).astype(np.float32)
    y = np.argmax(x[:, :3] + 0.1 * generator.normal(size=(ROWS, 3)), axis=1).astype(np.int32)
    return x, y


def plain_keras(x, y):
    """Train the same minibatches, the last of an epoch partial, by Keras alone."""
    model = make_model()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    for _ in range(EPOCHS):
        for first in range(0, ROWS, BATCH):
            model.train_on_batch(x[first : first + BATCH], y[first : first + BATCH])
    return model.get_weights()


def one_worker(spark, trainer, **options):
    """Train as one worker of Spark; return the trained weights and the trainer."""
    x, y = make_rows()
    rows = pd.DataFrame({"features": x.tolist(), "label": y})
    model = make_model()
    before = model.get_weights()
    trainer = trainer(
        model,
        keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy",
        batch_size=BATCH,
        num_epoch=EPOCHS,
        seed=0,
        **options,
    )
    trained = trainer.train(spark.createDataFrame(rows).coalesce(1))
    assert trained is not model
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return trained.get_weights(), trainer


def check(spark):
    """SingleTrainer and DOWNPOUR with one worker give the weights of plain Keras, to rounding."""
    expected = plain_keras(*make_rows())
    for trainer, options in (
        (SingleTrainer, {}),
        (DOWNPOUR, {"num_workers": 1, "communication_window": 5}),
    ):
        weights, used = one_worker(spark, trainer, **options)
        for weight, other in zip(weights, expected, strict=True):
            np.testing.assert_allclose(weight, other, rtol=2e-5, atol=2e-6)
        history = used.get_history()
        assert sum(window.samples for window in history) == ROWS * EPOCHS
        assert sum(window.steps for window in history) == EPOCHS * -(-ROWS // BATCH)
        assert used.num_updates == len(history)
