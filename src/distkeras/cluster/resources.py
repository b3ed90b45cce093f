"""What each worker of a training gets from Spark, where that differs from the application's settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql.utils import is_remote

from distkeras.cluster.settings import is_local
from distkeras.cluster.slots import registered_slots
from distkeras.worker.gpus import Sharing

if TYPE_CHECKING:
    from pyspark.resource import ExecutorResourceRequests, ResourceProfile
    from pyspark.sql import SparkSession

EXECUTORS = ("executor_cores", "executor_memory", "executor_overhead", "gpu_script", "gpu_vendor")
"""Attributes that ask for executors of their own."""

DYNAMIC = "spark.dynamicAllocation.enabled"


@dataclass(frozen=True)
class Resources:
    """Cores, memory and GPUs of a training's workers: Spark's stage-level scheduling.

    Data is prepared with the application's settings. Only the stage that trains has these resources.
    With `spark.dynamicAllocation.enabled`, Spark starts executors for it, on YARN, on Kubernetes and on a
    standalone cluster. Without, it only counts tasks on the executors that there are by these requests.

    Attributes:
        cores: cores of each worker.
        gpus: GPUs of each worker: a whole number, or a part of one such as 0.5, which several workers share.
        executor_cores: cores of an executor that Spark starts; default: `spark.executor.cores`.
        executor_memory: memory of its JVM, such as "2g"; default: `spark.executor.memory`.
        executor_overhead: memory beside its JVM, such as "6g". The Python processes, which train, live there.
        gpu_script: program that finds the GPUs of an executor; default: that of the application's settings.
        gpu_vendor: vendor of the GPUs, which Kubernetes needs, such as "nvidia.com".

    Raises:
        ValueError: a number is not positive, or a memory is no size.

    Example:
        ```python
        resources = Resources(cores=4, gpus=1, executor_cores=4, executor_memory="4g")
        ```
    """

    cores: int = 1
    gpus: float = 0
    executor_cores: int | None = None
    executor_memory: str | None = None
    executor_overhead: str | None = None
    gpu_script: str | None = None
    gpu_vendor: str | None = None

    def __post_init__(self) -> None:
        for name in ("cores", "executor_cores"):
            value: object = getattr(self, name)
            if value is None and name != "cores":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
        gpus: object = self.gpus
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool)
        if not number or not (0 <= gpus <= 0.5 or (gpus >= 1 and gpus == int(gpus))):  # type: ignore[operator, call-overload]
            raise ValueError(
                "`gpus` must be a whole number of GPUs for each worker, or at most 0.5, where workers share "
                f"one. Received: gpus={gpus!r}"
            )
        for name in ("executor_memory", "executor_overhead"):
            memory: object = getattr(self, name)
            if memory is not None and not (
                isinstance(memory, str) and re.fullmatch(r"[1-9]\d*[kmgt]", memory.lower())
            ):
                raise ValueError(f"`{name}` must be a size such as '4g'. Received: {name}={memory!r}")
        if self.executor_cores is not None and self.executor_cores < self.cores:
            raise ValueError(
                "`executor_cores` must be at least the `cores` of one worker. "
                f"Received: executor_cores={self.executor_cores}, cores={self.cores}"
            )

    def check(self, spark: SparkSession) -> None:
        """Raise ValueError if Spark cannot give a stage resources of its own here, and say why."""
        if is_local(spark):
            raise ValueError(
                "Stage-level scheduling needs a cluster: on the master local[N] all tasks share one process. "
                f"Leave out `resources`. Received: resources={self!r}"
            )
        asked = [name for name in EXECUTORS if getattr(self, name) is not None]
        if asked and not is_dynamic(spark):
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in asked)} request executors, which Spark starts for a "
                f"stage only with {DYNAMIC}=true. Set it when you create the session, or leave "
                f"these out. Received: {DYNAMIC}={spark.conf.get(DYNAMIC, 'false')}"
            )

    def profile(self, spark: SparkSession) -> ResourceProfile:
        """Return what Spark is asked for.

        Raises:
            ValueError: as for `check`.
        """
        from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

        self.check(spark)
        tasks = TaskResourceRequests().cpus(self.cores)
        if self.gpus:
            tasks = tasks.resource("gpu", self.gpus)
        builder = ResourceProfileBuilder().require(tasks)
        if is_dynamic(spark):
            builder = builder.require(self._of_executors(spark))
        profile = builder.build
        if is_remote():
            # The client registers a profile with the thread's active session, at its first use: that of a
            # stage is in a thread that has none.
            type(spark)._set_default_and_active_session(spark)
            _ = profile.id
        return profile

    def _of_executors(self, spark: SparkSession) -> ExecutorResourceRequests:
        """Return what is asked of the executors that Spark starts for the stage."""
        from pyspark.resource import ExecutorResourceRequests

        # Spark takes the cores of the tasks for those of an executor if there is no request.
        cores = self.executor_cores or int(spark.conf.get("spark.executor.cores", "0") or 0) or self.cores
        executors = ExecutorResourceRequests().cores(max(cores, self.cores))
        memory = self.executor_memory or spark.conf.get("spark.executor.memory", "1g") or "1g"
        executors = executors.memory(memory)
        if self.executor_overhead is not None:
            executors = executors.memoryOverhead(self.executor_overhead)
        if self.gpus:
            executors = executors.resource("gpu", *self._gpus_of_executor(spark, max(cores, self.cores)))
        return executors

    def _gpus_of_executor(self, spark: SparkSession, cores: int) -> tuple[Any, ...]:
        """Return how many GPUs an executor has, the program that finds them, and their vendor."""
        amount = max(1, int(self.gpus * (cores // self.cores)))
        script = self.gpu_script or spark.conf.get("spark.executor.resource.gpu.discoveryScript", "")
        vendor = self.gpu_vendor or spark.conf.get("spark.executor.resource.gpu.vendor", "")
        return amount, script, vendor


def is_dynamic(spark: SparkSession) -> bool:
    """Whether Spark starts executors for tasks that wait."""
    return str(spark.conf.get(DYNAMIC, "false")).lower() == "true"


def threads_of(spark: SparkSession, resources: Resources | None = None) -> int:
    """Return the cores of one worker."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1) if resources is None else resources.cores


def gpus_of_worker(spark: SparkSession, resources: Resources | None) -> float:
    """Return the GPUs of one worker: 0.5 where two share one, 0 where Spark manages none."""
    if resources is not None:
        return resources.gpus
    return float(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0)


def sharing_of(spark: SparkSession, resources: Resources | None, num_workers: int) -> Sharing:
    """Return how many of a training's workers compute on one GPU.

    On a cluster where Spark manages no GPUs nobody knows: workers count as alone there.
    """
    amount = gpus_of_worker(spark, resources)
    gpu = int(1 / amount) if 0 < amount < 1 else 1
    return Sharing(gpu, min(num_workers, registered_slots(spark)) if is_local(spark) else 1)
