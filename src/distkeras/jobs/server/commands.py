"""The command of a job: `spark-submit` where there is a master or Spark has settings, else Python."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from distkeras.jobs import launcher
from distkeras.jobs.engines.spark_submit import properties_of, spark_submit
from distkeras.jobs.server.folders import JobFolder
from distkeras.jobs.server.request import JobRequest

LOCAL = "local[*]"


@dataclass(frozen=True)
class Commands:
    """Makes the commands of jobs. They are lists; no shell reads them.

    Attributes:
        master: address of Spark's master for all jobs; `None` for `local[*]`, in the job's own process.
    """

    master: str | None = None

    def command(self, request: JobRequest, folder: JobFolder) -> list[str]:
        """Return the command of a job; it may write files into the job's folder.

        Args:
            request: what is asked for.
            folder: the job's folder, with its project and its archive.

        Raises:
            JobError: there is no `spark-submit`.
        """
        entry = [launcher.__file__, request.entry, *request.arguments]
        if self.master is None and not request.spark_conf:
            return [request.python or sys.executable, *entry]
        settings = {"spark.pyspark.driver.python": sys.executable}
        if request.python or self._is_local:
            settings["spark.pyspark.python"] = request.python or sys.executable
        # In a file: other users of the machine see command lines.
        folder.properties.write_text(properties_of({**settings, **request.spark_conf}))
        return [
            *(spark_submit(), "--master", self.master or LOCAL, "--deploy-mode", "client"),
            *("--name", request.name, "--properties-file", str(folder.properties), "--load-spark-defaults"),
            *("--py-files", str(folder.archive)),
            *entry,
        ]

    def environment(self, request: JobRequest, folder: JobFolder) -> dict[str, str]:
        """Return the variables of a job, beside those of the server."""
        return {
            "PYTHONUNBUFFERED": "1",
            **request.environment,
            "DISTKERAS_PROJECT": str(folder.work),
        }

    @property
    def _is_local(self) -> bool:
        return (self.master or LOCAL).startswith("local")
