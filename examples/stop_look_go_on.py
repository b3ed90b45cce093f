"""A person stops a training, looks at it, changes the learning rate, and goes on.

python examples/stop_look_go_on.py [--rows 4000] [--epochs 8] [--workers 2]

The rate is far too high at first. After two epochs the person sees that, and presses Ctrl-C, as one would in
`keras.Model.fit`: the weights so far are in the model, and so is the optimizer's state. Here the script
itself sends the signal, in a callback, so that it runs without a person.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import signal
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq

import distkeras

DATA = Path(__file__).parent / "data"
TOO_HIGH, BETTER = 0.8, 0.05


class PressesCtrlC(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is not typed.
    """Stands in for the person at the keyboard: presses Ctrl-C once, at the end of the given epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch == self.epoch:
            signal.raise_signal(signal.SIGINT)


def read(name: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `rows` images, shape (rows, 784), from 0 to 1, and their digits."""
    table = pq.read_table(DATA / f"{name}.parquet").slice(0, rows)
    pixels = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 784)
    return pixels.astype(np.float32) / 255, table["label"].to_numpy().astype(np.int32)


def run(rows: int, epochs: int, workers: int) -> list[float]:
    """Train in two parts; return the validation's loss of every epoch."""
    x, y = read("train", rows)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(TOO_HIGH), "sparse_categorical_crossentropy", metrics=["accuracy"])

    # 1. Train, and stop.
    try:
        distkeras.fit(
            *(model, x, y),
            epochs=epochs,
            num_workers=workers,
            validation_split=0.2,
            callbacks=[PressesCtrlC(epoch=1)],
            verbose=2,
        )
    except KeyboardInterrupt:
        print("Stopped.")

    # 2. Look: the history is in the model, as after Keras's own `fit`.
    history = model.history
    for epoch, loss, judged in zip(
        history.epoch, history.history["loss"], history.history["val_loss"], strict=True
    ):
        print(f"epoch {epoch}: loss {loss:.3f}, of the validation {judged:.3f}")
    losses = list(history.history["val_loss"])

    # 3. Change the rate, and go on where it stopped.
    print(f"The rate was {float(model.optimizer.learning_rate):g}; now it is {BETTER:g}.")
    model.optimizer.learning_rate = BETTER
    history = distkeras.fit(
        *(model, x, y),
        initial_epoch=history.epoch[-1] + 1,
        epochs=epochs,
        num_workers=workers,
        validation_split=0.2,
        callbacks=[keras.callbacks.EarlyStopping(patience=2, restore_best_weights=workers == 1)],
        verbose=2,
    )
    return losses + list(history.history["val_loss"])


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4000, help="images to train on")
    parser.add_argument("--epochs", type=int, default=8, help="epochs in all")
    parser.add_argument("--workers", type=int, default=2, help="replicas")
    arguments = parser.parse_args()
    losses = run(arguments.rows, arguments.epochs, arguments.workers)
    print(f"loss of the validation {losses[1]:.3f} -> {min(losses[2:]):.3f}")


if __name__ == "__main__":
    main()
