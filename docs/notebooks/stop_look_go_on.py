# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Stop, look, change the rate, go on
#
# The source of a notebook: `jupytext --to notebook docs/notebooks/stop_look_go_on.py` makes it. It trains on
# this machine; with a Spark session of a cluster, the same cells train there.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import distkeras

# %% [markdown]
# Points, and which of two spirals each belongs to.

# %%
generator = np.random.default_rng(0)
turn = generator.random(2000).astype("float32") * 9
y = generator.integers(0, 2, len(turn)).astype("int32")
angle = turn + np.pi * y
x = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) / 9

keras.utils.set_random_seed(1)
model = keras.Sequential(
    [
        keras.Input((2,)),
        keras.layers.Dense(32, activation="tanh"),
        keras.layers.Dense(32, activation="tanh"),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
model.compile(keras.optimizers.Adam(0.2), "sparse_categorical_crossentropy", metrics=["accuracy"])

# %% [markdown]
# Train. When you have seen enough, press the button that interrupts the kernel: the workers stop within a
# window, the weights so far are in `model`, and `KeyboardInterrupt` ends the cell, so that "Run all" does not
# go on. Here a target stops it, so that the notebook runs without you: a loss below 100 after an epoch.

# %%
history = distkeras.fit(
    model,
    x,
    y,
    epochs=6,
    num_workers=2,
    validation_split=0.2,
    stop=distkeras.StopWhen(loss=100.0),
    seed=1,
    verbose=2,
)

# %% [markdown]
# Look. A rate of 0.2 is too much for Adam here.

# %%
first = history.history
print({name: [round(float(value), 3) for value in values] for name, values in first.items()})
print("rate:", float(model.optimizer.learning_rate))

# %% [markdown]
# Change the rate, and go on: the next `fit` begins with the weights and the optimizer's state of the last.

# %%
model.optimizer.learning_rate = 0.005
history = distkeras.fit(
    model,
    x,
    y,
    initial_epoch=history.epoch[-1] + 1,
    epochs=6,
    num_workers=2,
    validation_split=0.2,
    callbacks=[keras.callbacks.ReduceLROnPlateau(patience=2)],
    seed=1,
    verbose=2,
)
print(
    "loss of the validation:",
    round(first["val_loss"][-1], 3),
    "->",
    round(history.history["val_loss"][-1], 3),
)
