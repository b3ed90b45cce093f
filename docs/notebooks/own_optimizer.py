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
# # Your own optimizer
#
# A distributed optimizer is a rule: what a worker sends, what the server does with it, and how the worker
# continues. After this notebook you can
#
# - write such a rule in a few lines of NumPy,
# - check laws that every rule should obey,
# - try it on 256 simulated workers in seconds, beside the known rules,
# - train a Keras model with the same object on Spark.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from dataclasses import dataclass

import keras
import matplotlib.pyplot as plt
import numpy as np

import distkeras
from distkeras.algorithms import AEASGD, DOWNPOUR, Algorithm, Commit, DynSGD
from distkeras.cluster.session import local_session
from distkeras.simulation import Exponential, Failures, Quadratic, simulate

# %% [markdown]
# ## The rule
#
# By default a worker sends what its weights have moved since it last received the center, and continues from
# the answer. The server may do better than to add that to the center. This rule divides a message by its
# *staleness*, the number of messages that others have brought meanwhile; and where a message points against
# the recent ones, weight by weight, it believes only a quarter of it.


# %%
@dataclass(frozen=True)
class Consensus(Algorithm):
    """c <- c + w d / (staleness + 1): w is 1 where d points where recent messages did, else `doubt`."""

    communication_window: int = 5
    doubt: float = 0.25
    memory: float = 0.9

    def init(self, center):
        return {"trend": np.zeros_like(center)}

    def apply(self, center, message, commit, state):
        message /= commit.staleness + 1
        message[message * state["trend"] < 0] *= self.doubt
        state["trend"] *= self.memory
        state["trend"] += (1 - self.memory) * message
        center += message
        return center


# %% [markdown]
# The class is a frozen dataclass: its fields are the hyperparameters. What the rule remembers is in arrays of
# the state, which the server keeps, writes to its snapshots, and brings back after a failure.
#
# ## Laws
#
# `apply` needs no server and no Spark: it can be called. Three laws, each in a few lines. First, a message
# without progress changes nothing, and a stale message counts less than a fresh one:

# %%
generator = np.random.default_rng(0)
center, message = generator.normal(size=(2, 1000)).astype("float32")


def applied(rule, center, messages, staleness=0):
    center, state = center.copy(), rule.init(center)
    for message in messages:
        commit = Commit(worker=0, staleness=staleness, num_steps=5, num_samples=160, num_workers=2)
        center = rule.apply(center, message.copy(), commit, state)
    return center


rule = Consensus()
assert np.array_equal(applied(rule, center, [np.zeros_like(message)]), center)
moved = [np.linalg.norm(applied(rule, center, [message], staleness) - center) for staleness in (0, 1, 9)]
assert moved[0] > moved[1] > moved[2]
print("a message moves the center by", np.round(moved, 2), "at staleness 0, 1 and 9")

# %% [markdown]
# Second, the rule treats each weight by itself. Otherwise it would depend on how the weights are cut into
# pieces, for example over several servers:

# %%
whole = applied(rule, center, [message, -message])
parts = [
    applied(rule, center[part], [message[part], -message[part]]) for part in (slice(300), slice(300, None))
]
assert np.array_equal(np.concatenate(parts), whole)

# %% [markdown]
# Third, doubt works: the same message counts for less after an opposite one.

# %%
after_agreement = applied(rule, center, [message, message]) - applied(rule, center, [message])
after_dissent = applied(rule, center, [-message, message]) - applied(rule, center, [-message])
np.testing.assert_allclose(after_dissent, 0.25 * after_agreement, atol=1e-5)

# %% [markdown]
# ## 256 workers
#
# The simulator trains every window and applies every message with the code that runs on Spark. Only time is
# virtual. So hundreds of workers fit into one process, and each run gives the same result again. The workers'
# step times are random: any worker may be next, and while one trains a window, the others change the center
# some 255 times.

# %%
problem = Quadratic(curvature=np.linspace(0.05, 1.0, 100), noise=0.3, start=1.0)


def on_workers(rule, num_workers, **options):
    return simulate(
        rule,
        problem,
        num_workers=num_workers,
        num_commits=8000,
        learning_rate=0.1,
        step_time=Exponential(1.0),
        evaluate_every=100,
        seed=0,
        **options,
    )


rules = {"Consensus": Consensus(), "DynSGD": DynSGD(5), "AEASGD": AEASGD(5), "DOWNPOUR": DOWNPOUR(5)}
outcomes = {}
for name, each in rules.items():
    outcomes[name] = result = on_workers(each, 256)
    end = "diverged" if result.diverged else f"loss {result.losses[0]:.3f} -> {result.losses[-1]:.4f}"
    print(f"{name:9} {end}, mean staleness {result.staleness.mean():.0f}")

# %% [markdown]
# `DOWNPOUR` adds every message in full, which is too much here. The others learn:

# %%
for name, result in outcomes.items():
    if not result.diverged:
        plt.plot(result.samples[result.versions], result.losses, label=name)
plt.gcf().set_size_inches(7, 3)
plt.gca().set(xlabel="minibatches of all workers together", ylabel="loss", yscale="log")
plt.legend()
plt.show()

# %% [markdown]
# What do many workers buy? The same number of minibatches in less time, if the rule can use them:

# %%
for count in (1, 16, 256):
    result = outcomes["Consensus"] if count == 256 else on_workers(Consensus(), count)
    plt.plot(result.evaluated[1:], result.losses[1:], label=f"{count} workers")
plt.gcf().set_size_inches(7, 3)
plt.gca().set(xlabel="virtual time, in steps of a worker", ylabel="loss", xscale="log", yscale="log")
plt.legend()
plt.show()

# %% [markdown]
# Each curve falls until noise stops it. Where that is depends on the size of the steps, and with more
# workers, messages are staler and steps smaller.

# %% [markdown]
# And when machines fail? One window in fifty is lost with its worker, and one reply in fifty does not arrive,
# so that the worker sends its message again:

# %%
often = Failures(crash=0.02, restart=30.0, lost_reply=0.02, timeout=5.0)
result = on_workers(Consensus(), 256, failures=often)
print(
    result.num_crashes,
    "crashes,",
    result.num_duplicates,
    "doubles not counted, loss",
    round(result.losses[-1], 4),
)

# %% [markdown]
# ## On Spark
#
# The same object goes into a `DistributedTrainer`. It travels to the parameter server by value: a class that
# you have defined in a notebook needs no installation on the cluster.

# %%
spark = local_session(2)
digits = spark.read.parquet("../../examples/data/train.parquet").limit(6000).repartition(2)
model = keras.Sequential(
    [
        keras.Input((784,)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
trainer = distkeras.DistributedTrainer(
    model,
    Consensus(),
    keras.optimizers.SGD(0.1),
    "sparse_categorical_crossentropy",
    features_col="image",
    num_workers=2,
    num_epoch=5,
    seed=0,
    verbose=0,
)
trained = trainer.train(digits)
trainer.get_history().plot()

# %%
test = spark.read.parquet("../../examples/data/test.parquet")
print({name: round(value, 3) for name, value in trainer.evaluate(test).items()})

# %% [markdown]
# ## Next
#
# - [Your own algorithm](../algorithms.md#your-own-algorithm): synchronous rules, memory in the worker, rules
#   that refuse messages.
# - [The simulator](../simulator.md): real Keras models, unequal machines, slow networks.
# - Every rule of this project obeys [the same laws](../algorithms.md#laws), which tests check.

# %%
spark.stop()
