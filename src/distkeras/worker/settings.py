"""The settings of a training that all workers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distkeras.center import CenterConfig
from distkeras.worker.epochs import EpochPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from distkeras.worker.columns import Columns
    from distkeras.worker.validation_share import ValidationShare


@dataclass(frozen=True)
class Task:
    """The settings of a training that all workers share.

    Attributes:
        center: settings that decide how the center handles the workers' messages.
        columns: how rows become the model's inputs and labels.
        rows: number of rows in each worker's partition, as counted before the training.
        batch_size: rows per minibatch.
        num_epoch: passes over the partition.
        shuffle: use another order of rows in every epoch.
        seed: seed of the shuffle.
        schedules_follow_training: a learning-rate schedule counts the steps of all workers.
        state_of: workers that return their local state: the first, or all of an ensemble.
        largest_state: maximum bytes of optimizer state that such a worker sends to the driver at the end.
        drop_remainder: skip the last minibatch of an epoch if it is not full.
        epochs: what the driver needs at the ends of epochs.
        validation: the validation rows among those of each worker; `None` for none.
        generators: where the driver's generators of random numbers are: `generator_states()`.

    Raises:
        ValueError: the plan of the epochs does not fit the center's settings.
    """

    center: CenterConfig
    columns: Columns
    rows: tuple[int, ...]
    batch_size: int
    num_epoch: int
    shuffle: bool
    seed: int
    schedules_follow_training: bool = True
    state_of: tuple[int, ...] = (0,)
    largest_state: int = 0
    drop_remainder: bool = False
    epochs: EpochPlan = EpochPlan()  # noqa: RUF009 (frozen)
    validation: ValidationShare | None = None
    generators: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        alone = self.center.num_workers == 1 or self.center.independent
        exact = self.epochs.windows_end or self.epochs.is_exact
        if exact and not (alone and not self.center.overlap and self.center.num_fragments == 1):
            raise ValueError(
                "Expected one worker, no overlap and no fragments for windows that end with epochs, or for "
                f"local state by which a replacement continues exactly. Received: {self.epochs!r}, "
                f"num_workers={self.center.num_workers}, overlap={self.center.overlap!r}, "
                f"num_fragments={self.center.num_fragments}"
            )

    def steps_per_pass(self, worker: int) -> int:
        """Return the number of minibatches of one pass over the rows of a worker."""
        return self._steps(self.rows[worker])

    def place(self, worker: int, epoch: int, step: int) -> int:
        """Return the number of minibatches of a worker before minibatch `step` of `epoch`."""
        return self.epochs.begin_of(epoch, self.steps_per_pass(worker)) + step

    def rows_of_epochs(self) -> tuple[int, ...]:
        """Return the rows of each epoch, of all workers together.

        They differ if an epoch is no whole pass and the last minibatch of a pass has fewer rows than others.
        """
        return rows_of_epochs(self.rows, self.batch_size, self.num_epoch, self.epochs, self.drop_remainder)

    def scale_of(self, worker: int) -> float:
        """Return the number of steps of `fit` on all rows per step of the worker."""
        if not self.schedules_follow_training or self.rows[worker] == 0:
            return 1.0
        own = self.steps_per_pass(worker)
        if self.center.elastic is not None:  # One replica trains many shares, and its steps count alike.
            own = max(self._steps(rows) for rows in self.rows)
        return self._steps(sum(self.rows)) / max(1, own)

    def _steps(self, num_rows: int) -> int:
        return num_rows // self.batch_size if self.drop_remainder else -(-num_rows // self.batch_size)


def rows_of_epochs(
    rows: Sequence[int], batch_size: int, num_epoch: int, plan: EpochPlan, drop_remainder: bool
) -> tuple[int, ...]:
    """Return the rows of each epoch, of all workers together.

    They differ if an epoch is no whole pass and the last minibatch of a pass has fewer rows than others.

    Args:
        rows: number of rows of each worker.
        batch_size: rows per minibatch.
        num_epoch: number of epochs.
        plan: minibatches of an epoch.
        drop_remainder: whether the last minibatch of a pass is skipped if it is not full.
    """

    def by(own: int, epoch: int) -> int:
        """Return the rows that a worker with `own` rows has trained at the beginning of an epoch."""
        own -= own % batch_size if drop_remainder else 0
        a_pass = -(-own // batch_size)
        passes, steps = divmod(plan.begin_of(epoch, a_pass), max(1, a_pass))
        return passes * own + min(own, steps * batch_size)

    ends = [sum(by(own, epoch + 1) for own in rows) for epoch in range(num_epoch)]
    return tuple(end - begin for begin, end in zip([0, *ends], ends, strict=False))
