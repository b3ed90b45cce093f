"""A model without its compile settings, as bytes from which exactly the same model can be rebuilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import keras

from distkeras.model.archive import (
    Stored,
    config_of,
    digest_of,
    digest_of_all,
    has_assets,
    load_archive,
    load_without_weights,
    without_initializers,
    write_archive,
)
from distkeras.model.attributes import dumps
from distkeras.model.by_value import dump_model, load_model
from distkeras.model.custom_objects import named_in, unique_names
from distkeras.model.pytorch import check_is_saved_by_name, classes_of_modules, is_wrapped_module
from distkeras.model.randomness import undisturbed
from distkeras.model.supplement import (
    Supplement,
    Weight,
    structure_of,
    supplement_for,
    values_that_differ,
    weights_in,
)
from distkeras.model.variables import tree_of
from distkeras.model.weights import ModelChanged
from distkeras.model.without_tensorflow import serialize_without_tensorflow


@dataclass(frozen=True)
class SavedModel:
    """A model as it travels: plain bytes and arrays, picklable by `pickle`.

    Attributes:
        archive: Keras's own `.keras` file (architecture, weights, assets), or a pickle with `by_value`.
        by_value: whether the archive is a pickle of all attributes, for classes that Keras cannot save.
        supplement: the state that the archive does not carry.
        custom_objects: pickled classes and functions that the model names; by value where another process
            could not import them.
        weights: the weights of the model: every copy must have exactly these.
    """

    archive: Stored
    by_value: bool
    supplement: Supplement
    custom_objects: bytes
    weights: tuple[Weight, ...]

    @property
    def digest(self) -> str:
        """A digest of the contents, equal for a model that is saved twice."""
        values = self.supplement.values
        texts = (list(values), replace(self.supplement, values={}), self.weights)
        archive = digest_of(self.archive)
        arrays = [value.tobytes() for value in values.values()]
        return digest_of_all(archive.encode(), self.custom_objects, repr(texts).encode(), *arrays)

    def open(self, *, blank: bool = True) -> keras.Model:
        """Return the model, not compiled.

        Args:
            blank: draw no random initial weights, which are overwritten anyway: compiling the initializers is
                most of the time that a new process takes to load a small model. The model's configuration
                then names other initializers than the user's.

        Raises:
            ModelChanged: the rebuilt model differs, for example under another version of Keras.
        """
        model = _loaded(self.archive, cloudpickle.loads(self.custom_objects), self.by_value, blank)
        found = weights_in(self.supplement.apply(model))
        if found != self.weights:
            raise ModelChanged(f"{differences(self.weights, found)} {SAME_CODE}")
        return model

    def open_empty(self) -> keras.Model:
        """Return the model, not compiled, for a caller that sets every weight: reads none from the archive.

        Raises:
            ModelChanged: as `open`.
        """
        custom = cloudpickle.loads(self.custom_objects)
        with undisturbed():
            model = load_without_weights(without_initializers(self.archive), custom)
        found = weights_in(self.supplement.apply(model))
        if found != self.weights:
            raise ModelChanged(f"{differences(self.weights, found)} {SAME_CODE}")
        return model

    def is_weights_alone(self, model: keras.Model) -> bool:
        """Whether `model`, from which this was saved, consists of configuration and weights alone.

        It does not if a class reads its part of the archive by its own code, or has files of its own.
        """
        changed = self.supplement.lora or self.supplement.quantized
        if self.by_value or changed or has_assets(self.archive):
            return False
        return all(type(layer).load_own_variables in PLAIN_LOADERS for layer in model._flatten_layers())


PLAIN_LOADERS = (
    keras.layers.Layer.load_own_variables,
    keras.layers.Dense.load_own_variables,
    keras.layers.EinsumDense.load_own_variables,
    keras.layers.Embedding.load_own_variables,
    keras.layers.Conv2D.load_own_variables,
)
"""Methods that only set the weights of a layer from an archive, if the layer is not quantized."""

SAME_CODE = "Expected the same versions of Keras and of the model's own classes on driver and executors."


def save(model: keras.Model, custom_objects: Mapping[str, Any] | None = None) -> SavedModel:
    """Return `model`, which must be built, in the form that travels, after comparing a local copy with it.

    Args:
        model: any Keras model.
        custom_objects: classes and functions that it names, where they are not registered with Keras.

    Raises:
        ValueError: neither Keras nor cloudpickle can copy the model exactly.
    """
    with unique_names([model]) as objects:
        return save_with(model, objects, [], custom_objects)


def save_with(
    model: keras.Model,
    objects: dict[str, Any],
    configs: list[Any],
    custom_objects: Mapping[str, Any] | None = None,
) -> SavedModel:
    """Return `model` as `save` does, inside a block of `unique_names`.

    Args:
        model: any Keras model.
        objects: the user's own classes and functions in it, by their unique names.
        configs: configurations that travel with it, with the objects that they name.
        custom_objects: as in `save`.
    """
    serialize_without_tensorflow()
    custom = dict(custom_objects or {})
    tree, failures = tree_of(model), []
    structure, given = structure_of(tree), weights_in(tree)
    for by_value in (False, True):
        try:
            if not by_value:
                for layer in filter(is_wrapped_module, tree.layers.values()):
                    check_is_saved_by_name(layer)
            data = Stored.of(dump_model(model)) if by_value else write_archive(model)
            copy = _loaded(data, objects | custom, by_value, True)
            supplement = supplement_for(structure, tree_of(copy))
            there = supplement.apply(copy)
            if (found := weights_in(there)) != given:
                raise ModelChanged(differences(given, found))
            # A pickled model carries the objects of its own configuration.
            named = named_in(objects, configs if by_value else [config_of(data), *configs])
            named |= classes_of_modules(tree.layers.values())
            values = values_that_differ(tree, there)
            return SavedModel(
                data, by_value, replace(supplement, values=values), dumps(named | custom, {}), given
            )
        except Exception as error:  # Whatever the user's classes raise.
            failures.append(error)
    by_keras, by_pickle = (_shortened(error) for error in failures)
    raise ValueError(
        f"Expected a model that can be sent to the workers. {model.name!r} cannot. Saved by Keras: "
        f"{by_keras}; copied by cloudpickle: {by_pickle}. Give each class of your own a `get_config` that "
        "names every argument of its constructor."
    ) from failures[0]


def _loaded(data: Stored, objects: dict[str, Any], by_value: bool, blank: bool) -> keras.Model:
    """Return the model in an archive or a pickle, without the supplement."""
    with undisturbed():
        if by_value:
            with data.open() as file:
                return load_model(file.read())
        return load_archive(without_initializers(data) if blank else data, objects)


def differences(given: Sequence[Weight], found: Sequence[Weight]) -> str:
    """Describe the weights in which two models differ."""
    if {*given} == {*found}:
        return "A copy of the model has its weights in another order."
    lost = [str(weight) for weight in given if weight not in {*found}]
    new = [str(weight) for weight in found if weight not in {*given}]
    return f"A copy of the model has other weights. Expected: {_some(lost)}. Received: {_some(new)}."


def _some(names: list[str]) -> str:
    return "; ".join(names[:5]) + (f"; and {len(names) - 5} more" if len(names) > 5 else "") or "no others"


def _shortened(error: BaseException) -> str:
    """Return the type of `error` and the start of its message: Keras quotes whole configurations."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}"
