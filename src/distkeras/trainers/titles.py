"""A training in a few words, as displays, Spark's web pages and Python itself show it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distkeras.algorithms import Algorithm
    from distkeras.trainers.configured import Configured


def name_of(trainer: Configured) -> str:
    """Return the name of a trainer's class, or of its rule if the class is for any rule."""
    name = type(trainer).__name__
    return trainer.algorithm.name if name == "DistributedTrainer" else name


def title_of(trainer: Configured, run: str | None = None) -> str:
    """Return rule, workers and run of a training, such as "ADAG, 8 workers, run s3://bucket/runs/7".

    Args:
        trainer: the trainer.
        run: address of the run directory, without secrets; `None` for none.
    """
    count, kind = trainer.num_workers, "member" if trainer.independent else "worker"
    number = f"{count} {kind}{'s' if count > 1 else ''}"
    if trainer.elastic is not None:
        number = f"{trainer.elastic.min_workers} to {trainer.elastic.max_workers} workers"
    if trainer.regions is not None:
        number += f" in {trainer.regions.num_regions} regions"
    return f"{name_of(trainer)}, {number}" + ("" if run is None else f", run {run}")


def call_of(trainer: Configured) -> str:
    """Return a trainer as the call that makes it: the model's name, the rule, workers, epochs and batch.

    Of the rule's arguments it has those that are not the default.
    """
    rule, name = trainer.algorithm, type(trainer).__name__
    own = _not_default(rule)
    parts = own if name == type(rule).__name__ else [f"{type(rule).__name__}({', '.join(own)})"]
    if trainer.elastic is None:
        counts = {"num_ensembles" if trainer.independent else "num_workers": trainer.num_workers}
    else:
        counts = {"min_workers": trainer.elastic.min_workers, "max_workers": trainer.elastic.max_workers}
    if trainer.regions is not None:
        counts["regions"] = trainer.regions.num_regions
    counts |= {"num_epoch": trainer.num_epoch, "batch_size": trainer.batch_size}
    parts = [repr(trainer.keras_model.name), *parts, *(f"{key}={value!r}" for key, value in counts.items())]
    return f"{name}({', '.join(parts)})"


def _not_default(rule: Algorithm) -> list[str]:
    values = [(each.name, getattr(rule, each.name), each.default) for each in fields(rule)]
    return [f"{name}={value!r}" for name, value, default in values if repr(value) != repr(default)]
