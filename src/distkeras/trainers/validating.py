"""Prepares the validation of a training: its rows, and who judges by them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import pyarrow as pa

from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, with_validation
from distkeras.cluster.description import described
from distkeras.cluster.evaluation import evaluate_prepared
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.lifecycle.judge import Judge
from distkeras.lifecycle.validation import SideEvaluation, SideProcess
from distkeras.worker.signature import model_signature
from distkeras.worker.tensor_spec import fixed_batch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from distkeras.lifecycle.around import Validation
    from distkeras.model.spec import ModelSpec
    from distkeras.trainers.configured import Configured
    from distkeras.worker.validation_share import ValidationShare

BESIDE_DRIVER = 64 * 2**20
"""Most bytes of rows on which the driver validates by default."""


class Validating:
    """The validation of one training.

    Args:
        trainer: the trainer.
        validation: how to validate.
        data: the rows.
        members: number of models.
        stack: what has to stay open during the training.
        launched: a process of `launched_side`, which is ended if the workers validate.

    Raises:
        ValueError, TypeError: the rows do not fit the model, or cannot be evaluated where they should be.
    """

    def __init__(
        self,
        trainer: Configured,
        validation: Validation,
        data: TrainingData,
        members: int,
        stack: ExitStack,
        launched: list[SideProcess],
    ) -> None:
        self._trainer = trainer
        self._validation = validation
        self._members = members
        self._stack = stack
        self._side: SideEvaluation | None = None
        inputs, _ = model_signature(trainer.keras_model)
        self._batch_size = fixed_batch(inputs) or validation.batch_size or trainer.batch_size
        roles = Roles(trainer.features_col, trainer.label_col, trainer.sample_weight_col)
        self._frame, self._roles = stack.enter_context(as_frame(data, roles, 1))
        self._prepared = self._prepare(1)
        self._on = self._place()
        self._launched = launched
        if self._on == "workers":
            while launched:
                launched.pop().end()
            self._prepared = self._prepare(min(trainer.num_workers, self._prepared.num_rows))

    def begin(self, spec: ModelSpec) -> None:
        """Start the process beside the driver, if it is to judge, with the model of `spec`."""
        if self._on == "driver":
            side = SideEvaluation(
                spec,
                self._prepared.columns,
                self._rows(),
                batch_size=self._batch_size,
                steps=self._validation.steps,
                backend=keras.backend.backend(),
                launched=self._launched,
            )
            self._side = self._stack.enter_context(side)

    def _rows(self) -> pa.Table:
        with described(self._frame.sparkSession, "collects the rows of the validation"):
            return self._prepared.frame.toArrow()

    def judge_of(self, model: keras.Model) -> Judge:
        """Return who judges `model`."""
        if self._side is not None:
            side = self._side
            return Judge(self._validation, side.judge, batches=lambda: side.batches)

        def on_spark(center: Any, variables: Any) -> dict[str, float]:
            """Evaluate the model, which has these weights, when the workers have ended."""
            return evaluate_prepared(model, self._prepared, self._batch_size, self._trainer.custom_objects)

        return Judge(self._validation, on_spark, self._trainer.num_workers)

    def added_to(self, frame: DataFrame) -> tuple[DataFrame, ValidationShare | None]:
        """Return the training rows, with those of the validation if workers evaluate them."""
        if self._on != "workers":
            return frame, None
        return with_validation(frame, self._trainer.num_workers, self._prepared, self._batch_size)

    def _prepare(self, num_partitions: int) -> Prepared:
        trainer = self._trainer
        # Without class weights, which belong to the training.
        return trainer._prepare_rows(
            self._frame,
            self._roles,
            num_partitions,
            feeding=replace(trainer.feeding, drop_remainder=False),
            batch_size=self._batch_size,
        )

    def _place(self) -> str:
        """Return where to validate: "driver" or "workers"."""
        validation = self._validation
        reason = None
        if validation.steps is not None:
            reason = f"they evaluate all rows: validation_steps={validation.steps}"
        elif self._trainer.elastic is not None:
            reason = "with max_workers, a share of the rows has no worker most of the time"
        elif self._trainer.regions is not None:
            reason = "they have the center of their region alone, and not the one that is validated"
        elif self._members > 1:
            reason = "each is the only worker of its member"
        if validation.on == "workers" and reason is not None:
            raise ValueError(
                f'Workers cannot validate here, because {reason}. Use `validate_on="driver"`. '
                f"Received: validate_on={validation.on!r}"
            )
        if validation.on != "auto":
            return validation.on
        small = reason is not None or self._prepared.num_bytes <= BESIDE_DRIVER
        return "driver" if small else "workers"
