"""A script as a notebook would be: its classes exist in `__main__` alone. Writes the frozen model to a file.

python frozen_in_main.py FILE
"""

import pickle
import sys
from pathlib import Path

import keras
import numpy as np

from distkeras.model.spec import serialize_model
from distkeras.model.weights import initial_vector

SCALE = 3.0


@keras.saving.register_keras_serializable("notebook")
class Scaled(keras.layers.Layer):
    """Multiplies by a weight and a global of the script."""

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), initializer=ones_and_half, name="gain")

    def call(self, x):
        return x * self.gain * SCALE


@keras.saving.register_keras_serializable("notebook")
def ones_and_half(shape, dtype=None):
    """An initializer."""
    return keras.ops.ones(shape, dtype) * 1.5


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that is not registered."""

    def __call__(self, step):
        """Half the rate at every step. At a larger one the loss would grow, and rounding errors with it."""
        return 0.001 * 0.5 ** keras.ops.cast(step, "float32")

    def get_config(self):
        """It has no arguments."""
        return {}


def cubic(y_true, y_pred):
    """A loss that is not registered."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)


if __name__ == "__main__":
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            Scaled(),
            keras.layers.Dropout(0.5, seed=4),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(Halving()), cubic, metrics=["mae"])
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    y = np.ones((8, 1), np.float32)
    spec, vector = serialize_model(model), initial_vector(model)
    outputs = model.predict(x, verbose=0)
    losses = [float(model.train_on_batch(x, y, return_dict=True)["loss"]) for _ in range(3)]
    Path(sys.argv[1]).write_bytes(pickle.dumps((spec, vector, x, y, outputs, losses)))
