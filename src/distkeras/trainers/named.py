"""One trainer class for every algorithm of the registry, under the same name."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, ClassVar

import keras

from distkeras.algorithms import Algorithm
from distkeras.removed_names import named_arguments
from distkeras.trainers.distributed import DistributedTrainer


class NamedTrainer(DistributedTrainer):
    """Abstract: a `DistributedTrainer` with a fixed algorithm, whose hyperparameters are its own arguments.

    Args:
        keras_model: as in `DistributedTrainer`.
        worker_optimizer: as in `DistributedTrainer`.
        loss: as in `DistributedTrainer`.
        **options: the algorithm's hyperparameters, and the options of `DistributedTrainer`.
    """

    algorithm_class: ClassVar[type[Algorithm]]

    @named_arguments
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        **options: Any,
    ) -> None:
        names = {field.name for field in dataclasses.fields(self.algorithm_class)}
        parameters = {name: options.pop(name) for name in list(options) if name in names}
        super().__init__(keras_model, self.algorithm_class(**parameters), worker_optimizer, loss, **options)


def trainer_of(algorithm: type[Algorithm]) -> type[NamedTrainer]:
    """Return the trainer class of `algorithm`, with the same name and its hyperparameters as arguments."""
    trainer = type(
        algorithm.__name__,
        (NamedTrainer,),
        {
            "__doc__": _documentation(algorithm),
            "__module__": "distkeras.trainers",
            "algorithm_class": algorithm,
        },
    )
    trainer.__signature__ = _signature(algorithm)  # type: ignore[attr-defined]  # for help() and Jupyter
    return trainer


def _documentation(algorithm: type[Algorithm]) -> str:
    return (
        f"{inspect.cleandoc(algorithm.__doc__ or '')}\n\n"
        "The model, the data and all other arguments are those of `distkeras.DistributedTrainer`; "
        "`train(dataframe)` returns a new Keras model."
    )


def _signature(algorithm: type[Algorithm]) -> inspect.Signature:
    """Return the signature of the trainer, with the defaults of the algorithm."""
    general = dict(inspect.signature(DistributedTrainer).parameters)
    del general["algorithm"]
    own = {
        field.name: inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in dataclasses.fields(algorithm)
    }
    return inspect.Signature([*general.values(), *own.values()])
