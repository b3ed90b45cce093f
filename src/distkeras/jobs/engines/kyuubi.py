"""Apache Kyuubi: batches by its REST interface, from 1.10 on, which takes the project along."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from distkeras.jobs import launcher
from distkeras.jobs.engine import Engine, State, Status, Submission
from distkeras.jobs.engines.http import NotFound, Service
from distkeras.jobs.profiles import Profile

BATCHES = "/api/v1/batches"
EVERY = 1.0
"""Seconds between two looks at a log."""
LINES = 500
MOST_BATCHES = 100

_STATES: Mapping[str, State] = {
    "INITIALIZED": "queued",
    "PENDING": "queued",
    "RUNNING": "running",
    "COMPILED": "running",
    "FINISHED": "succeeded",
    "ERROR": "failed",
    "TIMEOUT": "failed",
    "CANCELED": "stopped",
    "CLOSED": "stopped",
}


@final
class Kyuubi:
    """Runs jobs as PySpark batches of a Kyuubi server.

    Args:
        profile: `url`, `token_file`, `user`, `ca_file`, `allow_http`, `master`, `deploy_mode`, `python` and
            `conf` count.

    Raises:
        ProfileError: the address or the token is not as it must be.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile, self._service = profile, Service(profile)

    def submit(self, submission: Submission) -> str:
        """Send the project and the launcher, and return the batch's id.

        The id is chosen here: a request that is sent again after a lost answer starts no second batch.
        """
        job = str(uuid.uuid4())
        request = {
            "batchType": "PYSPARK",
            "resource": "launcher.py",
            "name": submission.name,
            "conf": self._conf(submission) | {"kyuubi.batch.id": job},
            "args": [submission.entry, *submission.arguments],
            "extraResourcesMap": {"spark.submit.pyFiles": "project.zip"},
        }
        kind, body = multipart(
            {
                "batchRequest": ("application/json", None, json.dumps(request).encode()),
                "resourceFile": (
                    "text/x-python",
                    "launcher.py",
                    Path(launcher.__file__).read_bytes(),
                ),
                "project.zip": ("application/zip", "project.zip", submission.pack.path.read_bytes()),
            }
        )
        answer = self._service.request("POST", BATCHES, body=body, kind=kind)
        return str(answer["id"])

    def status(self, job: str) -> Status:
        """Return what Kyuubi says of a batch."""
        return _status(self._service.request("GET", f"{BATCHES}/{job}"))

    def logs(self, job: str, follow: bool) -> Iterator[str]:
        """Yield the log that Kyuubi keeps: of `spark-submit`, and in client mode of the driver."""
        at = 0
        while True:
            ended = self.status(job).state not in ("queued", "running")
            while lines := self._lines(job, at):
                at += len(lines)
                yield "".join(f"{line}\n" for line in lines)
            if ended or not follow:
                return
            time.sleep(EVERY)

    def stop(self, job: str) -> None:
        """Close the batch, which kills its application."""
        self._service.request("DELETE", f"{BATCHES}/{job}")

    def jobs(self) -> list[Status]:
        """Return the newest PySpark batches that this user may see, the newest last."""
        query = {"batchType": "PYSPARK", "from": 0, "size": MOST_BATCHES, "desc": "true"}
        found = [_status(batch) for batch in self._service.request("GET", BATCHES, query=query)["batches"]]
        return sorted(found, key=lambda status: status.submitted or 0.0)

    def _lines(self, job: str, at: int) -> list[str]:
        query = {"from": at, "size": LINES}
        try:
            return list(self._service.request("GET", f"{BATCHES}/{job}/localLog", query=query)["logRowSet"])
        except NotFound:
            if at:  # A batch that has ended has no log on some servers: what was read is what there is.
                return []
            raise

    def _conf(self, submission: Submission) -> dict[str, str]:
        profile = self._profile
        conf: dict[str, str] = {"spark.submit.deployMode": profile.deploy_mode}
        if profile.master is not None:
            conf["spark.master"] = profile.master
        if (python := submission.python or profile.python) is not None:
            conf["spark.pyspark.python"] = python
        for name, value in {**profile.environment, **submission.environment}.items():
            conf[f"spark.yarn.appMasterEnv.{name}"] = value
            conf[f"spark.kubernetes.driverEnv.{name}"] = value
        return conf | profile.conf | dict(submission.spark_conf)


def engine(profile: Profile) -> Engine:
    """Return the engine of a profile; raises what `Kyuubi` raises."""
    return Kyuubi(profile)


def _status(batch: Mapping[str, Any]) -> Status:
    ended, began = batch.get("endTime") or 0, batch.get("appStartTime") or 0
    state = _STATES.get(str(batch.get("state")), "unknown")
    if state == "succeeded" and batch.get("appState") in ("FAILED", "KILLED"):
        state = "failed" if batch["appState"] == "FAILED" else "stopped"
    return Status(
        id=str(batch["id"]),
        name=str(batch.get("name") or ""),
        state=state,
        submitted=batch["createTime"] / 1000 if batch.get("createTime") else None,
        began=began / 1000 if began > 0 else None,
        ended=ended / 1000 if ended > 0 else None,
        application=batch.get("appId"),
        detail=str(batch.get("appDiagnostic") or ""),
    )


def multipart(parts: Mapping[str, tuple[str, str | None, bytes]]) -> tuple[str, bytes]:
    """Return the content type and the body of a form.

    Args:
        parts: by name the type, the name of the file or `None`, and the content.
    """
    boundary = uuid.uuid4().hex
    body = b""
    for name, (kind, file, content) in parts.items():
        file_name = "" if file is None else f'; filename="{file}"'
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file_name}\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )
        body += head.encode() + content + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()
