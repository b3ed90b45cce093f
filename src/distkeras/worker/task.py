"""The code of one Spark task: train and report. Called once per partition."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from distkeras.center.requests import Beat, Fail
from distkeras.wire import frames
from distkeras.wire.client import Client, JobStopped, Replaced, ServerAddress, ServerLost
from distkeras.wire.group import Group, connect
from distkeras.wire.handshake import AuthenticationError
from distkeras.wire.log import follow_driver_in_worker
from distkeras.worker.about import about_this_process
from distkeras.worker.environment import prepare_process
from distkeras.worker.epochs import EpochFeed
from distkeras.worker.final_state import FinalState
from distkeras.worker.gpus import ALONE, Sharing
from distkeras.worker.heartbeat import Heartbeat
from distkeras.worker.memory import keep_freed_memory
from distkeras.worker.payload import Openable
from distkeras.worker.settings import Task as Task
from distkeras.worker.turn import is_over, let_result_arrive, wait_for_turn

if TYPE_CHECKING:
    import pyarrow as pa

    from distkeras.center.answers import Joined
    from distkeras.center.orders import Orders
    from distkeras.worker.cached_replica import CachedReplica
    from distkeras.worker.feed import Feed
    from distkeras.worker.local_state import LocalState


logger = logging.getLogger(__name__)


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
        asks: whether a process asks before it joins, since another one may train as the same worker.
        sharing: how many workers share a GPU.
    """

    task: bytes
    model: Openable
    servers: tuple[ServerAddress, ...]
    patience: float
    backend: str
    threads: int
    beat: float
    log_level: int = logging.WARNING
    asks: bool = False
    sharing: Sharing = ALONE


@dataclass(frozen=True)
class Start:
    """One process that trains as a worker.

    Attributes:
        worker: index of the worker.
        attempt: 0 for the first such process of a stage, higher for its replacements.
        ticket: larger for a process that started later.
        gpus: addresses of the GPUs that Spark gave it.
        until: epoch before which it ends; `None` for the end of the training.
        training: name of the training, in which processes go on with the optimizer that they have; "" if each
            begins with that of the driver.
        executor: id of its Spark executor; "" if it is unknown.
    """

    worker: int
    attempt: int
    ticket: int
    gpus: tuple[str, ...] = ()
    until: int | None = None
    training: str = ""
    executor: str = ""


def run(envelope: Envelope, start: Start, batches: Iterator[pa.RecordBatch]) -> FinalState:
    """Train as worker `start.worker` on `batches` to the end.

    An exception is returned, and reported to the center so that the driver receives it at once. It is not
    raised, since Spark would then retry the same error. Only where the server cannot be reached it is raised:
    Spark may then start the worker on another executor.

    Returns:
        The traceback of the exception that ended the training, or the final state of the worker.

    Raises:
        SourceLost: the rows did not arrive as counted; Spark decides whether to retry.
        ServerLost: this machine could not reach a server for the whole `patience`; Spark decides likewise.
        Replaced: another process trains as this worker.
    """
    from distkeras.worker.arrivals import SourceLost

    follow_driver_in_worker(envelope.log_level)
    logger.info("Worker %d starts: attempt %d, process %d.", start.worker, start.attempt, os.getpid())
    try:
        # Without a connection to the server, for example without a certificate, only Spark reports the error.
        with connect(envelope.servers, patience=envelope.patience) as client:
            turn = _wait_for_turn(client, start) if envelope.asks else start
            if turn is None:
                deque(batches, maxlen=0)  # Spark ends a Python worker that leaves rows unread.
                return FinalState()
            # The first word, before rows are read: a port that is closed to this machine shows at once.
            for each in client.clients:
                each.call(Beat(turn.worker, turn.ticket, "starting"))
            return _run_on(client, envelope, turn, batches)
    except ServerLost as lost:
        logger.info("Worker %d, attempt %d, ends: %s", start.worker, start.attempt, lost)
        # Spark's error reaches the driver as text alone: it has to say whose it is, and from where.
        whose = f"Worker {start.worker} on {platform.node()}: {lost}"
        raise ServerLost(whose).with_traceback(lost.__traceback__) from lost.__cause__
    except (Replaced, SourceLost) as ended:
        # Spark restarts a stage whose input was lost, even while one of its workers still trains. If the
        # first process returned, Spark would count the partition as done and end the second with the stage.
        logger.info("Worker %d, attempt %d, ends: %s", start.worker, start.attempt, ended)
        raise
    except JobStopped as stopped:
        logger.info("Worker %d is stopped: %s", start.worker, stopped)
        return FinalState()  # The driver knows the reason.
    except Exception:
        return FinalState(traceback.format_exc())


def _wait_for_turn(client: Client | Group, start: Start) -> Start | None:
    """Wait until this process may join, and return its start; `None` if nothing is left for it to train."""
    place = wait_for_turn(client, start.worker, start.ticket)
    if place.stopped:
        return None
    if not is_over(place, start.until):
        return replace(start, ticket=place.ticket)
    if start.attempt:  # It may be a copy of a task that has trained.
        let_result_arrive()
    return None


def _run_on(
    client: Client | Group, envelope: Envelope, start: Start, batches: Iterator[pa.RecordBatch]
) -> FinalState:
    """Train as `run` does, over this connection to the server."""
    from distkeras.worker.arrivals import SourceLost

    with Heartbeat(client, start.worker, envelope.beat, start.ticket) as heartbeat:
        try:
            heartbeat.tell("importing")
            prepare_process(envelope.backend, envelope.threads, start.gpus, start.worker, envelope.sharing)
            task: Task = pickle.loads(envelope.task)
            heartbeat.tell("loading")
            state = _train(task, envelope, start, batches, client, heartbeat)
            logger.info("Worker %d has ended.", start.worker)
            return state
        except (JobStopped, SourceLost, ServerLost):
            raise
        except AuthenticationError:  # No report can reach the server.
            return FinalState(traceback.format_exc())
        except Exception as failed:
            logger.info("Worker %d failed: %r", start.worker, failed)
            error = traceback.format_exc()
            _report(client, start.worker, error)
            return FinalState(error)


def _train(
    task: Task,
    envelope: Envelope,
    start: Start,
    batches: Iterator[pa.RecordBatch],
    client: Client | Group,
    heartbeat: Heartbeat,
) -> FinalState:
    """Train.

    Args:
        task: what to train on the rows.
        envelope: the model, and how to reach the center.
        start: the process.
        batches: the rows.
        client: the connection to the center.
        heartbeat: tells the server what the worker does now.
    """
    # Imported here: Keras must not be imported before `prepare_process`.
    from distkeras.model.schedule import ScheduleSteps
    from distkeras.worker.cached_replica import replica_from_cache
    from distkeras.worker.device import copied_ahead, receive_for
    from distkeras.worker.loop import Loop
    from distkeras.worker.reports import Reports
    from distkeras.worker.stopwatch import Stopwatch
    from distkeras.worker.validation_share import split_off

    worker, until = start.worker, task.num_epoch if start.until is None else start.until
    validation, batches = split_off(batches, task.validation, worker)
    steps, algorithm = ScheduleSteps(task.scale_of(worker)), task.center.algorithm
    with (
        validation,
        _feed(task, worker, batches) as feed,
        replica_from_cache(
            envelope.model.open(),
            worker,
            algorithm.inner_averaging or algorithm.inner_momentum,
            steps,
            generators=task.generators,
            training=start.training,
        ) as cached,
        copied_ahead(feed, cached.replica.device) as passes,
    ):
        keep_freed_memory(4 * cached.replica.layout.size)
        receive_for(cached.replica.device, cached.replica.layout, client)
        reports = Reports(
            client,
            worker,
            cached,
            state_at=task.epochs.state,
            place=partial(task.place, worker),
            ended_by=partial(task.epochs.ended_by, a_pass=task.steps_per_pass(worker)),
            connect=partial(connect, envelope.servers, patience=envelope.patience),
            evaluate=None if task.validation is None else partial(validation.evaluate, cached.replica),
            sends_state=worker in task.state_of,
        )

        def begin(joined: Joined) -> LocalState | None:
            state = reports.start(joined)
            place = (joined.epoch, joined.step) if state is None or not state.place[0] else state.place[1:]
            cached.move_to(task.place(worker, *place))
            return state

        def obey(orders: Orders, epoch: int, step: int) -> None:
            cached.obey(orders, task.place(worker, epoch, step))
            reports.obey(orders)

        loop = Loop(
            cached.replica,
            passes
            if task.epochs.steps is None
            else EpochFeed(passes, task.steps_per_pass(worker), task.epochs),
            task.center.algorithm,
            client.call,
            worker=worker,
            num_epoch=until,
            overlap=task.center.overlap,
            fragments=task.center.fragments,
            plan=task.epochs,
            with_states=task.center.epoch_rows is not None,
            rests=until < task.num_epoch,
            on_start=begin,
            on_orders=obey,
            on_commit=reports.commit,
            on_exchanged=reports.exchanged,
            on_phase=heartbeat.tell,
            dropped=lambda: heartbeat.drop,
            about=about_this_process(envelope.backend, envelope.threads, start.executor, task.rows[worker]),
            watch=Stopwatch(lambda: client.traffic),
        )
        heartbeat.tell("waiting")
        trained = loop.run(start.attempt, start.ticket)
        return _final_state(cached, task, worker) if trained or reports.restored else FinalState()


def _feed(task: Task, worker: int, batches: Iterator[pa.RecordBatch]) -> Feed:
    from distkeras.worker.feed import Feed

    return Feed(
        batches,
        task.columns,
        batch_size=task.batch_size,
        partition=worker,
        shuffle=task.shuffle,
        seed=task.seed,
        num_epoch=task.epochs.num_passes(task.num_epoch, task.steps_per_pass(worker)),
        num_rows=task.rows[worker],
        drop_remainder=task.drop_remainder,
    )


def _final_state(cached: CachedReplica, task: Task, worker: int) -> FinalState:
    """Return the final state of a worker that has trained to the end."""
    from distkeras.model.randomness import generator_states

    metrics = cached.replica.collected_metrics()
    if worker not in task.state_of:
        return FinalState(metrics=[*metrics])
    state, others = cached.optimizer_state(), cached.other_states()
    size = sum(array.nbytes for array in (*state, *others.values()))
    variables = cached.changed_variables()
    if size > task.largest_state:
        return FinalState(None, variables, [], [*metrics], generator_states(), size)
    return FinalState(None, variables | others, state, [*metrics], generator_states())


def _report(client: Client | Group, worker: int, error: str) -> None:
    """Report the error to the center at once, if possible; Spark brings it to the driver in any case."""
    try:
        with client.successor() as last:
            last.call(Fail(worker, frames.error_text(error)))
    except JobStopped:  # The driver has ended the job for another reason.
        return
    except Exception:
        logger.warning("The error of worker %d could not be reported to the server:", worker, exc_info=True)
