"""A job server, as `distkeras serve` starts it: jobs go there by HTTP."""

from __future__ import annotations

import http.client
import os
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, TypeVar, final
from urllib.parse import quote, urlsplit

import msgspec

from distkeras.jobs.engine import JobError, State, Status, Submission
from distkeras.jobs.profiles import Profile, ProfileError, check_url, read_token
from distkeras.jobs.server.request import MEDIA_TYPE, JobRequest, RequestError

SECONDS = 60.0
"""Seconds without a byte after which a connection counts as lost; a stream says something every 15."""
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


class _Refusal(msgspec.Struct, frozen=True):
    error: str


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
        self._profile = profile
        url = check_url(profile.url, has_token=True, allow_http=profile.allow_http)
        if profile.token_file is None:
            raise ProfileError("Expected `token_file`, a file with the server's token. Received: none")
        self._token = read_token(profile.token_file)
        parts = urlsplit(url)
        self._url, self._host, self._port, self._prefix = url, parts.hostname or "", parts.port, parts.path
        self._tls = _trusting(profile.ca_file) if parts.scheme == "https" else None

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
            answer = self._ask("POST", "api/jobs", headers, _blocks(line, archive))
        return _read(answer, _Job).id

    def status(self, job: str) -> Status:
        """Return what is known of a job."""
        return _read(self._ask("GET", f"api/jobs/{quote(job, safe='')}"), _Found).job.status()

    def logs(self, job: str, follow: bool) -> Iterator[str]:
        """Yield the log of a job; with `follow` until it ends, through lost connections."""
        path, cursor = f"api/jobs/{quote(job, safe='')}/logs", ""
        if follow:
            yield from self._followed(f"{path}/stream")
            return
        while True:
            piece = _read(self._ask("GET", f"{path}?cursor={cursor}"), _Piece)
            if not piece.text:
                return
            cursor = piece.cursor
            yield piece.text

    def stop(self, job: str) -> None:
        """Ask a job to end. A training ends gracefully; what does not end by itself is killed."""
        self._ask("POST", f"api/jobs/{quote(job, safe='')}/stop")

    def jobs(self) -> list[Status]:
        """Return the jobs of the server, the newest last."""
        return [job.status() for job in _read(self._ask("GET", "api/jobs"), _Jobs).jobs]

    def _followed(self, path: str) -> Iterator[str]:
        """Yield what a stream brings; a lost one goes on where it was."""
        cursor, lost = "", 0.0
        while True:
            try:
                connection, response = self._open("GET", path, {"Last-Event-ID": cursor} if cursor else {})
                try:
                    for piece in _events(response):
                        cursor, lost = piece.cursor, 0.0
                        yield piece.text
                        if not piece.text and piece.job.ended is not None:
                            return
                finally:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > PATIENCE:
                    raise self._silent(error) from error
            time.sleep(0.5)

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> bytes:
        try:
            connection, response = self._open(method, path, headers or {}, body)
            try:
                return response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise self._silent(error) from error

    def _open(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask, and return the connection and an answer that is no refusal.

        Raises:
            JobError: the server refuses.
            OSError, HTTPException: there is no answer.
        """
        connection = self._connection()
        own = {"X-Distkeras-Token": self._token, "X-Distkeras": "command"}
        try:
            # A server that refuses an upload reads no further, and has said why.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, f"{self._prefix}/{path}", body, {**own, **headers})
            response = connection.getresponse()
            if response.status >= 400:
                raise JobError(f"The job server {self._url} refuses: {_reason(response)}")
        except BaseException:
            connection.close()
            raise
        return connection, response

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        return http.client.HTTPSConnection(self._host, self._port, timeout=SECONDS, context=self._tls)

    def _silent(self, error: Exception) -> JobError:
        return JobError(f"Expected an answer of the job server {self._url}. Received: {error!r}")


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if ca_file is not None:
            context.load_verify_locations(os.path.expanduser(ca_file))
    except OSError as error:
        raise ProfileError(
            f"Expected a certificate in PEM. Received: ca_file={ca_file!r}: {error}"
        ) from error
    return context


def _blocks(line: bytes, archive: IO[bytes]) -> Iterator[bytes]:
    yield line
    while block := archive.read(1 << 16):
        yield block


def _events(response: Iterable[bytes]) -> Iterator[_Piece]:
    """Yield the data of server-sent events; each is one line."""
    for line in response:
        if line.startswith(b"data: "):
            yield _read(line.removeprefix(b"data: "), _Piece)


_Told = TypeVar("_Told")


def _read(answer: bytes, kind: type[_Told]) -> _Told:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise JobError(f"Expected the answer of a job server. Received: {answer[:80]!r}: {error}") from error


def _reason(response: http.client.HTTPResponse) -> str:
    """Return why a server refuses; a proxy in between says nothing but its status."""
    body = response.read(65536)
    with suppress(msgspec.MsgspecError, UnicodeError):
        return msgspec.json.decode(body, type=_Refusal).error
    return f"{response.status} {response.reason}"
