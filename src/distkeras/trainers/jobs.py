"""The job of a training: what its servers and workers have to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from distkeras.algorithms import Vector
from distkeras.center import CenterConfig
from distkeras.cluster.job import Job
from distkeras.cluster.settings import result_limit
from distkeras.model.randomness import generator_states
from distkeras.worker.epochs import EpochPlan, StateAt
from distkeras.worker.task import Task

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from distkeras.center.layout import Layout
    from distkeras.lifecycle.around import Around
    from distkeras.lifecycle.keeping import Keeping
    from distkeras.trainers.beginning import Beginning
    from distkeras.trainers.configured import Configured
    from distkeras.worker.columns import Columns
    from distkeras.worker.validation_share import ValidationShare


def center_of(trainer: Configured, weights: Layout, **further: Any) -> CenterConfig:
    """Return the settings of a trainer's center; `further` are those that belong to one training.

    Args:
        trainer: the trainer.
        weights: where the model's weights lie in the center.
        **further: further attributes.
    """
    return CenterConfig(
        trainer.algorithm,
        trainer.num_workers,
        num_trainable=weights.num_trainable,
        quorum=trainer.quorum,
        grace=trainer.grace,
        overlap=trainer.overlap,
        bad_updates=trainer.on_bad_update,
        without_lost=trainer.on_lost_worker == "proceed",
        tensors=weights.tensors,
        fragments=trainer._fragments,
        elastic=trainer.elastic,
        independent=trainer.independent,
        regions=trainer.regions,
        **further,
    )


@dataclass(frozen=True)
class WorkerRows:
    """The rows of a training, as its workers read them.

    Attributes:
        frame: the rows; partition i goes to worker i.
        rows: number of rows of each worker to train on.
        columns: the columns.
        shuffle: whether workers visit their rows in a new order every epoch.
        validation: which rows they validate on; `None` for none.
    """

    frame: DataFrame
    rows: tuple[int, ...]
    columns: Columns
    shuffle: bool
    validation: ValidationShare | None = None


@dataclass(frozen=True)
class JobPlan:
    """Makes the job of a training that has begun.

    Attributes:
        trainer: the trainer.
        around: what goes around the training.
        keeping: what the training keeps.
        begun: its beginning.
        data: the rows.
    """

    trainer: Configured
    around: Around
    keeping: Keeping
    begun: Beginning
    data: WorkerRows

    def job(self, initial: Vector, settings: Mapping[str, Any], **further: Any) -> Job:
        """Return the job.

        Args:
            initial: the first center, shape (size,); or one for each member, shape (members, size).
            settings: settings that a resumed training must share, plain JSON.
            **further: further attributes of the job, such as its `options`.
        """
        trainer = self.trainer
        return Job(
            model=self.begun.given.spec,
            task=self._task(initial),
            frame=self.data.frame,
            initial=initial,
            backend=keras.backend.backend(),
            num_servers=trainer.num_parameter_servers,
            settings=dict(settings),
            resume=self.keeping.start.next,
            compression=trainer.compression,
            story=trainer._story,
            resources=trainer.resources,
            on_servers=self.keeping.add_facts,
            **further,
        )

    def _task(self, initial: Vector) -> Task:
        trainer, data = self.trainer, self.data
        members = 1 if initial.ndim == 1 else trainer.num_workers
        return Task(
            center=self.center(initial),
            columns=data.columns,
            rows=data.rows,
            batch_size=trainer.batch_size,
            num_epoch=self.begun.num_epoch,
            shuffle=data.shuffle,
            seed=trainer.seed,
            schedules_follow_training=trainer.schedule_steps == "training" and members == 1,
            state_of=tuple(range(members)),
            largest_state=result_limit(data.frame.sparkSession) // 2 // members,
            drop_remainder=trainer.feeding.drop_remainder,
            epochs=self._epochs(),
            validation=data.validation,
            generators=generator_states(),
        )

    def center(self, initial: Vector) -> CenterConfig:
        """Return what the servers have to know."""
        spec = self.begun.given.spec
        first = [conductor.plan for conductor in self.begun.conductors if conductor.plan.holds]
        return center_of(
            self.trainer,
            spec.layout,
            dtype=initial.dtype.name,
            layout=spec.fingerprint,
            epoch_rows=self.begun.rows,
            member_rows=self.begun.member_rows,
            until=min(plan.until(0, 0) for plan in first) if first else None,
        )

    def _epochs(self) -> EpochPlan:
        """Return what the workers have to do at the ends of epochs."""
        each = [(conductor.callbacks, conductor.plan) for conductor in self.begun.conductors]
        by_steps = any(plan.by_steps for _, plan in each)
        state: StateAt = "epochs" if any(callbacks.see_state for callbacks, _ in each) else "never"
        return EpochPlan(
            windows_end=self._is_exact,
            steps=self.around.steps_per_epoch,
            state="commits" if by_steps else "seconds" if self._is_resumable_exactly else state,
            # Keras calls the methods for batches once for so many steps.
            longest_window=self.trainer.keras_model.steps_per_execution if by_steps else None,
            within_pass=self.trainer.num_workers == 1 or self.trainer.independent,
        )

    @property
    def _is_resumable_exactly(self) -> bool:
        """Whether another driver goes on exactly, for which the worker sends its state while it trains."""
        return self.keeping.run is not None and self._is_exact and self.trainer.num_workers == 1

    @property
    def _is_exact(self) -> bool:
        """Whether windows end with epochs: each model has one worker, and something looks at its epochs."""
        trainer, conductors = self.trainer, self.begun.conductors
        alone = trainer.num_workers == 1 or len(conductors) > 1
        return bool(conductors) and alone and not trainer.overlap and trainer._fragments is None
