"""Tests of what a model keeps that its `.keras` file loses, run by test_journey.py on every backend."""

from __future__ import annotations

import pickle
from dataclasses import replace

import keras
import numpy as np
import pytest

from distkeras.model.process import ProcessSettings
from distkeras.model.saved import save
from distkeras.model.schedule import Position, ScheduleSteps
from distkeras.model.spec import deserialize_model, first_vector, local_state, serialize_model
from distkeras.model.variables import tree_of, value_of
from distkeras.model.weights import AVERAGE, ModelChanged, layout_of, set_vector

BACKEND = keras.backend.backend()


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(7)


class Block(keras.layers.Layer):
    """Two layers inside one, as Keras saves it: without their flags, nor its own temperature."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(3)
        self.second = keras.layers.Dense(3)
        self.temperature = 1.0

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((None, 3))

    def call(self, x):
        return self.second(self.first(x)) * self.temperature


def blocks():
    return keras.Sequential([keras.Input((3,)), Block(), keras.layers.Dense(2)])


def attention():
    inputs = keras.Input((4, 6))
    layer = keras.layers.MultiHeadAttention(2, 3)
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(layer(inputs, inputs)))
    return keras.Model(inputs, outputs), layer


def travel(spec):
    return deserialize_model(pickle.loads(pickle.dumps(spec)), blank=True)


def assert_same(copy, model):
    """Whether `copy` has the variables of `model`, their flags, and its outputs."""
    mine, its = tree_of(model), tree_of(copy)
    assert list(mine.variables) == list(its.variables)
    for path, variable in mine.variables.items():
        np.testing.assert_array_equal(value_of(its.variables[path]), value_of(variable), err_msg=path)
        assert its.variables[path].trainable == variable.trainable, path
    assert [v.shape for v in copy.trainable_variables] == [v.shape for v in model.trainable_variables]
    x = np.random.default_rng(0).normal(size=(2, *model.inputs[0].shape[1:])).astype(np.float32)
    np.testing.assert_array_equal(copy.predict(x, verbose=0), model.predict(x, verbose=0))


def test_flags_of_inner_layers_and_of_single_weights_travel():
    model = blocks()
    model.layers[0].first.trainable = False
    model.layers[1].kernel.trainable = False
    copy = travel(serialize_model(model, "sgd", "mse"))
    assert_same(copy, model)
    assert [path for path, _ in layout_of(copy).trainable] == [
        "Block/second/kernel",
        "Block/second/bias",
        "Dense/bias",
    ]


def test_attributes_that_no_configuration_names_travel():
    model = blocks()
    model.layers[0].temperature = 0.25
    assert_same(travel(serialize_model(model, "sgd", "mse")), model)


def test_lora_of_inner_layers_travels_with_its_factors():
    model, layer = attention()
    layer._query_dense.enable_lora(2)
    layer._value_dense.enable_lora(1)
    layer._query_dense.lora_kernel_b.assign(np.ones(layer._query_dense.lora_kernel_b.shape))
    spec = serialize_model(model, "sgd", "mse")
    assert_same(travel(spec), model)
    names = [path.rpartition("/")[2] for path, _ in spec.layout.trainable]
    assert names.count("lora_kernel_a") == names.count("lora_kernel_b") == 2


def test_quantized_inner_layers_travel():
    model, layer = attention()
    layer._output_dense.quantize("int8")
    copy = travel(serialize_model(model, "sgd", "mse"))
    mine, its = tree_of(model), tree_of(copy)
    for path, variable in mine.variables.items():
        np.testing.assert_array_equal(value_of(its.variables[path]), value_of(variable), err_msg=path)


def test_keras_own_paths_travel():
    """Optimizers choose weights by them, and PyTorch lists its parameters."""
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)], name="inner")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), inner], name="outer")
    copy = travel(serialize_model(model, "sgd", "mse"))
    mine, its = tree_of(model), tree_of(copy)
    assert model.weights[0].path.startswith("outer/")
    for parts, others in ((mine.variables, its.variables), (mine.layers, its.layers)):
        assert {path: part.path for path, part in parts.items()} == {
            path: part.path for path, part in others.items()
        }
    if keras.backend.backend() == "torch":

        def assert_same_parameters():
            for mine, its in ((model, copy), (model.layers[0], copy.layers[0])):
                assert dict(mine.named_parameters()).keys() == dict(its.named_parameters()).keys()

        assert_same_parameters()
        for each in (model, copy):
            each.layers[0].enable_lora(2)
        assert_same_parameters()


def quantized_later():
    """A layer that is built with float8 makes its weights in another order than one quantized later."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    for layer in model.layers:
        layer.quantize("float8")
    return model


@keras.saving.register_keras_serializable("journey")
class TwoLayers(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.one, self.two = keras.layers.Dense(4), keras.layers.Dense(4)

    def call(self, x):
        return self.two(self.one(x))


def replaced_layer():
    model = TwoLayers()
    del model.one
    model.one = keras.layers.Dense(4)  # Now the last, and the first in a copy.
    model(np.ones((1, 4), np.float32))
    return model


@pytest.mark.parametrize("made", [quantized_later, replaced_layer])
def test_the_order_of_weights_travels_and_so_does_the_state_of_an_optimizer(made):
    model = made()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.train_on_batch(np.ones((2, 4), np.float32), np.ones((2, model.layers[-1].units), np.float32))
    copy = travel(serialize_model(model))
    for mine, its in ((model.weights, copy.weights), (model.optimizer.variables, copy.optimizer.variables)):
        assert [tuple(each.shape) for each in mine] == [tuple(each.shape) for each in its]
        for one, other in zip(mine, its, strict=True):
            np.testing.assert_array_equal(value_of(one), value_of(other))


def test_functions_of_one_name_are_kept_apart_and_keep_it():
    def scaled(factor):
        def activation(x):
            return x * factor

        return activation

    functions = [scaled(2.0), scaled(-3.0), lambda x: x + 1.0]
    layers = [keras.layers.Dense(2, activation=function) for function in functions]
    model = keras.Sequential([keras.Input((2,)), *layers])
    assert_same(travel(serialize_model(model, "sgd", "mse")), model)
    assert [function.__name__ for function in functions] == ["activation", "activation", "<lambda>"]


class Applying(keras.layers.Layer):
    """A layer that Keras cannot save: its argument is a function, and it has no `get_config`."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.dense = keras.layers.Dense(2)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.function(self.dense(x))


def test_classes_that_keras_cannot_save_are_copied_by_value():
    doubled = keras.Sequential([keras.Input((3,)), Applying(lambda x: 2.0 * x), keras.layers.Dropout(0.5)])
    doubled.layers[0].dense.trainable = False
    saved = save(doubled)
    assert saved.by_value
    assert_same(pickle.loads(pickle.dumps(saved)).open(), doubled)
    copy = travel(serialize_model(doubled, "adam", "mse", ["mae"]))
    copy.train_on_batch(np.ones((2, 3), np.float32), np.ones((2, 2), np.float32))


def test_layers_of_preprocessing_are_copied_by_value():
    layers = [keras.layers.RandomFlip(seed=3), keras.layers.RandomShear(0.2, 0.2, seed=4)]
    images = [*layers, keras.layers.Normalization(mean=0.5, variance=2.0), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((4, 4, 3)), *images, Applying(lambda x: 2.0 * x)])
    saved = save(model)
    assert saved.by_value
    assert_same(pickle.loads(pickle.dumps(saved)).open(), model)
    copy = travel(serialize_model(model, "sgd", "mse"))
    copy.train_on_batch(np.ones((2, 4, 4, 3), np.float32), np.ones((2, 2), np.float32))


def test_copies_by_value_train_like_the_model():
    model = keras.Sequential([keras.Input((3,)), Applying(lambda x: 2.0 * x), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    copy = travel(serialize_model(model))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    for _ in range(3):  # PyTorch adds gradients up in what it does not know as a parameter.
        model.train_on_batch(x, x[:, :1])
        copy.train_on_batch(x, x[:, :1])
    for mine, its in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_allclose(its, mine, atol=1e-6)


def test_what_cannot_travel_is_refused_by_name_in_a_few_lines():
    class Locked(Applying):
        def __init__(self, function):
            super().__init__(function)
            self.generator = (number for number in [1])

    model = keras.Sequential([keras.Input((3,)), Locked(lambda x: x)])
    with pytest.raises(ValueError, match=r"cannot\. Saved by Keras: .*generator.*get_config") as error:
        serialize_model(model, "sgd", "mse")
    assert len(str(error.value)) < 1500


def test_two_classes_of_one_name_are_refused():
    def made(number):
        class Same(keras.layers.Layer):
            def call(self, x):
                return x + number

        return Same()

    model = keras.Sequential([keras.Input((3,)), made(1.0), made(2.0)])
    with pytest.raises(ValueError, match=r"two classes .*Same.*register_keras_serializable"):
        serialize_model(model, "sgd", "mse")


def test_weights_that_are_left_out_of_weight_decay_stay_out():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=1.0)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[1].kernel], var_names=["bias"])
    copy = travel(serialize_model(model, optimizer, "mse"))
    decayed = [copy.optimizer._use_weight_decay(variable) for variable in copy.trainable_variables]
    assert decayed == [True, False, False, False]
    other = keras.optimizers.AdamW(0.1)
    other.exclude_from_weight_decay(var_list=[blocks().layers[1].kernel])
    with pytest.raises(ValueError, match="not in this model"):
        serialize_model(model, other, "mse")


class Slowed(keras.optimizers.SGD):
    """An optimizer whose configuration leaves an argument out."""

    def __init__(self, learning_rate=0.1, slowness=1.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.slowness = slowness


def test_arguments_that_an_optimizer_leaves_out_of_its_configuration_travel():
    copy = travel(serialize_model(blocks(), Slowed(0.5, slowness=4.0), "mse"))
    assert (copy.optimizer.slowness, float(copy.optimizer.learning_rate)) == (4.0, 0.5)


def test_what_does_not_move_has_no_place_in_the_vector():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    assert layout_of(model).size == 3 * 4 + 4 + 4 * 4 + 4 * 2 + 2
    layers[0].trainable = layers[1].trainable = False
    spec = serialize_model(model, "sgd", "mse")
    assert spec.layout.size == spec.layout.num_trainable == 4 * 2 + 2
    set_vector(copy := travel(spec), np.zeros(10, np.float32))
    np.testing.assert_array_equal(value_of(copy.layers[0].kernel), value_of(layers[0].kernel))


def test_moving_averages_of_the_optimizer_are_statistics():
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    spec = serialize_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), optimizer, "mse")
    paths = [path for path, _ in spec.layout.statistics]
    assert paths == [AVERAGE + "Dense/kernel", AVERAGE + "Dense/bias"]
    copy = travel(spec)
    set_vector(copy, np.array([0, 0, 0, 1, 2, 3], np.float32), spec.layout)
    copy.optimizer.finalize_variable_values(copy.trainable_variables)
    np.testing.assert_array_equal(value_of(copy.layers[0].kernel).ravel(), [1.0, 2.0])


def test_double_precision_makes_the_vector_double():
    # JAX has single precision alone unless told otherwise, and so has its layout.
    expected = "float32" if BACKEND == "jax" else "float64"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, dtype="float64")])
    assert layout_of(model).dtype == expected


def test_another_model_in_the_worker_is_refused_by_its_weights():
    spec = serialize_model(blocks(), "sgd", "mse")
    weights = spec.saved.weights
    other = replace(weights[0], shape=(9, 9))
    with pytest.raises(ModelChanged, match=r"Expected: Block/first/bias \(9, 9\).*same versions"):
        deserialize_model(replace(spec, saved=replace(spec.saved, weights=(other, *weights[1:]))))
    with pytest.raises(ModelChanged, match="Expected the layout"):
        deserialize_model(replace(spec, layout=replace(spec.layout, trainable=spec.layout.trainable[::-1])))


def test_changes_of_what_stays_at_home_are_noticed_and_others_are_not():
    model = blocks()
    model.layers[0].first.trainable = False
    spec = serialize_model(model, "sgd", "mse")
    before = local_state(model, spec.layout)
    model.layers[1].kernel.assign(np.zeros((3, 2)))  # It trains: it goes out as it is then.
    assert local_state(model, spec.layout) == before
    assert first_vector(model, spec)[-8:-2].tolist() == [0.0] * 6
    model.layers[0].first.bias.assign(np.ones(3))
    assert local_state(model, spec.layout) != before


def other_options():
    """Options of the backend with other values than the usual ones."""
    match BACKEND:
        case "jax":
            return {
                "jax_default_matmul_precision": "tensorfloat32",
                "jax_threefry_partitionable": False,
                "jax_random_seed_offset": 3,
                "jax_numpy_dtype_promotion": "strict",
                "jax_debug_nans": True,
            }
        case "torch":
            import torch

            return {
                "float32_matmul_precision": "medium",
                "default_dtype": torch.float64,
                "deterministic": 1,
                "detect_anomaly": True,
                "cudnn.benchmark": True,
            }
        case _:
            return {
                "tensor_float_32": False,
                "functions_run_eagerly": True,
                "op_determinism": True,
                "jit": "autoclustering",
            }


def test_settings_of_the_process_travel():
    before = ProcessSettings.current()
    options = dict(before.backend) | other_options()
    assert len(options) == len(before.backend)
    replace(before, backend=tuple(options.items())).apply()
    keras.config.set_epsilon(1e-3)
    keras.config.disable_flash_attention()
    settings = pickle.loads(pickle.dumps(ProcessSettings.current()))
    before.apply()
    assert ProcessSettings.current() == before
    assert keras.config.epsilon() == before.epsilon != 1e-3
    settings.apply()
    assert ProcessSettings.current() == settings
    assert keras.config.epsilon() == 1e-3
    assert keras.config.is_flash_attention_enabled() is False
    assert dict(settings.backend) == options
    before.apply()
    assert ProcessSettings.current() == before


def test_a_schedule_follows_the_whole_training_and_the_optimizer_its_own_steps():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3, 7], [1.0, 0.5, 0.25])
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    copy = travel(serialize_model(model, keras.optimizers.SGD(schedule), "mse"))
    position = Position(copy, ScheduleSteps(4.0))
    rates = []
    for _ in range(3):
        rates.append(float(copy.optimizer.learning_rate))
        copy.optimizer._iterations.assign(copy.optimizer._iterations + 1)
    assert rates == [1.0, 0.5, 0.25]  # At steps 0, 4 and 8 of the whole training.
    assert int(copy.optimizer.iterations) == 3
    position.move_to(0)  # A server that was restarted has the worker train again from there.
    assert float(copy.optimizer.learning_rate) == 1.0
    position.move_to(1)
    assert float(copy.optimizer.learning_rate) == 0.5


def test_buffers_of_a_wrapped_module_are_part_of_the_model():
    if BACKEND != "torch":
        assert not hasattr(keras.layers.Dense(1), "named_buffers")
        return
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    model = keras.Sequential([keras.Input((3,)), keras.layers.TorchModuleWrapper(module)])
    module[1].running_mean += 5.0
    module[1].num_batches_tracked += 3
    spec = serialize_model(model, "sgd", "mse")
    assert [path.rpartition(".")[2] for path, _ in spec.layout.statistics] == ["running_mean", "running_var"]
    copy = travel(spec)
    moved = copy.layers[0].module[1]
    assert moved.running_mean.tolist() == [5.0, 5.0]
    assert int(moved.num_batches_tracked) == 3
    set_vector(copy, np.arange(spec.layout.size, dtype=np.float32), spec.layout)
    assert moved.running_var.tolist() == [spec.layout.size - 2.0, spec.layout.size - 1.0]
