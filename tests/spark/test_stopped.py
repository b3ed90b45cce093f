"""A training on Spark whose driver changes the rate, and stops it."""

from __future__ import annotations

import threading
import time

import keras
import numpy as np
import pandas as pd

import distkeras
from distkeras.center.requests import Exchange
from distkeras.cluster import job
from distkeras.record import replay


def test_workers_take_up_the_rate_and_the_stop_of_the_driver_and_the_model_is_returned(
    spark, monkeypatch, tmp_path
):
    watches = []

    class Seen(job.Watch):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            watches.append(self)

    monkeypatch.setattr(job, "Watch", Seen)
    draw = np.random.default_rng(1)
    rows = pd.DataFrame({"features": list(draw.normal(size=(256, 4))), "label": np.arange(256) % 2})
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    trainer = distkeras.DOWNPOUR(
        model,
        keras.optimizers.Adam(0.01),
        "binary_crossentropy",
        metrics=["accuracy"],
        batch_size=16,
        communication_window=2,
        num_workers=2,
        num_epoch=100_000,
        server=distkeras.ServerOptions(record=str(tmp_path)),
    )

    def wait_for_windows(count):
        """Wait until each worker has so many windows."""
        deadline = time.monotonic() + 60
        while any(len(trainer.get_executor_history(worker)) < count for worker in (0, 1)):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def drive():
        wait_for_windows(1)
        watches[0].order(learning_rate=0.0)
        wait_for_windows(max(len(trainer.get_executor_history(worker)) for worker in (0, 1)) + 50)
        watches[0].order(stop=True)

    thread = threading.Thread(target=drive)
    thread.start()
    trained = trainer.train(spark.createDataFrame(rows).repartition(2))
    thread.join()
    moved = {0: [], 1: []}

    def note(step, _):
        if isinstance(step.request, Exchange):
            moved[step.request.worker].append(bool(step.request.message.any()))

    replayed = replay(str(tmp_path), on_step=note)
    np.testing.assert_array_equal(
        np.concatenate([weight.ravel() for weight in trained.get_weights()]), replayed.center
    )
    for own in moved.values():
        assert own == sorted(own, reverse=True)  # Once the rate is 0, nothing moves any more.
        assert set(own) == {True, False}
    assert trainer.num_updates == len(trainer.get_history()) == sum(map(len, moved.values()))
    assert trainer.get_history()[-1].epoch < 99_999
