"""`distkeras check`: what stands in the way of a job file's training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distkeras.command.answers import FAILED, Answer, answers
from distkeras.command.flags import job_file_of, job_flags, tables_of
from distkeras.jobs.job_file import read_job


@click.command()
@click.argument("job_file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--limit", default=120.0, show_default=True, help="Seconds to wait for the executors.")
@job_flags
@answers
def check(job_file: Path | None, limit: float, **flags: Any) -> Answer:
    """Check what stands in the way of a job file's training, without starting it.

    The data, Python and its packages on driver and executors, versions, the network, clocks, disk, memory and
    GPUs are checked, as by `trainer.check`. What must be mended comes first; the exit code is 1 if there is
    such a thing. JOB_FILE and flags are those of `distkeras train`.
    """
    tables = tables_of(flags)
    job_file = job_file_of(job_file, tables)
    job = read_job(job_file, tables)
    folder = Path.cwd() if job_file is None else job_file.resolve().parent
    from distkeras.command.working import model_of, prepare, rows_of, run_of, session_of, trainer_of

    prepare(job.backend, folder)
    with session_of(job) as spark:
        trainer = trainer_of(job, model_of(job, folder))
        rows = rows_of(job.data, spark, folder)
        found = trainer.check(rows, job.train.shuffle, run=run_of(job, folder), limit=limit)
    return Answer(found.to_dict(), str(found), 0 if found.ok else FAILED)
