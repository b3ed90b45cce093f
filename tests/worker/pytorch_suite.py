"""Tests of what only PyTorch knows of layers and weights, run by test_pytorch.py on PyTorch."""

from __future__ import annotations

import pickle
import sys
import threading

import keras
import numpy as np
import pytest
import torch

from distkeras.cluster.pickled_modules import packages_of_model
from distkeras.model.spec import deserialize_model, serialize_model
from distkeras.trainers.fingerprint import describe_model


def copy_of(model):
    spec = pickle.loads(pickle.dumps(serialize_model(model, "sgd", "mse")))
    return deserialize_model(spec, blank=True)


class Hooked(keras.layers.Dense):
    """It registers a hook itself, as each copy of it does."""

    def build(self, input_shape):
        super().build(input_shape)
        self.register_forward_hook(half_of_the_output)
        self.kernel.value.register_hook(half)


def half_of_the_output(layer, given, output):
    return output / 2


def half(gradient):
    return gradient / 2


def test_hooks_that_a_layer_registers_itself_are_not_there_twice():
    model = keras.Sequential([keras.Input((3,)), Hooked(2)])
    layer = copy_of(model).layers[0]
    assert len(layer._forward_hooks) == len(layer.kernel.value._backward_hooks) == 1
    model.layers[0]._forward_hooks.clear()
    layer = copy_of(model).layers[0]
    assert (len(layer._forward_hooks), len(layer.kernel.value._backward_hooks)) == (0, 1)


def test_a_hook_of_a_copy_and_one_that_is_registered_later_both_hold():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for _ in range(3):
        handle = model.layers[0].register_forward_hook(half_of_the_output)
    copy = copy_of(model)
    type(handle).next_id = max(copy.layers[0]._forward_hooks)  # As in a process that has registered fewer.
    copy = copy_of(model)
    copy.layers[0].register_forward_hook(half_of_the_output)
    assert len(copy.layers[0]._forward_hooks) == 4


def test_a_hook_that_cannot_be_pickled_is_refused():
    model, lock = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), threading.Lock()
    model.layers[0].register_forward_hook(lambda layer, given, output: output if lock else None)
    with pytest.raises(ValueError, match=r"hooks of PyTorch that can be pickled.*Dense"):
        copy_of(model)


def test_layout_in_memory_and_gradients_of_tensors_travel():
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3), keras.layers.Dense(2)])
    model.to(memory_format=torch.channels_last)
    model.layers[1].bias.value.requires_grad_(False)
    for blank in (True, False):
        copy = deserialize_model(serialize_model(model, "sgd", "mse"), blank=blank)
        for mine, its in zip(model.weights, copy.weights, strict=True):
            assert (mine.value.stride(), mine.value.requires_grad) == (
                its.value.stride(),
                its.value.requires_grad,
            )
    assert not copy.layers[0].kernel.value.is_contiguous()


def test_a_changed_module_of_torch_is_that_of_the_copy_with_its_variables():
    class Around(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.net = torch.nn.Sequential(
                torch.nn.Linear(3, 2), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2)
            )

        def call(self, x):
            return self.net(x)

    model = keras.Sequential([keras.Input((3,)), Around()])
    model(np.zeros((4, 3), np.float32))
    net = model.layers[0].net
    net.module[1].p = 0.25
    net.module[0].register_forward_hook(half_of_the_output)
    its = copy_of(model).layers[0].net
    assert its.module[1].p == 0.25
    assert list(map(id, its.module.parameters())) == [id(variable.value) for variable in its.variables]
    for name, value in net.module.state_dict().items():
        np.testing.assert_array_equal(its.module.state_dict()[name].numpy(), value.numpy())
    assert len(its.module[0]._forward_hooks) == 1


def test_a_wrapped_module_is_described_without_its_weights():
    def described(width):
        module = torch.nn.Linear(3, width)
        model = keras.Sequential([keras.Input((3,)), keras.layers.TorchModuleWrapper(module)])
        model(np.zeros((4, 3), np.float32))
        return describe_model(model)

    assert described(2) == described(2) != described(4)


def test_a_wrapped_module_in_an_inner_model_is_described_without_its_weights():
    def described():
        inner = keras.Sequential([keras.Input((3,)), keras.layers.TorchModuleWrapper(torch.nn.Linear(3, 2))])
        model = keras.Sequential([keras.Input((3,)), inner])
        model(np.zeros((4, 3), np.float32))
        return describe_model(model)

    assert described() == described()


def test_a_module_of_a_class_of_the_script_opens_where_the_script_is_not(monkeypatch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(3, 2)

        def forward(self, x):
            return self.inner(x)

    Net.__module__, Net.__qualname__ = "__main__", "Net"
    model = keras.Sequential([keras.Input((3,)), keras.layers.TorchModuleWrapper(Net())])
    model(np.zeros((4, 3), np.float32))
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
        data = pickle.dumps(serialize_model(model, "sgd", "mse"))
    layer = deserialize_model(pickle.loads(data)).layers[0]
    assert list(map(id, layer.module.parameters())) == [id(variable.value) for variable in layer.variables]
    for weight, other in zip(model.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(other, weight)


def test_packages_of_modules_and_hooks_are_known_to_the_driver(tmp_path, monkeypatch):
    text = "import torch\n\nclass Net(torch.nn.Linear):\n    pass\n\ndef hook(*given):\n    pass\n"
    for name in ("own_modules", "own_hooks"):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import own_hooks
    import own_modules

    model = keras.Sequential([keras.Input((3,)), keras.layers.TorchModuleWrapper(own_modules.Net(3, 2))])
    model(np.zeros((4, 3), np.float32))
    model.layers[0].register_forward_hook(own_hooks.hook)
    assert {"own_modules", "own_hooks"} <= packages_of_model(serialize_model(model, "sgd", "mse"))
