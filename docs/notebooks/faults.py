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
# # What happens when processes are killed
#
# Machines fail, and clusters take executors away. This notebook trains with two workers, kills the process of
# a worker and later that of the parameter server, and looks at what is left of the training. After it you can
#
# - say what a killed process costs, and what you have to do about it (nothing),
# - follow a training by its events,
# - check that every window of work has counted exactly once.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import signal
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import psutil

import distkeras
from distkeras import events
from distkeras.cluster.session import local_session
from distkeras.monitor import Monitor

# %% [markdown]
# ## A training that can be disturbed
#
# On a cluster, Spark starts a failed task again up to `spark.task.maxFailures` times, which is 4. Spark on
# one machine does not, unless its master says so: `local[2,4]` has two slots, and four attempts for each
# task.

# %%
spark = local_session(spark_master="local[2,4]")

generator = np.random.default_rng(0)
x = generator.normal(size=(4000, 10)).astype("float32")
rows = {"features": x, "label": (x[:, 0] + x[:, 1] > x[:, 2]).astype("int32")}

keras.utils.set_random_seed(1)
model = keras.Sequential(
    [
        keras.Input((10,)),
        keras.layers.Dense(32, activation="tanh"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)


# %% [markdown]
# This model trains in a second. `preprocess` runs in the worker for every minibatch: here it takes a rest, so
# that there is time to kill something.


# %%
def slowly(columns):
    import time

    time.sleep(0.04)
    return np.stack(columns["features"]), columns["label"]


# %% [markdown]
# ## Somebody who kills
#
# A `Monitor` gets the events of a training, about once a second. This one keeps them, and acts like a cluster
# on a bad day: once the center has 1,500 rows it kills worker 1, and once it has 5,000, the parameter server.
# `WorkerJoined` tells in which process a worker trains. SIGKILL cannot be caught: the process has no chance
# to say goodbye.


# %%
class BadDay(Monitor):
    def __init__(self):
        self.seen, self.kills = [], []

    def take(self, new):
        self.seen += new
        taken = sum(event.samples for event in new_windows(self.seen))
        joined = [event for event in self.seen if isinstance(event, events.WorkerJoined)]
        victims = [event.about.pid for event in joined if event.worker == 1]
        if taken > 1500 and victims and not self.kills:
            self.kill("worker 1", victims[0])
        if taken > 5000 and len(self.kills) == 1:
            (server,) = filter(is_server, psutil.Process().children(recursive=True))
            self.kill("the server", server.pid)

    def kill(self, who, pid):
        os.kill(pid, signal.SIGKILL)
        self.kills.append((time.time(), who))


def is_server(process):
    try:
        return "distkeras.wire" in process.cmdline()
    except psutil.NoSuchProcess:  # It has just ended.
        return False


def new_windows(seen):
    return [event for event in seen if isinstance(event, events.Window)]


# %% [markdown]
# The server writes its state, a snapshot, after every 8 windows. When it is started again, it continues from
# the last one.

# %%
bad_day = BadDay()
trainer = distkeras.DOWNPOUR(
    model,
    keras.optimizers.SGD(0.1),
    "binary_crossentropy",
    num_workers=2,
    batch_size=20,
    communication_window=5,
    num_epoch=3,
    preprocess=slowly,
    server=distkeras.ServerOptions(snapshots=distkeras.SnapshotOptions(commits=8)),
    seed=0,
    verbose=0,
)
trained = trainer.train(rows, monitor=bad_day)
killed = [who for _, who in bad_day.kills]
print(f"{trainer.result.reason} in {trainer.result.seconds:.0f} s; killed: {killed}")
assert killed == ["worker 1", "the server"]

# %% [markdown]
# `train` returned a model as if nothing had happened.
#
# ## What happened
#
# The events tell it. A second attempt of worker 1 joins where the first one was cut off: at the minibatch
# after its last window that had reached the center. The server comes back with the windows of its last
# snapshot.

# %%
start = bad_day.seen[0].timestamp
told = (events.WorkerJoined, events.ServerRestored, events.WorkerLeft)
story = [(event.timestamp, event) for event in bad_day.seen if isinstance(event, told)]
for when, what in sorted([*story, *bad_day.kills], key=lambda entry: entry[0]):
    if isinstance(what, str):
        text = f"*** kill -9 {what}"
    elif isinstance(what, events.ServerRestored):
        text = f"the server is back, with {what.samples} rows in {sum(what.commits)} windows"
    elif isinstance(what, events.WorkerLeft):
        text = f"worker {what.worker} has trained all its rows"
    else:
        text = (
            f"worker {what.worker} joins: attempt {what.attempt}, epoch {what.epoch}, minibatch {what.step}"
        )
    print(f"{when - start:5.1f} s  {text}")

# %% [markdown]
# Every dot is a window that the center took. Hollow ones were lost with the server, since they came after its
# last snapshot: the workers trained them again.

# %%
history = trainer.get_history()
counted = {(window.worker, window.iteration, window.timestamp) for window in history}
figure, axes = plt.subplots(figsize=(9, 2.2), layout="constrained")
for window in new_windows(bad_day.seen):
    is_counted = (window.worker, window.iteration, window.timestamp) in counted
    color = f"C{window.worker}"
    axes.plot(window.timestamp - start, window.worker, "o", color=color, mfc=color if is_counted else "white")
for place, (when, who) in enumerate(bad_day.kills):
    axes.axvline(when - start, color="black", linestyle=":")
    axes.text(when - start, 0.65 - 0.3 * place, f" {who} is killed", va="center")
axes.set(yticks=[0, 1], yticklabels=["worker 0", "worker 1"], ylim=(-0.5, 1.5), xlabel="seconds")
plt.show()

# %% [markdown]
# ## Each window counted once
#
# Every commit carries the worker and a number, and the center keeps a ledger of them. So the history can be
# checked: the windows of each worker are numbered without a gap and without a double, and their rows are
# those of the data, once for each epoch.

# %%
for worker in (0, 1):
    numbers = [window.iteration for window in history if window.worker == worker]
    assert numbers == list(range(len(numbers)))
    print("worker", worker, "has windows 0 to", numbers[-1], "once each")
counted_rows = sum(window.samples for window in history)
assert counted_rows == 3 * len(x)
again = len(new_windows(bad_day.seen)) - len(history)
print(f"{counted_rows} rows = 3 epochs of {len(x)}; {again} windows were trained twice, and counted once")

# %% [markdown]
# And the model has learned:

# %%
print({name: round(value, 3) for name, value in trainer.evaluate(rows).items()})

# %% [markdown]
# ## Next
#
# - [What fails, and what then](../faults.md) lists every fault, and what you see of it.
# - When the driver dies, `train(..., run=address, resume="auto")` in a new one continues: [watch a training,
#   stop it, change it, continue](watch_stop_go_on.py).
# - `distkeras.simulation` has the same faults, for hundreds of workers: [the simulator](../simulator.md).

# %%
spark.stop()
