"""Everything that can be known before a training: `check` of a trainer."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import keras
import numpy as np

from distkeras.cluster.arrays import Roles
from distkeras.cluster.pickled_modules import packages_of_columns, packages_of_model
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.server_parts import ServerParts
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.doctor.checkup import check_executors, examine
from distkeras.doctor.diagnosis import Diagnosis, Finding
from distkeras.doctor.wanted import Wanted
from distkeras.runs.check import why_not_writable
from distkeras.trainers.jobs import center_of

if TYPE_CHECKING:
    import os

    from distkeras.cluster.data import Prepared
    from distkeras.runs import RunOptions
    from distkeras.trainers.configured import Configured

PROCESS_BYTES = {"jax": 350 * 2**20, "tensorflow": 600 * 2**20, "torch": 450 * 2**20}
"""What a Python worker takes with a backend, before it has a model."""

VECTORS = 4
"""Vectors of the model's size that a worker holds for its exchanges: see docs/design.md, Memory."""


def check(
    trainer: Configured,
    data: TrainingData,
    shuffle: bool,
    run: str | os.PathLike[str] | RunOptions | None,
    limit: float,
) -> Diagnosis:
    """Return what stands in the way of `trainer.train(data, shuffle, run=run)`; see `Trainer.check`."""
    roles = Roles(trainer.features_col, trainer.label_col, trainer.sample_weight_col)
    found: list[Finding] = []
    if run is not None:
        found.append(check_run(run))
    with ExitStack() as stack:
        frame, roles = stack.enter_context(as_frame(data, roles, trainer.num_workers))
        spark = frame.sparkSession
        prepared = None
        # Without executors the rows could not be read, and Spark would wait for ever.
        facts, faults = check_executors(spark, wanted_by(trainer, None), limit)
        if not facts:
            return Diagnosis((*found, *faults))
        try:
            prepared = trainer._prepare(frame, roles, shuffle, trainer.num_workers, with_content=False)
            found.append(Finding("ok", "data", f"{prepared.num_rows} rows fit the model"))
            if prepared.skew is not None:
                found.append(Finding("warning", "data", prepared.skew))
        except (ValueError, TypeError) as error:
            found.append(Finding("error", "data", str(error)))
        found += examine(spark, wanted_by(trainer, prepared), limit)
    return Diagnosis(tuple(found))


def check_run(run: str | os.PathLike[str] | RunOptions) -> Finding:
    """Try to write into the run directory."""
    fault = why_not_writable(run)
    if fault is not None:
        return Finding("error", "run directory", fault)
    return Finding("ok", "run directory", "the driver can write there")


def wanted_by(trainer: Configured, prepared: Prepared | None) -> Wanted:
    """Return what a training wants of a cluster; `prepared` is None if the data does not fit."""
    spec, backend = trainer._given.spec, keras.backend.backend()
    layout, dtype = spec.layout, np.dtype(spec.layout.dtype)
    center = center_of(trainer, layout, dtype=layout.dtype)
    # What is more than `memory` allows is a finding.
    options = replace(trainer.server, memory=None)
    setup = ServerSetup(center, options=options, compression=trainer.compression)
    rows = 0 if prepared is None else prepared.num_bytes
    own = set() if prepared is None else packages_of_columns(prepared.columns)
    batch = 0 if prepared is None else rows * trainer.batch_size // max(1, prepared.num_rows)
    return Wanted(
        backend=backend,
        num_workers=trainer.num_workers,
        synchronous=trainer.algorithm.synchronous,
        options=trainer.server,
        worker_bytes={
            "Python with the backend": PROCESS_BYTES.get(backend, min(PROCESS_BYTES.values())),
            "weights": layout.size * dtype.itemsize,
            "optimizer": spec.optimizer_bytes,
            "gradients": layout.num_trainable * dtype.itemsize,
            "exchanges": VECTORS * layout.size * dtype.itemsize,
            "minibatch": batch,
        },
        placement=trainer.server_placement.where,
        server_bytes=tuple(ServerParts(trainer.num_parameter_servers, setup, layout.size).needs()),
        # One epoch is read as it comes.
        spool_bytes=0 if trainer.num_epoch == 1 else rows // trainer.num_workers,
        further=frozenset(packages_of_model(spec) | own),
        resources=trainer.resources,
    )
