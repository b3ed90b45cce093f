"""A training in a few words, as displays and Spark's web pages show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    return f"{name_of(trainer)}, {number}" + ("" if run is None else f", run {run}")
