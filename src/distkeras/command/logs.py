"""`distkeras logs`: what a job has printed."""

from __future__ import annotations

import sys

import click

from distkeras.command.answers import Answer, answers


@click.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--profile", help="Profile of a job that was not submitted from here.")
@answers
def logs(job: str, follow: bool, profile: str | None) -> Answer:
    """Print the log of a job.

    JOB is an id, or how one begins. With --json the log goes to stderr, and the answer is how the job goes.
    """
    from distkeras.command.job_profile import engine_of_job

    engine, job = engine_of_job(job, profile)
    for text in engine.logs(job, follow):
        sys.stdout.write(text)
        sys.stdout.flush()
    return Answer(engine.status(job).to_dict(), "")
