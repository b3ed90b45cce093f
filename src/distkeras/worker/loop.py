"""The worker's loop: train a window, exchange, report."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distkeras.algorithms import Algorithm, State, Vector
from distkeras.center.bad_updates import is_finite
from distkeras.center.messages import Exchange, Exchanged, Join, Joined, Leave, Refused, Rejoin, Skipped
from distkeras.center.orders import NO_ORDERS, Orders
from distkeras.wire.frames import fitting

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from distkeras.center.messages import Reply, Request
    from distkeras.worker.feed import Feed
    from distkeras.worker.replica import Replica


logger = logging.getLogger(__name__)


class TrainingDiverged(ArithmeticError):
    """The loss or the weights are no longer finite."""


class _UnknownToServer(Exception):
    """The server has restarted and does not know this worker."""


@dataclass
class Window:
    """The minibatches trained since the last exchange.

    Attributes:
        sequence: number of its commit, from 1.
        steps: number of minibatches.
        samples: number of rows.
        metrics: Keras's metrics over the window, set when it ends.
        epoch: epoch in which it ended.
        next_epoch: epoch of the next minibatch.
        next_step: index of the next minibatch in its epoch.
        started: when its training began, in seconds of a monotonic clock.
        seconds: time for training it; 0 for a process's first window, which compiles the step.
    """

    sequence: int
    steps: int = 0
    samples: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    next_epoch: int = 0
    next_step: int = 0
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class Loop:
    """Trains one replica on its feed, and exchanges with the center once per communication window.

    Windows continue across epochs; the last one of the job may be partial and is committed like the others.
    The answers may order another length, which holds from the next window on, or that the worker stops.

    Args:
        replica: this worker's copy of the model.
        feed: its minibatches.
        algorithm: the distributed optimizer.
        call: sends a request to the center and returns the reply; it may overwrite a message with the values
            that the center receives.
        worker: index of this worker.
        num_epoch: passes over the feed.
        overlap: train the next window during the exchange of the last one; the reply takes effect at the end
            of that next window. The sender's thread does all work of an exchange, from the algorithm's
            message to the use of the reply.
        on_start: receives the first epoch and step before training starts.
        on_orders: receives the driver's orders after each change, between two windows, and the epoch and
            step of the next minibatch.
    """

    def __init__(
        self,
        replica: Replica,
        feed: Feed,
        algorithm: Algorithm,
        call: Callable[[Request], Any],
        *,
        worker: int,
        num_epoch: int,
        overlap: bool = False,
        on_start: Callable[[int, int], None] = lambda epoch, step: None,
        on_orders: Callable[[Orders, int, int], None] = lambda orders, epoch, step: None,
    ) -> None:
        self._on_start = on_start
        self._on_orders = on_orders
        self._trained = 0
        self._replica = replica
        self._feed = feed
        self._algorithm = algorithm
        self._call = call
        self._worker = worker
        self._num_epoch = num_epoch
        self._split = replica.layout.num_trainable
        self._anchor: Vector = np.empty(0, np.float32)
        self._memory: State = {}
        self._window = Window(1)
        self._orders = self._answered = NO_ORDERS
        self._pending: Future[Vector | None] | None = None
        self._told = logger.isEnabledFor(logging.DEBUG)
        self._sender = ThreadPoolExecutor(1, "distkeras-exchange") if overlap else None

    def run(self, attempt: int = 0, ticket: int = 0) -> int:
        """Train to the end, from the start or from the last committed window of a predecessor.

        Args:
            attempt: 0 for the first process that trains as this worker, higher for its replacements.
            ticket: larger for a process that started later.

        Returns:
            Number of minibatches that this process has trained.

        Raises:
            TrainingDiverged: the loss or the weights are NaN or infinite; they were not committed.
        """
        finished = False
        try:
            while not finished:
                layout = self._replica.layout.fingerprint
                joined = self._call(Join(self._worker, attempt, ticket, layout))
                if isinstance(joined, Refused):
                    raise ValueError(f"The server does not serve worker {self._worker}: {joined.reason}.")
                try:
                    self._train_from(joined)
                    finished = True
                except _UnknownToServer:  # The new position may lie before the worker's own.
                    logger.info("Worker %d joins again: the server has restarted.", self._worker)
        finally:
            if self._sender is not None:  # After an error it may still wait for a reply, now unneeded.
                self._sender.shutdown(wait=finished)
        return self._trained

    def _train_from(self, joined: Joined) -> None:
        logger.info(
            "Worker %d trains from epoch %d, minibatch %d, window %d.",
            *(self._worker, joined.epoch, joined.step, joined.sequence),
        )
        self._window, self._pending = Window(joined.sequence + 1), None
        self._anchor, self._memory = joined.center, {}
        self._on_start(joined.epoch, joined.step)
        self._replica.write(joined.center)
        self._orders, self._answered = NO_ORDERS, joined.orders or NO_ORDERS
        self._obey(self._answered, joined.epoch, joined.step)
        for epoch in range(joined.epoch, self._num_epoch):
            if self._orders.stop:
                break
            first = joined.step if epoch == joined.epoch else 0
            if epoch == self._num_epoch - 1:  # After `fit` the metrics are those of the last epoch.
                self._replica.collect_metrics()
            self._run_epoch(epoch, first)
        if self._window.steps:
            self._commit(self._num_epoch - 1, self._num_epoch, 0)
        if self._pending is not None:
            self._pending.result()
        if isinstance(self._call(Leave(self._worker)), Rejoin):
            raise _UnknownToServer

    def _run_epoch(self, epoch: int, first: int) -> None:
        step = first
        for batch in self._feed.epoch(epoch, first):
            self._replica.train(batch.x, batch.y, batch.sample_weight)
            step += 1
            self._trained += 1
            self._window.steps += 1
            self._window.samples += batch.num_samples
            if self._window.steps == self._length:
                self._commit(epoch, epoch, step)
                if self._orders.stop:
                    return
        if self._length is None and self._window.steps:
            self._commit(epoch, epoch + 1, 0)

    @property
    def _length(self) -> int | None:
        """Minibatch steps of the current window; `None` for one epoch."""
        return self._orders.window or self._algorithm.communication_window

    def _obey(self, orders: Orders, epoch: int, step: int) -> None:
        """Take up the last answer's orders between two windows, in the thread that trains."""
        before, self._orders = self._orders, orders
        if orders.number != before.number:
            self._on_orders(orders, epoch, step)

    def _commit(self, epoch: int, next_epoch: int, next_step: int) -> None:
        """Exchange the window that ended in `epoch`; the next minibatch is `next_step` of `next_epoch`."""
        window = self._window
        window.metrics = fitting(self._replica.metrics())
        window.epoch, window.next_epoch, window.next_step = epoch, next_epoch, next_step
        local = self._replica.read()
        if self._trained > window.steps:
            window.seconds = time.monotonic() - window.started
        if self._sender is None:
            self._exchange(window, local)
            if self._anchor is not local:
                self._replica.write(self._anchor)
            self._obey(self._answered, next_epoch, next_step)
        else:
            if self._pending is not None and (change := self._pending.result()) is not None:
                with np.errstate(invalid="ignore"):  # The center rejects values that are not finite.
                    local += change
                self._replica.write(local)
            self._obey(self._answered, next_epoch, next_step)
            start = self._next_start(local)
            self._pending = self._sender.submit(self._exchange_in_background, window, local, start)
        self._window = Window(window.sequence + 1)

    def _next_start(self, local: Vector) -> Vector:
        """Return the weights from which the next window trains while `local` is exchanged."""
        start = local
        if not is_finite(local):  # The center will reject it: the next window must not start there.
            start = self._anchor.copy()
            self._replica.write(start)
        return start

    def _exchange_in_background(self, window: Window, local: Vector, start: Vector) -> Vector | None:
        """Exchange while the next window trains from `start`.

        Returns:
            The change that the reply makes to the end of that window: the anchor less `start`, in the
            memory of `start`; `None` for no change.
        """
        self._exchange(window, local)
        if self._anchor is start:
            return None
        # In place: allocating memory for a large model takes longer than the subtraction.
        return np.subtract(self._anchor, start, out=start)

    def _exchange(self, window: Window, local: Vector) -> None:
        """Commit `window`, which ended at the weights `local`, and set the anchor to the adopted reply.

        The anchor is not a copy: the client keeps a reply until the next call.
        """
        message = self._message(local, window.steps)
        request = Exchange(
            worker=self._worker,
            sequence=window.sequence,
            num_steps=window.steps,
            num_samples=window.samples,
            epoch=window.next_epoch,
            step=window.next_step,
            message=message,
            metrics=window.metrics,
            window_epoch=window.epoch,
            seconds=window.seconds,
        )
        started = time.monotonic() if self._told else 0.0
        reply: Reply = self._call(request)
        if self._told:
            self._tell(request, reply, time.monotonic() - started)
        if isinstance(reply, Rejoin):
            raise _UnknownToServer
        if isinstance(reply, Refused):
            where = f"in worker {self._worker}, epoch {window.epoch}, window {window.sequence - 1}"
            raise TrainingDiverged(_diverged(f"The server refused the update {where}: {reply.reason}."))
        if isinstance(reply, Exchanged | Skipped):
            self._answered = reply.orders or NO_ORDERS
        if isinstance(reply, Skipped):
            self._anchor, self._memory = reply.center, {}
            return
        if not isinstance(reply, Exchanged):
            raise TypeError(f"Expected the reply to a commit. Received: {type(reply).__name__}")
        self._anchor = self._adopted(local, message, reply)

    def _tell(self, request: Exchange, reply: Reply, seconds: float) -> None:
        logger.debug(
            "Exchange of worker %d: sequence %d, epoch %d, %s, staleness %d, %d bytes, %.6f s.",
            *(self._worker, request.sequence, request.window_epoch, type(reply).__name__),
            *(getattr(reply, "staleness", 0), request.message.nbytes, seconds),
        )

    def _message(self, local: Vector, num_steps: int) -> Vector:
        split = self._split
        if split == local.size:
            return self._algorithm.commit_with(local, self._anchor, num_steps, self._memory)
        message = np.empty_like(local)
        own = self._algorithm.commit_with(local[:split], self._anchor[:split], num_steps, self._memory)
        message[:split] = own
        message[split:] = local[split:]
        return message

    def _adopted(self, local: Vector, message: Vector, reply: Exchanged) -> Vector:
        if reply.restart:  # The reply itself was lost with its connection; this is the center.
            return reply.reply
        split = self._split
        if split == local.size:
            return self._algorithm.adopt_with(local, message, reply.reply, self._memory)
        weights = reply.reply.copy()
        received = reply.reply[:split]
        weights[:split] = self._algorithm.adopt_with(local[:split], message[:split], received, self._memory)
        return weights


def _diverged(what: str) -> str:
    return (
        f"{what} The center keeps the last finite weights. Lower the learning rate or the communication "
        "window, scale the inputs, or clip the gradients (`clipnorm` of the Keras optimizer)."
    )
