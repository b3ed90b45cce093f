"""`distkeras jobs`: the jobs that were submitted from here."""

from __future__ import annotations

import click

from distkeras.command.answers import Answer, answers, table


@click.command()
@click.argument("job", required=False)
@click.option("--profile", help="All jobs that the engine of this profile knows, also of others.")
@answers
def jobs(job: str | None, profile: str | None) -> Answer:
    """List the jobs that were submitted from here, or show one.

    JOB is an id, or how one begins.
    """
    from distkeras.command.job_profile import engine_and_name, engine_of_job, row_of, status_of
    from distkeras.jobs.records import record_of, records

    if job is not None:
        if profile is not None:
            engine, job = engine_of_job(job, profile)
            status = engine.status(job)
        else:
            status = status_of(record_of(job))
        lines = [f"{name}: {value}" for name, value in row_of(status).items() if value is not None]
        return Answer(status.to_dict(), "\n".join(lines))
    if profile is not None:
        found = engine_and_name(profile)[0].jobs()
        rows = [row_of(status) for status in found]
        return Answer([status.to_dict() for status in found], table(rows))
    known = [(record, status_of(record)) for record in records()]
    rows = [row_of(status, profile=record.profile) for record, status in known]
    return Answer([{**status.to_dict(), "profile": record.profile} for record, status in known], table(rows))
