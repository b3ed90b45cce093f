"""The code of one Spark task: train and report. Called once per partition."""

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
    """The settings of a training that all workers share.

    Attributes:
        center: settings that decide how the center handles the workers' messages.
        columns: how rows become the model's inputs and labels.
        rows: number of rows in each worker's partition, as counted before the training.
        batch_size: rows per minibatch.
        num_epoch: passes over the partition.
        shuffle: use another order of rows in every epoch.
        seed: seed of the shuffle.
        schedules_follow_training: a learning-rate schedule counts the steps of all workers.
        state_of: workers that return their local state: the first, or all of an ensemble.
        largest_state: maximum bytes of optimizer state that such a worker sends to the driver at the end.
        drop_remainder: skip the last minibatch of an epoch if it is not full.
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
        """Return the number of minibatches of one epoch of a worker."""
        return self._steps(self.rows[worker])

    def scale_of(self, worker: int) -> float:
        """Return the number of steps of `fit` on all rows per step of the worker."""
        if not self.schedules_follow_training or self.rows[worker] == 0:
            return 1.0
        return self._steps(sum(self.rows)) / max(1, self.steps_per_epoch(worker))

    def _steps(self, num_rows: int) -> int:
        return num_rows // self.batch_size if self.drop_remainder else -(-num_rows // self.batch_size)


@dataclass(frozen=True)
class Envelope:
    """The content of Spark's closure, with settings that a process needs before it unpickles the task.

    Attributes:
        task: a pickled `Task`: unpickling may import Keras, which reads its backend at import.
        model: the `ModelSpec` to train: architecture, weights and compile settings.
        servers: addresses of the center's parts, in their order.
        patience: seconds to retry a connection to a server.
        backend: Keras backend.
        threads: cores that the worker may use.
        beat: seconds between two heartbeats.
        log_level: least level of the library's messages that go to the driver's log.
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
        attempt: 0 for the first such process of a stage, higher for its replacements.
        ticket: larger for a process that started later.
        gpus: addresses of the GPUs that Spark gave it.
    """

    worker: int
    attempt: int
    ticket: int
    gpus: tuple[str, ...] = ()


def run(envelope: Envelope, start: Start, batches: Iterator[pa.RecordBatch]) -> FinalState:
    """Train as worker `start.worker` on `batches` to the end.

    An exception is returned, and reported to the center so that the driver receives it at once. It is not
    raised, since Spark would then retry the same error.

    Returns:
        The traceback of the exception that ended the training, or the final state of the worker.

    Raises:
        SourceLost: the rows did not arrive as counted; Spark decides whether to retry.
        Replaced: another process trains as this worker.
    """
    from distkeras.worker.arrivals import SourceLost

    follow_driver_in_worker(envelope.log_level)
    logger.info("Worker %d starts: attempt %d, process %d.", start.worker, start.attempt, os.getpid())
    try:
        # Without a connection to the server, for example without a certificate, only Spark reports the error.
        with connect(envelope.servers, patience=envelope.patience) as client:
            return _run_on(client, envelope, start, batches)
    except (Replaced, SourceLost):
        # Spark restarts a stage whose input was lost, even while one of its workers still trains. If the
        # first process returned, Spark would count the partition as done and end the second with the stage.
        raise
    except Exception:
        return FinalState(traceback.format_exc())


def _run_on(
    client: Client | Group, envelope: Envelope, start: Start, batches: Iterator[pa.RecordBatch]
) -> FinalState:
    """Train as `run` does, over this connection to the server."""
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
            return FinalState()  # The driver knows the reason.
        except (ServerLost, AuthenticationError):  # No report can reach the server.
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
    an_epoch = task.steps_per_epoch(start.worker)
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
            fragments=task.center.fragments,
            on_start=lambda epoch, step: cached.move_to(epoch * an_epoch + step),
            on_orders=lambda orders, epoch, step: cached.obey(orders, epoch * an_epoch + step),
        )
        trained = loop.run(start.attempt, start.ticket)
        return _final_state(cached, task, start.worker) if trained else FinalState()


def _final_state(cached: CachedReplica, task: Task, worker: int) -> FinalState:
    """Return the final state of a worker that has trained to the end."""
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
    """Report the error to the center at once, if possible; Spark brings it to the driver in any case."""
    try:
        with client.successor() as last:
            last.call(Fail(worker, frames.error_text(error)))
    except JobStopped:  # The driver has ended the job for another reason.
        return
    except Exception:
        logger.warning("The error of worker %d could not be reported to the server:", worker, exc_info=True)
