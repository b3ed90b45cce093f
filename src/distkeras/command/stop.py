"""`distkeras stop`: the end of a job, or of a training that writes a run."""

from __future__ import annotations

import getpass
import os
import time

import click
import msgspec

from distkeras.command.answers import Answer, answers


@click.command()
@click.argument("job")
@click.option("--profile", help="Profile of a job that was not submitted from here.")
@answers
def stop(job: str, profile: str | None) -> Answer:
    """End a job or a running training; a training keeps its model.

    JOB is an id, or how one begins; or the address of a run, whose training ends within a window. Where the
    driver runs on this machine, a second `stop` ends it at once.
    """
    if profile is None and _is_run(job):
        return _stopped_run(job)
    from distkeras.command.job_profile import engine_of_job
    from distkeras.jobs.records import add, record_of

    engine, job = engine_of_job(job, profile)
    before = engine.status(job)
    engine.stop(job)
    if before.state not in ("queued", "running"):
        return Answer(before.to_dict(), f"{job} has ended already: {before.state}")
    if profile is None:
        add(msgspec.structs.replace(record_of(job), stopped=time.time()))
    return Answer(
        {"id": job, "asked": True}, f"{job} is asked to end; `distkeras jobs {job}` shows its state."
    )


def _is_run(address: str) -> bool:
    return "://" in address or os.path.exists(os.path.join(address, "run.json"))


def _stopped_run(address: str) -> Answer:
    from distkeras.runs import load_run
    from distkeras.runs.control_files import ControlFiles
    from distkeras.runs.folder import Folder, find_filesystem

    run = load_run(address)
    if run.status == "finished":
        return Answer({"run": run.address, "asked": False}, f"{run.address} has ended already.")
    ControlFiles(Folder(*find_filesystem(address))).ask("stop", f"{getpass.getuser()}, by distkeras stop")
    return Answer({"run": run.address, "asked": True}, f"The training of {run.address} is asked to end.")
