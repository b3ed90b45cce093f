"""What this user has submitted, so that another shell finds it: `$XDG_STATE_HOME/distkeras/jobs/ID/`."""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path

import msgspec

from distkeras.jobs.engine import JobError

RECORD = "submitted.json"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Record(msgspec.Struct, frozen=True):
    """A job that was submitted from here.

    Attributes:
        id: the engine's id of the job.
        profile: name of the profile that it was submitted with.
        name: its name.
        submitted: seconds since 1970.
        entry: what it runs.
        arguments: the entry's arguments.
        sha256: hash of the project that was sent.
        stopped: when `distkeras stop` has ended it, in seconds since 1970.
    """

    id: str
    profile: str
    name: str
    submitted: float
    entry: str
    arguments: tuple[str, ...]
    sha256: str
    stopped: float | None = None


def jobs_folder() -> Path:
    """Return the folder with a folder for each job of this user."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "distkeras" / "jobs"


def new_id() -> str:
    """Return the id of a new job: ids sort by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def job_folder(job: str) -> Path:
    """Return the folder of a job, whether it exists or not.

    Raises:
        JobError: this is no id of a job.
    """
    if not _ID.fullmatch(job):
        raise JobError(f"Expected the id of a job, as `distkeras jobs` shows it. Received: {job!r}")
    return jobs_folder() / job


def add(record: Record) -> None:
    """Remember a job."""
    folder = job_folder(record.id)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(folder / RECORD, msgspec.json.encode(record))


def records() -> list[Record]:
    """Return the jobs of this user, the newest last."""
    found = [
        msgspec.json.decode(path.read_bytes(), type=Record)
        for path in sorted(jobs_folder().glob(f"*/{RECORD}"))
    ]
    return sorted(found, key=lambda record: record.submitted)


def record_of(job: str) -> Record:
    """Return the job with an id, or with the only id that begins so.

    Raises:
        JobError: there is none, or there are several.
    """
    found = [record for record in records() if record.id.startswith(job)]
    exact = [record for record in found if record.id == job]
    if len(exact or found) != 1:
        known = ", ".join(record.id for record in (found or records())[-5:]) or "none"
        raise JobError(
            f"Expected the id of one job, or how it begins; `distkeras jobs` shows them. Received: {job!r}; "
            f"{'it fits' if found else 'the newest are'} {known}"
        )
    return (exact or found)[0]


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that readers see whole, or not at all."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    new.replace(path)
