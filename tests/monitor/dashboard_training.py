"""Trains with a page, in a process of its own: test_dashboard_training.py looks at it meanwhile.

Arguments: a folder. When the training has ended, `history.json` in it has its figures; the process then waits
for the end of its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["PYSPARK_PYTHON"] = sys.executable
sys.path.insert(0, str(Path(__file__).parents[1]))
from starting import start_fast

start_fast()

import keras  # noqa: E402 (the environment comes first)
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

import distkeras  # noqa: E402

ROWS, EPOCHS = 1600, 3


def main(folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "clusters"))
    from slow_model import slow_class

    spark = (
        SparkSession.builder.master("local[2,4]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    slow = slow_class(0.06)
    inputs = keras.Input((4,))
    model = slow(inputs, keras.layers.Dense(1)(inputs))
    trainer = distkeras.DOWNPOUR(
        model, "sgd", "mse", metrics=["mae"], num_workers=2, batch_size=20, communication_window=4,
        num_epoch=EPOCHS, custom_objects={"Slow": slow}, seed=0, verbose=0,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"features": list(generator.normal(size=(ROWS, 4))), "label": np.zeros(ROWS)})
    trainer.train(
        spark.createDataFrame(rows),
        validation_split=0.1,
        run=str(folder / "run"),
        monitor="dashboard",
    )
    history = trainer.get_history()
    figures = {
        "windows": len(history),
        "samples": sum(window.samples for window in history),
        "rows": {str(worker): sum(w.samples for w in history if w.worker == worker) for worker in (0, 1)},
        "epochs": history.epoch,
        "logs": history.history,
        "reason": trainer.result.reason,
    }
    (folder / "part").write_text(json.dumps(figures))
    (folder / "part").rename(folder / "history.json")
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
