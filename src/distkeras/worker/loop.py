"""The worker's loop: train a window, exchange, report."""

from __future__ import annotations

import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.answers import Joined, Refused, Rejoin
from distkeras.center.bad_updates import is_finite
from distkeras.center.fragments import Fragments, steps_before
from distkeras.center.orders import NO_ORDERS, Orders
from distkeras.center.requests import MAX_STATES, Join, Leave
from distkeras.wire.frames import fitting
from distkeras.worker.epochs import EpochPlan
from distkeras.worker.exchanges import Exchanges, UnknownToServer, Window
from distkeras.worker.exchanges import TrainingDiverged as TrainingDiverged
from distkeras.worker.metric_states import packed
from distkeras.worker.step_buffer import MAX_STEPS
from distkeras.worker.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from distkeras.center.answers import Reply
    from distkeras.center.requests import Exchange, Request
    from distkeras.events import Phase, WorkerAbout
    from distkeras.worker.epochs import Passes
    from distkeras.worker.local_state import LocalState
    from distkeras.worker.metric_states import Sums
    from distkeras.worker.minibatch import Minibatch
    from distkeras.worker.replica import Replica


logger = logging.getLogger(__name__)

TOO_LARGE = (
    "The metrics of worker %d have a state of %d bytes: more than the %d that a window may carry. The "
    "metrics of an epoch are then means of its windows."
)


class Loop:
    """Trains one replica on its feed, and exchanges with the center once per communication window.

    Windows continue across epochs; the last one of the job may be partial and is committed like the others.
    The answers may order another length, which holds from the next window on, or that the worker stops.
    Fragments are exchanged in turn, and at the end every one that has been trained since its last exchange.

    Args:
        replica: this worker's copy of the model.
        feed: its minibatches.
        algorithm: the distributed optimizer.
        call: sends a request to the center and returns the reply; it may overwrite a message with the values
            that the center receives.
        worker: index of this worker.
        num_epoch: passes over the feed.
        overlap: steps to train during an exchange, after which the reply takes effect. `True` for the whole
            next window: the sender's thread then does all work of an exchange, from the algorithm's message
            to the use of the reply.
        fragments: parts of the vector that are exchanged in turn; `None` for the whole vector at once.
        plan: where windows end.
        with_states: send the states of the metrics with each window, for the center's epochs.
        rests: leave for another process that will go on with the next epoch.
        on_start: receives the worker's place before training starts, and again after the worker has joined
            anew; it returns the local state that it has taken up, or none. Windows after that state are
            repeated.
        on_orders: receives the driver's orders after each change, between two windows, and the epoch and
            step of the next minibatch.
        on_commit: receives each window before it is committed, and its weights.
        on_exchanged: receives, after each exchange without overlap, whether it has changed the weights.
        on_phase: receives what the worker does, when it begins to compile the first step, and after that.
        dropped: returns the number of the commit after which the window is to be dropped, as far as the
            server has said; it is asked after each minibatch if the algorithm `stops`. -1 for none.
        about: the process, for the center; `None` to say nothing.
        watch: measures where the time goes; by default, without the connections to the center.
    """

    def __init__(
        self,
        replica: Replica,
        feed: Passes,
        algorithm: Algorithm,
        call: Callable[[Request], Any],
        *,
        worker: int,
        num_epoch: int,
        overlap: bool | int = False,
        fragments: Fragments | None = None,
        plan: EpochPlan = EpochPlan(),  # noqa: B008 (frozen)
        with_states: bool = False,
        rests: bool = False,
        on_start: Callable[[Joined], LocalState | None] = lambda joined: None,
        on_orders: Callable[[Orders, int, int], None] = lambda orders, epoch, step: None,
        on_commit: Callable[[Window, Vector], None] = lambda window, local: None,
        on_exchanged: Callable[[bool], None] = lambda moved: None,
        on_phase: Callable[[Phase], None] = lambda phase: None,
        dropped: Callable[[], int] = lambda: -1,
        about: WorkerAbout | None = None,
        watch: Stopwatch | None = None,
    ) -> None:
        self._plan = plan
        self._with_states = with_states
        self._rests = rests
        self._on_start = on_start
        self._on_orders = on_orders
        self._on_commit = on_commit
        self._on_exchanged = on_exchanged
        self._on_phase = on_phase
        self._dropped = dropped
        self._keeps = algorithm.stops
        self._kept: list[Minibatch] = []  # Those of the window, if it may be dropped.
        self._about = about
        self._watch = Stopwatch() if watch is None else watch
        self._trained, self._is_compiling = 0, False
        self._replica = replica
        self._feed = feed
        self._algorithm = algorithm
        self._call = call
        self._worker = worker
        self._num_epoch = num_epoch
        self._exchanges = Exchanges(
            algorithm, call, worker, replica.layout.num_trainable, fragments, self._watch
        )
        self._late = 0 if isinstance(overlap, bool) else overlap
        self._window = Window(1)
        self._orders = NO_ORDERS
        self._place = 0, 0, 0  # Epoch of the last window; epoch and index of the next minibatch.
        self._pending: Future[Vector | None] | None = None
        self._under_way: tuple[Exchange, Future[Reply]] | None = None
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
                joined = self._call(Join(self._worker, attempt, ticket, layout, about=self._about))
                if isinstance(joined, Refused):
                    raise ValueError(f"The server does not serve worker {self._worker}: {joined.reason}.")
                try:
                    self._train_from(joined)
                    finished = True
                except UnknownToServer:  # The new position may lie before the worker's own.
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
        self._pending, self._under_way = None, None
        self._kept.clear()
        self._exchanges.start_from(joined.center)
        state = self._on_start(joined)
        collected = () if state is None else self._repeated(state, joined)
        self._window = Window(joined.sequence + 1)
        self._place = joined.epoch, joined.epoch, joined.step
        take = self._replica.adopt if joined.sequence else self._replica.write
        take(joined.center)
        self._orders, self._exchanges.orders = NO_ORDERS, joined.orders or NO_ORDERS
        self._watch.skip()
        self._obey(joined.epoch, joined.step)
        for epoch in range(joined.epoch, self._num_epoch):
            if self._orders.stop:
                break
            first = joined.step if epoch == joined.epoch else 0
            if epoch == self._num_epoch - 1:  # After `fit` the metrics are those of the last epoch.
                self._replica.collect_metrics(collected if epoch == joined.epoch else ())
            self._run_epoch(epoch, first)
        while self._exchanges.is_due(self._window):
            # After a stop the place stays: a resumed training goes on there.
            at_end = self._num_epoch - 1, self._num_epoch, 0
            self._commit(*(self._place if self._orders.stop else at_end))
        self._land()
        if self._pending is not None:
            self._pending.result()
        rests = self._rests and not self._orders.stop
        if isinstance(self._call(Leave(self._worker, rests=rests)), Rejoin):
            raise UnknownToServer

    def _repeated(self, state: LocalState, joined: Joined) -> Sequence[Sums]:
        """Train the windows after `state` again, up to the last one that was committed.

        Their exchanges have not changed the weights. What they leave is the state after the last one: that
        of the optimizer, of seeds and metrics.

        Returns:
            The sums of the metrics of the last epoch so far, if it has begun.
        """
        sequence, epoch, step = state.place
        if not sequence or sequence == joined.sequence:
            return state.metrics
        logger.info("Worker %d repeats windows %d to %d.", self._worker, sequence, joined.sequence - 1)
        self._window, self._orders = Window(sequence + 1), joined.orders or NO_ORDERS
        self._replica.write(state.start["weights"])
        sums, collects = state.metrics, False
        while (epoch, step) < (joined.epoch, joined.step):
            if epoch == self._num_epoch - 1:
                self._replica.collect_metrics(sums)
                collects = True
            steps = joined.step - step if epoch == joined.epoch else None
            for batch in islice(self._feed.epoch(epoch, step), steps):
                self._train(batch)
                if self._window.steps == self._length:
                    self._end_repeated()
            if self._length is None or self._plan.windows_end:
                self._end_repeated()
            epoch, step, sums = epoch + 1, 0, []
        self._end_repeated()  # If an order has changed the length meanwhile.
        return self._replica.collected_metrics() if collects else sums

    def _end_repeated(self) -> None:
        """End a window that is committed already."""
        if self._window.steps:
            self._measure(self._window)
            self._window = Window(self._window.sequence + 1)

    def _train(self, batch: Minibatch) -> None:
        if not self._trained:
            self._is_compiling = True
            self._on_phase("compiling")
        self._replica.train(batch.x, batch.y, batch.sample_weight)
        self._trained += 1
        if self._trained == MAX_STEPS + 1:  # The first ones may have waited to be trained together.
            self._end_compiling()
        self._window.steps += 1
        self._window.samples += batch.num_samples

    def _end_compiling(self) -> None:
        if self._is_compiling:
            self._is_compiling = False
            self._on_phase("training")

    def _run_epoch(self, epoch: int, first: int) -> None:
        step, watch = first, self._watch
        batches = iter(self._feed.epoch(epoch, first))
        watch.skip()
        while True:
            batch = next(batches, None)
            watch.waited()
            if batch is None:
                break
            self._train(batch)
            if self._keeps and not self._keep(batch):
                return
            step += 1
            watch.computed()
            if self._window.steps == self._late:
                self._land()
            length = self._length
            if length is not None and self._window.steps >= length:  # An order may have shortened it.
                self._commit(epoch, epoch, step)
                if self._orders.stop:
                    return
        if (self._length is None or self._plan.windows_end) and self._window.steps:
            self._commit(epoch, epoch + 1, 0)

    def _keep(self, batch: Minibatch) -> bool:
        """Keep a minibatch that was trained. If the window is to be dropped, train its minibatches again.

        Returns:
            Whether to go on; `False` if the driver has ordered to stop, with no window begun.
        """
        self._kept.append(batch)
        again: deque[Minibatch] = deque()
        while True:
            if self._dropped() == self._window.sequence - 1:
                again.extendleft(reversed(self._kept))
                self._drop()
            if self._orders.stop:
                return False
            if not again:
                return True
            self._train(again[0])
            self._kept.append(again.popleft())

    def _drop(self) -> None:
        """Tell the center that the window is dropped, and continue from the center as after the last one."""
        window, (_, epoch, step) = self._window, self._place
        self._replica.forget()
        self._kept.clear()
        # A message of no progress and no rows: the center discards it.
        window.behind, window.steps, window.samples = (window.steps, 0), 0, 0
        window.epoch, window.next_epoch, window.next_step = epoch, epoch, step
        anchor = self._exchanges.anchor
        self._on_commit(window, anchor)
        window.timing = self._watch.take()
        self._replica.adopt(self._exchanges.exchange(window, anchor))
        self._on_exchanged(True)
        self._obey(epoch, step)
        self._window = Window(window.sequence + 1)

    @property
    def _length(self) -> int | None:
        """Minibatch steps of the current window; `None` for one epoch."""
        steps = self._orders.window or self._algorithm.communication_window
        longest = self._plan.longest_window
        if longest is not None:
            steps = min(steps or longest, longest)
        return steps and steps_before(self._window.sequence, steps, self._exchanges.num_fragments, self._late)

    def _obey(self, epoch: int, step: int) -> None:
        """Take up the last answer's orders between two windows, in the thread that trains."""
        self._watch.exchanged()
        before, self._orders = self._orders, self._exchanges.orders
        # A copy of the center that is to be evaluated may come, or go, after the order.
        if (self._orders.number, self._orders.evaluate) != (before.number, before.evaluate):
            self._on_orders(self._orders, epoch, step)
            self._watch.skip()  # The driver may have asked for an evaluation.

    def _commit(self, epoch: int, next_epoch: int, next_step: int) -> None:
        """Exchange the window that ended in `epoch`; the next minibatch is `next_step` of `next_epoch`."""
        self._land()
        self._kept.clear()
        window, self._place = self._window, (epoch, next_epoch, next_step)
        self._measure(window)
        self._exchanges.end(window)
        window.epoch, window.next_epoch, window.next_step = epoch, next_epoch, next_step
        local = self._replica.read()  # The backend has computed all steps when this returns.
        self._watch.computed()
        self._end_compiling()
        if self._trained > window.steps:
            window.seconds = time.monotonic() - window.started
        self._on_commit(window, local)
        if self._sender is None:
            window.timing = self._watch.take()
            adopted = self._exchanges.exchange(window, local)
            self._on_exchanged(adopted is not local)
            if adopted is not local or self._exchanges.num_fragments > 1:
                self._replica.adopt(adopted)
            self._obey(next_epoch, next_step)
        elif self._late:
            self._obey(next_epoch, next_step)
            window.timing = self._watch.take()
            request = self._exchanges.request(window, local)
            self._under_way = request, self._sender.submit(self._exchanges.ask, request)
        else:
            if self._pending is not None and (change := self._pending.result()) is not None:
                with np.errstate(invalid="ignore"):  # The center rejects values that are not finite.
                    local += change
                self._replica.adopt(local)
            self._obey(next_epoch, next_step)
            window.timing = self._watch.take()
            start = self._next_start(local)
            self._pending = self._sender.submit(self._exchange_in_background, window, local, start)
        self._window = Window(window.sequence + 1)

    def _measure(self, window: Window) -> None:
        """Set the metrics of `window`, and if they are needed their states."""
        if not self._with_states:
            window.metrics = fitting(self._replica.metrics())
            return
        metrics, states = self._replica.metrics_and_states()
        window.metrics, window.states = fitting(metrics), packed(states)
        if len(window.states) > MAX_STATES:
            if window.sequence == 1:
                logger.warning(TOO_LARGE, self._worker, len(window.states), MAX_STATES)
            window.states = b""

    def _next_start(self, local: Vector) -> Vector:
        """Return the weights from which the next window trains while `local` is exchanged."""
        start = local
        if not is_finite(local):  # The center will reject it: the next window must not start there.
            start = self._exchanges.anchor.copy()
            self._replica.write(start)
        return start

    def _exchange_in_background(self, window: Window, local: Vector, start: Vector) -> Vector | None:
        """Exchange while the next window trains from `start`.

        Returns:
            The change that the reply makes to the end of that window: what is adopted less `start`, in the
            memory of `start`; `None` for no change.
        """
        adopted = self._exchanges.exchange(window, local)
        if adopted is start:
            return None
        # In place: allocating memory for a large model takes longer than the subtraction.
        return np.subtract(adopted, start, out=start)

    def _land(self) -> None:
        """Take up the reply to the message that is under way, if one is: wait for it if need be."""
        if self._under_way is None:
            return
        (request, reply), self._under_way = self._under_way, None
        local = self._replica.read()
        self._watch.computed()
        self._replica.adopt(self._exchanges.take_up(request, reply.result(), local))
        self._watch.exchanged()
