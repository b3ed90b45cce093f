"""Jobs that are processes of this machine, each under a supervisor that outlives the shell."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import msgspec
from msgspec.structs import replace as replace_struct

from distkeras.jobs import launcher, records
from distkeras.jobs.engine import ENDED, JobError, Status, Submission
from distkeras.jobs.pack import unpack
from distkeras.jobs.processes import unmarked
from distkeras.jobs.supervisor import COMMAND, LOCK, LOG, NOW, STATE, STOP, Command, Progress, application_of

EVERY = 0.2
"""Seconds between two looks at a log."""
MANY_BYTES = 1 << 40  # The pack is this process's own; its size was checked when it was made.


@dataclass(frozen=True)
class Start:
    """How a job is started.

    Attributes:
        command: command line.
        environment: further variables.
        kill: command line that ends the application on its cluster, without its id, which is added.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    kill: tuple[str, ...] = ()


@final
class Processes:
    """An engine: jobs of one kind, in folders below `records.jobs_folder()`.

    Args:
        kind: name of the engine; marks its jobs.
        start_of: returns how a submission is started, from its folder, where `project`, `project.zip` and
            `launcher.py` are.
        grace: seconds that a job has to end by itself.
    """

    def __init__(self, kind: str, start_of: Callable[[Submission, Path], Start], grace: float = 60.0) -> None:
        self._kind, self._start_of, self._grace = kind, start_of, grace

    def submit(self, submission: Submission) -> str:
        """Start a job in the background, under a supervisor, and return its id."""
        job = records.new_id()
        folder = records.job_folder(job)
        folder.mkdir(parents=True, mode=0o700)
        unpack(submission.pack.path, folder / "project", max_bytes=MANY_BYTES)
        shutil.copyfile(submission.pack.path, folder / "project.zip")
        shutil.copyfile(launcher.__file__, folder / "launcher.py")
        start = self._start_of(submission, folder)
        project = {"DISTKERAS_PROJECT": str(folder / "project"), "PYTHONUNBUFFERED": "1"}
        told = Command(
            submission.name,
            time.time(),
            start.command,
            {**start.environment, **project},
            str(folder),
            start.kill,
            self._grace,
        )
        (folder / "kind").write_text(self._kind)
        (folder / LOG).touch(0o600)
        records.write_whole(folder / COMMAND, msgspec.json.encode(told))
        _supervise(folder)
        return job

    def status(self, job: str) -> Status:
        """Return what is known of a job."""
        folder = self._folder(job)
        told = msgspec.json.decode((folder / COMMAND).read_bytes(), type=Command)
        lives = _is_locked(
            folder / LOCK
        )  # Before the state is read: the supervisor writes it before it ends.
        try:
            progress = msgspec.json.decode((folder / STATE).read_bytes(), type=Progress)
        except FileNotFoundError:
            progress = None
        known = Status(job, told.name, "queued", submitted=told.submitted)
        if progress is None:
            detail = "its supervisor did not start, or was killed"
            return known if lives else replace(known, state="failed", detail=detail)
        if progress.state not in ENDED and not lives:
            known = replace(known, detail="its supervisor was killed; the job may still run")
            progress = replace_struct(progress, state="unknown")
        return replace(
            known,
            state=progress.state,
            exit_code=progress.exit_code,
            began=progress.began,
            ended=progress.ended,
            application=progress.application or application_of(folder / LOG),
        )

    def logs(self, job: str, follow: bool) -> Iterator[str]:
        """Yield the output of a job; with `follow` until it ends."""
        folder = self._folder(job)
        with open(folder / LOG, encoding="utf-8", errors="replace") as log:
            while True:
                ended = self.status(job).state not in ("queued", "running")
                while text := log.read(1 << 16):
                    yield text
                if ended or not follow:
                    return
                time.sleep(EVERY)

    def stop(self, job: str) -> None:
        """Ask the supervisor for the end of a job; a second time, for the end at once."""
        status = self.status(job)
        if status.state in ENDED:
            return
        if status.state == "unknown":
            raise JobError(f"Expected a job with a supervisor. Received: {job}; {status.detail}")
        folder = self._folder(job)
        again = (folder / STOP).exists()
        records.write_whole(folder / STOP, NOW.encode() if again else b"")

    def jobs(self) -> list[Status]:
        """Return the jobs of this kind, the oldest first."""
        found = [path.parent.name for path in records.jobs_folder().glob("*/kind")]
        own = [job for job in found if (records.job_folder(job) / "kind").read_text() == self._kind]
        whole = [job for job in own if (records.job_folder(job) / COMMAND).exists()]
        return sorted((self.status(job) for job in whole), key=lambda status: status.submitted or 0.0)

    def _folder(self, job: str) -> Path:
        folder = records.job_folder(job)
        if not (folder / COMMAND).exists():
            raise JobError(f"Expected a job of this machine. Received: {job}")
        return folder


def _supervise(folder: Path) -> None:
    """Start the supervisor. It inherits the lock, so that there is no moment without it."""
    with open(folder / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.Popen(
            [sys.executable, "-m", "distkeras.jobs.supervisor", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock.fileno()],
            env=unmarked(),
        )


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock: the supervisor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
