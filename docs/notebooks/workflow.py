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
# # Every optimizer on a table of physics events
#
# After this notebook you can
#
# - take a CSV file with missing values, weights and text labels through Spark to what a network can be
#   trained on,
# - train the same network with any distributed optimizer, by changing a name,
# - compare the optimizers by their results, their time, and what they sent.
#
# It runs on this machine in less than a minute. With a Spark session of a cluster, the same cells train
# there.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import sys
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from pyspark.ml import Pipeline
from pyspark.ml.feature import Imputer, StandardScaler, StringIndexer, VectorAssembler
from pyspark.sql import functions as F

import distkeras
from distkeras.cluster.session import local_session
from distkeras.evaluators import AccuracyEvaluator, AUCEvaluator
from distkeras.predictors import ModelPredictor
from distkeras.transformers import LabelIndexTransformer, OneHotTransformer

sys.path.append(str(Path("../../examples").resolve()))
import physics_events

# %% [markdown]
# ## The data
#
# Particle physicists look for rare events among common ones that look alike. `examples/physics_events.py`
# makes such a table: 30 measurements of each collision, whether it is signal (`s`) or background (`b`), and a
# weight. A value of -999 stands where an event has no such quantity, for example the second jet of an event
# with one jet. Its docstring describes the model behind the numbers.

# %%
folder = Path(tempfile.mkdtemp())
physics_events.write(folder / "events.csv", rows=24_000)

spark = local_session(2)
events = spark.read.csv(str(folder / "events.csv"), header=True, inferSchema=True)
events.select("event", "mass_collinear", "mass_visible", "num_jets", "jets_mass", "weight", "label").show(5)

# %% [markdown]
# The classes are not equally frequent, and the weights say how many real events a row stands for: a year of
# data has about 700 signal events in 400,000 others.

# %%
events.groupBy("label").agg(
    F.count("*").alias("rows"), F.round(F.sum("weight")).alias("events a year")
).show()

# %% [markdown]
# Two of the measurements, to see what a network has to find: there is a peak, but a broad one.

# %%
sample = events.select("mass_collinear", "mass_transverse", "label").toPandas()
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
for axis, name, limit in zip(axes, ["mass_collinear", "mass_transverse"], [300, 140], strict=True):
    for label, rows in sample[sample[name] > -999].groupby("label"):
        axis.hist(rows[name], bins=50, range=(0, limit), density=True, histtype="step", label=label)
    axis.set(xlabel=f"{name} [GeV]", yticks=[])
axes[0].legend()
plt.show()

# %% [markdown]
# ## From columns to tensors
#
# Spark ML and `distkeras.transformers` work together in a `Pipeline`. Each stage adds a column: the label as
# a number, the gaps filled with the column's median, all measurements as one vector, this vector with mean 0
# and deviation 1, and the label one-hot. The pipeline learns medians and means from the training rows alone.

# %%
training, test = events.randomSplit([0.8, 0.2], seed=1)
measured = physics_events.FEATURES
pipeline = Pipeline(
    stages=[
        StringIndexer(inputCol="label", outputCol="label_index", stringOrderType="alphabetAsc"),
        Imputer(
            inputCols=measured, outputCols=measured, missingValue=physics_events.MISSING, strategy="median"
        ),
        VectorAssembler(inputCols=measured, outputCol="measured"),
        StandardScaler(inputCol="measured", outputCol="features", withMean=True, withStd=True),
        OneHotTransformer(2, input_col="label_index", output_col="target"),
    ]
)
prepared = pipeline.fit(training)

# %% [markdown]
# The network should treat both classes alike, so that each gets the same sum of weights. `balanced` is the
# column of the training's weights.

# %%
sums = {
    row["label"]: row["sum"] for row in training.groupBy("label").agg(F.sum("weight").alias("sum")).collect()
}
half = training.count() / 2
balance = F.when(F.col("label") == "s", half / sums["s"]).otherwise(half / sums["b"])
columns = ["features", "target", "label_index", "weight", "balanced"]
training, test = (
    prepared.transform(rows.withColumn("balanced", F.col("weight") * balance)).select(columns).cache()
    for rows in (training.repartition(2), test)
)
print(training.count(), "rows to train on,", test.count(), "to test with")

# %% [markdown]
# ## One network, every optimizer
#
# A trainer is a distributed optimizer with its settings. All of them take the same model and the same rows.
# There are three kinds, of which the table below compares six; another one is one more line in `compared`:
#
# - *without communication*: one worker alone (`SingleTrainer`), models of which each sees a part of the rows
#   and whose weights (`AveragingTrainer`) or predictions (`EnsembleTrainer`) are averaged in the end;
# - *asynchronous*: a worker sends what it has learned after every window of minibatches, and waits for
#   nobody;
# - *synchronous*: all workers exchange at the same time, after longer windows.


# %%
def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((len(measured),)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


two = {"num_workers": 2}
compared = {
    "SingleTrainer": {},
    "AveragingTrainer": two,
    "DOWNPOUR": {"communication_window": 5, **two},
    "ADAG": {"communication_window": 5, **two},
    "AEASGD": {"communication_window": 16, **two},
    "DiLoCo": {"communication_window": 50, **two},
}


def train(name):
    trainer = getattr(distkeras, name)(
        network(),
        keras.optimizers.SGD(0.05, momentum=0.9),
        "categorical_crossentropy",
        features_col="features",
        label_col="target",
        sample_weight_col="balanced",
        batch_size=64,
        num_epoch=3,
        seed=0,
        verbose=0,
        **compared[name],
    )
    return trainer, trainer.train(training)


# %% [markdown]
# A `ModelPredictor` adds the network's outputs to a DataFrame; evaluators of `distkeras.evaluators` or Spark
# judge them. The area under the ROC curve is the chance that a signal event gets a higher score than a
# background event.


# %%
def judge(model):
    scored = ModelPredictor(model, output="vector").predict(test)
    scored = LabelIndexTransformer(2, input_col="prediction").transform(scored).cache()
    return {
        "AUC": AUCEvaluator("label_index", "prediction").evaluate(scored),
        "accuracy": AccuracyEvaluator("label_index", "prediction_index").evaluate(scored),
    }


trainers, models, results = {}, {}, {}
for name in compared:
    trainers[name], models[name] = train(name)
    history = trainers[name].get_history()
    sent = sum(window.timing.bytes_out for window in history if window.timing)
    results[name] = judge(models[name]) | {
        "seconds": trainers[name].get_training_time(),
        "exchanges": len(history),
        "MB sent": sent / 1e6,
    }
table = pd.DataFrame(results).T
table.round(3)

# %% [markdown]
# With two workers they come to much the same result. What differs is how often they talk: `DiLoCo` needs a
# tenth of the exchanges of `DOWNPOUR`. On a slow network, or with many workers, that decides: [the
# simulator](own_optimizer.py) shows what happens there. The seconds are those of small trainings, most of
# which is the start of workers and server.

# %%
shown = ["SingleTrainer", "DOWNPOUR", "AEASGD", "ADAG", "DiLoCo"]
distkeras.compare([trainers[name] for name in shown], "loss", labels=shown)
# %% [markdown]
# ## What the physicist gets
#
# The score of the network decides which events are kept. With s signal and b background events kept, a
# discovery has a significance of about s / sqrt(b) standard deviations. The weights turn rows of the test
# into events of a year.

# %%
best = table["AUC"].idxmax()
scored = ModelPredictor(models[best], output="vector").predict(test)
scored = scored.select("label_index", "weight", "prediction").toPandas()
score = np.array([vector[1] for vector in scored["prediction"]])
cuts = np.linspace(0.0, 0.99, 100)
signal, background = (
    np.array([scored["weight"][(scored["label_index"] == kind) & (score >= cut)].sum() * 5 for cut in cuts])
    for kind in (1, 0)
)
enough = background > 50
significance = signal[enough] / np.sqrt(background[enough])
plt.figure(figsize=(6, 2.8), layout="constrained")
plt.plot(cuts[enough], significance)
plt.gca().set(xlabel="events with at least this score are kept", ylabel="significance", title=best)
plt.show()
top = significance.argmax()
print(f"all events: {significance[0]:.1f}; from score {cuts[enough][top]:.2f} on: {significance[top]:.1f}")

# %% [markdown]
# ## Next
#
# - [The algorithms](../algorithms.md), with equations and papers.
# - [Watch a training, stop it, change it, continue](watch_stop_go_on.py).
# - `python examples/physics_events.py events.parquet --rows 14900000` makes a table for a cluster.

# %%
spark.stop()
