"""The application behind the page: its files, and the data of runs as JSON and as server-sent events."""

from __future__ import annotations

import threading
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
from distkeras.monitor.dashboard.catalogue import Catalogue
from distkeras.monitor.dashboard.exporting import MISSING, Exported
from distkeras.monitor.dashboard.following import Followed
from distkeras.monitor.prometheus import CONTENT_TYPE
from distkeras.runs.control_files import REQUESTS, ControlFiles
from distkeras.web.answers import News, answered, streamed, told
from distkeras.web.guard import Access, App, Guard

STATIC = Path(__file__).parent / "static"
MOST_FOLLOWED = 8
"""Runs that are held in memory. Of the others, the one that nobody has looked at for longest is dropped."""


class Page:
    """Answers the page's requests.

    Args:
        catalogue: the runs.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._exported = catalogue, Exported(catalogue)
        self._followed: dict[str, Followed] = {}
        self._lock = threading.Lock()

    def app(self, access: Access) -> App:
        """Return the application, with a guard before it."""
        return Guard(self.part(), access)

    def part(self) -> Starlette:
        """Return the application without a guard, as a part of a larger one that has its own."""
        routes = [
            Route("/", lambda request: FileResponse(STATIC / "index.html")),
            Route("/api/runs", self._runs),
            Route("/api/run", self._run),
            Route("/api/stream", self._stream),
            Route("/metrics", self._metrics),
            Route("/api/request", self._request, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        handlers = {HTTPException: told}
        return Starlette(routes=routes, exception_handlers=handlers)

    def read_ahead(self) -> None:
        """Read the run, if there is one alone, before a browser asks: a long one takes a second."""
        runs = self._catalogue.runs()["runs"]
        if len(runs) == 1:
            self._follow(runs[0]["id"]).since("")

    async def _runs(self, request: Request) -> Response:
        return answered({**await run_in_threadpool(self._catalogue.runs), "version": __version__})

    async def _run(self, request: Request) -> Response:
        answer = self._answerer(request)
        return answered(await run_in_threadpool(answer, request.query_params.get("cursor", "")))

    async def _stream(self, request: Request) -> Response:
        """Send what is new, as server-sent events whose ids are cursors."""
        followed = await run_in_threadpool(self._follow, request.query_params.get("id", ""))

        def look(cursor: str) -> News:
            answer = followed.since(cursor)
            return News(answer["cursor"], answer, _state(answer))

        return streamed(request, look, followed.every)

    async def _request(self, request: Request) -> Response:
        """Ask the driver of a run to stop, or for a checkpoint."""
        name, what = request.query_params.get("id", ""), request.query_params.get("what", "")
        if what not in REQUESTS:
            raise HTTPException(404, f"Expected what={' or '.join(REQUESTS)}. Received: what={what!r}")
        followed = await run_in_threadpool(self._follow, name)
        try:
            await run_in_threadpool(ControlFiles(followed.folder).ask, what, "a button of the page")
        except OSError as error:
            raise HTTPException(409, f"The run cannot be written to: {error}") from error
        return answered({"asked": what})

    async def _metrics(self, request: Request) -> Response:
        if not Exported.is_possible():
            raise HTTPException(501, MISSING)
        return Response(await run_in_threadpool(self._exported.text), media_type=CONTENT_TYPE)

    def _answerer(self, request: Request) -> Callable[[str], dict[str, Any]]:
        name = request.query_params.get("id", "")
        return lambda cursor: self._follow(name).since(cursor)

    def _follow(self, name: str) -> Followed:
        """Return the run of that name, which is then held in memory.

        Raises:
            HTTPException: 404, there is no such run.
        """
        folder = self._catalogue.folder(name)
        if folder is None:
            raise HTTPException(404, f"There is no run of that name in the folders that were given: {name}")
        with self._lock:
            if name not in self._followed:
                while len(self._followed) >= MOST_FOLLOWED:
                    del self._followed[min(self._followed, key=lambda each: self._followed[each].used)]
                self._followed[name] = Followed(folder)
            return self._followed[name]


def _state(answer: dict[str, Any]) -> list[Any]:
    """Return what may change without a new cursor."""
    return [answer["about"], answer.get("asked"), answer.get("head", {}).get("samples")]
