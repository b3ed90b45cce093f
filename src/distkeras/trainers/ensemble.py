"""An ensemble of independent models trained in parallel, and a model that combines their outputs."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

import keras
import numpy as np

from distkeras.algorithms import Sequential, Vector
from distkeras.cluster.partitions import copy_to_all
from distkeras.lifecycle.around import around_of
from distkeras.model.randomness import undisturbed
from distkeras.model.variables import tree_of, value_of
from distkeras.monitor.monitors import Given, monitors_of
from distkeras.removed_names import named_arguments
from distkeras.trainers.base import Trainer
from distkeras.trainers.checks import check_positive_integer
from distkeras.trainers.single import REPORT_STEPS

if TYPE_CHECKING:
    import os

    from pyspark.sql import DataFrame

    from distkeras.cluster.tables import TrainingData
    from distkeras.lifecycle.keeping import Resume
    from distkeras.lifecycle.stop_when import StopWhen
    from distkeras.runs import RunOptions
    from distkeras.trainers.keywords import TrainerOptions

Data = Literal["share", "all", "bootstrap"]


class EnsembleTrainer(Trainer):
    """Trains `num_ensembles` independent models, one per worker.

    The members start from different random weights, drawn by the model's own initializers. Weights whose
    initializer has a fixed seed start equal in all members.

    Args:
        keras_model: the architecture of every member; its weights are not used.
        worker_optimizer: as in `DistributedTrainer`.
        loss: as in `DistributedTrainer`.
        num_ensembles: number of members.
        data: the rows that each member trains on: "share" for a separate part of the rows, "all" for every
            row, "bootstrap" for about as many rows as there are, drawn with replacement.
        **options: the options of `DistributedTrainer`, without `num_workers` and `quorum`.

    Raises:
        ValueError: `num_ensembles` is not a positive integer, or `data` is not one of the three values.

    Example:
        ```python
        trainer = EnsembleTrainer(model, "adam", "sparse_categorical_crossentropy", num_ensembles=5)
        members = trainer.train(df)
        together = merge(members)
        ```
    """

    compared = ("data",)
    independent = True

    @named_arguments
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        num_ensembles: int = 2,
        data: Data = "share",
        **options: Unpack[TrainerOptions],
    ) -> None:
        check_positive_integer("num_ensembles", num_ensembles)
        if data not in ("share", "all", "bootstrap"):
            raise ValueError(f'`data` must be "share", "all" or "bootstrap". Received: data={data!r}')
        if options.setdefault("num_workers", num_ensembles) != num_ensembles:
            raise ValueError(
                "`EnsembleTrainer` has one worker per member: pass only `num_ensembles`. "
                f"Received: num_workers={options['num_workers']!r}, num_ensembles={num_ensembles!r}"
            )
        super().__init__(keras_model, Sequential(REPORT_STEPS), worker_optimizer, loss, **options)
        self.num_ensembles = num_ensembles
        self.data: Data = data

    def train(
        self,
        dataframe: TrainingData,
        shuffle: bool = False,
        resume: Resume = False,
        *,
        validation_data: TrainingData | None = None,
        validation_freq: int | Collection[int] = 1,
        validation_batch_size: int | None = None,
        validation_steps: int | None = None,
        callbacks: Any = None,
        stop: StopWhen | None = None,
        run: str | os.PathLike[str] | RunOptions | None = None,
        monitor: Given = None,
        dashboard: bool = False,
    ) -> list[keras.Model]:
        """Train all members on `dataframe` and return them: new, compiled Keras models.

        Args:
            dataframe: the rows, as in `DistributedTrainer.train`.
            shuffle: as in `DistributedTrainer.train`.
            resume: as in `DistributedTrainer.train`.
            validation_data: as in `DistributedTrainer.train`; each member is validated, beside the driver.
            validation_freq: as in `DistributedTrainer.train`.
            validation_batch_size: as in `DistributedTrainer.train`.
            validation_steps: as in `DistributedTrainer.train`.
            callbacks: as in `DistributedTrainer.train`, a copy of them for each member; or a function that
                returns the callbacks of a member by its number. A callback that stops the training stops that
                of its member.
            stop: as in `DistributedTrainer.train`, for each member.
            run: as in `DistributedTrainer.train`.
            monitor: as in `DistributedTrainer.train`.
            dashboard: as in `DistributedTrainer.train`.

        Raises:
            ValueError, TypeError, WorkerError: as `DistributedTrainer.train`.
        """
        arrange = None if self.data == "share" else self._arrange
        around = around_of(
            validation_data,
            0.0,
            validation_freq,
            validation_batch_size,
            validation_steps,
            "driver" if validation_data is not None else "auto",
            callbacks=callbacks,
            stop=stop,
            run=run,
            monitors=monitors_of(monitor, dashboard),
        )
        return self._run(dataframe, shuffle, around, self._initial, arrange, resume=resume)

    def evaluate(
        self,
        dataframe: TrainingData,
        *,
        members: Sequence[keras.Model] | None = None,
        batch_size: int | None = None,
    ) -> list[dict[str, float]]:
        """Return loss and metrics of each member, as `DistributedTrainer.evaluate`.

        Args:
            dataframe: as in `DistributedTrainer.evaluate`.
            members: compiled models. Default: those of the last `train`.
            batch_size: as in `DistributedTrainer.evaluate`.

        Raises:
            ValueError, TypeError: as `DistributedTrainer.evaluate`; or there was no training.
        """
        if members is None:
            members = [] if self._training is None else self._training.models
        if not members:
            raise ValueError("Expected members to evaluate: train first, or pass `members`. Received: none")
        return [self._evaluate(member, dataframe, batch_size) for member in members]

    def _initial(self) -> Vector:
        """The initial weights of every member, shape (num_ensembles, size)."""
        given = self._given.first_vector()
        return np.stack(
            [self._reinitialized(given, self.seed + member) for member in range(self.num_ensembles)]
        )

    def _reinitialized(self, given: Vector, seed: int) -> Vector:
        """Return new weights for the given model, drawn by its initializers with `seed`."""
        fresh = tree_of(_initialized(self.keras_model, seed, self.custom_objects)).variables
        vector = given.copy()
        for segment, part in zip(
            self._given.spec.layout.segments(), self._given.spec.layout.unpack(vector), strict=True
        ):
            if segment.path in fresh and tuple(fresh[segment.path].shape) == segment.shape:
                part[...] = value_of(fresh[segment.path])  # Other weights, such as LoRA's, keep their values.
        return vector

    def _arrange(self, frame: DataFrame) -> tuple[DataFrame, tuple[int, ...]]:
        """Return one partition per member, each with all rows or with a sample of them."""
        return copy_to_all(frame, self.num_ensembles, self.seed if self.data == "bootstrap" else None)


def merge(members: Sequence[keras.Model], by: Literal["average", "vote"] = "average") -> keras.Model:
    """Return one model over the inputs of `members` that combines their outputs.

    Args:
        members: models of the same inputs and outputs.
        by: "average" for the mean of their outputs. "vote" for the share of members that predict each class,
            for classifiers with one output per class.

    Raises:
        ValueError: there are no members, `by` has another value, or a member is neither a Sequential nor a
            functional model.
    """
    if not members or by not in ("average", "vote"):
        raise ValueError(
            'Expected at least one model, and `by` "average" or "vote". '
            f"Received: {len(members)} models, by={by!r}"
        )
    combine = _vote if by == "vote" else _average
    inputs = _inputs_like(members[0])
    # Wrap each member in a model with a unique name: members of one training share a name.
    named = [_named(member, f"member_{index}") for index, member in enumerate(members)]
    outputs = [member(inputs) for member in named]
    return keras.Model(inputs, keras.tree.map_structure(lambda *each: combine(list(each)), *outputs))


def _named(model: keras.Model, name: str) -> keras.Model:
    inputs = _inputs_like(model)
    return keras.Model(inputs, model(inputs), name=name)


def _inputs_like(model: keras.Model) -> Any:
    """Return new inputs with the names, shapes and structure of the inputs of `model`."""
    if not getattr(model, "inputs", None):
        raise ValueError(
            "Expected Sequential or functional models: the inputs of other models are not known. "
            f"Received: {type(model)}"
        )
    old = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(
        lambda given: keras.Input(given.shape[1:], dtype=given.dtype, name=given.name), old
    )


def _average(outputs: list[Any]) -> Any:
    return outputs[0] if len(outputs) == 1 else keras.layers.Average()(outputs)


def _vote(outputs: list[Any]) -> Any:
    return _average([keras.ops.one_hot(keras.ops.argmax(output, -1), output.shape[-1]) for output in outputs])


def _initialized(model: keras.Model, seed: int, custom_objects: Mapping[str, Any] | None) -> keras.Model:
    """Return a copy of `model` with new weights, drawn by its initializers with `seed`."""
    # Keras draws the seeds of unseeded initializers from Python's generator.
    with undisturbed(), keras.saving.custom_object_scope(dict(custom_objects or {})):
        random.seed(seed)
        fresh = type(model).from_config(model.get_config())
        if not fresh.built:
            fresh.build_from_config(model.get_build_config())
        return fresh
