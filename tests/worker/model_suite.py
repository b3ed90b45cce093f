"""Tests of how a model travels, run by test_model.py on every backend."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from distkeras.model.randomness import reseed
from distkeras.model.spec import deserialize_model, ensure_built, serialize_model
from distkeras.model.variables import value_of
from distkeras.model.weights import (
    initial_vector,
    layout_of,
    set_vector,
)


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(7)


def plain_model():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ],
        name="plain",
    )


def state_of(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.variables]


def assert_same_state(model, state):
    for variable, value in zip(model.variables, state, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


def travel(spec):
    return deserialize_model(pickle.loads(pickle.dumps(spec)))


def test_layout_puts_trainable_weights_first_and_leaves_seeds_out():
    layout = layout_of(plain_model())
    names = [path.rpartition("/")[2] for path, _ in layout.trainable]
    assert names == ["kernel", "bias", "gamma", "beta", "kernel", "bias"]
    assert [path.rpartition("/")[2] for path, _ in layout.statistics] == ["moving_mean", "moving_variance"]
    assert layout.trainable[0][1] == (5, 6)
    assert layout.num_trainable == 5 * 6 + 6 + 6 + 6 + 6 * 3 + 3
    assert layout.size == layout.num_trainable + 12


def test_integer_weights_have_no_place_in_the_layout():
    class Counting(keras.layers.Layer):
        def build(self, input_shape):
            self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, initializer="zeros")
            self.seen = self.add_weight(shape=(2,), trainable=False, initializer="zeros")

        def call(self, x):
            return x

    layout = layout_of(keras.Sequential([keras.Input((2,)), Counting(), keras.layers.Dense(1)]))
    assert [shape for _, shape in layout.statistics] == [(2,)]


def test_weights_that_the_optimizer_overwrites_are_statistics():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    for layer in model.layers:
        layer.quantize("float8")
    model.layers[1].trainable = False
    layout = layout_of(model)
    assert [path.rpartition("/")[2] for path, _ in layout.trainable] == ["kernel", "bias"]
    overwritten = [path.rpartition("/")[2] for path, _ in layout.statistics]
    assert len(overwritten) == 6
    assert {name.rpartition("_")[2] for name in overwritten} == {"scale", "history"}


def test_frozen_layer_of_a_model_has_no_place_in_the_vector():
    model = plain_model()
    model.layers[0].trainable = False
    layout = layout_of(model)
    assert layout.num_trainable == 6 + 6 + 6 * 3 + 3
    assert layout.size == layout_of(plain_model()).size - (5 * 6 + 6)


def test_thawed_model_has_every_weight_and_seed_bit_for_bit():
    model = plain_model()
    set_vector(model, np.random.default_rng(0).normal(size=layout_of(model).size).astype(np.float32))
    reseed(model, 5)
    state = state_of(model)
    copy = travel(serialize_model(model, "sgd", "mse"))
    assert copy is not model
    assert copy.compiled
    assert_same_state(copy, state)
    assert_same_state(model, state)
    assert not model.compiled


def test_settings_given_win_over_the_compiled_ones():
    model = plain_model()
    model.compile(keras.optimizers.SGD(0.5), "mse", metrics=["mae"])
    copy = travel(serialize_model(model, keras.optimizers.Adam(0.25)))
    assert isinstance(copy.optimizer, keras.optimizers.Adam)
    assert float(copy.optimizer.learning_rate) == 0.25
    copy = travel(serialize_model(model, loss="sparse_categorical_crossentropy", metrics=["accuracy"]))
    assert isinstance(copy.optimizer, keras.optimizers.SGD)
    assert float(copy.optimizer.learning_rate) == 0.5
    logs = copy.train_on_batch(np.ones((4, 5), np.float32), np.array([0, 1, 2, 0]), return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    assert logs["loss"] == pytest.approx(np.log(3), abs=1.5)


def test_compiled_settings_travel_whole():
    inputs = keras.Input((3,))
    outputs = [keras.layers.Dense(1, name="a")(inputs), keras.layers.Dense(1, name="b")(inputs)]
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.SGD(0.125),
        loss=["mse", keras.losses.Huber(delta=0.5)],
        loss_weights=[0.25, 4.0],
        metrics=[["mae"], None],
        weighted_metrics=[None, ["mae"]],
        run_eagerly=True,
    )
    copy = travel(serialize_model(model))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    y = [np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)]
    expected = model.train_on_batch(x, y, return_dict=True)
    assert copy.train_on_batch(x, y, return_dict=True) == pytest.approx(expected, rel=1e-5)
    assert copy.run_eagerly


def test_objects_of_the_caller_stay_as_they_are():
    model = plain_model()
    optimizer, metric = keras.optimizers.Adam(0.01), keras.metrics.MeanAbsoluteError()
    loss = keras.losses.MeanSquaredError()
    before = optimizer.get_config()
    copies = [travel(serialize_model(model, optimizer, loss, [metric])) for _ in range(2)]
    for copy in copies:
        copy.train_on_batch(np.ones((4, 5), np.float32), np.ones((4, 3), np.float32))
    assert not optimizer.built
    assert int(optimizer.iterations) == 0
    assert optimizer.get_config() == before
    assert float(metric.result()) == 0.0
    assert copies[0].optimizer is not optimizer
    assert copies[0].optimizer is not copies[1].optimizer


def test_compiled_optimizer_of_a_trained_model_goes_on_and_a_given_one_begins():
    model = plain_model()
    model.compile("adam", "mse")
    x, y = np.ones((4, 5), np.float32), np.ones((4, 3), np.float32)
    model.train_on_batch(x, y)
    copy = travel(serialize_model(model))
    assert int(copy.optimizer.iterations) == 1
    for mine, its in zip(model.optimizer.variables, copy.optimizer.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(mine), keras.ops.convert_to_numpy(its))
    assert_same_state(copy, state_of(model))
    assert int(travel(serialize_model(model, "adam")).optimizer.iterations) == 0


def test_model_defined_in_main_works_in_another_process(tmp_path):
    file = tmp_path / "frozen.pickle"
    script = Path(__file__).with_name("frozen_in_main.py")
    subprocess.run([sys.executable, str(script), str(file)], check=True, timeout=120)
    spec, vector, x, y, outputs, losses = pickle.loads(file.read_bytes())
    assert keras.saving.get_registered_object("notebook>Scaled") is None
    model = deserialize_model(spec)
    np.testing.assert_array_equal(initial_vector(model), vector)
    np.testing.assert_allclose(model.predict(x, verbose=0), outputs, rtol=1e-6)
    measured = [model.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(3)]
    assert measured == pytest.approx(losses, rel=1e-5)


class Unregistered(keras.Model):
    """A subclass that Keras does not know, with a layer it builds when it is called."""

    def __init__(self, units=2, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"units": self.units}


def test_subclass_built_by_an_input_shape_travels():
    model = Unregistered(3)
    copy = travel(serialize_model(model, "sgd", "mse", input_shape=(None, 4)))
    assert isinstance(copy, keras.Model)
    assert layout_of(copy).size == 4 * 3 + 3
    assert_same_state(copy, state_of(model))


def test_given_custom_objects_travel():
    def tripled(x):
        return 3.0 * x

    layer = keras.layers.Dense(2, activation=tripled)
    model = keras.Sequential([keras.Input((2,)), layer])
    copy = travel(serialize_model(model, "sgd", "mse", custom_objects={"tripled": tripled}))
    x = np.ones((1, 2), np.float32)
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0))


def test_lambda_in_the_model_and_in_the_loss_travels():
    dense = keras.layers.Dense(1, kernel_initializer="ones")  # A sum near zero would be mostly rounding.
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: 2.0 * x), dense])
    copy = travel(serialize_model(model, "sgd", lambda y, p: keras.ops.mean((y - p) ** 4, axis=-1)))
    x = np.ones((1, 2), np.float32)
    outputs = model.predict(x, verbose=0)
    loss = copy.train_on_batch(x, np.zeros((1, 1), np.float32), return_dict=True)["loss"]
    assert float(loss) == pytest.approx(float(outputs[0, 0]) ** 4, rel=1e-5)


@keras.saving.register_keras_serializable("suite")
class OwnCompile(keras.Model):
    """A model whose compile() takes an argument of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)

    def compile(self, strength, **kwargs):
        super().compile(**kwargs)
        self.strength = strength

    def get_config(self):
        return {}

    def get_compile_config(self):
        return super().get_compile_config() | {"strength": self.strength}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))


def test_model_with_its_own_compile_travels():
    model = OwnCompile()
    model.compile(strength=4.0, optimizer="sgd", loss="mse")
    assert travel(serialize_model(model, input_shape=(None, 3))).strength == 4.0


def test_model_with_its_own_compile_may_have_a_loss_with_a_configuration():
    model = OwnCompile()
    model.compile(strength=4.0, optimizer="sgd", loss=keras.losses.MeanSquaredError("sum"), metrics=["mae"])
    assert travel(serialize_model(model, input_shape=(None, 3))).loss.reduction == "sum"
    model.compile(strength=4.0, optimizer="sgd", loss="no_such_loss")
    with pytest.raises(ValueError, match="no_such_loss"):
        serialize_model(model)


def test_model_that_does_not_say_how_it_is_compiled_travels_with_what_compile_has_set():
    class Hiding(keras.Sequential):
        def compile(self, strength, **kwargs):
            super().compile(**kwargs)
            self.strength = strength

    model = Hiding([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(1.5, optimizer=keras.optimizers.SGD(0.25), loss="mse", metrics=["mae"])
    copy = travel(serialize_model(model))
    assert copy.strength == 1.5
    assert float(copy.optimizer.learning_rate) == 0.25
    logs = copy.train_on_batch(np.ones((1, 2), np.float32), np.ones((1, 1), np.float32), return_dict=True)
    assert set(logs) == {"loss", "mae"}


class Doubling(keras.Sequential):
    """A model that compiles in its own way, with Keras's names."""

    def compile(self, optimizer="auto", loss="auto", **kwargs):
        super().compile(optimizer=optimizer, loss=loss, **kwargs)
        self.doubled = 2


def test_model_with_its_own_compile_takes_the_optimizer_and_loss_that_are_given():
    model = Doubling([keras.Input((2,)), keras.layers.Dense(1)])
    copy = travel(serialize_model(model, "adam", "mse", ["mae"]))
    assert copy.doubled == 2
    assert isinstance(copy.optimizer, keras.optimizers.Adam)


@keras.saving.register_keras_serializable("model_suite")
class Sparing(keras.Model):
    """One layer is called in training alone, and one never."""

    def __init__(self, **options):
        super().__init__(**options)
        self.body, self.head = keras.layers.Dense(4), keras.layers.Dense(3)
        self.noisy, self.spare = keras.layers.Dense(4), keras.layers.Dense(7)

    def call(self, x, training=False):
        x = self.body(x)
        return self.head(self.noisy(x) if training else x)


def called():
    model = Sparing()
    model(np.ones((1, 5), np.float32))
    return model


def with_another_head():
    model = Sparing()
    model.head = keras.layers.Dense(2)  # Keras keeps the first one too, which is never built.
    model(np.ones((1, 5), np.float32))
    return model


def inside_another():
    return keras.Sequential([keras.Input((5,)), Sparing()])


@pytest.mark.parametrize("made", [called, with_another_head, inside_another])
def test_a_layer_that_training_calls_is_built_and_one_that_nothing_calls_is_not_missed(made):
    model = made()
    copy = travel(serialize_model(model, "sgd", "mse"))
    kernels = {tuple(each.shape) for each in copy.weights if len(each.shape) == 2}
    assert kernels == {(5, 4), (4, 2 if made is with_another_head else 3), (4, 4)}
    for mine, its in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (mine, its)))


def test_unbuilt_model_is_refused_with_the_way_out():
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"input_shape.*Received"):
        serialize_model(model, "sgd", "mse")
    ensure_built(model, (None, 3))
    assert layout_of(model).size == 8


def test_model_without_optimizer_or_loss_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="worker_optimizer"):
        serialize_model(plain_model(), loss="mse")
    with pytest.raises(ValueError, match="`loss`"):
        serialize_model(plain_model(), "sgd")
    with pytest.raises(ValueError, match="no_such_optimizer"):
        serialize_model(plain_model(), "no_such_optimizer", "mse")
    with pytest.raises(ValueError, match="no_such_loss"):
        serialize_model(plain_model(), "sgd", "no_such_loss")


@pytest.mark.parametrize("metrics", ["accuracy", ["no_such_metric"], {"a": ["no_such_metric"]}])
def test_metrics_that_keras_would_refuse_are_refused_before_they_travel(metrics):
    with pytest.raises(ValueError, match=r"accuracy|no_such_metric"):
        serialize_model(plain_model(), "sgd", "mse", metrics)


def test_metrics_that_keras_chooses_by_the_targets_travel():
    copy = travel(serialize_model(plain_model(), "sgd", "mse", ["acc", "CE"]))
    assert copy._compile_metrics._user_metrics == ["acc", "CE"]


def test_weights_are_set_to_a_copy_of_the_vector():
    model = plain_model()
    vector = np.arange(layout_of(model).size, dtype=np.float32) + 1
    set_vector(model, vector)
    np.testing.assert_array_equal(initial_vector(model), vector)
    vector[:] = 0.0
    assert initial_vector(model).min() == 1.0
    with pytest.raises(ValueError, match="Expected a vector of shape"):
        set_vector(model, vector[1:])


def test_seeds_of_workers_differ_and_are_the_same_every_time():
    model = plain_model()
    spec = serialize_model(model, "sgd", "mse")
    seeds = []
    for worker in (0, 1, 2, 1):
        copy = travel(spec)
        reseed(copy, worker)
        np.testing.assert_array_equal(initial_vector(copy), initial_vector(model))
        seeds.append([state.tolist() for state in state_of(copy) if state.dtype.kind in "iu"])
    assert seeds[0] == [state.tolist() for state in state_of(model) if state.dtype.kind in "iu"]
    assert seeds[1] == seeds[3]
    assert len({str(seed) for seed in seeds}) == 3


@keras.saving.register_keras_serializable("model_suite")
class Clipped(keras.constraints.Constraint):
    def __call__(self, w):
        return keras.ops.clip(w, -1, 1)


class Halved(keras.constraints.Constraint):
    """No projection: it changes its own result."""

    def __call__(self, w):
        return w / 2


def constrained_model(constraint):
    dense = keras.layers.Dense(2, kernel_constraint=constraint)
    return keras.Sequential([keras.Input((2,)), dense, keras.layers.Dense(1)])


@pytest.mark.parametrize(
    ("constraint", "given", "expected"),
    [
        (keras.constraints.NonNeg(), [[1, -1e-8], [-2, 3]], [[1, 0], [0, 3]]),
        (keras.constraints.MaxNorm(1), [[3, 0.3], [4, 0.4]], [[0.6, 0.3], [0.8, 0.4]]),
        (keras.constraints.UnitNorm(), [[3, 0], [4, 2]], [[0.6, 0], [0.8, 1]]),
        (keras.constraints.MinMaxNorm(2, 5), [[3, 0.6], [4, 0.8]], [[3, 1.2], [4, 1.6]]),
        (Clipped(), [[3, 0.6], [-4, 0.8]], [[1, 0.6], [-1, 0.8]]),
        (Halved(), [[3, 0.6], [-4, 0.8]], [[3, 0.6], [-4, 0.8]]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_constraints_hold_of_weights_that_a_center_gives(constraint, given, expected):
    model = constrained_model(constraint)
    vector = initial_vector(model)
    vector[:4] = np.ravel(given)
    before = vector.copy()
    set_vector(model, vector)
    kernel = value_of(model.layers[0].kernel)
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    np.testing.assert_array_equal(initial_vector(model)[4:], before[4:])
    np.testing.assert_array_equal(vector, before)
    set_vector(model, initial_vector(model))
    np.testing.assert_array_equal(value_of(model.layers[0].kernel), kernel)


@pytest.mark.parametrize("policy", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["MaxNorm", "UnitNorm", "MinMaxNorm", "NonNeg"])
def test_weights_that_fulfil_a_constraint_stay_as_they_are(name, policy):
    """One worker equals `fit`: its center has fulfilled the constraints already, to rounding."""
    constraint = getattr(keras.constraints, name)()
    model = keras.Sequential(
        [keras.Input((9,)), keras.layers.Dense(7, kernel_constraint=constraint, dtype=policy)]
    )
    kernel = model.layers[0].kernel
    kernel.assign(3 * np.random.default_rng(0).normal(size=(9, 7)))
    kernel.assign(constraint(kernel))
    vector = initial_vector(model)
    set_vector(model, vector)
    np.testing.assert_array_equal(initial_vector(model), vector)
