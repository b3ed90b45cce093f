"""The inputs and outputs of a Keras model, as plain records that travel without Keras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras

from distkeras.worker.tensor_spec import TensorSpec

Specs = tuple[TensorSpec, ...]

ANY_INPUT = (TensorSpec("input", None),)
ANY_OUTPUT = (TensorSpec("output", None),)


def model_signature(model: keras.Model) -> tuple[Specs, Specs]:
    """Return the inputs and the outputs of `model`, in its order.

    A functional or sequential model defines them. For a subclassed model, the shapes that it was built with
    give the inputs, and a symbolic call gives the outputs. If nothing is known, the shape is `None`, which
    accepts any column.
    """
    if getattr(model, "inputs", None):
        # A sequential model names its outputs only in the functional one inside it.
        symbolic = getattr(model, "_functional", model)
        inputs = _specs(symbolic.input, [tensor.name for tensor in symbolic.inputs])
        sizes = _embedded(symbolic) if hasattr(symbolic, "_nodes_by_depth") else [None] * len(inputs)
        inputs = tuple(replace(spec, size=size) for spec, size in zip(inputs, sizes, strict=True))
        return inputs, _specs(symbolic.output, symbolic.output_names)
    return _built_signature(model)


def check_strings(inputs: Specs) -> None:
    """Raise ValueError if the backend cannot train on the types of `inputs`."""
    texts = [spec.name for spec in inputs if spec.dtype == "string"]
    backend = keras.backend.backend()
    if texts and backend != "tensorflow":
        raise ValueError(
            f"The inputs {texts} of the model take strings, which {backend} does not support. Train on "
            "TensorFlow (KERAS_BACKEND=tensorflow), or vectorize the texts first: apply the layer to the "
            f"column, and train the layers after it. Received: backend={backend!r}"
        )


def _built_signature(model: keras.Model) -> tuple[Specs, Specs]:
    config = model.get_build_config() if model.built else None
    shapes = (config or {}).get("input_shape")
    if not shapes:
        return ANY_INPUT, ANY_OUTPUT
    tensors = _symbolic(shapes)
    try:
        outputs = model.compute_output_spec(tensors)
    except (NotImplementedError, TypeError, ValueError):
        # The `call` cannot be traced without data: the first minibatch gives the outputs.
        return _specs(tensors, None), ANY_OUTPUT
    return _specs(tensors, None), _specs(outputs, None, prefix="output")


def _symbolic(shapes: Any) -> Any:
    """Return tensors of `shapes` (one, or a list or dict of them), for any batch size."""
    if isinstance(shapes, dict):
        return {key: _symbolic(shape) for key, shape in shapes.items()}
    if all(length is None or isinstance(length, int) for length in shapes):
        return keras.KerasTensor((None, *shapes[1:]))
    return [_symbolic(shape) for shape in shapes]


def _specs(struct: Any, names: list[str] | None, prefix: str = "input") -> Specs:
    """Return the specs of one tensor, or of a list or dict of them; `names` are in the flattened order."""
    leaves = list(_leaves(struct, None))
    if names is None:
        names = [
            key or (prefix if len(leaves) == 1 else f"{prefix}_{i}") for i, (key, _) in enumerate(leaves)
        ]
    return tuple(
        TensorSpec(name, tuple(tensor.shape[1:]), _dtype(tensor.dtype), key, tensor.shape[0])
        for name, (key, tensor) in zip(names, leaves, strict=True)
    )


def _leaves(struct: Any, key: str | None) -> Iterator[tuple[str | None, Any]]:
    if isinstance(struct, dict):
        for name in sorted(struct):  # Keras flattens dicts by key.
            yield from _leaves(struct[name], name)
    elif isinstance(struct, (list, tuple)):
        for part in struct:
            yield from _leaves(part, key)
    else:
        yield key, struct


def _embedded(model: keras.Model) -> list[int | None]:
    """Return, for each input, the smallest `input_dim` of the embeddings that it feeds directly."""
    found: list[list[int]] = [[] for _ in model.inputs]
    for node in (node for nodes in model._nodes_by_depth.values() for node in nodes):
        for place, argument in enumerate(node.input_tensors):
            for sizes, tensor in zip(found, model.inputs, strict=True):
                if argument is tensor:
                    sizes += _sizes(node.operation, place)
    return [min(sizes, default=None) for sizes in found]


def _sizes(operation: Any, place: int) -> list[int]:
    """Return `input_dim` of the embedding in `operation` that the argument at `place` feeds."""
    if isinstance(operation, keras.layers.Embedding):
        return [operation.input_dim]
    inner = getattr(operation, "_functional", operation)
    if not hasattr(inner, "_nodes_by_depth"):
        return []
    size = _embedded(inner)[place]
    return [] if size is None else [size]


def _dtype(dtype: str) -> str:
    """Return the type of rows: single precision for half, to which Keras casts inside the model."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype
