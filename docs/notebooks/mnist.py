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
# # MNIST, from images to a stream of predictions
#
# The life of a model in one notebook: prepare the images with Spark, train on two workers, evaluate, and
# predict for images that arrive one after another. After it you can
#
# - turn columns of pixels into what a convolutional network takes,
# - train and evaluate on Spark,
# - put the trained model behind a stream (Structured Streaming).

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import functions as F

import distkeras
from distkeras.cluster.session import local_session
from distkeras.evaluators import AccuracyEvaluator
from distkeras.predictors import ModelPredictor
from distkeras.transformers import (
    LabelIndexTransformer,
    MinMaxTransformer,
    OneHotTransformer,
    ReshapeTransformer,
)

# %% [markdown]
# ## The data
#
# MNIST often comes as text: a line has the digit and 784 pixels, numbers from 0 to 255. We write such files:
# for the training, for the test, and three small ones that will arrive later, as a stream.

# %%
folder = Path(tempfile.mkdtemp())
pixels = [f"p{index}" for index in range(784)]


def write_csv(images, path):
    numbers = np.frombuffer(b"".join(images["image"].to_pylist()), np.uint8).reshape(-1, 784)
    table = pa.table([images["label"], *np.ascontiguousarray(numbers.T)], names=["label", *pixels])
    csv.write_csv(table, path)


written = pq.read_table("../../examples/data/train.parquet")
held = pq.read_table("../../examples/data/test.parquet")
write_csv(written.slice(0, 4000), folder / "train.csv")
write_csv(held.slice(0, 1000), folder / "test.csv")

# %% [markdown]
# ## Prepare
#
# Spark reads the lines; each transformer adds a column. The pixels become a vector, then numbers from 0 to 1,
# then an image of 28 x 28 x 1. The digit becomes one-hot.

# %%
spark = local_session(2)
schema = ", ".join(f"{name} INT" for name in ["label", *pixels])


def prepare(lines):
    stages = [
        VectorAssembler(inputCols=pixels, outputCol="vector"),
        MinMaxTransformer(o_min=0, o_max=255, n_min=0, n_max=1, input_col="vector", output_col="scaled"),
        ReshapeTransformer("scaled", "image", (28, 28, 1)),
        OneHotTransformer(10, input_col="label", output_col="target"),
    ]
    for stage in stages:
        lines = stage.transform(lines)
    return lines.select("image", "label", "target")


training, test = (
    prepare(spark.read.csv(str(folder / f"{name}.csv"), header=True, schema=schema)).repartition(2).cache()
    for name in ("train", "test")
)
training.printSchema()

# %%
figure, axes = plt.subplots(1, 8, figsize=(9, 1.5), layout="constrained")
for axis, row in zip(axes, training.take(8), strict=True):
    axis.imshow(np.array(row["image"]), cmap="gray_r")
    axis.set(title=row["label"], xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Train
#
# `DOWNPOUR` on two workers: each sends what it has learned after 5 minibatches, and waits for nobody.

# %%
keras.utils.set_random_seed(1)
network = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
        keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
trainer = distkeras.DOWNPOUR(
    network,
    keras.optimizers.Adam(0.002),
    "categorical_crossentropy",
    features_col="image",
    label_col="target",
    num_workers=2,
    communication_window=5,
    num_epoch=4,
    seed=0,
    verbose=0,
)
model = trainer.train(training)
trainer.get_history().plot()

# %% [markdown]
# ## Evaluate
#
# `trainer.evaluate(test)` would give the compiled metrics. Predictions as a column show more, for example
# which digits are taken for others.

# %%
predictor = ModelPredictor(model, features_col="image")
index = LabelIndexTransformer(10, input_col="prediction", output_col="predicted")
predicted = index.transform(predictor.predict(test)).select("image", "label", "predicted").cache()
print("accuracy:", AccuracyEvaluator("label", "predicted").evaluate(predicted))

# %%
wrong = predicted.where("label != predicted").limit(8).collect()
figure, axes = plt.subplots(1, 8, figsize=(9, 1.5), layout="constrained")
for axis, row in zip(axes, wrong, strict=False):
    axis.imshow(np.array(row["image"]), cmap="gray_r")
    axis.set(title=f"{row['label']}: {int(row['predicted'])}?", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Predict on a stream
#
# A stream is a DataFrame that does not end, and the same functions work on it. This one reads the files of a
# folder as they come. `foreachBatch` gets the new rows, with their predictions, as an ordinary DataFrame:
# here it counts which digits were seen, elsewhere it would write to a table or a queue.

# %%
incoming = folder / "incoming"
incoming.mkdir()
lines = spark.readStream.csv(str(incoming), header=True, schema=schema)
answers = index.transform(predictor.predict(prepare(lines))).select("label", "predicted")

seen = []


def take(batch, number):
    right = F.avg((F.col("label") == F.col("predicted")).cast("double"))
    seen.append((number, batch.agg(F.count("*"), right).first()))


query = answers.writeStream.foreachBatch(take).option("checkpointLocation", str(folder / "place")).start()

# %% [markdown]
# Three files arrive. A file gets its name when it is complete, so that Spark never sees half of one.

# %%
for part in range(3):
    write_csv(held.slice(1000 + 200 * part, 200), folder / "part.csv")
    (folder / "part.csv").rename(incoming / f"part-{part}.csv")
    query.processAllAvailable()
query.stop()

for number, (rows, right) in seen:
    print(f"batch {number}: {rows} images, {right:.1%} right")

# %% [markdown]
# The checkpoint remembers which files were read. A query that is started again with the same location
# continues after them.
#
# ## Next
#
# - [examples/streaming_files.py](../../examples/streaming_files.py) is such a stream as a script;
#   [examples/streaming_kafka.py](../../examples/streaming_kafka.py) reads a topic of Kafka instead.
# - [A stream, piece by piece](../fit.md#a-stream-piece-by-piece): `partial_fit` trains on a stream.
# - [Which columns can feed a model](../data.md).

# %%
spark.stop()
