"""The user's model: serialized for the workers, and as a trained copy afterwards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras

from distkeras.algorithms import Vector
from distkeras.model.optimizer import finalize, set_values
from distkeras.model.other_optimizers import assign_local_state
from distkeras.model.spec import first_vector, local_state, serialize_model
from distkeras.model.trained_copy import copy_of
from distkeras.model.weights import set_vector
from distkeras.runs.direction import compiled_metrics
from distkeras.worker.columns import Columns
from distkeras.worker.evaluate import set_metrics
from distkeras.worker.final_state import FinalState

logger = logging.getLogger(__name__)


class GivenModel:
    """A user's model, which is not changed, and the copies made from it.

    Args:
        model: the user's model.
        worker_optimizer: as in `DistributedTrainer`, like all arguments below.
        loss: loss of the workers.
        metrics: metrics of the workers.
        loss_weights: loss weights of the workers.
        custom_objects: custom objects of the model.
        input_shape: input shape of a model that is not built.

    Attributes:
        model: the user's model.
        spec: the serialized model from which workers make their copies.
        metrics: the metrics of the workers, without nesting.

    Raises:
        ValueError: as `serialize_model`.
    """

    def __init__(
        self,
        model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None,
        loss: Any,
        metrics: Any,
        loss_weights: Any,
        custom_objects: Mapping[str, Any] | None,
        input_shape: Any,
    ) -> None:
        self.model = model
        self._serialize_model = partial(
            serialize_model, model, worker_optimizer, loss, metrics, loss_weights, custom_objects, input_shape
        )
        self.spec = self._serialize_model()
        self._state = local_state(model, self.spec.layout)
        self._custom_objects = custom_objects
        given = metrics is not None or loss is not None
        self.metrics = keras.tree.flatten(metrics or []) if given else compiled_metrics(model)

    def following(self, copy: keras.Model) -> GivenModel:
        """Return the same for `copy`, a model from `trained`, which may change from now on."""
        other = object.__new__(GivenModel)
        other.model, other.spec, other._custom_objects = copy, self.spec, self._custom_objects
        other.metrics = self.metrics
        other._serialize_model = partial(serialize_model, copy, custom_objects=self._custom_objects)
        other._state = local_state(copy, self.spec.layout)
        return other

    def first_vector(self) -> Vector:
        """Return the model's current weights.

        Local state is part of the serialized model. If it has changed, the model is serialized again.
        """
        if local_state(self.model, self.spec.layout) != self._state:
            self.spec = self._serialize_model()
            self._state = local_state(self.model, self.spec.layout)
        return first_vector(self.model, self.spec)

    def trained(
        self,
        center: Vector,
        own: FinalState | None = None,
        columns: Columns | None = None,
        others: Sequence[FinalState] = (),
        *,
        batch_size: int = 32,
    ) -> keras.Model:
        """Return a new, compiled model as `fit` leaves it.

        Args:
            center: weights of the new model, shape (size,).
            own: final state of the worker whose local state the model gets.
            columns: the columns that the model was trained on.
            others: final states of the other workers whose metrics are included.
            batch_size: rows of a minibatch.
        """
        own = own or FinalState()
        model = copy_of(self.model, self.spec, self._state)
        assign_local_state(model, own.variables)
        if own.too_large:
            logger.warning(
                "The optimizer's state of %.0f MB stays in the worker, and the trained model has a new one. "
                "To get the worker's state, raise spark.driver.maxResultSize to more than twice that size.",
                own.too_large / 1e6,
            )
        if own.optimizer:
            set_values(model.optimizer, tuple(own.optimizer))
        set_vector(model, center, self.spec.layout)
        if model.optimizer is not None:
            finalize(model)
        if own.metrics and columns is not None:
            set_metrics(model, columns, batch_size, [own.metrics, *(each.metrics for each in others)])
        return model
