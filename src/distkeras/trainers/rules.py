"""A trainer of the same name for every rule of the registry."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, ClassVar

import keras

from distkeras.algorithms import Algorithm
from distkeras.gone import named_arguments
from distkeras.trainers.distributed import DistributedTrainer


class RuleTrainer(DistributedTrainer):
    """Abstract: a `DistributedTrainer` whose rule is fixed and whose hyper-parameters are its own arguments.

    Args:
        keras_model: as in `DistributedTrainer`.
        worker_optimizer: as in `DistributedTrainer`.
        loss: as in `DistributedTrainer`.
        **options: the rule's hyper-parameters, and the options of `DistributedTrainer`.
    """

    rule: ClassVar[type[Algorithm]]

    @named_arguments
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        **options: Any,
    ) -> None:
        names = {field.name for field in dataclasses.fields(self.rule)}
        parameters = {name: options.pop(name) for name in list(options) if name in names}
        super().__init__(keras_model, self.rule(**parameters), worker_optimizer, loss, **options)


def trainer_of(rule: type[Algorithm]) -> type[RuleTrainer]:
    """Return the trainer class of `rule`: its name, its documentation, its hyper-parameters as arguments."""
    trainer = type(
        rule.__name__,
        (RuleTrainer,),
        {"__doc__": _documentation(rule), "__module__": "distkeras.trainers", "rule": rule},
    )
    trainer.__signature__ = _signature(rule)  # type: ignore[attr-defined]  # what help() and Jupyter show
    return trainer


def _documentation(rule: type[Algorithm]) -> str:
    return (
        f"{inspect.cleandoc(rule.__doc__ or '')}\n\n"
        "The model, the data and all further arguments are those of `distkeras.DistributedTrainer`; "
        "`train(dataframe)` returns a new Keras model."
    )


def _signature(rule: type[Algorithm]) -> inspect.Signature:
    """The signature of the trainer, with the defaults of the rule."""
    general = dict(inspect.signature(DistributedTrainer).parameters)
    del general["algorithm"]
    own = {
        field.name: inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in dataclasses.fields(rule)
    }
    return inspect.Signature([*general.values(), *own.values()])
