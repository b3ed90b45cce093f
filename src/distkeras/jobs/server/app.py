"""The application of a job server: the queue as JSON and streams, its page, and the page of runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from distkeras import __version__
from distkeras.jobs.engine import JobError
from distkeras.jobs.pack import PackError
from distkeras.jobs.server.home import Home
from distkeras.jobs.server.limits import Limits
from distkeras.jobs.server.queue import Queue, QueueFullError, UnknownJobError
from distkeras.jobs.server.request import RequestError
from distkeras.jobs.server.store import Job
from distkeras.jobs.server.uploads import TooLargeError, received
from distkeras.monitor.dashboard.app import Page
from distkeras.monitor.dashboard.catalogue import Catalogue
from distkeras.web.answers import News, answered, streamed, told
from distkeras.web.guard import Access, App, Guard

STATIC = Path(__file__).parent / "static"
EVERY = 0.3
"""Seconds between two looks at a log that is followed."""
_OFFSET = re.compile(r"\d{1,15}")


class JobServer:
    """Answers requests for jobs.

    Args:
        home: the server's folder.
        queue: its jobs.
        limits: what is allowed.
        catalogue: the runs that the page of runs shows; those in the folders of jobs are added.
    """

    def __init__(self, home: Home, queue: Queue, limits: Limits, catalogue: Catalogue) -> None:
        self._home, self._queue, self._limits = home, queue, limits
        self._catalogue = catalogue
        for job in queue.jobs():
            self._show_runs_of(job)

    def app(self, access: Access) -> App:
        """Return the application, with a guard before it."""
        routes = [
            Route("/", lambda request: FileResponse(STATIC / "index.html")),
            Route("/api/jobs", self._jobs, methods=["GET"]),
            Route("/api/jobs", self._submit, methods=["POST"]),
            Route("/api/jobs/{job}", self._job),
            Route("/api/jobs/{job}/logs", self._logs),
            Route("/api/jobs/{job}/logs/stream", self._stream),
            Route("/api/jobs/{job}/stop", self._stop, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
            Mount("/runs", Page(self._catalogue).part()),
        ]
        handlers: Any = {HTTPException: told, **dict.fromkeys(STATUS, refused)}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), access, pages=("/", "/runs/"))

    async def _jobs(self, request: Request) -> Response:
        jobs = await run_in_threadpool(self._queue.jobs)
        places = {"running": self._limits.running, "queued": self._limits.queued}
        return answered({"jobs": jobs, "limits": places, "version": __version__})

    async def _submit(self, request: Request) -> Response:
        await run_in_threadpool(self._queue.check_room)
        archive = self._home.new_file()
        try:
            upload = await received(request, archive, self._limits.upload_bytes)
            job = await run_in_threadpool(self._queue.submit, upload.request, upload.archive)
        finally:
            archive.unlink(missing_ok=True)
        self._show_runs_of(job)
        return answered(job, 201)

    async def _job(self, request: Request) -> Response:
        job = await run_in_threadpool(self._queue.job, request.path_params["job"])
        return answered({"job": job, "runs": await run_in_threadpool(self._runs_of, job)})

    async def _logs(self, request: Request) -> Response:
        look = self._looker(request)
        news = await run_in_threadpool(look, request.query_params.get("cursor", ""))
        return answered(news.value)

    async def _stream(self, request: Request) -> Response:
        """Send the log as it grows, until the job has ended; the ids of the events are offsets."""
        await run_in_threadpool(self._queue.job, request.path_params["job"])
        return streamed(request, self._looker(request), EVERY)

    async def _stop(self, request: Request) -> Response:
        return answered(await run_in_threadpool(self._queue.stop, request.path_params["job"]))

    def _looker(self, request: Request) -> Callable[[str], News]:
        """Return what looks at a job's log, given the offset as text.

        Raises:
            HTTPException: 400, an offset is not a number.
        """
        job, query = request.path_params["job"], request.query_params
        tail = _offset(query["tail"]) if "tail" in query else None
        for cursor in (request.headers.get("last-event-id", ""), query.get("cursor", "")):
            _offset(cursor)

        def look(cursor: str) -> News:
            offset = _offset(cursor)
            piece, found = self._queue.log(job, offset, tail if cursor == "" else None)
            is_last = found.has_ended and piece.text == ""
            value = {"cursor": str(piece.end), "start": piece.start, "text": piece.text, "job": found}
            return News(str(piece.end), value, found, is_last)

        return look

    def _show_runs_of(self, job: Job) -> None:
        self._catalogue.add(str(self._queue.folder(job.id).work), must_have=False)

    def _runs_of(self, job: Job) -> list[dict[str, Any]]:
        """Return the runs in the folder of a job, as the table of runs shows them."""
        if job.began is None:
            return []
        work = str(self._queue.folder(job.id).work)
        return [row for row in self._catalogue.runs()["runs"] if f"{row['id']}/".startswith(f"{work}/")]


STATUS = {
    RequestError: 400,
    PackError: 400,
    UnknownJobError: 404,
    TooLargeError: 413,
    JobError: 409,
    QueueFullError: 429,
    OSError: 507,
}
"""Statuses of the answers to what the queue refuses."""


async def refused(request: Request, error: Exception) -> Response:
    """Return the answer to a request that is refused."""
    said = (
        f"There is no job of this id: {error.args[0]}" if isinstance(error, UnknownJobError) else str(error)
    )
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    return answered({"error": said}, status)


def _offset(text: str) -> int:
    if text and not _OFFSET.fullmatch(text):
        raise HTTPException(400, f"Expected an offset in bytes. Received: {text[:80]!r}")
    return int(text or 0)
