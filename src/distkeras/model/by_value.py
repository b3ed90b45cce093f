"""Pickle a model as the objects it consists of: for classes that Keras cannot save but cloudpickle can.

A layer that takes a function or another object in its constructor and has no `get_config` cannot be rebuilt
from a configuration. Its attributes can be copied. The copy needs the same version of Keras.
"""

from __future__ import annotations

import io
import pickle
import weakref
from collections.abc import Mapping
from typing import Any

import cloudpickle
import keras
import numpy as np
from keras.src.utils.backend_utils import DynamicBackend

from distkeras.model.kinds import is_model
from distkeras.model.pytorch import is_wrapped_module, parameters_of, share_parameters

TRACKED = ("TrackedList", "TrackedDict", "TrackedSet")
"""Keras's own containers: they report each item to the layer, and cannot be unpickled directly."""

COMPILED = frozenset(
    {"optimizer", "loss", "train_function", "test_function", "predict_function", "compiled"}
    | {"_compile_loss", "_compile_metrics", "_compile_config", "_loss_tracker", "_compiled_trainable_state"}
    | {"_jax_state", "_jax_state_synced", "_distribute_strategy"}
)
"""Attributes that `compile` and `fit` leave in a model. The copy is compiled again."""

SETTINGS = ("_regularizer", "_constraint", "_autocast", "_aggregation", "_overwrite_with_gradient")
"""Attributes of a variable besides value, name and flag: its layer gives them when it is built."""

PARAMETERS = "_names_of_parameters"
"""Attribute of a pickled `TorchModuleWrapper`: the parameter that each of its variables is."""

SAVEABLE = (
    *(keras.Operation, keras.random.SeedGenerator),
    *(keras.optimizers.Optimizer, keras.metrics.Metric),
)
"""Classes that Keras would pickle by saving them, without what their configuration leaves out."""


class CannotCopy(ValueError):
    """Something inside the model can be neither saved by Keras nor pickled."""


def dump_model(model: Any, paths: Mapping[int, str] | None = None) -> bytes:
    """Return a pickle of `model`, or of another object of Keras, with its variables as arrays.

    Args:
        model: what to copy.
        paths: of objects, by `id`, to which the pickle refers and does not copy.

    Raises:
        CannotCopy: an object in it cannot be pickled; the message names it.
    """
    file = io.BytesIO()
    try:
        WholePickler(file, paths or {}).dump(model)
    except Exception as error:
        raise CannotCopy(f"{type(error).__name__}: {error}") from error
    return file.getvalue()


def load_model(data: bytes, objects: Mapping[str, Any] | None = None) -> Any:
    """Return the model in `data`, not compiled; `objects` are those it refers to, by path."""
    model = Unpickler(io.BytesIO(data), objects or {}).load()
    if keras.backend.backend() == "torch" and is_model(model):
        for (
            layer
        ) in model._flatten_layers():  # `model.modules()` lacks the layers of a list, as of a Sequential.
            share_parameters(layer, vars(layer).pop(PARAMETERS, ()))
    return model


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    """Pickles references to some objects in place of the objects, and losses by their attributes.

    Args:
        file: where to write.
        paths: of those objects, by `id`.
    """

    def __init__(self, file: io.BytesIO, paths: Mapping[int, str]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._paths = paths

    def persistent_id(self, value: Any) -> str | None:
        """Return the path of `value`; `None`: pickle it."""
        return self._paths.get(id(value))

    def reducer_override(self, value: Any) -> Any:
        """Return how `pickle` rebuilds `value`."""
        if is_constant(value):
            # On the device of the process that loads it.
            dtype = keras.backend.standardize_dtype(value.dtype)
            return keras.ops.convert_to_tensor, (np.asarray(keras.ops.convert_to_numpy(value)), dtype)
        if isinstance(value, DynamicBackend):
            # Layers of preprocessing have one. It looks up any name, also while it is unpickled, without end.
            return DynamicBackend, (value.name,)
        if isinstance(value, keras.losses.Loss):
            return _saveable_reduced(value)
        if (strategy_of := _strategy_of_the_process(value)) is not None:
            return strategy_of, ()
        return super().reducer_override(value)


class Unpickler(pickle.Unpickler):
    """Loads what `Pickler` wrote.

    Args:
        file: where to read.
        objects: what the references stand for, by path.
    """

    def __init__(self, file: io.BytesIO, objects: Mapping[str, Any]) -> None:
        super().__init__(file)
        self._objects = objects

    def persistent_load(self, path: Any) -> Any:
        """Return the object of `path`."""
        return self._objects[path]


class WholePickler(Pickler):
    """Pickles objects of Keras, such as a model, by their attributes."""

    def reducer_override(self, value: Any) -> Any:
        """Return how `pickle` rebuilds `value`."""
        if isinstance(value, keras.Variable):
            array = np.array(keras.ops.convert_to_numpy(value))
            arguments = array, str(value.dtype), value.trainable, value.name, value.path
            settings = {name: vars(value)[name] for name in SETTINGS if name in vars(value)}
            return _make_variable, arguments, settings, None, None, _set_settings
        if type(value).__name__ in TRACKED and type(value).__module__.startswith("keras."):
            plain = plain_type(value)
            return _make_tracked, (type(value), plain), (plain(value), dict(vars(value))), None, None, _fill
        if isinstance(value, weakref.ref):
            return _make_dead_reference, ()
        if isinstance(value, weakref.WeakKeyDictionary):
            return weakref.WeakKeyDictionary, ()
        if isinstance(value, SAVEABLE):
            return _saveable_reduced(value)
        return super().reducer_override(value)


def _saveable_reduced(value: Any) -> tuple[Any, ...]:
    """Return an object of Keras as `pickle` rebuilds it from its attributes."""
    kind = type(value), _is_functional(type(value))
    return _make_saveable, kind, _state_of(value), None, None, _set_state


def _strategy_of_the_process(value: Any) -> Any:
    """Return the function that finds TensorFlow's strategy, if `value` is one, as each optimizer has.

    A strategy belongs to its process: a copy knows no devices.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_strategy if isinstance(value, tf.distribute.Strategy) else None


def is_constant(value: Any) -> bool:
    """Whether `value` is a tensor of the backend, no variable of TensorFlow and no parameter of PyTorch."""
    parameter = any(base.__name__ == "Parameter" for base in type(value).__mro__)
    return keras.ops.is_tensor(value) and not hasattr(value, "assign") and not parameter


def _state_of(value: Any) -> dict[str, Any]:
    # TensorFlow's bookkeeping begins with `_self_`, and is created again.
    state = {name: part for name, part in vars(value).items() if not name.startswith("_self_")}
    if is_model(value):
        state = {name: part for name, part in state.items() if name not in COMPILED}
    if is_wrapped_module(value):
        state[PARAMETERS] = parameters_of(value)
    return state


def _set_state(value: Any, state: dict[str, Any]) -> None:
    vars(value).update(state)
    if is_model(value):
        trainer = keras.Model.__bases__[0]  # The backend's own.
        vars(value).pop("_compute_loss_has_training_arg", None)
        trainer.__init__(value)  # As before `compile`.


def _make_saveable(kind: type, functional: bool) -> Any:
    if functional and not _is_functional(kind):
        from keras.src.models.model import inject_functional_model_class

        # Keras makes a subclass of `keras.Model` functional when it first creates one of inputs and outputs.
        inject_functional_model_class(kind)
    return object.__new__(kind)


def _is_functional(kind: type) -> bool:
    return any(base.__name__ == "Functional" for base in kind.__mro__)


def _make_variable(array: Any, dtype: str, trainable: bool, name: str, path: str) -> keras.Variable:
    variable = keras.Variable(array, dtype=dtype, trainable=trainable, name=name)
    variable._path = path  # PyTorch identifies the parameter by it.
    return variable


def _set_settings(variable: keras.Variable, settings: dict[str, Any]) -> None:
    vars(variable).update(settings)


def plain_type(value: Any) -> type:
    """Return Python's own type of a container."""
    return next(kind for kind in (list, dict, set, tuple) if isinstance(value, kind))


def _make_tracked(kind: type, plain: type) -> Any:
    return plain.__new__(kind)  # type: ignore[call-overload]


def _fill(container: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """Fill a Keras container without its own methods, which would report each item to the layer again."""
    items, attributes = state
    vars(container).update(attributes)
    match items:
        case list():
            list.extend(container, items)
        case dict():
            dict.update(container, items)
        case _:
            set.update(container, items)


def _make_dead_reference() -> Any:
    class Gone:
        pass

    return weakref.ref(Gone())
