"""Training in fragments on Spark, as a user does it."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd

import distkeras


def test_workers_stream_compressed_fragments_and_take_replies_up_late(spark):
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(1)
    label = np.arange(512) % 2
    x = generator.normal(size=(512, 4)) + 2 * label[:, None]
    frame = spark.createDataFrame(pd.DataFrame({"features": list(x), "label": label})).repartition(2)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    trainer = distkeras.StreamingDiLoCo(
        model,
        keras.optimizers.Adam(0.02),
        "binary_crossentropy",
        communication_window=6,
        fragments=3,
        batch_size=16,
        num_epoch=4,
        compression="fp4",
        overlap=1,
        seed=0,
    )
    trained = trainer.train(frame)
    _, accuracy = trained.evaluate(x, label, verbose=0)
    assert accuracy > 0.9
    assert np.ptp(trained.layers[1].moving_mean.numpy()) > 0
    history = trainer.get_history()
    assert sum(window.samples for window in history) == 4 * 512
    assert {window.fragment for window in history} == {0, 1, 2}
    steps = 4 * 512 // 2 // 16
    for worker in range(2):
        own = trainer.get_executor_history(worker)
        assert sum(window.steps for window in own) == steps
        assert [window.steps for window in own[:3]] == [1, 2, 2]  # The first message leaves a step early.
        assert [window.iteration for window in own] == list(range(len(own)))
    # A round each two steps from the first on, one for what is left, and one for each fragment at the end.
    assert trainer.num_updates == 1 + (steps - 1) // 2 + 3
