"""Model averaging, once per epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import keras

from distkeras.algorithms import Averaging
from distkeras.removed_names import named_arguments
from distkeras.trainers.distributed import DistributedTrainer

if TYPE_CHECKING:
    from distkeras.trainers.keywords import TrainerOptions


class AveragingTrainer(DistributedTrainer):
    """Every worker trains an epoch on its share, then all continue from the mean: `c <- mean(x_i)`.

    The mean is weighted by rows. Training is synchronous and runs in a barrier stage. If a worker is lost,
    all workers restart from the last mean.

    Args:
        keras_model: as in `DistributedTrainer`.
        worker_optimizer: as in `DistributedTrainer`.
        loss: as in `DistributedTrainer`.
        **options: the options of `DistributedTrainer`.
    """

    @named_arguments
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        **options: Unpack[TrainerOptions],
    ) -> None:
        super().__init__(keras_model, Averaging(), worker_optimizer, loss, **options)
