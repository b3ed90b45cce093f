"""What a case is, and the list of them all."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

BACKENDS = ("jax", "tensorflow", "torch")


@dataclass(frozen=True)
class Training:
    """A model at its start, its data, and how it is compiled and trained: the same at every call of a case.

    Attributes:
        model: built, with its first weights.
        x: inputs, as `fit` takes them.
        y: targets, likewise.
        settings: arguments of `compile`.
        sample_weight: as `fit` takes it.
        class_weight: likewise.
        batch_size: rows a minibatch.
        num_epoch: passes over the data.
        before: epochs of `fit` that the model has seen when it is given to the trainer.
        to_trainer: those of `settings` that are given to the trainer; its model is then not compiled.
        options: further arguments of the trainer.
    """

    model: keras.Model
    x: Any
    y: Any
    settings: Mapping[str, Any]
    sample_weight: Any = None
    class_weight: Mapping[int, float] | None = None
    batch_size: int = 8
    num_epoch: int = 2
    before: int = 0
    to_trainer: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One thing that `fit` trains.

    Attributes:
        name: what the table says.
        make: returns the training, after the seeds have been set.
        backends: where Keras can train it.
        everywhere: CI runs it on all of those, not on JAX alone.
        tolerance: largest difference from `fit`; more than the rule where the arithmetic is in 16 bits.
        still: return the optimizer of a training that moves nothing; default: the case's own at rate 0.
        refused: the trainer's constructor raises a ValueError with these words; `None`: it trains.
    """

    name: str
    make: Callable[[], Training]
    backends: tuple[str, ...] = BACKENDS
    everywhere: bool = False
    tolerance: float = 1e-6
    still: Callable[[], keras.optimizers.Optimizer] | None = None
    refused: str | None = None


CASES: dict[str, Case] = {}


def case(**options: Any) -> Callable[[Callable[[], Training]], Callable[[], Training]]:
    """Register the decorated function, by its name; `options` are those of `Case`."""

    def register(make: Callable[[], Training]) -> Callable[[], Training]:
        if make.__name__ in CASES:
            raise ValueError(f"Expected another name for each case. Received: {make.__name__!r} twice")
        CASES[make.__name__] = Case(make.__name__, make, **options)
        return make

    return register


def all_cases() -> list[Case]:
    """Import every file of `cases` and return what they registered."""
    import cases

    for module in sorted(found.name for found in pkgutil.iter_modules(cases.__path__)):
        importlib.import_module(f"cases.{module}")
    return list(CASES.values())
