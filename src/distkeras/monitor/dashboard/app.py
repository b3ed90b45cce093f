"""The application behind the page: its files, and the data of runs as JSON and as server-sent events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from distkeras import __version__
from distkeras.monitor.dashboard.catalogue import Catalogue
from distkeras.monitor.dashboard.exporting import MISSING, Exported
from distkeras.monitor.dashboard.following import Followed
from distkeras.monitor.dashboard.guard import Access, App, Guard
from distkeras.monitor.prometheus import CONTENT_TYPE
from distkeras.runs.control_files import REQUESTS, ControlFiles

STATIC = Path(__file__).parent / "static"
MOST_FOLLOWED = 8
"""Runs that are held in memory. Of the others, the one that nobody has looked at for longest is dropped."""
COMMENT_SECONDS = 15.0
"""Seconds after which an idle stream says something, so that no proxy takes it for dead."""

_JSON = msgspec.json.Encoder()


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
        """Return the application."""
        routes = [
            Route("/", lambda request: FileResponse(STATIC / "index.html")),
            Route("/api/runs", self._runs),
            Route("/api/run", self._run),
            Route("/api/stream", self._stream),
            Route("/metrics", self._metrics),
            Route("/api/request", self._request, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        handlers = {HTTPException: _told}
        return Guard(Starlette(routes=routes, exception_handlers=handlers), access)

    def read_ahead(self) -> None:
        """Read the run, if there is one alone, before a browser asks: a long one takes a second."""
        runs = self._catalogue.runs()["runs"]
        if len(runs) == 1:
            self._follow(runs[0]["id"]).since("")

    async def _runs(self, request: Request) -> Response:
        return _answered({**await run_in_threadpool(self._catalogue.runs), "version": __version__})

    async def _run(self, request: Request) -> Response:
        answer = self._answerer(request)
        return _answered(await run_in_threadpool(answer, request.query_params.get("cursor", "")))

    async def _stream(self, request: Request) -> Response:
        """Send what is new, as server-sent events whose ids are cursors."""
        cursor = request.headers.get("last-event-id") or request.query_params.get("cursor", "")
        followed = await run_in_threadpool(self._follow, request.query_params.get("id", ""))
        # Nginx would hold the events back, and other proxies compress and so collect them.
        headers = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
        events = self._events(followed, cursor)
        return StreamingResponse(events, headers=headers, media_type="text/event-stream")

    async def _events(self, followed: Followed, cursor: str) -> AsyncIterator[bytes]:
        before, said = b"", time.monotonic()
        while True:  # Until the page is closed: the server then cancels this.
            answer = await run_in_threadpool(followed.since, cursor)
            state = _state(answer)
            if answer["cursor"] != cursor or state != before:
                before, said, cursor = state, time.monotonic(), answer["cursor"]
                yield b"id: %s\ndata: %s\n\n" % (cursor.encode(), _JSON.encode(answer))
            elif time.monotonic() - said > COMMENT_SECONDS:
                said = time.monotonic()
                yield b": nothing new\n\n"
            await asyncio.sleep(followed.every)

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
        return _answered({"asked": what})

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


def _state(answer: dict[str, Any]) -> bytes:
    """Return what may change without a new cursor."""
    return _JSON.encode([answer["about"], answer.get("asked"), answer.get("head", {}).get("samples")])


def _answered(value: Any, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(_JSON.encode(value), status, headers, media_type="application/json")


async def _told(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _answered({"error": error.detail}, error.status_code)
