"""A Spark Connect server, and a client that has neither py4j nor Java."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from running import HERE, Host, Program
from standalone import SPARK_HOME, spark_submit

SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
NOT_IN_THE_CLIENT = {"core", "jars", "bin", "sbin", "data", "examples", "licenses", "python", "__pycache__"}
"""What the package `pyspark-client` lacks of `pyspark`."""


class ConnectServer:
    """A Spark Connect server, for the duration of one `with` block.

    Args:
        folder: gets its log.
        master: the Spark that it uses, such as the address of a standalone master.
        host: where it runs.
        settings: Spark settings of its application.
        environment: variables of its process; None removes one.
    """

    def __init__(
        self,
        folder: Path,
        master: str = "local[2]",
        *,
        host: Host = HERE,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        own = {
            "spark.connect.grpc.binding.address": host.address,
            "spark.connect.grpc.binding.port": "0",
            "spark.sql.artifact.copyFromLocalToFs.allowDestLocal": "true",
            "spark.log.level": "INFO",  # It logs its port so.
            **(settings or {}),
        }
        self.program = Program(
            [*spark_submit(master, own, host), "--class", SERVER, "spark-internal"],
            folder / "connect.log",
            host=host,
            environment={
                "SPARK_HOME": str(SPARK_HOME),
                "SPARK_LOCAL_IP": host.address,
                "SPARK_DAEMON_MEMORY": "768m",  # It counts as a daemon, and is a driver.
                "PYSPARK_PYTHON": sys.executable,
                **(environment or {}),
            },
        )
        try:
            found = self.program.wait_for(r"Spark Connect server started at: \S+:(\d+)")
        except BaseException:
            self.program.end()
            raise
        self.url = f"sc://{host.address}:{found[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.end()


def pure_client(folder: Path, url: str) -> dict[str, str | None]:
    """Return the environment of a Python in which no JVM can start, as with `pip install pyspark-client`.

    Args:
        folder: gets a `pyspark` without its Java, and a `py4j` that cannot be imported.
        url: address of the Spark Connect server.
    """
    (folder / "pyspark").mkdir(parents=True, exist_ok=True)
    for entry in SPARK_HOME.iterdir():
        link = folder / "pyspark" / entry.name
        if entry.name not in NOT_IN_THE_CLIENT and not link.exists():
            link.symlink_to(entry)
    (folder / "py4j.py").write_text("raise ImportError('a pure client of Spark Connect has no py4j')\n")
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        "SPARK_REMOTE": url,
        "JAVA_HOME": "/nonexistent",
        "SPARK_HOME": None,
        "PATH": "/nonexistent",
    }
