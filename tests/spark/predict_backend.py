"""Predicts on Spark with the backend of the environment and compares with Keras: run by test_predictors.py."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd

from distkeras.cluster.session import local_session
from distkeras.predictors import ModelPredictor


def main() -> None:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    x = np.random.default_rng(0).normal(size=(50, 64)).astype("float32")
    spark = local_session(1)
    frame = spark.createDataFrame(pd.DataFrame({"features": list(x)})).coalesce(1)
    rows = ModelPredictor(model, batch_size=32).predict(frame).collect()
    # One thread in the worker, and two in this process: sums may be taken in another order.
    expected = model.predict(x.reshape(-1, 8, 8, 1), batch_size=32, verbose=0)
    np.testing.assert_allclose(np.array([row.prediction for row in rows]), expected, rtol=1e-5, atol=1e-6)
    print(f"equal on {keras.backend.backend()}")
    spark.stop()


if __name__ == "__main__":
    main()
