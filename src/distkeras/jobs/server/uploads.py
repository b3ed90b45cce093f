"""Takes what a client sends to submit a job, and no more than is allowed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from distkeras.jobs.server.request import MAX_LINE, MEDIA_TYPE, JobRequest, RequestError, read_request


class TooLargeError(ValueError):
    """More was sent than is allowed."""


@dataclass(frozen=True)
class Upload:
    """What was sent.

    Attributes:
        request: what is asked for.
        archive: the project.
    """

    request: JobRequest
    archive: Path


async def received(request: Request, archive: Path, most: int) -> Upload:
    """Return what a client sends; the archive is written to a file while it comes.

    Args:
        request: a request whose body is a line of JSON, and then the archive.
        archive: the file.
        most: bytes of the archive. Nothing beyond them is read.

    Raises:
        RequestError: it is something else, or incomplete.
        TooLargeError: it is too large. It is refused at its first byte where its length is told.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != MEDIA_TYPE:
        raise RequestError(f"Expected content of type {MEDIA_TYPE}. Received: {kind!r}")
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > most + MAX_LINE:
        raise _too_large(most)
    line, digest, left = b"", hashlib.sha256(), most
    is_line = True
    with open(archive, "xb") as file:
        try:
            async for block in request.stream():
                if is_line:
                    line, found, block = (line + block).partition(b"\n")
                    if len(line) > MAX_LINE:
                        raise TooLargeError(
                            f"Expected a first line of at most {MAX_LINE:,} bytes. Received: more"
                        )
                    if not found:
                        continue
                    is_line = False
                left -= len(block)
                if left < 0:
                    raise _too_large(most)
                digest.update(block)
                file.write(block)
        except ClientDisconnect as error:
            raise RequestError("Expected a whole archive. Received: a connection that was cut") from error
    if is_line:
        raise RequestError("Expected a line of JSON, then an archive. Received: no end of the line")
    asked = read_request(line)
    if digest.hexdigest() != asked.sha256:
        raise RequestError(
            f"Expected the archive of which `sha256` is told: it was damaged. Received: {digest.hexdigest()}"
        )
    return Upload(asked, archive)


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"Expected an archive of at most {most:,} bytes. Received: more")
