"""What a client sends to submit a job: a line of JSON, then the archive of the project."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MEDIA_TYPE = "application/x-distkeras-job"
MAX_LINE = 256 * 1024
"""Most bytes of the line. The system allows arguments and environment of a process about as much."""

# A process gets its arguments as C strings, which end at a zero.
Text = Annotated[str, Meta(pattern=r"\A[^\x00]*\Z", max_length=65536)]
Name = Annotated[str, Meta(pattern=r"\A[^\x00\n]+\Z", max_length=200)]
Entry = Annotated[str, Meta(pattern=r"\A[^\x00]+\.(py|toml)\Z", max_length=1024)]
Variable = Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z", max_length=200)]
Setting = Annotated[str, Meta(pattern=r"\A[^\x00=\s]+\Z", max_length=500)]
Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class RequestError(ValueError):
    """The line is not as it must be. The message names the place."""


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job that a client asks for; the fields are those of `distkeras.jobs.Submission`.

    Attributes:
        entry: the file of the project to run: a Python script or a job file.
        name: name of the job, for people.
        sha256: hash of the archive that follows.
        arguments: arguments of the entry.
        spark_conf: Spark settings.
        environment: variables of the driver's environment.
        python: the Python of driver and executors; `None` for the server's own.
    """

    entry: Entry
    name: Name
    sha256: Digest
    arguments: tuple[Text, ...] = ()
    spark_conf: dict[Setting, Text] = {}
    environment: dict[Variable, Text] = {}
    python: Text | None = None

    def line(self) -> bytes:
        """Return the line of JSON, with its end.

        Raises:
            RequestError: it is too long.
        """
        line = msgspec.json.encode(self) + b"\n"
        if len(line) > MAX_LINE:
            raise RequestError(
                f"Expected arguments, settings and environment of at most {MAX_LINE:,} bytes. "
                f"Received: {len(line):,} bytes"
            )
        return line


def read_request(line: bytes) -> JobRequest:
    """Return what a line asks for.

    Raises:
        RequestError: the line is not as it must be.
    """
    try:
        return msgspec.json.decode(line, type=JobRequest)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RequestError(f"Expected a line of JSON that asks for a job. Received: {error}") from error
