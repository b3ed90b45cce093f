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
# # Watch a training, stop it, change it, continue
#
# A long training is seldom right at the first try. After this notebook you can
#
# - watch a training while it runs,
# - stop it without losing what it has learned,
# - look at what it left: settings, curves, checkpoints,
# - change the learning rate, and continue, also in another process or on another machine.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np

import distkeras
from distkeras import Checkpoints, RunOptions
from distkeras.cluster.session import local_session

spark = local_session(2)

# %% [markdown]
# The task: points, and which of two spirals each belongs to.

# %%
generator = np.random.default_rng(0)
turn = generator.random(2400).astype("float32") * 4.5
y = generator.integers(0, 2, len(turn)).astype("int32")
angle = turn + np.pi * y
x = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) / 4.5

plt.figure(figsize=(3, 3))
plt.scatter(*x.T, c=y, s=3, cmap="coolwarm")
plt.axis("off")
plt.show()


# %%
def make_model(rate):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def make_trainer(rate):
    return distkeras.LocalSGD(
        make_model(rate), num_workers=2, communication_window=5, num_epoch=12, seed=1, verbose=2
    )


# %% [markdown]
# ## Watch, and stop
#
# With `run=`, a training keeps everything in a folder: on a local disk, S3, HDFS, or whatever fsspec knows.
# `verbose=2` prints a line an epoch. In a notebook of your own leave `verbose` out and see a progress bar, or
# give `dashboard=True` to `train` and see [a page](../monitoring.md#the-page) with curves and workers.
#
# A rate of 0.0003 is too low here. You would see that after a few epochs, and press the button that
# interrupts the kernel: the workers stop within a window, and `train` returns the model so far. The page has
# a button for it, too. So that this notebook runs without you, a callback calls `trainer.stop()`.
#
# `LocalSGD` is synchronous: its workers wait at the end of an epoch for what callbacks decide. Asynchronous
# workers would train on meanwhile.

# %%
address = tempfile.mkdtemp() + "/spirals"
run = RunOptions(address, checkpoints=Checkpoints(keep=2, monitor="val_accuracy"))
trainer = make_trainer(rate=0.0003)


class Impatient(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            trainer.stop()


trainer.train((x, y), shuffle=True, validation_split=0.2, callbacks=[Impatient()], run=run)
print("ended by:", trainer.result.reason, "- epochs:", trainer.result.epochs)

# %% [markdown]
# ## Look
#
# `load_run` reads the folder: here, on another machine, or while the training still runs, which it does
# not disturb.

# %%
left = distkeras.load_run(address)
print("status:", left.status)
print("rule:", left.settings["rule"]["name"], "- workers:", left.settings["num_workers"])
for name, values in left.history.items():
    print(f"{name:14}", [round(value, 2) for value in values])

# %% [markdown]
# The loss falls, but slowly. Everything else is as it should be.
#
# ## Change, and continue
#
# A new trainer, as in a new process, with a higher rate. `resume="auto"` continues the run at that
# address, from its newest snapshot; where there is none it begins one, so that the same script serves for
# both. The learning rate and the number of epochs may change; what would make it another training is refused.

# %%
trainer = make_trainer(rate=0.01)
plateau = keras.callbacks.ReduceLROnPlateau("val_loss", patience=2)
model = trainer.train((x, y), shuffle=True, validation_split=0.2, callbacks=[plateau], run=run, resume="auto")
print("ended by:", trainer.result.reason, "- best epoch:", trainer.result.best_epoch)

# %% [markdown]
# The history of the run has both sessions. Dots are the validation at the ends of epochs, thin lines are the
# workers:

# %%
trainer.get_history().plot()

# %% [markdown]
# ## Take the best
#
# The run keeps the newest checkpoints, and the best one. Each is a `.keras` file.

# %%
left = distkeras.load_run(address)
print("status:", left.status, "- checkpoints of epochs", [each.epoch for each in left.checkpoints().entries])
best = left.model("best")
print(
    {name: round(float(value), 3) for name, value in best.evaluate(x, y, verbose=0, return_dict=True).items()}
)

# %%
grid = np.stack(np.meshgrid(np.linspace(-1, 1, 150), np.linspace(-1, 1, 150)), axis=-1)
plt.figure(figsize=(3, 3))
plt.imshow(
    best.predict(grid.reshape(-1, 2), verbose=0)[:, 1].reshape(150, 150),
    extent=(-1, 1, -1, 1),
    origin="lower",
    cmap="coolwarm",
)
plt.axis("off")
plt.show()

# %% [markdown]
# ## Next
#
# - [Runs](../runs.md): all that is in the folder, and what a resumed training may change.
# - [Around a training](../training.md): validation, callbacks, and ways to stop.
# - `distkeras.fit` does the same [in the place of `model.fit`](../fit.md).

# %%
spark.stop()
