"""A standalone cluster of Spark: a master and workers, each a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psutil
import pyspark
from running import HERE, TAIL, Host, Program

SPARK_HOME = Path(pyspark.__file__).parent

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "512m",
    "spark.executor.memory": "1g",
    # Two executors of one core, on a worker each.
    "spark.executor.cores": "1",
    "spark.cores.max": "2",
    "spark.sql.shuffle.partitions": "2",
    "spark.log.level": "WARN",
}
"""Settings of every application, unless a test says otherwise."""


class Standalone:
    """A master and its workers, for the duration of one `with` block.

    Args:
        folder: gets logs, and the workers' folders of applications.
        master_on: host of the master.
        workers_on: hosts of the workers, one for each.
        cores: cores that each worker offers: of tasks, not of the machine.
        memory: memory that each worker offers.
        settings: Spark settings of master and workers, and of every application.
        environment: variables of the workers, which their executors inherit; None removes one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        master_on: Host = HERE,
        workers_on: tuple[Host, ...] = (HERE, HERE),
        cores: int = 2,
        memory: str = "4g",
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self.folder, self.settings = folder, dict(settings or {})
        self._offer = ("--cores", str(cores), "--memory", memory)
        self._environment = {"SPARK_HOME": str(SPARK_HOME), **(environment or {})}
        self._properties = folder / "spark.properties"
        self._properties.write_text("".join(f"{name} {value}\n" for name, value in self.settings.items()))
        self._stack = ExitStack()
        self.workers: list[Program] = []
        with self._stack:
            self.master = self._daemon("master", master_on, ("master.Master",))
            self.url = self.master.wait_for(r"Starting Spark master at (spark://\S+)")[1]
            for number, host in enumerate(workers_on):
                self.start_worker(host, f"worker-{number}")
            for worker in self.workers:
                worker.wait_for("Successfully registered with master")
            self._stack = self._stack.pop_all()

    def start_worker(self, host: Host, name: str) -> Program:
        """Start a worker, which registers with the master a few seconds later."""
        command = ("worker.Worker", "--work-dir", str(self.folder / name), *self._offer, self.url)
        worker = self._daemon(name, host, command)
        self.workers.append(worker)
        return worker

    def executors(self, worker: Program | None = None) -> list[psutil.Process]:
        """The JVMs of executors that run now, of all workers or of one."""
        return [
            process
            for daemon in ([worker] if worker else self.workers)
            if daemon.process.poll() is None
            for process in psutil.Process(daemon.pid).children(recursive=True)
            if "CoarseGrainedExecutorBackend" in " ".join(_command_of(process))
        ]

    def logs(self) -> str:
        """The ends of the logs of master, workers and all executors, for a message."""
        executors = sorted(self.folder.glob("worker-*/app-*/*/stderr"))
        of_executors = [f"{log}:\n{log.read_text(errors='replace')[-TAIL:]}" for log in executors[-4:]]
        return "\n".join([*(daemon.tail() for daemon in (self.master, *self.workers)), *of_executors])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _daemon(self, name: str, host: Host, command: tuple[str, ...]) -> Program:
        program, *options = command
        at = ("--host", host.name, "--port", "0", "--webui-port", "0", "--properties-file", self._properties)
        return self._stack.enter_context(
            Program(
                [SPARK_HOME / "bin" / "spark-class", f"org.apache.spark.deploy.{program}", *at, *options],
                self.folder / f"{name}.log",
                host=host,
                environment=self._environment | {"SPARK_LOCAL_IP": host.address},
            )
        )


def spark_submit(url: str, settings: Mapping[str, str], host: Host = HERE) -> list[str | Path]:
    """Return the command line of `spark-submit` in client mode, without the script."""
    given = {
        **SETTINGS,
        "spark.driver.host": host.name,
        "spark.driver.bindAddress": host.address,
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
        **settings,
    }
    options = [part for name, value in given.items() for part in ("--conf", f"{name}={value}")]
    return [SPARK_HOME / "bin" / "spark-submit", "--master", url, *options]


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
