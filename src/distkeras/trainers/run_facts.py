"""What a run says of its training, besides the settings that a resumed training compares."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import keras

from distkeras.algorithms import Vector
from distkeras.cluster.application import application_of

if TYPE_CHECKING:
    from distkeras.trainers.beginning import Beginning
    from distkeras.trainers.configured import Configured
    from distkeras.trainers.jobs import WorkerRows


def facts_of(trainer: Configured, begun: Beginning, given: WorkerRows, initial: Vector) -> dict[str, Any]:
    """Return the facts of a training that has begun; some are objects, and may have secrets.

    Args:
        trainer: the trainer.
        begun: its beginning.
        given: the rows of the workers.
        initial: the first center, shape (size,); or one for each member, shape (members, size).

    Returns:
        By name: `trainer`, `rule` (its name and settings), `backend`, `workers`, `rows` (of each worker),
        `epochs` and `first_epoch`, `epoch_rows` (rows of the center's epochs, after which they begin again),
        `weights` (elements, and bytes of a vector), `compression`, `server` (its options), `spark`.
    """
    rule = trainer.algorithm
    return {
        "trainer": type(trainer).__name__,
        "rule": {"name": rule.name, **asdict(rule)},
        "backend": keras.backend.backend(),
        "workers": trainer.num_workers,
        "rows": given.rows,
        "epochs": trainer.num_epoch,
        "first_epoch": begun.first,
        "epoch_rows": begun.rows,
        "weights": {"elements": initial.shape[-1], "bytes": initial.shape[-1] * initial.itemsize},
        "compression": trainer.compression,
        "server": trainer.server,
        "spark": application_of(given.frame.sparkSession),
    }
