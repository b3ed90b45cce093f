"""What a resumed training must have in common with the one before: all but epochs, rates and names."""

from __future__ import annotations

import dataclasses
import inspect

import keras
import pytest

import distkeras
from distkeras import algorithms
from distkeras.cluster.resume import Interrupted
from distkeras.trainers.base import Trainer
from distkeras.trainers.fingerprint import MAY_CHANGE, describe_algorithm
from distkeras.trainers.named import NamedTrainer


def sequential(activation="relu", dropout=0.5):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation=activation),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(2),
        ]
    )


def functional(join="add", twice=False):
    inputs = keras.Input((4,))
    left, right = (keras.layers.Dense(4)(inputs) for _ in range(2))
    joined = (keras.layers.Add() if join == "add" else keras.layers.Multiply())(
        [left, left if twice else right]
    )
    return keras.Model(inputs, joined)


@keras.saving.register_keras_serializable("fingerprint")
class Own(keras.Model):
    """A class of the user's own, with its arguments in its configuration."""

    def __init__(self, units=3, activation="relu", **options):
        super().__init__(**options)
        self.units, self.activation = units, activation
        self.dense = keras.layers.Dense(units, activation=activation)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return super().get_config() | {"units": self.units, "activation": self.activation}


def own(activation="relu"):
    model = Own(activation=activation)
    model(keras.ops.zeros((1, 4)))
    return model


def nested(activation="relu"):
    return keras.Sequential([keras.Input((4,)), sequential(activation), keras.layers.Dense(1)])


def settings(model=None, optimizer="adam", loss="mse", *, rule=distkeras.DOWNPOUR, **options):
    trainer = rule(sequential() if model is None else model, optimizer, loss, seed=1, **options)
    return trainer._settings(False, 20)


CHANGES = {
    r"model.config.layers\[1\].config.activation='tanh', which was 'relu'": {"model": sequential("tanh")},
    r"layers\[2\].config.rate=0.1, which was 0.5": {"model": sequential(dropout=0.1)},
    r"label_col='other', which was 'label'": {"label_col": "other"},
    r"features_col='other', which was 'features'": {"features_col": "other"},
    r"sample_weight_col='weight', which was None": {"sample_weight_col": "weight"},
    r"class_weight=\{'classes': \[1\], 'weights': \[5.0\]\}, which was None": {"class_weight": {1: 5.0}},
    r"loss='mae', which was 'mse'": {"loss": "mae"},
    r"loss\..*delta=2.0, which was 1.0": {"loss": keras.losses.Huber(delta=2.0)},
    r"optimizer.class='SGD', which was 'Adam'": {"optimizer": "sgd"},
    r"optimizer.beta_1=0.5, which was 0.9": {"optimizer": keras.optimizers.Adam(beta_1=0.5)},
    r"algorithm.name='ADAG', which was 'DOWNPOUR'": {"rule": distkeras.ADAG},
    r"algorithm.communication_window=7, which was 5": {"communication_window": 7},
    r"batch_size=16, which was 32": {"batch_size": 16},
}


@pytest.mark.parametrize("difference", CHANGES)
def test_what_differs_is_named(difference):
    base = {"loss": keras.losses.Huber(delta=1.0)} if "delta" in difference else {}
    with pytest.raises(ValueError, match=f"Received: .*{difference}"):
        Interrupted(settings(**base), 0).check(settings(**base | CHANGES[difference]))


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (functional, {"join": "multiply"}),
        (functional, {"twice": True}),
        (own, {"activation": "tanh"}),
        (nested, {"activation": "tanh"}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_models_of_every_kind_are_compared_and_names_that_keras_numbers_do_not_matter(make, change):
    before = Interrupted(settings(make()), 0)
    before.check(settings(make()))
    with pytest.raises(ValueError, match="Received: model"):
        before.check(settings(make(**change)))


@pytest.mark.parametrize(
    "change",
    [
        {"num_epoch": 9},
        {"optimizer": keras.optimizers.Adam(0.5)},
        {"optimizer": keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10))},
        {"metrics": ["mae"]},
    ],
    ids=["epochs", "rate", "schedule", "metrics"],
)
def test_epochs_may_be_more_and_rates_and_metrics_others(change):
    Interrupted(settings(), 0).check(settings(**change))


def test_the_rate_of_a_rule_follows_that_of_the_optimizer():
    make = [settings(rule=distkeras.DCASGD, learning_rate=rate) for rate in (0.1, 0.2)]
    Interrupted(make[0], 0).check(make[1])


TRAINERS = sorted(
    name
    for name, each in vars(distkeras.trainers).items()
    if isinstance(each, type) and issubclass(each, Trainer) and each not in (Trainer, NamedTrainer)
)


def scaled(columns):
    return columns["features"] * 2


def shifted(columns):
    return columns["features"] + 2


OTHERWISE = {
    "keras_model": (sequential(), sequential("tanh")),
    "algorithm": (algorithms.DOWNPOUR(), algorithms.ADAG()),
    "worker_optimizer": ("sgd", "adam"),
    "loss": ("mse", "mae"),
    "loss_weights": (None, [2.0]),
    "num_workers": (2, 3),
    "batch_size": (32, 16),
    "global_batch_size": (64, 32),
    "features_col": ("features", "other"),
    "label_col": ("label", "other"),
    "sample_weight_col": (None, "weight"),
    "class_weight": (None, {1: 5.0}),
    "num_epoch": (2, 1),
    "seed": (1, 2),
    "preprocess": (scaled, shifted),
    "pad_to": (None, "longest"),
    "drop_remainder": (False, True),
    "quorum": (1, 2),
    "grace": (0.0, 1.0),
    "num_parameter_servers": (1, 2),
    "compression": (None, "int8"),
    "overlap": (False, True),
    "schedule_steps": ("training", "local"),
    "num_ensembles": (2, 3),
    "data": ("share", "all"),
    "max_workers": (2, 3),
    "regions": (1, 2),
}
"""What is compared, with two values that differ."""

MAKES = {
    "grace": lambda **given: distkeras.LocalSGD(sequential(), "sgd", "mse", quorum=1, **given),
    "quorum": lambda **given: distkeras.LocalSGD(sequential(), "sgd", "mse", **given),
    "num_ensembles": lambda **given: distkeras.EnsembleTrainer(sequential(), "sgd", "mse", **given),
    "data": lambda **given: distkeras.EnsembleTrainer(sequential(), "sgd", "mse", **given),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_every_argument_of_every_trainer_is_compared_or_said_to_be_free(name):
    cls = getattr(distkeras.trainers, name)
    known = {*OTHERWISE, *MAY_CHANGE}
    if issubclass(cls, NamedTrainer):
        known |= {field.name for field in dataclasses.fields(cls.algorithm_class)}  # Compared as the rule's.
    given = {*inspect.signature(cls).parameters, *inspect.signature(distkeras.DistributedTrainer).parameters}
    assert given - {"options"} <= known
    assert not {*OTHERWISE} & {*MAY_CHANGE}


def test_every_parameter_of_every_rule_is_compared_but_for_rates():
    for rule in algorithms.REGISTRY.values():
        serialized = describe_algorithm(rule())
        fields = {field.name for field in dataclasses.fields(rule)}
        assert {name for name in fields if not name.endswith("learning_rate")} <= {*serialized}


@pytest.mark.parametrize("argument", OTHERWISE)
def test_an_argument_that_is_compared_is_refused_where_it_differs(argument):
    def with_value(value):
        if argument in MAKES:
            return MAKES[argument](seed=1, **{argument: value})._settings(False, 20)
        given = {"keras_model": OTHERWISE["keras_model"][0], "algorithm": algorithms.DOWNPOUR()}
        given |= {"worker_optimizer": "sgd", "loss": "mse", "seed": 1, argument: value}
        return distkeras.DistributedTrainer(**given)._settings(False, 20)

    before, after = (with_value(value) for value in OTHERWISE[argument])
    Interrupted(before, 0).check(with_value(OTHERWISE[argument][0]))
    with pytest.raises(ValueError, match="Received: "):
        Interrupted(before, 0).check(after)


FREE = {
    "metrics": ["mae"],
    "on_bad_update": "skip",
    "on_lost_worker": "proceed",
    "server": distkeras.ServerOptions(restarts=0),
    "server_placement": "executors",
    "resources": distkeras.Resources(cores=2),
    "min_workers": 2,
    "verbose": 0,
    "custom_objects": {"Own": Own},
    "input_shape": (None, 4),
}


def test_what_may_change_has_a_reason_and_does():
    assert {*FREE} == {*MAY_CHANGE}
    assert all(MAY_CHANGE.values())
    Interrupted(settings(max_workers=2), 0).check(settings(max_workers=2, **FREE))


def test_another_preprocess_is_named_and_one_of_another_python_is_not_compared():
    before = settings(preprocess=scaled)
    with pytest.raises(ValueError, match=r"preprocess, its code in Python 3.*, which was"):
        Interrupted(before, 0).check(settings(preprocess=shifted))
    with pytest.raises(ValueError, match="preprocess=None, which was 'scaled'"):
        Interrupted(before, 0).check(settings())
    older = {
        name.replace(", its code in Python 3", ", its code in Python 2"): part
        for name, part in before.items()
    }
    Interrupted(older, 0).check(before)


def test_a_loss_of_the_users_own_is_compared_by_its_code():
    def make(power):
        def own(y_true, y_pred):
            return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** power)

        return own

    Interrupted(settings(loss=make(2)), 0).check(settings(loss=make(2)))
    with pytest.raises(ValueError, match="loss, its code"):
        Interrupted(settings(loss=make(2)), 0).check(settings(loss=make(3)))


def test_fewer_epochs_are_refused():
    with pytest.raises(ValueError, match="num_epoch=1, which was 3"):
        Interrupted(settings(num_epoch=3), 0).check(settings())


def test_the_loss_that_a_model_is_compiled_with_is_the_loss():
    model = sequential()
    model.compile("adam", "mse")
    Interrupted(settings(), 0).check(settings(model, None, None))
    model.compile("adam", "mae")
    with pytest.raises(ValueError, match="loss='mae', which was 'mse'"):
        Interrupted(settings(), 0).check(settings(model, None, None))


def test_what_an_earlier_version_did_not_write_down_is_not_compared():
    now = settings()
    then = {name: value for name, value in now.items() if name not in ("model", "loss")}
    Interrupted(then, 0).check(now)


def test_of_many_differences_the_first_are_named_and_the_rest_counted():
    def deep(activation):
        return keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(3, activation) for _ in range(9))])

    with pytest.raises(ValueError, match=r"; and 1 more$"):
        Interrupted(settings(deep("relu")), 0).check(settings(deep("tanh")))
