"""The form in which a compiled Keras model travels from the driver to a worker."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import keras
import numpy as np
from keras.src.backend import compute_output_spec

from distkeras.algorithms import Vector
from distkeras.center.layout import Layout
from distkeras.model.attributes import dumps_settings, loads
from distkeras.model.compiling import (
    Around,
    Compiled,
    attributes_set_by_compile,
    compile_by,
    compiled_by,
    pack,
)
from distkeras.model.custom_objects import unique_names
from distkeras.model.optimizer import OptimizerState, build_optimizer, has_settable_rate, state_of
from distkeras.model.other_optimizers import other_states, set_other_states
from distkeras.model.process import ProcessSettings
from distkeras.model.saved import SAME_CODE, SavedModel, differences, save_with
from distkeras.model.supplement import structure_of, weights_in
from distkeras.model.variables import Array, compact, digest_of_value, tree_of, value_of
from distkeras.model.weights import AVERAGE, ModelChanged, cells_of, layout_of
from distkeras.model.without_tensorflow import serialize_without_tensorflow


@dataclass(frozen=True)
class ModelSpec:
    """A model and its compile settings, as they travel: plain bytes and arrays, picklable by `pickle`.

    Attributes:
        saved: the model.
        compiled: pickled `Compiled`: the compile settings.
        optimizer: the optimizer's settings and state that its configuration leaves out.
        layout: the place of each shared weight in the vector.
        averages: initial values of the optimizer's moving averages, by path; one number where all are alike.
        process: process-wide settings of Keras and its backend.
        settable_rate: whether the optimizer has a learning rate that can be ordered: a number, no schedule.
        optimizer_bytes: size of the optimizer's variables.
    """

    saved: SavedModel
    compiled: bytes
    optimizer: OptimizerState
    layout: Layout
    averages: dict[str, Array]
    process: ProcessSettings
    settable_rate: bool = True
    optimizer_bytes: int = 0

    @property
    def fingerprint(self) -> str:
        """Identifies the layout of its vectors."""
        return self.layout.fingerprint


LARGE = 16 * 2**20
"""Number of elements above which copies of a model are freed immediately."""

_MATCHED_METRICS = ("accuracy", "acc", "crossentropy", "ce")
"""Ambiguous names: Keras chooses a metric by the shape of the targets."""


def serialize_model(
    model: keras.Model,
    worker_optimizer: str | keras.optimizers.Optimizer | None = None,
    loss: Any = None,
    metrics: Any = None,
    loss_weights: Any = None,
    custom_objects: Mapping[str, Any] | None = None,
    input_shape: Any = None,
) -> ModelSpec:
    """Return what a worker needs to train a copy of `model`. Arguments override the compiled settings.

    The optimizer, loss and metrics travel as configurations: each worker creates fresh ones, and those of the
    caller do not change. A compiled optimizer that has trained also passes on its state.

    Args:
        model: any Keras model whose class Keras can save; built if it is not yet and `input_shape` is given.
        worker_optimizer: name or object; `None` for the compiled one.
        loss: as `compile` takes: a name, function or object, or a list or dict; `None` for the compiled one.
        metrics: as `compile` takes; `None` for the compiled ones, if the loss is the compiled one too.
        loss_weights: as `compile` takes; `None` for the compiled ones, if the loss is the compiled one too.
        custom_objects: classes and functions by the name Keras saves them under, where they are not
            registered with `keras.saving.register_keras_serializable`.
        input_shape: shape with the batch dimension (or a dict or list of shapes), for an unbuilt model.

    Raises:
        ValueError: the model is unbuilt and cannot be built, or has no optimizer or loss, or Keras does not
            know a given name.
    """
    serialize_without_tensorflow()
    ensure_built(model, input_shape)
    if metrics is not None and not isinstance(metrics, list | tuple | dict):
        raise ValueError(f"Expected a list or dict, such as ['accuracy']. Received: metrics={metrics!r}")
    given = {"loss": loss, "metrics": metrics, "loss_weights": loss_weights}
    custom = dict(custom_objects or {})
    if worker_optimizer is not None:
        with keras.saving.custom_object_scope(custom):
            given["optimizer"] = keras.optimizers.get(worker_optimizer)
    given = {name: value for name, value in given.items() if value is not None}
    tree = tree_of(model)
    with unique_names([model, given]) as objects, keras.saving.custom_object_scope(objects | custom):
        around = Around.of(tree)
        compiled = _with_given(compiled_by(model, around), given, around)
        _check_settings(model, compiled, custom)
        optimizer = given.get("optimizer", model.optimizer if model.compiled else None)
        state = state_of(optimizer, tree, with_values="optimizer" not in given)
        state = replace(state, others=other_states(model))
        saved = save_with(model, objects, [compiled], custom)
        _free_copies(saved)
        if compiled.route == "keras" and type(model).compile is not keras.Model.compile:
            compiled = replace(compiled, attributes=attributes_set_by_compile(model, saved.open(), around))
        packed = dumps_settings(compiled, around.paths)
        spec = ModelSpec(saved, packed, state, Layout(()), {}, ProcessSettings.current())
        copy = saved.open()
        _compile(spec, copy)
    layout, fits = layout_of(copy), _fits(state, copy)
    averages, settable = _averages_in(copy, layout), has_settable_rate(copy.optimizer)
    variables = () if copy.optimizer is None else copy.optimizer.variables
    optimizer_bytes = sum(value_of(variable).nbytes for variable in variables)
    del copy
    _free_copies(saved)
    # An optimizer that was built for other weights cannot continue.
    optimizer = state if fits else replace(state, values=None)
    return replace(
        spec,
        optimizer=optimizer,
        layout=layout,
        averages=averages,
        settable_rate=settable,
        optimizer_bytes=optimizer_bytes,
    )


def deserialize_model(spec: ModelSpec, *, blank: bool = False) -> keras.Model:
    """Return the model of `spec`, compiled, with the weights, seeds and flags it was frozen with.

    Args:
        spec: what `serialize_model` returned.
        blank: draw no random initial weights, which are overwritten anyway: compiling the initializers is
            most of the time that a new process takes to load a small model. The model's configuration then
            names other initializers than the user's.

    Raises:
        ModelChanged: the rebuilt model differs, for example under another version of Keras.
    """
    spec.process.apply()
    return compiled_copy(spec, spec.saved.open(blank=blank))


def compiled_copy(spec: ModelSpec, model: keras.Model) -> keras.Model:
    """Return `model`, opened from `spec.saved`, with the compile settings of `spec`.

    Raises:
        ModelChanged: as `deserialize_model`.
    """
    _compile(spec, model)
    if (layout := layout_of(model)) != spec.layout:
        raise ModelChanged(
            f"Expected the layout {spec.layout.fingerprint} of the model's weights. Received: "
            f"{layout.fingerprint}. {SAME_CODE}"
        )
    return model


def first_vector(model: keras.Model, spec: ModelSpec) -> Vector:
    """Return the current weights of `model`, from which `spec` was made, shape (size,).

    Raises:
        ModelChanged: the model no longer has the weights of `spec`.
    """
    tree = tree_of(model)
    if (weights := weights_in(tree)) != spec.saved.weights:
        raise ModelChanged(differences(spec.saved.weights, weights))
    return spec.layout.pack(
        [
            np.broadcast_to(spec.averages[segment.path], segment.shape)
            if segment.path in spec.averages
            else value_of(tree.variables[segment.path])
            for segment in spec.layout.segments()
        ]
    )


def local_state(model: keras.Model, layout: Layout) -> tuple[Any, ...]:
    """Return a value that changes if `model` does, except for the weights in `layout`, which are resent."""
    tree = tree_of(model)
    moving = {segment.path for segment in layout.segments()}
    digests = {path: digest_of_value(cell) for path, cell in tree.variables.items() if path not in moving}
    state = model.optimizer.variables if model.compiled and model.optimizer is not None else []
    values = [digest_of_value(variable) for variable in state]
    others = {name: value.tobytes() for name, value in other_states(model).items()}
    return weights_in(tree), structure_of(tree), digests, values, others


def _free_copies(saved: SavedModel) -> None:
    """Free copies of a large model: models are reference cycles, which Python collects only at times."""
    if sum(math.prod(weight.shape) for weight in saved.weights) > LARGE:
        gc.collect()


def _averages_in(model: keras.Model, layout: Layout) -> dict[str, Array]:
    cells = zip(layout.segments(), cells_of(model, layout), strict=True)
    return {segment.path: compact(cell) for segment, cell in cells if segment.path.startswith(AVERAGE)}


def _compile(spec: ModelSpec, model: keras.Model) -> None:
    """Compile `model`, opened from `spec.saved`, and restore its optimizer's state from `spec`."""
    tree = tree_of(model)
    around = Around.of(tree)
    compile_by(
        model, loads(spec.compiled, around.objects), cloudpickle.loads(spec.saved.custom_objects), around
    )
    build_optimizer(model, tree, spec.optimizer)
    set_other_states(model, spec.optimizer.others)


def _with_given(compiled: Compiled, given: Mapping[str, Any], around: Around) -> Compiled:
    """Return the compile settings, with `given` in place of the compiled ones."""
    arguments = dict(compiled.arguments)
    if "loss" in given and arguments:
        # Keras matched weights and metrics to the outputs by the old loss.
        arguments |= {"loss_weights": None, "metrics": None, "weighted_metrics": None}
    arguments |= {name: pack(value, around) for name, value in given.items()}
    return replace(compiled, arguments=arguments)


def _fits(state: OptimizerState, copy: keras.Model) -> bool:
    """Whether the values of `state` fit the optimizer of `copy`."""
    if state.values is None or copy.optimizer is None:
        return False
    shapes = [tuple(variable.shape) for variable in copy.optimizer.variables]
    return shapes == [value.shape for value in state.values]


def ensure_built(model: keras.Model, input_shape: Any = None) -> None:
    """Build `model` if it is not. A layer that neither inference nor training calls may stay unbuilt.

    Args:
        model: the model; only an unbuilt one is changed.
        input_shape: shape with the batch dimension, or a dict or list of shapes.

    Raises:
        ValueError: the model is unbuilt, and `input_shape` is missing or does not build it.
    """
    if _is_built(model):
        return
    inputs = _inputs_seen_by(model) if input_shape is None else _symbolic(input_shape)
    if inputs is not None:
        if not model.built:
            model(inputs)
        if not _is_built(model):
            # Unlike `model(inputs)` this also calls the layers inside the layers of a functional model.
            for training in (False, True):
                compute_output_spec(model, inputs, training=training)
    if inputs is None or not model.built:
        raise ValueError(
            f"Expected a built model: the weights of {model.name!r} do not exist yet, so they cannot be sent "
            "to the workers. Begin it with `keras.Input(shape)`, call it once on a batch, or give "
            "`input_shape` with the batch dimension, such as (None, 784). "
            f"Received: input_shape={input_shape}"
        )


def _inputs_seen_by(model: keras.Model) -> Any:
    """Return inputs without values such as `model` was built with, or None."""
    if not model.built:
        return None
    if getattr(model, "inputs", None):
        return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    shape = (model.get_build_config() or {}).get("input_shape")
    return None if shape is None else _symbolic(shape)


def _is_built(model: keras.Model) -> bool:
    # A lookup has no weights, and the one inside a TextVectorization is never marked as built.
    lookups = keras.layers.StringLookup | keras.layers.IntegerLookup
    layers = (layer for layer in model._flatten_layers() if not isinstance(layer, lookups))
    return bool(model.built) and all(layer.built for layer in layers)


def _check_settings(model: keras.Model, compiled: Compiled, custom_objects: dict[str, Any]) -> None:
    """Reject a model that cannot be trained, on the driver rather than in every worker."""
    settings = compiled.arguments
    if settings.get("optimizer") is None:
        raise ValueError(
            f"Expected an optimizer for the workers: compile {model.name!r} or give `worker_optimizer`, "
            "a name such as 'adam' or a Keras optimizer. Received: worker_optimizer=None"
        )
    own_loss = any(
        name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name)
        for name in ("train_step", "compute_loss", "compile")
    )
    # A model compiled without a loss adds one in its layers, by `add_loss`.
    if settings.get("loss") is None and not model.compiled and not own_loss:
        raise ValueError(
            f"Expected a loss: compile {model.name!r} or give `loss`, a name such as 'mse' or a Keras loss. "
            "Received: loss=None"
        )
    with keras.saving.custom_object_scope(custom_objects):
        for name in _names_in(settings.get("loss")):
            keras.losses.get(name)
        for name in _names_in([settings.get("metrics"), settings.get("weighted_metrics")]):
            if name.lower() not in _MATCHED_METRICS:
                keras.metrics.get(name)


def _names_in(setting: Any) -> Iterator[str]:
    """Yield the names in an argument of `compile`, but not the strings of a serialized object."""
    match setting:
        case str():
            yield setting
        case {"class_name": _, "config": _}:  # From a class with a `compile` of its own.
            return
        case dict():
            yield from _names_in(list(setting.values()))
        case list() | tuple():
            for part in setting:
                yield from _names_in(part)


def _symbolic(shape: Any) -> Any:
    """Return inputs without values for `shape`: a tuple, or a dict or list of them."""
    if isinstance(shape, dict):
        return {name: _symbolic(part) for name, part in shape.items()}
    if any(isinstance(part, list | tuple) for part in shape):
        return [_symbolic(part) for part in shape]
    return keras.KerasTensor(tuple(shape))
