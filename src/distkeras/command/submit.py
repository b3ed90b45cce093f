"""`distkeras submit`: this project as a job."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from distkeras.command.answers import FAILED, Answer, answers
from distkeras.command.flags import Entry

EVERY = 0.2
"""Seconds between two looks at a job."""


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("entry", default="job.toml")
@click.argument("arguments", nargs=-1)
@click.option("--profile", help="Where it runs: a profile of your configuration. Default: your default one.")
@click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Folder that is sent. Default: this one.",
)
@click.option("--name", help="Name of the job. Default: that of the folder.")
@click.option("--conf", type=Entry(plain=True), multiple=True, help="Setting of Spark.")
@click.option("--env", type=Entry(plain=True), multiple=True, help="Variable of the driver's environment.")
@click.option("--python", help="Python of driver and executors on the cluster.")
@click.option("--max-bytes", type=click.IntRange(1), help="Limit of the project's size. Default: 64 MiB.")
@click.option("--follow", is_flag=True, help="Print the log, wait for the end, and exit 1 if the job fails.")
@answers
def submit(entry: str, arguments: tuple[str, ...], follow: bool, **options: Any) -> Answer:
    """Send this project to where a profile runs jobs.

    ENTRY is a job file or a Python script of the project, by default job.toml; ARGUMENTS are its arguments,
    after `--`. In a Git repository, the files that Git tracks are sent.
    """
    from distkeras.command.job_profile import engine_and_name
    from distkeras.jobs import Submission, pack, read_job
    from distkeras.jobs.pack import MAX_BYTES
    from distkeras.jobs.records import Record, add

    if entry.startswith("-"):  # `submit -- --epochs 2`: arguments of the job file.
        entry, arguments = "job.toml", (entry, *arguments)
    project = Path(options["project"]).resolve()
    if entry.endswith(".toml"):
        read_job(project / entry)  # What is wrong in it is said here.
    engine, profile = engine_and_name(options["profile"])
    with tempfile.TemporaryDirectory(prefix="distkeras-pack-") as folder:
        packed = pack(project, max_bytes=options["max_bytes"] or MAX_BYTES, into=Path(folder))
        submission = Submission(
            entry,
            arguments,
            packed,
            options["name"] or project.name,
            dict(options["conf"]),
            dict(options["env"]),
            options["python"],
        )
        job = engine.submit(submission)
    add(Record(job, profile, submission.name, time.time(), entry, arguments, packed.sha256))
    document = {"id": job, "profile": profile, "sha256": packed.sha256, "files": len(packed.files)}
    click.echo(f"Submitted {job}: {len(packed.files)} files, {packed.num_bytes:,} bytes", err=True)
    if not follow:
        return Answer(document, job)
    for text in engine.logs(job, follow=True):
        sys.stdout.write(text)
        sys.stdout.flush()
    while (status := engine.status(job)).state in ("queued", "running"):
        time.sleep(EVERY)
    document |= status.to_dict()
    return Answer(document, f"{job}: {status.state}", 0 if status.state == "succeeded" else FAILED)
