"""What runs jobs: one small interface, whether the job runs here or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from distkeras.jobs.pack import Pack, PackError

State = Literal["queued", "running", "succeeded", "failed", "stopped", "unknown"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "stopped")


class JobError(RuntimeError):
    """An engine cannot do what it was asked: no such job, no answer, or a refusal. The message says which."""


@dataclass(frozen=True)
class Submission:
    """A job to run.

    Attributes:
        entry: a file of the pack: a Python script, or a job file (`.toml`) for `distkeras train`.
        arguments: arguments of the entry, as a list; no shell ever reads them.
        pack: the project.
        name: name of the job, for people.
        spark_conf: Spark settings of the job.
        environment: variables of the driver's environment.
        python: the Python of driver and executors on a cluster; `None` for what Spark is configured with.

    Raises:
        PackError: the entry is not in the pack, or is neither a script nor a job file.
    """

    entry: str
    arguments: tuple[str, ...]
    pack: Pack
    name: str
    spark_conf: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None

    def __post_init__(self) -> None:
        if self.entry not in self.pack.files:
            raise PackError(
                f"Expected an entry that is sent with the project: in a repository, add it with `git add`. "
                f"Received: entry={self.entry!r}"
            )
        if not self.entry.endswith((".py", ".toml")):
            raise PackError(
                "Expected a Python script (.py) or a job file (.toml) as the entry. "
                f"Received: entry={self.entry!r}"
            )


@dataclass(frozen=True)
class Status:
    """What an engine knows of a job.

    Attributes:
        id: the engine's id of the job.
        name: its name.
        state: "queued", "running", "succeeded", "failed", "stopped"; "unknown" if the engine cannot tell.
        exit_code: exit code of the driver, if it is known.
        submitted: seconds since 1970, like the times below; `None` if not known.
        began: when the driver began.
        ended: when it ended.
        application: Spark's id of the application, if it is known.
        detail: what else there is to say, such as why a job failed.
    """

    id: str
    name: str
    state: State
    exit_code: int | None = None
    submitted: float | None = None
    began: float | None = None
    ended: float | None = None
    application: str | None = None
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, plain JSON."""
        return asdict(self)


class Engine(Protocol):
    """Runs jobs. Every method raises `JobError` if the engine does not answer or knows no such job."""

    def submit(self, submission: Submission) -> str:
        """Start a job, or queue it, and return its id."""

    def status(self, job: str) -> Status:
        """Return what is known of a job."""

    def logs(self, job: str, follow: bool) -> Iterator[str]:
        """Yield the log of the driver, in pieces of text; with `follow`, until the job ends."""

    def stop(self, job: str) -> None:
        """Ask a job to end; returns when it is asked. A job that has ended stays as it is."""

    def jobs(self) -> list[Status]:
        """Return the jobs that the engine knows, the newest last."""
