"""A job server, as `distkeras serve` starts it: jobs go there by HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPException
from typing import IO, TypeVar, final
from urllib.parse import quote

import msgspec

from distkeras.jobs.engine import Engine, JobError, State, Status, Submission
from distkeras.jobs.engines.http import Service
from distkeras.jobs.profiles import Profile, ProfileError
from distkeras.jobs.server.request import MEDIA_TYPE, JobRequest, RequestError

JOBS = "/api/jobs"
PATIENCE = 60.0
"""Seconds in which a log that is followed looks for a server that is gone."""


class _Job(msgspec.Struct, frozen=True):
    """What the server tells of a job; further fields of a later release are left out."""

    id: str
    name: str
    state: State
    submitted: float
    began: float | None
    ended: float | None
    exit_code: int | None
    stop_asked: float | None
    detail: str

    def status(self) -> Status:
        is_ending = self.state == "running" and self.stop_asked is not None
        return Status(
            id=self.id,
            name=self.name,
            state=self.state,
            exit_code=self.exit_code,
            submitted=self.submitted,
            began=self.began,
            ended=self.ended,
            detail="it was asked to end" if is_ending else self.detail,
        )


class _Jobs(msgspec.Struct, frozen=True):
    jobs: list[_Job]


class _Found(msgspec.Struct, frozen=True):
    job: _Job


class _Piece(msgspec.Struct, frozen=True):
    cursor: str
    text: str
    job: _Job


@final
class Server:
    """Speaks to a job server.

    Args:
        profile: `url`, `token_file`, `ca_file`, `allow_http`, `python`, `conf` and `environment` count.

    Raises:
        ProfileError: there is no address or no token; others may read the token; it would travel without
            encryption to another machine; or the certificate to trust cannot be read.
    """

    def __init__(self, profile: Profile) -> None:
        if profile.token_file is None:
            raise ProfileError("Expected `token_file`, a file with the server's token. Received: none")
        self._profile, self._service = profile, Service(profile)

    def submit(self, submission: Submission) -> str:
        """Send a project to the server's queue, and return the job's id."""
        profile = self._profile
        request = JobRequest(
            entry=submission.entry,
            name=submission.name,
            sha256=submission.pack.sha256,
            arguments=tuple(submission.arguments),
            spark_conf={**profile.conf, **submission.spark_conf},
            environment={**profile.environment, **submission.environment},
            python=submission.python or profile.python,
        )
        try:
            line = request.line()
        except RequestError as error:
            raise JobError(str(error)) from error
        size = len(line) + os.path.getsize(submission.pack.path)
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(size)}
        with open(submission.pack.path, "rb") as archive:
            answer = self._ask("POST", JOBS, headers, _blocks(line, archive))
        return _read(answer, _Job).id

    def status(self, job: str) -> Status:
        """Return what is known of a job."""
        return _read(self._ask("GET", _path(job)), _Found).job.status()

    def logs(self, job: str, follow: bool) -> Iterator[str]:
        """Yield the log of a job; with `follow` until it ends, through lost connections."""
        if follow:
            yield from self._followed(f"{_path(job)}/logs/stream")
            return
        cursor = ""
        while True:
            piece = _read(self._ask("GET", f"{_path(job)}/logs", query={"cursor": cursor}), _Piece)
            if not piece.text:
                return
            cursor = piece.cursor
            yield piece.text

    def stop(self, job: str) -> None:
        """Ask a job to end. A training ends gracefully; what does not end by itself is killed."""
        self._ask("POST", f"{_path(job)}/stop")

    def jobs(self) -> list[Status]:
        """Return the jobs of the server, the newest last."""
        return [job.status() for job in _read(self._ask("GET", JOBS), _Jobs).jobs]

    def _followed(self, path: str) -> Iterator[str]:
        """Yield what a stream brings; a lost one goes on where it was."""
        cursor, lost = "", 0.0
        while True:
            try:
                with self._service.opened("GET", path, headers=_since(cursor)) as stream:
                    for piece in _events(stream):
                        cursor, lost = piece.cursor, 0.0
                        if piece.text:
                            yield piece.text
                        elif piece.job.ended is not None:
                            return
            except (OSError, HTTPException) as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > PATIENCE:
                    raise self._service.silent(error) from error
            time.sleep(0.5)

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> bytes:
        own = {"X-Distkeras": "command", **(headers or {})}
        try:
            with self._service.opened(method, path, query=query, body=body, headers=own) as answer:
                return answer.read()
        except (OSError, HTTPException) as error:
            raise self._service.silent(error) from error


def engine(profile: Profile) -> Engine:
    """Return the engine of a profile."""
    return Server(profile)


def _path(job: str) -> str:
    return f"{JOBS}/{quote(job, safe='')}"


def _since(cursor: str) -> dict[str, str]:
    return {"Last-Event-ID": cursor} if cursor else {}


def _blocks(line: bytes, archive: IO[bytes]) -> Iterator[bytes]:
    yield line
    while block := archive.read(1 << 16):
        yield block


def _events(stream: Iterable[bytes]) -> Iterator[_Piece]:
    """Yield the data of server-sent events; each is one line."""
    for line in stream:
        if line.startswith(b"data: "):
            yield _read(line.removeprefix(b"data: "), _Piece)


_Told = TypeVar("_Told")


def _read(answer: bytes, kind: type[_Told]) -> _Told:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise JobError(f"Expected the answer of a job server. Received: {answer[:80]!r}: {error}") from error
