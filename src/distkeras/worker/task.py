"""What runs inside one Spark task: train, report. Called once a partition."""

from __future__ import annotations

import logging
import os
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distkeras.center import CenterConfig
from distkeras.center.messages import Fail
from distkeras.wire import frames
from distkeras.wire.client import Client, JobStopped, Replaced, ServerAddress, ServerLost
from distkeras.wire.group import Group, connect
from distkeras.wire.handshake import AuthenticationError
from distkeras.wire.log import follow_driver_in_worker
from distkeras.worker.environment import prepare_process
from distkeras.worker.final_state import FinalState
from distkeras.worker.heartbeat import Heartbeat
from distkeras.worker.memory import keep_freed_memory
from distkeras.worker.payload import Openable

if TYPE_CHECKING:
    import pyarrow as pa

    from distkeras.model.spec import ModelSpec
    from distkeras.worker.cached_replica import CachedReplica
    from distkeras.worker.columns import Columns


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What every worker of a job trains.

    Attributes:
        center: what decides what becomes of the workers' messages.
        columns: how rows become the model's inputs and labels.
        rows: how many rows each worker's partition has, as they were counted before.
        batch_size: rows a minibatch.
        num_epoch: passes over the partition.
        shuffle: visit the rows in another order every epoch.
        seed: of the shuffle.
        schedules_follow_training: a schedule of the learning rate counts the steps of all workers.
        state_of: workers whose local state is the trained model's: the first, or each one of an ensemble.
        largest_state: bytes of the optimizer's state that such a worker may send to the driver at the end.
        drop_remainder: leave out the last minibatch of an epoch if it is not full.
    """

    center: CenterConfig
    columns: Columns
    rows: tuple[int, ...]
    batch_size: int
    num_epoch: int
    shuffle: bool
    seed: int
    schedules_follow_training: bool = True
    state_of: tuple[int, ...] = (0,)
    largest_state: int = 0
    drop_remainder: bool = False

    def steps_per_epoch(self, worker: int) -> int:
        """Minibatches of one epoch of a worker."""
        return self._steps(self.rows[worker])

    def scale_of(self, worker: int) -> float:
        """Steps that `fit` on all rows takes, to one of the worker's own."""
        if not self.schedules_follow_training or self.rows[worker] == 0:
            return 1.0
        return self._steps(sum(self.rows)) / max(1, self.steps_per_epoch(worker))

    def _steps(self, num_rows: int) -> int:
        return num_rows // self.batch_size if self.drop_remainder else -(-num_rows // self.batch_size)


@dataclass(frozen=True)
class Envelope:
    """What travels inside Spark's closure, and the settings that come before the task can be opened.

    Attributes:
        task: a pickled `Task`: opening it may import Keras, which reads its backend at import.
        model: the `ModelSpec` of what is trained: architecture, weights and compile settings.
        servers: where the center is: its parts, in their order.
        patience: seconds to try to reach it.
        backend: Keras backend.
        threads: cores that the worker may use.
        beat: seconds between two signs of life.
        log_level: from which on the driver's log takes what the library says.
    """

    task: bytes
    model: Openable
    servers: tuple[ServerAddress, ...]
    patience: float
    backend: str
    threads: int
    beat: float
    log_level: int = logging.WARNING


@dataclass(frozen=True)
class Start:
    """One process that trains as a worker.

    Attributes:
        worker: index of the worker.
        attempt: 0 for the first such process of a stage, more for those that replace it.
        ticket: larger for a process that was started later.
        gpus: addresses of the GPUs that Spark gave it.
    """

    worker: int
    attempt: int
    ticket: int
    gpus: tuple[str, ...] = ()


def run(envelope: Envelope, start: Start, batches: Iterator[pa.RecordBatch]) -> FinalState:
    """Train as worker `start.worker` on `batches` to the end.

    An exception is reported to the center, whence the driver learns of it at once, and returned; it is not
    raised, since Spark would train the same error again.

    Returns:
        The traceback of the exception that ended the training; or what the worker leaves.

    Raises:
        SourceLost: the rows did not arrive as they were counted; whether to try again is Spark's to decide.
        Replaced: another process trains as this worker.
    """
    from distkeras.worker.arrivals import SourceLost

    follow_driver_in_worker(envelope.log_level)
    logger.info("Worker %d starts: attempt %d, process %d.", start.worker, start.attempt, os.getpid())
    try:
        # Without a line to the server, such as where a certificate is missing, only Spark brings the error.
        with connect(envelope.servers, patience=envelope.patience) as client:
            return _run_on(client, envelope, start, batches)
    except (Replaced, SourceLost):
        # Spark starts a stage again whose input was lost, and a worker that still trains with it. If the
        # first returned, Spark would take the partition for done, and end the second with the stage.
        raise
    except Exception:
        return FinalState(traceback.format_exc())


def _run_on(
    client: Client | Group, envelope: Envelope, start: Start, batches: Iterator[pa.RecordBatch]
) -> FinalState:
    """Train as `run` says, by this line to the server."""
    from distkeras.worker.arrivals import SourceLost

    with Heartbeat(client, start.worker, envelope.beat, start.ticket):
        try:
            prepare_process(envelope.backend, envelope.threads, start.gpus, start.worker)
            state = _train(pickle.loads(envelope.task), envelope.model.open(), start, batches, client)
            logger.info("Worker %d has ended.", start.worker)
            return state
        except (Replaced, SourceLost) as replaced:
            logger.info("Worker %d, attempt %d, ends: %s", start.worker, start.attempt, replaced)
            raise
        except JobStopped as stopped:
            logger.info("Worker %d is stopped: %s", start.worker, stopped)
            return FinalState()  # The driver knows why.
        except (ServerLost, AuthenticationError):  # It cannot be told.
            return FinalState(traceback.format_exc())
        except Exception as failed:
            logger.info("Worker %d failed: %r", start.worker, failed)
            error = traceback.format_exc()
            _report(client, start.worker, error)
            return FinalState(error)


def _train(
    task: Task, model: ModelSpec, start: Start, batches: Iterator[pa.RecordBatch], client: Client | Group
) -> FinalState:
    # Imported here: Keras must not be imported before `prepare_process`.
    from distkeras.model.schedule import ScheduleSteps
    from distkeras.worker.cached_replica import replica_from_cache
    from distkeras.worker.feed import Feed
    from distkeras.worker.loop import Loop

    feed = Feed(
        batches,
        task.columns,
        batch_size=task.batch_size,
        partition=start.worker,
        shuffle=task.shuffle,
        seed=task.seed,
        num_epoch=task.num_epoch,
        num_rows=task.rows[start.worker],
        drop_remainder=task.drop_remainder,
    )
    steps = ScheduleSteps(task.scale_of(start.worker))
    with feed, replica_from_cache(model, start.worker, task.center.algorithm.inner_momentum, steps) as cached:
        keep_freed_memory(4 * cached.replica.layout.size)
        loop = Loop(
            cached.replica,
            feed,
            task.center.algorithm,
            client.call,
            worker=start.worker,
            num_epoch=task.num_epoch,
            overlap=task.center.overlap,
            on_start=lambda epoch, step: cached.move_to(epoch * task.steps_per_epoch(start.worker) + step),
        )
        trained = loop.run(start.attempt, start.ticket)
        return _final_state(cached, task, start.worker) if trained else FinalState()


def _final_state(cached: CachedReplica, task: Task, worker: int) -> FinalState:
    """Return what a worker leaves that has trained to the end."""
    metrics = cached.replica.collected_metrics()
    if worker not in task.state_of:
        return FinalState(metrics=[*metrics])
    state = cached.optimizer_state()
    size = sum(array.nbytes for array in state)
    fits = size <= task.largest_state
    return FinalState(
        None, cached.changed_variables(), state if fits else [], [*metrics], 0 if fits else size
    )


def _report(client: Client | Group, worker: int, error: str) -> None:
    """Tell the center at once, if it can be reached; Spark brings the error to the driver all the same."""
    try:
        with client.successor() as last:
            last.call(Fail(worker, frames.error_text(error)))
    except JobStopped:  # The driver has ended the job for another reason.
        return
    except Exception:
        logger.warning("The server could not be told of the error of worker %d:", worker, exc_info=True)
