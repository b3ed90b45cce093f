"""Coming from dist-keras: its notebook runs, and what is gone says what to use."""

from __future__ import annotations

import copy
import importlib
import itertools
import pickle
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import distkeras
from distkeras import removed_names
from distkeras.trainers.defaults import CHANGED

TRAINERS = ["SingleTrainer", "AveragingTrainer", "EnsembleTrainer", "ADAG", "AEASGD"]
NAMES = [(module, name) for module, names in removed_names.NAMES.items() for name in names]


def network():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def trainer(name="ADAG", **options):
    return getattr(distkeras, name)(network(), "sgd", "mse", **options)


# --- the notebook


@pytest.fixture(scope="module")
def raw(spark):
    """Rows like those of the notebook: named columns of numbers, and a label in words."""
    x = np.random.default_rng(0).normal(5, 3, size=(1024, 4)).round(3)
    table = pd.DataFrame(x, columns=[f"DER_{i}" for i in range(4)])
    return spark.createDataFrame(table.assign(Label=np.where(x[:, 0] + x[:, 1] > 10, "s", "b"))).coalesce(2)


def test_the_notebook_of_dist_keras_runs_and_learns_with_the_default_that_it_had(raw):
    from pyspark.ml.feature import StandardScaler, StringIndexer, VectorAssembler

    words = {}
    for module in ("trainers", "predictors", "transformers", "evaluators", "utils"):
        exec(f"from distkeras.{module} import *", words)
    features = [name for name in raw.columns if name != "Label"]
    dataset = VectorAssembler(inputCols=features, outputCol="features").transform(raw)
    scaler = StandardScaler(inputCol="features", outputCol="features_normalized", withStd=True, withMean=True)
    dataset = scaler.fit(dataset).transform(dataset)
    dataset = StringIndexer(inputCol="Label", outputCol="label_index").fit(dataset).transform(dataset)
    one_hot = words["OneHotTransformer"](output_dim=2, input_col="label_index", output_col="label")
    dataset = one_hot.transform(dataset).select("features_normalized", "label_index", "label")
    dataset = words["shuffle"](dataset)

    # One word is another than in the notebook, whose optimizer is "adagrad".
    optimizer = old_default("adagrad")
    trainer = words["SingleTrainer"](
        keras_model=network(),
        worker_optimizer=optimizer,
        loss="categorical_crossentropy",
        features_col="features_normalized",
        label_col="label",
        num_epoch=1,
        batch_size=32,
    )
    trained_model = trainer.train(dataset)
    assert trainer.get_training_time() > 0
    predictor = words["ModelPredictor"](keras_model=trained_model, features_col="features_normalized")
    predicted = words["LabelIndexTransformer"](output_dim=2).transform(predictor.predict(dataset))
    evaluator = words["AccuracyEvaluator"](prediction_col="prediction_index", label_col="label_index")
    assert evaluator.evaluate(predicted) > 0.8


def old_default(name):
    """Return the optimizer that the warning names."""
    with pytest.warns(distkeras.ChangedDefaultWarning, match=f"'{name}' had .* in Keras 1") as told:
        distkeras.SingleTrainer(network(), name, "mse")
    (warning,) = [one for one in told if one.category is distkeras.ChangedDefaultWarning]
    assert warning.filename == __file__
    (way,) = re.findall(r"`worker_optimizer=([^`]*)`", str(warning.message))
    return eval(way)


@pytest.mark.parametrize("name", CHANGED)
def test_a_default_is_said_to_have_changed_as_it_has(name):
    now, then = keras.optimizers.get(name).get_config(), old_default(name).get_config()
    numbers = [now["learning_rate"], now.get("initial_accumulator_value")]
    assert CHANGED[name][1] == " and ".join(f"{number:g}" for number in numbers if number is not None)
    assert then["learning_rate"] >= 9.9 * now["learning_rate"]


def test_an_optimizer_whose_defaults_are_meant_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", distkeras.ChangedDefaultWarning)
        for optimizer in ("sgd", "rmsprop", "adam", "adamax", keras.optimizers.Adagrad()):
            distkeras.ADAG(network(), optimizer, "mse")


# --- what is gone


@pytest.mark.parametrize("module", removed_names.MODULES)
def test_a_module_that_is_gone_says_what_to_use_however_it_is_imported(module):
    hint = re.escape(removed_names.MODULES[module])
    with pytest.raises(ModuleNotFoundError, match=hint):
        importlib.import_module(f"distkeras.{module}")
    for code in (f"from distkeras import {module}", f"from distkeras.{module} import Worker"):
        with pytest.raises(ImportError, match=hint):
            exec(code)
    with pytest.raises(AttributeError, match=hint):
        getattr(distkeras, module)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_name_of_a_module_that_is_gone_says_what_to_use(module, name):
    hint = re.escape(removed_names.NAMES[module][name])
    with pytest.raises(ImportError, match=hint):
        exec(f"from distkeras.{module} import {name}")
    if module == "trainers":
        with pytest.raises(ImportError, match=hint):
            exec(f"from distkeras import {name}")


def test_a_name_that_never_was_is_missing_as_any_other():
    for module in ("distkeras", *(f"distkeras.{name}" for name in removed_names.NAMES)):
        assert not hasattr(importlib.import_module(module), "Nosuch")
        with pytest.raises(ImportError, match="cannot import name 'Nosuch'"):
            exec(f"from {module} import Nosuch")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'distkeras\.nosuch'"):
        importlib.import_module("distkeras.nosuch")
    assert not hasattr(trainer(), "nosuch")


@pytest.mark.parametrize("name", TRAINERS)
def test_a_member_of_a_trainer_that_is_gone_says_what_to_use_read_or_set(name):
    made = trainer(name)
    for member, hint in removed_names.MEMBERS.items():
        with pytest.raises(AttributeError, match=re.escape(hint)):
            getattr(made, member)
        with pytest.raises(AttributeError, match=re.escape(hint)):
            setattr(made, member, 1)
    with pytest.raises(TypeError, match=r"`master_port` .* was removed: the system chooses a port"):
        trainer(name, master_port=5000)


def test_a_subclass_of_the_users_own_may_have_members_by_the_old_names():
    class Own(distkeras.ADAG):
        history = ()

        def __init__(self, *args, **options):
            self.learning_rate = 0.5  # Before its base is made, too.
            super().__init__(*args, **options)
            self.history = ["mine"]

        @property
        def rho(self):
            return self._rho

        @rho.setter
        def rho(self, value):
            self._rho = value

        def serialize(self):
            return "mine"

    own = Own(network(), "sgd", "mse")
    own.rho = 3
    assert (own.learning_rate, own.history, own.rho, own.serialize()) == (0.5, ["mine"], 3, "mine")
    assert copy.copy(own).history == ["mine"]
    with pytest.raises(AttributeError, match=r"`master_port` of dist-keras was removed"):
        _ = own.master_port  # What it does not have is explained as before.


@pytest.mark.parametrize("name", TRAINERS)
def test_arguments_by_the_old_positions_are_refused_by_their_values(name):
    with pytest.raises(TypeError, match=r"by name, such as .*Received by position: \(\['accuracy'\], 4\)"):
        getattr(distkeras, name)(network(), "sgd", "mse", ["accuracy"], 4)
    with pytest.raises(TypeError, match=r"loss by name.*Received by position: \(\['accuracy'\],\)"):
        distkeras.DistributedTrainer(network(), distkeras.algorithms.ADAG(), "sgd", "mse", ["accuracy"])


def test_num_updates_is_a_number_that_says_that_it_is_not_called():
    updates = trainer().num_updates
    assert updates == 0
    assert pickle.loads(pickle.dumps(updates)) == 0
    with pytest.raises(TypeError, match=r"it is now a property, `trainer\.num_updates`"):
        updates()


def test_the_guide_names_everything_that_is_gone():
    text = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
    part = text.partition("## What was removed")[2]
    names = itertools.chain(removed_names.MEMBERS, removed_names.ARGUMENTS, *removed_names.NAMES.values())
    missing = [name for name in names if f"`{name}`" not in part]
    missing += [name for name in removed_names.MODULES if f"`distkeras.{name}`" not in part]
    missing += [name for name in CHANGED if f'`"{name}"`' not in text]
    assert missing == []
