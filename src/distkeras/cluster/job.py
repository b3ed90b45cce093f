"""Run one training on Spark: start the server and the stage, read the events, pull the center."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.answers import Pulled
from distkeras.center.requests import Pull
from distkeras.cluster.delivery import delivered
from distkeras.cluster.elastic import ElasticStage, stored
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.pickled_modules import packages_of_job
from distkeras.cluster.placement import Placed, Placement, Shared
from distkeras.cluster.placing import Placing
from distkeras.cluster.probe import check_executors
from distkeras.cluster.process import Process, ServerFailed
from distkeras.cluster.resources import Resources, sharing_of, threads_of
from distkeras.cluster.server import ServerSetup
from distkeras.cluster.settings import allocates_dynamically
from distkeras.cluster.slots import check_slots
from distkeras.cluster.stage import GRACE_SECONDS, Stage
from distkeras.cluster.story import Story
from distkeras.cluster.task_status import task_statuses, tasks_without_slot
from distkeras.cluster.watch import Limits, Running, Watch, WorkerError
from distkeras.cluster.watching import Watching
from distkeras.cluster.worker_stage import elastic_stage, worker_stage
from distkeras.wire.client import ServerLost
from distkeras.wire.log import level_of_driver
from distkeras.worker.final_state import FinalState, final_states_of
from distkeras.worker.task import Envelope

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile
    from pyspark.sql import DataFrame, SparkSession

    from distkeras.cluster.server_tasks import ServerTasks
    from distkeras.cluster.servers import Servers
    from distkeras.model.spec import ModelSpec
    from distkeras.wire.client import Client
    from distkeras.wire.codecs import Codec
    from distkeras.wire.group import Group
    from distkeras.wire.mailbox import Mailbox
    from distkeras.worker.gpus import Sharing
    from distkeras.worker.task import Task

COLLECTED_BYTES = 64 * 2**20
"""Bytes that the models of earlier trainings may fill before they are freed."""

COPIES = 4
"""Vectors of a training's size that it may leave: weights, gradients, and two of the optimizer."""

_uncollected = 0
"""Bytes that the trainings since the last collection may have left."""

logger = logging.getLogger(__name__)

__all__ = ["Job", "Outcome", "WorkerError"]


@dataclass(frozen=True)
class Outcome:
    """The result of a job.

    Attributes:
        center: the last center, in the shape of the first.
        num_updates: number of commits that the center applied.
        final_states: the further state that each worker returned.
        placed: where the servers have run.
    """

    center: Vector
    num_updates: int
    final_states: dict[int, FinalState] = field(default_factory=dict)
    placed: Placed = field(default_factory=Placed)


@dataclass(frozen=True)
class Job:
    """One training and its execution on Spark.

    Attributes:
        task: the settings of the training that all workers share.
        model: the model to train: architecture, weights and compile settings.
        frame: the prepared rows; partition i goes to worker i.
        initial: the first center, shape (size,); or one for each worker, shape (workers, size). At the end
            the last center overwrites it.
        backend: Keras backend of the workers.
        options: options of the parameter server.
        settings: settings that a resumed training must share with the first, plain JSON.
        resume: number of the next event of the training to resume; `None` for a new one.
        num_servers: number of processes that hold the center together.
        launched: server processes that were launched ahead, if any.
        compression: the codec of messages, `None` for none.
        story: collects the transitions of the training.
        last: gets the last center, or centers, if the job ends with an error.
        placement: where the servers are to run.
        shared: what servers on executors share; `None` if they cannot be there.
        resources: what each worker gets from Spark; `None` for the application's settings.
        on_servers: receives, once the servers run, where that is.
    """

    task: Task
    model: ModelSpec
    frame: DataFrame
    initial: Vector
    backend: str
    options: ServerOptions = field(default_factory=ServerOptions)
    settings: dict[str, Any] = field(default_factory=dict)
    resume: int | None = None
    num_servers: int = 1
    launched: list[Process] = field(default_factory=list)
    compression: Codec | None = None
    story: Story = field(default_factory=Story)
    last: list[Vector] = field(default_factory=list)
    placement: Placement = field(default_factory=Placement)
    shared: Shared | None = None
    resources: Resources | None = None
    on_servers: Callable[[Mapping[str, Any]], None] = lambda facts: None

    def run(self, conduct: Callable[[Watching], None]) -> Outcome:
        """Train to the end and return the last center, or centers.

        Servers and workers are watched in a thread of its own. Ctrl-C, or any other exception in the driver,
        ends workers, server and Spark job before it propagates; `last` then gets the last center, if a server
        still has it.

        Args:
            conduct: reads the events in this thread, and may give orders meanwhile. If it returns before the
                workers have ended, the workers end then.

        Raises:
            NotEnoughSlots: a synchronous algorithm has more workers than the cluster has task slots.
            ExecutorsNotReady: a package is missing in the executors' Python.
            ServerUnreachable: an executor cannot open a connection to a parameter server.
            WorkerError: an exception in a worker, or in the algorithm on the server.
            ServerFailed: the parameter server's process did not start, or ended.
            NotShared: servers on executors have no folder that all executors share.
        """
        started, center = time.monotonic(), self.task.center
        begins = "begins" if self.resume is None else "resumes from its last snapshot"
        self.story.tell(
            f"The job {begins}: {center.algorithm!r}, workers: {center.num_workers}, "
            f"epochs: {self.task.num_epoch}, parameter servers: {self.num_servers}, "
            f"weights: {self.initial.shape[-1]}.",
            name=__name__,
        )
        try:
            outcome = self._train(conduct)
        except BaseException as error:
            cancelled = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
            what, level = (
                ("is cancelled", logging.WARNING) if cancelled else ("ends with an error", logging.ERROR)
            )
            self.story.tell(f"The job {what}: {type(error).__name__}.", level, __name__)
            self.story.add_to(error)
            raise
        seconds = time.monotonic() - started
        ended = f"The job has ended: {outcome.num_updates} updates in {seconds:.1f} s."
        self.story.tell(ended, name=__name__)
        return outcome

    def _train(self, conduct: Callable[[Watching], None]) -> Outcome:
        spark = self.frame.sparkSession
        center = self.task.center
        together = center.algorithm.synchronous
        # Spark refuses a barrier stage with dynamic allocation. Without one, a lost worker is replaced alone.
        barrier = together and not allocates_dynamically(spark)
        profile = None if self.resources is None else self.resources.profile(spark)
        check = partial(check_slots, spark, center.num_workers, together=together, profile=profile)
        slots = None if center.elastic is not None else check()
        threads = threads_of(spark, self.resources)
        sharing = sharing_of(spark, self.resources, center.num_workers)
        # Spark has other Python workers for tasks with resources of their own.
        started, placed = self._started(spark, threads if profile is None else None, sharing)
        with (
            started as servers,
            stored(self.frame, self.task) as frame,
            delivered(spark, self.model) as model,
        ):
            addresses = [str(address) for address in servers.addresses]
            self.on_servers({"placed": placed, "addresses": addresses, "cores_per_worker": threads})
            envelope = Envelope(
                task=cloudpickle.dumps(self.task),
                model=model,
                servers=servers.addresses,
                patience=self._patience(placed),
                backend=self.backend,
                threads=threads,
                sharing=sharing,
                beat=self.options.heartbeat / 3,
                log_level=level_of_driver(),
                # A barrier stage gets no copies of its tasks.
                asks=center.elastic is not None or (_speculates(spark) and not barrier),
            )
            stage = self._stage(frame, envelope, profile, barrier, check)
            limits = Limits(
                give_up=self.options.give_up,
                start=self.options.start,
                together=together,
                slots=slots,
                tasks=partial(task_statuses, spark, stage.tag) if isinstance(stage, Stage) else lambda: None,
            )
            stage.start()
            try:
                _collect_models(self.initial.nbytes)
                with servers.client() as client:
                    return replace(self._watched(stage, servers, client, limits, conduct), placed=placed)
            except BaseException as error:
                _end(stage, servers, error)
                raise

    def _stage(
        self,
        frame: DataFrame,
        envelope: Envelope,
        profile: ResourceProfile | None,
        barrier: bool,
        check: Callable[[], object],
    ) -> Stage | ElasticStage:
        """Return what runs the workers; it has not started."""
        tell = partial(self.story.tell, level=logging.WARNING, name=__name__)
        if self.task.center.elastic is not None:
            return elastic_stage(frame, envelope, self.task.num_epoch, tell=tell, profile=profile)
        # With an executor its slots are lost, until another one has come: `check` waits for them.
        return worker_stage(frame, envelope, barrier=barrier, tell=tell, before_again=check, profile=profile)

    def _patience(self, placed: Placed) -> float:
        """Return how long workers wait for a server: for one on an executor, until Spark has replaced it."""
        options = self.options
        return options.patience if placed.where == "driver" else max(options.patience, options.give_up)

    def _watched(
        self,
        stage: Stage | ElasticStage,
        servers: Servers | ServerTasks,
        client: Client | Group | Mailbox,
        limits: Limits,
        conduct: Callable[[Watching], None],
    ) -> Outcome:
        """Let `conduct` read the events of the workers to their end, and return the outcome."""
        spark = self.frame.sparkSession
        watching = Watching(
            # Of an elastic training, most shares have no slot for most of the time.
            partial(tasks_without_slot, spark, stage.tag) if isinstance(stage, Stage) else lambda: None
        )
        watch = Watch(
            stage,
            servers,
            client,
            self.task.center.num_workers,
            watching.put,
            limits,
            story=self.story,
            settable_rate=self.model.settable_rate,
            center=self.task.center,
            pause=servers.pause,
            on_stop=stage.start_no_more,
        )
        watching.start(watch)
        try:
            conduct(watching)
            if watching.num_updates is None:
                _end(stage, servers, None)
        except BaseException:
            watching.end()
            self._rescue(client)
            raise
        watching.end()
        return self._outcome(watch, watching.num_updates, stage)

    def _outcome(self, watch: Watch, num_updates: int | None, stage: Running) -> Outcome:
        # In place of the first center: the driver may lack memory for another vector of the model's size.
        for member, center in enumerate(np.atleast_2d(self.initial)):
            pulled: Pulled = watch.ask(Pull(member))
            center[:] = pulled.center
            num_updates = pulled.num_updates if num_updates is None else num_updates
        return Outcome(self.initial, num_updates or 0, final_states_of(stage.rows))

    def _rescue(self, client: Client | Group | Mailbox) -> None:
        """Take the last center from the servers, if they still run."""
        try:
            for member in range(len(np.atleast_2d(self.initial))):
                pulled: Pulled = client.call(Pull(member))
                self.last.append(pulled.center.copy())
        except (ServerLost, ServerFailed, OSError) as lost:
            self.last.clear()
            logger.info("The last center is lost with the server: %s", lost)

    def _started(
        self, spark: SparkSession, threads: int | None, sharing: Sharing
    ) -> tuple[Servers | ServerTasks, Placed]:
        """Start the servers, and check whether the executors can train."""
        # Besides its optimizer a worker may send the velocities of its momentum, and its weights.
        vectors = 2 if self.task.epochs.state == "seconds" else 1
        state = self.model.optimizer_bytes + vectors * self.initial.shape[-1] * self.initial.itemsize
        senders = 0 if self.task.epochs.state == "never" else len(self.task.state_of)
        placing = Placing(
            spark,
            ServerSetup(
                self.task.center,
                options=self.options,
                compression=self.compression,
                settings=self.settings,
                report_bytes=senders * state,
            ),
            self.initial,
            self.num_servers,
            resume=self.resume,
            launched=self.launched,
            story=self.story,
            check=partial(
                check_executors,
                *(spark, self.backend, threads, self.task.center.least_workers, self.options.give_up),
                packages_of_job(self.task, self.model),
                sharing,
            ),
        )
        return placing.start(self.placement, self.shared)


def _collect_models(size: int) -> None:
    """Free the models of earlier trainings, once they may fill `COLLECTED_BYTES`. The driver is idle now.

    Models are reference cycles, which Python rarely collects. A collection looks at every object of the
    process, for some tenths of a second, in which a small job needs the processor for its workers.

    Args:
        size: bytes of the weights of the training that begins.
    """
    global _uncollected
    if _uncollected >= COLLECTED_BYTES:
        gc.collect()
        _uncollected = 0
    _uncollected += COPIES * size


def _end(stage: Stage | ElasticStage, servers: Servers | ServerTasks, error: BaseException | None) -> None:
    servers.stop("The driver ended the job" + ("" if error is None else f": {type(error).__name__}"))
    stage.cancel(GRACE_SECONDS)  # Workers that received the stop may end by themselves.


def _speculates(spark: SparkSession) -> bool:
    """Whether Spark starts copies of slow tasks. It does so for the whole application, or not at all."""
    return str(spark.conf.get("spark.speculation", "false")).lower() == "true"
