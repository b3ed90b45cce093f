"""What the commands for jobs share: profiles, engines, and how a job is shown."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from distkeras.jobs import Engine, JobError, ProfileError, Status, read_config
from distkeras.jobs.engines import engine_of
from distkeras.jobs.records import Record, record_of


def engine_and_name(profile: str | None) -> tuple[Engine, str]:
    """Return the engine of a profile, and the profile's name; by default the user's default one."""
    config = read_config()
    return engine_of(config.profile(profile)), profile or config.default


def engine_of_job(job: str, profile: str | None) -> tuple[Engine, str]:
    """Return the engine and the whole id of a job that was submitted from here, or that a profile names.

    Raises:
        JobError: no such job was submitted from here, and no profile is named.
    """
    if profile is not None:
        return engine_and_name(profile)[0], job
    record = record_of(job)
    return engine_and_name(record.profile)[0], record.id


def status_of(record: Record) -> Status:
    """Return how a job goes; what an engine that does not answer says is in the detail."""
    known = Status(record.id, record.name, "unknown", submitted=record.submitted)
    try:
        found = engine_and_name(record.profile)[0].status(record.id)
    except (JobError, ProfileError) as error:
        if record.stopped is not None:
            return replace(known, state="stopped", ended=record.stopped)
        return replace(known, detail=str(error))
    return replace(found, name=record.name)


def row_of(status: Status, **more: Any) -> dict[str, Any]:
    """Return a job as a row of a table."""
    return {
        "id": status.id,
        "name": status.name,
        "state": status.state,
        "exit": status.exit_code,
        "submitted": _clock(status.submitted),
        "ended": _clock(status.ended),
        **more,
        "application": status.application,
        "detail": status.detail or None,
    }


def _clock(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
