"""How the server of a page answers: JSON, errors as JSON, and streams that survive lost connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

COMMENT_SECONDS = 15.0
"""Seconds after which an idle stream says something, so that no proxy takes it for dead."""

_JSON = msgspec.json.Encoder()


@dataclass(frozen=True)
class News:
    """What a reader has not seen.

    Attributes:
        cursor: where the reader then is; the id of the event.
        value: what is sent, as JSON.
        state: what may change without a new cursor.
        is_last: whether nothing more will come.
    """

    cursor: str
    value: Any
    state: Any = None
    is_last: bool = False


def answered(value: Any, status: int = 200) -> Response:
    """Return an answer in JSON, which nobody may keep."""
    headers = {"cache-control": "no-store"}
    return Response(_JSON.encode(value), status, headers, media_type="application/json")


async def told(request: Request, error: Exception) -> Response:
    """Return the answer to a request that failed; a handler of Starlette's."""
    if not isinstance(error, HTTPException):
        raise error
    return answered({"error": error.detail}, error.status_code)


def streamed(request: Request, look: Callable[[str], News], every: float) -> Response:
    """Return server-sent events, whose ids are cursors.

    A reader that comes back with `Last-Event-ID`, or `cursor` in the query, gets what it has not seen.

    Args:
        request: the request.
        look: returns what a reader at a cursor has not seen; called in a thread, "" at first.
        every: seconds between two looks.
    """
    cursor = request.headers.get("last-event-id") or request.query_params.get("cursor", "")
    # Nginx would hold the events back, and other proxies compress and so collect them.
    headers = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
    return StreamingResponse(_events(look, cursor, every), headers=headers, media_type="text/event-stream")


async def _events(look: Callable[[str], News], cursor: str, every: float) -> AsyncIterator[bytes]:
    before, said = b"", time.monotonic()
    while True:  # Until the page is closed: the server then cancels this.
        news = await run_in_threadpool(look, cursor)
        state = _JSON.encode(news.state)
        if news.cursor != cursor or state != before or news.is_last:
            before, said, cursor = state, time.monotonic(), news.cursor
            yield b"id: %s\ndata: %s\n\n" % (cursor.encode(), _JSON.encode(news.value))
        elif time.monotonic() - said > COMMENT_SECONDS:
            said = time.monotonic()
            yield b": nothing new\n\n"
        if news.is_last:
            return
        await asyncio.sleep(every)
