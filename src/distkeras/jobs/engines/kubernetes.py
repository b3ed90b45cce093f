"""Kubernetes: a SparkApplication for the operator of Kubeflow, by `kubectl`."""

from __future__ import annotations

import base64
import json
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from distkeras.jobs import launcher
from distkeras.jobs.engine import ENDED, Engine, JobError, State, Status, Submission
from distkeras.jobs.profiles import Profile, ProfileError

KIND = "sparkapplications.sparkoperator.k8s.io"
LABEL = "app.kubernetes.io/managed-by"
MOUNT = "/opt/distkeras/job"
MOST_BYTES = 1_000_000
"""Largest project, in bytes: it travels in a ConfigMap, which holds 1 MiB."""

_STATES: Mapping[str, State] = {
    "": "queued",
    "SUBMITTED": "queued",
    "PENDING_RERUN": "queued",
    "INVALIDATING": "queued",
    "RESUMING": "queued",
    "RUNNING": "running",
    "SUCCEEDING": "running",
    "FAILING": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "SUBMISSION_FAILED": "failed",
    "SUSPENDING": "stopped",
    "SUSPENDED": "stopped",
}


@final
class Kubernetes:
    """Runs jobs as SparkApplications. The project travels in a ConfigMap.

    Args:
        profile: `image`, `namespace`, `context`, `service_account`, `executors`, `cores`, `memory`, `python`,
            `conf` and `environment` count.

    Raises:
        ProfileError: there is no image.
    """

    def __init__(self, profile: Profile) -> None:
        if profile.image is None:
            raise ProfileError(
                "Expected `image` in the profile: an image with Spark, Python and distkeras. Received: none"
            )
        self._profile = profile

    def submit(self, submission: Submission) -> str:
        """Create the objects of a job, and return their name."""
        if submission.pack.num_bytes > MOST_BYTES:
            raise JobError(
                f"Expected a packed project of at most {MOST_BYTES:,} bytes: it travels in a ConfigMap. "
                f"Put what is large into the image or a bucket. Received: {submission.pack.num_bytes:,} bytes"
            )
        name = _name(submission.name)
        self._kubectl("apply", "--server-side", "-f", "-", sent=manifest(name, submission, self._profile))
        # With the application its ConfigMap goes, too.
        owner = self._get(name)["metadata"]["uid"]
        reference = {"apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication"}
        reference |= {"name": name, "uid": owner}
        patch = json.dumps({"metadata": {"ownerReferences": [reference]}})
        self._kubectl("patch", "configmap", name, "--type", "merge", "--patch", patch)
        return name

    def status(self, job: str) -> Status:
        """Return what the operator says of a job."""
        return _status(self._get(job))

    def logs(self, job: str, follow: bool) -> Iterator[str]:
        """Yield the log of the driver's pod."""
        pod = self._get(job).get("status", {}).get("driverInfo", {}).get("podName")
        if not pod:
            raise JobError(
                f"Expected a job whose driver has begun. Received: {job}, {self.status(job).state}"
            )
        command = [*self._program(), "logs", pod, *(["--follow"] if follow else [])]
        # A file takes all of the errors; a full pipe would stop kubectl.
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                yield from process.stdout or ()
            except GeneratorExit:
                process.terminate()
                raise
            if process.wait():
                errors.seek(0)
                raise JobError(f"kubectl logs {pod}: {errors.read().strip()}")

    def stop(self, job: str) -> None:
        """Delete the application, and with it its pods and its ConfigMap. One that has ended stays."""
        if self.status(job).state not in ENDED:
            self._kubectl("delete", KIND, job, "--wait=false")

    def jobs(self) -> list[Status]:
        """Return the jobs of the namespace, the newest last."""
        found = json.loads(self._kubectl("get", KIND, "-l", f"{LABEL}=distkeras", "-o", "json"))
        return sorted((_status(each) for each in found["items"]), key=lambda each: each.submitted or 0.0)

    def _get(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._kubectl("get", KIND, job, "-o", "json"))
        return found

    def _program(self) -> list[str]:
        if (program := shutil.which("kubectl")) is None:
            raise JobError("Expected the program kubectl on the PATH. Received: none")
        context = [] if self._profile.context is None else ["--context", self._profile.context]
        return [program, *context, "--namespace", self._profile.namespace]

    def _kubectl(self, *arguments: str, sent: str | None = None) -> str:
        done = subprocess.run([*self._program(), *arguments], input=sent, capture_output=True, text=True)
        if done.returncode:
            raise JobError(f"kubectl {arguments[0]}: {done.stderr.strip() or done.returncode}")
        return done.stdout


def engine(profile: Profile) -> Engine:
    """Return the engine of a profile; raises what `Kubernetes` raises."""
    return Kubernetes(profile)


def manifest(name: str, submission: Submission, profile: Profile) -> str:
    """Return the YAML of a job: a ConfigMap with the project, and the application."""
    labels = {LABEL: "distkeras", "distkeras/sha256": submission.pack.sha256[:63]}
    project = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": profile.namespace, "labels": labels},
        "binaryData": {
            "launcher.py": _encoded(Path(launcher.__file__)),
            "project.zip": _encoded(submission.pack.path),
        },
    }
    return f"{yaml_of(project)}---\n{yaml_of(_application(name, labels, submission, profile))}"


def _application(
    name: str, labels: Mapping[str, str], submission: Submission, profile: Profile
) -> dict[str, Any]:
    python = submission.python or profile.python
    conf = {} if python is None else {"spark.pyspark.python": python}
    variables = {**profile.environment, **submission.environment}
    pod = {
        "memory": profile.memory,
        "volumeMounts": [{"name": "project", "mountPath": MOUNT}],
    }
    account = {} if profile.service_account is None else {"serviceAccount": profile.service_account}
    env = [{"name": key, "value": value} for key, value in variables.items()]
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": {"name": name, "namespace": profile.namespace, "labels": dict(labels)},
        "spec": {
            "type": "Python",
            "pythonVersion": "3",
            "mode": "cluster",
            "image": profile.image,
            "imagePullPolicy": "IfNotPresent",
            "sparkVersion": version("pyspark"),
            "mainApplicationFile": f"local://{MOUNT}/launcher.py",
            "arguments": [submission.entry, *submission.arguments],
            "deps": {"pyFiles": [f"local://{MOUNT}/project.zip"]},
            "sparkConf": {**conf, **profile.conf, **submission.spark_conf},
            "restartPolicy": {"type": "Never"},
            "volumes": [{"name": "project", "configMap": {"name": name}}],
            "driver": {"cores": 1, **pod, **account, "env": env},
            "executor": {"instances": profile.executors, "cores": profile.cores, **pod, "env": env},
        },
    }


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _name(name: str) -> str:
    """Return a new name as Kubernetes allows it: small letters, digits and hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "job"
    return f"distkeras-{plain}-{secrets.token_hex(3)}"


def _status(found: Mapping[str, Any]) -> Status:
    status = found.get("status") or {}
    state = (status.get("applicationState") or {}).get("state", "")
    return Status(
        id=found["metadata"]["name"],
        name=found["metadata"]["name"],
        state=_STATES.get(state, "unknown"),
        submitted=_seconds(found["metadata"].get("creationTimestamp")),
        began=_seconds(status.get("lastSubmissionAttemptTime")),
        ended=_seconds(status.get("terminationTime")),
        application=status.get("sparkApplicationId"),
        detail=(status.get("applicationState") or {}).get("errorMessage", ""),
    )


def _seconds(told: str | None) -> float | None:
    return None if not told else datetime.fromisoformat(told).timestamp()


def yaml_of(value: Any, depth: int = 0) -> str:
    """Return `value` as YAML: dicts and lists as blocks, everything else as JSON, which YAML includes."""
    pad = "  " * depth
    if isinstance(value, Mapping) and value:
        return "".join(f"{pad}{_key(key)}:{_below(each, depth)}" for key, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return "".join(f"{pad}-{_below(each, depth)}" for each in value)
    return f"{pad}{json.dumps(value)}\n"


def _key(key: str) -> str:
    """Return a key, in quotes where YAML may take it for something else, such as `on` and `null`."""
    plain = re.fullmatch(r"[a-z][A-Za-z]{2,}", key) and key not in ("true", "false", "null", "yes", "off")
    return key if plain else json.dumps(key)


def _below(value: Any, depth: int) -> str:
    if isinstance(value, Mapping | list) and value:
        return f"\n{yaml_of(value, depth + 1)}"
    return f" {json.dumps(value)}\n"
