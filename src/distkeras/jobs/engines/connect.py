"""Spark Connect: the driver is a process of this machine, the workers are on the server's cluster."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from distkeras.jobs.engine import Engine, Submission
from distkeras.jobs.engines.processes import Processes, Start
from distkeras.jobs.profiles import Profile, ProfileError


def engine(profile: Profile, grace: float = 60.0) -> Engine:
    """Return the engine that runs drivers here, under a supervisor, as clients of a Spark Connect server.

    Args:
        profile: `url`, `python` and `environment` count.
        grace: seconds that a job has to end by itself.

    Raises:
        ProfileError: there is no address of a server.
    """
    if profile.url is None or not profile.url.startswith("sc://"):
        raise ProfileError(
            "Expected the address of a Spark Connect server, such as sc://host:15002. "
            f"Received: url={profile.url!r}"
        )
    return Processes("connect", partial(_start_of, profile, profile.url), grace)


def _start_of(profile: Profile, url: str, submission: Submission, folder: Path) -> Start:
    if settings := {**profile.conf, **submission.spark_conf}:
        raise ProfileError(
            f"Expected no settings: the server of Spark Connect has its own. Received: conf={settings}"
        )
    python = submission.python or profile.python or sys.executable
    command = (python, str(folder / "launcher.py"), submission.entry, *submission.arguments)
    environment = {**profile.environment, **submission.environment, "SPARK_REMOTE": url}
    return Start(command, environment)
