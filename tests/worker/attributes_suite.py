"""Tests of attributes that no configuration names, run by test_attributes.py on every backend."""

from __future__ import annotations

import enum
import functools
import pickle
import threading
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import layers, ops

from distkeras.cluster.pickled_modules import packages_of_model
from distkeras.model.spec import deserialize_model, local_state, serialize_model
from distkeras.worker.nesterov import add_momentum

DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(size=(8, 6)).astype("f"), DRAW.normal(size=(8, 1)).astype("f")


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(7)


def model_of(*parts, optimizer=None, loss="mse", **settings):
    model = keras.Sequential([keras.Input((6,)), *parts])
    model.compile(optimizer or keras.optimizers.SGD(0.01), loss, **settings)
    return model


def assert_trains_alike(model):
    """Whether a copy in a worker does what `model` does: two steps of `fit`, with all that they report."""
    copy = deserialize_model(pickle.loads(pickle.dumps(serialize_model(model))), blank=True)
    mine, its = (
        each.fit(X, Y, batch_size=4, epochs=1, shuffle=False, verbose=0).history for each in (model, copy)
    )
    assert mine.keys() == its.keys()
    for name, values in mine.items():
        np.testing.assert_allclose(its[name], values, rtol=1e-6, err_msg=name)
    for weight, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_allclose(other, weight, rtol=1e-6, atol=1e-7)
    return copy


# Layers.


class Kind(enum.Enum):
    PLAIN, SQUARED = 1, 2


@dataclass
class Options:
    factor: float = 1.0


class Configured(layers.Layer):
    """An attribute of each kind, and a configuration that names none of them."""

    def __init__(self, **options):
        super().__init__(**options)
        self._hidden, self.number, self.nothing = 1.0, np.float32(1), None
        self.items, self.pair, self.named, self.names = [1.0], (1.0, 1.0), {"a": {"b": [1.0]}}, {"one"}
        self.table, self.tensor = np.ones(6, "f"), ops.ones(6)
        self.function, self.options, self.kind = ops.tanh, Options(), Kind.PLAIN
        self.lock = threading.Lock()

    def call(self, x):
        scale = self._hidden * float(self.number) * getattr(self, "new", 1.0) * len(self.names)
        scale *= self.items[0] * self.pair[1] * self.named["a"]["b"][0] * self.options.factor
        x = self.function(x) * ops.convert_to_tensor(self.table) * self.tensor * scale
        x = x if self.nothing is None else x * ops.convert_to_tensor(self.nothing)
        return x if self.kind is Kind.PLAIN else x * x

    def get_config(self):
        return super().get_config()


SET = {
    "_hidden": 0.5,
    "number": np.float32(0.5),
    "nothing": np.arange(6, dtype="f"),
    "new": 0.5,
    "items": [0.5, "more"],
    "pair": (1.0, 0.5),
    "named": {"a": {"b": [0.5]}},
    "names": {"one", "two"},
    "table": np.arange(6, dtype="f"),
    "function": ops.sin,
    "options": Options(0.5),
    "kind": Kind.SQUARED,
}


@pytest.mark.parametrize("name", [*SET, "tensor", "lambda", "partial", "in place"])
def test_an_attribute_of_a_layer_travels(name):
    layer = Configured()
    match name:
        case "tensor":
            layer.tensor = ops.arange(6, dtype="float32")
        case "lambda":
            layer.function = lambda x: ops.convert_to_tensor(layer.table) * x * 0.5
        case "partial":
            layer.function = functools.partial(ops.clip, x_min=-0.1, x_max=0.1)
        case "in place":
            layer.table[:] = 0.5
            layer.items[0], layer.options.factor = 0.5, 3.0
            layer.named["a"]["b"].append(1.0)
        case _:
            setattr(layer, name, SET[name])
    assert_trains_alike(model_of(layer, layers.Dense(1)))


class Projected(layers.Layer):
    """Draws one table when it is made, and another one when it is built; neither is a weight."""

    def __init__(self, **options):
        super().__init__(**options)
        self.signs = np.random.normal(size=6).astype("f")

    def build(self, shape):
        self.projection = keras.random.normal((6, 4))

    def call(self, x):
        return (x * ops.convert_to_tensor(self.signs)) @ self.projection


def test_tables_that_a_layer_has_drawn_travel():
    assert_trains_alike(model_of(Projected(), layers.Dense(1)))


class Weighted(layers.Layer):
    """Its attribute has a name that Keras uses in models."""

    loss = 1.0

    def call(self, x):
        return x * self.loss


def test_names_that_models_have_are_free_in_layers():
    layer = Weighted()
    layer.loss = 0.5
    assert_trains_alike(model_of(layer, layers.Dense(1)))


class WithLoss(keras.Model):
    def norm(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred)) + ops.sum(ops.square(self.layers[-1].kernel))

    def get_config(self):
        return {"inputs": self.inputs, "outputs": self.outputs}


@pytest.mark.parametrize("partial", [False, True])
def test_a_method_of_the_model_may_be_its_loss(partial):
    inputs = keras.Input((6,))
    model = WithLoss(inputs, layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(0.01), functools.partial(model.norm) if partial else model.norm)
    packages_of_model(serialize_model(model))
    assert_trains_alike(model)


class Switch(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = layers.Dense(6), layers.Dense(6)
        self.used = self.first

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, x):
        return self.used(x)


def test_an_attribute_may_refer_to_layers_and_weights_of_the_model():
    first, switch, last = layers.Dense(6), Switch(), Configured()
    switch.used = switch.second
    last.function = lambda x: x * ops.mean(first.kernel)
    copy = assert_trains_alike(model_of(first, switch, last, layers.Dense(1)))
    assert copy.layers[1].used is copy.layers[1].second
    assert all(layer in copy._flatten_layers() for layer in copy.layers[1]._layers)


class Table:
    """No layer: Keras does not know of its variable."""

    def __init__(self):
        self.factors = keras.Variable(np.ones(6, "f"), trainable=False)

    def __call__(self, x):
        return x * ops.convert_to_tensor(self.factors)


class WithTable(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.table = Table()
        self.generator = keras.random.SeedGenerator(3)
        self.noise = lambda shape: keras.random.normal(shape, seed=self.generator)
        generator = self.generator
        self.more = lambda shape: keras.random.normal(shape, seed=generator)

    def call(self, x):
        return self.table(x) + self.noise((6,)) + self.more((6,))


def test_variables_that_keras_does_not_track_travel_and_tracked_generators_stay_the_layer_s():
    layer = WithTable()
    layer.table.factors.assign(np.arange(6, dtype="f"))
    copy = assert_trains_alike(model_of(layer, layers.Dense(1)))
    (closure,) = copy.layers[0].more.__closure__
    assert closure.cell_contents is copy.layers[0].generator


def test_what_a_call_has_left_in_a_layer_is_no_setting_of_it(caplog):
    class Keeping(layers.Layer):
        kept = None

        def call(self, x):
            self.kept = x * 2
            return x

    model = model_of(Keeping(), layers.Dense(1))
    assert_trains_alike(model)
    assert_trains_alike(model)
    assert not [each for each in caplog.records if each.name.startswith("distkeras")]


class Plain(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.notes = None

    def call(self, x):
        return x


def test_an_attribute_that_cannot_be_pickled_brings_a_warning(caplog):
    layer = Plain()
    assert_trains_alike(model_of(layer, layers.Dense(1)))
    assert not [each for each in caplog.records if each.name.startswith("distkeras")]
    layer.notes = threading.Lock()
    assert_trains_alike(model_of(layer, layers.Dense(1)))
    assert "'Plain'" in caplog.text
    assert "['notes']" in caplog.text


def test_a_change_of_an_attribute_is_noticed():
    layer = Configured()
    model = model_of(layer, layers.Dense(1))
    spec = serialize_model(model)
    before = local_state(model, spec.layout)
    assert local_state(model, spec.layout) == before
    layer.named["a"]["b"][0] = 2.0
    assert local_state(model, spec.layout) != before


# Methods of one object.


def half_of(function):
    return lambda *arguments, **named: function(*arguments, **named) * 0.5


def test_methods_that_were_replaced_on_one_object_travel():
    dense = layers.Dense(1)
    metric, loss = keras.metrics.MeanAbsoluteError(), keras.losses.MeanSquaredError()
    optimizer = keras.optimizers.SGD(0.01)
    model = model_of(layers.Dense(6), dense, optimizer=optimizer, loss=loss, metrics=[metric])
    dense.call, metric.result, loss.call = half_of(dense.call), half_of(metric.result), half_of(loss.call)
    step = optimizer.update_step
    optimizer.update_step = lambda gradient, variable, rate: step(gradient * 0.5, variable, rate)
    assert_trains_alike(model)


@pytest.mark.parametrize("name", ["compute_loss", "train_step", "compute_metrics"])
def test_methods_that_were_replaced_on_the_model_travel(name):
    model = model_of(layers.Dense(1), loss=None if name == "compute_loss" else "mse")
    method = getattr(model, name)
    match name:
        case "compute_loss":
            model.compute_loss = lambda x=None, y=None, y_pred=None, sample_weight=None, training=True: (
                ops.mean(ops.abs(y - y_pred))
            )
        case "train_step" if keras.backend.backend() == "jax":
            model.train_step = lambda state, data: method(state, (data[0] * 2, data[1]))
        case "train_step":
            model.train_step = lambda data: method((data[0] * 2, data[1]))
        case _:
            model.compute_metrics = lambda *arguments, **named: {**method(*arguments, **named), "more": 3.0}
    assert_trains_alike(model)


def test_a_method_that_the_backend_has_compiled_travels_as_it_was():
    compiled = {"jax": "jax.jit", "tensorflow": "tf.function"}.get(keras.backend.backend())
    if compiled is None:
        return
    module, name = compiled.split(".")
    compiler = getattr(__import__({"tf": "tensorflow"}.get(module, module)), name)
    layer = Configured()
    layer.function = compiler(lambda x: x * 0.5)
    assert_trains_alike(model_of(layer, layers.Dense(1)))


def test_a_method_that_cannot_be_pickled_is_refused():
    model, lock = model_of(layers.Dense(1)), threading.Lock()
    step = model.train_step

    def locked(*arguments):
        with lock:
            return step(*arguments)

    model.train_step = locked
    with pytest.raises(ValueError, match="'train_step', which was set on the model and refers to"):
        serialize_model(model)


# Variables.


class Unsaveable(layers.Layer):
    """Keras cannot save it: the whole model is copied by value."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return self.function(x)


@pytest.mark.parametrize("by_value", [False, True])
@pytest.mark.parametrize("name", ["given", "set", "removed", "of the layer alone"])
def test_regularizers_and_constraints_of_variables_travel(name, by_value):
    settings = {"kernel_regularizer": keras.regularizers.L2(0.5), "kernel_constraint": "non_neg"}
    dense = layers.Dense(1, **(settings if name in ("given", "removed") else {}))
    model = model_of(*([Unsaveable(ops.tanh)] if by_value else []), dense)
    match name:
        case "set":
            dense.kernel.regularizer = keras.regularizers.L2(0.5)
            dense.kernel.constraint = keras.constraints.NonNeg()
        case "removed":
            dense.kernel.regularizer = dense.kernel.constraint = None
        case "of the layer alone":  # `fit` does not look at it.
            dense.kernel_regularizer = keras.regularizers.L2(0.5)
    copy = assert_trains_alike(model)
    for mine, its in zip(model.weights, copy.weights, strict=True):
        for setting in ("regularizer", "constraint"):
            assert type(getattr(its, setting)) is type(getattr(mine, setting))


def test_copies_by_value_keep_variables_from_being_cast():
    class Keeping(layers.Layer):
        def build(self, shape):
            self.exact = self.add_weight(shape=(6,), initializer="ones", autocast=False)

        def call(self, x):
            return ops.cast(x, "float32") * self.exact

    model = model_of(
        Unsaveable(ops.tanh), Keeping(dtype="mixed_bfloat16"), layers.Dense(1, dtype="mixed_bfloat16")
    )
    copy = assert_trains_alike(model)
    assert [weight._autocast for weight in copy.weights] == [weight._autocast for weight in model.weights]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="It wraps a module of PyTorch.")
def test_copies_by_value_keep_the_parameters_and_buffers_of_modules():
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
    module[0].bias.requires_grad = False
    wrapped = layers.TorchModuleWrapper(module)
    model = model_of(Unsaveable(ops.tanh), wrapped, layers.Dense(1))
    copy = assert_trains_alike(model)
    mine, its = dict(module.named_parameters()), dict(copy.layers[1].module.named_parameters())
    assert {name: (type(each), each.requires_grad) for name, each in its.items()} == {
        name: (type(each), each.requires_grad) for name, each in mine.items()
    }
    torch.testing.assert_close(copy.layers[1].module[1].running_mean, module[1].running_mean)


class Limited(keras.constraints.Constraint):
    def __init__(self, limit=1.0):
        self.limit = [limit]

    def __call__(self, w):
        return ops.clip(w, -self.limit[0], self.limit[0])

    def get_config(self):
        return {}


class Penalty(keras.regularizers.Regularizer):
    def __init__(self, factor=0.0):
        self._factor = factor

    def __call__(self, x):
        return self._factor * ops.sum(ops.square(x))

    def get_config(self):
        return {}


def test_regularizers_and_constraints_keep_what_their_configuration_leaves_out():
    assert_trains_alike(
        model_of(
            layers.Dense(6, activity_regularizer=Penalty(0.5)),
            layers.Dense(1, kernel_regularizer=Penalty(2.0), kernel_constraint=Limited(0.01)),
        )
    )


# Optimizers, schedules and metrics.


class Scaled(keras.optimizers.SGD):
    """Steps by a factor, from a list, and by the attribute that a variable has."""

    def __init__(self, learning_rate=0.01, factors=(1.0,), **options):
        super().__init__(learning_rate, **options)
        self.factors = list(factors)
        self.change = None

    def update_step(self, gradient, variable, learning_rate):
        gradient = gradient * self.factors[0] * getattr(variable, "factor", 1.0)
        super().update_step(self.change(gradient) if self.change else gradient, variable, learning_rate)

    def get_config(self):
        return super().get_config()


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rates=(0.01,)):
        self.rates = rates

    def __call__(self, step):
        return self.rates[-1]

    def get_config(self):
        return {}


@pytest.mark.parametrize("name", ["list", "function", "schedule", "inner", "variable"])
def test_an_attribute_of_an_optimizer_travels(name):
    optimizer = Scaled(factors=[0.5]) if name == "list" else Scaled(Falling((0.01, 0.002)))
    dense = layers.Dense(1)
    model = model_of(dense, optimizer=optimizer)
    match name:
        case "function":
            optimizer.change = ops.sign
        case "inner":
            model.compile(keras.optimizers.LossScaleOptimizer(Scaled(factors=[0.5])), "mse")
        case "variable":
            dense.kernel.factor = 0.25
    assert_trains_alike(model)


def test_the_averages_of_an_optimizer_travel_though_its_count_of_steps_was_set_back():
    optimizer = keras.optimizers.Adam(0.05, epsilon=0.1)
    model = model_of(layers.Dense(1), optimizer=optimizer)
    model.fit(X, Y, verbose=0)
    optimizer.iterations.assign(0)
    assert_trains_alike(model)


def test_the_count_of_steps_that_a_new_optimizer_was_given_travels():
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5))
    optimizer.iterations.assign(4)
    assert_trains_alike(model_of(layers.Dense(1), optimizer=optimizer))


def test_slots_that_were_set_before_the_first_step_travel():
    optimizer, dense = keras.optimizers.SGD(0.01, momentum=0.9), layers.Dense(1)
    model = model_of(dense, optimizer=optimizer)
    optimizer.build(model.trainable_variables)
    for slot in optimizer.momentums:
        slot.assign(np.full(slot.shape, 0.5, "f"))
    assert_trains_alike(model)


class Factor(keras.metrics.Metric):
    """A variable that `reset_state` leaves alone."""

    def __init__(self, name="factor", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.factor = self.add_weight(name="factor", initializer="ones")
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.factor * ops.sum(y_true))

    def result(self):
        return ops.convert_to_tensor(self.total)

    def reset_state(self):
        self.total.assign(0.0)


def test_a_variable_of_a_metric_that_no_reset_changes_travels():
    metric = Factor()
    model = model_of(layers.Dense(1), metrics=[metric])
    metric.factor.assign(3.0)
    if keras.backend.backend() != "tensorflow":  # There the first epoch of `fit` does not reset it.
        metric.total.assign(9.0)
    copy = assert_trains_alike(model)
    assert float(copy.metrics[1].metrics[0].factor) == 3.0


class Counted(keras.metrics.Metric):
    def __init__(self, name="counted", weights=(1.0,), **options):
        super().__init__(name=name, **options)
        self.factors = {"first": list(weights)}
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.factors["first"][0] * ops.sum(ops.cast(y_true, "float32")))

    def result(self):
        return ops.convert_to_tensor(self.total)

    def get_config(self):
        return super().get_config()


def test_an_attribute_of_a_metric_travels():
    cosine = keras.metrics.CosineSimilarity(axis=0)
    own = Counted(weights=(3.0,))
    assert_trains_alike(model_of(layers.Dense(1), metrics=[cosine, own]))


class OwnCompile(keras.Model):
    """A model whose `compile` sets private attributes, an optimizer among them."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.second = None

    def compile(self, optimizer, loss, second, scale):
        super().compile(optimizer, loss)
        self.second, self._scale = second, scale

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self._scale(super().compute_loss(x, y, y_pred, sample_weight, training)) * self.second.momentum

    def get_config(self):
        return {"inputs": self.inputs, "outputs": self.outputs}


def test_private_attributes_that_compile_sets_travel():
    inputs = keras.Input((6,))
    model = OwnCompile(inputs, layers.Dense(1)(inputs))
    second = keras.optimizers.SGD(0.1, momentum=0.25)
    model.compile(keras.optimizers.SGD(0.01), "mse", second, lambda loss: loss * 3)
    copy = assert_trains_alike(model)
    assert copy.second is not second
    assert copy.second.momentum == 0.25


class TwoOptimizers(keras.Model):
    def compile(self, optimizer, loss, second):
        super().compile(optimizer, loss)
        self.first, self.all_of_them = optimizer, [optimizer, second]


@pytest.mark.parametrize("loss_scale", [False, True])
def test_an_attribute_that_is_the_optimizer_of_the_model_is_that_of_the_copy(loss_scale):
    inputs = keras.Input((6,))
    model = TwoOptimizers(inputs, layers.Dense(1)(inputs))
    optimizer, second = keras.optimizers.SGD(0.01), keras.optimizers.Adam()
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if loss_scale else optimizer, "mse", second)
    model.first = optimizer
    copy = deserialize_model(serialize_model(model))
    its = copy.optimizer.inner_optimizer if loss_scale else copy.optimizer
    assert copy.first is its
    assert copy.all_of_them[0] is copy.optimizer
    assert isinstance(copy.all_of_them[1], keras.optimizers.Adam)
    add_momentum(copy, 0.9)
    its = copy.optimizer.inner_optimizer if loss_scale else copy.optimizer
    assert copy.first is its
    assert its.inner_optimizer is not its


def test_a_model_with_its_own_compile_travels_after_fit():
    inputs = keras.Input((6,))
    model = OwnCompile(inputs, layers.Dense(1)(inputs))
    second = keras.optimizers.SGD(0.1, momentum=0.25)
    model.compile(keras.optimizers.SGD(0.01), "mse", second, lambda loss: loss * 3)
    model.fit(X, Y, verbose=0)
    assert_trains_alike(model)


# What the arguments of `compile` refer to.


class WithNorm(keras.losses.Loss):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), -1) + ops.sum(ops.square(self.layer.kernel))

    def bound(self, y_true, y_pred):
        return self.call(y_true, y_pred)


class NormOf(keras.metrics.Metric):
    def __init__(self, layer, name="norm"):
        super().__init__(name=name)
        self.layers = [layer]
        self.norm = self.add_weight(name="norm", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.norm.assign(ops.sum(ops.square(self.layers[0].kernel)))

    def result(self):
        return ops.convert_to_tensor(self.norm)


@pytest.mark.parametrize("name", ["function", "object", "method", "partial", "optimizer", "metric", "given"])
def test_a_compile_setting_may_refer_to_layers_of_the_model(name):
    layer = layers.Dense(6)
    loss = {"object": WithNorm(layer), "method": WithNorm(layer).bound}.get(name, "mse")
    if name == "partial":
        loss = functools.partial(lambda y, p, layer: WithNorm(layer)(y, p), layer=layer)
    if name in ("function", "given"):
        loss = lambda y, p: ops.mean(ops.square(y - p)) + ops.sum(ops.square(layer.kernel))  # noqa: E731
    optimizer = Scaled()
    if name == "optimizer":
        optimizer.change = lambda gradient: gradient * ops.mean(ops.square(layer.kernel))
    # On JAX `fit` itself has no such metrics: outside of the step's scope its weights have no values.
    some = [NormOf(layer)] if name == "metric" and keras.backend.backend() != "jax" else []
    model = model_of(layer, layers.Dense(1), optimizer=optimizer, loss=loss, metrics=some)
    packages_of_model(serialize_model(model))
    if name == "given":
        copy = deserialize_model(serialize_model(model, "sgd", loss), blank=True)
        model.compile("sgd", loss)
        for each in (model, copy):
            each.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
        np.testing.assert_allclose(copy.layers[0].kernel, layer.kernel, rtol=1e-6, atol=1e-7)
    else:
        assert_trains_alike(model)


def test_a_loss_that_refers_to_an_optimizer_is_refused():
    optimizer = keras.optimizers.SGD(0.01)
    model = model_of(
        layers.Dense(1),
        optimizer=optimizer,
        loss=lambda y, p: ops.mean(ops.square(y - p)) / (1 + ops.cast(optimizer.iterations, "float32")),
    )
    with pytest.raises(ValueError, match="a reference to an optimizer SGD"):
        serialize_model(model)


HUBER = keras.losses.Huber(delta=0.05)  # Keras leaves `delta` out of its configuration.


@pytest.mark.parametrize("name", ["loss", "metric", "layer", "optimizer", "network"])
def test_objects_of_keras_in_functions_travel_whole(name):
    layer, optimizer, metrics, loss = Configured(), Scaled(), [], "mse"
    match name:
        case "loss":
            loss = lambda y, p: HUBER(y, p) * 2  # noqa: E731
        case "metric":
            metrics = [keras.metrics.MeanMetricWrapper(lambda y, p: HUBER(y, p), name="huber")]
        case "layer":
            layer.function = lambda x: x * HUBER(x, x * 2)
        case "optimizer":
            schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.5, 0.1])
            schedule.values = [0.25, 0.1]
            optimizer.change = lambda gradient: gradient * schedule(optimizer.iterations)
        case "network":  # It is no part of the model, and is not trained.
            network = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="tanh")])
            layer.function = lambda x: network(x)
    model = model_of(layer, layers.Dense(1), optimizer=optimizer, loss=loss, metrics=metrics)
    assert_trains_alike(model)
