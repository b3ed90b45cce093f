"""What a Keras model says that it takes and gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from distkeras.worker.signature import model_signature
from distkeras.worker.tensor_spec import TensorSpec


class Sum(keras.Model):
    """Takes one tensor, a list or a dict, and gives what it takes through one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(4)

    def call(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            return {key: self.dense(value) for key, value in inputs.items()}
        if isinstance(inputs, (list, tuple)):
            return self.dense(inputs[0]) + self.dense(inputs[1])
        return self.dense(inputs)


def test_sequential_model() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1), name="image"), keras.layers.Flatten(name="flat")])
    inputs, outputs = model_signature(model)
    assert [(spec.shape, spec.dtype, spec.key) for spec in inputs] == [((8, 8, 1), "float32", None)]
    assert outputs == (TensorSpec("flat", (64,)),)


def test_functional_model_with_lists_and_types() -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((None,), dtype="int32", name="right")
    one = keras.layers.Dense(1, name="one")(left)
    two = keras.layers.Embedding(5, 2, name="two")(right)
    assert model_signature(keras.Model([left, right], [one, two])) == (
        (TensorSpec("left", (3,)), TensorSpec("right", (None,), "int32", size=5)),
        (TensorSpec("one", (1,)), TensorSpec("two", (None, 2))),
    )


def test_functional_model_with_dicts_names_layers_and_keys() -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    output = keras.layers.Dense(1, name="dense")(left)
    inputs, outputs = model_signature(keras.Model({"right": right, "left": left}, {"score": output}))
    assert inputs == (TensorSpec("left", (3,), key="left"), TensorSpec("right", (2,), key="right"))
    assert outputs == (TensorSpec("dense", (1,), key="score"),)


def test_subclassed_model_by_the_shapes_it_was_built_with() -> None:
    single, listed, keyed = Sum(), Sum(), Sum()
    row = np.zeros((2, 7), "float32")
    single(row)
    listed([row, row])
    keyed({"a": row})
    assert model_signature(single) == ((TensorSpec("input", (7,)),), (TensorSpec("output", (4,)),))
    assert model_signature(listed)[0] == (TensorSpec("input_0", (7,)), TensorSpec("input_1", (7,)))
    assert model_signature(keyed) == ((TensorSpec("a", (7,), key="a"),), (TensorSpec("a", (4,), key="a"),))


def test_model_that_is_not_built_lets_any_column_through() -> None:
    for model in (Sum(), keras.Sequential([keras.layers.Dense(3)])):
        assert model_signature(model) == ((TensorSpec("input", None),), (TensorSpec("output", None),))


def test_half_precision_model_takes_single_precision_rows() -> None:
    model = keras.Sequential([keras.Input((2,), dtype="float16"), keras.layers.Dense(1, dtype="bfloat16")])
    inputs, outputs = model_signature(model)
    assert (inputs[0].dtype, outputs[0].dtype) == ("float32", "float32")
