"""How a Keras model travels from the driver to a worker, and how its weights lie in one flat vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.layout import Layout
from distkeras.model.archive import config_of, load_archive, without_initializers, write_archive
from distkeras.model.compiling import compile_by, pack, settings_of
from distkeras.model.custom_objects import objects_of


@dataclass(frozen=True)
class ModelSpec:
    """A model as a Spark closure carries it: plain bytes and numbers, picklable by `pickle`.

    Attributes:
        archive: Keras's own `.keras` file: architecture, weights, assets.
        seeds: state of every seed generator (dropout and the like), which the archive leaves out.
        settings: pickled arguments of `compile`: optimizer, loss, metrics and the rest.
        custom_objects: pickled classes and functions that the model or its settings name; by value where
            another process could not import them.
    """

    archive: bytes
    seeds: tuple[tuple[int, ...], ...]
    settings: bytes
    custom_objects: bytes


_MATCHED_METRICS = ("accuracy", "acc", "crossentropy", "ce")
"""Names of no metric in particular: Keras chooses one by the shape of the targets."""


def freeze(
    model: keras.Model,
    worker_optimizer: str | keras.optimizers.Optimizer | None = None,
    loss: Any = None,
    metrics: Any = None,
    loss_weights: Any = None,
    custom_objects: Mapping[str, Any] | None = None,
    input_shape: Any = None,
) -> ModelSpec:
    """Return what a worker needs to train a copy of `model`. What is given wins over what was compiled.

    The optimizer, loss and metrics travel as their configuration, so that each worker makes fresh ones and
    those of the caller stay as they are.

    Args:
        model: any Keras model whose class Keras can save; built if it is not yet and `input_shape` is given.
        worker_optimizer: name or object; `None`: the compiled one.
        loss: as `compile` takes: a name, function or object, or a list or dict; `None`: the compiled one.
        metrics: as `compile` takes; `None`: the compiled ones, if the loss is the compiled one too.
        loss_weights: as `compile` takes; `None`: the compiled ones, if the loss is the compiled one too.
        custom_objects: classes and functions by the name Keras saves them under, where they are not
            registered with `keras.saving.register_keras_serializable`.
        input_shape: shape with the batch dimension (or a dict or list of shapes), for an unbuilt model.

    Raises:
        ValueError: the model is unbuilt and cannot be built, or has no optimizer or loss, or Keras does not
            know one that is named.
    """
    ensure_built(model, input_shape)
    if metrics is not None and not isinstance(metrics, list | tuple | dict):
        raise ValueError(f"Expected a list or dict, such as ['accuracy']. Received: metrics={metrics!r}")
    settings = settings_of(model)
    if loss is not None:
        # Weights and metrics were matched to the outputs by the old loss.
        settings |= {"loss_weights": None, "metrics": None, "weighted_metrics": None}
    given = {"loss": loss, "metrics": metrics, "loss_weights": loss_weights}
    if worker_optimizer is not None:
        given["optimizer"] = keras.optimizers.get(worker_optimizer)
    settings |= {name: pack(value) for name, value in given.items() if value is not None}
    _check_settings(model, settings, dict(custom_objects or {}))
    archive = write_archive(model)
    objects = objects_of([model, given], [config_of(archive), settings]) | dict(custom_objects or {})
    return ModelSpec(archive, _seeds_of(model), cloudpickle.dumps(settings), cloudpickle.dumps(objects))


def thaw(spec: ModelSpec, *, blank: bool = False) -> keras.Model:
    """Return the model of `spec`, compiled, with the weights and seed states it was frozen with.

    Args:
        spec: what `freeze` returned.
        blank: leave out the random first weights, for a model whose weights come from elsewhere anyway:
            compiling the initializers is most of the time that a new process takes to load a small model.
            The model's own configuration then names other initializers than the user's.
    """
    objects: dict[str, Any] = cloudpickle.loads(spec.custom_objects)
    model = load_archive(without_initializers(spec.archive) if blank else spec.archive, objects)
    restore_seeds(model, spec)
    compile_by(model, cloudpickle.loads(spec.settings), objects)
    return model


def ensure_built(model: keras.Model, input_shape: Any = None) -> None:
    """Build `model` if it is not.

    Args:
        model: the model; it is changed only if it is unbuilt.
        input_shape: shape with the batch dimension, or a dict or list of shapes.

    Raises:
        ValueError: it is unbuilt and no `input_shape` is given, or the one given does not build it.
    """
    if not _is_built(model) and input_shape is not None:
        model(_symbolic(input_shape))
    if not _is_built(model):
        raise ValueError(
            f"Expected a built model: the weights of {model.name!r} do not exist yet, so they cannot be sent "
            "to the workers. Begin it with `keras.Input(shape)`, call it once on a batch, or give "
            "`input_shape` with the batch dimension, such as (None, 784). "
            f"Received: input_shape={input_shape}"
        )


def layout_of(model: keras.Model) -> Layout:
    """Return where each weight of a built `model` lies in the flat vector.

    Trainable weights, then other float weights (the statistics); integers and seeds are left out.
    """
    trainable, statistics = weights_of(model)
    return Layout(
        tuple((weight.path, tuple(weight.shape)) for weight in trainable),
        tuple((weight.path, tuple(weight.shape)) for weight in statistics),
    )


def weights_of(model: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """Return the trainable weights and the statistics of `model`, in the layout's order."""
    statistics = [weight for weight in model.non_trainable_variables if is_statistic(weight)]
    return list(model.trainable_variables), statistics


def is_statistic(variable: keras.Variable) -> bool:
    """Whether a variable that is not trainable has a place in the vector."""
    return bool(keras.backend.is_float_dtype(variable.dtype))


def initial_vector(model: keras.Model) -> Vector:
    """Return the weights of `model` as one new vector, shape (size,)."""
    trainable, statistics = weights_of(model)
    weights = [keras.ops.convert_to_numpy(weight) for weight in (*trainable, *statistics)]
    return layout_of(model).pack(weights)


def set_vector(model: keras.Model, vector: Vector) -> None:
    """Set the weights of `model` from `vector`, shape (size,).

    Raises:
        ValueError: `vector` has another size than the layout.
    """
    trainable, statistics = weights_of(model)
    values = layout_of(model).unpack(np.asarray(vector))
    for weight, value in zip((*trainable, *statistics), values, strict=True):
        # A copy: JAX and TensorFlow may keep the very memory of an aligned array.
        weight.assign(value.copy())


def restore_seeds(model: keras.Model, spec: ModelSpec) -> None:
    """Set the seed generators of `model` to the states that `spec` was frozen with."""
    for variable, state in zip(_seed_states(model), spec.seeds, strict=True):
        variable.assign(np.array(state, np.int64).astype(variable.dtype))


def reseed(model: keras.Model, worker: int) -> None:
    """Let the seed generators of `model` draw what no other worker draws.

    Worker 0 keeps the model's own state, so that one worker alone equals plain Keras. The same worker gets
    the same state every time.

    Args:
        model: a thawed model; its seed generators are changed in place.
        worker: index of the worker.
    """
    if worker == 0:
        return
    for variable in _seed_states(model):
        seed, *rest = (int(value) for value in keras.ops.convert_to_numpy(variable))
        variable.assign(np.array([_mixed(seed, worker), *rest], variable.dtype))
    if keras.backend.backend() == "torch":
        import torch

        # A Dropout without a seed draws from PyTorch's own generator, which begins alike in every process.
        torch.manual_seed(_mixed(torch.initial_seed(), worker))


def _mixed(seed: int, worker: int) -> int:
    """31 bits of `seed` and `worker`: seed states are uint32, int32 or int64, by backend."""
    return int(np.random.SeedSequence([seed % 2**32, worker]).generate_state(1)[0]) >> 1


def _is_built(model: keras.Model) -> bool:
    # A lookup has no weights, and the one inside a TextVectorization is never marked as built.
    lookups = keras.layers.StringLookup | keras.layers.IntegerLookup
    layers = (layer for layer in model._flatten_layers() if not isinstance(layer, lookups))
    return bool(model.built) and all(layer.built for layer in layers)


def _check_settings(model: keras.Model, settings: dict[str, Any], custom_objects: dict[str, Any]) -> None:
    """Refuse a model that could not be trained, on the driver rather than in every worker."""
    if settings.get("optimizer") is None:
        raise ValueError(
            f"Expected an optimizer for the workers: compile {model.name!r} or give `worker_optimizer`, "
            "a name such as 'adam' or a Keras optimizer. Received: worker_optimizer=None"
        )
    own_loss = any(
        getattr(type(model), name) is not getattr(keras.Model, name)
        for name in ("train_step", "compute_loss", "compile")
    )
    # Whoever compiled without a loss has one in the layers, by `add_loss`.
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
    """Yield the names in an argument of `compile`, but not the words of an object as Keras saves it."""
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


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    """The variables of `model` that are no weights: what its seed generators hold."""
    weights = {id(weight) for weight in model.weights}
    states = {id(variable): variable for variable in model.variables if id(variable) not in weights}
    return list(states.values())


def _seeds_of(model: keras.Model) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(int(value) for value in keras.ops.convert_to_numpy(variable))
        for variable in _seed_states(model)
    )


def _symbolic(shape: Any) -> Any:
    """Return inputs without values for `shape`: a tuple, or a dict or list of them."""
    if isinstance(shape, dict):
        return {name: _symbolic(part) for name, part in shape.items()}
    if any(isinstance(part, list | tuple) for part in shape):
        return [_symbolic(part) for part in shape]
    return keras.KerasTensor(tuple(shape))
