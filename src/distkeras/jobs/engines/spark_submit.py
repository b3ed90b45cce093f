"""`spark-submit`: on this machine, on a standalone master, on YARN."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from distkeras.jobs import records
from distkeras.jobs.engine import Engine, JobError, Submission
from distkeras.jobs.engines.processes import Processes, Start
from distkeras.jobs.profiles import Profile, ProfileError


def engine(profile: Profile, grace: float = 60.0) -> Engine:
    """Return the engine that runs jobs by `spark-submit`, each under a supervisor on this machine.

    Args:
        profile: `master`, `deploy_mode`, `python`, `conf` and `environment` count.
        grace: seconds that a job has to end by itself.

    Raises:
        ProfileError: the master does not run Python drivers in this mode.
    """
    master = profile.master or "local[*]"
    if profile.deploy_mode == "cluster" and not master.startswith("yarn"):
        raise ProfileError(
            'Expected deploy_mode = "client": of the masters of `spark-submit`, only YARN runs Python '
            "drivers on the cluster. For Kubernetes there is the engine of that name. "
            f"Received: deploy_mode='cluster', master={master!r}"
        )
    return Processes("spark-submit", partial(_start_of, profile, master), grace)


def _start_of(profile: Profile, master: str, submission: Submission, folder: Path) -> Start:
    settings = _settings(profile, master, submission)
    records.write_whole(folder / "spark.properties", properties_of(settings).encode())
    on_cluster = profile.deploy_mode == "cluster"
    command = [
        *(spark_submit(), "--master", master, "--deploy-mode", profile.deploy_mode),
        *("--name", submission.name),
        # In a file: other users of this machine see command lines, and settings may hold keys.
        *("--properties-file", str(folder / "spark.properties"), "--load-spark-defaults"),
        *("--py-files", str(folder / "project.zip")),
        *(("--archives", f"{folder / 'project.zip'}#project") if on_cluster else ()),
        *(str(folder / "launcher.py"), submission.entry, *submission.arguments),
    ]
    kill = ("yarn", "application", "-kill") if on_cluster else ()
    return Start(tuple(command), {**profile.environment, **submission.environment}, kill)


def _settings(profile: Profile, master: str, submission: Submission) -> dict[str, str]:
    """Return the Spark settings of a job."""
    python = submission.python or profile.python
    settings: dict[str, str] = {}
    if python or master.startswith("local"):
        settings["spark.pyspark.python"] = python or sys.executable
    if profile.deploy_mode == "client":
        settings["spark.pyspark.driver.python"] = sys.executable
    settings |= {**profile.conf, **submission.spark_conf}
    if profile.deploy_mode == "cluster":
        variables = {**profile.environment, **submission.environment}
        settings |= {f"spark.yarn.appMasterEnv.{name}": value for name, value in variables.items()}
    return settings


def spark_submit() -> str:
    """Return the program `spark-submit`: of SPARK_HOME, else of the installed PySpark, else on the PATH.

    Raises:
        JobError: there is none.
    """
    found = importlib.util.find_spec("pyspark")
    homes = [os.environ.get("SPARK_HOME"), *(found.submodule_search_locations or () if found else ())]
    for home in homes:
        if home and (program := Path(home) / "bin" / "spark-submit").is_file():
            return str(program)
    if (on_path := shutil.which("spark-submit")) is not None:
        return on_path
    raise JobError("Expected the program spark-submit: install PySpark, or set SPARK_HOME. Received: none")


def properties_of(settings: Mapping[str, str]) -> str:
    """Return settings as a file of Java properties."""
    return "".join(f"{_escaped(name)}={_escaped(str(value))}\n" for name, value in settings.items())


def _escaped(text: str) -> str:
    """Return `text` with everything escaped that Java would read as something else."""
    text = re.sub(r"[\\=:#!]|^ ", lambda found: f"\\{found[0]}", text)
    text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    units = text.encode("utf-16-be")
    each = (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))
    return "".join(chr(unit) if 32 <= unit < 127 else f"\\u{unit:04x}" for unit in each)
