"""Training of one replica without a distributed optimizer: the baseline for all other trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import keras

from distkeras.algorithms import Sequential
from distkeras.removed_names import named_arguments
from distkeras.trainers.distributed import DistributedTrainer

if TYPE_CHECKING:
    from distkeras.trainers.keywords import TrainerOptions

REPORT_STEPS = 50


class SingleTrainer(DistributedTrainer):
    """Trains on one worker, minibatch after minibatch: `x <- inner(x)`, as `keras.Model.fit` does.

    Args:
        keras_model: as in `DistributedTrainer`.
        worker_optimizer: as in `DistributedTrainer`.
        loss: as in `DistributedTrainer`.
        **options: the options of `DistributedTrainer`, without `num_workers` and `quorum`. The history has
            one record per 50 minibatches.

    Raises:
        ValueError: `num_workers` is not 1; else as `DistributedTrainer`.
    """

    @named_arguments
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        **options: Unpack[TrainerOptions],
    ) -> None:
        if options.setdefault("num_workers", 1) != 1:
            raise ValueError(
                "`SingleTrainer` trains on one worker. To use more, choose DOWNPOUR, ADAG, AEASGD or another "
                f"distributed trainer. Received: num_workers={options['num_workers']!r}"
            )
        super().__init__(keras_model, Sequential(REPORT_STEPS), worker_optimizer, loss, **options)
