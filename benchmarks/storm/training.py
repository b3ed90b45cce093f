"""The training that the storm befalls, as the driver of a user: `training.py CONFIG.json`.

It always resumes, so that whoever kills it starts it again in the same way. Beside what a user writes it has
- a rule whose center counts: each element is the number of rows that count;
- a file to which it appends what the driver learns, and one with what both servers have counted;
- a `preprocess` that makes a step last as long as it is told to, and says which process is which worker.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.algorithms.base import Commit, State

if TYPE_CHECKING:
    import keras
    from pyspark.sql import SparkSession

SIZE = 64
MOST_ROWS = 2**24
"""Which a center of float32 counts exactly."""
SAMPLE_SECONDS = 0.2
GRACE_SECONDS = 0.2


@dataclass(frozen=True)
class Config:
    """What is trained, and where it leaves its traces.

    Attributes:
        folder: of the run; snapshots go to `snapshots` in it.
        ports: candidates for the servers' ports.
        rule: one of `RULES`. The rounds of "decoupled" need all workers but one, and stay open for
            `GRACE_SECONDS`, as those of `DecoupledDiLoCo` do with a quorum; it has no barrier stage, in which
            all workers start again when one fails.
        rows: of each worker, in an epoch.
        epochs: passes over them.
        num_workers: executors, each with one.
        num_servers: processes that hold the center.
        batch_size: rows of a step.
        window: steps between two exchanges.
        step_seconds: how long a step lasts.
        snapshot_seconds: between two snapshots.

    Raises:
        ValueError: the rule is unknown, or more rows than float32 can count.
    """

    folder: str
    ports: tuple[int, ...]
    rule: str = "asynchronous"
    rows: int = 4000
    epochs: int = 1
    num_workers: int = 3
    num_servers: int = 2
    batch_size: int = 4
    window: int = 20
    step_seconds: float = 0.02
    snapshot_seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"`rule` must be one of {', '.join(RULES)}. Received: rule={self.rule!r}")
        if self.total > MOST_ROWS:
            raise ValueError(
                f"Expected at most {MOST_ROWS} rows in all, which the center can count: ask for fewer "
                f"minutes. Received: {self.total}"
            )

    @property
    def quorum(self) -> int | None:
        """Messages that close a round; `None` for those of all workers, or for no rounds."""
        return self.num_workers - 1 if self.rule == "decoupled" else None

    @property
    def rows_a_second(self) -> float:
        """Of all workers, if nothing but the steps took time."""
        return self.num_workers * self.batch_size / self.step_seconds

    @property
    def total(self) -> int:
        """Rows that must count in the end."""
        return self.num_workers * self.rows * self.epochs


@dataclass(frozen=True)
class Count(Algorithm):
    """Every commit adds its rows to each element of the center: which then says how many have counted."""

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        """Add the rows."""
        center += np.float32(commit.num_samples)
        return center


@dataclass(frozen=True)
class CountRounds(Count):
    """The same, a round of all workers at a time."""

    synchronous: ClassVar[bool] = True


RULES: Mapping[str, type[Algorithm]] = {
    "asynchronous": Count,
    "synchronous": CountRounds,
    "decoupled": CountRounds,
}


def make_session(config: Config) -> SparkSession:
    """Return a session whose executors are processes of their own, in the folder of the run."""
    from distkeras.cluster.session import local_session
    from distkeras.jvm import archive_options, archive_path

    count = config.num_workers
    # Spark has no barrier stage with dynamic allocation; the number of executors stays as it is.
    dynamic: dict[str, Any] = {
        "spark_dynamicAllocation_enabled": "true",
        "spark_dynamicAllocation_shuffleTracking_enabled": "true",
        "spark_dynamicAllocation_minExecutors": str(count),
        "spark_dynamicAllocation_maxExecutors": str(count),
    }
    java = f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {archive_options(archive_path())}".strip()
    return local_session(
        spark_driver_extraJavaOptions="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        spark_executor_extraJavaOptions=java,
        spark_master=f"local-cluster[{count},1,1024]",
        spark_executor_memory="1g",
        spark_python_daemon_module="distkeras.worker.daemon",
        spark_executorEnv_KERAS_BACKEND="jax",
        spark_local_dir=str(Path(config.folder, "spark")),
        spark_task_maxFailures="100000",
        spark_stage_maxConsecutiveAttempts="100000",
        spark_log_level="OFF",
        **(dynamic if config.rule == "decoupled" else {}),
    )


def make_model() -> tuple[keras.Model, dict[str, Any]]:
    """Return a model whose weights are no part of what it computes: they are the center's to count with."""
    import keras

    class Counter(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def build(self, input_shape: Any) -> None:
            self.count = self.add_weight(shape=(SIZE,), initializer="zeros", name="count")

        def call(self, x: Any) -> Any:
            return keras.ops.mean(x, axis=-1, keepdims=True)

    inputs = keras.Input((4,))
    return keras.Model(inputs, Counter()(inputs)), {"Counter": Counter}


def make_step(config: Config) -> Callable[[Mapping[str, Any]], Any]:
    """Return the `preprocess` that takes its time."""
    seconds, folder = config.step_seconds, config.folder

    def step(columns: Mapping[str, Any]) -> Any:
        import os
        import time

        from pyspark import TaskContext

        context = TaskContext.get()
        if context is not None:
            who = f"{context.partitionId()}-{os.getpid()}"
            if os.environ.get("CHAOS_WORKER") != who:
                open(os.path.join(folder, "workers", who), "w").close()
                os.environ["CHAOS_WORKER"] = who
            time.sleep(seconds)
        return np.stack(columns["features"]).astype(np.float32), columns["label"]

    return step


def journal_in(folder: str) -> type:
    """Return the class of a progress bar that shows nothing, and appends every event to a file of the run.

    Not a monitor: those get the events up to a second later, when this process may have been killed.
    """
    from distkeras.monitor.progress import ProgressBar

    class Journal(ProgressBar):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__("journal", 0)
            self._events: IO[str] = open(Path(folder, "events.jsonl"), "a", buffering=1)  # noqa: SIM115

        def __call__(self, event: Any) -> None:
            super().__call__(event)
            record = asdict(event)
            record.pop("metrics", None)
            self._events.write(json.dumps({"kind": type(event).__name__, **record}, default=str) + "\n")

    return Journal


def sample_counts(folder: str, addresses: tuple[Any, ...]) -> None:
    """Write down, several times a second, what both servers have counted. Ends with the process."""
    from dataclasses import replace

    from distkeras.center.requests import Pull
    from distkeras.wire.client import JobStopped, ServerLost
    from distkeras.wire.group import connect

    # Not by way of the storm.
    direct = tuple(replace(address, host="127.0.0.1") for address in addresses)
    half = addresses[0].size
    with (
        open(Path(folder, "counts.jsonl"), "a", buffering=1) as file,
        connect(direct, patience=0.1) as client,
    ):
        while True:
            try:
                asked = time.time()
                center = client.call(Pull(0)).center
            except ServerLost:
                client.close()
            except JobStopped:
                return
            else:
                file.write(json.dumps([asked, float(center[:half].min()), float(center[half:].min())]) + "\n")
            time.sleep(SAMPLE_SECONDS)


def put_in_place(module: ModuleType, name: str, value: object) -> None:
    """Let a module use `value` under a name that it has.

    Raises:
        AttributeError: it has no such name, so that nothing would use `value`.
    """
    if name not in vars(module):
        raise AttributeError(f"Expected a module that uses {name}. Received: {module.__name__}")
    setattr(module, name, value)


def train(config: Config) -> dict[str, Any]:
    """Train to the end and return what the center has counted."""
    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(make_session, config)
        import distkeras
        from distkeras.trainers import training

        model, custom_objects = make_model()
        trainer = distkeras.DistributedTrainer(
            model,
            RULES[config.rule](communication_window=config.window),
            "sgd",
            "mse",
            metrics=[],
            num_workers=config.num_workers,
            batch_size=config.batch_size,
            num_epoch=config.epochs,
            num_parameter_servers=config.num_servers,
            custom_objects=custom_objects,
            preprocess=make_step(config),
            seed=0,
            quorum=config.quorum,
            grace=0.0 if config.quorum is None else GRACE_SECONDS,
            server=distkeras.ServerOptions(
                host="127.0.0.2",
                bind="127.0.0.1",
                ports=config.ports,
                shared_memory=False,
                restarts=100_000,
                snapshots=distkeras.SnapshotOptions(
                    str(Path(config.folder, "snapshots")), seconds=config.snapshot_seconds
                ),
            ),
        )
        spark = session.result()
    # Only now: two threads that import PySpark's modules at the same time can wait for each other.
    from distkeras.cluster import placing
    from distkeras.cluster.servers import Servers

    def watched_servers(*arguments: Any, **options: Any) -> Servers:
        servers = Servers(*arguments, **options)
        sampled = (config.folder, servers.addresses)
        threading.Thread(target=sample_counts, args=sampled, daemon=True).start()
        return servers

    put_in_place(training, "ProgressBar", journal_in(config.folder))
    put_in_place(placing, "Servers", watched_servers)
    rows = spark.range(0, config.num_workers * config.rows, 1, config.num_workers)
    frame = rows.selectExpr("array_repeat(float(1), 4) AS features", "float(1) AS label")
    trained = trainer.train(frame, resume=True)
    spark.stop()
    count = np.asarray(trained.get_weights()[0])
    return {"expected": config.total, "fewest": float(count.min()), "most": float(count.max())}


def main() -> None:
    """Train, and leave the counts."""
    for name in ("tensorflow", "matplotlib"):
        # Keras imports them, if they are there: seconds of each start, which say nothing of this project.
        sys.modules[name] = None  # type: ignore[assignment]
    values = json.loads(Path(sys.argv[1]).read_text())
    config = Config(**values | {"ports": tuple(values["ports"])})
    done = train(config)
    part = Path(config.folder, "done.part")
    part.write_text(json.dumps(done))
    part.rename(Path(config.folder, "done.json"))


if __name__ == "__main__":
    main()
