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
# # Pipelines and searches in Spark ML
#
# `distkeras.ml` makes a Keras model a stage of Spark ML. After this notebook you can
#
# - put a network into a `Pipeline` with Spark's own stages, fit it, and judge it by Spark's evaluators,
# - search over optimizers with `CrossValidator`,
# - search over optimizers, windows and learning rates with Optuna, two trainings at a time,
# - save the fitted pipeline, and load it where it is needed.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import sys
import tempfile
from pathlib import Path

import keras
import optuna
import pandas as pd
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import Imputer, StandardScaler, StringIndexer, VectorAssembler
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder

from distkeras.algorithms import ADAG, DynSGD
from distkeras.cluster.session import local_session
from distkeras.ml import KerasClassifier

sys.path.append(str(Path("../../examples").resolve()))
import physics_events

# %% [markdown]
# ## A pipeline
#
# The rows are those of [every optimizer on a table of physics events](workflow.py): 30 measurements, some of
# them missing, and a label, `s` or `b`. Four stages of Spark prepare them.

# %%
folder = Path(tempfile.mkdtemp())
physics_events.write(folder / "events.parquet", rows=6000)

spark = local_session(4)
events = spark.read.parquet(str(folder / "events.parquet"))
training, test = events.randomSplit([0.8, 0.2], seed=1)

measured = physics_events.FEATURES
preparation = [
    StringIndexer(inputCol="label", outputCol="class", stringOrderType="alphabetAsc"),
    Imputer(inputCols=measured, outputCols=measured, missingValue=physics_events.MISSING),
    VectorAssembler(inputCols=measured, outputCol="measured"),
    StandardScaler(inputCol="measured", outputCol="features", withMean=True),
]

# %% [markdown]
# The last stage is the network. `KerasClassifier` is an Estimator like Spark's `LogisticRegression`: its
# arguments are Params, and `explainParams()` explains them.

# %%
keras.utils.set_random_seed(1)
network = keras.Sequential(
    [
        keras.Input((len(measured),)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
classifier = KerasClassifier(
    model=network,
    algorithm=DynSGD(communication_window=5),
    workerOptimizer=keras.optimizers.SGD(0.1),
    labelCol="class",
    numWorkers=2,
    numEpoch=2,
    seed=0,
    verbose=False,
)
pipeline = Pipeline(stages=[*preparation, classifier])
fitted = pipeline.fit(training)

# %% [markdown]
# The fitted pipeline goes from raw rows to predictions, in the columns of Spark's own classifiers.

# %%
predicted = fitted.transform(test)
predicted.select("mass_collinear", "num_jets", "label", "probability", "prediction").show(5, truncate=40)

# %%
evaluator = BinaryClassificationEvaluator(labelCol="class")
print("area under the ROC curve:", round(evaluator.evaluate(predicted), 3))
summary = fitted.stages[-1].summary
print(
    "minibatches:",
    summary.totalIterations,
    "- loss:",
    [round(loss, 2) for loss in summary.objectiveHistory[::20]],
)

# %% [markdown]
# ## CrossValidator
#
# A grid over two optimizers: each is trained on two folds, two trainings at a time. A second `addGrid`, such
# as of `classifier.learningRate`, makes a grid of pairs. The preparation is the same for all, so it runs
# once, before the search.

# %%
ready = Pipeline(stages=preparation).fit(training)
rows = ready.transform(training).select("features", "class").repartition(2).cache()

grid = (
    ParamGridBuilder()
    .addGrid(classifier.algorithm, [DynSGD(communication_window=5), ADAG(communication_window=5)])
    .build()
)
search = CrossValidator(
    estimator=classifier, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, parallelism=2, seed=0
)
found = search.fit(rows)

table = pd.DataFrame(
    {"algorithm": params[classifier.algorithm].value.name, "AUC": score}
    for params, score in zip(grid, found.avgMetrics, strict=True)
)
table.round(3)

# %% [markdown]
# `found.bestModel` is the model of the best one, trained on all rows.
#
# ## Optuna
#
# A grid tries everything. Optuna proposes the next trial from what it has seen. The estimator holds back the
# rows where `validationIndicatorCol` is true, and judges the trained model by them, so a trial needs no
# evaluator. Each `fit` has a parameter server of its own: `n_jobs=2` runs two at a time.

# %%
marked = rows.selectExpr("*", "rand(0) < 0.25 AS held").cache()
candidate = classifier.copy({classifier.validationIndicatorCol: "held"})


def accuracy(trial):
    params = {
        candidate.algorithm: trial.suggest_categorical("rule", ["DOWNPOUR", "DynSGD", "AEASGD"]),
        candidate.communicationWindow: trial.suggest_int("window", 2, 20, log=True),
        candidate.learningRate: trial.suggest_float("rate", 0.01, 0.5, log=True),
    }
    return candidate.fit(marked, params).validation_metrics["accuracy"]


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(accuracy, n_trials=3, n_jobs=2)
study.trials_dataframe()[["value", "params_rule", "params_window", "params_rate"]].round(3)

# %% [markdown]
# ## Save and load
#
# A pipeline with a network inside is saved as any other, and can be loaded in another process. Nothing is
# pickled.

# %%
final = PipelineModel([*ready.stages, found.bestModel])
final.save(str(folder / "pipeline"))
loaded = PipelineModel.load(str(folder / "pipeline"))
print("loaded:", round(evaluator.evaluate(loaded.transform(test)), 3))

# %% [markdown]
# ## Next
#
# - [In Spark ML](../ml.md) lists estimators, models and Params.
# - [examples/search.py](../../examples/search.py) is a search as a script.

# %%
spark.stop()
