"""The queue of jobs: takes them, starts them when there is a place, and notes how they end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from distkeras.jobs.engine import ENDED as END_STATES
from distkeras.jobs.engine import State
from distkeras.jobs.pack import PackError, unpack
from distkeras.jobs.processes import kill_all, unmarked
from distkeras.jobs.server.commands import Commands
from distkeras.jobs.server.folders import BEGUN, ENDED, ORDER, STOP, JobFolder
from distkeras.jobs.server.home import Home
from distkeras.jobs.server.joblog import Piece, read_piece
from distkeras.jobs.server.limits import Limits
from distkeras.jobs.server.request import JobRequest
from distkeras.jobs.server.runner import Order
from distkeras.jobs.server.store import Job, Store

EVERY = 0.2
"""Seconds between two looks at the jobs."""


class QueueFullError(RuntimeError):
    """As many jobs wait as may."""


class UnknownJobError(KeyError):
    """There is no job of this id."""


class Queue:
    """The jobs of one server. Its methods may be called by any thread.

    Each job runs below a runner, a process of its own. If the server is killed, runner and job go on; the
    next server finds them. No job is started twice: what a runner has begun is never begun again.

    Args:
        home: the server's folder.
        limits: what is allowed.
        commands: makes the commands.

    Raises:
        StoreError: the jobs of the folder cannot be read.
    """

    def __init__(self, home: Home, limits: Limits, commands: Commands) -> None:
        self._home, self._limits, self._commands = home, limits, commands
        self._store = Store(home.database)
        self._runners: dict[str, subprocess.Popen[bytes]] = {}
        self._adding = threading.Lock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="distkeras-queue", daemon=True)
        self._recover()

    def start(self) -> None:
        """Begin to run jobs."""
        self._thread.start()

    def submit(self, request: JobRequest, archive: Path) -> Job:
        """Add a job to the queue.

        Args:
            request: what is asked for.
            archive: the project; the file is moved into the job's folder.

        Raises:
            QueueFullError: as many jobs wait as may.
            PackError: the archive is not as it must be, or has no such entry.
        """
        staged = JobFolder(self._home.new_folder())
        try:
            unpack(archive, staged.work, max_bytes=self._limits.unpacked_bytes)
            if not is_file_of(staged.work, request.entry):
                raise PackError(
                    f"Expected an entry that is in the archive. Received: entry={request.entry!r}"
                )
            job = Job(
                id=staged.id,
                name=request.name,
                entry=request.entry,
                arguments=request.arguments,
                sha256=request.sha256,
                num_bytes=archive.stat().st_size,
                submitted=time.time(),
            )
            with self._adding:
                self.check_room()
                folder = self.folder(job.id)
                staged.path.rename(folder.path)
                archive.rename(folder.archive)
                # The paths of the job are known only now.
                command, variables = (
                    self._commands.command(request, folder),
                    self._commands.environment(request, folder),
                )
                limits = self._limits
                folder.write(ORDER, asdict(Order(command, variables, limits.log_bytes, limits.grace)))
                self._store.add(job)
        finally:
            shutil.rmtree(staged.path, ignore_errors=True)
        self._wake.set()
        return job

    def check_room(self) -> None:
        """Check that one more job may wait.

        Raises:
            QueueFullError: it may not.
        """
        waiting = len(self._store.jobs(["queued"]))
        if waiting >= self._limits.queued:
            raise QueueFullError(
                f"Expected a queue with room: try again later. Received: {waiting} jobs wait"
            )

    def jobs(self) -> list[Job]:
        """Return all jobs, the newest last."""
        return self._store.jobs()

    def job(self, job: str) -> Job:
        """Return a job.

        Raises:
            UnknownJobError: there is none of this id.
        """
        found = self._store.job(job)
        if found is None:
            raise UnknownJobError(job)
        return found

    def folder(self, job: str) -> JobFolder:
        """Return the folder of a job."""
        return JobFolder(self._home.jobs / job)

    def log(self, job: str, offset: int, tail: int | None = None) -> tuple[Piece, Job]:
        """Return a piece of a job's log, and the job.

        Args:
            job: id of the job.
            offset: where the piece begins, in bytes.
            tail: for `offset=0`: begin so many bytes before the end.

        Raises:
            UnknownJobError: there is none of this id.
        """
        found = self.job(job)  # Before the log: when it has ended, its log is whole.
        path = self.folder(job).log
        if offset == 0 and tail is not None and path.exists():
            offset = max(0, path.stat().st_size - tail)
        return read_piece(path, offset, is_whole=found.has_ended), found

    def stop(self, job: str) -> Job:
        """Ask a job to end. One that waits is taken out of the queue; one that has ended stays as it is.

        Raises:
            UnknownJobError: there is none of this id.
        """
        now = time.time()
        if not self._store.change(job, ["queued"], state="stopped", ended=now, stop_asked=now):
            self.job(job)
            if self._store.change(job, ["running"], stop_asked=now):
                self.folder(job).write(STOP, {"asked": now})
        else:
            (self.folder(job).path / ORDER).unlink(missing_ok=True)
        return self.job(job)

    def close(self) -> None:
        """End the queue. Jobs that run go on."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._store.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._look()
            self._wake.wait(EVERY)
            self._wake.clear()

    def _look(self) -> None:
        """Note what has ended, start what has a place, and remove what is too old."""
        running = self._store.jobs(["running"])
        places = self._limits.running
        for job in running:
            if self._is_over(job):
                self._settle(job)
            else:
                places -= 1
        if places > 0:
            for job in self._store.jobs(["queued"])[:places]:
                self._begin(job)
        for job in self._store.jobs(END_STATES)[: -self._limits.kept]:
            shutil.rmtree(self.folder(job.id).path, ignore_errors=True)
            self._store.remove(job.id)

    def _is_over(self, job: Job) -> bool:
        runner = self._runners.get(job.id)
        if runner is not None and runner.poll() is None:
            return False
        return not self.folder(job.id).is_held

    def _begin(self, job: Job) -> None:
        """Start the runner of a job. The job is noted as running before, so that nobody starts it twice."""
        if not self._store.change(job.id, ["queued"], state="running", began=time.time()):
            return  # It was stopped just now.
        try:
            self._runners[job.id] = start_runner(self.folder(job.id))
        except OSError as error:
            detail = f"The job cannot be started: {error}"
            self._store.change(job.id, ["running"], state="failed", ended=time.time(), detail=detail)

    def _settle(self, job: Job) -> None:
        """Note how a job has ended."""
        self._runners.pop(job.id, None)
        folder = self.folder(job.id)
        end = folder.read(ENDED)
        if end is None:
            # Its runner was killed. Whatever is left of the job has nobody who looks after it.
            kill_all(job.id)
            state: State = "stopped" if folder.has(STOP) else "failed"
            said = (
                folder.errors.read_text(errors="replace").strip().splitlines()
                if folder.errors.exists()
                else []
            )
            detail = said[-1] if said else "The process that looked after the job was killed, with the job."
            self._store.change(job.id, ["running"], state=state, ended=time.time(), detail=detail)
            return
        state = "stopped" if end["stopped"] else "succeeded" if end["exit_code"] == 0 else "failed"
        values = {name: end[name] for name in ("began", "ended", "exit_code", "detail")}
        self._store.change(job.id, ["running"], state=state, **values)

    def _recover(self) -> None:
        """Find what an earlier server has left: jobs that it had noted and not begun wait again."""
        known = {job.id for job in self._store.jobs()}
        for path in self._home.jobs.iterdir():
            if path.name not in known:  # The server was killed before it could note the job.
                shutil.rmtree(path, ignore_errors=True)
        for job in self._store.jobs(["running"]):
            folder = self.folder(job.id)
            # A runner holds the folder from its birth, and notes its job before it begins it.
            if folder.is_held or folder.has(BEGUN):
                continue
            state: State = "stopped" if folder.has(STOP) else "queued"
            ended = time.time() if state == "stopped" else None
            self._store.change(job.id, ["running"], state=state, began=None, ended=ended)


def is_file_of(work: Path, name: str) -> bool:
    """Return whether there is a file of this name in the project, and not outside it."""
    path = work / name
    return ".." not in path.parts and not name.startswith("/") and path.is_file()


def start_runner(folder: JobFolder) -> subprocess.Popen[bytes]:
    """Start the process that looks after a job. It holds the folder's lock from its birth.

    Raises:
        OSError: it cannot be started, or another runner holds the folder.
    """
    lock = folder.hold()
    try:
        with open(folder.errors, "wb") as errors:
            return subprocess.Popen(
                # Without -P, modules that lie in the present folder would take the place of others.
                [sys.executable, "-P", "-m", "distkeras.jobs.server.runner", str(folder.path)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=(lock,),
                env=unmarked(),
                # Ctrl-C in the server's terminal ends the server, not its jobs.
                start_new_session=True,
            )
    finally:
        os.close(lock)
