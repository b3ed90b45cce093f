"""Names of losses: the data is checked against them before training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

NO_LOSS = ""
"""In place of a name: the output has no loss, and may go without labels."""

LossNames = str | None | list[Any] | dict[str, Any]


def loss_names(model: keras.Model, loss: Any) -> LossNames:
    """Return Keras's name of each loss in snake case, in the given structure; None for a loss without a name.

    Of several outputs, one without a loss has `NO_LOSS`.

    Args:
        model: its compiled loss is used if `loss` is None.
        loss: as `keras.Model.compile` takes it.
    """
    if loss is None and model.compiled:
        loss = (model.get_compile_config() or {}).get("loss")
    return _name(loss)


def _name(loss: Any) -> LossNames:
    if loss is None or isinstance(loss, str):
        return loss
    if isinstance(loss, Mapping) and "class_name" in loss:  # Keras's own serialized form.
        config = loss.get("config")
        if loss["class_name"] == "function":
            return _snake(config)
        return _class_name(loss["class_name"], config if isinstance(config, Mapping) else {})
    if isinstance(loss, Mapping):
        return {name: _name_or_none(value) for name, value in loss.items()}
    if isinstance(loss, list | tuple):
        return [_name_or_none(value) for value in loss]
    if isinstance(loss, keras.losses.Loss):
        return _class_name(type(loss).__name__, vars(loss).get("_fn_kwargs", {}))
    return _snake(getattr(loss, "__name__", ""))


def _name_or_none(loss: Any) -> LossNames:
    return NO_LOSS if loss is None else _name(loss)


def _class_name(name: str, config: Mapping[str, Any]) -> str | None:
    # A loss that ignores a class accepts labels outside the classes, so its labels cannot be checked.
    return None if config.get("ignore_class") is not None else _snake(name)


def _snake(name: Any) -> str | None:
    if not isinstance(name, str) or not name:
        return None
    text = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return text.removeprefix("_")
