"""`distkeras train`: a training from a job file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distkeras.command.answers import FAILED, INTERRUPTED, Answer, answers
from distkeras.command.flags import job_file_of, job_flags, tables_of
from distkeras.jobs.job_file import read_job

if TYPE_CHECKING:
    from distkeras.trainers import DistributedTrainer


@click.command()
@click.argument("job_file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@job_flags
@answers
def train(job_file: Path | None, **flags: Any) -> Answer:
    """Train a model as a job file says.

    JOB_FILE is job.toml by default. Every field of it is also a flag, and flags win. Where flags name a model
    and no file is given, flags say everything. Ctrl-C ends the training gracefully: the model so far is kept,
    and the exit code is 130. A second one ends it at once.
    """
    tables = tables_of(flags)
    job_file = job_file_of(job_file, tables)
    job = read_job(job_file, tables)
    folder = Path.cwd() if job_file is None else job_file.resolve().parent
    from distkeras.command.working import placed, prepare, session_of, trained

    prepare(job.backend, folder)
    from distkeras.runs import save_model

    with session_of(job) as spark:
        click.echo(f"Spark {spark.version}, application {application_of(spark)}", err=True)
        trainer, model = trained(job, folder, spark)
    output = None if job.output.model is None else placed(folder, job.output.model)
    if output is not None:
        save_model(model, output)
    return _answer(trainer, output)


def application_of(spark: Any) -> str:
    """Return the id of the Spark application."""
    return str(spark.conf.get("spark.app.id", "unknown"))


def _answer(trainer: DistributedTrainer, output: str | None) -> Answer:
    result = trainer.result
    if result is None:
        raise RuntimeError("Expected a training that has ended.")
    document = {**asdict(result), "model": output, "history": trainer.get_history().history}
    lines = [f"{result.epochs} epochs in {result.seconds:.1f} s: {result.detail or result.reason}"]
    if result.best_epoch is not None:
        values = ", ".join(f"{name} {value:.4f}" for name, value in result.best.items())
        lines.append(f"best epoch {result.best_epoch}: {values}")
    lines += [f"model: {output}"] if output else []
    lines += [f"run: {result.run}"] if result.run else []
    lines += [f"not kept: {failure}" for failure in result.failures]
    code = {"interrupt": INTERRUPTED, "not finite": FAILED}.get(result.reason, 0)
    return Answer(document, "\n".join(lines), code)
