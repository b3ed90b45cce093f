"""What a short task has found on its executor."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class ExecutorFacts:
    """What one task has found on its executor.

    Attributes:
        host: name of the machine.
        executor: Spark's id of the executor; "driver" where tasks run in the driver; empty if unknown.
        python: path of the interpreter.
        python_version: its version, such as "3.11".
        versions: versions of packages; empty for one that is not installed.
        missing: modules that are needed and missing.
        package: version, digest and folder of the distkeras there; empty if there is none.
        cores: processor cores that the process may use.
        memory: total and available bytes of memory; 0 if unknown.
        disk: free bytes of each of Spark's local folders; -1 for one that cannot be written.
        gpus: GPUs of the machine, and those that Spark gave the task.
        gpus_of_backend: GPUs that the backend sees, in a task that has imported Keras; else None.
        begin: time at which the task began, in seconds by the clock there.
        end: time at which it ended.
    """

    host: str
    executor: str
    python: str
    python_version: str
    versions: dict[str, str]
    missing: tuple[str, ...]
    package: tuple[str, str, str]
    cores: int
    memory: tuple[int, int]
    disk: dict[str, int]
    gpus: tuple[int, int]
    gpus_of_backend: int | None
    begin: float
    end: float

    @property
    def place(self) -> str:
        """The executor in a sentence."""
        named = self.executor not in ("", "driver")
        return f"executor {self.executor} on {self.host}" if named else f"the executor on {self.host}"


def facts_of(answer: str) -> ExecutorFacts:
    """Return the record of an answer of `executor_side.ask`."""
    fields = json.loads(answer)
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return ExecutorFacts(**(fields | lists))
