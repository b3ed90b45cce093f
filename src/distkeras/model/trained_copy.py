"""A copy of the user's model to return from a training, made on the driver beside the model itself."""

from __future__ import annotations

from typing import Any

import keras

from distkeras.model.spec import ModelSpec, compiled_copy, deserialize_model, local_state
from distkeras.model.variables import Tree, tree_of, value_of


def copy_of(given: keras.Model, spec: ModelSpec, state: tuple[Any, ...]) -> keras.Model:
    """Return the model of `spec`, compiled, for a caller that sets the weights in the layout.

    Like `deserialize_model`, but where this is safe it neither draws initial weights nor reads those of the
    archive: they would be overwritten, and took half as much memory again as the model.

    Args:
        given: the user's model, from which `spec` was made.
        spec: from `serialize_model`.
        state: `local_state` of `given` when `spec` was made.

    Raises:
        ModelChanged: as `deserialize_model`.
    """
    with spec.process.applied():
        if not spec.saved.is_weights_alone(given) or local_state(given, spec.layout) != state:
            return deserialize_model(spec)
        return _filled(given, spec) or deserialize_model(spec)


def _filled(given: keras.Model, spec: ModelSpec) -> keras.Model | None:
    """Return the copy, made without reading the archive; `None` if its initializers differ from `given`'s."""
    model = compiled_copy(spec, spec.saved.open_empty())
    mine, its = tree_of(given), tree_of(model)
    _take_initializers(its, mine)
    if _initializers_in(model.get_config()) != _initializers_in(given.get_config()):
        return None
    moving = {segment.path for segment in spec.layout.segments()}
    for path, cell in its.variables.items():
        if path not in moving:
            cell.assign(value_of(mine.variables[path]))
    return model


def _take_initializers(copy: Tree, given: Tree) -> None:
    """Give the layers of `copy` copies of the initializers of `given`; shared initializers stay shared."""
    copies: dict[int, keras.initializers.Initializer] = {}
    for path, layer in copy.layers.items():
        for name, initializer in list(vars(layer).items()):
            own = vars(given.layers[path]).get(name)
            if isinstance(initializer, keras.initializers.Zeros) and isinstance(
                own, keras.initializers.Initializer
            ):
                setattr(layer, name, copies.setdefault(id(own), own.clone()))


def _initializers_in(config: Any, path: str = "") -> list[tuple[str, str]]:
    """Return every initializer in the configuration of a model, by its path of keys."""
    if isinstance(config, dict):
        parts = list(config.items())
    elif isinstance(config, list | tuple):
        parts = list(enumerate(config))
    else:
        return []
    found = []
    for key, part in parts:
        if str(key).endswith("_initializer"):
            shared = "shared_object_id"  # This number may differ each time Keras saves the model.
            known = (
                {name: value for name, value in part.items() if name != shared}
                if isinstance(part, dict)
                else part
            )
            found.append((f"{path}/{key}", repr(known)))
        else:
            found += _initializers_in(part, f"{path}/{key}")
    return found
