"""Scripts that run on a Spark: submitted in client mode, or as clients of Spark Connect."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from connect_server import ConnectServer, pure_client
from running import HERE, Host, Program
from standalone import SPARK_HOME, Standalone, spark_submit


@dataclass
class Submitted:
    """A script that runs, or has run."""

    program: Program
    cluster: Standalone | None = None

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.program.output

    def wait(self, seconds: float) -> int:
        """Wait for its end, and return its exit code; fail with all logs after `seconds`."""
        try:
            return self.program.wait(seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._logs()}") from None

    def succeeded(self, seconds: float) -> str:
        """Wait for its end; fail with all logs unless its exit code is 0; return the output."""
        if code := self.wait(seconds):
            raise AssertionError(f"It ended with {code}.\n{self.program.tail()}\n{self._logs()}")
        return self.output

    def _logs(self) -> str:
        return self.cluster.logs() if self.cluster else ""


def submitted(
    script: Path,
    *arguments: object,
    to: Standalone | ConnectServer | str,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    host: Host = HERE,
    environment: Mapping[str, str | None] | None = None,
) -> Submitted:
    """Start a script on a Spark.

    Args:
        script: the script, which takes its session from the environment.
        arguments: its arguments.
        to: a `Standalone` or the address of a master: it is submitted in client mode. Or a `ConnectServer`:
            it runs as a pure client, without py4j and Java.
        folder: gets its output.
        settings: Spark settings, for `spark-submit` alone.
        host: where it runs.
        environment: further variables; None removes one.
    """
    variables: dict[str, str | None] = {"SPARK_LOCAL_IP": host.address}
    if isinstance(to, ConnectServer):
        variables |= pure_client(folder / "client", to.url)
        command: list[str | Path] = [sys.executable]
    else:
        url, own = (to, {}) if isinstance(to, str) else (to.url, to.settings)
        variables["SPARK_HOME"] = str(SPARK_HOME)
        command = spark_submit(url, {**own, **(settings or {})}, host)
    program = Program(
        [*command, script, *map(str, arguments)],
        folder / "output",
        host=host,
        environment=variables | dict(environment or {}),
    )
    return Submitted(program, to if isinstance(to, Standalone) else None)
